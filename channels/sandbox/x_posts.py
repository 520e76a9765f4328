"""X's posts: create, read back, delete, with X's rules for text, replies and limits.

Owns who may post and what X refuses. It must not know our adapter.
https://docs.x.com/x-api/posts/create-post
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from channels.sandbox.answers import JSON_UTF8, Request, reply
from channels.sandbox.config import Behaviour, Provider, SandboxConfig
from channels.sandbox.oauth1 import Secrets, Verifier
from channels.sandbox.outbox import Outbox
from channels.sandbox.x_problems import (
    APP_ONLY,
    DUPLICATE,
    GONE,
    PROBLEMS,
    REPLY_RULE,
    TOO_LONG,
    Refused,
    invalid,
    not_found,
    problem,
)
from channels.text import x_weight

MAX_WEIGHT = 280
_FIELDS = frozenset(
    [
        "text",
        "reply",
        "quote_tweet_id",
        "media",
        "poll",
        "reply_settings",
        "edit_options",
        "direct_message_deep_link",
        "for_super_followers_only",
        "geo",
        "nullcast",
        "card_uri",
        "community_id",
        "made_with_ai",
        "paid_partnership",
        "share_with_followers",
    ]
)
_EPOCH_MS = 1288834974657  # of X's ids


@dataclass(frozen=True, slots=True)
class _Post:
    """A post that stands on the timeline."""

    id: str
    text: str
    created_at: float
    reply_to: str | None
    conversation: str


class XPosts:
    """The timeline of the one configured account; its address in the outbox is the username."""

    provider = Provider.X

    def __init__(
        self,
        config: SandboxConfig,
        outbox: Outbox,
        behaviour: Behaviour,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._outbox = outbox
        self._clock = clock
        secrets = Secrets(
            config.x_consumer_key,
            config.x_consumer_secret,
            config.x_access_token,
            config.x_access_token_secret,
        )
        self._verifier = Verifier(secrets, clock)
        self._behaviour = behaviour
        self._last_id = 0
        self._window_ends = 0.0
        self._left = config.x_posts_per_window
        self.clear()

    def clear(self) -> None:
        """Empties the timeline; the rate window goes on."""
        self._posts: dict[str, _Post] = {}

    def is_send(self, request: Request) -> bool:
        return request.method == b"POST" and request.path == b"/2/tweets"

    def addresses(self, request: Request) -> list[str]:
        return [self._config.x_username]

    def account(self, request: Request) -> int:
        return 1

    def halved(self, request: Request) -> Request | None:
        return None

    def refusal(self, status: int, code: int | str | None = None) -> bytes:
        titles = {401: "Unauthorized", 429: "Too Many Requests", 503: "Service Unavailable"}
        detail = str(code) if code is not None else titles.get(status, "Something is broken.")
        return reply(status, orjson.dumps(problem(status, detail)), JSON_UTF8)

    def answer(self, request: Request) -> bytes:
        try:
            self._authenticate(request)
            if self.is_send(request):
                return self._create(request)
            return self._read_or_delete(request)
        except Refused as refused:
            return reply(refused.status, orjson.dumps(refused.body), JSON_UTF8)

    def _authenticate(self, request: Request) -> None:
        header = request.headers.get(b"authorization", b"")
        if header == f"Bearer {self._config.x_user_token}".encode():
            return
        if header == f"Bearer {self._config.x_app_token}".encode():
            if request.method == b"GET" and request.path != b"/2/users/me":
                return
            more = {"type": f"{PROBLEMS}unsupported-authentication"}
            raise Refused(403, APP_ONLY, title="Unsupported Authentication", **more)
        if not self._verifier.verifies(request):
            raise Refused(401, "Unauthorized")

    # --- create --------------------------------------------------------------------------

    def _create(self, request: Request) -> bytes:
        within, headers = self._spend()
        if not within:
            body = orjson.dumps(problem(429, "Too Many Requests"))
            return reply(429, body, JSON_UTF8, headers=headers)
        try:
            post = self._checked(request)
        except Refused as refused:
            return reply(refused.status, orjson.dumps(refused.body), JSON_UTF8, headers=headers)
        self._posts[post.id] = post
        self._outbox.add(
            Provider.X,
            self._config.x_username,
            post.text,
            ref=post.id,
            sender=self._config.x_username,
        )
        data = {"text": post.text, "id": post.id, "edit_history_tweet_ids": [post.id]}
        return reply(201, orjson.dumps({"data": data}), JSON_UTF8, headers=headers)

    def _spend(self) -> tuple[bool, bytes]:
        """(whether there was room, the rate headers); every attempt counts, as with X."""
        now, limit = self._clock(), self._config.x_posts_per_window
        if now >= self._window_ends:
            self._window_ends, self._left = now + self._config.x_window, limit
        within = self._left > 0
        self._left -= within
        return within, (
            b"x-rate-limit-limit: %d\r\nx-rate-limit-remaining: %d\r\nx-rate-limit-reset: %d\r\n"
            % (limit, self._left, int(self._window_ends) + 1)
        )

    def _checked(self, request: Request) -> _Post:
        try:
            asked = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            raise invalid("Requests with bodies must have valid JSON.") from None
        if not isinstance(asked, dict):
            raise invalid("$: is not an object")
        for name in asked:
            if name not in _FIELDS:
                raise invalid(f"$.{name}: is not defined in the schema and the schema does not "
                               "allow additional properties")  # fmt: skip
        text = asked.get("text", "")
        if not isinstance(text, str) or (not text.strip() and not asked.get("media")):
            raise invalid("$.text: is missing, empty or not a string")
        if x_weight(text) > MAX_WEIGHT:
            raise Refused(400, TOO_LONG)
        parent = self._parent(asked.get("reply"))
        if any(post.text == text for post in self._posts.values()):
            raise Refused(403, DUPLICATE)
        self._last_id = max(self._last_id + 1, int(self._clock() * 1000) - _EPOCH_MS << 22)
        number = str(self._last_id)
        return _Post(
            id=number,
            text=text,
            created_at=self._clock(),
            reply_to=parent.id if parent else None,
            conversation=parent.conversation if parent else number,
        )

    def _parent(self, asked: object) -> _Post | None:
        if asked is None:
            return None
        number = asked.get("in_reply_to_tweet_id") if isinstance(asked, dict) else None
        if not isinstance(number, str) or not number.isdigit() or len(number) > 19:
            raise invalid("$.reply.in_reply_to_tweet_id: is missing but it is required")
        if self._behaviour.x_replies_refused:
            raise Refused(403, REPLY_RULE)
        parent = self._posts.get(number)
        if parent is None:
            raise Refused(403, GONE)
        return parent

    # --- read and delete -----------------------------------------------------------------

    def _read_or_delete(self, request: Request) -> bytes:
        parts = request.path.decode("latin-1").strip("/").split("/")
        params = request.params()
        if request.method == b"GET" and parts == ["2", "users", "me"]:
            return _data(self._user())
        if len(parts) == 4 and parts[1] == "users" and parts[3] == "tweets":
            if parts[2] != self._config.x_user_id:
                raise not_found("user", parts[2])
            return self._timeline(params)
        if len(parts) == 3 and parts[1] == "tweets" and request.method in (b"GET", b"DELETE"):
            post = self._posts.get(parts[2])
            if request.method == b"DELETE":
                # Of a post that is not there X says the same: it is gone.
                self._posts.pop(parts[2], None)
                return _data({"deleted": True})
            if post is None:
                raise not_found("tweet", parts[2])
            return _data(self._shown(post, params))
        raise Refused(404, "Not Found")

    def _user(self) -> dict[str, str]:
        username = self._config.x_username
        return {"id": self._config.x_user_id, "name": "Outage Sandbox", "username": username}

    def _timeline(self, params: dict[str, str]) -> bytes:
        size = params.get("max_results", "10")
        if not size.isdigit() or not 5 <= int(size) <= 100:
            raise invalid("The `max_results` query parameter value is not between 5 and 100")
        oldest, newest = _id(params, "since_id", 0), _id(params, "until_id", 1 << 63)
        newest = min(newest, _id(params, "pagination_token", 1 << 63))
        start, end = _moment(params, "start_time"), _moment(params, "end_time")
        shown = self._clock() - self._behaviour.x_list_lag
        found = [
            post
            for post in reversed(self._posts.values())
            if oldest < int(post.id) < newest
            and post.created_at <= shown
            and (start is None or post.created_at >= start)
            and (end is None or post.created_at < end)
        ]
        page = found[: int(size)]
        if not page:
            return reply(200, b'{"meta":{"result_count":0}}', JSON_UTF8)
        meta: dict[str, Any] = {
            "result_count": len(page),
            "newest_id": page[0].id,
            "oldest_id": page[-1].id,
        }
        if len(found) > len(page):
            meta["next_token"] = page[-1].id
        data = [self._shown(post, params) for post in page]
        return reply(200, orjson.dumps({"data": data, "meta": meta}), JSON_UTF8)

    def _shown(self, post: _Post, params: dict[str, str]) -> dict[str, Any]:
        wanted = params.get("tweet.fields", "").split(",")
        made = datetime.fromtimestamp(post.created_at, UTC).isoformat(timespec="milliseconds")
        replied = [{"type": "replied_to", "id": post.reply_to}]
        further: dict[str, Any] = {
            "created_at": made.replace("+00:00", "Z"),
            "author_id": self._config.x_user_id,
            "conversation_id": post.conversation,
        }
        if post.reply_to is not None:
            further |= {"referenced_tweets": replied, "in_reply_to_user_id": self._config.x_user_id}
        chosen = {name: value for name, value in further.items() if name in wanted}
        return {"id": post.id, "text": post.text, "edit_history_tweet_ids": [post.id]} | chosen


def _id(params: dict[str, str], name: str, default: int) -> int:
    text = params.get(name, str(default))
    if not text.isascii() or not text.isdigit():
        raise invalid(f"The `{name}` query parameter value [{text}] is not valid")
    return int(text)


def _moment(params: dict[str, str], name: str) -> float | None:
    if name not in params:
        return None
    try:
        return datetime.fromisoformat(params[name]).timestamp()
    except ValueError:
        raise invalid(f"The `{name}` query parameter value is not a date and time") from None


def _data(value: dict[str, Any]) -> bytes:
    return reply(200, orjson.dumps({"data": value}), JSON_UTF8)

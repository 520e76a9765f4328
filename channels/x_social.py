"""Posts to X through tweepy; requests that tweepy builds and signs leave over our transport.

Knows X's protocol and its ways of saying no. It must not know incidents: a thread is only
the id of the post to reply to. Where X refuses a reply for being one, the same text is
posted on its own; that is the one case of a second request, after a definite refusal.
"""

import asyncio
import io
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from threading import Lock
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from channels.contract import (
    Accepted,
    CannotTell,
    Channel,
    ContactKind,
    Envelope,
    Finding,
    Found,
    Limits,
    Message,
    MessageRefused,
    NotTaken,
    Outcome,
    Problem,
    Reason,
    RecipientRefused,
    Severity,
    TryLater,
    Unit,
    Unknown,
)
from channels.text import (
    X_LIMIT,
    SlotError,
    fill,
    strip_controls,
    worst_case,
    x_cashtags,
    x_links,
    x_weight,
)
from channels.transport import NoAnswer, NotSent, Request, Response, Transport, TransportError
from channels.x_answers import (
    POST_ID,
    Post,
    Unreadable,
    canonical,
    first_id_at,
    judge,
    member,
    read_document,
    read_posts,
    refuses_reply,
)

_HORIZON = timedelta(days=7)
_PAGES = 5
_CLOCKS_APART = 60.0  # seconds that X's clock may be behind ours


class XSettings(BaseModel):
    """OAuth 1.0a user credentials of one account.

    `account` is its handle; when set, an envelope for another one is refused. `timeout` is
    in seconds, and so is `settle_after`, how late X may show a post in the timeline. tweepy signs for api.twitter.com, so that is where requests go in earnest;
    a simulator at another `base_url` has to verify the signature against it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    consumer_key: SecretStr = Field(min_length=1)
    consumer_secret: SecretStr = Field(min_length=1)
    access_token: SecretStr = Field(min_length=1)
    access_token_secret: SecretStr = Field(min_length=1)
    account: str = ""
    base_url: str = "https://api.twitter.com"
    timeout: float = Field(default=15.0, gt=0, le=60)
    settle_after: float = Field(default=120.0, ge=0, le=3600)

    @field_validator("base_url")
    @classmethod
    def _origin(cls, value: str) -> str:
        parts = urlsplit(value.rstrip("/"))
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query:
            raise ValueError("must be an http or https origin without a path")
        return value.rstrip("/")


class XSocial:
    """One account on X. `find` reads its timeline; it never posts to find something out."""

    name: ClassVar[str] = "x_social"
    channel: ClassVar[str] = Channel.SOCIAL
    accepts: ClassVar[str] = ContactKind.X_ACCOUNT
    parts: ClassVar[tuple[str, ...]] = ("text",)
    limits: Limits = Limits(unit=Unit.MESSAGE, settle_after=120.0)
    Settings: ClassVar[type[XSettings]] = XSettings

    def __init__(
        self,
        settings: XSettings,
        transport: Transport,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.limits = replace(type(self).limits, settle_after=settings.settle_after)
        self._transport = transport
        self._clock = clock
        self._user_id = ""

    def check(self, message: Message) -> list[Problem]:
        """Errors: empty, over 280 of X's weight, several cashtags. Warning: a link costs more.

        Prices: https://docs.x.com/x-api/getting-started/pricing; cashtags:
        https://docs.x.com/x-api/posts/manage-tweets/integrate
        """
        text = worst_case(message).get("text", "")
        if not strip_controls(text).strip():
            return [Problem(Severity.ERROR, "empty", "text", "The post is empty.")]
        problems = []
        if (weight := x_weight(text)) > X_LIMIT:
            words = f"The post weighs {weight}; X takes at most {X_LIMIT}."
            problems.append(Problem(Severity.ERROR, "too_long", "text", words))
        if len(x_cashtags(text)) > 1:
            words = "X refuses a post with more than one cashtag."
            problems.append(Problem(Severity.ERROR, "cashtags", "text", words))
        if x_links(text):
            words = "X charges $0.20 for a post with a link and $0.015 for one without."
            problems.append(Problem(Severity.WARNING, "paid_link", "text", words))
        return problems

    async def send(self, message: Message, envelopes: Sequence[Envelope]) -> AsyncIterator[Outcome]:
        """Post for each envelope, one after the other."""
        for envelope in envelopes:
            yield await self._send(message, envelope)

    async def _send(self, message: Message, envelope: Envelope) -> Outcome:
        if not self._speaks_for(envelope.address):
            detail = "this adapter speaks for another account"
            return RecipientRefused(envelope.key, Reason.INVALID_ADDRESS, detail)
        try:
            text = fill(message, envelope)["text"]
        except SlotError as refused:
            return MessageRefused(envelope.key, Reason.SLOT_VALUE, str(refused))
        reply_to = envelope.reply_to
        if reply_to is not None and not POST_ID.fullmatch(reply_to):
            reply_to = None
        outcome, answer = await self._post(text, reply_to, envelope)
        if reply_to is not None and answer is not None and refuses_reply(answer):
            outcome, _ = await self._post(text, None, envelope)
            if isinstance(outcome, Accepted):
                detail = "X refused the reply; posted on its own"
                outcome = Accepted(envelope.key, outcome.ref, detail=detail)
        return outcome

    def _speaks_for(self, address: str) -> bool:
        own = self.settings.account
        return not own or _handle(own) == _handle(address)

    async def _post(
        self, text: str, reply_to: str | None, envelope: Envelope
    ) -> tuple[Outcome, Response | None]:
        try:
            answer = await self._call(
                lambda client: client.create_tweet(text=text, in_reply_to_tweet_id=reply_to)
            )
        except NotSent:
            return TryLater(envelope.key, Reason.UNREACHABLE, detail="could not connect"), None
        except NoAnswer as lost:
            return Unknown(envelope.key, lost.reason, str(lost)), None
        return judge(answer, envelope, self._clock()), answer

    async def _call(self, call: Callable[[Any], object]) -> Response:
        """Run one call of tweepy in a thread and give back what X answered to it."""
        courier = _Courier(self._transport, self.settings)
        try:
            await asyncio.to_thread(courier.run, call)
        except asyncio.CancelledError:
            courier.cancel()
            raise
        if courier.answer is None:
            raise RuntimeError("tweepy made no request")
        return courier.answer

    async def find(self, message: Message, envelopes: Sequence[Envelope]) -> Mapping[str, Finding]:
        """Look for each post in the account's own timeline of the last seven days.

        `NotTaken` only if the timeline was read whole back to the try, `CannotTell` if anything
        goes wrong on the way. The newest post with the same words counts, and only one newer
        than the try and the post that it was to reply to, and not accounted for already.
        """
        try:
            posts, whole = await self._timeline()
        except (TransportError, Unreadable):
            return {envelope.key: CannotTell() for envelope in envelopes}
        findings: dict[str, Finding] = {}
        taken: set[str] = set()
        for envelope in envelopes:
            ref = self._match(message, envelope, [p for p in posts if p.ref not in taken])
            if ref is not None:
                taken.add(ref)
                findings[envelope.key] = Found(ref)
            else:
                seen = whole and self._within_reach(envelope)
                findings[envelope.key] = NotTaken() if seen else CannotTell()
        return findings

    def _within_reach(self, envelope: Envelope) -> bool:
        """Whether the timeline that is read goes back to the try."""
        tried = envelope.tried_at
        return tried is None or tried.timestamp() > self._clock() - _HORIZON.total_seconds()

    def _match(self, message: Message, envelope: Envelope, posts: "Sequence[Post]") -> str | None:
        try:
            wanted = canonical(fill(message, envelope)["text"])
        except SlotError:
            return None
        parent = envelope.reply_to or ""
        after = int(parent) if POST_ID.fullmatch(parent) else 0
        if envelope.tried_at is not None:
            after = max(after, first_id_at(envelope.tried_at.timestamp() - _CLOCKS_APART))
        refs = [
            int(post.ref)
            for post in posts
            if post.text == wanted and int(post.ref) > after and post.ref not in envelope.known_refs
        ]
        return str(max(refs)) if refs else None

    async def _timeline(self) -> "tuple[list[Post], bool]":
        """Own posts of the last seven days, and whether they are all of them."""
        if not self._user_id:
            me = read_document(await self._call(lambda client: client.get_me()))
            self._user_id = str(member(me, "data").get("id", ""))
            if not POST_ID.fullmatch(self._user_id):
                self._user_id = ""
                raise Unreadable
        since = datetime.fromtimestamp(self._clock(), UTC) - _HORIZON
        posts: list[Post] = []
        token: str | None = None
        for _ in range(_PAGES):
            page = read_document(await self._call(self._page_call(since, token)))
            posts.extend(read_posts(page))
            token = member(page, "meta").get("next_token")
            if not token:
                return posts, True
        return posts, False

    def _page_call(self, since: datetime, token: str | None) -> Callable[[Any], object]:
        return lambda client: client.get_users_tweets(
            self._user_id,
            user_auth=True,
            max_results=100,
            start_time=since.strftime("%Y-%m-%dT%H:%M:%SZ"),
            tweet_fields=["created_at", "entities"],
            **({"pagination_token": token} if token else {}),
        )


class _Courier:
    """What tweepy's session takes for its HTTP adapter: it hands each request to our transport.

    Made for one call, on the event loop; `run` and `send` happen in a worker thread. tweepy
    gets to see only the status of a refusal: it trips over odd bodies and headers, and
    `answer` keeps the whole of it for us.
    """

    def __init__(self, transport: Transport, settings: XSettings) -> None:
        self.answer: Response | None = None
        self._transport = transport
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._future: Future[Response] | None = None
        self._cancelled = False
        self._lock = Lock()

    def run(self, call: Callable[[Any], object]) -> None:
        """Raises `TransportError`; a refusal by X is no exception but in `answer`."""
        tweepy, requests = _sdk()
        keys = self._settings
        client = tweepy.Client(
            consumer_key=keys.consumer_key.get_secret_value(),
            consumer_secret=keys.consumer_secret.get_secret_value(),
            access_token=keys.access_token.get_secret_value(),
            access_token_secret=keys.access_token_secret.get_secret_value(),
            return_type=requests.Response,
            wait_on_rate_limit=False,
        )
        client.session.trust_env = False
        client.session.adapters.clear()
        client.session.mount("https://", self)
        try:
            call(client)
        except tweepy.HTTPException:
            if self.answer is None:
                raise

    def send(self, request: Any, **_: object) -> Any:
        """Called by requests with what it has prepared; its own options do not apply."""
        parts = urlsplit(request.url)
        url = self._settings.base_url + parts.path + (f"?{parts.query}" if parts.query else "")
        ours = Request(
            method=request.method,
            url=url,
            headers=_headers(request.headers),
            body=_bytes(request.body),
            timeout=self._settings.timeout,
        )
        with self._lock:
            if self._cancelled:
                raise CancelledError
            self._future = asyncio.run_coroutine_threadsafe(
                self._transport.request(ours), self._loop
            )
        self.answer = self._future.result()
        return self._seen_by_tweepy(request, self.answer)

    def _seen_by_tweepy(self, request: Any, answer: Response) -> Any:
        _, requests = _sdk()
        response = requests.Response()
        response.status_code = answer.status
        response.url = request.url
        response.request = request
        response.raw = io.BytesIO(answer.body if 200 <= answer.status < 300 else b"")
        return response

    def cancel(self) -> None:
        """Also before the worker thread has begun: it begins nothing then."""
        with self._lock:
            self._cancelled = True
            if self._future is not None:
                self._future.cancel()

    def close(self) -> None:
        """Part of what a session expects; nothing is held open here."""


@cache
def _sdk() -> tuple[Any, Any]:
    """tweepy and requests, imported on first use and kept from logging keys and signatures."""
    try:
        import requests
        import tweepy
    except ImportError as error:
        raise ImportError("x_social needs the package tweepy") from error
    for name in ("tweepy", "oauthlib", "requests_oauthlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return tweepy, requests


# Ours to set: the transport measures the body, keeps connections and does not unpack.
_TRANSPORTS_OWN = frozenset({"content-length", "connection", "accept-encoding"})


def _headers(prepared: Mapping[Any, Any]) -> list[tuple[str, str]]:
    pairs = [(_text(name), _text(value)) for name, value in prepared.items()]
    return [(name, value) for name, value in pairs if name.lower() not in _TRANSPORTS_OWN]


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body or b"")


def _handle(account: str) -> str:
    return account.strip().removeprefix("@").casefold()

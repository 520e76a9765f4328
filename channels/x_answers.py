"""Reading what X answers: a post taken or refused, why, and the posts of a timeline.

Pure functions over a status, headers and a body, which may be no JSON at all. They must not
know tweepy, nor send anything.
"""

import html
import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from channels.contract import (
    Accepted,
    AdapterBroken,
    Envelope,
    MessageRefused,
    Outcome,
    Reason,
    TryLater,
    Unknown,
)
from channels.text import x_links
from channels.transport import Response

POST_ID = re.compile(r"[0-9]{1,19}")
_ID_EPOCH_MS = 1_288_834_974_657


def judge(answer: Response, envelope: Envelope, now: float) -> Outcome:
    """X's answer to a post as an outcome; `now` is the epoch time for `x-rate-limit-reset`.

    https://docs.x.com/x-api/fundamentals/response-codes-and-errors
    """
    key, status = envelope.key, answer.status
    detail = _detail(answer)
    if 200 <= status < 300:
        ref = _accepted_ref(answer)
        if ref is None:
            return Unknown(key, Reason.UNREADABLE_ANSWER, detail)
        return Accepted(key, ref)
    if status == 403:
        return _forbidden(answer, envelope)
    if status == 429:
        reason = Reason.QUOTA if "usage-capped" in _words(answer) else Reason.THROTTLED
        return TryLater(key, reason, wait_seconds(answer, now), detail)
    if status == 503:
        return TryLater(key, Reason.PROVIDER_ERROR, answer.retry_after(), detail)
    if status in (400, 413, 422):
        return MessageRefused(key, _content_reason(_words(answer)), detail)
    if status >= 500 or status == 408:
        return Unknown(key, Reason.PROVIDER_ERROR, detail)
    # 402: no credit left. Others, redirects too: not the service that we think we speak to.
    reason = Reason.CREDENTIALS if status == 401 else Reason.ACCOUNT
    return AdapterBroken(key, reason, detail)


def _forbidden(answer: Response, envelope: Envelope) -> Outcome:
    key, words, detail = envelope.key, _words(answer), _detail(answer)
    if "duplicate" in words:
        # A first try cannot have posted it, a later one is probably what it duplicates.
        if envelope.attempt == 1:
            return MessageRefused(key, Reason.DUPLICATE_CONTENT, detail)
        return Unknown(key, Reason.DUPLICATE_CONTENT, detail)
    if _TOO_LONG.search(words):
        return MessageRefused(key, Reason.TOO_LONG, detail)
    if _ACCOUNT.search(words):
        return AdapterBroken(key, Reason.ACCOUNT, detail)
    return AdapterBroken(key, Reason.PERMISSION, detail)


def refuses_reply(answer: Response) -> bool:
    """Whether X refused the post for being a reply: by its rule, or since the other is gone.

    Since 2026-02-23 a reply needs an invitation by the author replied to, and what X says
    then is not told apart by a code: https://docs.x.com/changelog. So a refusal for
    which no other reason is given counts; a body that is not X's own does not.
    """
    words = _words(answer)
    if answer.status == 400:
        return "in_reply_to_tweet_id" in words
    if answer.status != 403 or not words:
        return False
    return not (
        "duplicate" in words
        or _TOO_LONG.search(words)
        or _ACCOUNT.search(words)
        or _PERMISSION.search(words)
    )


_TOO_LONG = re.compile(r"too long|\bcode 186\b")
_ACCOUNT = re.compile(
    r"suspended|\blocked\b|automated|\bcode (?:64|226|326)\b|usage-capped|\bcredits?\b"
)
_PERMISSION = re.compile(
    r"client-forbidden|not-authorized-for-resource|oauth1-permissions|unsupported-authentication"
    r"|client-not-enrolled|app permissions|access level"
)


def _content_reason(words: str) -> Reason:
    return Reason.TOO_LONG if _TOO_LONG.search(words) else Reason.CONTENT


def wait_seconds(answer: Response, now: float) -> float | None:
    """Seconds until the exhausted window opens again, as far as a 429 tells.

    The day's windows count when they are used up, else the quarter of an hour's.
    https://docs.x.com/x-api/fundamentals/rate-limits
    """
    headers = answer.headers
    resets = [
        headers.get(f"x-{whose}-limit-24hour-reset")
        for whose in ("app", "user")
        if headers.get(f"x-{whose}-limit-24hour-remaining") == "0"
    ]
    epochs = [int(reset) for reset in resets if reset and reset.isdecimal()]
    quarter = headers.get("x-rate-limit-reset", "")
    if not epochs and quarter.isdecimal():
        epochs = [int(quarter)]
    if epochs:
        return max(0.0, max(epochs) - now)
    return answer.retry_after()


class Unreadable(Exception):
    """X's answer to a question is not what was asked for."""


def _parsed(answer: Response) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def read_document(answer: Response) -> dict[str, Any]:
    if answer.status != 200:
        raise Unreadable
    return _parsed(answer)


def member(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _accepted_ref(answer: Response) -> str | None:
    ref = member(_parsed(answer), "data").get("id")
    return ref if isinstance(ref, str) and POST_ID.fullmatch(ref) else None


def _errors(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    errors = document.get("errors")
    return [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []


def _words(answer: Response) -> str:
    """All that a problem says, in lower case; nothing for a body that is not X's."""
    document = _parsed(answer)
    said = [document.get(name) for name in ("type", "title", "detail", "reason")]
    for error in _errors(document):
        said.extend((error.get("message"), error.get("detail"), error.get("type")))
        said.append(f"code {error.get('code')}")
        said.extend(member(error, "parameters"))
    return "\n".join(str(words) for words in said if words).lower()


def _detail(answer: Response) -> str:
    """Status, problem type and codes: what X says in prose may quote the post."""
    document = _parsed(answer)
    kind = str(document.get("type") or "").rpartition("/")[2]
    codes = [error.get("code") for error in _errors(document)]
    words = [f"X answered {answer.status}"]
    if re.fullmatch(r"[a-z0-9-]{1,40}", kind):
        words.append(kind)
    words.extend(f"code {code}" for code in codes[:3] if isinstance(code, int))
    return ", ".join(words)


# --- the timeline ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Post:
    ref: str
    text: tuple[str, tuple[str, ...]]


def read_posts(page: Mapping[str, Any]) -> list[Post]:
    """The posts of one page of a timeline.

    Raises `Unreadable` for anything less than a whole page: an empty one is X's word that
    there is no post, and a message may be sent again on it.
    """
    rows = page.get("data", [])
    if not isinstance(page.get("meta"), dict) or not isinstance(rows, list):
        raise Unreadable
    if not rows and page.get("errors"):
        raise Unreadable
    posts = []
    for row in rows:
        if not isinstance(row, dict) or not POST_ID.fullmatch(str(row.get("id", ""))):
            raise Unreadable
        entities = member(row, "entities").get("urls")
        known = {
            str(url.get("url")): str(url.get("expanded_url"))
            for url in (entities if isinstance(entities, list) else [])
            if isinstance(url, dict)
        }
        text = html.unescape(str(row.get("text", "")))
        posts.append(Post(str(row["id"]), canonical(text, known)))
    return posts


def first_id_at(seconds: float) -> int:
    """The lowest id of a post made at a time of the epoch; ids hold it in milliseconds.

    https://docs.x.com/fundamentals/x-ids
    """
    return max(0, int(seconds * 1000) - _ID_EPOCH_MS) << 22


def canonical(text: str, expanded: Mapping[str, str] | None = None) -> tuple[str, tuple[str, ...]]:
    """A post's words and its links, alike before posting and when read back.

    X replaces each link by a short one and tells in `expanded` what it stands for.
    """
    text = unicodedata.normalize("NFC", text)
    links = []
    for link in x_links(text):
        text = text.replace(link, "\0", 1)
        full = (expanded or {}).get(link, link)
        links.append(re.sub(r"^https?://", "", full, flags=re.IGNORECASE).rstrip("/"))
    return " ".join(text.split()), tuple(links)

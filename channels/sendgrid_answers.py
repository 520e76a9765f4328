"""What SendGrid's answers to a Mail Send request mean for each person of the request.

A request is validated as a whole: either everybody in it was taken or nobody. Nothing of
the provider's own words is passed on: they quote addresses.
https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from channels.contract import (
    Accepted,
    AdapterBroken,
    MessageRefused,
    Outcome,
    Reason,
    RecipientRefused,
    TryLater,
    Unknown,
)
from channels.transport import Response

_PERSON = re.compile(r"personalizations[.\[](\d{1,4})\]?(?:\.(\w+))?")


def outcomes_of(keys: Sequence[str], response: Response) -> list[Outcome]:
    """What SendGrid's answer means for each person of the request, in their order."""
    status = response.status
    if status == 202:
        ref = response.headers.get("x-message-id", "")
        if not ref:
            words = "answer names no message (HTTP 202)"
            return [Unknown(key, Reason.UNREADABLE_ANSWER, words) for key in keys]
        return [Accepted(key, f"{ref}:{key}") for key in keys]
    errors = _errors(response)
    if status == 400:
        return _refused(keys, errors)
    detail = f"HTTP {status}"
    if status == 429:
        later = response.retry_after()
        later = _until_reset(response) if later is None else later
        return [TryLater(key, Reason.THROTTLED, later, detail) for key in keys]
    if status == 503:
        later = response.retry_after()
        return [TryLater(key, Reason.PROVIDER_ERROR, later, detail) for key in keys]
    if status == 413:
        return [MessageRefused(key, Reason.TOO_LONG, detail) for key in keys]
    if status == 408:
        return [Unknown(key, Reason.TIMEOUT, detail) for key in keys]
    if status == 200:
        # Mail Send says 200 only in its sandbox mode, in which nothing is sent.
        return [
            AdapterBroken(key, Reason.ACCOUNT, "HTTP 200: checked, but nothing was sent")
            for key in keys
        ]
    broken = _broken(status, errors)
    if broken is not None:
        return [AdapterBroken(key, broken, detail) for key in keys]
    if 400 <= status < 500:
        return [MessageRefused(key, Reason.CONTENT, detail) for key in keys]
    reason = Reason.PROVIDER_ERROR if status >= 500 else Reason.UNREADABLE_ANSWER
    return [Unknown(key, reason, detail) for key in keys]


def _broken(status: int, errors: Sequence[Mapping[str, Any]]) -> Reason | None:
    """Why nobody can be reached with this account, if that is what the answer says."""
    if any("credits exceeded" in str(error.get("message")).lower() for error in errors):
        return Reason.QUOTA
    if status in (401, 403) and any(error.get("field") == "from" for error in errors):
        return Reason.SENDER
    if 300 <= status < 400:
        return Reason.ACCOUNT
    return {
        401: Reason.CREDENTIALS,
        402: Reason.ACCOUNT,
        403: Reason.PERMISSION,
        404: Reason.ACCOUNT,
        405: Reason.ACCOUNT,
    }.get(status)


def _refused(keys: Sequence[str], errors: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """A request is refused as a whole; who caused it is named by the field of each error.

    The others were not sent and may go again at once.
    """
    guilty: dict[int, str] = {}
    general = not errors
    for error in errors:
        field = str(error.get("field") or "")
        found = _PERSON.match(field)
        if field == "from" or field.startswith("from."):
            return [AdapterBroken(key, Reason.SENDER, "sender refused (HTTP 400)") for key in keys]
        if found and int(found[1]) < len(keys):
            guilty.setdefault(int(found[1]), found[2] or "")
        else:
            general = True
    outcomes: list[Outcome] = []
    for place, key in enumerate(keys):
        if guilty.get(place) == "to":
            words = "address refused (HTTP 400)"
            outcomes.append(RecipientRefused(key, Reason.INVALID_ADDRESS, words))
        elif general or place in guilty:
            outcomes.append(MessageRefused(key, Reason.CONTENT, "refused (HTTP 400)"))
        else:
            words = "another address in the request was refused"
            outcomes.append(TryLater(key, Reason.PROVIDER_ERROR, 0.0, words))
    return outcomes


def _errors(response: Response) -> list[Mapping[str, Any]]:
    """The `errors` of the answer; none where it is not SendGrid's JSON, such as nginx's HTML."""
    try:
        answer = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        return []
    errors = answer.get("errors") if isinstance(answer, dict) else None
    return [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []


def _until_reset(response: Response) -> float | None:
    """Seconds until `X-RateLimit-Reset`, which is in seconds of the epoch."""
    value = response.headers.get("x-ratelimit-reset", "")
    if not (value.isascii() and value.isdigit()):
        return None
    return max(0.0, float(value[:12]) - time.time())

"""What Twilio's answers to a create call mean. The table is data; a new code is one line.

Twilio may change its codes, so an unknown one is judged by its HTTP class. Nothing of a
provider's own words is passed on: they quote the recipient's number.
"""

from collections.abc import Mapping
from typing import NamedTuple

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


class Verdict(NamedTuple):
    """What an error code or status means: the outcome, the reason, words for an operator."""

    outcome: type[TryLater | MessageRefused | RecipientRefused | AdapterBroken | Unknown]
    reason: Reason
    words: str


CODES: Mapping[int, Verdict] = {
    14107: Verdict(TryLater, Reason.THROTTLED, "send rate exceeded"),
    20003: Verdict(AdapterBroken, Reason.CREDENTIALS, "authentication failed"),
    20005: Verdict(AdapterBroken, Reason.ACCOUNT, "account is not active"),
    20008: Verdict(AdapterBroken, Reason.CREDENTIALS, "test credentials cannot do this"),
    20403: Verdict(AdapterBroken, Reason.PERMISSION, "forbidden to this account"),
    20404: Verdict(AdapterBroken, Reason.ACCOUNT, "no such account or resource"),
    20429: Verdict(TryLater, Reason.THROTTLED, "too many requests at once"),
    20500: Verdict(Unknown, Reason.PROVIDER_ERROR, "error inside the provider"),
    20503: Verdict(TryLater, Reason.PROVIDER_ERROR, "provider unavailable"),
    21211: Verdict(RecipientRefused, Reason.INVALID_ADDRESS, "not a valid number"),
    21212: Verdict(AdapterBroken, Reason.SENDER, "sender is not valid"),
    21217: Verdict(RecipientRefused, Reason.INVALID_ADDRESS, "not a valid number"),
    21408: Verdict(RecipientRefused, Reason.PERMISSION, "region not enabled for this account"),
    21602: Verdict(MessageRefused, Reason.CONTENT, "no text"),
    21603: Verdict(AdapterBroken, Reason.SENDER, "no sender"),
    21604: Verdict(RecipientRefused, Reason.INVALID_ADDRESS, "no number"),
    21606: Verdict(AdapterBroken, Reason.SENDER, "sender is not ours or cannot send SMS"),
    21609: Verdict(AdapterBroken, Reason.ACCOUNT, "status callback is not a valid URL"),
    21610: Verdict(RecipientRefused, Reason.OPTED_OUT, "recipient has opted out"),
    21611: Verdict(TryLater, Reason.QUEUE_FULL, "sender's queue is full"),
    21612: Verdict(RecipientRefused, Reason.NOT_REACHABLE, "no route from this sender"),
    21614: Verdict(RecipientRefused, Reason.INVALID_ADDRESS, "not a mobile number"),
    21617: Verdict(MessageRefused, Reason.TOO_LONG, "text is too long"),
    21619: Verdict(MessageRefused, Reason.CONTENT, "no text"),
    21635: Verdict(RecipientRefused, Reason.NOT_REACHABLE, "a landline"),
    21659: Verdict(AdapterBroken, Reason.SENDER, "sender is not one of the provider's"),
    21660: Verdict(AdapterBroken, Reason.SENDER, "sender belongs to another account"),
    21701: Verdict(AdapterBroken, Reason.SENDER, "no such messaging service"),
    21703: Verdict(AdapterBroken, Reason.SENDER, "messaging service has no senders"),
    21705: Verdict(AdapterBroken, Reason.SENDER, "messaging service is not valid"),
    30002: Verdict(AdapterBroken, Reason.ACCOUNT, "account is suspended"),
    63017: Verdict(TryLater, Reason.THROTTLED, "account's messages per second exceeded"),
    63038: Verdict(AdapterBroken, Reason.QUOTA, "account's messages per day exceeded"),
}
"""Codes that a create call answers with, https://www.twilio.com/docs/api/errors."""

STATUSES: Mapping[int, Verdict] = {
    401: Verdict(AdapterBroken, Reason.CREDENTIALS, "not authorised"),
    402: Verdict(AdapterBroken, Reason.ACCOUNT, "payment required"),
    403: Verdict(AdapterBroken, Reason.PERMISSION, "forbidden"),
    404: Verdict(AdapterBroken, Reason.ACCOUNT, "no such account or resource"),
    405: Verdict(AdapterBroken, Reason.ACCOUNT, "wrong address of the API"),
    408: Verdict(Unknown, Reason.TIMEOUT, "provider gave up waiting"),
    413: Verdict(MessageRefused, Reason.TOO_LONG, "request is too large"),
    429: Verdict(TryLater, Reason.THROTTLED, "too many requests"),
    503: Verdict(TryLater, Reason.PROVIDER_ERROR, "provider unavailable"),
}
CLASSES: Mapping[int, Verdict] = {
    3: Verdict(AdapterBroken, Reason.ACCOUNT, "redirected: wrong address of the API"),
    4: Verdict(MessageRefused, Reason.CONTENT, "refused"),
    5: Verdict(Unknown, Reason.PROVIDER_ERROR, "error inside the provider"),
}
"""An unknown code must not suppress a person, so an unknown 4xx blames the message."""

UNREADABLE = Verdict(Unknown, Reason.UNREADABLE_ANSWER, "answer cannot be read")
"""For an answer that is no HTTP answer to this request, or a success that names no message."""


def outcome_of(key: str, response: Response) -> Outcome:
    """What Twilio's answer to a create call means."""
    status = response.status
    try:
        answer = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        answer = None
    fields = answer if isinstance(answer, dict) else {}
    if 200 <= status < 300:
        sid = fields.get("sid")
        if isinstance(sid, str) and sid[:2] in ("SM", "MM"):
            return Accepted(key, sid)
        return Unknown(key, UNREADABLE.reason, f"{UNREADABLE.words} (HTTP {status})")
    code = fields.get("code")
    verdict = CODES.get(code) if isinstance(code, int) else None
    if verdict is None:
        verdict = STATUSES.get(status) or CLASSES.get(status // 100, UNREADABLE)
    number = f"{code} " if isinstance(code, int) else ""
    detail = f"{number}{verdict.words} (HTTP {status})"
    if verdict.outcome is TryLater:
        return TryLater(key, verdict.reason, response.retry_after(), detail)
    return verdict.outcome(key, verdict.reason, detail=detail)

"""What Twilio says later: status callbacks, polled messages and what recipients write back.

Pure: fields in, values out. It must not know signatures or the wire. Codes and keywords are
data. Nothing of a provider's or a person's own words is passed on.
https://www.twilio.com/docs/messaging/guides/track-outbound-message-status
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import orjson

from channels.contract import (
    Consent,
    ContactKind,
    Reading,
    Reason,
    Receipt,
    ReceiptRefused,
    ReceiptRequest,
    ReceiptStatus,
)
from channels.twilio_signature import verified_fields
from channels.wire import Response

SID = re.compile(r"(?:SM|MM)[0-9A-Za-z]{32}")
_KEY = re.compile(r"[A-Za-z0-9-]{1,64}")
_KEY_ALONE = re.compile(r"[^?#\[\]]*\?key=([A-Za-z0-9-]{1,64})")
"""A URL as we ask to be called at; any other is taken apart."""
_PHONE = re.compile(r"\+[1-9][0-9]{5,14}")

STATUSES: Mapping[str, ReceiptStatus] = {
    **dict.fromkeys(
        ("accepted", "scheduled", "queued", "sending", "sent", "partially_delivered"),
        ReceiptStatus.TAKEN,
    ),
    **dict.fromkeys(("delivered", "read"), ReceiptStatus.DELIVERED),
    **dict.fromkeys(("undelivered", "failed", "canceled"), ReceiptStatus.FAILED),
}
"""https://www.twilio.com/docs/messaging/api/message-resource#message-status-values; one that is
not here means nothing to us."""


class Failure(NamedTuple):
    """Why a taken message was not delivered; `final` if the address can never receive."""

    reason: Reason
    words: str
    final: bool = False


FAILURES: Mapping[int, Failure] = {
    21211: Failure(Reason.INVALID_ADDRESS, "not a valid number", final=True),
    21610: Failure(Reason.OPTED_OUT, "recipient has opted out", final=True),
    21612: Failure(Reason.NOT_REACHABLE, "no route from this sender"),
    21614: Failure(Reason.INVALID_ADDRESS, "not a mobile number", final=True),
    21635: Failure(Reason.NOT_REACHABLE, "a landline", final=True),
    30001: Failure(Reason.QUEUE_FULL, "queue overflow"),
    30002: Failure(Reason.ACCOUNT, "account is suspended"),
    30003: Failure(Reason.UNREACHABLE, "handset not reachable at the time"),
    30004: Failure(Reason.NOT_REACHABLE, "blocked by the recipient's side"),
    30005: Failure(Reason.INVALID_ADDRESS, "unknown number", final=True),
    30006: Failure(Reason.NOT_REACHABLE, "landline or unreachable carrier", final=True),
    30007: Failure(Reason.CONTENT, "filtered by a carrier"),
    30008: Failure(Reason.PROVIDER_ERROR, "unknown error of a carrier"),
    30022: Failure(Reason.THROTTLED, "carrier's rate exceeded"),
    30034: Failure(Reason.SENDER, "sender is not registered"),
    30036: Failure(Reason.TIMEOUT, "validity ran out in the queue"),
    30450: Failure(Reason.PERMISSION, "blocked as SMS pumping"),
    30610: Failure(Reason.PERMISSION, "blocked by quiet hours"),
    63038: Failure(Reason.QUOTA, "account's messages per day exceeded"),
}
"""Codes of undelivered messages, https://www.twilio.com/docs/api/errors. Only what is certain is
final: 30004 may be one sender's block, and 30003 a phone that is switched off."""
UNEXPLAINED = Failure(Reason.PROVIDER_ERROR, "not delivered")

STOP_WORDS = frozenset(
    ("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT", "ARRET")
)
START_WORDS = frozenset(("START", "YES", "UNSTOP"))
"""Whole texts that Twilio itself acts on, https://help.twilio.com/articles/223134027; where
Advanced Opt-Out is on, `OptOutType` says so instead."""


def read(request: ReceiptRequest, *, account_sid: str, secrets: tuple[str, ...]) -> Reading:
    """What Twilio's callback or forwarded SMS says. Raises `ReceiptRefused`."""
    fields = verified_fields(request, secrets)
    if fields.get("AccountSid") != account_sid:
        raise ReceiptRefused("forged", "of another account")
    sid = fields.get("MessageSid") or fields.get("SmsSid", "")
    if not SID.fullmatch(sid):
        return Reading(ignored=1)
    status = fields.get("MessageStatus") or fields.get("SmsStatus", "")
    if status in STATUSES:
        return _status_reading(fields, sid, status, key=_key(request.public_url))
    wanted = _wish(fields)
    if wanted is None or status not in ("", "received", "receiving"):
        return Reading(ignored=1)
    return Reading(consents=_consents(f"{sid}:received", fields.get("From", ""), wanted=wanted))


def receipt(
    sid: str, status: str, *, code: object = None, key: str = "", at: datetime | None = None
) -> Receipt:
    """A message's receipt from a status that `STATUSES` has and an error code, if any."""
    reached = STATUSES[status]
    event = f"{sid}:{status}"
    if reached is not ReceiptStatus.FAILED:
        return Receipt(event, key, sid, reached, at, detail=status)
    number, failure = _failure(code)
    detail = f"{status}: {number} {failure.words}" if number else f"{status}: {failure.words}"
    return Receipt(event, key, sid, reached, at, failure.reason, detail)


def polled(ref: str, response: Response) -> Receipt | None:
    """The receipt of a fetched message; None for an answer that does not tell."""
    try:
        answer = orjson.loads(response.body) if response.status == 200 else None
    except orjson.JSONDecodeError:
        answer = None
    fields: Mapping[str, Any] = answer if isinstance(answer, dict) else {}
    status = fields.get("status")
    if fields.get("sid") != ref or not isinstance(status, str) or status not in STATUSES:
        return None
    at = moment(fields.get("date_updated"))
    return receipt(ref, status, code=fields.get("error_code"), at=at)


def moment(value: object) -> datetime | None:
    """Twilio's RFC 2822 dates."""
    try:
        found = parsedate_to_datetime(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):
        return None
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)


def _status_reading(fields: Mapping[str, str], sid: str, status: str, *, key: str) -> Reading:
    code = fields.get("ErrorCode")
    told = receipt(sid, status, code=code, key=key)
    final = told.status is ReceiptStatus.FAILED and _failure(code)[1].final
    to = fields.get("To", "")
    return Reading(
        receipts=(told,),
        consents=_consents(told.event, to, wanted=False, reason=told.reason) if final else (),
    )


def _consents(
    event: str, address: str, *, wanted: bool, reason: Reason = Reason.OPTED_OUT
) -> tuple[Consent, ...]:
    if not _PHONE.fullmatch(address):  # such as one of WhatsApp
        return ()
    why = Reason.OK if wanted else reason
    return (Consent(event, ContactKind.PHONE, address, wanted, why),)


def _wish(fields: Mapping[str, str]) -> bool | None:
    """Whether who wrote wants our messages; None if that is not what it was about."""
    told = fields.get("OptOutType", "").upper()
    if told:
        return {"STOP": False, "START": True}.get(told)
    word = fields.get("Body", "").strip().upper()
    return False if word in STOP_WORDS else True if word in START_WORDS else None


def _failure(code: object) -> tuple[int, Failure]:
    text = str(code)
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else 0
    return number, FAILURES.get(number, UNEXPLAINED)


def _key(url: str) -> str:
    """The delivery id that our own callback URL carries."""
    alone = _KEY_ALONE.fullmatch(url)
    if alone is not None:
        return alone[1]
    try:
        query = dict(parse_qsl(urlsplit(url).query, max_num_fields=50))
    except ValueError:
        return ""
    key = query.get("key", "")
    return key if _KEY.fullmatch(key) else ""

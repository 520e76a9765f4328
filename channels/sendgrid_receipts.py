"""What SendGrid's Event Webhook says: its signature, its events, what they mean to us.

Pure: a request in, values out. It must not know how mail is sent. The words of receiving
servers are not passed on: they quote addresses.
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
"""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

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

SIGNATURE = "x-twilio-email-event-webhook-signature"
TIMESTAMP = "x-twilio-email-event-webhook-timestamp"
KEY_ARGUMENT = "delivery"
"""The custom argument that carries the delivery's id."""

_ADDRESS = re.compile(r"[^\s<>@,;\x00]+@[^\s<>@,;\x00]+")
_KEY = re.compile(r"[A-Za-z0-9-]{1,64}")
_ID = re.compile(r"[\x21-\x7e]{1,200}")
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")  # https://www.rfc-editor.org/rfc/rfc3463


class Meaning(NamedTuple):
    """What an event says of its message, and of its address if `wanted` is not None."""

    status: ReceiptStatus | None
    reason: Reason = Reason.OK
    words: str = ""
    wanted: bool | None = None


EVENTS: Mapping[str, Meaning] = {
    "processed": Meaning(ReceiptStatus.TAKEN),
    "deferred": Meaning(ReceiptStatus.TAKEN, words="receiving server asks to wait"),
    "delivered": Meaning(ReceiptStatus.DELIVERED),
    "bounce": Meaning(ReceiptStatus.FAILED, Reason.NOT_REACHABLE, "bounced", wanted=False),
    "blocked": Meaning(ReceiptStatus.FAILED, Reason.PROVIDER_ERROR, "blocked by the server"),
    "dropped": Meaning(ReceiptStatus.FAILED, Reason.PROVIDER_ERROR, "dropped"),
    "spamreport": Meaning(None, Reason.OPTED_OUT, wanted=False),
    "unsubscribe": Meaning(None, Reason.OPTED_OUT, wanted=False),
    "group_unsubscribe": Meaning(None, Reason.OPTED_OUT, wanted=False),
    "group_resubscribe": Meaning(None, wanted=True),
}
"""Others, such as open and click, mean nothing to us. A bounce of type "blocked" is a refusal
by the server for now and says nothing of the address."""

DROPS: Mapping[str, Meaning] = {
    "bounced address": Meaning(
        ReceiptStatus.FAILED, Reason.NOT_REACHABLE, "dropped: bounced before", wanted=False
    ),
    "unsubscribed address": Meaning(
        ReceiptStatus.FAILED, Reason.OPTED_OUT, "dropped: unsubscribed", wanted=False
    ),
    "spam reporting address": Meaning(
        ReceiptStatus.FAILED, Reason.OPTED_OUT, "dropped: reported spam before", wanted=False
    ),
    "invalid": Meaning(
        ReceiptStatus.FAILED, Reason.INVALID_ADDRESS, "dropped: invalid address", wanted=False
    ),
    "spam content": Meaning(ReceiptStatus.FAILED, Reason.CONTENT, "dropped: spam content"),
    "recipient list over package quota": Meaning(
        ReceiptStatus.FAILED, Reason.QUOTA, "dropped: over the account's quota"
    ),
}
"""Why SendGrid dropped a message, by how its reason begins; "invalid" must be all of it, for an
invalid SMTPAPI header is no fault of the address. Another reason suppresses nobody."""


def public_key(text: str) -> ec.EllipticCurvePublicKey:
    """The key as SendGrid shows it, base64 of DER. Raises `ValueError` for any other."""
    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except Exception:  # the library's own kinds of error differ with its version
        raise ValueError("a public key is the base64 that SendGrid shows") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ValueError("SendGrid's public keys are of the curve P-256")
    return key


def read(
    request: ReceiptRequest,
    *,
    key: ec.EllipticCurvePublicKey | None,
    window: float,
    now: datetime,
) -> Reading:
    """What the events of a request say. Raises `ReceiptRefused`.

    A signed request older than `window` seconds, or as much from the future, is refused.
    """
    _verify(request, key=key, window=window, now=now)
    try:
        events = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        events = None
    if not isinstance(events, list):
        raise ReceiptRefused("unreadable", "not a JSON array")
    receipts: list[Receipt] = []
    consents: list[Consent] = []
    ignored = 0
    for event in events:
        receipt, consent = _read_event(event) if isinstance(event, dict) else (None, None)
        if receipt is not None:
            receipts.append(receipt)
        if consent is not None:
            consents.append(consent)
        ignored += receipt is None and consent is None
    return Reading(tuple(receipts), tuple(consents), ignored)


def _verify(
    request: ReceiptRequest,
    *,
    key: ec.EllipticCurvePublicKey | None,
    window: float,
    now: datetime,
) -> None:
    if key is None:
        raise ReceiptRefused("not_configured", "there is no public key to verify events with")
    given, stamp = request.headers.get(SIGNATURE, ""), request.headers.get(TIMESTAMP, "")
    if not given or not stamp:
        raise ReceiptRefused("unsigned", "no signature")
    try:
        der = base64.b64decode(given, validate=True)
        if base64.b64encode(der).decode() != given:  # stray bits in the last character
            raise ValueError("not canonical")
        signed = stamp.encode("ascii") + request.body
        key.verify(der, signed, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, ValueError, binascii.Error):
        raise ReceiptRefused("forged", "the signature is not the provider's") from None
    seconds = int(stamp) if stamp.isdigit() and len(stamp) <= 12 else None
    if seconds is None:
        raise ReceiptRefused("unreadable", "the timestamp is not in seconds")
    if abs(now.timestamp() - seconds) > window:
        raise ReceiptRefused("too_old", "signed too long ago, or a clock is wrong")


def _read_event(event: Mapping[str, Any]) -> tuple[Receipt | None, Consent | None]:
    """What one event says; nothing if it means nothing to us or is not whole."""
    meaning = _meaning(event)
    if meaning is None:
        return None, None
    given = _text(event.get(KEY_ARGUMENT))
    key = given if _KEY.fullmatch(given) else ""
    message = _text(event.get("sg_message_id")).partition(".")[0]
    message = message if _ID.fullmatch(message) else ""
    name = _text(event.get("sg_event_id"))
    if not _ID.fullmatch(name):
        if not (key or message):
            return None, None
        name = f"{message}:{key}:{event['event']}:{_text(event.get('timestamp'))[:20]}"
    at = _at(event.get("timestamp"))
    return (
        _receipt(name, meaning, key=key, message=message, at=at, status=event.get("status")),
        _consent(name, meaning, address=_text(event.get("email")), at=at),
    )


def _meaning(event: Mapping[str, Any]) -> Meaning | None:
    kind = _text(event.get("event"))
    if kind == "bounce" and _text(event.get("type")).lower() == "blocked":
        return EVENTS["blocked"]
    if kind == "dropped":
        why = _text(event.get("reason")).strip().lower()
        for start, meaning in DROPS.items():
            if why == start or (start != "invalid" and why.startswith(start)):
                return meaning
    return EVENTS.get(kind) if kind != "blocked" else None


def _receipt(
    name: str,
    meaning: Meaning,
    *,
    key: str,
    message: str,
    at: datetime | None,
    status: object,
) -> Receipt | None:
    if meaning.status is None or not (key or message):
        return None
    code = _text(status)
    detail = f"{meaning.words} {code}" if _ENHANCED.fullmatch(code) else meaning.words
    ref = f"{message}:{key}" if message and key else message
    return Receipt(name, key, ref, meaning.status, at, meaning.reason, detail.strip())


def _consent(name: str, meaning: Meaning, *, address: str, at: datetime | None) -> Consent | None:
    if meaning.wanted is None or len(address) > 320 or not _ADDRESS.fullmatch(address):
        return None
    return Consent(name, ContactKind.EMAIL, address, meaning.wanted, meaning.reason, at)


def _at(value: object) -> datetime | None:
    """The event's time, in seconds of the epoch."""
    try:
        return datetime.fromtimestamp(float(_text(value)), UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _text(value: object) -> str:
    """A member that is a string or a number; anything else is as if it were not there."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return str(value)

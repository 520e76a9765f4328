"""Single fields of a SendGrid mail: addresses, headers, custom arguments, times.

Owns the form of one value and the error for a bad one.
https://www.twilio.com/docs/sendgrid/api-reference/mail-send/errors
"""

import re

import orjson

_HELP = "http://sendgrid.com/docs/API_Reference/Web_API_v3/Mail/errors.html"
ADDRESS = re.compile(r"[^@\s<>\"(),:;\\\[\]\x00-\x1f]{1,64}@[^@\s.<>]+(?:\.[^@\s.<>]+)+")
_RESERVED = frozenset(
    [
        "x-sg-id",
        "x-sg-eid",
        "received",
        "dkim-signature",
        "content-type",
        "content-transfer-encoding",
        "to",
        "from",
        "subject",
        "reply-to",
        "cc",
        "bcc",
    ]
)

MAX_SUBSTITUTIONS = 10_000
MAX_CUSTOM_ARGS = 10_000
MAX_AHEAD = 72 * 3600


class Refused(Exception):
    """A request that SendGrid refuses; `error` is the entry for its list of errors."""

    def __init__(self, message: str, field: str | None = None, anchor: str = "") -> None:
        super().__init__(field)
        self.error = {
            "message": message,
            "field": field,
            "help": f"{_HELP}#{anchor}" if anchor else None,
        }


def check_headers(headers: object, where: str) -> None:
    """Refuses what is no map of strings, and the headers that SendGrid writes itself."""
    if headers is None:
        return
    check_strings(headers, where)
    for name in headers if isinstance(headers, dict) else ():
        if name.lower() in _RESERVED:
            raise Refused(f"The header {name} is reserved and may not be set.", where)


def check_args(args: object, where: str) -> None:
    """Refuses custom arguments that are no strings or too long together."""
    if args is None:
        return
    check_strings(args, where)
    if size(args) > MAX_CUSTOM_ARGS:
        raise Refused("The custom_args may not exceed 10000 bytes.", where, "message.custom_args")


def check_strings(values: object, where: str) -> None:
    """Refuses what is no map of strings."""
    if not isinstance(values, dict):
        raise Refused("Invalid type. Expected: object, given: other.", where)
    for name, value in values.items():
        if not isinstance(value, str):
            raise Refused("Invalid type. Expected: string, given: other.", f"{where}.{name}")


def size(values: object) -> int:
    """Bytes of a value as compact JSON."""
    return len(orjson.dumps(values))


def check_send_at(moment: object, where: str, now: float) -> None:
    """Refuses a time that is no Unix timestamp or too far ahead."""
    if moment is None:
        return
    if not isinstance(moment, int) or moment > now + MAX_AHEAD:
        raise Refused(
            "The send_at parameter must be a Unix timestamp at most 72 hours ahead.",
            where,
            "message.send_at",
        )

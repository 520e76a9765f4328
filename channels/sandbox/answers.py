"""Requests as the simulators see them and the ways in which one can be answered.

Owns the two values that pass between the wire and the simulators. It must not know any
provider. Plain answers are ready-made bytes: building objects per request would be the
greater part of the cost.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qsl

from channels.sandbox.config import Provider

JSON = b"application/json"
JSON_UTF8 = b"application/json; charset=utf-8"
FORM = b"application/x-www-form-urlencoded"

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class Request:
    """One request, whole. Header names are lower-case; `oversize` means the body was dropped."""

    __slots__ = ("body", "headers", "keep_alive", "method", "oversize", "path", "query")

    def __init__(self) -> None:
        self.method = b""
        self.path = b""
        self.query = b""
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.oversize = False
        self.keep_alive = True

    def params(self) -> dict[str, str]:
        """The query string, decoded; of a repeated name the last value."""
        return dict(parse_qsl(self.query.decode("latin-1"), keep_blank_values=True))

    def form(self) -> dict[str, str]:
        """A form body, decoded; of a repeated name the last value."""
        return dict(parse_qsl(self.body.decode("latin-1"), keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Late:
    """An answer after `seconds`; None of data means that none ever comes."""

    seconds: float
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Cut:
    """The connection is reset instead of an answer, after `seconds`."""

    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Dribble:
    """An answer after `delay`, whose bytes come bit by bit over `seconds`."""

    data: bytes
    seconds: float
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Stream:
    """A chunked answer, made piece by piece as the reader takes it."""

    chunks: Iterator[bytes]
    content_type: bytes


Answer = bytes | Late | Cut | Dribble | Stream


class Simulator(Protocol):
    """One provider's protocol."""

    provider: Provider

    def is_send(self, request: Request) -> bool:
        """True for the call that hands over a message: the one that faults strike."""
        ...

    def addresses(self, request: Request) -> list[str]:
        """The addresses a send call names, as well as they can be read; never raises."""
        ...

    def account(self, request: Request) -> int:
        """Which account a request is for, 1 or 2; 1 for one that names none."""
        ...

    def halved(self, request: Request) -> Request | None:
        """The same request for the first half of its messages; None where nothing is left."""
        ...

    def answer(self, request: Request) -> bytes:
        """Takes the request, records what it accepts, and gives the whole answer."""
        ...

    def refusal(self, status: int, code: int | str | None = None) -> bytes:
        """An error of this status in the provider's own shape."""
        ...


def reply(
    status: int, body: bytes = b"", content_type: bytes = JSON, *, headers: bytes = b""
) -> bytes:
    """A whole HTTP answer. `headers` is further header lines, each ending in CRLF."""
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status
    if status == 204:
        return b"%b%b\r\n" % (line, headers)
    if not body:
        return b"%b%bContent-Length: 0\r\n\r\n" % (line, headers)
    return b"%bContent-Type: %b\r\n%bContent-Length: %d\r\n\r\n%b" % (
        line,
        content_type,
        headers,
        len(body),
        body,
    )


def with_header(data: bytes, header: bytes) -> bytes:
    """The same answer with one more header line (given without CRLF)."""
    return data.replace(b"\r\n", b"\r\n" + header + b"\r\n", 1)


def with_status(data: bytes, status: int) -> bytes:
    """The same answer under another status."""
    _, _, rest = data.partition(b"\r\n")
    return _STATUS_LINES.get(status, b"HTTP/1.1 %d OK\r\n" % status) + rest


def is_refusal(data: bytes) -> bool:
    """Whether an answer made by `reply` has a status of 400 or above."""
    return data[9] >= 52  # the first digit of the status: "4"

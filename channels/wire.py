"""Requests and answers over HTTP, and the ways in which an answer can fail to come.

    TransportError
    |- NotSent    nothing of the request left this machine
    `- NoAnswer   it may have left; `reason` says how the answer was lost

Values only: no I/O, and a repr shows no URL, header or body.
"""

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

from channels.contract import Reason


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `timeout` is in seconds and covers the wait for a free place too."""

    method: str
    url: str = field(repr=False)
    headers: Sequence[tuple[str, str]] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    timeout: float = 10.0


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer; header names are lower-case, the last of a repeated header counts."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def retry_after(self) -> float | None:
        """Seconds that the server wants us to wait, if it says so and means the future.

        Both forms of https://www.rfc-editor.org/rfc/rfc9110#field.retry-after.
        """
        value = self.headers.get("retry-after", "")
        if value.isascii() and value.isdigit():
            return float(value[:9])
        try:
            when = parsedate_to_datetime(value)
        except ValueError:
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())


@dataclass(slots=True)
class Permit:
    """The right to start requests, until `ends` on the clock of `time.monotonic`.

    Who holds it may move `ends` further. That clock goes on while a process is stopped, so
    one that wakes too late finds its permit gone.
    """

    ends: float


permit: ContextVar[Permit | None] = ContextVar("permit", default=None)
"""A request whose timeout would outlast the permit it runs under is not started."""


class TransportError(Exception):
    """The request has no answer. The text names a libcurl code and nothing of the request."""


class NotSent(TransportError):
    """Nothing of the request left this machine: name lookup, refusal, TLS, no free place."""


class NoAnswer(TransportError):
    """The request may have arrived. `reason` is TIMEOUT, CONNECTION_LOST or UNREADABLE_ANSWER."""

    def __init__(self, text: str, reason: Reason) -> None:
        super().__init__(text)
        self.reason = reason


class Transport(Protocol):
    """Whatever can carry a request; raises only `TransportError` for what went wrong outside."""

    async def request(self, request: Request) -> Response: ...

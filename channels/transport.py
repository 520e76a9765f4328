"""The one way out: HTTP requests over libcurl's multi interface, driven by the running loop.

Owns sockets and timers. It must not know any provider, message or address, must never
repeat a request (`channels.curl_handle` says what that takes), and must never put a URL, a
header or a body into an exception. The values it takes and gives are `channels.wire`'s.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pycurl

from channels.contract import Reason
from channels.curl_handle import CurlHandle, authorities
from channels.line import TOO_LATE, Line, Waiting
from channels.readiness import Heard, Readiness, readiness
from channels.wire import (
    NoAnswer,
    NotSent,
    Permit,
    Request,
    Response,
    Transport,
    TransportError,
    permit,
)

__all__ = [
    "CurlTransport",
    "NoAnswer",
    "NotSent",
    "Request",
    "Response",
    "Transport",
    "TransportError",
]

TIMED = ((pycurl.SOCKET_TIMEOUT, 0),)
"""No socket is ready, but libcurl has something due."""

CLOSED = "the transport was closed"


class CurlTransport:
    """At most `concurrency` requests at once on kept-alive connections, on one event loop.

    It binds to the loop of its first request; after that loop has closed it binds anew.
    `connect_timeout` is in seconds, `max_body` in bytes; `proxy` is a URL, none by default,
    and the environment's proxy variables and `.netrc` are never read. `watching` makes what
    watches the sockets.
    """

    def __init__(
        self,
        *,
        concurrency: int = 64,
        connect_timeout: float = 5.0,
        max_body: int = 1 << 20,
        ca_file: str = "",
        proxy: str = "",
        watching: Callable[[asyncio.AbstractEventLoop, Heard], Readiness] = readiness,
    ) -> None:
        self._concurrency = concurrency
        self._connect_timeout = connect_timeout
        self._max_body = max_body
        self._ca_file = ca_file
        self._proxy = proxy
        self._watching = watching
        self._loop: asyncio.AbstractEventLoop | None = None
        self._multi: Any = None
        self._line: Line  # this and the next are there while `_multi` is
        self._sockets: Readiness
        self._idle: list[CurlHandle] = []
        self._busy: dict[Any, CurlHandle] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._kicked = False

    async def request(self, request: Request) -> Response:
        """One try. Raises `NotSent` or `NoAnswer`; `ValueError` for a malformed request."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._bind(loop)
        if not request.url.startswith(("http://", "https://")):
            raise ValueError("only http and https URLs can be requested")
        waiter: asyncio.Future[Response] = loop.create_future()
        if len(self._busy) < self._concurrency:
            self._start(waiter, request, request.timeout, permit.get())
        else:
            ends = loop.time() + request.timeout
            self._line.join(Waiting(waiter, request, ends, permit.get()))
        try:
            return await waiter
        except BaseException:
            self._drop(waiter)
            raise

    def _start(
        self,
        waiter: asyncio.Future[Response],
        request: Request,
        seconds: float,
        held: Permit | None,
    ) -> None:
        """Put a request on its way, or raise."""
        handle = self._idle.pop() if self._idle else self._new_handle()
        try:
            handle.load(request, seconds)
            self._multi.add_handle(handle.curl)
        except BaseException:
            handle.curl.close()
            raise
        handle.waiter = waiter
        self._busy[handle.curl] = handle
        # libcurl has begun to count the timeout and has sent nothing yet: a process that is
        # stopped before this line is refused here, after it by libcurl. Not the loop's clock,
        # which may still tell the time before the stop.
        if held is not None and time.monotonic() + seconds > held.ends:
            self._release(handle)
            raise NotSent("the right to send ended before the request left")
        if not self._kicked:
            self._kick()

    def _advance(self) -> None:
        """Start who is next in line; nobody waits while there is room."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        while len(self._busy) < self._concurrency and (waiting := self._line.leave()):
            seconds = waiting.ends - loop.time()
            try:
                if seconds <= 0.0:  # before the line's timer was heard
                    raise NotSent(TOO_LATE)
                self._start(waiting.waiter, waiting.request, seconds, waiting.held)
            except Exception as error:  # the sender's to hear, not the loop's
                waiting.waiter.set_exception(error)

    def _drop(self, waiter: asyncio.Future[Response]) -> None:
        """Nobody waits any more: a request still under way goes, its connection with it."""
        for handle in self._busy.values():
            if handle.waiter is waiter:
                self._release(handle)
                self._advance()
                return
        if self._multi is not None:
            self._line.forget(waiter)

    async def aclose(self) -> None:
        """Drop every connection. Requests still under way fail as `NoAnswer`."""
        self._unbind()

    def _new_handle(self) -> CurlHandle:
        if not self._ca_file:
            self._ca_file = authorities()
        return CurlHandle(
            connect_timeout=self._connect_timeout,
            max_body=self._max_body,
            ca_file=self._ca_file,
            proxy=self._proxy,
        )

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None and not self._loop.is_closed():
            raise RuntimeError("this transport belongs to another event loop that still runs")
        self._unbind()
        try:
            sockets = self._watching(loop, self._on_ready)
        except OSError as error:
            raise NotSent(f"sockets cannot be watched (errno {error.errno})") from None
        multi = pycurl.CurlMulti()
        multi.setopt(pycurl.M_PIPELINING, 0)
        multi.setopt(pycurl.M_MAXCONNECTS, self._concurrency)
        multi.setopt(pycurl.M_SOCKETFUNCTION, sockets.watch)
        self._loop, self._multi, self._sockets = loop, multi, sockets
        self._due, self._kicked = 0.0, False
        self._line = Line(loop)

    def _unbind(self) -> None:
        if self._multi is not None:
            self._line.close(CLOSED)
        for handle in list(self._busy.values()):
            waiter = handle.waiter
            self._release(handle)
            if waiter is not None and not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_exception(NoAnswer(CLOSED, Reason.CONNECTION_LOST))
        for handle in self._idle:
            handle.curl.close()
        self._idle.clear()
        if self._multi is not None:
            self._multi.close()
            self._multi = None
            self._sockets.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop = None

    def _release(self, handle: CurlHandle) -> None:
        """Take the handle off libcurl and keep it for the next request."""
        handle.waiter = None
        handle.body = b""
        del self._busy[handle.curl]
        self._multi.remove_handle(handle.curl)
        self._idle.append(handle)

    def _kick(self) -> None:
        """Let libcurl begin with what was given to it, once for all that this turn brings."""
        if not self._kicked and self._loop is not None:
            self._kicked = True
            self._loop.call_soon(self._on_kick, self._multi)

    def _on_kick(self, multi: object) -> None:
        self._kicked = False
        if multi is self._multi:
            self._on_ready(TIMED)

    def _on_ready(self, sockets: Sequence[tuple[int, int]]) -> None:
        """Let libcurl act, tell those whose requests are over, and ask when to call again."""
        multi = self._multi
        if multi is None:
            return
        action = multi.socket_action
        for fd, events in sockets:
            action(fd, events)
        _, answered, failed = multi.info_read()
        for curl in answered:
            self._finish(curl, 0)
        for curl, code, _text in failed:
            self._finish(curl, code)
        if answered or failed:
            self._advance()
        self._set_timer(multi.timeout())

    def _set_timer(self, milliseconds: int) -> None:
        """Keep one timer of ours, early if need be: an early call of libcurl does no harm."""
        loop = self._loop
        if milliseconds < 0 or loop is None:
            self._due = 0.0
        elif milliseconds == 0:
            self._kick()
        else:
            self._due = loop.time() + milliseconds / 1000
            if self._timer is None or self._due < self._timer.when():
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = loop.call_at(self._due, self._on_due)

    def _on_due(self) -> None:
        self._timer = None
        loop = self._loop
        if loop is None or self._due == 0.0:
            return
        if loop.time() + 0.001 < self._due:
            self._timer = loop.call_at(self._due, self._on_due)
        else:
            self._on_ready(TIMED)

    def _finish(self, curl: object, code: int) -> None:
        handle = self._busy.get(curl)
        if handle is None or handle.waiter is None:
            return
        waiter = handle.waiter
        result = handle.failure(code) if code else handle.response()
        self._release(handle)
        if waiter.done():
            return
        if isinstance(result, Response):
            waiter.set_result(result)
        else:
            waiter.set_exception(result)

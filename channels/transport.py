"""The one way out: HTTP requests over libcurl's multi interface, driven by the running loop.

Owns sockets and timers. It must not know any provider, message or address, must never
repeat a request (`channels.curl_handle` says what that takes), and must never put a URL, a
header or a body into an exception. The values it takes and gives are `channels.wire`'s.
"""

import asyncio
import time
from typing import Any

import pycurl

from channels.contract import Reason
from channels.curl_handle import CurlHandle, authorities
from channels.wire import NoAnswer, NotSent, Request, Response, Transport, TransportError, permit

__all__ = [
    "CurlTransport",
    "NoAnswer",
    "NotSent",
    "Request",
    "Response",
    "Transport",
    "TransportError",
]


class CurlTransport:
    """At most `concurrency` requests at once on kept-alive connections, on one event loop.

    It binds to the loop of its first request; after that loop has closed it binds anew.
    `connect_timeout` is in seconds, `max_body` in bytes; `proxy` is a URL, none by default,
    and the environment's proxy variables and `.netrc` are never read.
    """

    def __init__(
        self,
        *,
        concurrency: int = 64,
        connect_timeout: float = 5.0,
        max_body: int = 1 << 20,
        ca_file: str = "",
        proxy: str = "",
    ) -> None:
        self._concurrency = concurrency
        self._connect_timeout = connect_timeout
        self._max_body = max_body
        self._ca_file = ca_file
        self._proxy = proxy
        self._loop: asyncio.AbstractEventLoop | None = None
        self._places = asyncio.Semaphore(concurrency)
        self._multi: Any = None
        self._idle: list[CurlHandle] = []
        self._busy: dict[Any, CurlHandle] = {}
        self._interest: dict[int, int] = {}
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
        places, seconds = self._places, request.timeout
        if places.locked():
            seconds = await self._wait_for_place(loop, seconds)
        else:
            await places.acquire()
        try:
            return await self._carry(loop, request, seconds)
        finally:
            places.release()

    async def _carry(
        self, loop: asyncio.AbstractEventLoop, request: Request, seconds: float
    ) -> Response:
        handle = self._idle.pop() if self._idle else self._new_handle()
        try:
            handle.load(request, seconds)
        except BaseException:
            handle.curl.close()
            raise
        waiter: asyncio.Future[Response] = loop.create_future()
        handle.waiter = waiter
        self._busy[handle.curl] = handle
        self._multi.add_handle(handle.curl)
        held = permit.get()
        # libcurl has begun to count the timeout and has sent nothing yet: a process that is
        # stopped before this line is refused here, after it by libcurl. Not the loop's clock,
        # which may still tell the time before the stop.
        if held is not None and time.monotonic() + seconds > held.ends:
            self._release(handle)
            raise NotSent("the right to send ended before the request left")
        try:
            return await waiter
        finally:
            if handle.waiter is waiter:  # cancelled: the connection goes with the request
                self._release(handle)

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

    async def _wait_for_place(self, loop: asyncio.AbstractEventLoop, seconds: float) -> float:
        """Wait in line for a free place; returns the seconds that are left of `seconds`."""
        start = loop.time()
        try:
            async with asyncio.timeout(seconds):
                await self._places.acquire()
        except TimeoutError:
            raise NotSent("no free connection in time") from None
        return max(0.001, seconds - (loop.time() - start))

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None and not self._loop.is_closed():
            raise RuntimeError("this transport belongs to another event loop that still runs")
        self._unbind()
        self._loop = loop
        self._places = asyncio.Semaphore(self._concurrency)
        multi = pycurl.CurlMulti()
        multi.setopt(pycurl.M_PIPELINING, 0)
        multi.setopt(pycurl.M_MAXCONNECTS, self._concurrency)
        multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_interest)
        multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi = multi

    def _unbind(self) -> None:
        for handle in list(self._busy.values()):
            waiter = handle.waiter
            self._release(handle)
            if waiter is not None and not waiter.done() and not waiter.get_loop().is_closed():
                waiter.set_exception(NoAnswer("the transport was closed", Reason.CONNECTION_LOST))
        for handle in self._idle:
            handle.curl.close()
        self._idle.clear()
        if self._multi is not None:
            self._multi.close()
            self._multi = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._interest.clear()
        self._loop = None

    def _release(self, handle: CurlHandle) -> None:
        """Take the handle off libcurl and keep it for the next request."""
        handle.waiter = None
        handle.body = b""
        del self._busy[handle.curl]
        self._multi.remove_handle(handle.curl)
        self._idle.append(handle)

    # libcurl calls the two below from inside its own functions, so they only take notes.

    def _on_interest(self, wanted: int, fd: int, _multi: Any, _data: Any) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        wanted = 0 if wanted == pycurl.POLL_REMOVE else wanted
        had = self._interest.get(fd, 0)
        if (wanted ^ had) & pycurl.POLL_IN:
            if wanted & pycurl.POLL_IN:
                loop.add_reader(fd, self._on_ready, fd, pycurl.CSELECT_IN)
            else:
                loop.remove_reader(fd)
        if (wanted ^ had) & pycurl.POLL_OUT:
            if wanted & pycurl.POLL_OUT:
                loop.add_writer(fd, self._on_ready, fd, pycurl.CSELECT_OUT)
            else:
                loop.remove_writer(fd)
        if wanted:
            self._interest[fd] = wanted
        else:
            self._interest.pop(fd, None)

    def _on_timer(self, milliseconds: int) -> None:
        """Keep one timer of ours, early if need be: an early call of libcurl does no harm."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if milliseconds < 0:
            self._due = 0.0
        elif milliseconds == 0:
            if not self._kicked:
                self._kicked = True
                loop.call_soon(self._on_kick, self._multi)
        else:
            self._due = loop.time() + milliseconds / 1000
            if self._timer is None or self._due < self._timer.when():
                if self._timer is not None:
                    self._timer.cancel()
                self._timer = loop.call_at(self._due, self._on_due)

    def _on_kick(self, multi: Any) -> None:
        self._kicked = False
        if multi is self._multi:
            self._act(pycurl.SOCKET_TIMEOUT, 0)

    def _on_due(self) -> None:
        self._timer = None
        loop = self._loop
        if loop is None or self._due == 0.0:
            return
        if loop.time() + 0.001 < self._due:
            self._timer = loop.call_at(self._due, self._on_due)
        else:
            self._act(pycurl.SOCKET_TIMEOUT, 0)

    def _on_ready(self, fd: int, events: int) -> None:
        self._act(fd, events)

    def _act(self, fd: int, events: int) -> None:
        multi = self._multi
        if multi is None:
            return
        multi.socket_action(fd, events)
        left = 1
        while left:
            left, answered, failed = multi.info_read()
            for curl in answered:
                self._finish(curl, 0)
            for curl, code, _text in failed:
                self._finish(curl, code)

    def _finish(self, curl: Any, code: int) -> None:
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

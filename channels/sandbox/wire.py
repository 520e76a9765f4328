"""HTTP/1.1 on the wire, written for speed.

Owns sockets, parsing and the order of answers. It must not know what a request means:
`respond` does. One connection answers one request after the other, pipelined ones too.
"""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import cast

import httptools

from channels.sandbox.answers import Answer, Cut, Dribble, Late, Request, Stream, reply, with_header

MAX_BODY = 30 * 1024 * 1024  # SendGrid's limit for a whole request, the largest of them
_BAD_REQUEST = with_header(reply(400, b"Bad Request", b"text/plain"), b"Connection: close")
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s, so that closing sends RST
_HIGH_WATER = 1 << 20
_PIECES = 20  # of an answer that dribbles in


class Connection(asyncio.Protocol):
    """One client's connection. `open_connections` lets the server end them all at once."""

    __slots__ = (
        "_body",
        "_body_size",
        "_busy",
        "_drained",
        "_headers",
        "_open",
        "_parser",
        "_ready",
        "_respond",
        "_target",
        "_task",
        "_transport",
    )

    def __init__(
        self, respond: Callable[[Request], Answer], open_connections: set["Connection"]
    ) -> None:
        self._respond = respond
        self._open = open_connections
        self._parser = httptools.HttpRequestParser(self)
        self._ready: deque[Request] = deque()
        self._busy = False
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Event | None = None
        self._transport: asyncio.Transport | None = None
        self.on_message_begin()

    # --- the transport's calls -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_HIGH_WATER)
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._open.discard(self)
        self._ready.clear()
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._transport is not None:
                self._transport.write(_BAD_REQUEST)
                self._transport.close()
            return
        if not self._busy:
            self._advance()

    def pause_writing(self) -> None:
        self._drained = asyncio.Event()

    def resume_writing(self) -> None:
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    # --- the parser's calls --------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_size = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        expected = self._headers.get(b"expect", b"").lower() == b"100-continue"
        if expected and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size <= MAX_BODY:
            self._body.append(body)
        else:
            self._body.clear()

    def on_message_complete(self) -> None:
        request = Request()
        request.method = self._parser.get_method()
        request.path, _, request.query = self._target.partition(b"?")
        request.headers = self._headers
        request.body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request.oversize = self._body_size > MAX_BODY
        request.keep_alive = self._parser.should_keep_alive()
        self._ready.append(request)

    # --- answering -----------------------------------------------------------------------

    def _advance(self) -> None:
        """Answers what is ready, up to the first answer that takes its time."""
        while self._ready and self._transport is not None:
            request = self._ready.popleft()
            answer = self._respond(request)
            if isinstance(answer, bytes):
                self._write(answer, request.keep_alive)
            else:
                self._busy = True
                self._transport.pause_reading()
                self._task = asyncio.get_running_loop().create_task(
                    self._answer_slowly(answer, request.keep_alive)
                )
                return

    def _write(self, data: bytes, keep_alive: bool) -> None:
        if self._transport is None:
            return
        if keep_alive:
            self._transport.write(data)
        else:
            self._transport.write(with_header(data, b"Connection: close"))
            self._transport.close()

    async def _answer_slowly(self, answer: Late | Cut | Dribble | Stream, keep_alive: bool) -> None:
        if isinstance(answer, Stream):
            await self._write_stream(answer, keep_alive)
        elif isinstance(answer, Cut):
            await asyncio.sleep(answer.seconds)
            self._reset()
        elif isinstance(answer, Dribble):
            await asyncio.sleep(answer.delay)
            await self._dribble(answer, keep_alive)
        elif answer.data is None:
            # Reading goes on, or nobody would see that the client has given up.
            if self._transport is not None:
                self._transport.resume_reading()
            await asyncio.Event().wait()
        else:
            await asyncio.sleep(answer.seconds)
            self._write(answer.data, keep_alive)
        self._task = None
        self._busy = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._advance()

    async def _dribble(self, answer: Dribble, keep_alive: bool) -> None:
        data = answer.data if keep_alive else with_header(answer.data, b"Connection: close")
        step = -(-len(data) // _PIECES)
        for start in range(0, len(data), step):
            await asyncio.sleep(answer.seconds / _PIECES)
            self._send(data[start : start + step])
        if not keep_alive and self._transport is not None:
            self._transport.close()

    async def _write_stream(self, stream: Stream, keep_alive: bool) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n" % (
            stream.content_type
        )
        pieces = _gathered(stream.chunks)
        self._send(head + (b"\r\n" if keep_alive else b"Connection: close\r\n\r\n"))
        try:
            for piece in pieces:
                self._send(b"%x\r\n%b\r\n" % (len(piece), piece))
                await (self._drained.wait() if self._drained is not None else asyncio.sleep(0))
        except BaseException:
            self.abort()  # the reader must not take a part for the whole
            raise
        self._send(b"0\r\n\r\n")
        if not keep_alive and self._transport is not None:
            self._transport.close()

    def _send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def _reset(self) -> None:
        """Ends the connection by RST, as a crashed proxy or a full conntrack table does."""
        if self._transport is None:
            return
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def abort(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()


def _gathered(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Small pieces put together to about 32 KB; empty ones would end a chunked answer."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        if len(held) >= 32 * 1024:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)

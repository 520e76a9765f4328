"""A tiny HTTP/1.1 server that answers from a script, for adapters' and the transport's tests.

It knows nothing of any provider. Every request is kept in `requests` as soon as it is
complete, before anything is answered, so that a reset after accepting is counted honestly.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True)
class Received:
    """One complete request; `headers` have lower-case names, `connection` counts from 0."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    nth_on_connection: int

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, sent after `delay` seconds."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0

    def encode(self) -> bytes:
        try:
            phrase = HTTPStatus(self.status).phrase
        except ValueError:
            phrase = "Odd"
        lines = [f"HTTP/1.1 {self.status} {phrase}"]
        lines.extend(f"{name}: {value}" for name, value in self.headers.items())
        if self.status != 204 and "transfer-encoding" not in {h.lower() for h in self.headers}:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join((*lines, "", "")).encode("latin-1") + self.body


@dataclass(frozen=True, slots=True)
class Raw:
    """These bytes instead of an answer, then the connection is closed unless `keep`."""

    data: bytes
    keep: bool = False


class Reset:
    """The connection is reset after the request has been read whole, without an answer."""


class Hang:
    """No answer at all; the connection stays open."""


RESET = Reset()
HANG = Hang()
Answer = Reply | Raw | Reset | Hang
Script = Callable[[Received], Answer]


class ScriptedServer:
    """What arrived, and where to send it. `active` and `peak` count requests under way."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Received] = []
        self.connections = 0
        self.active = 0
        self.peak = 0
        self.url = ""
        self.open: set[asyncio.Transport] = set()


class _Connection(asyncio.Protocol):
    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.number = server.connections
        self.nth = 0
        self.buffer = b""
        self.active = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it
        self.server.connections += 1
        self.server.open.add(self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.open.discard(self.transport)
        self.server.active -= self.active
        self.active = 0

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (received := self.take()) is not None:
            self.server.requests.append(received)
            self.server.active += 1
            self.active += 1
            self.server.peak = max(self.server.peak, self.server.active)
            self.answer(self.server.script(received))

    def take(self) -> Received | None:
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return None
        self.buffer = rest[length:]
        self.nth += 1
        return Received(method, target, headers, rest[:length], self.number, self.nth)

    def answer(self, answer: Answer) -> None:
        if isinstance(answer, Reply) and answer.delay:
            asyncio.get_running_loop().call_later(answer.delay, self.write, answer.encode(), False)
        elif isinstance(answer, Reply):
            self.write(answer.encode(), False)
        elif isinstance(answer, Raw):
            self.write(answer.data, not answer.keep)
        elif isinstance(answer, Reset):
            self.reset()

    def write(self, data: bytes, close: bool) -> None:
        if self.active:
            self.active -= 1
            self.server.active -= 1
        if not self.transport.is_closing():
            self.transport.write(data)
            if close:
                self.transport.close()

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        # l_onoff=1, l_linger=0: the kernel sends RST instead of FIN
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.transport.abort()


@asynccontextmanager
async def serving(
    script: Script, tls: ssl.SSLContext | None = None
) -> AsyncIterator[ScriptedServer]:
    """A server on a free loopback port of the running loop, gone when the block is left."""
    state = ScriptedServer(script)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(state), "127.0.0.1", 0, ssl=tls)
    scheme = "https" if tls else "http"
    state.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.close()
        for transport in list(state.open):
            transport.abort()


def refused_url() -> str:
    """A loopback URL at which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"

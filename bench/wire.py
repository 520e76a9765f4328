"""The bare wire: how fast two processes can post the same bytes, doing nothing else at all.

Raw sockets on uvloop with 32 connections each: the next request leaves when the answer to
the last has come whole. No ledger, no SDK, no reading of answers beyond their length.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote_plus, urlsplit

import uvloop

from bench import racing
from bench.sink import Sink, rate

PROCESSES = 2
CONNECTIONS = 32
LEAST = 20_000.0
"""Messages per second below which a run is void: the sink or the machine was busy."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A request cut where the address goes."""

    before: bytes
    after: bytes

    def request(self, address: str) -> bytes:
        return b"%b%b%b" % (self.before, quote_plus(address).encode(), self.after)


def frame(sample: bytes) -> Frame:
    """Cut a request that a worker has sent. Addresses must be as long as the sample's."""
    start = sample.index(b"To=", sample.index(b"\r\n\r\n")) + 3
    return Frame(sample[:start], sample[sample.index(b"&", start) :])


class _Poster(asyncio.Protocol):
    def __init__(self, requests: list[bytes], done: asyncio.Event) -> None:
        self.requests = requests
        self.done = done
        self.held = b""
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.post()

    def post(self) -> None:
        if self.requests:
            self.transport.write(self.requests.pop())
        else:
            self.transport.close()
            self.done.set()

    def data_received(self, data: bytes) -> None:
        if self.held:
            data = self.held + data
        end = data.find(b"\r\n\r\n")
        at = data.find(b"Content-Length:", 0, end)
        if end < 0 or len(data) < end + 4 + int(data[at + 15 : data.index(b"\r", at)]):
            self.held = data
            return
        assert data.startswith(b"HTTP/1.1 201")
        self.held = b""
        self.post()


def _prepare(job: dict[str, Any]) -> Callable[[], None]:
    cut = Frame(job["before"].encode(), job["after"].encode())
    requests = [cut.request(address) for address in job["addresses"]]
    place = urlsplit(job["url"])

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ends = []
        for _ in range(CONNECTIONS):
            end = asyncio.Event()
            ends.append(end)
            await loop.create_connection(
                partial(_Poster, requests, end), place.hostname, place.port
            )
        for end in ends:
            await end.wait()

    return lambda: uvloop.run(main())


def run(sink: Sink, sample: bytes, addresses: Sequence[str]) -> float:
    """Messages per second, from the first arrival to the last."""
    sink.clear()
    cut = frame(sample)
    jobs = [
        {
            "url": sink.url,
            "before": cut.before.decode(),
            "after": cut.after.decode(),
            "addresses": list(addresses[at::PROCESSES]),
        }
        for at in range(PROCESSES)
    ]
    racing.race("bench.wire", jobs, within=60)
    told = sink.report()
    assert told["messages"] == len(addresses) and told["duplicates"] == 0
    return rate(told)


if __name__ == "__main__":
    racing.run(_prepare)

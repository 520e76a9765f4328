"""The transport against a sink of ill will, on reused connections: counted, never repeated.

The sink counts each request once it is whole, before it does anything about it. So it can be
said of every request whether the provider has it: an answer must mean yes, `NotSent` must
mean no, `NoAnswer` may mean either, and nothing may have arrived twice.
"""

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

import pytest
import uvloop

from channels.contract import Reason
from channels.transport import CurlTransport, NoAnswer, NotSent, Request, Response, TransportError
from tests.contracts.server import refused_url

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
REQUESTS = 3_000
LANES = 24
RESET_NOT_FIN = b"\x01\0\0\0\0\0\0\0"  # l_onoff=1, l_linger=0
Ending = Response | TransportError


class Fault(Enum):
    """What the sink does about a request, most often once it has it whole."""

    RESET_AFTER = "reset after accepting"
    CLOSE_AFTER = "close after accepting"
    HALF_HEADERS = "half of the headers"
    HALF_BODY = "half of the body"
    GARBAGE = "garbage"
    HANG = "no answer"
    RESET_MIDWAY = "reset after half of the request"
    ANSWER_THEN_CLOSE = "an answer, then the idle connection closes"
    ANSWER_THEN_RESET = "an answer, then the idle connection is reset"
    EARLY = "two answers to one request"


ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
WRITES = {
    Fault.HALF_HEADERS: b"HTTP/1.1 201 Created\r\nContent-Le",
    Fault.HALF_BODY: b"HTTP/1.1 201 Created\r\nContent-Length: 900\r\n\r\nok",
    Fault.GARBAGE: b"\x16\x03\x01 garbage \xff\xfe\r\n\r\n",
    Fault.ANSWER_THEN_CLOSE: ANSWER,
    Fault.ANSWER_THEN_RESET: ANSWER,
    Fault.EARLY: ANSWER + ANSWER,
}
TAKES = [fault for fault in Fault if fault is not Fault.RESET_MIDWAY]


class Sink:
    """Counts what arrived whole by its body, and the faults that it committed."""

    def __init__(self, choose: Callable[[int], Fault | None]) -> None:
        self.choose = choose
        self.arrived: Counter[bytes] = Counter()
        self.faults: Counter[Fault] = Counter()
        self.on_reused: Counter[Fault] = Counter()
        self.connections = 0
        self.url = ""


class Connection(asyncio.Protocol):
    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.buffer = b""
        self.served = 0
        self.fault: Fault | None = None
        self.chosen = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.sink.connections += 1

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while self.buffer and self.take():
            pass

    def take(self) -> bool:
        head, found, rest = self.buffer.partition(b"\r\n\r\n")
        if not self.chosen:
            self.chosen = True
            self.fault = self.sink.choose(self.served)
        if self.fault is Fault.RESET_MIDWAY:
            self.count(self.fault)
            self.reset()
            return False
        if not found:
            return False
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(rest) < length:
            return False
        self.buffer = rest[length:]
        self.sink.arrived[rest[:length]] += 1
        fault, self.chosen = self.fault, False
        if fault is not None:
            self.count(fault)
        self.served += 1
        self.act(fault)
        return fault is None

    def count(self, fault: Fault) -> None:
        self.sink.faults[fault] += 1
        self.sink.on_reused[fault] += self.served > 0

    def act(self, fault: Fault | None) -> None:
        if fault is None:
            self.transport.write(ANSWER)
        elif fault in (Fault.HANG, Fault.EARLY):
            self.transport.write(WRITES.get(fault, b""))
        elif fault in (Fault.RESET_AFTER, Fault.ANSWER_THEN_RESET):
            self.transport.write(WRITES.get(fault, b""))
            # what is written leaves before the reset, which comes while the client is idle
            asyncio.get_running_loop().call_later(0.001 if fault in WRITES else 0, self.reset)
        else:
            self.transport.write(WRITES.get(fault, b""))
            self.transport.close()

    def reset(self) -> None:
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_NOT_FIN)
        self.transport.abort()


async def onslaught(sink: Sink, count: int, *, timeout: float, body: Callable[[int], bytes]) -> Any:
    """How each of `count` requests ended, by its body."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(sink), "127.0.0.1", 0)
    sink.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    transport = CurlTransport(concurrency=LANES)
    endings: dict[bytes, Ending] = {}

    async def lane(numbers: range) -> None:
        for number in numbers:
            data = body(number)
            request = Request("POST", sink.url, (("X-N", "1"),), data, timeout)
            try:
                endings[data] = await transport.request(request)
            except TransportError as error:
                endings[data] = error

    try:
        await asyncio.gather(*(lane(range(n, count, LANES)) for n in range(LANES)))
    finally:
        await transport.aclose()
        server.close()
    return endings


def judge(sink: Sink, endings: dict[bytes, Ending], count: int) -> Counter[str]:
    """Nothing twice, nothing that was not asked, and every ending is honest."""
    assert len(endings) == count
    assert [body for body, times in sink.arrived.items() if times > 1] == []
    assert set(sink.arrived) <= set(endings)
    for body, ending in endings.items():
        if isinstance(ending, Response):
            assert body in sink.arrived
        elif isinstance(ending, NotSent):
            assert body not in sink.arrived
        else:
            assert isinstance(ending, NoAnswer)
    return Counter(type(ending).__name__ for ending in endings.values())


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[Any]], Any]:
    def run_on(work: Any) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(work)

    return run_on


def numbered(number: int) -> bytes:
    return b"message %d" % number


def test_thousands_of_requests_through_every_fault(run: Callable[[Any], Any]) -> None:
    chance = random.Random(20261122)
    quick = [fault for fault in Fault if fault is not Fault.HANG]
    sink = Sink(lambda served: chance.choice(quick) if chance.random() < 0.08 else None)
    endings = run(onslaught(sink, REQUESTS, timeout=20.0, body=numbered))
    kinds = judge(sink, endings, REQUESTS)
    assert set(sink.faults) == set(quick)
    assert all(sink.on_reused[fault] > 0 for fault in quick)
    assert kinds["Response"] > REQUESTS * 0.8
    spoiled = (Fault.RESET_AFTER, Fault.CLOSE_AFTER, Fault.HALF_HEADERS)
    spoiled += (Fault.HALF_BODY, Fault.GARBAGE)
    assert kinds["NoAnswer"] >= sum(sink.faults[fault] for fault in spoiled)


@pytest.mark.parametrize("fault", [f for f in Fault if f is not Fault.HANG], ids=lambda f: f.value)
def test_each_fault_on_reused_connections(run: Callable[[Any], Any], fault: Fault) -> None:
    """Every connection answers three requests and commits the fault on the fourth."""
    sink = Sink(lambda served: fault if served == 3 else None)
    endings = run(onslaught(sink, 600, timeout=20.0, body=numbered))
    kinds = judge(sink, endings, 600)
    assert sink.on_reused[fault] >= 20
    if fault in (Fault.RESET_AFTER, Fault.CLOSE_AFTER, Fault.HALF_BODY, Fault.GARBAGE):
        assert kinds["NoAnswer"] == sink.faults[fault]
        assert len(sink.arrived) == 600
    if fault is Fault.RESET_MIDWAY:
        assert kinds["NoAnswer"] == sink.faults[fault]
        assert len(sink.arrived) == 600 - sink.faults[fault]


def test_a_large_request_that_breaks_off_is_not_repeated(run: Callable[[Any], Any]) -> None:
    """Half a bulk request: the body has to be rewound to be repeated, and must not be."""
    filler = b"x" * 300_000
    sink = Sink(lambda served: Fault.RESET_MIDWAY if served == 1 else None)
    endings = run(
        onslaught(sink, 96, timeout=20.0, body=lambda number: b"bulk %d " % number + filler)
    )
    kinds = judge(sink, endings, 96)
    assert kinds["NoAnswer"] == sink.faults[Fault.RESET_MIDWAY] >= 24
    assert kinds["NotSent"] == 0


def test_hangs_on_reused_connections_end_as_timeouts(run: Callable[[Any], Any]) -> None:
    hung = 0

    def choose(served: int) -> Fault | None:
        nonlocal hung
        if served == 1 and hung < 12:
            hung += 1
            return Fault.HANG
        return None

    sink = Sink(choose)
    endings = run(onslaught(sink, 240, timeout=1.0, body=numbered))
    judge(sink, endings, 240)
    silent = [e for e in endings.values() if isinstance(e, NoAnswer)]
    assert len(silent) >= sink.faults[Fault.HANG] == 12
    assert {e.reason for e in silent} == {Reason.TIMEOUT}


def test_refusal_and_silence_are_told_apart(run: Callable[[Any], Any]) -> None:
    """A provider that goes away altogether: what had arrived is in doubt, what had not is not."""

    async def story() -> None:
        transport = CurlTransport()
        sink = Sink(lambda served: Fault.RESET_AFTER if served == 1 else None)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(sink), "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        try:
            assert (await transport.request(Request("POST", url, (), b"1"))).status == 201
            with pytest.raises(NoAnswer):
                await transport.request(Request("POST", url, (), b"2"))
            server.close()
            for target in (url, refused_url()):
                with pytest.raises(NotSent):
                    await transport.request(Request("POST", target, (), b"3"))
        finally:
            server.close()
            await transport.aclose()
        assert sink.arrived == {b"1": 1, b"2": 1}

    run(story())

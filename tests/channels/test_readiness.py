"""Which sockets are ready: heard on each kind of loop, and never taken for another's."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence

import pycurl
import pytest
import uvloop

from channels.readiness import EpollReadiness, LoopReadiness, Readiness

Sockets = tuple[socket.socket, socket.socket]
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
FREE = 900
"""A descriptor number that nothing else here comes to have."""


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    def run_on(work: Awaitable[None]) -> None:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(work)

    return run_on


@pytest.fixture
def pair() -> Iterator[Sockets]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


class Ear:
    """Keeps what it last heard, and forgets its sockets as soon as it has."""

    def __init__(self, kind: type[EpollReadiness] | type[LoopReadiness]) -> None:
        self.heard: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.sockets: Readiness = kind(asyncio.get_running_loop(), self.hear)

    def hear(self, found: Sequence[tuple[int, int]]) -> None:
        for fd, bits in found:
            self.watch(pycurl.POLL_REMOVE, fd)
            self.heard.put_nowait((fd, bits))

    def watch(self, wanted: int, fd: int) -> None:
        self.sockets.watch(wanted, fd, None, None)

    async def next(self) -> tuple[int, int]:
        async with asyncio.timeout(10):
            return await self.heard.get()


@pytest.mark.parametrize("kind", [EpollReadiness, LoopReadiness])
def test_what_is_wanted_is_heard_and_nothing_else(run, kind, pair: Sockets) -> None:
    async def story() -> None:
        ours, theirs = pair
        fd, ear = ours.fileno(), Ear(kind)
        ear.watch(pycurl.POLL_OUT, fd)
        assert await ear.next() == (fd, pycurl.CSELECT_OUT)
        ear.watch(pycurl.POLL_OUT, fd)
        ear.watch(pycurl.POLL_IN, fd)  # in its place
        theirs.send(b"x")
        assert await ear.next() == (fd, pycurl.CSELECT_IN)
        ear.watch(pycurl.POLL_INOUT, fd)
        seen = (await ear.next())[1]
        while not ear.heard.empty():  # a loop tells of the two one after the other
            seen |= ear.heard.get_nowait()[1]
        assert seen & pycurl.CSELECT_IN
        other, peer = socket.socketpair()
        with other, peer:
            peer.send(b"y")
            ear.watch(pycurl.POLL_IN, other.fileno())
            assert await ear.next() == (other.fileno(), pycurl.CSELECT_IN)
        assert ear.heard.empty()  # the first has been readable all the time
        ear.sockets.close()

    run(story())


@pytest.mark.parametrize("kind", [EpollReadiness, LoopReadiness])
def test_a_hang_up_is_heard(run, kind, pair: Sockets) -> None:
    async def story() -> None:
        ours, theirs = pair
        ear = Ear(kind)
        ear.watch(pycurl.POLL_IN, ours.fileno())
        theirs.close()
        fd, bits = await ear.next()
        assert fd == ours.fileno()
        assert bits & pycurl.CSELECT_IN
        ear.sockets.close()

    run(story())


def test_a_number_that_is_given_out_again_is_another_socket(run, pair: Sockets) -> None:
    """Closed without a word of libcurl's, then somebody else's, then libcurl's again."""

    async def story() -> None:
        ours = pair[0]
        ear = Ear(EpollReadiness)
        os.dup2(ours.fileno(), FREE)
        ours.close()
        ear.watch(pycurl.POLL_IN, FREE)
        os.close(FREE)
        other, peer = socket.socketpair()
        with other, peer:
            peer.send(b"for somebody else")
            os.dup2(other.fileno(), FREE)
            ear.watch(pycurl.POLL_REMOVE, FREE)
            ear.watch(pycurl.POLL_OUT, peer.fileno())
            assert await ear.next() == (peer.fileno(), pycurl.CSELECT_OUT)
            assert ear.heard.empty()
            ear.watch(pycurl.POLL_IN, FREE)
            assert await ear.next() == (FREE, pycurl.CSELECT_IN)
            os.close(FREE)
        ear.sockets.close()

    run(story())


def test_what_cannot_be_watched_raises_nothing(run, pair: Sockets) -> None:
    """libcurl would break off whatever it was about."""

    async def story() -> None:
        ear = Ear(EpollReadiness)
        ear.watch(pycurl.POLL_REMOVE, pair[0].fileno())
        ear.watch(pycurl.POLL_IN, FREE)
        ear.watch(pycurl.POLL_REMOVE, FREE)
        with open(os.devnull) as plain:  # an epoll takes no file
            ear.watch(pycurl.POLL_IN, plain.fileno())
        ear.sockets.close()
        ear.watch(pycurl.POLL_IN, pair[0].fileno())

    run(story())

"""The transport's sockets and its line: closed, reused, waited for, and bound to a new loop."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from functools import partial

import pycurl
import pytest

from channels.readiness import EpollReadiness, Heard, LoopReadiness
from channels.transport import CurlTransport, NoAnswer, NotSent, Request, Response, TransportError
from channels.wire import Permit, permit
from tests.channels.test_transport import LOOPS, ending
from tests.contracts.server import (
    HANG,
    RESET,
    Answer,
    Raw,
    Received,
    Reply,
    ScriptedServer,
    serving,
)

WATCHING = {"epoll": EpollReadiness, "loop": LoopReadiness}
Story = Callable[[], Awaitable[None]]


@pytest.fixture(params=list(LOOPS))
def play(request: pytest.FixtureRequest) -> Callable[[Story], None]:
    """Runs a story on each kind of loop, and no callback may fail there."""

    def play_on(story: Story) -> None:
        async def whole() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: complaints.append(context)
            )
            await story()

        complaints: list[object] = []
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(whole())
        assert complaints == []

    return play_on


def post(url: str, body: bytes = b"hello", **more) -> Request:
    return Request("POST", url, (("X", "y"),), body, **more)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


class Watched:
    """A `watching` that keeps which descriptors were watched and heard of."""

    def __init__(self, kind: Callable[..., EpollReadiness | LoopReadiness]) -> None:
        self.kind = kind
        self.asked: list[tuple[int, int]] = []
        self.heard: list[int] = []

    def __call__(self, loop: asyncio.AbstractEventLoop, heard: Heard) -> "Watched":
        def hear(found: Sequence[tuple[int, int]]) -> None:
            self.heard.extend(fd for fd, _ in found)
            heard(found)

        self.sockets = self.kind(loop, hear)
        self.close = self.sockets.close
        return self

    def watch(self, wanted: int, fd: int, multi: object, data: object, /) -> None:
        self.asked.append((wanted, fd))
        self.sockets.watch(wanted, fd, multi, data)

    def used(self) -> set[int]:
        return {fd for wanted, fd in self.asked if wanted != pycurl.POLL_REMOVE}


@pytest.mark.parametrize("kind", list(WATCHING))
def test_idle_connections_that_the_server_closes(play, kind: str) -> None:
    """libcurl opens the next one under the number that the closed one had.

    It may find out by a request that is lost, which is in doubt then and never sent again.
    """

    async def story() -> None:
        watched = Watched(WATCHING[kind])
        transport = CurlTransport(concurrency=4, watching=watched)
        answered = number = 0
        async with serving(lambda _: Reply(200, b"x")) as server:
            for turn in range(12):
                fine = False
                while not fine:
                    requests = [post(server.url, b"%d" % n) for n in range(number, number + 4)]
                    number += 4
                    ends = await asyncio.gather(*(ending(transport, one) for one in requests))
                    assert all(isinstance(end, Response | NoAnswer) for end in ends)
                    fine = all(isinstance(end, Response) for end in ends)
                    answered += sum(isinstance(end, Response) for end in ends)
                watched.heard.clear()
                for connection in list(server.open):
                    connection.close() if turn % 2 else connection.abort()
                await until(lambda: not server.open)
                assert watched.heard == []  # nobody wants to hear of an idle connection
            assert len({r.body for r in server.requests}) == len(server.requests) == answered
            assert len(watched.used()) < server.connections
        await transport.aclose()

    play(story)


@pytest.mark.parametrize("kind", list(WATCHING))
def test_a_number_of_ours_that_somebody_else_is_given(play, kind: str) -> None:
    """The one idle connection gives way to another; a stranger gets the number it had."""

    async def story() -> None:
        watched = Watched(WATCHING[kind])
        transport = CurlTransport(concurrency=1, watching=watched)
        ok = partial(Reply, 200, b"x")
        with ExitStack() as strangers:
            async with serving(lambda _: ok()) as first, serving(lambda _: ok()) as second:
                await transport.request(post(first.url))
                numbers = watched.used()
                await transport.request(post(second.url))
                await until(lambda: not first.open)
                mine, peer = map(strangers.enter_context, socket.socketpair())
                mine.setblocking(False)
                while mine.fileno() not in numbers:  # the lowest that is free is given out
                    mine = strangers.enter_context(mine.dup())
                number = mine.fileno()
                watched.heard.clear()
                peer.send(b"hush")
                for url in (second.url, first.url, first.url):
                    assert (await transport.request(post(url))).body == b"x"
                assert number not in watched.heard
                loop = asyncio.get_running_loop()
                assert await loop.sock_recv(mine, 100) == b"hush"
                await transport.aclose()
                peer.send(b"still")
                assert await loop.sock_recv(mine, 100) == b"still"

    play(story)


@pytest.mark.parametrize("kind", list(WATCHING))
def test_faults_end_honestly_however_sockets_are_watched(play, kind: str) -> None:
    async def story() -> None:
        def script(received: Received) -> Answer:
            number = int(received.path[1:])
            if received.nth_on_connection > 1 and number % 7 == 0:
                return RESET if number % 2 else Raw(b"HTTP/1.1 200 OK\r\nContent-Le")
            return Reply(200, b"%d" % number, delay=0.001 * (number % 3))

        transport = CurlTransport(concurrency=16, watching=WATCHING[kind])
        async with serving(script) as server:
            requests = [post(f"{server.url}/{n}", timeout=60.0) for n in range(600)]
            ends = await asyncio.gather(*(ending(transport, one) for one in requests))
        seen = Counter(received.path for received in server.requests)
        assert set(seen.values()) == {1}
        for number, end in enumerate(ends):
            if isinstance(end, Response):
                assert end.body == b"%d" % number
                assert seen[f"/{number}"] == 1
            else:
                assert isinstance(end, NoAnswer)
        assert any(isinstance(end, NoAnswer) for end in ends)
        assert server.peak <= 16
        await transport.aclose()

    play(story)


async def holding(
    transport: CurlTransport, server: ScriptedServer
) -> asyncio.Task[Response | TransportError]:
    """A request that has the transport's only place until it is cancelled."""
    before = len(server.requests)
    task = asyncio.create_task(ending(transport, post(server.url + "/hold", timeout=60.0)))
    await until(lambda: len(server.requests) > before)
    return task


def held_or_fine(received: Received) -> Answer:
    return HANG if received.path == "/hold" else Reply(200, b"fine")


def test_those_in_line_time_out_are_cancelled_or_get_their_turn(play) -> None:
    async def story() -> None:
        transport = CurlTransport(concurrency=1)
        async with serving(held_or_fine) as server:
            held = await holding(transport, server)
            tasks = []
            for n in range(60):
                timeout = (0.05, 60.0, 30.0)[n % 3]
                request = post(f"{server.url}/{n}", timeout=timeout)
                tasks.append(asyncio.create_task(ending(transport, request)))
            short, long, dropped = tasks[::3], tasks[1::3], tasks[2::3]
            ends = await asyncio.gather(*short)
            assert all(isinstance(end, NotSent) for end in ends)
            for task in dropped[:-1]:
                task.cancel()
            held.cancel()
            dropped[-1].cancel()  # in the moment in which the place becomes free
            ends = await asyncio.gather(*long)
            assert all(isinstance(end, Response) for end in ends)
            await asyncio.wait(dropped)
            assert all(task.cancelled() for task in dropped)
            arrived = [received.path for received in server.requests]
            assert arrived == ["/hold", *(f"/{n}" for n in range(1, 60, 3))]
            assert (await transport.request(post(server.url))).status == 200
        await transport.aclose()

    play(story)


def test_a_turn_that_comes_after_the_permit_has_gone_is_not_used(play) -> None:
    """The permit is the waiting one's own; one that is moved on meanwhile is good."""

    async def story() -> None:
        async def under(held: Permit, path: str) -> Response | TransportError:
            permit.set(held)
            return await ending(transport, post(server.url + path, timeout=60.0))

        transport = CurlTransport(concurrency=1)
        async with serving(held_or_fine) as server:
            held = await holding(transport, server)
            short, renewed = (Permit(time.monotonic() + 5.0) for _ in range(2))
            tasks = [
                asyncio.create_task(under(short, "/short")),
                asyncio.create_task(under(renewed, "/renewed")),
                asyncio.create_task(ending(transport, post(server.url + "/free"))),
            ]
            await asyncio.sleep(0)
            renewed.ends += 600.0
            held.cancel()
            refused, *fine = await asyncio.gather(*tasks)
            assert isinstance(refused, NotSent)
            assert "right to send" in str(refused)
            assert all(isinstance(end, Response) for end in fine)
            assert [r.path for r in server.requests] == ["/hold", "/renewed", "/free"]
        await transport.aclose()

    play(story)


def test_a_turn_that_comes_too_late_is_not_used(play) -> None:
    """The loop was busy beyond the end of a wait, and a place becomes free before the timer."""

    async def story() -> None:
        transport = CurlTransport(concurrency=1)
        async with serving(held_or_fine) as server:
            held = await holding(transport, server)
            late = asyncio.create_task(ending(transport, post(server.url + "/late", timeout=0.02)))
            await asyncio.sleep(0)
            held.cancel()
            ends = time.monotonic() + 0.05
            while time.monotonic() < ends:
                pass
            end = await late
            assert isinstance(end, NotSent)
            assert "no free connection" in str(end)
            assert (await transport.request(post(server.url))).status == 200
            assert [r.path for r in server.requests] == ["/hold", "/"]
        await transport.aclose()

    play(story)


def test_a_malformed_request_in_line_harms_its_sender_only(play) -> None:
    async def story() -> None:
        transport = CurlTransport(concurrency=1)
        async with serving(held_or_fine) as server:
            held = await holding(transport, server)
            bad = Request("POST", server.url, (("X", "secret\r\nY: z"),), b"x")
            tasks = [
                asyncio.create_task(transport.request(request))
                for request in (bad, post(server.url + "/next"))
            ]
            await asyncio.sleep(0)
            held.cancel()
            with pytest.raises(ValueError, match="line break") as caught:
                await tasks[0]
            assert "secret" not in str(caught.value)
            assert (await tasks[1]).status == 200
        await transport.aclose()

    play(story)


def test_a_sender_that_is_done_away_with_sends_nothing(play) -> None:
    """A coroutine that is closed, rather than cancelled, while it stands in line."""

    async def story() -> None:
        transport = CurlTransport(concurrency=1)
        async with serving(held_or_fine) as server:
            held = await holding(transport, server)
            gone = transport.request(post(server.url + "/gone"))
            gone.send(None)
            after = asyncio.create_task(transport.request(post(server.url + "/after")))
            await asyncio.sleep(0)
            gone.close()
            held.cancel()
            assert (await after).status == 200
            assert [r.path for r in server.requests] == ["/hold", "/after"]
        await transport.aclose()

    play(story)


def test_closing_lets_nobody_in_line_send(play) -> None:
    async def story() -> None:
        transport = CurlTransport(concurrency=1)
        async with serving(held_or_fine) as server:
            held = await holding(transport, server)
            waiting = [
                asyncio.create_task(ending(transport, post(server.url + "/never", timeout=60.0)))
                for _ in range(3)
            ]
            await asyncio.sleep(0)
            await transport.aclose()
            assert isinstance(await held, NoAnswer)
            for end in await asyncio.gather(*waiting):
                assert isinstance(end, NotSent)
                assert "was closed" in str(end)
            assert (await transport.request(post(server.url + "/anew"))).status == 200
            assert [r.path for r in server.requests] == ["/hold", "/anew"]
        await transport.aclose()

    play(story)


@pytest.mark.parametrize("make", LOOPS.values(), ids=list(LOOPS))
def test_a_loop_that_ended_with_work_left_leaves_nothing_to_the_next(make) -> None:
    """One under way, one not yet begun by libcurl and one in line, when the loop is closed."""
    transport = CurlTransport(concurrency=2)
    loop = make()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        left = [transport.request(post(url, b"%d" % n)) for n in range(3)]

        async def begin() -> None:
            left[0].send(None)
            connection, _ = await loop.sock_accept(silent)
            with connection:
                connection.setblocking(False)
                assert await loop.sock_recv(connection, 1000)
            left[1].send(None)
            left[2].send(None)

        silent.setblocking(False)
        loop.run_until_complete(begin())
        loop.close()
        for one in left:
            one.close()

    async def once() -> list[int]:
        async with serving(lambda _: Reply(200)) as server:
            requests = (transport.request(post(server.url)) for _ in range(5))
            return [response.status for response in await asyncio.gather(*requests)]

    for _ in range(2):
        with asyncio.Runner(loop_factory=make) as runner:
            assert runner.run(once()) == [200] * 5
    asyncio.run(transport.aclose())


async def test_sockets_that_cannot_be_watched_are_not_sent_on() -> None:
    def full(*_: object) -> EpollReadiness:
        raise OSError(24, "too many open files")

    transport = CurlTransport(watching=full)
    for _ in range(2):
        with pytest.raises(NotSent, match="errno 24"):
            await transport.request(post("http://127.0.0.1:9/"))
    await transport.aclose()

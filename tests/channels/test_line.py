"""The line for a free connection: order, time, and those who are gone."""

import asyncio

import pytest

from channels.line import Line, Waiting
from channels.wire import NotSent, Request, Response


def stand(line: Line, seconds: float = 60.0) -> asyncio.Future[Response]:
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[Response] = loop.create_future()
    request = Request("POST", "http://127.0.0.1/", (), b"x")
    line.join(Waiting(waiter, request, loop.time() + seconds, None))
    return waiter


def leaving(line: Line) -> asyncio.Future[Response] | None:
    first = line.leave()
    return None if first is None else first.waiter


async def test_first_come_first_served_but_for_those_who_gave_up() -> None:
    line = Line(asyncio.get_running_loop())
    waiters = [stand(line) for _ in range(5)]
    waiters[0].cancel()
    waiters[3].cancel()
    line.forget(waiters[1])
    assert [leaving(line) for _ in range(3)] == [waiters[2], waiters[4], None]
    line.close("")


async def test_each_waits_as_long_as_it_said() -> None:
    """Ends out of order: one timer serves the whole line, also when the first has left."""
    line = Line(asyncio.get_running_loop())
    long, gone = stand(line), stand(line, 0.02)
    later, soon, patient = stand(line, 0.08), stand(line, 0.03), stand(line, 59.0)
    gone.cancel()
    done = []
    for waiter in (later, soon):
        waiter.add_done_callback(done.append)
    async with asyncio.timeout(10):
        for waiter in (later, soon):
            with pytest.raises(NotSent, match="no free connection in time"):
                await waiter
    assert done == [soon, later]
    assert [leaving(line) for _ in range(3)] == [long, patient, None]
    line.close("")


async def test_closing_ends_every_wait() -> None:
    line = Line(asyncio.get_running_loop())
    waiters = [stand(line) for _ in range(3)]
    waiters[1].cancel()
    line.close("over")
    for waiter in (waiters[0], waiters[2]):
        with pytest.raises(NotSent, match="over"):
            await waiter
    assert leaving(line) is None

"""Streams: one reading for all watchers, a heartbeat in silence, and nothing left behind."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import cast

from dispatcher.http.streams import Feed, event_stream
from dispatcher.ledger.connection import LedgerAway


class Source:
    """A state that a test changes; notes how often and for which keys it was read."""

    def __init__(self) -> None:
        self.state = 0
        self.read: list[list[str]] = []
        self.fail: type[Exception] | None = None

    def __call__(self, known: Mapping[str, int]) -> Mapping[str, int]:
        self.read.append(sorted(known))
        if self.fail is not None:
            raise self.fail
        return dict.fromkeys(known, self.state)


async def read_times(source: Source, count: int) -> None:
    while len(source.read) < count:
        await asyncio.sleep(0.001)


async def test_all_watchers_share_one_reading() -> None:
    source = Source()
    feed: Feed[str, int] = Feed(source, interval=0.01)

    async def one(key: str) -> int:
        async with aclosing(feed.watch(key, 0)) as states:
            return await anext(states)

    watching = [asyncio.create_task(one(key)) for key in ("a", "a", "a", "b")]
    await read_times(source, 2)
    assert len(feed) == 4
    source.state = 7
    assert await asyncio.gather(*watching) == [7, 7, 7, 7]

    assert set(map(tuple, source.read)) == {("a", "b")}
    assert len(feed) == 0
    read = len(source.read)
    await asyncio.sleep(0.05)
    assert len(source.read) == read, "nobody watches, nothing is read"


async def test_a_late_watcher_gets_what_others_have_seen() -> None:
    source = Source()
    feed: Feed[str, int] = Feed(source, interval=0.01)
    source.state = 3
    async with aclosing(feed.watch("a", 0)) as early:
        assert await anext(early) == 3
        async with aclosing(feed.watch("a", 2)) as late:
            assert await asyncio.wait_for(anext(late), 1) == 3


async def test_watchers_outlive_a_ledger_that_is_away_and_a_reading_that_fails() -> None:
    source = Source()
    feed: Feed[str, int] = Feed(source, interval=0.01)
    async with aclosing(feed.watch("a", 0)) as states:
        waiting = asyncio.ensure_future(anext(states))
        for failure in (LedgerAway, RuntimeError):
            source.fail = failure
            await read_times(source, len(source.read) + 2)
        source.fail, source.state = None, 5
        assert await asyncio.wait_for(waiting, 1) == 5


async def test_silence_is_filled_with_heartbeats_and_leaving_closes_the_source() -> None:
    closed = asyncio.Event()

    async def silent() -> AsyncGenerator[bytes, None]:
        try:
            yield b"data: 1\n\n"
            await asyncio.Event().wait()
        finally:
            closed.set()

    body = cast(AsyncGenerator[bytes, None], event_stream(silent(), heartbeat=0.01).body_iterator)
    assert [await anext(body) for _ in range(4)] == [
        b"retry: 2000\n\n",
        b"data: 1\n\n",
        b": heartbeat\n\n",
        b": heartbeat\n\n",
    ]
    await body.aclose()
    await asyncio.wait_for(closed.wait(), 1)


async def test_a_stream_ends_with_its_source() -> None:
    async def short() -> AsyncGenerator[bytes, None]:
        yield b"data: 1\n\n"

    body = event_stream(short(), heartbeat=1.0).body_iterator
    assert [part async for part in body] == [b"retry: 2000\n\n", b"data: 1\n\n"]


async def test_a_stream_ends_after_its_time_however_silent_its_source() -> None:
    async def silent() -> AsyncGenerator[bytes, None]:
        await asyncio.Event().wait()
        yield b""

    body = event_stream(silent(), heartbeat=0.01, at_most=0.03).body_iterator
    parts = [part async for part in body]
    assert set(parts[1:]) == {b": heartbeat\n\n"}

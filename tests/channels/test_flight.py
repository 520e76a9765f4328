"""Calls in flight: the limit, the order, failures and closing early."""

import asyncio

import pytest

from channels.flight import in_flight


async def test_never_more_than_the_limit_and_all_of_them() -> None:
    active = peak = 0

    async def call(item: int) -> int:
        nonlocal active, peak
        active += 1
        peak = max(peak, active)
        await asyncio.sleep(0)
        active -= 1
        return item

    results = [result async for result in in_flight(list(range(100)), call, limit=7)]
    assert sorted(results) == list(range(100))
    assert peak == 7


async def test_results_come_as_they_finish() -> None:
    gates = [asyncio.Event() for _ in range(3)]

    async def call(item: int) -> int:
        await gates[item].wait()
        return item

    flight = in_flight([0, 1, 2], call, limit=3)
    seen = []
    for item in (2, 0, 1):
        gates[item].set()
        seen.append(await anext(flight))
    assert seen == [2, 0, 1]
    with pytest.raises(StopAsyncIteration):
        await anext(flight)


async def test_a_failure_starts_nothing_more_and_loses_nothing() -> None:
    started: list[int] = []

    async def call(item: int) -> int:
        started.append(item)
        if item == 1:
            raise ZeroDivisionError
        await asyncio.sleep(0.01)
        return item

    seen = []
    with pytest.raises(ZeroDivisionError):
        async for result in in_flight(list(range(50)), call, limit=3):
            seen.append(result)
    assert sorted(seen) == [0, 2]
    assert started == [0, 1, 2]


async def test_closing_early_cancels_what_is_under_way() -> None:
    cancelled = 0

    async def call(item: int) -> int:
        nonlocal cancelled
        if item == 0:
            return item
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            raise
        return item

    flight = in_flight(list(range(10)), call, limit=4)
    assert await anext(flight) == 0
    await flight.aclose()
    assert cancelled == 4


async def test_nothing_to_do() -> None:
    async def call(item: int) -> int:
        return item

    assert [result async for result in in_flight([], call, limit=4)] == []

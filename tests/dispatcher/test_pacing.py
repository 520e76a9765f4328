"""One sender's pace over several takers, on a real Valkey."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from dispatcher.delivery.pacing import AHEAD, ALONE_SHARE, URGENT_AHEAD, Pace, Pacing
from dispatcher.embedded import Addresses


@pytest.fixture
async def redis(stack: Addresses) -> AsyncIterator[Redis]:
    """A client of the session's Valkey, on an empty database of its own."""
    client: Redis = Redis.from_url(stack.broker_url).client()
    client.connection_pool.connection_kwargs["db"] = 9
    await client.flushdb()
    yield client
    await client.aclose()


def most_in_a_second(moments: list[float]) -> int:
    """The fullest second, wherever it begins."""
    ordered = sorted(moments)
    return max(bisect_left(ordered, at + 1.0 - 1e-4) - n for n, at in enumerate(ordered))


async def taken(
    pacing: Pacing, pace: Pace, *, until: float, wanted: int, returned: int = 0
) -> list[float]:
    """The moments one taker is given until then, of which it returns some of each grant."""
    moments: list[float] = []
    while (now := time.monotonic()) < until:
        grant = await pacing.take(pace, wanted)
        if grant.count == 0:
            await asyncio.sleep(min(grant.wait, until - now))  # the caller parks the batch
            continue
        answered = time.monotonic()
        back = min(returned, grant.count)
        await pacing.give_back(pace, grant, back)
        used = grant.count - back
        moments += [answered + grant.offset + n * grant.interval for n in range(used)]
    return moments


@pytest.mark.parametrize("units", [1, 3])
async def test_four_takers_never_exceed_the_rate_and_waste_little(redis: Redis, units: int) -> None:
    pace = Pace("sms:72345", rate=600.0, units=units)
    takers = [Pacing(redis, monotonic=time.monotonic) for _ in range(4)]
    began = time.monotonic()
    each = [taken(taker, pace, until=began + 2.0, wanted=50) for taker in takers]
    moments = [moment for given in await asyncio.gather(*each) for moment in given]
    allowed = 600 / units
    # A taker's own clock reads each answer a little late: a hundredth is the measure's error.
    assert most_in_a_second(moments) <= allowed * 1.01 + 1
    span = max(moments) - min(moments)
    assert len(moments) / (allowed * span) >= 0.95


async def test_what_is_given_back_is_never_granted_over_another_s_moments(redis: Redis) -> None:
    """A return after others were granted later moments must not move their beginning."""
    pace = Pace("sms:72345", rate=100.0)
    one, other = (Pacing(redis, monotonic=time.monotonic) for _ in range(2))
    first = await one.take(pace, 50)
    second = await other.take(pace, 20)
    await one.give_back(pace, first, 50)
    third = await one.take(pace, 20)
    ends = second.offset + second.count * second.interval
    assert third.offset >= ends - 0.05

    await one.give_back(pace, third, 20)
    assert (await other.take(pace, 1)).offset == pytest.approx(ends, abs=0.05)


async def test_takers_that_return_much_keep_to_the_rate(redis: Redis) -> None:
    pace = Pace("mail", rate=500.0)
    takers = [Pacing(redis, monotonic=time.monotonic) for _ in range(4)]
    until = time.monotonic() + 1.5
    each = [taken(taker, pace, until=until, wanted=40, returned=15) for taker in takers]
    moments = [moment for given in await asyncio.gather(*each) for moment in given]
    assert most_in_a_second(moments) <= 500 * 1.01 + 1


async def test_bulk_reaches_a_second_ahead_and_urgent_goes_on(redis: Redis) -> None:
    pace = Pace("sms:72345", rate=100.0)
    pacing = Pacing(redis, monotonic=time.monotonic)
    bulk = await pacing.take(pace, 10_000)
    assert bulk.count == int(100 * AHEAD)
    refused = await pacing.take(pace, 10)
    assert refused.count == 0
    assert 0 < refused.wait <= AHEAD
    urgent = await pacing.take(pace, 10, urgent=True)
    assert urgent.count == 10
    assert AHEAD - 0.1 <= urgent.offset < URGENT_AHEAD


async def test_a_slow_sender_is_granted_one_at_a_time(redis: Redis) -> None:
    pace = Pace("x:northvalehelp", rate=0.2)
    pacing = Pacing(redis, monotonic=time.monotonic)
    first = await pacing.take(pace, 5)
    assert (first.count, first.offset) == (1, 0.0)
    second = await pacing.take(pace, 5)
    assert second.count == 0
    assert 3.5 < second.wait <= 5.0


async def test_without_valkey_a_worker_goes_on_with_a_share() -> None:
    """Nobody answers on that port: a tenth of the rate, spread evenly, by its own clock."""
    nobody: Redis = Redis(port=1, retry=Retry(NoBackoff(), 0))
    now = [100.0]
    pacing = Pacing(nobody, monotonic=lambda: now[0])
    pace = Pace("sms:72345", rate=200.0)
    granted = 0
    for _ in range(10):
        grant = await pacing.take(pace, 1_000)
        granted += grant.count
        if grant.count:
            assert grant.interval == pytest.approx(1 / (200.0 * ALONE_SHARE))
        now[0] += 0.5
    assert granted <= 200.0 * ALONE_SHARE * (5.0 + AHEAD)
    assert granted >= 200.0 * ALONE_SHARE * 4.5
    await nobody.aclose()

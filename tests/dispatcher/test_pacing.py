"""One sender's pace over several takers, on a real Valkey."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable
from typing import cast

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from dispatcher.delivery.pace_scripts import BULK_AHEAD, LEAST_SHARE, REACH
from dispatcher.delivery.pacing import (
    ALONE_SHARE,
    GUARD,
    MOST_LEAD,
    Budget,
    Counted,
    Grant,
    Pace,
    Pacing,
)
from dispatcher.delivery.server_clock import SHARP
from dispatcher.embedded import Addresses

QUARTER_HOUR = Budget(seconds=900.0, limit=100)


@pytest.fixture
async def redis(stack: Addresses) -> AsyncIterator[Redis]:
    """A client of the session's Valkey, on an empty database of its own that has been in use."""
    client: Redis = Redis.from_url(stack.broker_url).client()
    client.connection_pool.connection_kwargs["db"] = 9
    await client.flushdb()
    await client.set("pace-since", "1.0")
    yield client
    await client.flushdb()
    await client.aclose()


def ledger_counts(units: dict[float, int]) -> Counted:
    """A ledger that counts this much in so many seconds."""

    def counted(sender: str, seconds: float) -> int:
        return units[seconds]

    return counted


async def pacing_of(redis: Redis, counted: Counted | None = None) -> Pacing:
    """A worker's pacing whose scripts are loaded: a Valkey that has just started is its own test."""
    pacing = Pacing(redis) if counted is None else Pacing(redis, counted=counted)
    await pacing.prime()
    await redis.set("pace-since", "1.0")
    return pacing


def most_in_a_second(moments: list[float]) -> int:
    """The fullest second, wherever it begins."""
    ordered = sorted(moments)
    return max(bisect_left(ordered, at + 1.0) - n for n, at in enumerate(ordered))


def moments_of(grant: Grant) -> list[float]:
    return [grant.moment(n) for n in range(grant.count)]


async def taken(
    pacing: Pacing, pace: Pace, *, until: float, wanted: int, returned: int = 0
) -> list[float]:
    """The moments one taker is given until then, of which it returns some of each grant."""
    moments: list[float] = []
    while time.monotonic() < until:
        grant = await pacing.take(pace, wanted, patience=0.5)
        back = min(returned, grant.count)
        await pacing.give_back(pace, grant, back)
        moments += moments_of(grant)[: grant.count - back]
    return moments


@pytest.mark.parametrize(("rate", "units"), [(10.0, 1), (600.0, 1), (600.0, 3), (5_000.0, 1)])
async def test_four_takers_never_exceed_the_rate(redis: Redis, rate: float, units: int) -> None:
    pace = Pace("sms:72345", rate=rate, units=units)
    takers = [await pacing_of(redis) for _ in range(4)]
    until = time.monotonic() + 1.5
    each = [taken(taker, pace, until=until, wanted=50) for taker in takers]
    moments = sorted(
        moment for given in await asyncio.gather(*each) for moment in given if moment < until
    )
    assert most_in_a_second(moments) * units <= rate


async def test_what_is_given_back_is_never_granted_over_another_s_moments(redis: Redis) -> None:
    """A return after others were granted later moments must not move their beginning."""
    pace = Pace("sms:72345", rate=100.0)
    one, other = [await pacing_of(redis) for _ in range(2)]
    first = await one.take(pace, 30)
    second = await other.take(pace, 15)
    await one.give_back(pace, first, 30)
    third = await one.take(pace, 5, urgent=True)
    ends = second.moment(second.count)
    assert third.first >= ends - 0.1


async def test_takers_that_return_much_keep_to_the_rate(redis: Redis) -> None:
    pace = Pace("mail", rate=500.0)
    takers = [await pacing_of(redis) for _ in range(4)]
    until = time.monotonic() + 1.5
    each = [taken(taker, pace, until=until, wanted=40, returned=15) for taker in takers]
    moments = [moment for given in await asyncio.gather(*each) for moment in given]
    assert most_in_a_second(moments) <= 500


async def test_urgent_goes_first_on_a_sender_that_bulk_keeps_full(redis: Redis) -> None:
    """Four takers want all there is; each urgent unit has its moment within a second."""
    pace = Pace("sms:72345", rate=100.0)
    takers = [await pacing_of(redis) for _ in range(4)]
    until = time.monotonic() + 1.5
    bulk = [asyncio.create_task(taken(taker, pace, until=until, wanted=50)) for taker in takers]
    urgent = await pacing_of(redis)
    own: list[float] = []
    while time.monotonic() < until:
        grant = await urgent.take(pace, 1, urgent=True, patience=1.0)
        assert grant.count == 1
        # However late the answer: a moment that bulk could not have reached.
        assert grant.first < time.monotonic() + 1.0
        own.append(grant.first)
        await asyncio.sleep(0.1)
    moments = [moment for given in await asyncio.gather(*bulk) for moment in given]
    assert own
    assert most_in_a_second(moments + own) <= 100


async def test_a_slow_sender_is_granted_one_at_a_time(redis: Redis) -> None:
    pace = Pace("x:northvalehelp", rate=0.2)
    pacing = await pacing_of(redis)
    assert (await pacing.take(pace, 5)).count == 1
    second = await pacing.take(pace, 5)
    assert second.count == 0
    assert 3.5 < second.wait <= 5.0 / GUARD


async def test_a_valkey_that_forgot_everything_grants_nothing_on_top(redis: Redis) -> None:
    """After FLUSHALL the moments granted before it are still to come."""
    pace = Pace("sms:72345", rate=100.0)
    one, other = [await pacing_of(redis) for _ in range(2)]
    before = await one.take(pace, 40)
    assert before.count == 40
    await redis.flushdb()
    assert (await other.take(pace, 40)).count == 0
    after = await other.take(pace, 40, patience=5.0)
    assert after.count
    assert most_in_a_second(moments_of(before) + moments_of(after)) <= 100
    assert after.first > before.moment(before.count - 1)


async def test_a_restarted_valkey_is_as_one_that_forgot(redis: Redis) -> None:
    """Its file may lack the last second, and its scripts are gone: that is how it is known."""
    pace = Pace("sms:72345", rate=100.0)
    one = await pacing_of(redis)
    before = await one.take(pace, 40)
    stale = await redis.dump("pace:sms:72345")
    assert stale is not None
    await one.take(pace, 5)
    await redis.restore("pace:sms:72345", 0, stale, replace=True)
    await cast(Awaitable[str], redis.script_flush())
    assert (await one.take(pace, 40)).count == 0
    after = await one.take(pace, 40, patience=5.0)
    assert after.first > before.moment(before.count + 5 - 1)


async def test_a_clock_that_went_back_does_not_stop_a_sender(redis: Redis) -> None:
    """What stands an hour in the future was written by a clock that has been put right since."""
    pace = Pace("sms:72345", rate=100.0)
    pacing = await pacing_of(redis)
    seconds, _ = await redis.time()
    for field in ("tat", "hold"):
        await redis.hset("pace:sms:72345", field, f"{seconds + 3600}.000000")
    grant = await pacing.take(pace, 10, patience=5.0)
    assert grant.count == 10


async def test_throttling_halves_the_rate_for_all(redis: Redis) -> None:
    pace = Pace("sms:72345", rate=100.0)
    one, other = [await pacing_of(redis) for _ in range(2)]
    assert await one.throttled(pace) == 0.5
    share = await other.throttled(pace)
    assert share < 0.6
    grant = await other.take(pace, 10)
    assert grant.interval == pytest.approx(1 / (100 * GUARD * share), rel=0.2)


async def test_a_throttled_sender_recovers_within_a_minute_and_never_stops(redis: Redis) -> None:
    pace = Pace("sms:72345", rate=100.0)
    pacing = await pacing_of(redis)
    key = "pace:sms:72345"
    for _ in range(8):
        await pacing.throttled(pace)
        seconds, micros = await redis.time()
        await redis.hset(key, "cut", f"{seconds - 1 + micros / 1e6:.6f}")
    assert await pacing.throttled(pace) == pytest.approx(LEAST_SHARE, abs=0.05)
    seconds, _ = await redis.time()
    await redis.hset(key, "cut", f"{seconds - 60}.0")
    grant = await pacing.take(pace, 10)
    assert grant.interval == pytest.approx(1 / (100 * GUARD), rel=1e-6)


async def test_nothing_leaves_before_the_provider_s_wish(redis: Redis) -> None:
    pace = Pace("sms:72345", rate=100.0)
    one, other = [await pacing_of(redis) for _ in range(2)]
    await one.throttled(pace, retry_after=30.0)
    grant = await other.take(pace, 10, urgent=True)
    assert grant.count == 0
    assert 25.0 < grant.wait <= 30.0


async def test_a_long_window_is_counted_from_the_ledger_and_then_kept(redis: Redis) -> None:
    pace = Pace("x:northvalehelp", rate=1_000.0, budgets=(QUARTER_HOUR,))
    counted = ledger_counts({225.0: 10, 450.0: 30, 675.0: 30, 900.0: 70})
    pacing = await pacing_of(redis, counted)
    bulk = await pacing.take(pace, 50, patience=1.0)
    # A tenth of the hundred is urgent's, seventy are spent.
    assert bulk.count == 20
    refused = await pacing.take(pace, 50)
    assert refused.count == 0
    # Forty of them are of the oldest quarter: they have left within it and a bucket.
    assert 0 < refused.wait <= 225.0 + 15.0
    urgent = await pacing.take(pace, 50, urgent=True, patience=1.0)
    assert urgent.count == 10


async def test_what_left_nothing_goes_back_to_the_long_window(redis: Redis) -> None:
    pace = Pace("x:northvalehelp", rate=1_000.0, budgets=(QUARTER_HOUR,))
    one, other = [await pacing_of(redis) for _ in range(2)]
    grant = await one.take(pace, 60)
    assert (grant.count, (await other.take(pace, 25, patience=1.0)).count) == (60, 25)
    await one.give_back(pace, grant, 10, missed=5)
    again = await other.take(pace, 90, patience=1.0)
    assert again.count == 90 - 85 + 15


async def test_several_long_windows_hold_at_once(redis: Redis) -> None:
    day = Budget(seconds=86_400.0, limit=40)
    pace = Pace("x:northvalehelp", rate=1_000.0, budgets=(QUARTER_HOUR, day))
    pacing = await pacing_of(redis)
    assert (await pacing.take(pace, 100, patience=1.0)).count == 36


async def test_many_envelopes_a_request_are_granted_as_a_request(redis: Redis) -> None:
    """A request of many people is small enough for its burst to fit into the guard."""
    assert Pace("mail", rate=20_000.0, together=1_000).lump == 300
    assert Pace("mail", rate=1_000_000.0, together=1_000).lump == 1_000
    assert Pace("mail", rate=1.0, together=1_000).lump == 1
    pace = Pace("mail", rate=1_000.0, together=1_000)
    pacing = await pacing_of(redis)
    await pacing.take(pace, 10_000)
    grant = await pacing.take(pace, 10_000, patience=1.0)
    assert grant.count >= pace.lump


async def test_without_valkey_a_worker_goes_on_with_a_share() -> None:
    """Nobody answers on that port: a tenth of the rate, spread evenly, by its own clock."""
    nobody: Redis = Redis(port=1, retry=Retry(NoBackoff(), 0))
    now = [100.0]
    pacing = Pacing(nobody, monotonic=lambda: now[0])
    pace = Pace("sms:72345", rate=200.0)
    moments: list[float] = []
    for _ in range(10):
        moments += moments_of(await pacing.take(pace, 1_000))
        now[0] += 0.5
    assert most_in_a_second(moments) <= 200.0 * ALONE_SHARE
    assert len(moments) >= 200.0 * ALONE_SHARE * 4.5
    assert await pacing.throttled(pace) == 1.0
    await nobody.aclose()


async def test_alone_a_worker_keeps_to_the_slowest_window() -> None:
    nobody: Redis = Redis(port=1, retry=Retry(NoBackoff(), 0))
    pacing = Pacing(nobody, monotonic=lambda: 100.0)
    pace = Pace("x:northvalehelp", rate=1.0, budgets=(QUARTER_HOUR,))
    assert (await pacing.take(pace, 5)).count == 1
    refused = await pacing.take(pace, 5)
    assert refused.count == 0
    assert refused.wait == pytest.approx(90.0 - BULK_AHEAD)
    await nobody.aclose()


async def test_a_jump_of_the_server_s_clock_lets_granted_moments_pass(redis: Redis) -> None:
    """Told apart from a slow answer: a worker's own clock is put two seconds off instead."""
    skew = [0.0]
    pacing = Pacing(redis, monotonic=lambda: time.monotonic() + skew[0])
    await pacing.prime()
    await redis.set("pace-since", "1.0")
    pace = Pace("sms:72345", rate=100.0)
    assert (await pacing.take(pace, 10)).count == 10
    skew[0] = -2.0
    jumped = await pacing.take(pace, 10)
    assert (jumped.count, jumped.wait) == (0, REACH)
    assert (await pacing.take(pace, 10)).count == 10


async def test_a_busy_worker_is_granted_moments_that_it_can_keep(redis: Redis) -> None:
    """What is to be claimed first starts no sooner than it lately could; what is in hand may."""
    pacing = await pacing_of(redis)
    pacing.started(late=0.15)
    asked = time.monotonic()
    later = await pacing.take(Pace("sms:a", rate=50.0), 5)
    at_once = await pacing.take(Pace("sms:b", rate=50.0), 5, in_hand=True)
    answered = time.monotonic()
    assert later.first >= asked + 0.15 - SHARP
    assert at_once.first <= answered + SHARP


def test_the_lead_comes_down_and_has_an_end() -> None:
    pacing = Pacing(Redis(port=1))
    pacing.started(late=60.0)
    leads = [pacing.lead]
    for _ in range(200):
        pacing.started(late=-pacing.lead)
        leads.append(pacing.lead)
    assert leads[0] == MOST_LEAD
    assert leads == sorted(leads, reverse=True)
    assert leads[-1] < 0.001

"""The scripts by themselves, on a clock that the test turns: whatever is asked in whatever order.

The same Lua as in use, but for its first lines, which read the clock.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from dispatcher.delivery import pace_scripts
from dispatcher.delivery.pace_scripts import BUCKETS, BULK_AHEAD, LEAST_SHARE, REACH, URGENT_SHARE
from dispatcher.embedded import Addresses

TURNED = "local now = tonumber(table.remove(ARGV))\n"
KEYS = ("s", "since")
SECONDS, LIMIT = 90.0, 40
START = 1_000_000.0


class Sender:
    """One sender without a worker's clock in between."""

    def __init__(self, redis: Redis, rate: float, *, budget: bool) -> None:
        redis.flushdb()
        redis.set("since", START - 100.0)
        self._take = redis.register_script(TURNED + pace_scripts.TAKE)
        self._back = redis.register_script(TURNED + pace_scripts.GIVE_BACK)
        self._cut = redis.register_script(TURNED + pace_scripts.THROTTLED)
        self._rate = rate
        self._long = ("s:90",) if budget else ()
        self.now = START
        self.held: list[list[tuple[float, bool]]] = []

    def take(self, wanted: int, *, urgent: bool, within: float = REACH, lead: float = 0.0) -> float:
        """Seconds to wait if nothing was granted, else 0; no moment may lie too far off, nor
        nearer than the lead."""
        reach = min(within, REACH if urgent else BULK_AHEAD)
        window = [SECONDS, LIMIT, 0, 0, 0, 0] if self._long else []
        args: list[str | float] = [
            self._rate,
            1,
            wanted,
            1,
            int(urgent),
            0,
            reach,
            lead,
            *window,
            repr(self.now),
        ]
        count, _, first, interval, wait, until = self._take(keys=[*KEYS, *self._long], args=args)
        moments = [float(first) + n * float(interval) for n in range(count)]
        assert all(self.now + lead - 1e-5 <= at <= self.now + reach + 1e-5 for at in moments)
        assert len(moments) <= wanted
        if moments:
            self.held.append([(at, urgent) for at in moments])
            self.last = (until, float(interval), self.now)
        return float(wait)

    def give_back(self, count: int) -> None:
        """The last moments of the last grant go back."""
        until, interval, at = self.last
        count = min(count, len(self.held[-1]))
        window = [SECONDS] if self._long else []
        args: list[str | float] = [
            until,
            repr(interval * count),
            count,
            repr(at),
            *window,
            repr(self.now),
        ]
        self._back(keys=["s", *self._long], args=args)
        del self.held[-1][len(self.held[-1]) - count :]
        if not self.held[-1]:
            self.held.pop()

    def throttled(self) -> float:
        share = float(self._cut(keys=["s"], args=["0", repr(self.now)])[0])
        assert LEAST_SHARE <= share <= 1.0
        return share

    def moments(self) -> list[float]:
        return sorted(at for grant in self.held for at, _ in grant)


@pytest.fixture(scope="module")
def valkey(stack: Addresses) -> Iterator[Redis]:
    client = Redis.from_url(stack.broker_url, db=8)
    yield client
    client.flushdb()
    client.close()


def fullest(moments: list[float], seconds: float) -> int:
    return max(
        (bisect_left(moments, at + seconds - 1e-5) - n for n, at in enumerate(moments)), default=0
    )


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("bulk"), st.integers(1, 60)),
        st.tuples(st.just("busy"), st.integers(1, 60)),
        st.tuples(st.just("urgent"), st.integers(1, 10)),
        st.tuples(st.just("back"), st.integers(1, 60)),
        st.tuples(st.just("throttled"), st.just(0)),
        st.tuples(st.just("pause"), st.integers(1, 3_000)),
    ),
    max_size=40,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rate=st.sampled_from([0.5, 7.0, 100.0, 1_000.0]), budget=st.booleans(), steps=_STEPS)
def test_no_order_of_asking_and_giving_back_exceeds_any_window(
    valkey: Redis, rate: float, budget: bool, steps: list[tuple[str, int]]
) -> None:
    sender = Sender(valkey, rate, budget=budget)
    for step, much in steps:
        if step == "pause":
            sender.now += much / 1_000.0
        elif step == "throttled":
            sender.throttled()
        elif step == "back" and sender.held:
            sender.give_back(much)
        elif step in ("bulk", "busy", "urgent"):
            sender.take(much, urgent=step == "urgent", lead=0.15 if step == "busy" else 0.0)
    moments = sender.moments()
    assert fullest(moments, 1.0) <= max(1, math.ceil(rate))
    gaps = [after - before for before, after in pairwise(moments)]
    assert min(gaps, default=1.0 / rate) >= 1.0 / rate - 1e-5
    if budget:
        assert fullest(moments, SECONDS) <= LIMIT


def test_bulk_alone_uses_the_rate_and_urgent_s_tenth_of_a_long_window_stays(
    valkey: Redis,
) -> None:
    """Asked again exactly when the answer says, nothing is wasted; the long window is exact."""
    sender = Sender(valkey, 100.0, budget=False)
    while sender.now < START + 10.0:
        sender.now += max(sender.take(50, urgent=False), 0.0005)
    within = bisect_right(sender.moments(), START + 10.0)
    assert within >= 1_000 - 50

    sender = Sender(valkey, 100.0, budget=True)
    while sender.now < START + 400.0:
        # Asked in between as well, as several workers do.
        sender.now += min(max(sender.take(50, urgent=False), 0.01), 1.0)
    bulk = LIMIT * (1 - URGENT_SHARE)
    assert fullest(sender.moments(), SECONDS) == bulk
    # A window that has just begun counts whole: at most a bucket in each window is lost.
    assert len(sender.moments()) >= bulk * math.floor(400.0 / (SECONDS * (1 + 2 / BUCKETS)))
    sender.take(50, urgent=True)
    assert fullest(sender.moments(), SECONDS) == LIMIT


def test_a_cut_is_halved_once_a_second_and_recovers(valkey: Redis) -> None:
    sender = Sender(valkey, 100.0, budget=False)
    assert [sender.throttled() for _ in range(3)] == [0.5, 0.5, 0.5]
    sender.now += 1.0
    assert sender.throttled() == pytest.approx((0.5 + 1 / 60) / 2, abs=1e-6)
    sender.now += 60.0
    sender.take(10, urgent=False)
    moments = sender.moments()
    assert moments[1] - moments[0] == pytest.approx(0.01, abs=1e-6)


def test_urgent_has_the_moments_beyond_what_bulk_may_reach(valkey: Redis) -> None:
    sender = Sender(valkey, 100.0, budget=False)
    assert sender.take(10_000, urgent=False) == 0.0
    assert len(sender.moments()) == int(100.0 * BULK_AHEAD) + 1
    assert 0.0 < sender.take(10, urgent=False) <= BULK_AHEAD
    # Who holds rows already takes no moment that lies far off.
    assert sender.take(1, urgent=False, within=0.1) > 0.3
    assert sender.take(1, urgent=True) == 0.0
    assert sender.moments()[-1] - sender.now < REACH


def test_moments_go_back_only_if_nobody_has_later_ones(valkey: Redis) -> None:
    sender = Sender(valkey, 100.0, budget=False)
    sender.take(20, urgent=False)
    early = sender.last
    sender.take(10, urgent=False)
    late = sender.last
    sender.last = early
    sender.give_back(5)  # the first grant's: refused, or the next would fall on the second's
    sender.held[-1] += [(START + (25 + n) / 100.0, False) for n in range(5)]
    sender.take(1, urgent=False)
    assert sender.moments()[-1] == pytest.approx(START + 0.30, abs=1e-5)
    sender.give_back(1)
    sender.last = late
    sender.give_back(10)
    sender.take(1, urgent=False)
    assert sender.moments()[-1] == pytest.approx(START + 0.20, abs=1e-5)

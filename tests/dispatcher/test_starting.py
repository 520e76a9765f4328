"""Envelopes leave at the moments granted, by a clock that the test turns."""

import asyncio
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from dispatcher.delivery.pace_scripts import REACH
from dispatcher.delivery.pacing import Grant, Pace, Pacing
from dispatcher.delivery.starting import LATE, SLICE, SOON, Starting

PACE = Pace("sms:72345", rate=100.0)


class Clock:
    """A worker's clock: it moves only when the test or a sleeper says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """As the loop's own, which comes back a little late."""
        self.now += seconds + 0.0001
        await asyncio.sleep(0)


class Grants(Pacing):
    """Pacing that grants what the test lays out, and notes what it gets back."""

    def __init__(self, clock: Clock, grants: Sequence[tuple[int, float, float]]) -> None:
        super().__init__(Redis(port=1))
        self._own = clock
        self._grants = list(grants)
        self.wanted: list[int] = []
        self.returned: list[tuple[int, int]] = []

    async def take(
        self,
        pace: Pace,
        wanted: int,
        *,
        urgent: bool = False,
        patience: float = 0.0,
        within: float = REACH,
        in_hand: bool = False,
    ) -> Grant:
        assert within == SOON + self.lead
        assert in_hand
        self.wanted.append(wanted)
        if not self._grants:
            return Grant(0, wait=1.0)
        count, offset, interval = self._grants.pop(0)
        return Grant(min(count, wanted), self._own.now + offset, interval)

    async def give_back(self, pace: Pace, grant: Grant, count: int, *, missed: int = 0) -> None:
        self.returned.append((count, missed))


class Wire:
    """Notes when envelopes left, and in which company."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.left: dict[int, float] = {}
        self.parts: list[int] = []

    async def launch(self, part: Sequence[int]) -> None:
        self.parts.append(len(part))
        self.left.update(dict.fromkeys(part, self._clock.now))


async def started(
    clock: Clock, pacing: Grants, wire: Wire, grant: Grant, envelopes: int, *, pace: Pace = PACE
) -> list[int]:
    starting: Starting[int] = Starting(pacing, monotonic=clock, sleep=clock.sleep)
    async with asyncio.TaskGroup() as group:
        return await starting.start(group, pace, grant, range(envelopes), wire.launch)


async def test_each_leaves_at_its_moment_and_what_nobody_needs_goes_back() -> None:
    clock = Clock()
    pacing, wire = Grants(clock, []), Wire(clock)
    grant = Grant(8, clock.now + 0.01, 0.01)
    assert await started(clock, pacing, wire, grant, 5) == []
    assert list(wire.left) == [0, 1, 2, 3, 4]
    for n, at in wire.left.items():
        assert at >= grant.moment(n) - SLICE
    assert pacing.returned == [(3, 0)]


async def test_after_a_stall_nothing_is_made_up_for_in_a_clump() -> None:
    """The process stood still: what has lost its moment gets a new one or is left."""
    clock = Clock()
    pacing, wire = Grants(clock, [(4, 0.1, 0.01)]), Wire(clock)
    grant = Grant(20, clock.now, 0.001)
    clock.now += 1.0
    left = await started(clock, pacing, wire, grant, 20)
    assert left == list(range(4, 20))
    assert list(wire.left) == [0, 1, 2, 3]
    assert pacing.wanted == [20, 16]
    assert pacing.returned == [(0, 20), (0, 0)]


async def test_a_short_stall_costs_only_the_moments_that_have_passed() -> None:
    clock = Clock()
    pacing, wire = Grants(clock, []), Wire(clock)
    grant = Grant(100, clock.now, 0.001)
    clock.now += LATE + 0.0305
    left = await started(clock, pacing, wire, grant, 100)
    ((unused, missed),) = pacing.returned
    assert unused == 0
    assert 30 <= missed <= 32
    assert len(left) == missed
    # What is still in time leaves at once: no more of it than the play that pacing allows.
    assert max(wire.parts) <= (LATE + SLICE) / 0.001 + 2


async def test_nothing_starts_once_the_caller_may_not() -> None:
    clock = Clock()
    pacing, wire = Grants(clock, [(50, 0.0, 0.01)]), Wire(clock)
    starting: Starting[int] = Starting(pacing, monotonic=clock, sleep=clock.sleep)
    until = clock.now + 0.05
    async with asyncio.TaskGroup() as group:
        left = await starting.start(
            group,
            PACE,
            Grant(0),
            range(50),
            wire.launch,
            may_start=lambda: clock.now < until,
        )
    assert 1 <= len(wire.left) <= 6
    assert left == list(range(len(wire.left), 50))
    assert pacing.returned == [(len(left), 0)]


async def test_many_a_request_leave_together_but_no_more_than_the_pace_bears() -> None:
    clock = Clock()
    pace = Pace("mail", rate=1_000.0, together=1_000)
    pacing, wire = Grants(clock, []), Wire(clock)
    await started(clock, pacing, wire, Grant(60, clock.now, 0.001), 60, pace=pace)
    assert wire.parts == [pace.lump] * 4


async def test_an_exception_of_a_launch_ends_the_start_and_cancels_the_rest() -> None:
    clock = Clock()
    pacing = Grants(clock, [])
    seen: list[int] = []

    async def launch(part: Sequence[int]) -> None:
        seen.extend(part)
        raise ValueError("a bug of an adapter")

    starting: Starting[int] = Starting(pacing, monotonic=clock, sleep=clock.sleep)
    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            await starting.start(group, PACE, Grant(5, clock.now, 0.05), range(5), launch)
    assert seen == [0]

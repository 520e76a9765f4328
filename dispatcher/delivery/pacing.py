"""How fast a sender may go, exactly, over all workers on all machines.

A grant is a row of moments, evenly spaced, a second ahead at most, that no other worker has:
no stretch of a second, wherever it begins, holds more than the rate in the provider's unit.
Taking n is one script on Valkey's clock whatever n is (`pace_scripts`), and the moments
arrive on the worker's own clock (`server_clock`). What is still to be claimed gets none that
would pass before it is: the first lies as far ahead as a busy worker lately needed. Bulk reaches half as far ahead as urgent,
so the moments beyond are always urgent's; long windows are budgets of which urgent has a
tenth to itself, counted from the ledger when Valkey does not know them. Throttling halves a
sender's rate for everybody, and it recovers within a minute. Without Valkey a worker goes on
alone with a small share.

Tried with four workers, judged at the sink, and not used: `limits` and `pyrate-limiter` went
over the rate, for they say yes now and space nothing, so that every play in time shows;
`throttled-py` used far less than it, for who is refused waits and loses to the next. Each
asks for every single unit, and none keeps what is urgent apart.

Must not know what is sent, nor wait for anything but a moment.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from dispatcher.delivery import pace_scripts
from dispatcher.delivery.pace_scripts import BULK_AHEAD, REACH
from dispatcher.delivery.patience import until_back
from dispatcher.delivery.server_clock import SHARP, ServerClock

log = structlog.get_logger(__name__)

GUARD: Final = 0.97
"""Of a sender's rate. What it leaves is the play that starts and answers may have: a second
that begins with a late arrival still holds no more than the rate."""
ALONE_SHARE: Final = 0.1
"""Of the rate, for a worker that cannot ask the others."""
REQUEST_SECONDS: Final = 0.015
"""Seconds of the rate that one request of many envelopes may hold, so that it, too, fits into
the play that the guard leaves."""
MOST_LEAD: Final = 0.2
"""Seconds that the first moment may lie ahead because the worker is busy."""
READINGS: Final = 5
"""Looks at the server's clock, at most, before a grant of which it is not sure enough."""
QUARTERS: Final = 4

_MARKER: Final = "pace-since"


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `limit` units in any stretch of `seconds` (over a minute: 15 minutes, a day)."""

    seconds: float
    limit: int


@dataclass(frozen=True, slots=True)
class Pace:
    """A sender's pace: `rate` in the provider's unit per second, `units` per envelope.

    `together` is how many envelopes one request of the adapter can carry at most. `budgets`
    are the sender's long windows, all of which hold at once.
    """

    sender: str
    rate: float
    units: int = 1
    together: int = 1
    budgets: tuple[Budget, ...] = ()

    @property
    def lump(self) -> int:
        """Envelopes that may leave in one request without bending the pace."""
        return max(1, min(self.together, int(self.rate * REQUEST_SECONDS / self.units)))


@dataclass(frozen=True, slots=True)
class Grant:
    """`count` envelopes may leave, at `first` (the worker's monotonic clock, seconds) and then
    `interval` apart. With `count` 0, nothing can be granted for `wait` seconds.

    `until` and `at` are Valkey's: what the sender's next moment became, and when it was asked;
    empty if the grant was made without it.
    """

    count: int
    first: float = 0.0
    interval: float = 0.0
    wait: float = 0.0
    until: str = ""
    at: str = ""

    def moment(self, n: int) -> float:
        """When the n-th envelope, counted from 0, may leave."""
        return self.first + n * self.interval


Counted = Callable[[str, float], int]
"""(sender as in `Pace`, seconds) -> units accepted or under way in the last so many seconds,
by the ledger. It may block: it is called in a thread, and again while the database is away."""


def _nothing_counted(sender: str, seconds: float) -> int:
    return 0


class Pacing:
    """Grants from one state per sender in Valkey, shared by all workers.

    `redis` should fail fast, without tries of its own. One object per process and loop.
    """

    def __init__(
        self,
        redis: Redis,
        *,
        counted: Counted = _nothing_counted,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._counted = counted
        self._monotonic = monotonic
        self._clock = ServerClock()
        self._take = _Script(redis, pace_scripts.TAKE)
        self._give_back = _Script(redis, pace_scripts.GIVE_BACK)
        self._throttled = _Script(redis, pace_scripts.THROTTLED)
        self._ends: dict[str, float] = {}
        self.lead = 0.0

    def started(self, late: float) -> None:
        """A grant's first moment found its worker so many seconds later than it may be, or
        earlier if below 0. The lead follows lateness at once, and comes down slowly."""
        change = late if late > 0.0 else max(late, -self.lead) / 16
        self.lead = min(MOST_LEAD, max(0.0, self.lead + change))

    async def prime(self) -> None:
        """Get over with what a first grant waits for, when a worker starts.

        A Valkey that remembers nothing grants nothing for a second: others may hold moments.
        """
        try:
            await self._ask(Pace("", 1.0), 0, _Reach(urgent=False, ahead=0.0, lead=0.0))
        except (RedisError, OSError):
            return

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
        """Moments for up to `wanted` envelopes, all in the next `within` seconds, or as far as
        the lane may reach if that is less; waits up to `patience` seconds for any. Those
        `in_hand` can leave at once, others are claimed first."""
        ahead = min(within, REACH if urgent else BULK_AHEAD)
        reach = _Reach(urgent=urgent, ahead=ahead, lead=0.0 if in_hand else self.lead)
        gives_up = self._monotonic() + patience
        while True:
            grant = await self._take_now(pace, wanted, reach)
            if grant.count or self._monotonic() + grant.wait > gives_up:
                return grant
            # Not longer than the caller allowed: it wants what it has claimed to leave soon.
            await asyncio.sleep(grant.wait)

    async def give_back(self, pace: Pace, grant: Grant, count: int, *, missed: int = 0) -> None:
        """Return the last `count` moments of a grant, and the units of `missed` earlier ones.

        Moments are only taken back if nobody was granted anything after them; the units go
        back to the long windows in any case.
        """
        if not grant.until or (count < 1 and not (missed and pace.budgets)):
            return
        budgets = [repr(budget.seconds) for budget in pace.budgets]
        units = (count + missed) * pace.units
        back = repr(grant.interval * count)
        try:
            await self._give_back.surely(
                _keys(pace), [grant.until, back, units, grant.at, *budgets]
            )
        except (RedisError, OSError):
            return
        self._ends[pace.sender] = grant.moment(grant.count - count)

    async def throttled(self, pace: Pace, retry_after: float | None = None) -> float:
        """A provider said too fast: halve the sender's rate, once a second at most.

        Nothing is granted for `retry_after` seconds. Returns the share of its rate that the
        sender has left, 1.0 if Valkey is away.
        """
        try:
            wish = repr(max(0.0, retry_after or 0.0))
            (share,) = await self._throttled.surely(_keys(pace)[:1], [wish])
        except (RedisError, OSError):
            return 1.0
        log.warning("pacing.throttled", share=float(share), retry_after=retry_after)
        return float(share)

    async def _take_now(self, pace: Pace, wanted: int, reach: "_Reach") -> Grant:
        try:
            moved = await self._read_clock()
            answer, jumped = await self._ask(pace, wanted, reach)
            if int(answer[0]) < 0:
                seeds = await self._seeds(pace)
                answer, jumped = await self._ask(pace, wanted, reach, seeds=seeds)
        except (RedisError, OSError) as error:
            log.warning("pacing.alone", sender_rate=pace.rate, error=type(error).__name__)
            return self._take_alone(pace, wanted, reach)
        count, at, first, interval, wait, until = answer
        grant = Grant(
            max(0, int(count)),
            self._clock.own(float(first)),
            float(interval),
            float(wait) or pace_scripts.CUT_EVERY,
            until.decode(),
            at.decode(),
        )
        if moved or jumped:
            # Moments counted from the clock as it was are still to come: they pass first.
            log.warning("pacing.clock_jumped")
            await self.give_back(pace, grant, grant.count)
            return Grant(0, wait=REACH)
        if grant.count:
            self._ends[pace.sender] = grant.moment(grant.count)
        return grant

    async def _ask(
        self,
        pace: Pace,
        wanted: int,
        reach: "_Reach",
        *,
        seeds: Sequence[Sequence[int]] = (),
    ) -> tuple[list[Any], bool]:
        """The script's answer, and whether the server's clock has jumped since the last one."""
        keys = _keys(pace)
        args: list[str | int] = [
            repr(pace.rate * GUARD),
            pace.units,
            wanted,
            min(wanted, pace.lump),
            int(reach.urgent),
            0,
            repr(reach.ahead),
            repr(reach.lead),
        ]
        for n, budget in enumerate(pace.budgets):
            args += [repr(budget.seconds), budget.limit]
            args += seeds[n] if seeds else [-1] * QUARTERS
        asked = self._monotonic()
        try:
            answer = await self._take([keys[0], _MARKER, *keys[1:]], args)
        except NoScriptError:
            # This Valkey has just started, maybe from a file that lacks the last second.
            await self._take.load()
            args[5] = 1
            asked = self._monotonic()
            answer = await self._take([keys[0], _MARKER, *keys[1:]], args)
        jumped = self._clock.saw(float(answer[1]), asked=asked, answered=self._monotonic())
        return answer, jumped

    async def _read_clock(self) -> bool:
        """Know the server's clock well enough; True if it has jumped."""
        jumped = False
        for _ in range(READINGS):
            asked = self._monotonic()
            if self._clock.width(asked) <= SHARP:
                break
            seconds, micros = await self._redis.time()
            server = seconds + micros / 1e6
            jumped |= self._clock.saw(server, asked=asked, answered=self._monotonic())
        return jumped

    async def _seeds(self, pace: Pace) -> list[list[int]]:
        """For each long window what the ledger counts in each of its quarters, newest first."""
        seeds = []
        for budget in pace.budgets:
            spans = [budget.seconds * (n + 1) / QUARTERS for n in range(QUARTERS)]
            sums = [await until_back(self._counted, pace.sender, span) for span in spans]
            seeds.append(
                [max(0, more - less) for less, more in zip([0, *sums], sums, strict=False)]
            )
        return seeds

    def _take_alone(self, pace: Pace, wanted: int, reach: "_Reach") -> Grant:
        """A share of the slowest of the sender's windows, by this worker's own clock."""
        now = self._monotonic()
        rates = [pace.rate, *(budget.limit / budget.seconds for budget in pace.budgets)]
        interval = pace.units / (min(rates) * ALONE_SHARE)
        first = max(self._ends.get(pace.sender, 0.0), now + reach.lead)
        count = min(wanted, int((now + reach.ahead - first) // interval) + 1)
        if count < 1:
            return Grant(0, wait=max(first - now - reach.ahead, 0.001))
        self._ends[pace.sender] = first + count * interval
        return Grant(count, first, interval)


@dataclass(frozen=True, slots=True)
class _Reach:
    """Moments between `lead` and `ahead` seconds from now, and for which lane."""

    urgent: bool
    ahead: float
    lead: float


class _Script:
    """A script that this process has not yet seen missing: asked for by its digest alone."""

    def __init__(self, redis: Redis, body: str) -> None:
        self._redis = redis
        self._body = pace_scripts.CLOCK + body
        self._digest = hashlib.sha1(self._body.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], args: Sequence[str | int]) -> list[Any]:
        asked = self._redis.evalsha(self._digest, len(keys), *keys, *map(str, args))
        return cast(list[Any], await asked)

    async def surely(self, keys: Sequence[str], args: Sequence[str | int]) -> list[Any]:
        """As a call, also where the script is not known yet."""
        try:
            return await self(keys, args)
        except NoScriptError:
            await self.load()
            return await self(keys, args)

    async def load(self) -> None:
        await self._redis.script_load(self._body)


def _keys(pace: Pace) -> list[str]:
    own = f"pace:{pace.sender}"
    return [own, *(f"{own}:{budget.seconds:g}" for budget in pace.budgets)]

"""One batch's turn on a worker: lease, claim windows, send them, record, hand back.

Each window is claimed by one statement that also records an earlier one, and it commits
before a request leaves. A batch is worked for at most `budget` seconds and then named
again, so that batches take turns and a worker can stop cleanly between windows. Outcomes
are never dropped: while the database is away they are held here, and nothing new is
claimed.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import structlog

from channels.contract import Adapter, Preparing
from channels.wire import Permit
from dispatcher.delivery.notices import PROBE_AFTER
from dispatcher.delivery.pacing import Budget, Grant, Pace, Pacing
from dispatcher.delivery.patience import until_back
from dispatcher.delivery.windows import Flight, Windows, untried
from dispatcher.ledger import batches
from dispatcher.ledger.batches import Claim, Lease, Record
from dispatcher.ledger.connection import Ledger
from dispatcher.security.sealing import Sealer

log = structlog.get_logger(__name__)

WINDOW = 200
"""Most rows claimed at once, unless one request of the adapter carries more."""
PATIENCE = 1.0
"""Seconds that a turn waits for its next moments with nothing claimed."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn on a batch did. `again` is seconds until it is due, None if it is done."""

    result: Literal["worked", "not_leased"]
    sent: int = 0
    again: float | None = None


@dataclass(slots=True)
class _Course:
    """How far a turn on a batch has come. `unrecorded` is what no statement has written yet."""

    held: Lease
    adapter: Adapter
    pace: Pace
    size: int
    left: int
    end: float
    permit: Permit
    park: float = 0.0
    sent: int = 0
    broken: bool = False
    unrecorded: list[Record] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Speed:
    """A sender's rate in units a second, and its long windows."""

    rate: float
    budgets: tuple[Budget, ...] = ()


class Batches:
    """Sends batches. `adapters` and `drill_adapters` are by name; `speed` knows a sender's
    (channel, sender); `stopping` is asked before each window."""

    def __init__(
        self,
        ledger: Ledger,
        sealer: Sealer,
        pacing: Pacing,
        *,
        adapters: Mapping[str, Adapter],
        drill_adapters: Mapping[str, Adapter],
        speed: Callable[[str, str], Speed],
        owner: str,
        lease_seconds: float = 60.0,
        budget: float = 10.0,
        stopping: Callable[[], bool] = lambda: False,
        rng: random.Random | None = None,
    ) -> None:
        self._ledger = ledger
        self._windows = Windows(ledger, sealer, pacing, rng=rng or random.Random())
        self._pacing = pacing
        self._adapters = adapters
        self._drill_adapters = drill_adapters
        self._speed = speed
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._budget = budget
        self._stopping = stopping

    async def prime(self) -> None:
        """Get over with what a worker's first window waits for; call it once, on its loop."""
        await self._pacing.prime()
        for adapter in (*self._adapters.values(), *self._drill_adapters.values()):
            if isinstance(adapter, Preparing):
                try:
                    await adapter.prepare()
                except ImportError:  # it cannot send either, and says so then
                    log.exception("adapter.not_installed", adapter=adapter.name)

    async def send(self, batch_id: int) -> Turn:
        """Work one batch for a turn. A batch that is not ours to send is left alone."""
        asked = time.monotonic()
        held = await until_back(self._lease, batch_id)
        if held is None:
            return Turn("not_leased")
        adapter = (self._drill_adapters if held.drill else self._adapters).get(held.adapter)
        if adapter is None:
            log.error("batch.no_adapter", batch=batch_id, adapter=held.adapter)
            return Turn("worked", again=await until_back(self._hand_back, held, PROBE_AFTER))
        course = self._course(
            replace(held, repeatable=adapter.limits.repeatable), adapter, asked=asked
        )
        renewing = asyncio.create_task(self._renew(course))
        try:
            await self._work(course)
        finally:
            if course.unrecorded:
                await until_back(self._report, course.held, course.unrecorded)
            renewing.cancel()
        again = await until_back(self._hand_back, held, course.park)
        return Turn("worked", sent=course.sent, again=again)

    def _course(self, held: Lease, adapter: Adapter, *, asked: float) -> _Course:
        speed = self._speed(held.message.channel, held.sender)
        return _Course(
            held=held,
            adapter=adapter,
            pace=Pace(
                sender=f"{held.adapter}:{held.sender}",
                rate=speed.rate,
                units=held.units,
                together=adapter.limits.envelopes_per_request,
                budgets=speed.budgets,
            ),
            # After a break one envelope goes ahead, and the rest only if it is taken.
            size=1 if held.probing else max(WINDOW, adapter.limits.envelopes_per_request),
            left=1 if held.probing else held.pending,
            end=asked + self._budget,
            permit=Permit(asked + self._lease_seconds),
        )

    async def _work(self, course: _Course) -> None:
        """Windows until the batch is done, the turn is over, or the sender has nothing to grant.

        While the answers of one window come in, the next is on its way, and the one after
        that is claimed by the statement that records the first: neither the wire nor the
        database waits for the other, and at most two windows are ever in doubt.
        """
        before: Flight | None = None
        claims, grant = await self._next(course)
        try:
            while claims:
                flight = self._windows.send(self._flight(course, claims, grant))
                claims = []
                if before is not None:
                    await self._land(course, before)
                before = flight
                claims, grant = await self._next(course)
                if not claims and course.park:
                    await self._land(course, flight)
                    before = None
                    # The moments that were taken have passed.
                    claims, grant = await self._next(course, patience=PATIENCE)
                elif claims and self._over(course):
                    break
        finally:
            # Whatever became of the claim, what is on the wire is waited for.
            if before is not None:
                await self._land(course, before)
            if claims:
                # Claimed, and not to be sent by this turn: it goes back.
                course.unrecorded += [untried(claim.id) for claim in claims]
                await self._pacing.give_back(course.pace, grant, grant.count)

    def _over(self, course: _Course) -> bool:
        """Whether nothing more is to be started: the adapter has broken, or the worker ends."""
        return course.broken or self._stopping()

    def _flight(self, course: _Course, claims: Sequence[Claim], grant: Grant) -> Flight:
        return Flight(
            held=course.held,
            adapter=course.adapter,
            claims=claims,
            grant=grant,
            pace=course.pace,
            permit=course.permit,
        )

    async def _land(self, course: _Course, flight: Flight) -> None:
        landed = await flight.landed()
        course.sent += landed.sent
        course.unrecorded += landed.records
        course.broken = course.broken or landed.broken

    async def _next(self, course: _Course, *, patience: float = 0.0) -> tuple[list[Claim], Grant]:
        """Claim the next window and record with it what is unrecorded; none if the turn is over."""
        held = course.held
        course.park = 0.0
        if course.left <= 0 or time.monotonic() >= course.end or self._over(course):
            return [], Grant(0)
        grant = await self._pacing.take(
            course.pace,
            min(course.size, course.left),
            urgent=held.lane == "urgent",
            patience=patience,
        )
        if grant.count == 0:
            course.park = grant.wait
            return [], grant
        records = course.unrecorded
        asked = time.monotonic()
        claims = await until_back(self._window, held, records, grant.count)
        course.unrecorded = course.unrecorded[len(records) :]
        if claims:
            course.permit.ends = asked + self._lease_seconds
        await self._pacing.give_back(course.pace, grant, grant.count - len(claims))
        course.left = course.left - len(claims) if claims else 0
        return claims, replace(grant, count=len(claims))

    async def _renew(self, course: _Course) -> None:
        """Keep the lease while a slow window is out; a frozen process stops doing so."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            asked = time.monotonic()
            renewed = await until_back(self._renew_lease, course.held)
            course.permit.ends = asked + self._lease_seconds if renewed else 0.0

    # -- ledger calls, each run in a thread ------------------------------------------

    def _lease(self, batch_id: int) -> Lease | None:
        with self._ledger.transaction() as work:
            return batches.lease(
                work.conn, batch_id, owner=self._owner, seconds=self._lease_seconds
            )

    def _window(self, held: Lease, records: Sequence[Record], limit: int) -> list[Claim]:
        with self._ledger.read() as conn:
            return batches.window(conn, held, records, limit=limit, seconds=self._lease_seconds)

    def _report(self, held: Lease, records: Sequence[Record]) -> int:
        with self._ledger.read() as conn:
            return batches.report(conn, held, records, seconds=self._lease_seconds)

    def _renew_lease(self, held: Lease) -> bool:
        with self._ledger.read() as conn:
            return batches.renew(conn, held, seconds=self._lease_seconds)

    def _hand_back(self, held: Lease, park: float) -> float | None:
        with self._ledger.transaction() as work:
            return batches.hand_back(work.conn, held, park=park)

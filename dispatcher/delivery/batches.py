"""One batch's way through a worker: lease, claim a window, send, record, hand back.

The only caller of an adapter's `send`. Each window is claimed by one statement that also
records the last one, and it commits before a request leaves. A batch is worked for at
most `budget` seconds and then named again, so that batches take turns and a worker can
stop cleanly between windows. Outcomes are never dropped: while the database is away they
are held here, and nothing new is claimed.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

import structlog

from channels.contract import (
    Accepted,
    Adapter,
    AdapterBroken,
    Envelope,
    MessageRefused,
    Outcome,
    Reason,
    RecipientRefused,
    TryLater,
)
from dispatcher.delivery.envelopes import Envelopes
from dispatcher.delivery.errors import where
from dispatcher.delivery.notices import PROBE_AFTER, Notices
from dispatcher.delivery.pacing import Grant, Pace, Pacing
from dispatcher.delivery.patience import until_back
from dispatcher.delivery.retries import GiveUp, RetryPolicy, decide
from dispatcher.ledger import batches
from dispatcher.ledger.batches import Claim, Lease, Record
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.counting import State
from dispatcher.security.sealing import Sealer

log = structlog.get_logger(__name__)

WINDOW = 200
"""Most rows claimed at once, unless one request of the adapter carries more."""
SLICE = 0.05
"""Seconds of a grant that are started together."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn on a batch did. `again` is seconds until it is due, None if it is done."""

    result: Literal["worked", "not_leased"]
    sent: int = 0
    again: float | None = None


@dataclass(slots=True)
class _Course:
    """How far a turn on a batch has come. `unrecorded` is what no statement has written yet."""

    pace: Pace
    size: int
    left: int
    end: float
    park: float = 0.0
    unrecorded: list[Record] = field(default_factory=list)


def _untried(claim: Claim) -> Record:
    return Record(claim.id, State.PENDING, "untried", "", tried=False)


class Batches:
    """Sends batches. `adapters` and `drill_adapters` are by name; `pace` gives a sender's rate
    in units per second; `stopping` is asked before each window."""

    def __init__(
        self,
        ledger: Ledger,
        sealer: Sealer,
        pacing: Pacing,
        *,
        adapters: Mapping[str, Adapter],
        drill_adapters: Mapping[str, Adapter],
        rate: Callable[[str, str], float],
        owner: str,
        lease_seconds: float = 60.0,
        budget: float = 10.0,
        policy: RetryPolicy | None = None,
        stopping: Callable[[], bool] = lambda: False,
        rng: random.Random | None = None,
    ) -> None:
        self._ledger = ledger
        self._envelopes = Envelopes(ledger, sealer)
        self._notices = Notices(ledger)
        self._pacing = pacing
        self._adapters = adapters
        self._drill_adapters = drill_adapters
        self._rate = rate
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._budget = budget
        self._policy = policy or RetryPolicy()
        self._stopping = stopping
        self._rng = rng or random.Random()

    async def send(self, batch_id: int) -> Turn:
        """Work one batch for a turn. A batch that is not ours to send is left alone."""
        held = await until_back(self._lease, batch_id)
        if held is None:
            return Turn("not_leased")
        adapter = (self._drill_adapters if held.drill else self._adapters).get(held.adapter)
        if adapter is None:
            log.error("batch.no_adapter", batch=batch_id, adapter=held.adapter)
            return Turn("worked", again=await until_back(self._hand_back, held, PROBE_AFTER))
        sent, records, park = await self._work(held, adapter)
        if records:
            await until_back(self._report, held, records)
        again = await until_back(self._hand_back, held, park)
        return Turn("worked", sent=sent, again=again)

    async def _work(self, held: Lease, adapter: Adapter) -> tuple[int, list[Record], float]:
        """Windows until the batch is done, the turn is over, or the sender has nothing to grant.

        While one window is on the wire the next is claimed, by the statement that records
        the one before: the wire never waits for the database.
        """
        course = _Course(
            pace=Pace(
                sender=f"{held.adapter}:{held.sender}",
                rate=self._rate(held.message.channel, held.sender),
                units=held.units,
            ),
            # After a break one envelope goes ahead, and the rest only if it is taken.
            size=1 if held.probing else max(WINDOW, adapter.limits.envelopes_per_request),
            left=1 if held.probing else held.pending,
            end=asyncio.get_running_loop().time() + self._budget,
        )
        sent = 0
        records: list[Record] = []
        claims, grant = await self._next(held, course, records)
        while claims:
            sent += len(claims)
            sending = asyncio.create_task(self._send_window(held, adapter, claims, grant=grant))
            recorded, records = records, []
            try:
                claims, grant = await self._next(held, course, recorded)
            finally:
                # Whatever became of the claim, what is on the wire is waited for.
                fresh, broken = await sending
            records = [*course.unrecorded, *fresh]
            course.unrecorded = []
            if broken and claims:
                # Claimed for an adapter that has just broken: nothing left, they go back.
                records += [_untried(claim) for claim in claims]
                break
        return sent, [*course.unrecorded, *records], course.park

    async def _next(
        self, held: Lease, course: _Course, records: list[Record]
    ) -> tuple[list[Claim], Grant]:
        """Claim the next window and record `records` with it; none if the turn is over."""
        loop = asyncio.get_running_loop()
        nothing = Grant(0)
        course.unrecorded = records
        if course.left <= 0 or loop.time() >= course.end or self._stopping():
            return [], nothing
        grant = await self._pacing.take(
            course.pace, min(course.size, course.left), urgent=held.lane == "urgent"
        )
        if grant.count == 0:
            course.park = grant.wait
            return [], nothing
        taken_at = loop.time()
        claims = await until_back(self._window, held, records, grant.count)
        course.unrecorded = []
        await self._pacing.give_back(course.pace, grant, grant.count - len(claims))
        course.left = course.left - len(claims) if claims else 0
        return claims, replace(grant, offset=grant.offset - (loop.time() - taken_at))

    async def _send_window(
        self, held: Lease, adapter: Adapter, claims: Sequence[Claim], *, grant: Grant
    ) -> tuple[list[Record], bool]:
        """Send what was claimed, at the moments granted: a record for every row, and whether
        the adapter broke."""
        envelopes, records = await self._envelopes.open(held, claims)
        attempts = {claim.id: claim.attempts for claim in claims}
        outcomes: dict[str, Outcome] = {}
        renewing = asyncio.create_task(self._renew(held))
        bug = False
        try:
            await self._start(held, adapter, envelopes, grant=grant, outcomes=outcomes)
        # The one place that may catch everything: whatever escaped an adapter, the rows it
        # had are in doubt, and the ledger must say so.
        except Exception as error:
            bug = True
            log.error(  # noqa: TRY400 - its own words may name an address
                "adapter.bug", adapter=held.adapter, batch=held.batch_id, errors=where(error)
            )
        finally:
            renewing.cancel()
        for envelope in envelopes:
            outcome = outcomes.get(envelope.key)
            records.append(
                Record(envelope.key, State.UNKNOWN, "unknown", Reason.BUG.value)
                if outcome is None
                else self._record(held, outcome, attempts[envelope.key])
            )
        try:
            await self._notices.saw(held, claims, outcomes, bug=bug)
        # What a window means beside its rows must not cost the rows their outcomes.
        except Exception as error:
            log.error("notice.failed", batch=held.batch_id, errors=where(error))  # noqa: TRY400
        broken = any(isinstance(outcome, AdapterBroken) for outcome in outcomes.values())
        return records, bug or broken

    async def _start(
        self,
        held: Lease,
        adapter: Adapter,
        envelopes: Sequence[Envelope],
        *,
        grant: Grant,
        outcomes: dict[str, Outcome],
    ) -> None:
        """Hand envelopes to the adapter in slices, none before its moment."""
        loop = asyncio.get_running_loop()
        begin = loop.time() + grant.offset
        per_slice = max(1, int(SLICE / grant.interval), adapter.limits.envelopes_per_request)

        async def one(part: Sequence[Envelope], moment: float) -> None:
            # Not a wait on the rate: the moment was granted, at most a second from now.
            await asyncio.sleep(max(0.0, moment - loop.time()))
            async for outcome in adapter.send(held.message, part):
                outcomes[outcome.key] = outcome

        async with asyncio.TaskGroup() as group:
            for first in range(0, len(envelopes), per_slice):
                part = envelopes[first : first + per_slice]
                group.create_task(one(part, begin + first * grant.interval))

    def _record(self, held: Lease, outcome: Outcome, attempts: int) -> Record:
        """What an outcome means for its row."""
        key, reason, detail = outcome.key, outcome.reason.value, outcome.detail[:200]
        if isinstance(outcome, Accepted):
            return Record(key, State.ACCEPTED, "accepted", reason, detail, ref=outcome.ref)
        if isinstance(outcome, TryLater):
            verdict = decide(
                self._policy,
                attempts=attempts,
                retry_after=outcome.retry_after,
                now=datetime.now(UTC),
                expires_at=held.message.expires_at,
                rng=self._rng,
            )
            if isinstance(verdict, GiveUp):
                return Record(key, State.FAILED, "try_later", verdict.reason, detail)
            return Record(key, State.PENDING, "try_later", reason, detail, delay=verdict.delay)
        if isinstance(outcome, MessageRefused):
            return Record(key, State.FAILED, "message_refused", reason, detail)
        if isinstance(outcome, RecipientRefused):
            return Record(key, State.FAILED, "recipient_refused", reason, detail)
        if isinstance(outcome, AdapterBroken):
            return Record(key, State.PENDING, "adapter_broken", reason, detail, delay=PROBE_AFTER)
        return Record(key, State.UNKNOWN, "unknown", reason, detail)

    async def _renew(self, held: Lease) -> None:
        """Keep the lease while a slow window is out; a frozen process stops doing so."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            await until_back(self._renew_lease, held)

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

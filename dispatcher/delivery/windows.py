"""One window of claimed rows on the wire: open, start at the granted moments, judge.

Every claimed row gets its record, whatever happens to the adapter. Must not know leases'
statements or batches: what to claim, and when, is the turn's matter (`batches`).
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

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
from channels.wire import Permit, permit
from dispatcher.delivery.envelopes import Envelopes
from dispatcher.delivery.errors import where
from dispatcher.delivery.notices import BROKEN_AGAIN, Notices
from dispatcher.delivery.pacing import Grant, Pace, Pacing
from dispatcher.delivery.retries import GiveUp, decide, policy_of
from dispatcher.delivery.starting import Starting
from dispatcher.ledger.batches import Claim, Lease, Record
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.counting import State
from dispatcher.security.sealing import Sealer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Landed:
    """What became of a window. `sent` counts the envelopes that the adapter was given."""

    records: list[Record]
    sent: int
    broken: bool


@dataclass(slots=True)
class Flight:
    """A window under way; `landing` ends when every answer is there."""

    held: Lease
    adapter: Adapter
    claims: Sequence[Claim]
    grant: Grant
    pace: Pace
    permit: Permit
    given: set[str] = field(default_factory=set)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    landing: "asyncio.Task[Landed] | None" = None

    async def landed(self) -> Landed:
        assert self.landing is not None
        return await self.landing


def untried(delivery: str) -> Record:
    """Nothing of it left: the row goes back, and no try is counted."""
    return Record(delivery, State.PENDING, "untried", "", tried=False)


class Windows:
    """Sends windows. `rng` draws the waits before a next try."""

    def __init__(
        self, ledger: Ledger, sealer: Sealer, pacing: Pacing, *, rng: random.Random
    ) -> None:
        self._envelopes = Envelopes(ledger, sealer)
        self._notices = Notices(ledger)
        self._pacing = pacing
        self._starting: Starting[Envelope] = Starting(pacing)
        self._rng = rng

    def send(self, flight: Flight) -> Flight:
        """Put a window on its way, as a task of the running loop."""
        flight.landing = asyncio.create_task(self._fly(flight))
        return flight

    async def _fly(self, flight: Flight) -> Landed:
        held, outcomes = flight.held, flight.outcomes
        permit.set(flight.permit)  # for this task and those it starts
        bug = False
        envelopes, records = await self._envelopes.open(held, flight.claims)
        try:
            await self._start(flight, envelopes)
        # The one place that may catch everything: whatever escaped an adapter, the rows
        # it had are in doubt, and the ledger must say so.
        except Exception as error:
            bug = True
            log.error(  # noqa: TRY400 - its own words may name an address
                "adapter.bug", adapter=held.adapter, batch=held.batch_id, errors=where(error)
            )
        attempts = {claim.id: claim.attempts for claim in flight.claims}
        for envelope in envelopes:
            key = envelope.key
            if key not in flight.given:
                records.append(untried(key))
            elif (outcome := outcomes.get(key)) is None:
                records.append(Record(key, State.UNKNOWN, "unknown", Reason.BUG.value))
            else:
                records.append(self._record(held, outcome, attempts[key]))
        try:
            await self._notices.saw(held, flight.claims, outcomes, bug=bug)
            await self._heed(flight.pace, outcomes)
        # What a window means beside its rows must not cost the rows their outcomes.
        except Exception as error:
            log.error("notice.failed", batch=held.batch_id, errors=where(error))  # noqa: TRY400
        broken = any(isinstance(outcome, AdapterBroken) for outcome in outcomes.values())
        return Landed(records, sent=len(flight.given), broken=bug or broken)

    async def _start(self, flight: Flight, envelopes: Sequence[Envelope]) -> None:
        """Hand envelopes to the adapter, none before its moment, and wait for the answers."""

        async def launch(part: Sequence[Envelope]) -> None:
            flight.given.update(envelope.key for envelope in part)
            async for outcome in flight.adapter.send(flight.held.message, part):
                flight.outcomes[outcome.key] = outcome

        async with asyncio.TaskGroup() as group:
            await self._starting.start(
                group,
                flight.pace,
                flight.grant,
                envelopes,
                launch,
                urgent=flight.held.lane == "urgent",
                may_start=lambda: time.monotonic() < flight.permit.ends,
            )

    def _record(self, held: Lease, outcome: Outcome, attempts: int) -> Record:
        """What an outcome means for its row."""
        key, reason, detail = outcome.key, outcome.reason.value, outcome.detail[:200]
        if isinstance(outcome, Accepted):
            return Record(key, State.ACCEPTED, "accepted", reason, detail, ref=outcome.ref)
        if isinstance(outcome, TryLater):
            verdict = decide(
                policy_of(held.adapter),
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
            return Record(key, State.PENDING, "adapter_broken", reason, detail, delay=BROKEN_AGAIN)
        return Record(key, State.UNKNOWN, "unknown", reason, detail)

    async def _heed(self, pace: Pace, outcomes: Mapping[str, Outcome]) -> None:
        """A provider that says too fast is heard by every worker."""
        throttled = [
            outcome.retry_after or 0.0
            for outcome in outcomes.values()
            if isinstance(outcome, TryLater) and outcome.reason is Reason.THROTTLED
        ]
        if throttled:
            await self._pacing.throttled(pace, max(throttled))

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
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeVar

import structlog

from channels.contract import (
    Accepted,
    Adapter,
    AdapterBroken,
    Channel,
    Envelope,
    MessageRefused,
    Outcome,
    Reason,
    RecipientRefused,
    TryLater,
)
from dispatcher.delivery.pacing import Grant, Pace, Pacing
from dispatcher.delivery.retries import GiveUp, RetryPolicy, decide
from dispatcher.ledger import batches
from dispatcher.ledger.batches import Claim, Lease, Record
from dispatcher.ledger.connection import Ledger, LedgerAway
from dispatcher.ledger.counting import State
from dispatcher.security.sealing import SealBroken, Sealer

log = structlog.get_logger(__name__)
T = TypeVar("T")

WINDOW = 200
"""Most rows claimed at once, unless one request of the adapter carries more."""
SLICE = 0.05
"""Seconds of a grant that are started together."""
PROBE_AFTER = 60.0
"""Seconds until a broken adapter is tried again."""
BUGS_TO_PAUSE = 3
REFUSALS_TO_PAUSE = 3
DATABASE_RETRY = 0.5


@dataclass(frozen=True, slots=True)
class Turn:
    """What a turn on a batch did. `again` is seconds until it is due, None if it is done."""

    result: Literal["worked", "not_leased"]
    sent: int = 0
    again: float | None = None


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
        self._sealer = sealer
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
        self._bugs: dict[str, int] = {}

    async def send(self, batch_id: int) -> Turn:
        """Work one batch for a turn. A batch that is not ours to send is left alone."""
        held = await self._with_ledger(self._lease, batch_id)
        if held is None:
            return Turn("not_leased")
        adapter = (self._drill_adapters if held.drill else self._adapters).get(held.adapter)
        if adapter is None:
            log.error("batch.no_adapter", batch=batch_id, adapter=held.adapter)
            return Turn("worked", again=await self._with_ledger(self._hand_back, held, PROBE_AFTER))
        sent, records, park = await self._work(held, adapter)
        if records:
            await self._with_ledger(self._report, held, records)
        again = await self._with_ledger(self._hand_back, held, park)
        return Turn("worked", sent=sent, again=again)

    async def _work(self, held: Lease, adapter: Adapter) -> tuple[int, list[Record], float]:
        """Windows until the batch is done, the turn is over, or the sender has nothing to grant."""
        pace = Pace(
            sender=f"{held.adapter}:{held.sender}",
            rate=self._rate(held.message.channel, held.sender),
            units=held.units,
        )
        urgent = held.lane == "urgent"
        size = max(WINDOW, adapter.limits.envelopes_per_request)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._budget
        left, sent = held.pending, 0
        records: list[Record] = []
        while left > 0 and loop.time() < end and not self._stopping():
            grant = await self._pacing.take(pace, min(size, left), urgent=urgent)
            if grant.count == 0:
                return sent, records, grant.wait
            claims = await self._with_ledger(self._window, held, records, grant.count)
            records = []
            await self._pacing.give_back(pace, grant.count - len(claims))
            if not claims:
                break
            records, bug = await self._send_window(held, adapter, claims, grant=grant)
            sent += len(claims)
            left -= len(claims)
            if bug or any(record.outcome == "adapter_broken" for record in records):
                break
        return sent, records, 0.0

    async def _send_window(
        self, held: Lease, adapter: Adapter, claims: Sequence[Claim], *, grant: Grant
    ) -> tuple[list[Record], bool]:
        """Send what was claimed, at the moments granted; a record for every row."""
        envelopes, records = await self._envelopes(held, claims)
        attempts = {claim.id: claim.attempts for claim in claims}
        outcomes: dict[str, Outcome] = {}
        renewing = asyncio.create_task(self._renew(held))
        bug = False
        try:
            await self._start(held, adapter, envelopes, grant=grant, outcomes=outcomes)
        # The one place that may catch everything: whatever escaped an adapter, the rows it
        # had are in doubt, and the ledger must say so.
        except Exception:
            bug = True
            log.exception("adapter.bug", adapter=held.adapter, batch=held.batch_id)
        finally:
            renewing.cancel()
        await self._notice(held, claims, outcomes, bug=bug)
        for envelope in envelopes:
            outcome = outcomes.get(envelope.key)
            records.append(
                Record(envelope.key, State.UNKNOWN, "unknown", Reason.BUG.value)
                if outcome is None
                else self._record(held, outcome, attempts[envelope.key])
            )
        return records, bug

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

    async def _envelopes(
        self, held: Lease, claims: Sequence[Claim]
    ) -> tuple[list[Envelope], list[Record]]:
        """Open the claimed contacts. Rows that cannot be sent get their record here."""
        envelopes: list[Envelope] = []
        records: list[Record] = []
        threads: Mapping[bytes, str] = {}
        if held.message.channel == Channel.SOCIAL:
            threads = await self._with_ledger(
                self._threads, held, [claim.lookup for claim in claims]
            )
        for claim in claims:
            if claim.suppressed:
                records.append(
                    Record(claim.id, State.SKIPPED, "skipped", "suppressed", tried=False)
                )
                continue
            try:
                address = self._sealer.open(claim.sealed, bound_to=claim.lookup)
                slots = {"name": self._name(claim)} if "name" in held.message.slots else {}
            except SealBroken:
                records.append(Record(claim.id, State.FAILED, "failed", "seal_broken", tried=False))
                continue
            envelopes.append(
                Envelope(
                    key=claim.id,
                    address=address,
                    slots=slots,
                    reply_to=threads.get(claim.lookup),
                    attempt=claim.attempts,
                )
            )
        return envelopes, records

    def _name(self, claim: Claim) -> str:
        if claim.name is None or claim.ref is None:
            return ""
        return self._sealer.open(claim.name, bound_to=self._sealer.lookup("recipient", claim.ref))

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

    async def _notice(
        self,
        held: Lease,
        claims: Sequence[Claim],
        outcomes: Mapping[str, Outcome],
        *,
        bug: bool,
    ) -> None:
        """What a window's outcomes mean beyond their own rows."""
        broken = next((o for o in outcomes.values() if isinstance(o, AdapterBroken)), None)
        if broken is not None:
            log.error("adapter.broken", adapter=held.adapter, reason=broken.reason.value)
            await self._with_ledger(
                self._open_breaker, held, broken.reason.value, broken.detail[:200]
            )
        self._bugs[held.adapter] = self._bugs.get(held.adapter, 0) + 1 if bug else 0
        if self._bugs[held.adapter] >= BUGS_TO_PAUSE:
            await self._with_ledger(
                self._open_breaker, held, Reason.BUG.value, "the adapter failed three times"
            )
        gone = {o.key: o.reason.value for o in outcomes.values() if isinstance(o, RecipientRefused)}
        for reason in set(gone.values()):
            contacts = [(c.kind, c.lookup) for c in claims if gone.get(c.id) == reason]
            await self._with_ledger(self._suppress, contacts, reason, held.adapter)
        if any(isinstance(outcome, MessageRefused) for outcome in outcomes.values()):
            await self._with_ledger(self._pause_if_refused, held, outcomes)

    async def _renew(self, held: Lease) -> None:
        """Keep the lease while a slow window is out; a frozen process stops doing so."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            await self._with_ledger(self._report, held, [])

    async def _with_ledger(self, call: Callable[..., T], *args: object) -> T:
        """Run one ledger call off the loop, again until the database is back."""
        while True:
            try:
                return await asyncio.to_thread(call, *args)
            except LedgerAway:
                log.warning("ledger.away")
                await asyncio.sleep(DATABASE_RETRY)

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

    def _hand_back(self, held: Lease, park: float) -> float | None:
        with self._ledger.read() as conn:
            return batches.hand_back(conn, held, park=park)

    def _threads(self, held: Lease, lookups: Sequence[bytes]) -> Mapping[bytes, str]:
        with self._ledger.read() as conn:
            return batches.thread_refs(conn, held, lookups)

    def _open_breaker(self, held: Lease, reason: str, detail: str) -> None:
        with self._ledger.read() as conn:
            batches.open_breaker(
                conn,
                adapter=held.adapter,
                sender=held.sender,
                reason=reason,
                detail=detail,
                seconds=PROBE_AFTER,
            )

    def _suppress(self, contacts: Sequence[tuple[str, bytes]], reason: str, source: str) -> None:
        with self._ledger.transaction() as work:
            batches.suppress(work.conn, contacts, reason=reason, source=source)

    def _pause_if_refused(self, held: Lease, outcomes: Mapping[str, Outcome]) -> None:
        """Three distinct people refused: the rest of this message waits for a person."""
        now = sum(isinstance(outcome, MessageRefused) for outcome in outcomes.values())
        message = int(held.message.id)
        with self._ledger.transaction() as work:
            if now + batches.refused_recipients(work.conn, message) >= REFUSALS_TO_PAUSE:
                batches.pause_message(work.conn, message, paused=True)
                log.error("message.paused", message=message, update=held.update_id)

"""One batch through a worker's hands: each outcome's row, and what happens at the borders.

A scripted adapter stands where a provider would; the ledger is real.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from channels.contract import (
    Accepted,
    Adapter,
    AdapterBroken,
    Envelope,
    Limits,
    Message,
    MessageRefused,
    Outcome,
    Problem,
    Reason,
    RecipientRefused,
    TryLater,
    Unit,
    Unknown,
)
from dispatcher.delivery.batches import Batches, Speed, Turn
from dispatcher.delivery.pacing import Pacing
from dispatcher.ledger import batches, due, progress
from dispatcher.ledger.batches import Lease, Record
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.counting import State
from dispatcher.security.sealing import Sealer

Answer = Callable[[Envelope], Outcome | None]


def accepting(envelope: Envelope) -> Outcome:
    return Accepted(envelope.key, f"ref-{envelope.key}")


@dataclass
class Scripted:
    """Answers each envelope as told; None is a bug of the adapter."""

    answer: Answer
    seen: list[Envelope] = field(default_factory=list)
    before: Callable[[], Any] | None = None
    name: ClassVar[str] = "scripted"
    channel: ClassVar[str] = "sms"
    accepts: ClassVar[str] = "phone"
    parts: ClassVar[tuple[str, ...]] = ("text",)
    limits: ClassVar[Limits] = Limits(unit=Unit.MESSAGE, concurrency=8)

    def check(self, message: Message) -> list[Problem]:
        return []

    async def send(self, message: Message, envelopes: Sequence[Envelope]) -> AsyncIterator[Outcome]:
        if self.before is not None:
            await self.before()
        for envelope in envelopes:
            self.seen.append(envelope)
            outcome = self.answer(envelope)
            if outcome is None:
                raise ValueError(f"cannot send to {envelope.address}")
            yield outcome


@dataclass(frozen=True)
class Desk:
    """One update to some people in one batch, and whoever works it."""

    ledger: Ledger
    sealer: Sealer
    update: str
    batch: int

    def worker(
        self, adapter: Scripted, *, lease: float = 20.0, stopping: Callable[[], bool] | None = None
    ) -> Batches:
        # Nobody answers there: a worker alone paces itself, which is fast enough here.
        alone: Redis = Redis(port=1, retry=Retry(NoBackoff(), 0))
        return Batches(
            self.ledger,
            self.sealer,
            Pacing(alone, monotonic=time.monotonic),
            adapters={"scripted": cast(Adapter, adapter)},
            drill_adapters={},
            speed=lambda channel, sender: Speed(100_000.0),
            owner="worker",
            lease_seconds=lease,
            stopping=stopping or (lambda: False),
        )

    async def sent(self, adapter: Scripted) -> Turn:
        return await self.worker(adapter).send(self.batch)

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.ledger.read() as conn:
            cursor = conn.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def states(self) -> Counter[tuple[str, str]]:
        return Counter((r[0], r[1]) for r in self.sql("SELECT state, reason FROM delivery"))

    def attempts(self) -> Counter[tuple[str, bool]]:
        return Counter((r[0], r[1]) for r in self.sql("SELECT outcome, late FROM attempt"))

    def lease(self, seconds: float = 20.0) -> Lease | None:
        with self.ledger.transaction() as work:
            return batches.lease(work.conn, self.batch, owner="other", seconds=seconds)

    def imbalances(self) -> list[str]:
        with self.ledger.read() as conn:
            return progress.imbalances(conn, self.update)


@pytest.fixture
def desk(ledger: Ledger, sealer: Sealer) -> Desk:
    """Five people, one message, released and planned."""
    return made(ledger, sealer, people=5)


def made(ledger: Ledger, sealer: Sealer, *, people: int) -> Desk:
    with ledger.transaction() as work:
        conn = work.conn

        def one(statement: str, *values: Any) -> Any:
            row = conn.execute(statement.encode(), values).fetchone()
            assert row is not None
            return row[0]

        incident = one(
            "INSERT INTO incident (title, summary, severity, services, regions, started_at,"
            " drill, created_by) VALUES ('t', '', 'major', '{}', '{}', now(), false, 'x')"
            " RETURNING id"
        )
        update = one(
            "INSERT INTO incident_update (incident_id, phase, texts, audiences, withdraws, author,"
            " release_on_approval)"
            " VALUES (%s, 'investigating', '{}', '{crowd}', '{}', 'x', true) RETURNING id",
            incident,
        )
        message = one(
            "INSERT INTO message (update_id, audience, channel, locale, parts, slots, hash, units,"
            " problems, facts) VALUES (%s, 'crowd', 'sms', 'en', '{\"text\": \"Down\"}', '{}', 'h',"
            " 1, '[]', '{}') RETURNING id",
            update,
        )
        conn.execute(
            "INSERT INTO release (update_id, audience, lane, state, preapproved, released_at,"
            " planned_at) VALUES (%s, 'crowd', 'bulk', 'released', true, now(), now())",
            (update,),
        )
        batch = one(
            "INSERT INTO batch (update_id, audience, channel, adapter, sender, message_id, lane,"
            " seq, size, open, due_at, pending) VALUES (%s, 'crowd', 'sms', 'scripted', '72345',"
            " %s, 'bulk', 1, %s, true, now(), %s) RETURNING id",
            *(update, message, people, people),
        )
        conn.execute("INSERT INTO planned VALUES (%s, 'crowd', 'sms', %s)", (update, people))
        for n in range(people):
            lookup = sealer.lookup("phone", f"+1202555{n:04d}")
            contact = one(
                "INSERT INTO contact_point (kind, sealed, lookup, hint) VALUES"
                " ('phone', %s, %s, '+1…') RETURNING id",
                *(sealer.seal_text(f"+1202555{n:04d}", bound_to=lookup), lookup),
            )
            conn.execute(
                "INSERT INTO delivery (update_id, batch_id, recipient_id, contact_point_id,"
                " channel, seq, state, next_attempt_at)"
                " VALUES (%s, %s, %s, %s, 'sms', %s, 'pending', now())",
                (update, batch, n, contact, n),
            )
    return Desk(ledger, sealer, str(update), batch)


REFUSED = {
    "accepted": (accepting, ("accepted", "ok"), "accepted", None),
    "try_later": (
        lambda e: TryLater(e.key, Reason.THROTTLED, retry_after=50.0),
        ("pending", "throttled"),
        "try_later",
        50.0,
    ),
    "message": (
        lambda e: MessageRefused(e.key, Reason.CONTENT),
        ("failed", "content"),
        "message_refused",
        None,
    ),
    "recipient": (
        lambda e: RecipientRefused(e.key, Reason.OPTED_OUT),
        ("failed", "opted_out"),
        "recipient_refused",
        None,
    ),
    "broken": (
        lambda e: AdapterBroken(e.key, Reason.CREDENTIALS),
        ("pending", "credentials"),
        "adapter_broken",
        60.0,
    ),
    "unknown": (
        lambda e: Unknown(e.key, Reason.TIMEOUT),
        ("unknown", "timeout"),
        "unknown",
        None,
    ),
    "bug": (lambda e: None, ("unknown", "bug"), "unknown", None),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_each_outcome_has_its_state_its_attempt_and_its_time(desk: Desk, case: str) -> None:
    answer, state, outcome, again = REFUSED[case]
    turn = await desk.sent(Scripted(answer))
    assert desk.states() == {state: 5}
    assert desk.attempts() == {(outcome, False): 5}
    assert turn.sent == 5
    assert turn.again == (None if again is None else pytest.approx(again, abs=3.0))
    assert desk.imbalances() == []
    assert desk.sql("SELECT lease_owner, open FROM batch") == [(None, state[0] == "pending")]


async def test_a_refused_recipient_is_suppressed_and_skipped_from_then_on(desk: Desk) -> None:
    await desk.sent(Scripted(lambda e: RecipientRefused(e.key, Reason.OPTED_OUT)))
    found = desk.sql("SELECT count(*), min(reason), min(source) FROM suppression")
    assert found == [(5, "opted_out", "scripted")]
    desk.sql("UPDATE delivery SET state = 'pending', next_attempt_at = now()")
    desk.sql("UPDATE batch SET failed = 0, pending = 5, open = true, due_at = now()")
    adapter = Scripted(accepting)
    await desk.sent(adapter)
    assert adapter.seen == []
    assert desk.states() == {("skipped", "suppressed"): 5}


async def test_three_refused_people_pause_the_message_and_nobody_leases_it(desk: Desk) -> None:
    refused = Scripted(lambda e: MessageRefused(e.key, Reason.CONTENT))
    await desk.sent(refused)
    assert desk.sql("SELECT paused_at IS NOT NULL FROM message") == [(True,)]
    desk.sql("UPDATE delivery SET state = 'pending', next_attempt_at = now()")
    desk.sql("UPDATE batch SET failed = 0, pending = 5, open = true, due_at = now()")
    assert (await desk.sent(refused)).result == "not_leased"
    with desk.ledger.transaction() as work:
        assert due.take_due(work.conn, lane="bulk", quiet_seconds=0, limit=10) == []


async def test_a_broken_adapter_closes_its_way(desk: Desk) -> None:
    await desk.sent(Scripted(lambda e: AdapterBroken(e.key, Reason.CREDENTIALS)))
    assert desk.sql("SELECT adapter, sender, reason FROM breaker") == [
        ("scripted", "72345", "credentials")
    ]
    desk.sql("UPDATE delivery SET next_attempt_at = now()")
    desk.sql("UPDATE batch SET due_at = now()")
    adapter = Scripted(accepting)
    turn = await desk.sent(adapter)
    assert adapter.seen == []
    assert turn.result == "not_leased"
    parked = desk.sql("SELECT extract(epoch FROM due_at - now())::float8 FROM batch")[0][0]
    assert parked == pytest.approx(60.0, abs=3.0)


async def test_an_adapter_that_fails_half_way_keeps_what_it_said(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Outcomes yielded before the exception stand; the rest is in doubt; no address is told."""
    said: list[str] = []

    def answer(envelope: Envelope) -> Outcome | None:
        said.append(envelope.key)
        return accepting(envelope) if len(said) <= 2 else None

    await desk.sent(Scripted(answer))
    states = desk.states()
    assert states == {("accepted", "ok"): 2, ("unknown", "bug"): 3}
    assert "2025550" not in "".join(capsys.readouterr())


async def test_two_tasks_for_one_batch_send_it_once(desk: Desk) -> None:
    adapter = Scripted(accepting, before=lambda: asyncio.sleep(0.2))
    turns = await asyncio.gather(desk.sent(adapter), desk.sent(adapter), desk.sent(adapter))
    assert sorted(turn.result for turn in turns) == ["not_leased", "not_leased", "worked"]
    assert len(adapter.seen) == 5
    assert (await desk.sent(adapter)).result == "not_leased"


async def test_a_lease_is_kept_while_a_slow_window_is_out(desk: Desk) -> None:
    """The provider takes longer than a lease lasts: nobody may take the batch over."""
    adapter = Scripted(accepting, before=lambda: asyncio.sleep(1.2))
    worker = desk.worker(adapter, lease=0.6)
    sending = asyncio.create_task(worker.send(desk.batch))
    while not sending.done():
        await asyncio.sleep(0.1)
        with desk.ledger.read() as conn:
            assert due.dead_leases(conn) == []
    assert desk.states() == {("accepted", "ok"): 5}


async def test_rows_of_a_lost_lease_are_in_doubt_and_a_late_answer_is_evidence(desk: Desk) -> None:
    held = desk.lease()
    assert held is not None
    with desk.ledger.read() as conn:
        claims = batches.window(conn, held, [], limit=3, seconds=20)
    assert len(claims) == 3
    desk.sql("UPDATE batch SET lease_until = now() - interval '1 second'")
    adapter = Scripted(accepting)
    await desk.sent(adapter)
    assert desk.states() == {("unknown", "lease_lost"): 3, ("accepted", "ok"): 2}
    assert {envelope.key for envelope in adapter.seen}.isdisjoint(claim.id for claim in claims)

    late = [
        Record(claims[0].id, State.ACCEPTED, "accepted", "ok", ref="late"),
        Record(claims[1].id, State.PENDING, "try_later", "throttled"),
    ]
    with desk.ledger.read() as conn:
        batches.report(conn, held, late, seconds=20)
        assert batches.window(conn, held, [], limit=5, seconds=20) == []
    assert desk.states() == {("unknown", "lease_lost"): 2, ("accepted", "ok"): 3}
    assert desk.attempts() == {
        ("unknown", False): 3,
        ("accepted", False): 2,
        ("accepted", True): 1,
        ("try_later", True): 1,
    }
    assert desk.imbalances() == []


async def test_a_statement_told_twice_is_one_attempt_and_its_lost_claims_go_back(
    desk: Desk,
) -> None:
    """The commit's answer got lost: told again, and the rows it had claimed never left."""
    held = desk.lease()
    assert held is not None
    with desk.ledger.read() as conn:
        claims = batches.window(conn, held, [], limit=2, seconds=20)
        records = [
            Record(claim.id, State.ACCEPTED, "accepted", "ok", ref=claim.id) for claim in claims
        ]
        lost = batches.window(conn, held, records, limit=2, seconds=20)
        again = batches.window(conn, held, records, limit=2, seconds=20)
    assert (len(lost), len(again)) == (2, 1)
    assert desk.attempts() == {("accepted", False): 2}
    done = [Record(c.id, State.ACCEPTED, "accepted", "ok", ref=c.id) for c in again]
    with desk.ledger.transaction() as work:
        batches.report(work.conn, held, done, seconds=20)
        assert batches.hand_back(work.conn, held) == 0.0
    assert desk.states() == {("accepted", "ok"): 3, ("pending", ""): 2}
    assert desk.sql("SELECT max(attempts) FROM delivery WHERE state = 'pending'") == [(0,)]
    await desk.sent(Scripted(accepting))
    assert desk.states() == {("accepted", "ok"): 5}
    assert desk.imbalances() == []


async def test_a_row_refused_for_now_after_a_stop_is_stopped(desk: Desk) -> None:
    async def stop() -> None:
        desk.sql("UPDATE release SET state = 'stopped'")

    turn = await desk.sent(Scripted(lambda e: TryLater(e.key, Reason.THROTTLED), before=stop))
    assert desk.states() == {("stopped", "stopped"): 5}
    assert turn.again is None
    assert desk.imbalances() == []


async def test_a_worker_told_to_stop_claims_nothing_more(ledger: Ledger, sealer: Sealer) -> None:
    desk = made(ledger, sealer, people=900)
    told: list[bool] = []

    async def before() -> None:
        told.append(True)

    adapter = Scripted(accepting, before=before)
    turn = await desk.worker(adapter, stopping=lambda: bool(told)).send(desk.batch)
    assert 0 < turn.sent < 900
    states = desk.states()
    assert states == {("accepted", "ok"): turn.sent, ("pending", ""): 900 - turn.sent}
    assert turn.again == 0.0
    assert desk.sql("SELECT lease_owner FROM batch") == [(None,)]


async def test_what_is_refused_for_now_after_a_newer_update_is_not_sent_again(desk: Desk) -> None:
    """It was under way when the newer update took back what was unsent."""
    came: list[bool] = []

    async def newer() -> None:
        # Asked for each part of a window: what leaves at one moment is a part.
        if came:
            return
        came.append(True)
        desk.sql(
            "WITH n AS (INSERT INTO incident_update (incident_id, phase, texts, audiences,"
            " withdraws, author, release_on_approval) SELECT incident_id, 'identified', '{}',"
            " audiences, '{}', 'x', true FROM incident_update WHERE id = %s RETURNING id),"
            " d AS (INSERT INTO delivery (update_id, batch_id, recipient_id, contact_point_id,"
            "  channel, seq, state) SELECT n.id, o.batch_id, o.recipient_id, o.contact_point_id,"
            "  o.channel, o.seq, 'pending' FROM delivery o, n WHERE o.recipient_id < 2)"
            " SELECT 1",
            desk.update,
        )

    await desk.sent(Scripted(lambda e: TryLater(e.key, Reason.THROTTLED), before=newer))
    states = Counter(
        (r[0], r[1])
        for r in desk.sql("SELECT state, reason FROM delivery WHERE update_id = %s", desk.update)
    )
    assert states == {("superseded", "newer_update"): 2, ("pending", "throttled"): 3}
    assert desk.imbalances() == []

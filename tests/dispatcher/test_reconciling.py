"""Rows in doubt: who is asked, when, and what each answer moves; the ledger is real."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import ClassVar, cast

import pytest

from channels.contract import (
    Adapter,
    CannotTell,
    Envelope,
    Finding,
    Found,
    Limits,
    Message,
    NotTaken,
    Outcome,
    Reason,
    Unit,
    Unknown,
)
from dispatcher.delivery.reconciling import Reconciling, settle_after
from dispatcher.ledger import batches, doubts, due, fallback, progress
from dispatcher.ledger.batches import Record
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.counting import State
from dispatcher.ledger.doubts import Act, Verdict
from dispatcher.security.sealing import Sealer
from tests.dispatcher.test_engine import Desk, Scripted, accepting, made

Answer = Callable[[Envelope], Finding]


@dataclass
class Askable(Scripted):
    """A scripted adapter whose provider can be asked."""

    finding: Answer = lambda envelope: CannotTell()
    asked: list[Envelope] = field(default_factory=list)

    async def find(self, message: Message, envelopes: Sequence[Envelope]) -> Mapping[str, Finding]:
        self.asked += envelopes
        return {envelope.key: self.finding(envelope) for envelope in envelopes}


class Repeating(Scripted):
    """An adapter whose provider shows a key once, however often it is sent."""

    limits: ClassVar[Limits] = Limits(unit=Unit.MESSAGE, settle_after=0.0, repeatable=True)


def lost(envelope: Envelope) -> Outcome:
    return Unknown(envelope.key, Reason.TIMEOUT)


@pytest.fixture
def desk(ledger: Ledger, sealer: Sealer) -> Desk:
    return made(ledger, sealer, people=4)


def reconciling(
    desk: Desk, adapter: Scripted, *, resend: bool = False, patience: float = 3_600.0
) -> Reconciling:
    return Reconciling(
        desk.ledger,
        desk.sealer,
        adapters={"scripted": cast(Adapter, adapter)},
        drill_adapters={},
        resend_unknown=lambda audience: resend,
        patience=patience,
    )


def pass_time(desk: Desk, seconds: int = 120) -> None:
    """As if the rows had been in doubt for so much longer."""
    desk.sql(
        "UPDATE doubt SET ask_at = ask_at - make_interval(secs => %s),"
        " doubted_at = doubted_at - make_interval(secs => %s)",
        *(seconds, seconds),
    )


def settled(desk: Desk) -> bool:
    with desk.ledger.read() as conn:
        return progress.read(conn, desk.update, progress.Balances()).settled


def due_now(desk: Desk, adapter: Scripted) -> list[str]:
    with desk.ledger.read() as conn:
        return doubts.due_adapters(conn, settle_after({"scripted": cast(Adapter, adapter)}))


async def test_nobody_is_asked_before_the_provider_has_settled(desk: Desk) -> None:
    adapter = Askable(lost)
    await desk.sent(adapter)
    assert desk.states() == {("unknown", "timeout"): 4}
    assert due_now(desk, adapter) == []
    assert await reconciling(desk, adapter).run("scripted") == 0
    assert adapter.asked == []
    assert not settled(desk)
    pass_time(desk)
    assert due_now(desk, adapter) == ["scripted"]


async def test_what_is_found_is_accepted_with_its_proof(desk: Desk) -> None:
    adapter = Askable(lost, finding=lambda e: Found(f"sid-{e.key}"))
    await desk.sent(adapter)
    before = desk.sql("SELECT min(claimed_at) FROM doubt")[0][0]
    pass_time(desk)
    assert await reconciling(desk, adapter).run("scripted") == 4
    assert desk.states() == {("accepted", "found"): 4}
    assert desk.imbalances() == []
    assert settled(desk)
    assert desk.sql("SELECT count(*) FROM doubt") == [(0,)]
    first = adapter.asked[0]
    assert isinstance(first.tried_at, datetime)
    assert first.tried_at == before, "nothing of the try left before it was claimed"
    assert first.address.startswith("+1202555")


async def test_what_was_not_taken_is_sent_again(desk: Desk) -> None:
    adapter = Askable(lost, finding=lambda e: NotTaken())
    await desk.sent(adapter)
    pass_time(desk)
    assert await reconciling(desk, adapter).run("scripted") == 4
    assert desk.states() == {("pending", "not_taken"): 4}
    assert not settled(desk)
    with desk.ledger.transaction() as work:
        named = due.take_due(work.conn, lane="bulk", quiet_seconds=30, limit=10)
    assert [batch.batch_id for batch in named] == [desk.batch]
    adapter.answer = accepting
    await desk.sent(adapter)
    assert desk.states() == {("accepted", "ok"): 4}
    assert desk.sql("SELECT DISTINCT attempts FROM delivery") == [(2,)]
    assert desk.imbalances() == []


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("UPDATE release SET state = 'stopped'", ("stopped", "stopped")),
        (
            "UPDATE incident_update SET expires_at = now() - interval '1 s'",
            ("expired", "expired"),
        ),
        (
            "WITH n AS (INSERT INTO incident_update (incident_id, phase, texts, audiences,"
            " withdraws, author, release_on_approval) SELECT incident_id, 'identified', '{}',"
            " '{crowd}', '{}', 'x', true FROM incident_update RETURNING id)"
            " INSERT INTO delivery (update_id, batch_id, recipient_id, channel, seq, state)"
            " SELECT n.id, 0, g, 'sms', g, 'pending' FROM n, generate_series(0, 3) g",
            ("superseded", "newer_update"),
        ),
        ("UPDATE delivery SET attempts = 20", ("failed", "tries_used_up")),
    ],
)
async def test_what_nobody_wants_any_more_is_not_sent_again(
    desk: Desk, change: str, state: tuple[str, str]
) -> None:
    adapter = Askable(lost, finding=lambda e: NotTaken())
    await desk.sent(adapter)
    desk.sql(change)
    desk.sql("UPDATE doubt SET number = (SELECT max(attempts) FROM delivery)")
    pass_time(desk)
    await reconciling(desk, adapter).run("scripted")
    found = desk.sql("SELECT state, reason FROM delivery WHERE update_id = %s", desk.update)
    assert found == [state] * 4
    assert desk.imbalances() == []
    assert desk.sql("SELECT open FROM batch") == [(False,)]


async def test_who_cannot_tell_is_asked_again_and_then_believed_to_know_nothing(
    desk: Desk,
) -> None:
    adapter = Askable(lost)
    await desk.sent(adapter)
    pass_time(desk)
    asks = reconciling(desk, adapter)
    assert await asks.run("scripted") == 0
    assert len(adapter.asked) == 4
    assert await asks.run("scripted") == 0
    assert len(adapter.asked) == 4, "not before its next time"
    assert not settled(desk)
    pass_time(desk, 4_000)
    assert await asks.run("scripted") == 4
    assert desk.states() == {("unknown", "timeout"): 4}
    assert settled(desk)
    pass_time(desk, 4_000)
    assert due_now(desk, adapter) == []


@pytest.mark.parametrize(("channel", "state"), [("sms", "pending"), ("social", "unknown")])
async def test_an_audience_may_rather_be_told_twice_but_a_post_is_never_repeated(
    desk: Desk, channel: str, state: str
) -> None:
    adapter = Askable(lost)
    await desk.sent(adapter)
    desk.sql("UPDATE message SET channel = %s", channel)
    pass_time(desk, 4_000)
    await reconciling(desk, adapter, resend=True).run("scripted")
    assert {found for found, _ in desk.states()} == {state}


async def test_nobody_to_ask_means_unknown_for_good(desk: Desk) -> None:
    adapter = Scripted(lost)
    await desk.sent(adapter)
    pass_time(desk)
    assert await reconciling(desk, adapter).run("scripted") == 4
    assert desk.states() == {("unknown", "timeout"): 4}
    assert settled(desk)


async def test_what_is_shown_once_is_repeated_and_a_late_acceptance_is_no_second_proof(
    desk: Desk,
) -> None:
    held = desk.lease()
    assert held is not None
    with desk.ledger.read() as conn:
        claims = batches.window(conn, held, [], limit=4, seconds=20)
    desk.sql("UPDATE batch SET lease_until = now() - interval '1 second'")
    with desk.ledger.transaction() as work:
        assert due.bury(work.conn, desk.batch)
        batches.abandon(work.conn, desk.batch, update_id=desk.update)
    adapter = Repeating(accepting)
    assert await reconciling(desk, adapter).run("scripted") == 4
    assert desk.states() == {("pending", "repeatable"): 4}
    await desk.sent(adapter)
    assert desk.states() == {("accepted", "ok"): 4}
    with desk.ledger.read() as conn:
        late = [Record(c.id, State.ACCEPTED, "accepted", "ok", ref=f"late-{c.id}") for c in claims]
        batches.report(conn, replace(held, repeatable=True), late, seconds=20)
    assert desk.imbalances() == []
    assert desk.attempts()["repeated", True] == 4


async def test_a_late_acceptance_keeps_a_row_from_being_sent_again(desk: Desk) -> None:
    """The worker froze, its provider knew nothing, and then it did leave after all."""
    held = desk.lease()
    assert held is not None
    with desk.ledger.read() as conn:
        claims = batches.window(conn, held, [], limit=4, seconds=20)
    desk.sql("UPDATE batch SET lease_until = now() - interval '1 second'")
    with desk.ledger.transaction() as work:
        due.bury(work.conn, desk.batch)
        batches.abandon(work.conn, desk.batch, update_id=desk.update)
    claimed = desk.sql("SELECT claimed_at < doubted_at FROM doubt")
    assert claimed == [(True,)] * 4
    pass_time(desk)
    adapter = Askable(accepting, finding=lambda e: NotTaken())
    await reconciling(desk, adapter).run("scripted")
    with desk.ledger.read() as conn:
        late = [Record(claims[0].id, State.ACCEPTED, "accepted", "ok", ref="late")]
        batches.report(conn, held, late, seconds=20)
    assert desk.states() == {("pending", "not_taken"): 3, ("accepted", "ok"): 1}
    await desk.sent(adapter)
    assert len(adapter.seen) == 3
    assert desk.imbalances() == []


async def test_a_row_settled_meanwhile_is_left_alone(desk: Desk) -> None:
    """A receipt said yes while the provider's list said no."""

    def finding(envelope: Envelope) -> Finding:
        desk.sql("UPDATE delivery SET state = 'accepted', ref = id::text WHERE state = 'unknown'")
        desk.sql("UPDATE batch SET unknown = 0, accepted = 4")
        return NotTaken()

    adapter = Askable(lost, finding=finding)
    await desk.sent(adapter)
    pass_time(desk)
    assert await reconciling(desk, adapter).run("scripted") == 0
    assert {state for state, _ in desk.states()} == {"accepted"}
    assert settled(desk)


async def test_of_two_who_asked_one_decides(desk: Desk) -> None:
    adapter = Askable(lost)
    await desk.sent(adapter)
    pass_time(desk)

    def taken() -> list[doubts.Doubt]:
        with desk.ledger.transaction() as work:
            return doubts.take(work.conn, "scripted", settle=0.0, hold=60.0, limit=10)

    first = taken()
    assert len(first) == 4
    assert taken() == []
    pass_time(desk)
    second = taken()
    assert len(second) == 4
    with desk.ledger.transaction() as work:
        stale = [Verdict(doubt, Act.RESEND, reason="not_taken") for doubt in first]
        assert doubts.decide(work.conn, stale) == {Act.RESEND: 0}
        fresh = [Verdict(doubt, Act.FOUND, ref=f"sid-{doubt.claim.id}") for doubt in second]
        assert doubts.decide(work.conn, fresh) == {Act.FOUND: 4}
        assert sum(doubts.decide(work.conn, fresh).values()) == 0
    assert desk.states() == {("accepted", "found"): 4}
    assert desk.imbalances() == []


async def test_one_message_of_the_provider_proves_one_delivery(desk: Desk) -> None:
    """The same words to one address in doubt twice: what is found is counted once."""
    adapter = Askable(lost, finding=lambda e: Found("the-only-one"))
    await desk.sent(adapter)
    pass_time(desk)
    assert await reconciling(desk, adapter).run("scripted") == 1
    assert desk.states() == {("accepted", "found"): 1, ("unknown", "timeout"): 3}
    assert desk.imbalances() == []


async def test_what_is_accounted_for_already_is_told_to_the_adapter(desk: Desk) -> None:
    await desk.sent(Scripted(accepting))
    refs = {row[0]: row[1] for row in desk.sql("SELECT contact_point_id, ref FROM delivery")}
    update = desk.sql(
        "INSERT INTO incident_update (incident_id, phase, texts, audiences, withdraws, author,"
        " release_on_approval) SELECT incident_id, 'identified', '{}', '{crowd}', '{}', 'x', true"
        " FROM incident_update RETURNING id"
    )[0][0]
    desk.sql(
        "INSERT INTO release (update_id, audience, lane, state, preapproved, released_at,"
        " planned_at) VALUES (%s, 'crowd', 'bulk', 'released', true, now(), now())",
        update,
    )
    desk.sql("UPDATE release SET released_at = now() WHERE update_id = %s", desk.update)
    batch = desk.sql(
        "INSERT INTO batch (update_id, audience, channel, adapter, sender, message_id, lane, seq,"
        " size, open, due_at, pending) SELECT %s, audience, channel, adapter, sender, message_id,"
        " lane, 1, 4, true, now(), 4 FROM batch RETURNING id",
        update,
    )[0][0]
    desk.sql(
        "INSERT INTO delivery (update_id, batch_id, recipient_id, contact_point_id, channel, seq,"
        " state, next_attempt_at) SELECT %s, %s, recipient_id, contact_point_id, channel, seq,"
        " 'pending', now() FROM delivery",
        *(update, batch),
    )
    adapter = Askable(lost)
    await desk.worker(adapter).send(batch)
    pass_time(desk)
    await reconciling(desk, adapter).run("scripted")
    assert len(adapter.asked) == 4
    assert {ref for envelope in adapter.asked for ref in envelope.known_refs} == set(refs.values())
    assert all(len(envelope.known_refs) == 1 for envelope in adapter.asked)


async def test_an_adapter_that_fails_when_asked_moves_nothing(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    def finding(envelope: Envelope) -> Finding:
        raise ValueError(f"no idea of {envelope.address}")

    adapter = Askable(lost, finding=finding)
    await desk.sent(adapter)
    pass_time(desk)
    assert await reconciling(desk, adapter).run("scripted") == 0
    assert desk.states() == {("unknown", "timeout"): 4}
    assert not settled(desk)
    assert "2025550" not in "".join(capsys.readouterr())


async def test_an_update_without_doubts_costs_no_look(desk: Desk) -> None:
    await desk.sent(Scripted(accepting))
    assert settled(desk)
    with desk.ledger.read() as conn:
        assert not doubts.open_in(conn, desk.update)
        assert not fallback.owing(conn, desk.update)

"""Receipts in the ledger: kept once, applied to their rows, and the balance holds."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from channels.contract import (
    Consent,
    Reading,
    Reason,
    Receipt,
    ReceiptRequest,
    ReceiptStatus,
    RecipientRefused,
    Unknown,
)
from dispatcher.delivery.intake import Intake, Told, as_it_came
from dispatcher.delivery.receipts import Receipts
from dispatcher.ledger import batches, receipts
from dispatcher.ledger.connection import Ledger, LedgerRefused
from dispatcher.ledger.counting import State
from dispatcher.security.sealing import Sealer
from tests.dispatcher.test_engine import Desk, Scripted, accepting, made

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
ADAPTER = "scripted"


@dataclass
class Post:
    """What providers say, and who works it off."""

    desk: Desk
    intake: Intake
    receipts: Receipts
    named: list[str]
    clock: list[float]
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def says(
        self,
        key: str,
        status: str,
        *,
        at: int = 0,
        ref: str | None = None,
        event: str | None = None,
        reason: Reason = Reason.OK,
        consents: tuple[Consent, ...] = (),
    ) -> None:
        """A provider's request about one delivery is kept."""
        told = Receipt(
            event=event or f"{key}:{status}:{next(self._numbers)}",
            key=key,
            ref=f"ref-{key}" if ref is None else ref,
            status=ReceiptStatus(status),
            at=NOON + timedelta(seconds=at),
            reason=reason,
        )
        self.intake.write([Told(ADAPTER, request(), Reading((told,), consents))])

    def wishes(self, address: str, *, wanted: bool, event: str, at: int) -> None:
        said = Consent(
            event=event,
            kind="phone",
            address=address,
            wanted=wanted,
            reason=Reason.OPTED_OUT,
            at=NOON + timedelta(seconds=at),
        )
        self.intake.write([Told(ADAPTER, request(), Reading((), (said,)))])

    def results(self) -> dict[str, int]:
        found = self.desk.sql(
            "SELECT coalesce(result, 'waiting'), count(*) FROM receipt_event GROUP BY 1"
        )
        return {row[0]: row[1] for row in found}

    def suppressed(self) -> list[tuple[Any, ...]]:
        return self.desk.sql("SELECT reason, source FROM suppression ORDER BY id")

    def ids(self) -> list[str]:
        return [row[0] for row in self.desk.sql("SELECT id::text FROM delivery ORDER BY seq")]


def request(body: bytes = b"MessageSid=SM1&To=%2B12025550001") -> ReceiptRequest:
    return ReceiptRequest("POST", "https://x.example/v1/receipts/scripted?key=1", {"a": "b"}, body)


@pytest.fixture
def post(ledger: Ledger, sealer: Sealer) -> Post:
    """Five people, planned and not sent, and a provider."""
    return post_for(made(ledger, sealer, people=5))


def post_for(desk: Desk) -> Post:
    named: list[str] = []
    clock = [100.0]

    def name() -> None:
        named.append("receipts")

    return Post(
        desk,
        Intake(desk.ledger, desk.sealer, name=name, monotonic=lambda: clock[0]),
        Receipts(
            desk.ledger,
            name=name,
            poll=lambda: named.append("poll"),
            poll_every=30.0,
            monotonic=lambda: clock[0],
        ),
        named,
        clock,
    )


def doubting(envelope: Any) -> Unknown:
    return Unknown(envelope.key, Reason.TIMEOUT)


async def test_receipts_take_rows_to_their_end(post: Post) -> None:
    await post.desk.sent(Scripted(accepting))
    first, second, third, *_ = post.ids()
    post.says(first, "taken")
    post.says(first, "delivered", at=2)
    post.says(second, "failed", at=2, reason=Reason.UNREACHABLE)
    post.says(third, "taken")
    assert post.receipts.work() == 4
    assert post.desk.states() == {
        ("delivered", "ok"): 1,
        ("failed", "unreachable"): 1,
        ("accepted", "ok"): 3,
    }
    assert post.results() == {"applied": 2, "noted": 2}
    assert post.desk.imbalances() == []
    assert post.desk.attempts() == {("accepted", False): 5}
    at = post.desk.sql("SELECT receipt_at FROM delivery WHERE id = %s", first)
    assert at == [(NOON + timedelta(seconds=2),)]
    assert post.receipts.work() == 0


@pytest.mark.parametrize("status", ["taken", "delivered", "failed"])
async def test_a_receipt_ends_a_doubt_with_the_attempt_that_it_proves(
    post: Post, status: str
) -> None:
    await post.desk.sent(Scripted(doubting))
    for key in post.ids():
        post.says(key, status, reason=Reason.UNREACHABLE if status == "failed" else Reason.OK)
    post.receipts.work()
    state = {"taken": ("accepted", "ok"), "delivered": ("delivered", "ok")}
    assert post.desk.states() == {state.get(status, ("failed", "unreachable")): 5}
    assert post.desk.attempts() == {("unknown", False): 5, ("accepted", True): 5}
    assert post.desk.imbalances() == []
    assert post.desk.sql("SELECT first_accepted_at IS NOT NULL, open FROM batch") == [(True, False)]


async def test_a_late_outcome_after_its_receipt_is_the_same_attempt(post: Post) -> None:
    """The worker was overtaken, the receipt came first, and then the worker's own word."""
    held = post.desk.lease()
    assert held is not None
    with post.desk.ledger.read() as conn:
        claims = batches.window(conn, held, [], limit=5, seconds=20)
    key = claims[0].id
    post.says(key, "delivered")
    post.receipts.work()
    assert post.results() == {"waiting": 1}, "on its way: its worker speaks first"
    with post.desk.ledger.transaction() as work:
        batches.abandon(work.conn, post.desk.batch, update_id=post.desk.update)
    post.desk.sql("UPDATE receipt_event SET work_at = now()")
    post.receipts.work()
    late = [
        batches.Record(key, State.ACCEPTED, "accepted", "ok", ref=f"ref-{key}"),
    ]
    with post.desk.ledger.read() as conn:
        batches.report(conn, held, late, seconds=20)
    assert post.desk.states() == {("delivered", "ok"): 1, ("unknown", "lease_lost"): 4}
    assert post.desk.attempts()[("accepted", True)] == 1
    assert post.desk.imbalances() == []


async def test_repeated_and_late_events_never_move_a_row_back(post: Post) -> None:
    await post.desk.sent(Scripted(accepting))
    key = post.ids()[0]
    for _ in range(3):
        post.says(key, "delivered", at=5, event="same")
        post.receipts.work()
    post.says(key, "failed", at=3)
    post.says(key, "taken", at=9)
    post.receipts.work()
    assert post.results() == {"applied": 1, "stale": 1, "noted": 1}
    assert post.desk.states()[("delivered", "ok")] == 1


async def test_a_second_message_for_a_delivery_is_told_loudly(post: Post) -> None:
    await post.desk.sent(Scripted(accepting))
    post.says(post.ids()[0], "delivered", ref="another")
    with capture_logs() as logged:
        post.receipts.work()
    assert [line["event"] for line in logged if line["log_level"] == "error"] == [
        "receipt.second_ref"
    ]
    assert post.desk.states() == {("accepted", "ok"): 5}
    with post.desk.ledger.read() as conn:
        found = receipts.figures(conn)
    assert found.totals == {(ADAPTER, "second_ref"): 1}
    assert found.waiting == 0


async def test_what_nobody_knows_is_kept(post: Post) -> None:
    post.says("018f0000-0000-7000-8000-000000000000", "delivered")
    post.says("no id of ours", "delivered")
    post.says(post.ids()[0], "delivered")
    post.receipts.work()
    assert post.results() == {"unmatched": 2, "not_tried": 1}
    assert post.desk.states() == {("pending", ""): 5}


async def test_a_refused_row_that_was_taken_all_the_same_is_told(post: Post) -> None:
    await post.desk.sent(Scripted(lambda e: RecipientRefused(e.key, Reason.INVALID_ADDRESS)))
    post.says(post.ids()[0], "delivered")
    post.receipts.work()
    assert post.desk.states()[("delivered", "ok")] == 1
    assert post.desk.imbalances() == []


def test_requests_are_kept_sealed_as_they_came_and_forgotten_in_time(post: Post) -> None:
    body = b"To=%2B12025550001&\x00\xff"
    told = Told(ADAPTER, request(body), Reading(ignored=1))
    post.intake.write([told, told])
    (adapter, requests, sealed), *more = post.desk.sql(
        "SELECT adapter, requests, sealed FROM receipt"
    )
    assert (adapter, requests, more) == (ADAPTER, 2, [])
    assert b"2025550001" not in bytes(sealed)
    assert as_it_came(post.desk.sealer, ADAPTER, bytes(sealed)) == [request(body)] * 2

    post.says(post.ids()[0], "taken")
    post.receipts.remind()
    assert post.desk.sql("SELECT count(*) FROM receipt") == [(2,)]
    for table in ("receipt", "receipt_event"):
        post.desk.sql(f"UPDATE {table} SET received_at = now() - interval '31 days'")
    post.clock[0] += 3_601
    post.receipts.remind()
    assert post.desk.sql("SELECT count(*) FROM receipt") == [(0,)]
    assert post.desk.sql("SELECT count(*) FROM receipt_event") == [(0,)]


def test_odd_texts_are_kept_in_some_form(post: Post) -> None:
    odd = "\x00\ud800" + "é" * 3_000
    told = Receipt(odd, odd, odd, ReceiptStatus.TAKEN, datetime(9999, 1, 1, tzinfo=UTC))
    other = Receipt("e", "", "r", ReceiptStatus.TAKEN, NOON.replace(tzinfo=None), detail=odd)
    post.intake.write([Told(ADAPTER, request(), Reading((told, other)))])
    found = post.desk.sql("SELECT count(*), max(at) <= now() FROM receipt_event")
    assert found == [(2, True)]


def test_all_of_a_group_is_kept_or_nothing(post: Post) -> None:
    good = Receipt("good", "", "r", ReceiptStatus.TAKEN)
    with pytest.raises(LedgerRefused):
        post.intake.write(
            [
                Told(ADAPTER, request(), Reading((good,))),
                Told("bad\x00adapter", request(), Reading((good,))),
            ]
        )
    assert post.desk.sql("SELECT count(*) FROM receipt_event") == [(0,)]


PHONE = "+12025550001"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_last_wish_of_a_person_counts_in_whatever_order_it_comes(
    post: Post, order: tuple[int, ...]
) -> None:
    wishes: list[Callable[[], None]] = [
        lambda: post.wishes(PHONE, wanted=False, event="stop", at=1),
        lambda: post.wishes(PHONE, wanted=True, event="start", at=2),
        lambda: post.wishes(PHONE, wanted=False, event="stop", at=1),
    ]
    for place in order:
        wishes[place]()
    assert post.suppressed() == []
    post.wishes("+1 (202) 555-0001", wanted=False, event="stop again", at=3)
    assert post.suppressed() == [("opted_out", ADAPTER)]
    assert post.desk.sql("SELECT kind, hint FROM suppression") == [("phone", "+1…01")]


def test_a_start_lifts_nobody_elses_suppression(post: Post) -> None:
    post.desk.sql(
        "INSERT INTO suppression (kind, lookup, hint, reason, source) VALUES"
        " ('phone', %s, '+1…', 'invalid_address', 'desk')",
        post.desk.sealer.lookup("phone", PHONE),
    )
    post.wishes(PHONE, wanted=True, event="start", at=1)
    assert post.suppressed() == [("invalid_address", "desk")]


async def test_a_suppressed_person_is_not_sent_to_from_that_moment(post: Post) -> None:
    key = post.ids()[1]
    odd = Consent("bounce", "phone", "+12025550009", False, Reason.INVALID_ADDRESS)
    # The delivery names whom the provider means, however it spells the address.
    post.says(key, "failed", event="bounce", consents=(odd,))
    adapter = Scripted(accepting)
    await post.desk.sent(adapter)
    assert len(adapter.seen) == 4
    assert post.desk.states() == {("accepted", "ok"): 4, ("skipped", "suppressed"): 1}


def test_work_is_named_once_a_second_and_by_the_sweep_while_something_waits(post: Post) -> None:
    key = post.ids()[0]
    post.says(key, "taken")
    post.says(key, "taken")
    assert post.named == ["receipts"]
    post.clock[0] += 1.0
    post.says(key, "taken")
    assert post.named == ["receipts"] * 2
    post.named.clear()
    post.receipts.remind()
    assert post.named == ["receipts", "poll"]
    post.receipts.work()
    post.named.clear()
    post.receipts.remind()
    assert post.named == []
    post.clock[0] += 30.0
    post.receipts.remind()
    assert post.named == ["poll"]


def test_one_worker_at_a_time(post: Post) -> None:
    post.says(post.ids()[0], "taken")
    with post.desk.ledger.transaction() as other:
        assert receipts.take_turn(other.conn)
        assert post.receipts.work() == 0
    assert post.receipts.work() == 1


def test_a_row_that_changed_meanwhile_stays(post: Post) -> None:
    post.desk.sql("UPDATE delivery SET attempts = 1, state = 'unknown'")
    post.desk.sql("UPDATE batch SET pending = 0, unknown = 5")
    with post.desk.ledger.transaction() as work:
        row = receipts.find(work.conn, post.ids()[:1])[post.ids()[0]]
        change = receipts.Change(row, ADAPTER, State.ACCEPTED, "ok", NOON, "r")
        post.desk.sql("UPDATE delivery SET reason = 'x', state = 'failed' WHERE id = %s", row.id)
        assert receipts.move(work.conn, row.update_id, [change], told="test") == set()

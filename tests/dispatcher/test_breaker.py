"""When a breaker opens, who may probe it, and what closes it."""

import asyncio
import itertools

import pytest

from channels.contract import (
    Accepted,
    AdapterBroken,
    MessageRefused,
    Outcome,
    Reason,
    RecipientRefused,
    TryLater,
    Unknown,
)
from dispatcher.delivery.breaker import BreakerPolicy, Rate, Verdict, failed, probed
from dispatcher.ledger import breakers, due
from dispatcher.ledger.connection import Ledger
from dispatcher.security.sealing import Sealer
from tests.dispatcher.test_engine import Desk, Scripted, accepting, made

OK = Accepted("k", "ref")
LOST = Unknown("k", Reason.TIMEOUT)
BROKEN = AdapterBroken("k", Reason.CREDENTIALS)
THROTTLED = TryLater("k", Reason.THROTTLED)
FIVE_HUNDRED = TryLater("k", Reason.PROVIDER_ERROR)


@pytest.mark.parametrize(
    ("outcome", "speaks"),
    [
        (OK, False),
        (LOST, True),
        (BROKEN, True),
        (FIVE_HUNDRED, True),
        (TryLater("k", Reason.UNREACHABLE), True),
        (THROTTLED, None),
        (TryLater("k", Reason.QUEUE_FULL), None),
        (MessageRefused("k", Reason.CONTENT), False),
        (RecipientRefused("k", Reason.OPTED_OUT), False),
    ],
)
def test_only_what_speaks_against_the_provider_is_a_failure(
    outcome: Outcome, speaks: bool | None
) -> None:
    assert failed(outcome) is speaks


def test_a_probe_is_judged_by_what_it_proves() -> None:
    assert probed([OK]) is Verdict.WORKS
    assert probed([LOST]) is Verdict.FAILS
    assert probed([BROKEN]) is Verdict.FAILS
    assert probed([THROTTLED]) is Verdict.SAYS_NOTHING
    assert probed([]) is Verdict.SAYS_NOTHING


def test_a_rate_opens_at_half_of_twenty_and_not_before() -> None:
    rate = Rate(BreakerPolicy())
    assert not rate.saw([LOST] * 19, now=0.0)
    assert rate.saw([OK], now=1.0)
    assert not rate.saw([LOST] * 19, now=2.0), "it begins anew"
    mixed = Rate(BreakerPolicy())
    assert not mixed.saw([OK] * 101 + [LOST] * 100, now=0.0)
    assert mixed.saw([FIVE_HUNDRED], now=0.0)


def test_what_is_long_ago_or_throttled_counts_for_nothing() -> None:
    rate = Rate(BreakerPolicy())
    assert not rate.saw([LOST] * 19, now=0.0)
    assert not rate.saw([LOST] * 19, now=30.0)
    assert not rate.saw([THROTTLED] * 1_000, now=31.0)
    assert rate.saw([LOST], now=59.0)


@pytest.fixture
def desk(ledger: Ledger, sealer: Sealer) -> Desk:
    return made(ledger, sealer, people=60)


def opened(desk: Desk) -> list[tuple[str, int, int]]:
    """Each breaker's reason, vain probes, and seconds until its next probe."""
    with desk.ledger.read() as conn:
        found = breakers.open_now(conn)
    seconds = desk.sql("SELECT extract(epoch FROM probe_at - now())::int FROM breaker")
    return [(b.reason, b.probes, s[0]) for b, s in zip(found, seconds, strict=True)]


def probe_now(desk: Desk) -> None:
    desk.sql("UPDATE breaker SET probe_at = now(), probing_batch = NULL")
    desk.sql("UPDATE batch SET due_at = now()")
    desk.sql("UPDATE delivery SET next_attempt_at = now() WHERE state = 'pending'")


async def test_a_provider_that_mostly_fails_is_left_alone_and_probed_by_one(desk: Desk) -> None:
    failing = Scripted(lambda e: TryLater(e.key, Reason.PROVIDER_ERROR, retry_after=0.001))
    worker = desk.worker(failing)
    await worker.send(desk.batch)
    assert len(failing.seen) == 60
    assert [(reason, probes) for reason, probes, _ in opened(desk)] == [("provider_error", 0)]
    assert 0 <= opened(desk)[0][2] <= 5
    with desk.ledger.transaction() as work:
        assert due.take_due(work.conn, lane="bulk", quiet_seconds=0, limit=10) == []

    for vain, longest in enumerate((10, 20, 40, 60, 60), start=1):
        probe_now(desk)
        before = len(failing.seen)
        await worker.send(desk.batch)
        assert len(failing.seen) == before + 1
        (_, probes, seconds), *rest = opened(desk)
        assert rest == []
        assert probes == vain
        assert longest - 10 < seconds <= longest

    probe_now(desk)
    working = Scripted(accepting)
    turn = await desk.worker(working).send(desk.batch)
    assert len(working.seen) == 1
    assert opened(desk) == []
    assert turn.again == 0.0
    assert desk.imbalances() == []


async def test_several_batches_make_one_probe_and_are_all_due_when_it_closes(
    ledger: Ledger, sealer: Sealer
) -> None:
    desk = made(ledger, sealer, people=4)
    desk.sql(
        "INSERT INTO batch (update_id, audience, channel, adapter, sender, message_id, lane, seq,"
        " size, open, due_at, pending) SELECT update_id, audience, channel, adapter, sender,"
        " message_id, lane, 2, 2, true, now(), 2 FROM batch"
    )
    other = desk.sql("SELECT max(id) FROM batch")[0][0]
    desk.sql("UPDATE delivery SET batch_id = %s WHERE seq >= 2", other)
    desk.sql("UPDATE batch SET pending = 2, size = 2")
    desk.sql("INSERT INTO breaker VALUES ('scripted', '72345', 'timeout', '', now(), now())")
    gate = asyncio.Event()
    adapter = Scripted(accepting, before=gate.wait)
    worker = desk.worker(adapter)
    probing = asyncio.create_task(worker.send(desk.batch))
    leased = "SELECT count(*) FROM breaker WHERE probing_batch IS NOT NULL"
    for _ in itertools.count():
        if desk.sql(leased) == [(1,)]:
            break
        await asyncio.sleep(0.01)
    async with asyncio.timeout(20):
        assert (await worker.send(other)).result == "not_leased"
    parked = desk.sql("SELECT due_at > now(), lease_until IS NULL FROM batch WHERE id = %s", other)
    assert parked == [(True, True)]
    gate.set()
    await probing
    assert opened(desk) == []
    assert desk.sql("SELECT due_at <= now() FROM batch WHERE id = %s", other) == [(True,)]
    await worker.send(other)
    await worker.send(desk.batch)
    assert desk.states() == {("accepted", "ok"): 4}


async def test_a_throttled_probe_proves_nothing_and_another_is_made(desk: Desk) -> None:
    desk.sql("INSERT INTO breaker VALUES ('scripted', '72345', 'timeout', '', now(), now())")
    await desk.sent(Scripted(lambda e: TryLater(e.key, Reason.THROTTLED, retry_after=0.001)))
    (_, probes, seconds), *_ = opened(desk)
    assert probes == 0
    assert seconds <= 5
    assert desk.sql("SELECT probing_batch FROM breaker") == [(None,)]


async def test_what_was_on_the_wire_when_it_opened_makes_it_no_longer(desk: Desk) -> None:
    for _ in range(3):
        with desk.ledger.transaction() as work:
            fresh = breakers.open_breaker(
                work.conn,
                adapter="scripted",
                sender="72345",
                reason="timeout",
                detail="",
                seconds=5.0,
                longest=60.0,
                probed=False,
            )
    assert not fresh
    (_, probes, seconds), *_ = opened(desk)
    assert probes == 0
    assert seconds <= 5


async def test_a_broken_account_is_tried_again_after_a_minute(desk: Desk) -> None:
    worker = desk.worker(Scripted(lambda e: AdapterBroken(e.key, Reason.ACCOUNT)))
    for vain in (0, 1, 2):
        await worker.send(desk.batch)
        (reason, probes, seconds), *_ = opened(desk)
        assert (reason, probes) == ("account", vain)
        assert 50 < seconds <= 60
        probe_now(desk)

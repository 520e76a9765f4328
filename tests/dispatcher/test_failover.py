"""Batches go by another account of the same kind, and home again; the ledger is real."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from channels.contract import Adapter, AdapterBroken, Envelope, Outcome, Reason, Unknown
from dispatcher.adapters import accounts_of, sandbox_channels
from dispatcher.delivery.failover import Account, Failover, ways
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.failover import Way
from dispatcher.security.sealing import Sealer
from dispatcher.settings import SettingsError, environment, load
from tests.dispatcher.test_engine import Desk, Scripted, accepting, made

HOME = Account("scripted", "sms", "phone")
BACKUP = Account("scripted.backup", "sms", "phone", "+15550100")
MAIL = Account("mail", "email", "email")


def broken(envelope: Envelope) -> Outcome:
    return AdapterBroken(envelope.key, Reason.CREDENTIALS)


@dataclass(frozen=True)
class Branches:
    """A desk with two accounts of one kind."""

    desk: Desk
    home: Scripted
    backup: Scripted

    def failover(self, *accounts: Account) -> int:
        return Failover(self.desk.ledger, accounts or (HOME, BACKUP, MAIL)).run()

    async def work(self) -> None:
        """Send every batch that is due, by whichever account it stands at."""
        worker = self.desk.worker(self.home)
        both = {"scripted": self.home, "scripted.backup": self.backup}
        worker._adapters = cast("dict[str, Adapter]", both)
        for (batch,) in self.desk.sql("SELECT id FROM batch WHERE open ORDER BY id"):
            await worker.send(batch)

    def where(self) -> list[tuple[str, str, str | None]]:
        return cast(
            "list[tuple[str, str, str | None]]",
            self.desk.sql("SELECT adapter, sender, home_adapter FROM batch ORDER BY id"),
        )

    def pass_time(self) -> None:
        """Rows may be tried again, and breakers be probed."""
        self.desk.sql("UPDATE breaker SET probe_at = now(), probing_batch = NULL")
        self.desk.sql("UPDATE delivery SET next_attempt_at = now() WHERE state = 'pending'")
        self.desk.sql("UPDATE batch SET due_at = now() WHERE open")

    def try_again(self) -> None:
        self.desk.sql("UPDATE delivery SET next_attempt_at = now() WHERE state = 'pending'")


@pytest.fixture
def branches(ledger: Ledger, sealer: Sealer) -> Branches:
    desk = made(ledger, sealer, people=6)
    desk.sql(
        "INSERT INTO batch (update_id, audience, channel, adapter, sender, message_id, lane, seq,"
        " size, open, due_at, pending) SELECT update_id, audience, channel, adapter, sender,"
        " message_id, lane, 2, 3, true, now(), 3 FROM batch"
    )
    desk.sql("UPDATE delivery SET batch_id = (SELECT max(id) FROM batch) WHERE seq >= 3")
    desk.sql("UPDATE batch SET pending = 3, size = 3")
    return Branches(desk, Scripted(broken), Scripted(accepting))


def test_ways_lead_to_the_same_channel_and_kind_only() -> None:
    assert ways([HOME, BACKUP, MAIL]) == [
        Way("scripted", "scripted.backup", "+15550100"),
        Way("scripted.backup", "scripted", None),
    ]


async def test_another_account_takes_over_and_gives_back(branches: Branches) -> None:
    """Nobody is lost or told twice; the probe is one batch's; the rest waits for its outcome."""
    assert branches.failover() == 0
    await branches.work()
    first = len(branches.home.seen)
    assert 0 < first <= 6
    assert branches.failover() == 2
    away = ("scripted.backup", "+15550100", "scripted")
    assert branches.where() == [away, away]
    branches.try_again()
    await branches.work()
    assert len(branches.backup.seen) == 6
    assert branches.desk.states() == {("accepted", "ok"): 6}
    adapters = branches.desk.sql("SELECT DISTINCT adapter FROM attempt WHERE outcome = 'accepted'")
    assert adapters == [("scripted.backup",)]
    assert branches.desk.imbalances() == []


async def test_a_probe_goes_home_alone_and_the_rest_follows(branches: Branches) -> None:
    await branches.work()
    assert branches.failover() == 2
    branches.pass_time()
    assert branches.failover() == 1
    assert sorted(row[0] for row in branches.where()) == ["scripted", "scripted.backup"]
    assert branches.failover() == 0, "one is at home to probe"

    branches.backup.answer = broken
    branches.home.answer = broken
    seen = len(branches.home.seen)
    worker = branches.desk.worker(branches.home)
    probe = branches.desk.sql("SELECT id FROM batch WHERE adapter = 'scripted'")[0][0]
    await worker.send(probe)
    assert len(branches.home.seen) == seen + 1
    assert branches.failover() == 1, "it failed, and goes the other way again"
    assert {row[0] for row in branches.where()} == {"scripted.backup"}

    branches.pass_time()
    assert branches.failover() == 1
    branches.home.answer = accepting
    probe = branches.desk.sql("SELECT id FROM batch WHERE adapter = 'scripted'")[0][0]
    await worker.send(probe)
    assert branches.desk.sql("SELECT count(*) FROM breaker") == [(0,)]
    assert branches.failover() == 1
    assert branches.where() == [("scripted", "72345", None)] * 2
    branches.try_again()
    await branches.work()
    assert branches.desk.states() == {("accepted", "ok"): 6}
    assert branches.desk.imbalances() == []


async def test_a_batch_in_use_or_on_the_wire_does_not_move(branches: Branches) -> None:
    branches.desk.sql("INSERT INTO breaker VALUES ('scripted', '', 'x', '', now(), now() + '1 h')")
    branches.desk.sql("UPDATE batch SET sending = 1 WHERE id = %s", branches.desk.batch)
    assert branches.failover() == 1
    branches.desk.sql("UPDATE batch SET sending = 0, lease_until = now() + interval '1 minute'")
    assert branches.failover() == 0
    branches.desk.sql("UPDATE batch SET lease_until = now() - interval '1 minute'")
    assert branches.failover() == 1


async def test_nobody_moves_to_an_account_that_is_broken_too(branches: Branches) -> None:
    branches.desk.sql(
        "INSERT INTO breaker VALUES ('scripted', '72345', 'x', '', now(), now() + '1 h'),"
        " ('scripted.backup', '+15550100', 'x', '', now(), now() + '1 h')"
    )
    assert branches.failover() == 0
    assert branches.failover(HOME, MAIL) == 0
    third = Account("scripted.third", "sms", "phone")
    assert branches.failover(HOME, BACKUP, third) == 2
    assert branches.where() == [("scripted.third", "72345", "scripted")] * 2


async def test_when_the_second_breaks_and_the_first_works_it_goes_straight_home(
    branches: Branches,
) -> None:
    await branches.work()
    branches.failover()
    branches.desk.sql("UPDATE breaker SET adapter = 'scripted.backup', sender = '+15550100'")
    assert branches.failover() == 2
    assert branches.where() == [("scripted", "72345", None)] * 2


async def test_what_is_in_doubt_stays_with_the_account_that_tried(branches: Branches) -> None:
    branches.home.answer = lambda e: (
        Unknown(e.key, Reason.TIMEOUT) if len(branches.home.seen) == 1 else broken(e)
    )
    await branches.work()
    assert branches.failover() > 0
    assert branches.desk.sql("SELECT DISTINCT adapter, sender FROM doubt") == [
        ("scripted", "72345")
    ]


def test_a_second_account_is_named_in_the_environment_and_passed_on() -> None:
    given = {
        "DISPATCHER_CHANNELS__TWILIO_SMS__ACCOUNT_SID": "one",
        "DISPATCHER_CHANNELS__TWILIO_SMS__AT__BACKUP__ACCOUNT_SID": "two",
        "DISPATCHER_CHANNELS__TWILIO_SMS__AT__BACKUP__SENDER": "+15550100",
    }
    settings = load(given)
    assert settings.channels == {
        "twilio_sms": {"account_sid": "one"},
        "twilio_sms.backup": {"account_sid": "two", "sender": "+15550100"},
    }
    passed = environment(settings)
    assert given.items() <= passed.items()
    for wrong in ("AT__BACKUP", "AT__1__X", "AT____X"):
        with pytest.raises(SettingsError):
            load({f"DISPATCHER_CHANNELS__TWILIO_SMS__{wrong}": "x"})


def test_a_second_account_in_the_sandbox_is_the_simulators_own(tmp_path: Path) -> None:
    settings = load(
        {
            "DISPATCHER_DATA_DIR": str(tmp_path),
            "DISPATCHER_CHANNELS__TWILIO_SMS__AT__BACKUP__ACCOUNT_SID": "real",
            "DISPATCHER_CHANNELS__TWILIO_SMS__AT__BACKUP__RATE": "50",
        }
    )
    channels = sandbox_channels(settings, [])
    assert channels["twilio_sms.backup"]["account_sid"] != channels["twilio_sms"]["account_sid"]
    assert channels["twilio_sms.backup"]["account_sid"] != "real"
    named = {"twilio_sms.backup": cast(Adapter, Scripted(accepting))}
    assert accounts_of(channels, named)[0].rate == 50.0
    with pytest.raises(SettingsError):
        accounts_of({"twilio_sms.backup": {"rate": "fast"}}, named)

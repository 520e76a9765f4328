"""The next step: for whom, when, by what; the ledger is real and outcomes are written to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from dispatcher.audiences import ChannelStep, Lane, Reach
from dispatcher.delivery.failover import Account
from dispatcher.delivery.fallback import Fallback
from dispatcher.ledger import progress
from dispatcher.ledger.connection import Ledger
from dispatcher.planning import Planner, Route
from tests.dispatcher.test_planning import House, audience
from tests.dispatcher.test_planning import house as planning_house

__all__ = ["planning_house"]

ACCOUNTS = (
    Account("inbox_push", "push", "inbox"),
    Account("twilio_sms", "sms", "phone"),
    Account("twilio_sms.backup", "sms", "phone"),
    Account("sendgrid_email", "email", "email"),
)
ROUTES = tuple(Route(a.adapter, a.channel, a.kind) for a in ACCOUNTS)


@dataclass
class Falling:
    """People told by SMS, else by mail: a planner, and whoever starts next steps."""

    house: House

    def fallback(self, *readers: str) -> Fallback:
        return Fallback(
            self.house.ledger,
            self.house.packs,
            accounts=ACCOUNTS,
            readers=readers,
            send=self.house.sent.extend,
        )

    def plan(self) -> str:
        return self.house.plan("crowd")

    def sql(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        with self.house.ledger.read() as conn:
            cursor = conn.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def becomes(self, state: str, *people: str, channel: str = "sms", was: str = "pending") -> None:
        """These people's rows come into a state, with their counters and proofs."""
        moved = self.sql(
            "UPDATE delivery d SET state = %s, accepted_at = CASE WHEN %s IN ('accepted',"
            " 'delivered') THEN coalesce(d.accepted_at, now()) END, ref = d.id::text"
            " FROM recipient r WHERE r.id = d.recipient_id AND r.ref = ANY(%s)"
            " AND d.channel = %s AND d.state = %s RETURNING d.batch_id, d.update_id, d.id",
            *(state, state, list(people), channel, was),
        )
        assert moved
        for batch, update, delivery in moved:
            self.sql(
                f"UPDATE batch SET {was} = {was} - 1, {state} = {state} + 1,"
                " open = pending + sending > 0 WHERE id = %s",
                batch,
            )
            if state == "accepted":
                self.sql(
                    "UPDATE batch SET first_accepted_at = coalesce(first_accepted_at, now()),"
                    " last_accepted_at = now() WHERE id = %s",
                    batch,
                )
                self.sql(
                    "INSERT INTO attempt (update_id, delivery_id, number, epoch, adapter, outcome,"
                    " reason, detail, ref) VALUES (%s, %s, 1, 1, 'x', 'accepted', 'ok', '', %s)",
                    *(update, delivery, str(delivery)),
                )

    def pass_time(self, minutes: int) -> None:
        """As if everything had happened so much earlier."""
        ago = f"interval '{minutes} minutes'"
        self.sql(f"UPDATE delivery SET accepted_at = accepted_at - {ago}")
        self.sql(
            f"UPDATE batch SET first_accepted_at = first_accepted_at - {ago},"
            f" last_accepted_at = last_accepted_at - {ago}, waited_to = waited_to - {ago},"
            f" looked_at = looked_at - {ago}"
        )
        self.sql(f"UPDATE release SET released_at = released_at - {ago}")

    def receipt(self, adapter: str, *, minutes_ago: int = 0) -> None:
        self.sql(
            "INSERT INTO receipt (adapter, received_at, requests, sealed)"
            " VALUES (%s, now() - make_interval(mins => %s), 1, '')",
            *(adapter, minutes_ago),
        )

    def settled(self, update: str) -> bool:
        with self.house.ledger.read() as conn:
            return progress.read(conn, update, progress.Balances()).settled


class Planned(House):
    """A house that knows these accounts."""

    def planner(self, *, batch_size: int = 1_000) -> Planner:
        return Planner(
            self.ledger,
            self.packs,
            routes=ROUTES,
            drill_routes=(),
            send=self.sent.extend,
            batch_size=batch_size,
        )


STEPS = (
    ChannelStep("sms", timedelta(minutes=5)),
    ChannelStep("email", timedelta(minutes=15)),
    ChannelStep("push"),
)


@pytest.fixture
def falling(planning_house: House) -> Falling:
    crowd = replace(
        audience("crowd", 1, Lane.NORMAL, "sms"),
        channels=STEPS,
        reach=Reach.FIRST,
        start_by=timedelta(minutes=10),
    )
    packs = replace(planning_house.packs, audiences={"crowd": crowd})
    house = Planned(planning_house.ledger, packs, planning_house.incident)
    for name in ("ann", "bob", "cid"):
        house.person(name, "crowd", f"+1{name}", f"{name}@example.com")
    house.person("dot", "crowd", "+1dot")
    return Falling(house)


def told(rows: dict[tuple[str, str], tuple[str, str]], *people: str) -> dict[str, Sequence[str]]:
    """Each person's states by channel, first sms, then email."""
    return {
        name: [rows[name, channel][0] for channel in ("sms", "email") if (name, channel) in rows]
        for name in people
    }


def test_a_failed_step_is_followed_at_once_by_the_next(falling: Falling) -> None:
    update = falling.plan()
    assert falling.fallback().run() == 0
    falling.becomes("failed", "ann", "dot")
    falling.becomes("accepted", "bob", "cid")
    assert not falling.settled(update), "who failed was not looked at yet"
    falling.house.sent.clear()
    assert falling.fallback().run() == 1
    rows = falling.house.rows(update)
    assert told(rows, "ann", "bob", "cid", "dot") == {
        "ann": ["failed", "pending"],
        "bob": ["accepted"],
        "cid": ["accepted"],
        "dot": ["failed"],
    }
    assert [lane for _, lane in falling.house.sent] == ["normal"]
    assert falling.fallback().run() == 0
    falling.becomes("accepted", "ann", channel="email")
    assert falling.settled(update)
    planned = falling.sql("SELECT channel, rows FROM planned ORDER BY channel")
    assert planned == [("email", 1), ("sms", 4)]


def test_a_step_is_taken_once_and_the_one_after_it_when_that_fails_too(falling: Falling) -> None:
    falling.house.person("eve", "crowd", "+1eve", "eve@example.com")
    update = falling.plan()
    falling.becomes("failed", "ann", "eve")
    assert falling.fallback().run() == 1
    falling.becomes("failed", "bob")
    assert falling.fallback().run() == 1
    falling.becomes("failed", "ann", channel="email")
    assert falling.fallback().run() == 0, "ann has no inbox"
    rows = falling.house.rows(update)
    assert told(rows, "ann", "bob", "eve") == {
        "ann": ["failed", "failed"],
        "bob": ["failed", "pending"],
        "eve": ["failed", "pending"],
    }


@pytest.mark.parametrize(
    ("readers", "receipt_ago", "falls"),
    [(("twilio_sms",), 1, True), ((), 1, False), (("twilio_sms",), None, False)],
)
def test_delivered_is_waited_for_only_where_receipts_come(
    falling: Falling, readers: tuple[str, ...], receipt_ago: int | None, falls: bool
) -> None:
    update = falling.plan()
    falling.becomes("accepted", "ann", "bob", "cid", "dot")
    falling.becomes("delivered", "bob", was="accepted")
    if receipt_ago is not None:
        falling.receipt("twilio_sms", minutes_ago=receipt_ago)
    falling.pass_time(4)
    assert falling.fallback(*readers).run() == 0
    falling.pass_time(2)
    assert falling.fallback(*readers).run() == int(falls)
    rows = falling.house.rows(update)
    after = ["accepted", "pending"] if falls else ["accepted"]
    assert told(rows, "ann", "bob", "cid", "dot") == {
        "ann": after,
        "bob": ["delivered"],
        "cid": after,
        "dot": ["accepted"],
    }
    falling.pass_time(1)
    assert falling.fallback(*readers).run() == 0


def test_where_receipts_have_stopped_accepted_counts_and_it_is_told(
    falling: Falling, capsys: pytest.CaptureFixture[str]
) -> None:
    update = falling.plan()
    falling.becomes("accepted", "ann", "bob", "cid", "dot")
    falling.receipt("twilio_sms", minutes_ago=60)
    falling.pass_time(6)
    assert falling.fallback("twilio_sms").run() == 0
    assert "receipts.stopped" in "".join(capsys.readouterr())
    assert falling.settled(update)
    falling.becomes("failed", "ann", was="accepted")
    falling.sql("DELETE FROM attempt")
    assert falling.fallback("twilio_sms").run() == 1, "a receipt came late, and said failed"


def test_what_has_not_started_in_time_goes_the_next_way_instead(falling: Falling) -> None:
    update = falling.plan()
    falling.becomes("accepted", "bob")
    falling.pass_time(9)
    assert falling.fallback().run() == 0
    falling.pass_time(2)
    assert falling.fallback().run() == 1
    rows = falling.house.rows(update)
    assert rows["ann", "sms"] == ("superseded", "next_step")
    assert told(rows, "ann", "bob", "cid", "dot") == {
        "ann": ["superseded", "pending"],
        "bob": ["accepted"],
        "cid": ["superseded", "pending"],
        "dot": ["pending"],
    }
    falling.pass_time(1)
    assert falling.fallback().run() == 0, "dot has no other way, and the mails are pending"


def test_what_is_on_the_wire_or_in_doubt_is_settled_first(falling: Falling) -> None:
    update = falling.plan()
    falling.becomes("unknown", "ann", "bob")
    falling.becomes("sending", "cid")
    falling.sql(
        "INSERT INTO doubt (update_id, delivery_id, batch_id, adapter, sender, number, epoch,"
        " claimed_at) SELECT update_id, id, batch_id, 'twilio_sms', '', 1, 1, now() FROM delivery"
        " WHERE state = 'unknown'"
    )
    falling.pass_time(11)
    assert falling.fallback().run() == 0
    assert not falling.settled(update)
    falling.sql("DELETE FROM doubt")
    assert falling.fallback().run() == 1
    rows = falling.house.rows(update)
    assert told(rows, "ann", "bob", "cid") == {
        "ann": ["unknown", "pending"],
        "bob": ["unknown", "pending"],
        "cid": ["sending"],
    }


def test_a_newer_update_takes_the_place_of_a_next_step(falling: Falling) -> None:
    update = falling.plan()
    falling.becomes("failed", "ann")
    newer = falling.plan()
    assert falling.fallback().run() == 0
    assert ("ann", "email") not in falling.house.rows(update)
    assert falling.settled(update)
    falling.becomes("failed", "bob")
    assert falling.fallback().run() == 1
    assert falling.house.rows(newer)["bob", "email"] == ("pending", "")


def test_an_address_that_two_people_share_gets_one_next_step(falling: Falling) -> None:
    falling.house.person("eve", "crowd", "+1eve", "ann@example.com")
    falling.house.person("fay", "crowd", "+1ann", "fay@example.com")
    update = falling.plan()
    falling.becomes("failed", "ann", "eve")
    assert falling.fallback().run() == 1
    rows = falling.house.rows(update)
    mails = sorted((rows["ann", "email"], rows["eve", "email"]))
    assert mails == [("pending", ""), ("skipped", "shared_contact")]
    # Fay's phone is Ann's, and that is the one that failed.
    assert rows["fay", "sms"] == ("skipped", "shared_contact")
    assert rows["fay", "email"] == ("pending", "")


def test_a_suppressed_address_is_no_next_step(falling: Falling) -> None:
    falling.sql(
        "INSERT INTO suppression (kind, lookup, hint, reason, source)"
        " VALUES ('email', %s, '', 'unsubscribed', 't')",
        b"ann@example.com",
    )
    update = falling.plan()
    falling.becomes("failed", "ann")
    assert falling.fallback().run() == 0
    assert ("ann", "email") not in falling.house.rows(update)
    assert not falling.fallback().run()


def test_a_batch_that_a_second_account_sent_falls_too(falling: Falling) -> None:
    update = falling.plan()
    falling.sql("UPDATE batch SET adapter = 'twilio_sms.backup', home_adapter = 'twilio_sms'")
    falling.becomes("failed", "ann")
    assert falling.fallback().run() == 1
    assert falling.house.rows(update)["ann", "email"] == ("pending", "")


def test_nothing_is_followed_that_is_stopped_or_expired(falling: Falling, ledger: Ledger) -> None:
    update = falling.plan()
    falling.becomes("failed", "ann")
    falling.sql("UPDATE release SET state = 'stopped'")
    assert falling.fallback().run() == 0
    falling.sql("UPDATE release SET state = 'released'")
    falling.sql("UPDATE incident_update SET expires_at = now() - interval '1 second'")
    assert falling.fallback().run() == 0
    assert ("ann", "email") not in falling.house.rows(update)


def test_an_audience_reached_on_all_channels_has_no_next_step(planning_house: House) -> None:
    planning_house.person("ann", "enterprise", "+1ann", "ann@example.com")
    update = planning_house.plan("enterprise")
    falling = Falling(planning_house)
    falling.becomes("failed", "ann")
    assert falling.fallback().run() == 0
    falling.becomes("failed", "ann", channel="email")
    assert falling.settled(update)

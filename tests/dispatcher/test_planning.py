"""A released update becomes rows: once, in lanes, and with regard to what went before."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.contract import Message
from dispatcher.audiences import Audience, ChannelStep, Lane, Packs, Reach, Scope, load
from dispatcher.incidents import Incident, NewIncident, NewUpdate, Phase
from dispatcher.ledger import incidents, plans, progress, stops, updates
from dispatcher.ledger.connection import Connection, Ledger
from dispatcher.ledger.recipients import ContactRow, RecipientRow, importing
from dispatcher.ledger.selection import Span
from dispatcher.planning import Parts, Planner, Route, together
from tests.stories.house import until

TEMPLATES = Path(__file__).parents[2] / "templates"
ROUTES = (Route("twilio_sms", "sms", "phone"), Route("sendgrid_email", "email", "email"))
FACT = "0198a000-0000-7000-8000-000000000001"


def audience(name: str, rank: int, lane: Lane, *channels: str) -> Audience:
    """An audience of the segment of its name, reached on all its channels."""
    return Audience(
        name=name,
        title=name,
        segments=(name,),
        tags=(),
        rank=rank,
        scope=Scope.AFFECTED,
        lane=lane,
        channels=tuple(ChannelStep(channel) for channel in channels),
        reach=Reach.ALL,
        start_by=None,
        preapproved=frozenset(),
        cadence=None,
        reach_by=None,
        quiet_hours=None,
        locales=("en",),
        required={},
    )


AUDIENCES = (
    audience("police", 1, Lane.URGENT, "sms"),
    audience("enterprise", 2, Lane.NORMAL, "email", "sms"),
    audience("consumer", 3, Lane.BULK, "sms"),
)


@dataclass
class House:
    """A planner on a ledger of its own, and everything it named to workers."""

    ledger: Ledger
    packs: Packs
    incident: Incident
    sent: list[tuple[int, str]] = field(default_factory=list)

    def planner(self, *, batch_size: int = 1_000, parts: Parts | None = None) -> Planner:
        return Planner(
            self.ledger,
            self.packs,
            routes=ROUTES,
            drill_routes=(),
            send=self.sent.extend,
            batch_size=batch_size,
            parts=parts,
        )

    def person(self, ref: str, segment: str, *addresses: str, tags: Sequence[str] = ()) -> None:
        """Add or change a recipient; an address with an @ is mail, another a phone."""
        kinds = [("email" if "@" in a else "phone", a.encode()) for a in addresses]
        contacts = [ContactRow(kind, lookup, b"", "", None) for kind, lookup in kinds]
        plain = ("en", segment, "US", ("voice",), tuple(tags), b"", contacts)
        with importing(self.ledger) as session:
            session.merge([RecipientRow(ref, b"", *plain)])

    def release(
        self,
        *names: str,
        phase: Phase = Phase.IDENTIFIED,
        facts: Sequence[str] = (),
        withdraws: tuple[str, ...] = (),
    ) -> str:
        """An update to these audiences (all, if none is named), submitted and released."""
        named = names or tuple(self.packs.audiences)
        new = NewUpdate(phase=phase, audiences=named, withdraws=withdraws)
        with self.ledger.transaction() as work:
            update = updates.insert(
                work.conn,
                new,
                incident_id=self.incident.id,
                audiences=named,
                author="t",
                release_on_approval=False,
            )
            lanes = {name: (self.packs.audiences[name].lane.value, True) for name in named}
            updates.create_releases(work.conn, update, lanes)
            stored = [
                updates.StoredMessage(
                    name, Message("", step.channel, "en", {}, {}, "", "", None, ""), 1, [], [*facts]
                )
                for name in named
                for step in self.packs.audiences[name].channels
            ]
            updates.replace_messages(work.conn, update, stored)
            self._move(work.conn, update, named, "released")
        return update

    def _move(self, conn: Connection, update: str, names: Sequence[str], to: str) -> None:
        updates.move_releases(conn, update, audiences=names, states=("draft",), to=to, actor="t")

    def plan(self, *names: str, **more: object) -> str:
        """Release and plan; returns the update's id."""
        update = self.release(*names, **more)  # type: ignore[arg-type]
        self.planner().plan(update)
        return update

    def rows(self, update: str) -> dict[tuple[str, str], tuple[str, str]]:
        """(state, reason) of each (person, channel)."""
        with self.ledger.read() as conn:
            assert progress.imbalances(conn, update) == []
            found = conn.execute(
                "SELECT r.ref, d.channel, d.state, d.reason FROM delivery d"
                " JOIN recipient r ON r.id = d.recipient_id WHERE d.update_id = %s",
                (update,),
            ).fetchall()
        rows = {(row[0], row[1]): (row[2], row[3]) for row in found}
        assert len(rows) == len(found)
        return rows

    def accept(self, update: str) -> None:
        """Everything pending was taken by the provider: rows, counters and attempts."""
        with self.ledger.transaction() as work:
            work.conn.execute(
                "WITH moved AS (UPDATE delivery SET state = 'accepted', accepted_at = now()"
                " WHERE update_id = %(u)s AND state = 'pending' RETURNING id),"
                " tried AS (INSERT INTO attempt (update_id, delivery_id, number, epoch, adapter,"
                " outcome, reason, detail, ref)"
                " SELECT %(u)s, id, 1, 1, 'a', 'accepted', '', '', id::text FROM moved)"
                " UPDATE batch SET accepted = pending, pending = 0, open = false"
                " WHERE update_id = %(u)s",
                {"u": update},
            )


@pytest.fixture
def house(ledger: Ledger) -> House:
    packs = load(TEMPLATES)
    organisation = replace(packs.organisation, default_locale="en")
    packs = replace(packs, organisation=organisation, audiences={a.name: a for a in AUDIENCES})
    new = NewIncident.model_validate(
        {
            "title": "t",
            "severity": "major",
            "services": ["voice"],
            "started_at": datetime(2024, 2, 22, tzinfo=UTC),
        }
    )
    with ledger.transaction() as work:
        incident = incidents.insert(work.conn, new, created_by="t")
    return House(ledger, packs, incident)


PENDING = ("pending", "")


def test_lanes_leave_in_order_and_a_second_plan_adds_nothing(house: House) -> None:
    house.person("c", "consumer", "1")
    house.person("e", "enterprise", "2", "e@x")
    house.person("p", "police", "3")
    update = house.release()
    assert house.planner().plan(update) == 4
    assert [lane for _, lane in house.sent] == ["urgent", "normal", "normal", "bulk"]
    rows = house.rows(update)
    assert rows == {
        ("c", "sms"): PENDING,
        ("e", "sms"): PENDING,
        ("e", "email"): PENDING,
        ("p", "sms"): PENDING,
    }
    assert house.planner().plan(update) == 0
    assert len(house.sent) == 4
    assert house.rows(update) == rows


def test_what_is_released_later_is_added_to_what_was_planned(house: House) -> None:
    house.person("c", "consumer", "1")
    house.person("p", "police", "3")
    update = house.release("police", "consumer")
    with house.ledger.transaction() as work:
        work.conn.execute("UPDATE release SET state = 'submitted' WHERE audience = 'consumer'")
    house.planner().plan(update)
    assert house.rows(update) == {("p", "sms"): PENDING}
    with house.ledger.transaction() as work:
        work.conn.execute("UPDATE release SET state = 'released' WHERE audience = 'consumer'")
    house.planner().plan(update)
    assert house.rows(update) == {("p", "sms"): PENDING, ("c", "sms"): PENDING}


def test_priority_leads_and_every_audience_starts_before_any_goes_on(house: House) -> None:
    for number in range(5):
        house.person(f"c{number}", "consumer", f"1{number}", tags=["priority"] * (number == 3))
    house.person("none", "consumer")
    update = house.release()
    house.planner(batch_size=2).plan(update)
    with house.ledger.read() as conn:
        batches = conn.execute(
            "SELECT size, pending, skipped, id FROM batch ORDER BY seq"
        ).fetchall()
        first = conn.execute(
            "SELECT r.ref FROM delivery d JOIN recipient r ON r.id = d.recipient_id"
            " WHERE d.state = 'pending' ORDER BY d.seq LIMIT 1"
        ).fetchone()
    assert first == ("c3",)
    assert sorted(row[:3] for row in batches) == [(1, 0, 1), (1, 1, 0), (2, 2, 0), (2, 2, 0)]
    assert [row[1] for row in batches if row[1]] == [2, 2, 1]
    assert [batch for batch, _ in house.sent] == [row[3] for row in batches if row[1]]
    house.rows(update)


def test_nobody_leaves_the_audience_of_the_first_planning(house: House) -> None:
    house.person("a", "consumer", "1")
    house.person("b", "consumer", "2")
    house.plan()
    house.person("a", "police", "1")
    assert house.rows(house.plan("police")) == {("a", "none"): ("skipped", "other_audience")}
    assert house.rows(house.plan("consumer")) == {("a", "sms"): PENDING, ("b", "sms"): PENDING}


def test_a_contact_that_an_earlier_lane_told_is_not_told_again(house: House) -> None:
    house.person("c", "consumer", "1")
    house.person("p", "police", "1")
    assert house.rows(house.plan()) == {
        ("p", "sms"): PENDING,
        ("c", "sms"): ("skipped", "shared_contact"),
    }


def test_who_never_heard_of_it_is_spared_the_end(house: House) -> None:
    house.person("old", "consumer", "1")
    house.person("unsent", "consumer")
    house.accept(house.plan())
    house.person("a new one at the same phone", "consumer", "1")
    house.person("new", "consumer", "2")
    house.person("unsent", "consumer", "3")
    assert house.rows(house.plan(phase=Phase.RESOLVED)) == {
        ("old", "sms"): PENDING,
        ("a new one at the same phone", "sms"): ("spared", "not_told_before"),
        ("new", "sms"): ("spared", "not_told_before"),
        ("unsent", "sms"): ("spared", "not_told_before"),
    }


def test_one_who_is_spared_does_not_keep_a_shared_contact_from_one_who_is_told(
    house: House,
) -> None:
    house.person("told", "consumer", "1")
    house.accept(house.plan())
    house.person("new", "consumer", "1", tags=["priority"])
    assert house.rows(house.plan(phase=Phase.RESOLVED)) == {
        ("told", "sms"): PENDING,
        ("new", "sms"): ("spared", "not_told_before"),
    }


def test_a_newer_update_takes_back_what_is_unsent_of_the_older(house: House) -> None:
    house.person("c", "consumer", "1")
    house.person("e", "enterprise", "2")
    first = house.plan()
    second = house.plan("consumer")
    assert house.rows(second) == {("c", "sms"): PENDING}
    rows = house.rows(first)
    assert rows[("c", "sms")] == ("superseded", "newer_update")
    assert rows[("e", "sms")] == PENDING


def test_least_recently_told_go_first(house: House) -> None:
    for ref in ("early", "late"):
        house.person(ref, "consumer", ref)
    house.accept(house.plan())
    with house.ledger.transaction() as work:
        work.conn.execute(
            "UPDATE delivery d SET accepted_at = now() - make_interval(hours =>"
            " CASE r.ref WHEN 'early' THEN 2 ELSE 1 END) FROM recipient r"
            " WHERE r.id = d.recipient_id"
        )
    house.person("never", "consumer", "never")
    update = house.plan()
    with house.ledger.read() as conn:
        found = conn.execute(
            "SELECT r.ref FROM delivery d JOIN recipient r ON r.id = d.recipient_id"
            " WHERE d.update_id = %s ORDER BY d.seq",
            (update,),
        ).fetchall()
    assert [row[0] for row in found] == ["never", "early", "late"]


def test_a_correction_goes_to_exactly_those_who_carried_the_fact(house: House) -> None:
    """Over all lanes of the first update, to the same contact points, whatever changed since."""
    house.person("c", "consumer", "1")
    house.person("p", "police", "3")
    house.accept(house.plan(facts=[FACT]))
    house.person("c", "enterprise", "9")
    house.person("later", "consumer", "5")
    house.accept(house.plan("consumer"))
    correction = house.plan(phase=Phase.CORRECTION, withdraws=(FACT,))
    assert house.rows(correction) == {("c", "sms"): PENDING, ("p", "sms"): PENDING}
    with house.ledger.read() as conn:
        found = conn.execute(
            "SELECT convert_from(p.lookup, 'UTF8') FROM delivery d JOIN contact_point p"
            " ON p.id = d.contact_point_id WHERE d.update_id = %s ORDER BY 1",
            (correction,),
        ).fetchall()
    assert [row[0] for row in found] == ["1", "3"]


def test_a_correction_passes_by_who_was_not_told(house: House) -> None:
    house.person("c", "consumer", "1")
    house.plan(facts=[FACT])
    assert house.rows(house.plan(phase=Phase.CORRECTION, withdraws=(FACT,))) == {}


def test_a_planner_that_finds_another_at_the_incident_leaves_it_to_the_sweep(house: House) -> None:
    house.person("c", "consumer", "1")
    update = house.release()
    with house.ledger.transaction() as work:
        assert plans.try_lock(work.conn, house.incident.id)
        assert house.planner().plan(update) == 0
        assert house.rows(update) == {}
        assert updates.unplanned(work.conn) == [update]
    assert house.planner().plan(update) == 1
    assert house.rows(update) == {("c", "sms"): PENDING}


SMALL = Parts(vanguard=2, few=3, least=2)


def crowd(house: House, count: int) -> set[str]:
    """Consumers with a telephone each; the last two share one."""
    numbers = [str(number) for number in range(count - 1)]
    for number, phone in enumerate([*numbers, numbers[-1]]):
        house.person(f"c{number}", "consumer", phone)
    return {f"c{number}" for number in range(count)}


def test_many_are_planned_in_parts_and_each_once(house: House) -> None:
    """A few, a sixteenth, a quarter, and the rest: workers hear of each part as soon as it is there."""
    people = crowd(house, 64)
    update = house.release("consumer")
    heard: list[int] = []
    planner = Planner(
        house.ledger,
        house.packs,
        routes=ROUTES,
        drill_routes=(),
        send=lambda named: heard.append(len(house.rows(update))),
        parts=SMALL,
    )
    planner.plan(update)
    assert heard == [2, 4, 16, 64]
    rows = house.rows(update)
    assert {ref for ref, _ in rows} == people
    assert sorted(rows.values()) == [PENDING] * 63 + [("skipped", "shared_contact")]


def test_a_planner_that_ends_between_two_parts_is_followed_by_one_that_goes_on(
    house: House,
) -> None:
    people = crowd(house, 64)
    update = house.release("consumer")

    class Killed(Exception):
        pass

    def killed(named: object) -> None:
        raise Killed

    planner = Planner(
        house.ledger, house.packs, routes=ROUTES, drill_routes=(), send=killed, parts=SMALL
    )
    for _ in range(4):
        with pytest.raises(Killed):
            planner.plan(update)
    assert {ref for ref, _ in house.rows(update)} == people
    with house.ledger.read() as conn:
        assert updates.unplanned(conn) == []


def test_what_is_planned_while_its_audience_is_stopped_is_stopped_too(house: House) -> None:
    crowd(house, 6)
    update = house.release("consumer")
    with house.ledger.transaction() as work:
        updates.move_releases(
            work.conn, update, audiences=["consumer"], states=("released",), to="stopped", actor="t"
        )
        assert stops.stop(work.conn, update, ["consumer"]) == stops.Stopped(saved=0, left=0)
        planning = threading.Thread(target=house.planner().plan, args=(update,))
        planning.start()
        # It has read the release as it was, and waits for us to mark it.
        until(lambda: waiting(house.ledger), what="the planner's wait")
    planning.join()
    with house.ledger.transaction() as work:
        assert stops.align(work.conn).queued == ()
    states = {row[0] for row in house.rows(update).values()}
    assert states == {"stopped", "skipped"}


def waiting(ledger: Ledger) -> bool:
    """Whether a session of this database waits for a lock."""
    with ledger.read() as conn:
        row = conn.execute(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock')"
        ).fetchone()
    return row is not None and bool(row[0])


def test_a_newer_update_between_two_parts_is_the_one_that_people_hear(house: House) -> None:
    people = crowd(house, 64)
    older = house.release("consumer")
    newer: list[str] = []

    def send(named: object) -> None:
        if not newer:
            newer.append(house.plan("consumer"))

    planner = Planner(
        house.ledger, house.packs, routes=ROUTES, drill_routes=(), send=send, parts=SMALL
    )
    planner.plan(older)
    assert {ref for ref, _ in house.rows(older)} == people
    assert PENDING not in house.rows(older).values()
    assert sorted(house.rows(newer[0]).values()) == [PENDING] * 63 + [("skipped", "shared_contact")]


def test_few_of_many_are_planned_at_once(house: House) -> None:
    crowd(house, 45)
    for number in range(3):
        house.person(f"p{number}", "police", f"9{number}")
    update = house.release("police")
    house.planner(parts=SMALL).plan(update)
    assert set(house.rows(update)) == {("p0", "sms"), ("p1", "sms"), ("p2", "sms")}
    with house.ledger.read() as conn:
        assert conn.execute("SELECT vanguard_first FROM release").fetchall() == [(None,)]


@given(first=st.integers(1, 10**9), size=st.integers(1, 10**6), start=st.integers(0, 2**32 - 1))
def test_parts_lie_side_by_side_within_the_directory(first: int, size: int, start: int) -> None:
    directory, done = Span(first, first + size - 1), None
    sizes = []
    while (part := Parts().after(done, directory, start=start)) is not None:
        sizes.append(part.size)
        assert directory.first <= part.first <= part.last <= directory.last
        assert done is None or part.first == done.last + 1 or part.last == done.first - 1
        done = together(done, part)
    assert len(sizes) <= 3
    assert sum(sizes) == (0 if done is None else done.size) <= max(256, size // 4)

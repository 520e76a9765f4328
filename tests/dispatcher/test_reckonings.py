"""What was counted beforehand is what planning then does: for every audience, and in any phase."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dispatcher import wiring
from dispatcher.acts import NotFound
from dispatcher.embedded import Addresses
from dispatcher.figures import AudienceFigures, Figures, Worded
from dispatcher.incidents import Incident, NewIncident, NewUpdate
from dispatcher.ledger import incidents, reckonings, updates
from dispatcher.ledger.recipients import ContactRow, RecipientRow, importing
from dispatcher.planning import Planner, Route
from dispatcher.previews import Previews, worded
from dispatcher.reckoning import Reckoning, Typed
from dispatcher.security.rights import Actor, Scope
from dispatcher.settings import Settings
from dispatcher.wiring import Services
from tests.conftest import MASTER_KEY
from tests.dispatcher.http.conftest import Noted, recording

OWNER = Actor(id="owner", name="owner", scopes=frozenset(Scope))
OTHER = Actor(id="other", name="other", scopes=frozenset(Scope))

SEGMENTS = (
    "consumer", "consumer", "small_business", "enterprise", "employee", "care", "retail",
    "regulator", "media", "investor", "partner", "emergency_service",
)  # fmt: skip
ROUTES = (Route("twilio_sms", "sms", "phone"), Route("sendgrid_email", "email", "email"))
KINDS = ("phone", "email", "fcm_token", "inbox", "x_account")


@pytest.fixture
def services(stack: Addresses, database_url: str, tmp_path: Path) -> Iterator[Services]:
    """Everything on a database of this test's own; nothing is sent."""
    built = wiring.build(
        Settings.model_validate(
            {
                "database_url": database_url,
                "broker_url": stack.broker_url,
                "master_key": MASTER_KEY,
                "data_dir": tmp_path,
            }
        )
    )
    found = recording(built, Noted())
    yield found
    found.reckoning.close()
    found.ledger.close()


def store(services: Services, people: Sequence[RecipientRow]) -> None:
    with importing(services.ledger) as session:
        session.merge(people)


def person(
    ref: str,
    segment: str,
    *contacts: tuple[str, str],
    locale: str = "en",
    region: str = "US-TX",
    services: tuple[str, ...] = ("voice",),
    tags: tuple[str, ...] = (),
) -> RecipientRow:
    points = [ContactRow(kind, address.encode(), b"", "", "US") for kind, address in contacts]
    return RecipientRow(ref, b"", locale, segment, region, services, tags, b"", points)


def crowd(seed: int, size: int = 300) -> list[RecipientRow]:
    """People of all sorts: some share contacts, some have none, or none that serves them."""
    chance = Random(seed)
    return [
        person(
            f"p{number}",
            chance.choice(SEGMENTS),
            *(
                (kind, f"{kind}{chance.randrange(size)}")
                for kind in KINDS
                if chance.random() < 0.35
            ),
            locale=chance.choice(("en", "es", "ru", "ar", "ar-EG", "fr")),
            region=chance.choice(("US-TX", "US-TX-DAL", "US-CA", "NZ")),
            services=chance.choice((("voice",), ("voice", "sms"), ("broadband",))),
            tags=("firstnet",) if chance.random() < 0.05 else (),
        )
        for number in range(size)
    ]


def suppress(services: Services, seed: int, share: float = 0.15) -> None:
    chance = Random(seed)
    with services.ledger.transaction() as work:
        rows = work.conn.execute("SELECT kind, lookup FROM contact_point ORDER BY id").fetchall()
        for kind, lookup in rows:
            if chance.random() < share:
                work.conn.execute(
                    "INSERT INTO suppression (kind, lookup, hint, reason, source)"
                    " VALUES (%s, %s, '', 'stop', 'test')",
                    (kind, lookup),
                )


def fact(kind: str, **value: Any) -> dict[str, Any]:
    known = datetime.now(UTC) - timedelta(minutes=5)
    return {"kind": kind, "value": value, "source": "NOC", "known_at": known}


FACTS = [fact("emergency_calls", status="limited", use=["wifi_calling"])]
CAUSE = fact("cause", code="software")


def opened(services: Services, *, drill: bool = False, **said: Any) -> tuple[str, str]:
    """A draft of a new incident: the ids of incident and update."""
    new = NewIncident(
        title="t",
        severity="critical",
        services=("voice",),
        regions=("US-TX",),
        started_at=datetime.now(UTC) - timedelta(hours=1),
        drill=drill,
    )
    update = NewUpdate.model_validate({"phase": "investigating", "facts": FACTS} | said)
    with services.ledger.transaction() as work:
        done = services.updates.open(work, new, update, release="draft", actor=OWNER, force=True)
    return done.incident.id, done.update_id


def added(services: Services, incident: str, **said: Any) -> str:
    with services.ledger.transaction() as work:
        update = NewUpdate.model_validate({"facts": FACTS} | said)
        done = services.updates.add(work, incident, update, release="draft", actor=OWNER)
    return done.update_id


def counted(services: Services, update: str) -> Figures:
    return services.reckoning.soon(update).result(timeout=60).figures


def submit(services: Services, update: str) -> str:
    with services.ledger.transaction() as work:
        done = services.updates.submit(work, update, actor=OWNER)
    assert done.content_hash is not None
    return done.content_hash


def plan(services: Services, update: str) -> None:
    """Submit, approve, release and plan the whole update, as the desk and the workers do."""
    content = submit(services, update)
    for act in (services.releases.approve, services.releases.release):
        with services.ledger.transaction() as work:
            act(work, update, content_hash=content, audiences=None, actor=OTHER)
    services.planner.plan(update)


def accept(services: Services, update: str) -> None:
    """Everything pending was taken by its provider."""
    with services.ledger.transaction() as work:
        work.conn.execute(
            "UPDATE delivery SET state = 'accepted', accepted_at = now()"
            " WHERE update_id = %s AND state = 'pending'",
            (update,),
        )


MISSING = ("suppressed", "no_adapter", "no_message", "no_contact")


def planned(services: Services, update: str) -> dict[str, dict[str, Any]]:
    """What planning made, person by person in plain Python."""
    with services.ledger.read() as conn:
        rows = conn.execute(
            "SELECT b.audience, d.recipient_id, d.channel, m.locale, d.state, d.reason"
            " FROM delivery d JOIN batch b ON b.id = d.batch_id"
            " LEFT JOIN message m ON m.id = b.message_id WHERE d.update_id = %s",
            (update,),
        ).fetchall()
    people: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for audience, *row in rows:
        people[audience, row[0]].append(row[1:])
    found: dict[str, dict[str, Any]] = defaultdict(
        lambda: {"people": 0, "told": 0, "shared": 0, "spared": 0, "rows": Counter(),
                 "missed": Counter()}
    )  # fmt: skip
    for (audience, _), own in people.items():
        into = found[audience]
        reasons = {reason for _, _, _, reason in own}
        into["people"] += "other_audience" not in reasons
        told = any(state == "pending" for _, _, state, _ in own)
        into["told"] += told
        into["shared"] += "shared_contact" in reasons and not told
        into["spared"] += "not_told_before" in reasons
        into["rows"].update(
            (channel, locale) for channel, locale, state, _ in own if state == "pending"
        )
        if reasons <= set(MISSING):
            # The first of these is the reason that a person is told.
            into["missed"][min(reasons, key=MISSING.index)] += 1
    return found


def assert_same(found: Figures, made: dict[str, dict[str, Any]]) -> None:
    for its in found.audiences:
        want = made[its.audience]
        assert (its.people, its.told, its.shared, its.spared) == (
            want["people"], want["told"], want["shared"], want["spared"],
        ), its.audience  # fmt: skip
        assert Counter({each.reason: each.people for each in its.missed}) == want["missed"]
        by_channel: Counter[str] = Counter()
        for (channel, _), number in want["rows"].items():
            by_channel[channel] += number
        assert Counter(its.by_channel) == by_channel
    rows = {(m.audience, m.channel, m.locale): m.recipients for m in found.messages}
    for audience, want in made.items():
        for (channel, locale), number in want["rows"].items():
            assert rows[audience, channel, locale] == number
    assert found.rows == sum(sum(want["rows"].values()) for want in made.values())


def of(found: Figures, audience: str) -> AudienceFigures:
    its = found.of(audience)
    assert its is not None
    return its


def reckoner(services: Services, previews: Any, monotonic: Any = time.monotonic) -> Reckoning:
    """Counts by other previews, or by another clock."""
    return Reckoning(
        services.ledger,
        services.packs,
        services.renderer,
        previews,
        stating=services.updates.statement,
        rate=services.rate,
        granted=services.rate,
        price=lambda channel, sender: 0.01,
        monotonic=monotonic,
    )


@pytest.mark.parametrize("seed", [1, 2])
def test_a_draft_is_counted_as_planning_then_does(services: Services, seed: int) -> None:
    store(services, crowd(seed))
    suppress(services, seed)
    _, update = opened(services)
    before = counted(services, update)
    plan(services, update)
    made = planned(services, update)
    assert_same(before, made)
    # The crowd is of all sorts, or this proves nothing.
    assert len(made) > 8
    assert {reason for its in made.values() for reason in its["missed"]} >= {
        "suppressed", "no_contact",
    }  # fmt: skip
    assert sum(its["shared"] for its in made.values()) > 0


def test_what_was_submitted_is_counted_by_its_stored_messages(services: Services) -> None:
    store(services, crowd(3))
    _, update = opened(services)
    submit(services, update)
    with services.ledger.transaction() as work:
        # Not what rendering would say now: a segment more.
        work.conn.execute("UPDATE message SET units = units + 1 WHERE channel = 'sms'")
    more = counted(services, update)
    with services.ledger.transaction() as work:
        work.conn.execute("UPDATE message SET units = units - 1 WHERE channel = 'sms'")
    usual = counted(services, update)
    sms = sum(each.recipients for each in usual.messages if each.channel == "sms")
    assert sms > 0
    assert more.cost == pytest.approx(usual.cost + sms * 0.0083, abs=0.02)
    assert more.people == usual.people


def test_a_further_update_counts_as_planning_does(services: Services) -> None:
    store(services, crowd(4))
    incident, first = opened(services, audiences=["consumers", "enterprise"])
    plan(services, first)
    accept(services, first)
    store(services, [person(f"new{n}", "consumer", ("phone", f"new{n}")) for n in range(5)])
    second = added(services, incident, phase="resolved")
    before = counted(services, second)
    plan(services, second)
    assert_same(before, planned(services, second))
    # Nobody but those two audiences was told, and the five are new: all others are spared.
    assert of(before, "consumers").spared >= 5
    assert of(before, "employees").told == 0 < of(before, "employees").spared


def test_a_correction_counts_exactly_who_got_the_withdrawn_fact(services: Services) -> None:
    store(services, crowd(5))
    incident, first = opened(
        services, phase="identified", facts=[*FACTS, CAUSE], audiences=["consumers", "media"]
    )
    plan(services, first)
    accept(services, first)
    with services.ledger.read() as conn:
        cause = next(f for f in incidents.facts(conn, incident) if f.kind == "cause")
        got = {
            row[0]
            for row in conn.execute(
                "SELECT DISTINCT d.recipient_id FROM delivery d JOIN batch b ON b.id = d.batch_id"
                " JOIN message m ON m.id = b.message_id"
                " WHERE d.state = 'accepted' AND %s::uuid = ANY(m.facts)",
                (cause.id,),
            ).fetchall()
        }
    second = added(services, incident, phase="correction", facts=[], withdraws=[cause.id])
    before = counted(services, second)
    plan(services, second)
    assert_same(before, planned(services, second))
    assert before.people == len(got) > 0


def test_a_drill_counts_its_own_adapters(services: Services) -> None:
    store(services, crowd(6, 120))
    _, update = opened(services, drill=True)
    assert counted(services, update).people > 0
    planner = Planner(
        services.ledger, services.packs, routes=ROUTES, drill_routes=(), send=lambda batches: None
    )
    previews = Previews(
        services.ledger,
        services.packs,
        services.renderer,
        planner,
        rate=services.rate,
        price=lambda channel, sender: 0.0,
    )
    without = replace(services, planner=planner, reckoning=reckoner(services, previews))
    before = counted(without, update)
    without.reckoning.close()
    plan(without, update)
    assert before.people == 0
    assert {each.reason for each in before.missed()} == {"no_adapter", "no_contact"}
    assert_same(before, planned(without, update))


def test_time_is_the_providers_and_a_rule_says_whether_it_is_in_time(services: Services) -> None:
    # A US short code sends ten segments a second; the sandbox 20,000.
    store(services, [person(f"c{n}", "consumer", ("phone", f"{n}")) for n in range(40)])
    _, update = opened(services)
    its = of(counted(services, update), "consumers")
    segments = 40 * next(
        each.units
        for each in drafted_words(services, update)
        if (each.audience, each.channel, each.locale) == ("consumers", "sms", "en")
    )
    assert its.seconds == pytest.approx(segments / 10, abs=0.1)
    assert its.here_seconds < its.seconds
    assert (its.reach_by, its.in_time) == (7200.0, True)
    assert replace(its, seconds=7200.1).in_time is False
    assert replace(its, told=0).in_time is None


def drafted_words(services: Services, update: str) -> tuple[Worded, ...]:
    with services.ledger.read() as conn:
        row = updates.get(conn, update)
        assert row is not None
        about = incidents.get(conn, row.incident_id)
        assert about is not None
        said = services.updates.statement(conn, about, row)
    return worded(services.renderer.render_all(said, row.audiences))


def test_a_count_is_kept_with_its_revision(services: Services) -> None:
    store(services, crowd(7, 60))
    _, update = opened(services)
    assert known(services, update) is None
    first = services.reckoning.soon(update).result(timeout=60)
    kept = known(services, update)
    assert (first.revision, kept) == (1, first)
    with services.ledger.transaction() as work:
        services.updates.revise(
            work,
            update,
            NewUpdate.model_validate(
                {"phase": "investigating", "facts": FACTS, "audiences": ["consumers"]}
            ),
            revision=1,
            actor=OWNER,
        )
    assert known(services, update) == first
    second = services.reckoning.soon(update, 2).result(timeout=60)
    assert second.revision == 2
    assert [each.audience for each in second.figures.audiences] == ["consumers"]
    with services.ledger.transaction() as work:
        # One that began before and ends after changes nothing.
        reckonings.put(work.conn, update, 1, {})
    assert known(services, update) == second


def known(services: Services, update: str) -> Any:
    with services.ledger.read() as conn:
        return services.reckoning.known(conn, update)


def test_counts_follow_one_another_and_the_same_is_joined(services: Services) -> None:
    _, one = opened(services)
    _, two = opened(services)
    begun, let = threading.Event(), threading.Event()
    counting: list[str] = []
    inside: list[int] = [0]
    count = services.previews.count

    class Slow:
        """Counts, but not before it is let."""

        def count(self, conn: Any, incident: Incident, **more: Any) -> Any:
            inside[0] += 1
            assert inside[0] == 1
            counting.append(incident.id)
            begun.set()
            assert let.wait(30)
            inside[0] -= 1
            return count(conn, incident, **more)

    reckoning = reckoner(services, Slow())
    first = reckoning.soon(one)
    assert begun.wait(30)
    joined, other, waits = reckoning.soon(one), reckoning.soon(two), reckoning.soon(two)
    newer = reckoning.soon(one, 2)
    assert joined is first
    assert waits is other
    assert newer is not first
    let.set()
    wait([first, other, newer], timeout=30)
    assert len(counting) == 3
    assert reckoning.soon(one) is not first
    reckoning.close()


def test_an_update_that_is_not_there_is_told_and_the_next_is_counted(services: Services) -> None:
    with pytest.raises(NotFound):
        counted(services, "01980000-0000-7000-8000-000000000000")
    _, update = opened(services)
    assert counted(services, update).people == 0


def test_what_is_typed_is_counted_once_for_the_same_people(services: Services) -> None:
    store(services, [person(f"c{n}", "consumer", ("phone", f"{n}")) for n in range(10)])
    clock = [100.0]
    reckoning = reckoner(services, services.previews, lambda: clock[0])
    about = NewIncident(
        title="t",
        severity="major",
        services=("voice",),
        started_at=datetime.now(UTC) - timedelta(hours=1),
    )
    asked = Typed(
        incident=about,
        incident_id=None,
        update=NewUpdate(phase="investigating"),
        worded=(Worded("consumers", "sms", "en", 1),),
    )
    plain = reckoning.typed(asked).result(timeout=60)
    assert (plain.people, plain.rows) == (10, 10)
    store(services, [person("late", "consumer", ("phone", "late"))])
    dearer = replace(asked, worded=(Worded("consumers", "sms", "en", 3),))
    again = reckoning.typed(dearer).result(timeout=60)
    # The people are remembered, what it costs to tell them is not.
    assert (plain.cost, again.people, again.cost) == (0.1, 10, 0.3)
    clock[0] += 60
    assert reckoning.typed(dearer).result(timeout=60).people == 11
    other = replace(asked, incident=about.model_copy(update={"services": ("landline",)}))
    assert reckoning.typed(other).result(timeout=60).people == 0
    reckoning.close()

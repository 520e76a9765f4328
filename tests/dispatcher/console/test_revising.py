"""An update that is written over until it is released, and what its facts mean meanwhile."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.acts import Conflict, Invalid, Stale
from dispatcher.incidents import FactKind, NewIncident, NewUpdate
from dispatcher.ledger import incidents, updates
from dispatcher.ledger.people import PersonRow
from tests.dispatcher.console.conftest import Console
from tests.dispatcher.console.test_approving import CALLS_LIMITED, acting, drafted, fact


@pytest.fixture
def author(console: Console) -> PersonRow:
    return console.person("author", "Ada Author")


class Desk:
    """Short for what the tests do to updates, each in a transaction of its own."""

    def __init__(self, console: Console, author: PersonRow) -> None:
        self.services = console.services
        self.actor = acting(author)

    def incident_of(self, update: str) -> str:
        with self.services.ledger.read() as conn:
            row = updates.get(conn, update)
        assert row is not None
        return row.incident_id

    def revise(self, update: str, revision: int, *facts: dict[str, Any], **more: Any) -> None:
        incident = more.pop("incident", None)
        new = NewUpdate.model_validate(
            {"phase": "investigating", "facts": [CALLS_LIMITED, *facts]} | more
        )
        with self.services.ledger.transaction() as work:
            self.services.updates.revise(
                work, update, new, revision=revision, actor=self.actor, incident=incident
            )

    def submit(self, update: str, release: Any = "on_approval") -> None:
        with self.services.ledger.transaction() as work:
            self.services.updates.submit(work, update, actor=self.actor, release=release)

    def add(self, incident: str, release: Any = "draft", **update: Any) -> str:
        with self.services.ledger.transaction() as work:
            outcome = self.services.updates.add(
                work,
                incident,
                NewUpdate.model_validate({"phase": "identified"} | update),
                release=release,
                actor=self.actor,
            )
        return outcome.update_id

    def said(self, update: str) -> dict[FactKind, Any]:
        """The values of the facts that this update speaks of."""
        with self.services.ledger.read() as conn:
            row = updates.get(conn, update)
            assert row is not None
            incident = incidents.get(conn, row.incident_id)
            assert incident is not None
            statement = self.services.updates.statement(conn, incident, row)
        return {kind: each.stated.value for kind, each in statement.facts.items()}

    def facts_of(self, update: str) -> dict[str, str]:
        """Kinds of what this update states, with the facts' ids."""
        with self.services.ledger.read() as conn:
            found = incidents.facts(conn, self.incident_of(update))
        return {each.kind.value: each.id for each in found if each.update_id == update}


@pytest.fixture
def desk(console: Console, author: PersonRow) -> Desk:
    return Desk(console, author)


def test_who_looked_at_an_older_revision_overwrites_nothing(
    console: Console, author: PersonRow, desk: Desk
) -> None:
    update = drafted(console, author)
    desk.revise(update, 1, fact("scope", count=10, basis="estimated"))
    with pytest.raises(Stale) as refused:
        desk.revise(update, 1, fact("scope", count=99, basis="estimated"))
    assert refused.value.revision == 2
    assert desk.said(update)[FactKind.SCOPE].count == 10


def test_a_revision_states_its_own_facts_and_no_more(
    console: Console, author: PersonRow, desk: Desk
) -> None:
    update = drafted(console, author, facts=[CALLS_LIMITED, fact("cause", code="power")])
    desk.revise(update, 1, audiences=["public", "media"])
    assert set(desk.said(update)) == {FactKind.EMERGENCY_CALLS}
    with console.services.ledger.read() as conn:
        rows = updates.releases(conn, update)
    assert [(row.audience, row.state) for row in rows] == [("media", "draft"), ("public", "draft")]


def test_another_update_says_nothing_of_what_nobody_has_let_go(
    console: Console, author: PersonRow, desk: Desk
) -> None:
    first = drafted(console, author, facts=[CALLS_LIMITED, fact("cause", code="cyberattack")])
    second = desk.add(desk.incident_of(first), facts=[CALLS_LIMITED])
    assert FactKind.CAUSE not in desk.said(second)
    desk.submit(first)
    assert FactKind.CAUSE not in desk.said(second)
    desk.submit(first, "now")
    assert FactKind.CAUSE in desk.said(second)


def test_a_correction_takes_nothing_back_until_it_is_released(
    console: Console, author: PersonRow, desk: Desk
) -> None:
    first = drafted(console, author, facts=[CALLS_LIMITED, fact("cause", code="power")])
    desk.submit(first, "now")
    incident = desk.incident_of(first)
    cause = desk.facts_of(first)["cause"]
    correction = {"phase": "correction", "withdraws": [cause], "facts": [CALLS_LIMITED]}
    one = desk.add(incident, **correction)
    other = desk.add(incident, **correction)
    later = desk.add(incident, facts=[CALLS_LIMITED])
    assert FactKind.CAUSE not in desk.said(one)
    desk.submit(one)
    desk.submit(other)
    assert FactKind.CAUSE in desk.said(later)
    approver = acting(console.person("approver"))
    with console.services.ledger.transaction() as work:
        row = updates.get(work.conn, one)
        assert row is not None and row.content_hash is not None
        console.services.releases.approve(
            work, one, content_hash=row.content_hash, audiences=None, actor=approver
        )
    assert FactKind.CAUSE not in desk.said(later)
    with pytest.raises(Invalid):
        desk.add(incident, **correction)


def test_what_was_released_is_not_written_over(
    console: Console, author: PersonRow, desk: Desk
) -> None:
    update = drafted(console, author)
    desk.submit(update, "now")
    with pytest.raises(Conflict) as refused:
        desk.revise(update, 1)
    assert refused.value.code == "released"


def test_the_incident_is_amended_until_somebody_was_told(
    console: Console, author: PersonRow, desk: Desk
) -> None:
    update = drafted(console, author)
    incident = NewIncident(
        title="Voice and text are down",
        severity="major",
        services=("voice", "sms"),
        regions=("US",),
        started_at=datetime.now(UTC) - timedelta(hours=2),
        drill=True,
    )
    desk.revise(update, 1, incident=incident)
    with console.services.ledger.read() as conn:
        found = incidents.get(conn, desk.incident_of(update))
    assert found is not None
    assert (found.services, found.severity, found.drill) == (("voice", "sms"), "major", False)
    desk.submit(update, "now")
    second = desk.add(found.id, facts=[CALLS_LIMITED])
    with pytest.raises(Conflict) as refused:
        desk.revise(second, 1, incident=incident.model_copy(update={"regions": ("NZ",)}))
    assert refused.value.code == "told"


def test_audiences_that_wait_are_withdrawn_while_others_are_told(
    console: Console, author: PersonRow, desk: Desk
) -> None:
    update = drafted(console, author)
    desk.submit(update, "now")
    with console.services.ledger.read() as conn:
        held = [r.audience for r in updates.releases(conn, update) if r.state == "submitted"]
    assert held
    with console.services.ledger.transaction() as work:
        console.services.releases.withdraw(work, update, actor=desk.actor, audiences=held)
    with console.services.ledger.read() as conn:
        rows = {row.audience: row.state for row in updates.releases(conn, update)}
        whole = updates.get(conn, update)
    assert {rows[name] for name in held} == {"withdrawn"}
    assert "released" in rows.values()
    assert whole is not None and whole.withdrawn_at is None


def test_what_was_stopped_before_anything_left_has_promised_nothing(
    console: Console, author: PersonRow, desk: Desk
) -> None:
    soon, later = (datetime.now(UTC) + timedelta(minutes=minutes) for minutes in (30, 90))
    first = drafted(console, author, next_update_at=soon)
    desk.submit(first, "now")
    incident = desk.incident_of(first)
    second = desk.add(incident, facts=[CALLS_LIMITED], next_update_at=later, release="now")
    with console.services.ledger.transaction() as work:
        assert updates.promised(work.conn, incident) == updates.Promise(later, second)
        console.services.releases.stop(work, second, audiences=None, actor=desk.actor)
        assert updates.promised(work.conn, incident) == updates.Promise(soon, first)

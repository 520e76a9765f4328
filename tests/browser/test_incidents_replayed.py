"""Two real incidents, typed step by step through the console's forms and told to a directory.

Each step is what was known then, written by an author and let go by an approver where the
packs, or a claim in it, want one. The simulators' record is the judge.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from dispatcher.acts import find_incident
from dispatcher.console.forms import fill
from dispatcher.demo import scenario
from dispatcher.demo.people import people, spark_people
from dispatcher.demo.scenario import Scenario, Step, rebase, told_at
from dispatcher.incidents import NewFact, NewUpdate, Phase
from dispatcher.ledger import incidents, updates
from dispatcher.security.rights import Role
from tests.browser.acts import NOW, ago, approve, complete, fill_form, submit, zone_of
from tests.browser.conftest import Staff
from tests.browser.desk import STAFF, Desk, Desks, Watch, employ
from tests.stories.house import HAVE_IT, PROVIDERS, House, living

CROWD = 150


class Typist:
    """Plays a scenario by hand."""

    def __init__(self, told: Scenario, house: House, author: Desk, approver: Desk) -> None:
        self.told = rebase(told, ago(minutes=0))
        self.house, self.author, self.approver = house, author, approver
        self.reference = ""
        self.fact_ids: dict[str, str] = {}
        self.updates: list[str] = []

    def play(self, step: Step) -> str:
        """Write a step, let it go, and watch until everybody has it; returns the update."""
        step = told_at(self.told, step, ago(minutes=0))
        update = step.update(self.fact_ids)
        written = self._write(update)
        self._let_go(written)
        complete(self.author, written)
        self._learn(step, written)
        self.updates.append(written)
        return written

    def _write(self, update: NewUpdate) -> str:
        opening = not self.reference
        path = "/incidents/new" if opening else f"/incidents/{self.reference}/updates/new"
        page = self.author.open(path)
        filled = fill(
            self.told.incident if opening else None,
            update,
            zone=zone_of(self.author),
            audiences=list(self.house.services.packs.audiences),
        )
        said: dict[str, list[str | datetime]] = {n: list(filled.all(n)) for n in filled.names()}
        if opening:
            # Ticked on an empty form: the start may be told otherwise.
            said.setdefault("started.same", [])
        fill_form(self.author, said)
        self.author.press("Save draft")
        page.wait_for_url("**/updates/*")
        return self.author.update_id()

    def _let_go(self, update: str) -> None:
        page = self.author.page
        if page.get_by_role("radio", name=NOW, exact=True).count():
            submit(self.author, update, when=NOW)
        else:
            submit(self.author, update)
        self.approver.open(f"/updates/{update}")
        if self.approver.button("Approve and send").count():
            approve(self.approver, update)

    def _learn(self, step: Step, update: str) -> None:
        """The ledger's ids of what was stated; and that it is what the scenario states."""
        with self.house.services.ledger.read() as conn:
            row = updates.get(conn, update)
            assert row is not None
            incident = find_incident(conn, row.incident_id)
            known = incidents.facts(conn, incident.id)
        self.reference = incident.reference
        own = {fact.kind: fact for fact in known if fact.update_id == update}
        assert len(own) == len(step.facts)
        for stated in step.facts:
            kept = own[stated.fact.kind]
            assert _unordered(kept.stated) == _unordered(stated.fact), stated.ref
            self.fact_ids[stated.ref] = kept.id


def _unordered(fact: NewFact) -> NewFact:
    """The same with the audiences it is for in one order: a form offers them in its own."""
    named = tuple(sorted(fact.audiences)) if fact.audiences else None
    return fact.model_copy(update={"audiences": named})


def test_att(house: House, staff: Staff, desks: Desks) -> None:
    """Nine updates of February 2024, each told to the end, with nothing lost and nothing twice."""
    house.people(people(CROWD))
    author, approver = desks(staff[Role.AUTHOR]), desks(staff[Role.APPROVER])
    typist = Typist(scenario.load("att-2024"), house, author, approver)
    for step in typist.told.steps:
        typist.play(step)
    rows = [row for update in typist.updates for row in house.rows(update)]
    states = Counter(row["state"] for row in rows)
    assert states["accepted"] > CROWD
    assert set(states) <= {"accepted", "delivered", "skipped", "spared", "superseded"}
    # Every message that a simulator took is one row's, and every row's is there.
    posted = Counter((entry["provider"], entry["ref"]) for entry in house.sandbox.outbox())
    taken = [row for row in rows if row["state"] in HAVE_IT and row["adapter"] in PROVIDERS]
    assert posted == Counter((PROVIDERS[row["adapter"]], row["ref"]) for row in taken)


@pytest.fixture
def harakeke(tmp_path: Path, browser: Browser, watch: Watch) -> Iterator[tuple[House, Desks]]:
    """The New Zealand operator's own installation."""
    with living(tmp_path / "house", overlay=scenario.load("spark-2014").overlay) as house:
        with house.services.ledger.transaction() as work:
            for who in STAFF.values():
                employ(work, who)
        opened = Desks(browser, str(house.operator.http.base_url), watch)
        yield house, opened
        opened.close()


def test_spark(harakeke: tuple[House, Desks]) -> None:
    """The correction reaches exactly those who were told of malware, at the same addresses."""
    house, desks = harakeke
    house.people(spark_people(CROWD))
    author, approver = desks(STAFF[Role.AUTHOR]), desks(STAFF[Role.APPROVER])
    typist = Typist(scenario.load("spark-2014"), house, author, approver)
    words = malware_words(house)
    told_malware: set[Place] = set()
    corrected: set[Place] = set()
    for step in typist.told.steps:
        before = Counter(arrived(house))
        typist.play(step)
        new = list((Counter(arrived(house)) - before).elements())
        if step.phase is Phase.CORRECTION:
            corrected = {place for place, _ in new}
            assert len(new) == len(corrected)
        elif not corrected:
            told_malware |= {place for place, text in new if any(w in text for w in words)}
    assert corrected == told_malware
    assert 0 < len(corrected) < len({place for place, _ in arrived(house)})


Place = tuple[str, str]


def arrived(house: House) -> list[tuple[Place, str]]:
    """Every message that anybody holds: where, and its text."""
    posted = [
        ((entry["provider"], entry["address"]), " ".join(entry["content"].values()))
        for entry in house.sandbox.outbox()
    ]
    inboxes = house.sql("SELECT encode(inbox, 'hex'), title || ' ' || body FROM inbox_message")
    return [*posted, *((("inbox", inbox), text) for inbox, text in inboxes)]


def malware_words(house: House) -> list[str]:
    """What the withdrawn cause is called, in every language."""
    renderer = house.services.renderer
    tables = [renderer.words[locale].tables for locale in renderer.words]
    return [t[name]["customer_malware"] for t in tables for name in ("causes", "causes_short")]

"""The account afterwards: timeline, report, score; and what is printed for the counter."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any

import pytest

from dispatcher.acts import Outcome
from dispatcher.console.board import Board
from dispatcher.incidents import NewIncident, NewUpdate
from dispatcher.ledger.people import PersonRow
from dispatcher.security.rights import ROLE_SCOPES, Actor
from tests.dispatcher.console.conftest import Console
from tests.dispatcher.ledger.crowded import Some, filled


def ago(minutes: float) -> datetime:
    return datetime.now(UTC) - timedelta(minutes=minutes)


def fact(kind: str, *, confidence: str = "confirmed", **value: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "value": value,
        "confidence": confidence,
        "source": "NOC",
        "known_at": ago(50),
    }


LIMITED = fact("emergency_calls", status="limited", use=["wifi_calling"])
CAUSE = fact("cause", confidence="believed", code="network_change")
SCOPE = fact("scope", count=74_000, basis="measured")


@dataclass(frozen=True)
class Desk:
    """An incident at the console, and whoever writes and lets go."""

    console: Console
    person: PersonRow
    ref: str
    incident: str
    first: Outcome

    @property
    def actor(self) -> Actor:
        return acting(self.person)

    def add(self, **update: Any) -> Outcome:
        with self.console.services.ledger.transaction() as work:
            return self.console.services.updates.add(
                work,
                self.incident,
                NewUpdate.model_validate(update),
                release="now",
                actor=self.actor,
            )

    def approve(self, outcome: Outcome) -> None:
        """Somebody else lets it go."""
        assert outcome.content_hash is not None
        with self.console.services.ledger.transaction() as work:
            self.console.services.releases.approve(
                work,
                outcome.update_id,
                content_hash=outcome.content_hash,
                audiences=None,
                actor=acting(self.console.person("approver", "Ben Approver")),
            )

    def tell(self, outcome: Outcome, *rows: Some, began: float = 40, took: float = 10) -> None:
        """As if these had been planned and sent, from `began` minutes ago for `took` minutes."""
        filled(
            self.console.services.ledger,
            outcome.update_id,
            rows,
            began=ago(began),
            took=timedelta(minutes=took),
        )

    def count(self) -> None:
        """Have the people of the first update counted, so that no page comes before it."""
        mounted: Any = next(
            route for route in self.console.app.routes if getattr(route, "name", "") == "console"
        )
        board: Board = mounted.app.state.board
        with self.console.services.ledger.read() as conn:
            view = board.view(conn, self.first.update_id)
        board.tallies.known(self.first.update_id, view.counts, patience=30.0)

    def page(self, name: str, *, role: str = "viewer", status: int = 200) -> str:
        answer = self.console.browser(role).get(f"/incidents/{self.ref}/{name}")
        assert answer.status_code == status, answer.text
        return answer.text


def acting(person: PersonRow) -> Actor:
    return Actor(id=person.actor_id, name=person.name, scopes=ROLE_SCOPES[person.role])


def desk(console: Console, *facts: dict[str, Any], drill: bool = False, **update: Any) -> Desk:
    """An incident whose first update has gone to all that need no approval."""
    person = console.person("admin", "Ada Admin")
    incident = NewIncident(
        title="Voice is down",
        severity="critical",
        services=("voice",),
        regions=("US-TX",),
        started_at=ago(70),
        drill=drill,
    )
    said = {"phase": "investigating", "facts": [LIMITED, *facts], **update}
    with console.services.ledger.transaction() as work:
        outcome = console.services.updates.open(
            work,
            incident,
            NewUpdate.model_validate(said),
            release="now",
            actor=acting(person),
            force=True,
        )
        work.conn.execute("UPDATE incident SET created_at = %s", (ago(60),))
    return Desk(console, person, outcome.incident.reference, outcome.incident.id, outcome)


def text(page: str) -> str:
    """What is read on a page."""
    body = re.sub(r"<(script|style|head)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", body).split()))


TOLD = (
    Some("consumers", "push", "accepted", 1, 90),
    Some("consumers", "push", "failed", 91, 93, "unregistered"),
    Some("regulators", "email", "delivered", 1, 4),
    Some("care-and-retail", "email", "accepted", 1, 5),
)


# --- the timeline -----------------------------------------------------------------------


def test_the_timeline_tells_what_was_known_and_said(console: Console) -> None:
    at = desk(console, CAUSE)
    at.tell(at.first, *TOLD)
    said = text(at.page("timeline"))
    for words in (
        "Known: Cause, believed network change Source: NOC Stated in update 1 (investigating)",
        "First told: update 1 (investigating) Consumers 90 messages in all: 90 by push",
        "Last one told: update 1 (investigating) Consumers 90 messages accepted in 10 min",
        "Incident opened by Ada Admin",
    ):
        assert words in said, words


def test_the_timeline_of_one_audience_leaves_the_others_out(console: Console) -> None:
    at = desk(console)
    at.tell(at.first, *TOLD)
    page = at.page("timeline?audience=regulators")
    said = text(page[page.index("In order") :])
    assert "First told: update 1 (investigating) Regulators" in said
    assert "First told: update 1 (investigating) Consumers" not in said
    assert "Incident opened" in said


def test_a_long_timeline_has_pages(console: Console) -> None:
    at = desk(console)
    with console.services.ledger.read() as conn:
        conn.execute(
            "INSERT INTO audit (actor, act, incident_id) SELECT 'owner', 'test.' || n, %s"
            " FROM generate_series(1, 230) n",
            (at.incident,),
        )
    first = at.page("timeline")
    assert len(first.encode()) < 100_000
    assert re.search(r'start=100">Later<', first) and ">Earlier<" not in first
    last = at.page("timeline?start=200")
    assert ">Earlier<" in last and ">Later<" not in last and "test 230" in text(last)


def test_break_glass_and_a_missed_promise_are_red(console: Console) -> None:
    promised = datetime.now(UTC) + timedelta(minutes=9)
    at = desk(console, next_update_at=promised)
    with console.services.ledger.transaction() as work:
        console.services.releases.release(
            work,
            at.first.update_id,
            content_hash=at.first.content_hash or "",
            audiences=["investors"],
            actor=at.actor,
        )
        work.conn.execute("UPDATE incident_update SET next_update_at = %s", (ago(5),))
    at.tell(at.first, *TOLD)
    page = at.page("timeline")
    red = [text(found) for found in re.findall(r'<h3 class="bad">(.*?)</h3>', page)]
    assert any(each.startswith("Break-glass: update 1") for each in red)
    assert any(each.startswith("Promised update missed: update 1") for each in red)


# --- the report -------------------------------------------------------------------------


def test_the_report_is_one_file_that_needs_nothing_else(console: Console) -> None:
    at = desk(console, CAUSE)
    at.tell(at.first, *TOLD)
    answer = console.browser("viewer").get(f"/incidents/{at.ref}/report")
    assert answer.headers["content-disposition"] == f'attachment; filename="{at.ref}-report.html"'
    page = answer.text
    assert page.lstrip().startswith("<!doctype html>")
    # Nothing is fetched, run or sent by it: no address in it leads anywhere but into itself.
    for wrong in ("<script", "<link", "<img", "<iframe", "<form", "@import", "url(", " src="):
        assert wrong not in page, wrong
    links = set(re.findall(r'href="([^"]*)"', page))
    assert links and all(link.startswith("#") for link in links)
    for link in links:
        assert f'id="{link[1:]}"' in page
    assert '<svg class="chart"' in page and '<html lang="en">' in page


def test_the_report_holds_the_words_as_sent_with_their_hashes(console: Console) -> None:
    at = desk(console, CAUSE)
    at.tell(at.first, *TOLD)
    said = at.page("report")
    sent = console.rows(
        "SELECT DISTINCT m.hash, m.parts - 'html' FROM message m JOIN batch b"
        " ON b.message_id = m.id WHERE b.accepted + b.delivered > 0"
    )
    assert len(sent) == 3
    for digest, parts in sent:
        assert digest in said
        for words in parts.values():
            assert words in unescape(said)
    # What was released and reached nobody is not among the words as sent.
    (silent,) = console.rows(
        "SELECT hash FROM message WHERE audience = 'consumers' AND channel = 'sms'"
        " AND locale = 'ar'"
    )
    assert silent[0] not in said
    assert at.first.content_hash is not None and at.first.content_hash in said


def test_the_report_tells_people_times_and_zones(console: Console) -> None:
    at = desk(console)
    at.tell(at.first, *TOLD)
    at.count()
    said = text(at.page("report"))
    assert "Times are those of America/Chicago, with UTC in brackets" in said
    assert re.search(r"Opened here \w+ \d+ \w+ \d+, \d\d:\d\d:\d\d C[SD]T \(", said)
    assert "Update 1 (investigating) Consumers 93 90 0 0 0 3" in said
    assert "3 by Push: The app is no longer on the device" in said


def test_the_report_of_a_drill_says_so_and_is_scored(console: Console) -> None:
    at = desk(console, drill=True)
    at.tell(at.first, *TOLD)
    answer = console.browser("viewer").get(f"/incidents/{at.ref}/report")
    assert f'filename="{at.ref}-drill-report.html"' in answer.headers["content-disposition"]
    said = text(answer.text)
    assert "DRILL. An exercise: nobody outside was told anything." in said
    assert re.search(r"Score: \d+ of 100", said)


# --- the score --------------------------------------------------------------------------


def test_a_drill_is_scored_by_audience(console: Console) -> None:
    at = desk(console, drill=True)
    at.tell(at.first, *TOLD, began=50, took=5)
    at.count()
    said = text(at.page("score"))
    # Ten minutes to the first word, all by the quarter of an hour: only people were missed.
    assert "Consumers" in said and "told 90 of 93 times, each person once per update" in said
    assert "100% of the first update's messages left within 2 h of the opening" in said
    assert re.search(r"Regulators and agencies \d+ of 100 10 min", said)


def test_what_is_no_drill_has_no_score(console: Console) -> None:
    at = desk(console)
    at.page("score", status=404)


def test_an_incident_of_which_nobody_heard_can_be_recounted(console: Console) -> None:
    at = desk(console, drill=True)
    assert "Nobody has been told" in text(at.page("timeline"))
    assert "Nobody has been told anything yet" in text(at.page("score"))
    assert "Nobody was told anything" in text(at.page("report"))


# --- notice and brief -------------------------------------------------------------------


def test_the_notice_shows_the_released_words_in_the_chosen_languages(console: Console) -> None:
    at = desk(console, SCOPE)
    # Released is not told.
    assert "no message has left" in text(at.page("notice"))
    at.tell(at.first, *TOLD)
    page = at.page("notice?lang=en&lang=ar")
    sheets = re.findall(r'<article class="sheet[^"]*" lang="(\w+)" dir="(\w+)">', page)
    assert sorted(sheets) == [("ar", "rtl"), ("en", "ltr")]
    ((subject,),) = console.rows(
        "SELECT parts ->> 'subject' FROM message WHERE audience = 'consumers'"
        " AND channel = 'email' AND locale = 'ar'"
    )
    assert subject in unescape(page)
    # What is filled in for each person has no place on a door.
    assert "[[" not in page
    default = at.page("notice")
    assert re.findall(r'<article class="sheet[^"]*" lang="(\w+)"', default) == ["en"]


def test_a_notice_is_not_printed_once_its_words_were_taken_back(console: Console) -> None:
    at = desk(console, CAUSE)
    at.tell(at.first, *TOLD)
    ((cause,),) = console.rows("SELECT id::text FROM fact WHERE stated ->> 'kind' = 'cause'")
    assert "<article" in at.page("notice")
    at.approve(at.add(phase="correction", withdraws=[cause], audiences=["media"]))
    page = at.page("notice")
    ((carries,),) = console.rows(
        "SELECT bool_or(%s::uuid = ANY(facts)) FROM message WHERE audience = 'consumers'"
        " AND update_id = %s",
        cause,
        at.first.update_id,
    )
    assert carries
    assert "<article" not in page and "Do not print or show an earlier notice" in page


def test_a_notice_of_what_was_not_released_is_empty(console: Console) -> None:
    at = desk(console, audiences=["investors"])
    page = at.page("notice")
    assert "<article" not in page and "Nothing to print yet." in page
    assert "Nothing to print yet." in at.page("brief")


def test_the_brief_tells_what_is_known_believed_unknown_and_not_to_be_said(
    console: Console,
) -> None:
    at = desk(console, CAUSE, SCOPE)
    assert "Nothing to print yet." in at.page("brief")
    at.tell(at.first, *TOLD)
    said = text(at.page("brief"))
    parts = re.split(
        r"(Emergency calls: 911|What we know|What we believe, and may change|"
        r"What we do not know yet|What you may say|What you must not say|If they ask|"
        r"As it was sent to you)",
        said,
    )
    told = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert "74,000" in told["What we know"] and "change" not in told["What we know"]
    assert "network" in told["What we believe, and may change"]
    assert "The cause" in told["What we do not know yet"]
    assert "Do not guess the cause" in told["What you must not say"]
    assert "911" in told["Emergency calls: 911"]
    assert "What caused it?" in told["If they ask"]


def test_the_brief_leaves_out_what_was_not_released_to_the_counter(console: Console) -> None:
    at = desk(console)
    at.tell(at.first, *TOLD)
    with console.services.ledger.transaction() as work:
        console.services.updates.add(
            work,
            at.incident,
            NewUpdate.model_validate({"phase": "identified", "facts": [SCOPE]}),
            release="draft",
            actor=at.actor,
        )
    assert "74,000" not in at.page("brief")
    at.add(phase="identified", facts=[SCOPE], audiences=["media"])
    assert "74,000" not in at.page("brief")
    last = at.add(phase="identified", facts=[SCOPE])
    assert "74,000" not in at.page("brief")
    at.tell(last, Some("care-and-retail", "email", "accepted", 1, 5))
    assert "74,000" in at.page("brief")


def stop(at: Desk, outcome: Outcome, audience: str) -> None:
    with at.console.services.ledger.transaction() as work:
        work.conn.execute(
            "UPDATE release SET state = 'stopped', stopped_by = 'key:x', stopped_at = now()"
            " WHERE update_id = %s AND audience = %s",
            (outcome.update_id, audience),
        )


def test_what_was_stopped_before_a_message_left_is_not_printed(console: Console) -> None:
    at = desk(console)
    at.tell(at.first, *TOLD)
    last = at.add(phase="identified", facts=[SCOPE])
    at.tell(
        last,
        Some("consumers", "push", "stopped", 1, 90),
        Some("care-and-retail", "email", "stopped", 1, 5),
    )
    for audience in ("consumers", "care-and-retail"):
        stop(at, last, audience)
    for name in ("notice", "brief"):
        page = at.page(name)
        assert "<article" in page and "74,000" not in page, name
        assert "Update 2 is newer, but no message of it has left" in text(page), name
    assert "The words of update 1 (investigating)" in text(at.page("notice"))


def test_what_was_stopped_on_the_way_says_how_far_it_came(console: Console) -> None:
    at = desk(console)
    at.tell(at.first, *TOLD)
    last = at.add(phase="identified", facts=[SCOPE])
    at.tell(
        last,
        Some("consumers", "push", "accepted", 1, 7),
        Some("consumers", "push", "unknown", 8, 9),
        Some("consumers", "push", "stopped", 10, 90),
    )
    stop(at, last, "consumers")
    said = text(at.page("notice"))
    assert "The words of update 2 (identified)" in said
    assert "7 of 90 messages had gone out, and 2 more may have." in said


def test_the_report_says_of_which_update_nobody_was_told(console: Console) -> None:
    at = desk(console)
    at.tell(at.first, *TOLD)
    last = at.add(phase="identified", facts=[SCOPE], audiences=["consumers"])
    at.tell(last, Some("consumers", "push", "stopped", 1, 90))
    stop(at, last, "consumers")
    said = text(at.page("report"))
    told = "Update 2 (identified), Consumers: stopped before a provider had taken a message"
    assert told in said
    assert "Update 1 (investigating), Consumers: " not in said


def test_where_nobody_can_be_sent_to_the_paper_is_what_tells_them(console: Console) -> None:
    at = desk(console, SCOPE)
    at.tell(at.first, Some("consumers", "push", "accepted", 1, 7))
    page = text(at.page("brief"))
    assert "74,000" in page and "nobody has read these words unless you pass them on" in page


@pytest.mark.parametrize("name", ["timeline", "report", "score", "notice", "brief"])
def test_only_who_is_signed_in_reads_an_account(console: Console, name: str) -> None:
    at = desk(console, drill=True)
    answer = console.browser(None).get(f"/incidents/{at.ref}/{name}")
    assert (answer.status_code, "/sign-in" in answer.headers["location"]) == (303, True)
    assert console.browser("viewer").get(f"/incidents/INC-9999/{name}").status_code == 404
    page = console.browser("viewer").get(f"/incidents/{at.ref}/{name}")
    assert page.status_code == 200
    assert "script-src 'unsafe" not in page.headers["content-security-policy"]

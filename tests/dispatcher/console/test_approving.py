"""What is decided on an update's own page, by whom, and that it happens once."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher.incidents import NewIncident, NewUpdate
from dispatcher.ledger import updates
from dispatcher.ledger.people import PersonRow
from dispatcher.security.rights import ROLE_SCOPES, Actor
from tests.dispatcher.console.conftest import Browser, Console, hidden


def acting(person: PersonRow) -> Actor:
    return Actor(id=person.actor_id, name=person.name, scopes=ROLE_SCOPES[person.role])


def fact(kind: str, **value: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "value": value,
        "source": "NOC",
        "known_at": datetime.now(UTC) - timedelta(minutes=5),
    }


CALLS_LIMITED = fact("emergency_calls", status="limited", use=["wifi_calling"])


def drafted(
    console: Console,
    author: PersonRow,
    *,
    facts: list[dict[str, Any]] | None = None,
    drill: bool = False,
    **update: Any,
) -> str:
    """A draft of a first update; returns its id."""
    incident = NewIncident(
        title="Voice is down",
        severity="critical",
        services=("voice",),
        regions=("US-TX",),
        started_at=datetime.now(UTC) - timedelta(hours=1),
        drill=drill,
    )
    said = NewUpdate.model_validate(
        {"phase": "investigating", "facts": facts or [CALLS_LIMITED]} | update
    )
    with console.services.ledger.transaction() as work:
        outcome = console.services.updates.open(
            work, incident, said, release="draft", actor=acting(author), force=True
        )
    return outcome.update_id


def states(console: Console, update: str) -> set[str]:
    with console.services.ledger.read() as conn:
        return {row.state for row in updates.releases(conn, update)}


def submitted(console: Console, author: PersonRow, **wanted: Any) -> str:
    update = drafted(console, author, **wanted)
    sent = console.browser(person=author).form(
        f"/updates/{update}/submit", {"revision": "1", "release": "on_approval"}
    )
    assert (sent.status_code, sent.headers["location"]) == (303, f"/console/updates/{update}")
    return update


def content(console: Console, update: str) -> str:
    with console.services.ledger.read() as conn:
        row = updates.get(conn, update)
    assert row is not None and row.content_hash is not None
    return row.content_hash


def decide(browser: Browser, update: str, act: str, **fields: str) -> tuple[int, str]:
    """Send a decision from the page of the update; returns status and where it leads."""
    shown = browser.get(f"/updates/{update}").text
    pairs = {"csrf": hidden(shown, "csrf"), "once": hidden(shown, "once")}
    found = browser.raw(f"/updates/{update}/{act}", list((pairs | fields).items()))
    return found.status_code, found.headers.get("location", "")


@pytest.fixture
def author(console: Console) -> PersonRow:
    return console.person("author", "Ada Author")


@pytest.fixture
def approver(console: Console) -> Browser:
    return console.browser(person=console.person("approver", "Ben Approver"))


def test_now_releases_what_the_rules_pre_approve_and_the_rest_waits(
    console: Console, author: PersonRow
) -> None:
    update = drafted(console, author)
    browser = console.browser(person=author)
    status, where = decide(browser, update, "submit", revision="1", release="now", sure="yes")
    assert (status, where) == (303, f"/console/updates/{update}/watch")
    assert states(console, update) == {"released", "submitted"}
    assert console.noted.planned == [update]


def test_a_claim_that_needs_a_second_owner_waits_even_if_now_was_chosen(
    console: Console, author: PersonRow
) -> None:
    update = drafted(console, author, facts=[fact("emergency_calls", status="working")])
    browser = console.browser(person=author)
    status, where = decide(browser, update, "submit", revision="1", release="now", sure="yes")
    assert (status, where) == (303, f"/console/updates/{update}")
    assert states(console, update) == {"submitted"}


def test_each_claim_is_confirmed_by_a_tick_and_is_on_record(
    console: Console, author: PersonRow, approver: Browser
) -> None:
    update = submitted(console, author, facts=[fact("emergency_calls", status="working")])
    named = {"content_hash": content(console, update), "sure": "yes"}
    assert decide(approver, update, "approve", **named)[0] == 422
    assert states(console, update) == {"submitted"}
    ticked = named | {"claim.emergency_calls_work": "yes"}
    assert decide(approver, update, "approve", **ticked)[0] == 303
    assert states(console, update) == {"released"}
    vouched = console.rows("SELECT detail FROM audit WHERE act = 'update.vouch'")
    assert vouched == [({"claims": ["emergency_calls_work"]},)]


def test_it_must_be_confirmed_and_by_another_person(
    console: Console, author: PersonRow, approver: Browser
) -> None:
    update = submitted(console, author)
    named = {"content_hash": content(console, update)}
    assert decide(approver, update, "approve", **named)[0] == 422
    own = console.browser(person=author)
    assert decide(own, update, "approve", sure="yes", **named)[0] == 403
    with console.services.ledger.transaction() as work:
        work.conn.execute("UPDATE person SET role = 'approver' WHERE id = %s", (author.id,))
    assert decide(own, update, "approve", sure="yes", **named)[0] == 403
    assert states(console, update) == {"submitted"}
    assert decide(approver, update, "approve", sure="yes", **named)[0] == 303
    assert states(console, update) == {"released"}


def test_a_drill_is_confirmed_by_its_word_and_looks_like_one(
    console: Console, author: PersonRow, approver: Browser
) -> None:
    update = submitted(console, author, drill=True)
    named = {"content_hash": content(console, update)}
    assert 'class="drill-band"' in approver.get(f"/updates/{update}").text
    assert decide(approver, update, "approve", sure="yes", **named)[0] == 422
    assert decide(approver, update, "approve", word="drill", **named)[0] == 422
    assert decide(approver, update, "approve", word="DRILL", **named)[0] == 303


def test_what_was_returned_says_why_and_a_new_submission_is_a_new_content(
    console: Console, author: PersonRow, approver: Browser
) -> None:
    update = submitted(console, author)
    first = content(console, update)
    assert decide(approver, update, "return", content_hash=first, reason=" ")[0] == 422
    why = "Say <where> it is"
    assert decide(approver, update, "return", content_hash=first, reason=why)[0] == 303
    assert states(console, update) == {"returned"}
    own = console.browser(person=author)
    assert "Say &lt;where&gt; it is" in own.get(f"/updates/{update}").text
    with console.services.ledger.transaction() as work:
        console.services.updates.revise(
            work,
            update,
            NewUpdate.model_validate(
                {
                    "phase": "identified",
                    "facts": [CALLS_LIMITED, fact("scope", count=9, basis="estimated")],
                }
            ),
            revision=1,
            actor=acting(author),
        )
    assert states(console, update) == {"draft"}
    assert decide(own, update, "submit", revision="1", release="on_approval")[0] == 409
    assert decide(own, update, "submit", revision="2", release="on_approval")[0] == 303
    assert content(console, update) != first
    assert decide(approver, update, "approve", content_hash=first, sure="yes")[0] == 409
    assert states(console, update) == {"submitted"}


def test_who_changed_it_cannot_approve_it(console: Console, author: PersonRow) -> None:
    update = drafted(console, author)
    second = console.person("approver", "Ben Approver")
    with console.services.ledger.transaction() as work:
        console.services.updates.revise(
            work,
            update,
            NewUpdate.model_validate({"phase": "investigating", "facts": [CALLS_LIMITED]}),
            revision=1,
            actor=acting(second),
        )
    browser = console.browser(person=second)
    assert decide(browser, update, "submit", revision="2", release="on_approval")[0] == 303
    named = {"content_hash": content(console, update), "sure": "yes"}
    assert decide(browser, update, "approve", **named)[0] == 403
    third = console.browser("approver")
    assert decide(third, update, "approve", **named)[0] == 303


def test_the_same_form_twice_approves_once(
    console: Console, author: PersonRow, approver: Browser
) -> None:
    update = submitted(console, author)
    shown = approver.get(f"/updates/{update}").text
    pairs = [
        ("csrf", hidden(shown, "csrf")),
        ("once", hidden(shown, "once")),
        ("content_hash", content(console, update)),
        ("sure", "yes"),
    ]
    led = {approver.raw(f"/updates/{update}/approve", pairs).headers["location"] for _ in range(3)}
    assert led == {f"/console/updates/{update}/watch"}
    assert console.rows("SELECT count(*) FROM audit WHERE act = 'update.approve'") == [(1,)]
    assert console.noted.planned == [update]
    other = approver.raw(f"/updates/{update}/approve", [*pairs, ("audiences", "public")])
    assert other.status_code == 409
    assert "already" in other.text


def test_a_form_of_another_session_or_page_does_nothing(
    console: Console, author: PersonRow, approver: Browser
) -> None:
    update = submitted(console, author)
    shown = approver.get(f"/updates/{update}").text
    fields = [
        ("once", hidden(shown, "once")),
        ("content_hash", content(console, update)),
        ("sure", "yes"),
    ]
    path = f"/updates/{update}/approve"
    assert approver.raw(path, fields).status_code == 403
    other = hidden(console.browser("approver").get("/").text, "csrf")
    assert approver.raw(path, [*fields, ("csrf", other)]).status_code == 403
    own = [*fields, ("csrf", hidden(shown, "csrf"))]
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert approver.raw(path, own, headers=foreign).status_code == 403
    assert states(console, update) == {"submitted"}
    assert approver.raw(path, own).status_code == 303


def test_the_glass_is_broken_by_an_admin_with_words_and_on_record(
    console: Console, author: PersonRow, approver: Browser
) -> None:
    update = submitted(console, author)
    named = {"content_hash": content(console, update), "why": "Lives are at risk"}
    assert decide(approver, update, "break-glass", word="WITHOUT APPROVAL", **named)[0] == 403
    admin = console.browser("admin")
    assert decide(admin, update, "break-glass", word="yes", **named)[0] == 422
    assert decide(admin, update, "release", sure="yes", **named)[0] == 409
    assert states(console, update) == {"submitted"}
    assert decide(admin, update, "break-glass", word="WITHOUT APPROVAL", **named)[0] == 303
    assert states(console, update) == {"released"}
    acts = [
        row[0]
        for row in console.rows("SELECT act FROM audit WHERE act LIKE 'release.%%' ORDER BY id")
    ]
    assert acts == ["release.break_glass.reason", "release.break_glass"]


def test_what_is_held_goes_out_by_release_and_what_is_not_released_can_be_withdrawn(
    console: Console, author: PersonRow, approver: Browser
) -> None:
    update = drafted(console, author)
    own = console.browser(person=author)
    decide(own, update, "submit", revision="1", release="hold")
    named = {"content_hash": content(console, update)}
    decide(approver, update, "approve", sure="yes", **named)
    assert states(console, update) == {"approved"}
    assert decide(own, update, "release", **named)[0] == 422
    assert decide(own, update, "release", sure="yes", **named)[0] == 303
    assert states(console, update) == {"released"}
    assert decide(own, update, "withdraw")[0] == 409
    other = drafted(console, author, audiences=["public"])
    assert decide(own, other, "withdraw")[0] == 303
    assert states(console, other) == {"withdrawn"}


def test_a_viewer_sees_and_decides_nothing(console: Console, author: PersonRow) -> None:
    update = submitted(console, author)
    viewer = console.browser("viewer")
    assert viewer.get(f"/updates/{update}").status_code == 200
    for act in ("submit", "return", "approve", "release", "break-glass", "withdraw"):
        assert decide(viewer, update, act)[0] == 403
    assert console.browser(None).get(f"/updates/{update}").status_code == 303


def test_an_update_that_came_by_the_api_is_counted_when_somebody_looks(
    console: Console, author: PersonRow, approver: Browser
) -> None:
    update = drafted(console, author)
    with console.services.ledger.transaction() as work:
        console.services.updates.submit(work, update, actor=acting(author), release="on_approval")
    assert "is being counted now" in approver.get(f"/updates/{update}").text
    console.services.reckoning.soon(update).result(timeout=30)
    assert "This reaches" in approver.get(f"/updates/{update}").text


def test_that_it_is_over_is_doubted_while_no_fact_says_so(
    console: Console, author: PersonRow
) -> None:
    update = drafted(console, author, phase="resolved", facts=[fact("restored", percent=75)])
    assert "Is it over?" in console.browser("viewer").get(f"/updates/{update}").text


def test_what_was_done_is_said_once_on_the_page_that_follows(
    console: Console, author: PersonRow, approver: Browser
) -> None:
    update = drafted(console, author)
    browser = console.browser(person=author)
    decide(browser, update, "submit", revision="1", release="on_approval")
    assert "Submitted. Nobody has been told yet." in browser.get(f"/updates/{update}").text
    assert "Submitted. Nobody" not in browser.get(f"/updates/{update}").text
    fields = {"content_hash": content(console, update), "reason": "Since when?"}
    decide(approver, update, "return", **fields)
    assert "Returned to its author" in approver.get(f"/updates/{update}").text


def test_a_made_up_word_says_nothing(console: Console, author: PersonRow) -> None:
    browser = console.browser(person=author)
    browser.client.cookies.set("done", "paid")
    page = browser.get("/")
    assert page.status_code == 200
    assert "paid" not in page.text


def test_nobody_ticked_is_nobody_and_who_was_left_out_stays_so(
    console: Console, author: PersonRow, approver: Browser
) -> None:
    update = submitted(console, author, audiences=["public", "media"])
    fields = {"content_hash": content(console, update), "sure": "yes", "choosing": "yes"}
    assert decide(approver, update, "approve", **fields)[0] == 422
    assert states(console, update) == {"submitted"}
    shown = approver.get(f"/updates/{update}").text
    pairs = {"csrf": hidden(shown, "csrf"), "once": hidden(shown, "once")} | fields
    again = approver.raw(
        f"/updates/{update}/approve",
        [*(pairs | {"sure": ""}).items(), ("audiences", "media")],
    )
    assert again.status_code == 422
    assert re.search(r'value="media" checked', again.text)
    assert not re.search(r'value="public" checked', again.text)


def test_a_refused_form_leads_back_to_its_update(
    console: Console, author: PersonRow, approver: Browser
) -> None:
    update = submitted(console, author)
    shown = approver.get(f"/updates/{update}").text
    pairs = {"csrf": hidden(shown, "csrf"), "once": hidden(shown, "once")}
    stale = pairs | {"content_hash": "0" * 64, "sure": "yes"}
    found = approver.raw(f"/updates/{update}/approve", list(stale.items()))
    assert found.status_code in (409, 422)
    assert f'href="/console/updates/{update}">Back to the update</a>' in found.text

"""Two hands on one form, one hand too fast, no connection, odd characters, no script."""

import re
from urllib.parse import urlencode

import pytest
from playwright.sync_api import expect

from dispatcher.demo.people import people
from dispatcher.security.rights import Role
from tests.browser.acts import Values, ago, approve, complete, confirm, fill_form, submit, write
from tests.browser.conftest import Staff
from tests.browser.desk import Desk, Desks
from tests.stories.house import House

CROWD = 60
OPENING: Values = {
    "kind": ["real"],
    "title": ["Calls fail everywhere"],
    "severity": ["critical"],
    "services": ["voice"],
    "everywhere": ["yes"],
    "source": ["Network operations"],
    "emergency_calls.status": ["limited"],
    "emergency_calls.use.0": ["landline"],
    "next_update": ["30"],
}
SLOT = "texts.message.en"


@pytest.fixture
def directory(house: House) -> House:
    """A house whose operator has customers."""
    house.people(people(CROWD))
    return house


def drafted(author: Desk) -> str:
    return write(author, "/incidents/new", {**OPENING, "started_at": [ago(minutes=5)]})


def test_a_stale_form_is_shown_as_a_difference(
    directory: House, staff: Staff, desks: Desks
) -> None:
    """The second to save sees both, nothing is overwritten, and saving again is a decision."""
    author, colleague = desks(staff[Role.AUTHOR]), desks(staff[Role.APPROVER])
    update = drafted(author)
    first, second = (desk.open(f"/updates/{update}/write") for desk in (author, colleague))
    fill_form(author, {"scope.count": ["73,000"], "scope.basis": ["estimated"]})
    fill_form(colleague, {"scope.count": ["12"], "scope.basis": ["measured"]})
    author.press("Save draft")
    expect(first).to_have_url(re.compile(rf"/updates/{update}$"))
    colleague.press("Save draft")
    colleague.sees("Somebody else changed this update while you were writing")
    row = second.get_by_role("table", name="What differs").get_by_role(
        "row", name=re.compile("How many")
    )
    expect(row.first).to_contain_text("73,000")
    expect(row.first).to_contain_text("12")
    expect(second.get_by_label("How many customers are affected?")).to_have_value("12")
    assert stated(directory, update) == "73000"
    colleague.press("Save mine over theirs")
    expect(second).to_have_url(re.compile(rf"/updates/{update}/preview"))
    assert stated(directory, update) == "12"


def stated(house: House, update: str) -> str:
    """How many are affected, by the ledger."""
    said = house.sql(
        "SELECT stated->'value'->>'count' FROM fact WHERE update_id = %s"
        " AND stated->>'kind' = 'scope'",
        update,
    )
    return str(said[0][0])


def test_approving_twice_tells_once(directory: House, staff: Staff, desks: Desks) -> None:
    """A double click, the way back and the same form again: one approval, one message each."""
    author, approver = desks(staff[Role.AUTHOR]), desks(staff[Role.APPROVER])
    update = drafted(author)
    submit(author, update)
    page = approver.open(f"/updates/{update}")
    confirm(approver)
    approver.button("Approve and send").dblclick()
    expect(page).to_have_url(re.compile(rf"/updates/{update}/watch$"))
    page.go_back()
    if approver.button("Approve and send").count():
        # The page as it was, out of the browser's own memory.
        confirm(approver)
        approver.press("Approve and send")
        expect(page).to_have_url(re.compile(rf"/updates/{update}"))
    complete(author, update)
    assert acts(directory, update, "update.approve") == 1
    one_message_each(directory, update)


def test_a_connection_lost_while_approving(directory: House, staff: Staff, desks: Desks) -> None:
    """Lost before it came: nothing done. Lost after: done once, however often it is sent again."""
    author, approver = desks(staff[Role.AUTHOR]), desks(staff[Role.APPROVER])
    update = drafted(author)
    submit(author, update)
    page = approver.open(f"/updates/{update}")
    confirm(approver)
    form: list[list[str]] = page.locator("form[action$='/approve']").evaluate(
        "f => Array.from(new FormData(f))"
    )
    approver.context.set_offline(True)
    approver.press("Approve and send")
    page.wait_for_url(re.compile("chrome-error|/updates/"))
    approver.context.set_offline(False)
    assert acts(directory, update, "update.approve") == 0

    page = approver.open(f"/updates/{update}")
    approver.sees("Your decision")
    for _ in range(2):
        # The browser never sees the first answer: it is dropped on its way.
        lost_on_the_way(approver, update, form)
    assert acts(directory, update, "update.approve") == 1
    complete(approver, update)
    one_message_each(directory, update)


def lost_on_the_way(desk: Desk, update: str, form: list[list[str]]) -> None:
    """Send the form as the page would, and hang up before the answer is read."""
    origin = desk.page.url.partition("/console")[0]
    answer = desk.page.request.post(
        f"/console/updates/{update}/approve",
        data=urlencode([(name, value) for name, value in form]),
        headers={
            "Content-Type": "application/x-www-form-urlencoded",
            "Origin": origin,
            "Sec-Fetch-Site": "same-origin",
        },
        max_redirects=0,
    )
    assert answer.status == 303
    answer.dispose()


def acts(house: House, update: str, act: str) -> int:
    """How often the audit log says that this was done."""
    found = house.sql("SELECT count(*) FROM audit WHERE update_id = %s AND act = %s", update, act)
    return int(found[0][0])


def one_message_each(house: House, update: str) -> None:
    house.complete(update)
    assert house.judged(update)["accepted"] > 0


def test_what_cannot_be_seen_is_shown(directory: House, staff: Staff, desks: Desks) -> None:
    """Pasted quotes are warned of, hidden characters refused, each by its name; nothing is lost."""
    author = desks(staff[Role.AUTHOR])
    page = author.open("/incidents/new")
    values: Values = {**OPENING, "started_at": [ago(minutes=5)], SLOT: ["Sto\u200bres \u202eopen"]}
    fill_form(author, values)
    # While it is typed.
    live = page.get_by_role("complementary")
    expect(live).to_contain_text("U+202E right-to-left override")
    expect(live).to_contain_text(re.compile("U\\+200B zero.width space"))
    author.press("Save and preview")
    author.sees("Nothing is saved yet")
    field = page.locator(f'[name="{SLOT}"]')
    expect(field).to_have_value("Sto\u200bres \u202eopen")
    author.press("Put plain characters there")
    expect(field).to_have_value("Stores open")
    field.fill("“Stores” are open – all night…")
    expect(live).to_contain_text("U+201C")
    author.press("Put plain characters there")
    expect(field).to_have_value('"Stores" are open - all night...')
    assert directory.sql("SELECT count(*) FROM incident") == [(0,)]


def test_a_hundred_thousand_characters(directory: House, staff: Staff, desks: Desks) -> None:
    """They come in, are counted in words, come back whole, and are not stored."""
    author = desks(staff[Role.AUTHOR])
    page = author.open("/incidents/new")
    pasted = "all the stores " * 6_667
    fill_form(author, {**OPENING, "started_at": [ago(minutes=5)], SLOT: [pasted]})
    author.press("Save and preview")
    author.sees("Nothing is saved yet")
    author.sees(re.compile("100,00[0-9] characters"))
    expect(page.locator(f'[name="{SLOT}"]')).to_have_value(pasted)
    assert directory.sql("SELECT count(*) FROM incident") == [(0,)]


def test_reading_and_approving_without_scripts(
    directory: House, staff: Staff, desks: Desks
) -> None:
    """A browser that runs none: write, preview, count, approve, watch, stop, resume, timeline."""
    author = desks(staff[Role.AUTHOR], javascript=False)
    approver = desks(staff[Role.APPROVER], javascript=False)
    update = drafted(author)
    expect(author.page.locator('[data-message] [data-part="text"]').first).to_be_visible()
    submit(author, update)
    page = approver.open(f"/updates/{update}/preview")
    if approver.button("Count now").count():
        approver.press("Count now")
    approver.sees(re.compile(r"Reached\s+\d+\s+people"))
    with directory.frozen("post"):
        approve(approver, update)
        approver.link("Stop…").click()
        approver.press("Stop now")
        approver.sees("held back")
    approver.link("Resume…").click()
    approver.press("Resume now")
    approver.sees("Resumed by")
    directory.complete(update)
    page.reload()
    expect(page.get_by_text("Complete", exact=True)).to_be_visible()
    approver.link(re.compile("^Timeline")).click()
    approver.sees("Approved")

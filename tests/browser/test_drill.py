"""A drill cannot be taken for the real thing: not by its pages, its confirmation or its reach."""

import re

from playwright.sync_api import Page, expect

from dispatcher.demo.people import people
from dispatcher.security.rights import Role
from tests.browser.acts import Values, ago, approve, complete, submit, write
from tests.browser.conftest import Staff
from tests.browser.desk import Desk, Desks
from tests.stories.house import House

CROWD = 60
OPENING: Values = {
    "title": ["Core rehearsal"],
    "severity": ["critical"],
    "services": ["voice"],
    "everywhere": ["yes"],
    "source": ["Exercise control"],
    "emergency_calls.status": ["limited"],
    "emergency_calls.use.0": ["landline"],
    "next_update": ["30"],
}
DRILL_WORDS = ("EXERCISE ONLY", "SOLO SIMULACRO", "УЧЕБНОЕ СООБЩЕНИЕ", "رسالة تدريبية فقط")
ENDING: Values = {
    "phase": ["resolved"],
    "source": ["Exercise control"],
    "ended.at": [],
    "restored.percent": ["100"],
    "emergency_calls.status": ["working"],
    "next_update": ["none"],
}


def looks_like_a_drill(page: Page) -> None:
    """By word, by frame, by title, and by the colour of the band."""
    expect(page).to_have_title(re.compile("^DRILL: "))
    band = page.get_by_role("region", name="Drill")
    expect(band).to_be_visible()
    expect(band).to_contain_text("It reaches only the sandbox")
    expect(page.locator("body")).to_have_class(re.compile(r"\bdrill\b"))


def looks_real(page: Page) -> None:
    expect(page).not_to_have_title(re.compile("DRILL"))
    expect(page.get_by_role("region", name="Drill")).to_have_count(0)


def opened(author: Desk, kind: str, title: str) -> str:
    said: Values = {"kind": [kind], **OPENING, "title": [title], "started_at": [ago(minutes=5)]}
    if kind == "real":
        said = {**said, "services": ["broadband"]}
    return write(author, "/incidents/new", said)


def test_drill_from_its_form_to_its_score(house: House, staff: Staff, desks: Desks) -> None:
    """Every page of it says what it is, letting go wants a word typed, and it ends in a score."""
    house.people(people(CROWD))
    author, approver = desks(staff[Role.AUTHOR]), desks(staff[Role.APPROVER])
    real = opened(author, "real", "Mails arrive late")
    submit(author, real)
    looks_real(approver.open(f"/updates/{real}"))
    expect(approver.page.get_by_role("checkbox", name="Yes: send this")).to_be_visible()
    expect(approver.page.get_by_label("This is a drill")).to_have_count(0)

    first = opened(author, "drill", "Core rehearsal")
    looks_like_a_drill(author.page)
    submit(author, first)
    looks_like_a_drill(author.page)
    confirmed_by_word(approver, first)
    looks_like_a_drill(approver.page)
    complete(approver, first)

    incident = incident_of(author, first)
    ending: Values = {**ENDING, "ended.at": [ago(minutes=1)]}
    last = write(author, f"/incidents/{incident}/updates/new", ending)
    looks_like_a_drill(author.page)
    submit(author, last)
    approve(approver, last)
    complete(approver, last)
    sent = [" ".join(entry["content"].values()) for entry in house.sandbox.outbox()]
    assert sent and all(any(word in text for word in DRILL_WORDS) for text in sent)
    for path in ("", "/timeline", "/updates/new", "/notice", "/brief"):
        looks_like_a_drill(author.open(f"/incidents/{incident}{path}"))
    for path in ("", "/preview", "/watch", "/untold"):
        looks_like_a_drill(author.open(f"/updates/{last}{path}"))
    scored(author, incident)


def confirmed_by_word(approver: Desk, update: str) -> None:
    """Neither a tick nor a wrong word lets a drill go; the word does."""
    page = approver.open(f"/updates/{update}")
    looks_like_a_drill(page)
    expect(page.get_by_role("checkbox", name="Yes: send this")).to_have_count(0)
    word, button = page.get_by_label("This is a drill"), approver.button("Approve and send")
    expect(button).to_have_attribute("aria-disabled", "true")
    word.fill("REAL")
    button.click(force=True)  # as somebody would who does not see that it waits
    expect(page).to_have_url(re.compile(rf"/updates/{update}$"))
    approver.sees("Waiting for approval")
    approve(approver, update)


def incident_of(desk: Desk, update: str) -> str:
    page = desk.open(f"/updates/{update}")
    crumbs = page.get_by_role("navigation", name="Where you are")
    return crumbs.get_by_role("link").nth(1).inner_text()


def scored(author: Desk, incident: str) -> None:
    """The score says how long each audience waited, what was missed, and who was not reached."""
    page = author.open(f"/incidents/{incident}")
    author.link("Score of the drill").click()
    looks_like_a_drill(page)
    expect(page.get_by_text("People not told")).to_be_visible()
    table = page.get_by_role("table", name="Score by audience")
    expect(table.get_by_role("row", name=re.compile("Consumers"))).to_contain_text("of 100")
    expect(table.get_by_role("row", name=re.compile("Consumers"))).to_contain_text(
        re.compile(r"\d+ (s|min)|second")
    )
    expect(page.get_by_text("Clocks missed").first).to_be_visible()

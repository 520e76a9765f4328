"""The whole way in a browser: from the first link to the report that is kept.

Three people, each in a window of their own; what the pages say is held against the ledger.
"""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from dispatcher import people as staff_office
from dispatcher.demo.people import people
from dispatcher.security.rights import Role
from tests.browser.acts import (
    Values,
    ago,
    approve,
    complete,
    fill_form,
    hand_back,
    submit,
    write,
)
from tests.browser.desk import STAFF, Desk, Desks, Somebody
from tests.stories.house import House

CROWD = 200
REASON = "Say what to use for emergency calls."


@pytest.fixture
def directory(house: House) -> House:
    """A house whose operator has customers."""
    house.people(people(CROWD))
    return house


def joined(desk: Desk, link: str, who: Somebody) -> None:
    """Follow a one-time link and become somebody."""
    page = desk.page
    page.goto(link)
    page.get_by_label("Your name").fill(who.name)
    page.get_by_label("Login").fill(who.login)
    page.get_by_label("Password", exact=True).fill(who.password)
    page.get_by_label("The same password again").fill(who.password)
    desk.press("Join and sign in")
    expect(page.get_by_role("heading", level=1)).to_have_text("Incidents")


def invited(admin: Desk, who: Somebody) -> str:
    """Invite somebody; returns the link that the page shows once."""
    page = admin.open("/people")
    page.get_by_label("Name", exact=True).fill(who.name)
    page.get_by_role("radio", name=re.compile(who.role.value, re.IGNORECASE)).check()
    admin.press("Make the link")
    return page.locator("#the-link").inner_text()


def test_from_the_first_link_to_the_report(directory: House, desks: Desks, tmp_path: Path) -> None:
    """Join, invite, write, return, edit, approve, watch, stop, resume, resolve, keep."""
    house = directory
    with house.services.ledger.transaction() as work:
        first = staff_office.first_link(work.conn)
    assert first is not None
    admin, author, approver = desks(), desks(), desks()
    joined(admin, first.path, STAFF[Role.ADMIN])
    joined(author, invited(admin, STAFF[Role.AUTHOR]), STAFF[Role.AUTHOR])
    joined(approver, invited(admin, STAFF[Role.APPROVER]), STAFF[Role.APPROVER])

    update = opened(author)
    preview_tells(author, update)
    submit(author, update)
    author.sees("You wrote this, so somebody else has to approve it.")
    hand_back(approver, update, REASON)
    edited(author, update)
    submit(author, update)

    with house.frozen("post"):
        approver.open(f"/updates/{update}")
        reach = reached(approver.page)
        approve(approver, update)
        house.when(update, lambda now: now["state"] == "sending")
        assert stopped(approver) > 0
    resumed(approver)
    complete(approver, update)
    told = house.progress(update)
    assert told["by_state"]["stopped"] == 0
    assert people_with_a_row(house, update) == reach

    last = resolved(author, update)
    approve(approver, last)
    complete(author, last)
    kept_report(author, tmp_path)


def opened(author: Desk) -> str:
    """Report an incident by what is known; returns its first update."""
    page = author.open("/")
    author.link("Report an incident").click()
    page.get_by_role("radio", name="A real incident").check()
    page.get_by_role("checkbox", name="Calls", exact=True).check()
    page.get_by_role("radio", name=re.compile("^Critical")).check()
    page.get_by_role("checkbox", name="Everywhere").check()
    page.get_by_label("Title").fill("Calls fail after a change in the core")
    page.get_by_label("How do you know it?").fill("Network operations, shift lead")
    page.get_by_role("radio", name=re.compile("may fail|limited", re.IGNORECASE)).first.check()
    fill_form(author, {"started_at": [ago(minutes=20)], "texts.message.en": [EN], **WORDS})
    author.press("Save and preview")
    expect(page).to_have_url(re.compile("/preview"))
    return author.update_id()


EN = "Our stores are open all night."
WORDS: Values = {
    "texts.message.es": ["Nuestras tiendas abren toda la noche."],
    "texts.message.ru": ["Наши магазины открыты всю ночь."],
    "texts.message.ar": ["متاجرنا مفتوحة طوال الليل."],
}


def preview_tells(author: Desk, update: str) -> None:
    """The preview shows the words in the four languages, and a number of people."""
    page = author.open(f"/updates/{update}/preview?audience=consumers")
    for locale, said in (("en", EN), ("ar", str(WORDS["texts.message.ar"][0]))):
        bubble = page.locator(f'[data-message="consumers/sms/{locale}"] [data-part="text"]')
        expect(bubble).to_contain_text(said)
    arabic = page.locator('[data-message="consumers/sms/ar"] [data-part="text"]')
    expect(arabic).to_have_attribute("dir", "rtl")
    author.sees(re.compile(r"Reached\s+\d+\s+people"))


def edited(author: Desk, update: str) -> None:
    """The author reads why it came back, and adds what was asked for."""
    page = author.open("/")
    author.sees("Returned")
    page.goto(f"/console/updates/{update}")
    author.sees(REASON)
    write(author, f"/updates/{update}/write", {"emergency_calls.use.0": ["landline"]})
    page.goto(f"/console/updates/{update}/preview?audience=consumers&locale=en&channel=sms")
    bubble = page.locator("[data-message] [data-part=text]")
    expect(bubble).to_contain_text("landline")


def reached(page: Page) -> int:
    """How many people an approver is told it reaches."""
    said = page.get_by_text(re.compile(r"This reaches [\d,]+ people"))
    expect(said).to_be_visible()
    found = re.search(r"reaches ([\d,]+) people", said.inner_text())
    assert found is not None
    return int(found[1].replace(",", ""))


def people_with_a_row(house: House, update: str) -> int:
    """How many people of the directory have a message of this update that was taken."""
    rows = house.rows(update)
    return len({row["recipient"] for row in rows if row["state"] in ("accepted", "delivered")})


def stopped(desk: Desk) -> int:
    """Stop what is being sent; returns how many messages the page says were held back."""
    expect(desk.link("Stop…")).to_be_visible()
    desk.link("Stop…").click()
    desk.sees("still unsent")
    desk.press("Stop now")
    desk.sees("held back")
    said = desk.page.get_by_role("main").inner_text()
    found = re.search(r"([\d,]+) messages? w\w+ held back, [\d,]+ had left", said)
    assert found is not None
    return int(found[1].replace(",", ""))


def resumed(desk: Desk) -> None:
    desk.link("Resume…").click()
    desk.press("Resume now")
    desk.sees("Resumed by")


def resolved(author: Desk, update: str) -> str:
    """The last word: it is over, with an apology; returns the update."""
    page = author.open(f"/updates/{update}")
    page.get_by_role("navigation", name="Where you are").get_by_role("link").nth(1).click()
    page.get_by_role("link", name="Another update").click()
    page.get_by_role("radio", name=re.compile("^Resolved")).check()
    said: Values = {
        "source": ["Network operations, shift lead"],
        "ended.at": [ago(minutes=1)],
        "restored.percent": ["100"],
        "emergency_calls.status": ["working"],
        "apology.to": ["all"],
        "next_update": ["none"],
    }
    fill_form(author, said)
    author.press("Save and preview")
    expect(page).to_have_url(re.compile("/preview"))
    last = author.update_id()
    submit(author, last)
    return last


def kept_report(author: Desk, folder: Path) -> None:
    """The report downloads as one file that opens by itself and says who was told what when."""
    page = author.page
    page.goto(f"{author.page.url.partition('/updates/')[0]}/")
    page.get_by_role("link", name=re.compile("^INC-")).first.click()
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Report to keep").click()
    file = folder / "report.html"
    downloading.value.save_as(file)
    text = file.read_text(encoding="utf-8")
    assert "http://" not in text.replace("http://www.w3.org", "")
    alone = author.context.new_page()
    alone.goto(file.as_uri())
    expect(alone.get_by_role("heading", level=1)).to_be_visible()
    expect(alone.locator("body")).to_contain_text("Calls fail after a change in the core")
    expect(alone.locator("body")).to_contain_text(STAFF[Role.APPROVER].name)
    alone.close()

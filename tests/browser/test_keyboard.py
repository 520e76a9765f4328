"""Everything can be done without a mouse: Tab, Enter, Space, arrows and typing, nothing else."""

import re

import pytest
from playwright.sync_api import expect

from dispatcher.demo.people import people
from dispatcher.security.rights import Role
from tests.browser.acts import ago, zone_of
from tests.browser.conftest import Staff
from tests.browser.desk import Desk, Desks, Somebody
from tests.browser.hands import Keyboard
from tests.stories.house import House

CROWD = 60


@pytest.fixture
def directory(house: House) -> House:
    """A house whose operator has customers."""
    house.people(people(CROWD))
    return house


def come_in(desk: Desk, who: Somebody) -> Keyboard:
    """Sign in by keyboard, from the skip link to the button."""
    desk.open("/sign-in")
    keys = Keyboard(desk.page)
    keys.press("Tab")
    skip = keys.here()
    assert skip is not None and skip.name == "Skip to the content"
    keys.press("Enter")
    keys.write("Login", who.login)
    keys.write("Password", who.password)
    keys.follow("Sign in", kind="button")
    headed(desk, "Incidents")
    return keys


def headed(desk: Desk, words: str) -> None:
    """Wait for the page that begins so: keys pressed before it is there would be lost."""
    expect(desk.page.get_by_role("heading", level=1)).to_contain_text(words)


def test_every_act_by_keyboard_alone(directory: House, staff: Staff, desks: Desks) -> None:
    """Sign in, write, submit, return, edit, approve, stop, resume, release, withdraw, sign out."""
    house = directory
    author_desk, approver_desk = desks(), desks()
    author = come_in(author_desk, staff[Role.AUTHOR])
    approver = come_in(approver_desk, staff[Role.APPROVER])

    update = report(author, author_desk)
    submit(author, author_desk, update)
    send_back(approver, approver_desk, update)
    edit(author, author_desk, update)
    submit(author, author_desk, update)
    with house.frozen("post"):
        approve(approver, approver_desk, update, "Approve and send")
        halt(approver, approver_desk)
    go_on(approver, approver_desk)
    expect(approver_desk.page.get_by_text("Complete", exact=True)).to_be_visible()

    second = nothing_new(author, author_desk)
    hold(author, author_desk, second)
    approve(approver, approver_desk, second, "Approve")
    release(author, author_desk, second)

    third = nothing_new(author, author_desk)
    take_back(author, author_desk, third)
    author.follow("Sign out", kind="button")
    headed(author_desk, "Sign in")


def report(keys: Keyboard, desk: Desk) -> str:
    """Report an incident; returns its first update."""
    keys.follow("Report an incident")
    headed(desk, "Report an incident")
    keys.choose("Is this real?", "A real incident")
    keys.tick(re.compile("^(Calls|Mobile calls|voice)", re.IGNORECASE))
    keys.choose("How bad is it?", "Critical")
    keys.tick("Everywhere")
    keys.date("Since when?", ago(minutes=10).astimezone(zone_of(desk)))
    keys.write("Title", "Calls fail everywhere")
    keys.write("How do you know it?", "Network operations")
    keys.choose("Do emergency calls work?", "Some may fail")
    keys.select("If they may fail, use: choice 1", "Wi-Fi")
    keys.choose("Next update", "in 1 hour")
    keys.follow("Save and preview", kind="button")
    expect(desk.page).to_have_url(re.compile("/preview"))
    return desk.update_id()


def to_update(keys: Keyboard, desk: Desk, update: str) -> None:
    """Go to an update's page from the list of incidents, link by link."""
    if not desk.page.url.endswith(update):
        desk.open(f"/updates/{update}")
    keys.press("Tab")


def submit(keys: Keyboard, desk: Desk, update: str) -> None:
    to_update(keys, desk, update)
    keys.choose("When does it go out?", "As soon as another person approves")
    keys.follow("Submit for approval", kind="button")
    desk.sees("somebody else has to approve it")


def send_back(keys: Keyboard, desk: Desk, update: str) -> None:
    desk.open("/")
    keys.follow(re.compile("Calls fail everywhere"))
    expect(desk.page).to_have_url(re.compile(update))
    keys.follow(re.compile("^Return it to"), kind="summary")
    keys.write("What should be changed?", "Say when you were told.")
    keys.follow("Return it", kind="button")
    desk.sees("Returned by")


def edit(keys: Keyboard, desk: Desk, update: str) -> None:
    to_update(keys, desk, update)
    keys.follow("Change it")
    headed(desk, "Change this update")
    keys.write("How do you know it?", "Network operations, at 4 o'clock")
    keys.follow("Save draft", kind="button")
    expect(desk.page).to_have_url(re.compile(rf"/updates/{update}$"))


def approve(keys: Keyboard, desk: Desk, update: str, button: str) -> None:
    desk.open("/")
    keys.follow(re.compile("Calls fail everywhere"))
    expect(desk.page).to_have_url(re.compile(update))
    keys.tick(re.compile("^Yes: send this"))
    keys.follow(button, kind="button")
    desk.sees("Messages told" if button == "Approve and send" else "Approved: it can be released")


def halt(keys: Keyboard, desk: Desk) -> None:
    expect(desk.link("Stop…")).to_be_visible()
    keys.follow("Stop…")
    headed(desk, "Stop")
    keys.follow("Stop now", kind="button")
    desk.sees("held back")


def go_on(keys: Keyboard, desk: Desk) -> None:
    keys.follow("Resume…")
    headed(desk, "Resume")
    keys.follow("Resume now", kind="button")
    desk.sees("Resumed by")


def nothing_new(keys: Keyboard, desk: Desk) -> str:
    """Say again what is known, from the incident's own page; returns the update."""
    desk.open("/")
    keys.follow(re.compile("^INC-[0-9]+: Calls fail"))
    headed(desk, "Calls fail everywhere")
    keys.follow(re.compile("nothing new yet"))
    headed(desk, "Write an update")
    keys.follow("Save and preview", kind="button")
    expect(desk.page).to_have_url(re.compile("/preview"))
    return desk.update_id()


def hold(keys: Keyboard, desk: Desk, update: str) -> None:
    to_update(keys, desk, update)
    keys.choose("When does it go out?", "Only when somebody releases it after approval")
    keys.follow("Submit for approval", kind="button")
    desk.sees("somebody else has to approve it")


def release(keys: Keyboard, desk: Desk, update: str) -> None:
    desk.open(f"/updates/{update}")
    desk.sees("Approved: it can be released")
    keys.tick(re.compile("^Yes: send this"))
    keys.follow("Release", kind="button")
    expect(desk.page).to_have_url(re.compile(rf"/updates/{update}/watch$"))
    expect(desk.page.get_by_text("Complete", exact=True)).to_be_visible()


def take_back(keys: Keyboard, desk: Desk, update: str) -> None:
    to_update(keys, desk, update)
    keys.follow(re.compile("^Withdraw it"), kind="summary")
    keys.follow("Withdraw", kind="button")
    expect(desk.page.get_by_role("main")).to_contain_text("Withdrawn")

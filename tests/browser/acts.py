"""What people do at the console, step by step as the pages ask it of them.

Each act starts from the page's own address and ends on the page that follows.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from playwright.sync_api import expect

from tests.browser.desk import Desk
from tests.browser.hands import fill_in

Values = Mapping[str, Sequence[str | datetime]]

ON_APPROVAL = "As soon as another person approves"
NOW = "Now"
HOLD = "Only when somebody releases it after approval"


def ago(*, minutes: int) -> datetime:
    """A whole minute so long ago."""
    return datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=minutes)


def zone_of(desk: Desk) -> ZoneInfo:
    """The zone in which the form that is open understands times."""
    return ZoneInfo(desk.page.locator('[name="typed_zone"]').input_value())


def fill_form(desk: Desk, values: Values) -> None:
    """Fill the form that is open; moments are written in the zone that the form speaks of."""
    zone = zone_of(desk)
    fill_in(
        desk.page, {name: [_typed(each, zone) for each in those] for name, those in values.items()}
    )


def _typed(value: str | datetime, zone: ZoneInfo) -> str:
    if isinstance(value, datetime):
        return value.astimezone(zone).strftime("%Y-%m-%dT%H:%M")
    return value


def write(desk: Desk, path: str, values: Values, *, odd: bool = False) -> str:
    """Fill the form at this path, save it and see its preview; returns the update.

    With `odd` characters in it the form is shown once more first, to be looked at.
    """
    page = desk.open(path)
    fill_form(desk, values)
    desk.press("Save and preview")
    if odd:
        desk.sees("Nothing is saved yet: look at these characters first")
        desk.press("Save and preview")
    expect(page).to_have_url(re.compile(r"/updates/[0-9a-f-]{36}/preview"))
    return desk.update_id()


def submit(desk: Desk, update: str, *, when: str = ON_APPROVAL) -> None:
    """Submit a draft, or what was returned, to go out as told."""
    page = desk.open(f"/updates/{update}")
    if when == NOW:
        confirm(desk)
        desk.press("Submit and send now")
    else:
        page.get_by_role("radio", name=when).check()
        desk.press("Submit for approval")
    expect(page).to_have_url(re.compile(rf"/updates/{update}(/watch)?$"))


def hand_back(desk: Desk, update: str, reason: str) -> None:
    """Return it to its author."""
    page = desk.open(f"/updates/{update}")
    page.get_by_text("Return it to").click()
    page.get_by_label("What should be changed?").fill(reason)
    desk.press("Return it")
    desk.sees(reason)


def confirm(desk: Desk) -> None:
    """Tick, or type, all that the page of an update asks of who lets it go."""
    for box in desk.page.get_by_role("group", name="second owner").get_by_role("checkbox").all():
        box.check()
    drill = desk.page.get_by_label("This is a drill")
    if drill.count():
        drill.fill("DRILL")
    else:
        desk.page.get_by_role("checkbox", name=re.compile("^Yes: (send this|tell)")).check()


def approve(desk: Desk, update: str) -> None:
    """Approve what was submitted, its claims too, and see it go out."""
    page = desk.open(f"/updates/{update}")
    confirm(desk)
    desk.press("Approve and send")
    expect(page).to_have_url(re.compile(rf"/updates/{update}/watch$"))


def complete(desk: Desk, update: str) -> None:
    """Watch until the page says that everybody was told."""
    if not desk.path.endswith(f"{update}/watch"):
        desk.open(f"/updates/{update}/watch")
    expect(desk.page.get_by_role("main").get_by_text("Complete", exact=True)).to_be_visible()

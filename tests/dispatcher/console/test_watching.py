"""An update that is being sent, as its watchers see it: numbers, people, stop and resume."""

import asyncio
import json
import re
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from dispatcher.console.board import SLICES, Board, live
from dispatcher.console.door import still_here
from dispatcher.console.pace import Pace, time_left
from dispatcher.console.tallying import Checks, Tallies
from dispatcher.console.watching import _followed
from dispatcher.http.events import ProgressFeed
from dispatcher.ledger import people, shortfalls
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.counting import STATES
from dispatcher.ledger.shortfalls import Figures
from tests.dispatcher.console.conftest import Console
from tests.dispatcher.ledger.crowded import Said, Some, opened, told

MOVING = Said(
    [
        Some("media", "sms", "accepted", 1, 60),
        Some("media", "sms", "failed", 61, 63, "invalid_address"),
        Some("media", "sms", "pending", 64, 80),
        Some("partners", "email", "pending", 1, 20),
    ]
)
DONE = Said(
    [
        Some("media", "sms", "accepted", 1, 60),
        Some("media", "sms", "failed", 61, 63, "invalid_address"),
        Some("partners", "email", "skipped", 1, 2, "no_contact"),
    ]
)


def shown(console: Console, said: Said, *, drill: bool = False) -> str:
    ledger = console.services.ledger
    return told(ledger, opened(ledger, drill=drill), said)


def text(page: str) -> str:
    """What is read on a page."""
    body = re.sub(r"<(script|style|head)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def counted(console: Console, update: str) -> None:
    """The board has counted this update's people and checked its balance: pages need not wait."""
    board: Board = (
        console.app.state.board if hasattr(console.app.state, "board") else _board(console)
    )
    with console.services.ledger.read() as conn:
        view = board.view(conn, update)
    board.tallies.known(update, view.counts, patience=30.0)
    with console.services.ledger.read() as conn:
        board.checks.check(conn, update, view.counts, patience=30.0)


def _board(console: Console) -> Board:
    (mounted,) = [route for route in console.app.routes if getattr(route, "name", "") == "console"]
    board: Board = mounted.app.state.board  # type: ignore[attr-defined]
    return board


# --- the page ---------------------------------------------------------------------------


def test_the_page_tells_messages_people_and_reasons(console: Console) -> None:
    update = shown(console, MOVING)
    counted(console, update)
    page = console.browser("viewer").get(f"/updates/{update}/watch")
    assert page.status_code == 200
    said = text(page.text)
    assert "Being sent." in said
    assert "Messages told 60 of 100 planned" in said
    assert "told 60 leaving now 0 waiting 37 in doubt 0 failed 3 not sent 0" in said
    assert "The address does not exist 3 by SMS" in said
    assert "Mend the contact in the recipients&#39; file" in said
    # People of the media: 80, of whom 60 are told, 17 wait and 3 are not told.
    assert re.search(r"Media 80 60 17 waiting of Media 0 0 3 not told of Media", said)
    assert "See who has not been told : 3 people" in said
    assert len(page.content) < 100_000


def test_a_hint_and_the_own_number_are_all_that_is_told_of_an_address(console: Console) -> None:
    update = shown(console, MOVING)
    counted(console, update)
    page = text(console.browser("viewer").get(f"/updates/{update}/watch").text)
    assert "media-61 +1…61 Media" in page


def test_only_who_may_release_sees_stop(console: Console) -> None:
    update = shown(console, MOVING)
    assert ">Stop…<" in console.browser("author").get(f"/updates/{update}/watch").text
    assert ">Stop…<" not in console.browser("viewer").get(f"/updates/{update}/watch").text
    refused = console.browser("viewer").form(f"/updates/{update}/stop", {"audiences": "media"})
    assert refused.status_code == 403
    assert console.rows("SELECT count(*) FROM release WHERE state = 'stopped'") == [(0,)]


def test_nobody_who_is_not_signed_in_sees_anything(console: Console) -> None:
    update = shown(console, MOVING)
    for path in ("watch", "events", "progress", "shortfalls", "untold", "stop"):
        answer = console.browser(None).get(f"/updates/{update}/{path}")
        assert answer.status_code == 303
        assert "/sign-in" in answer.headers["location"]


def test_what_does_not_exist_is_not_found(console: Console) -> None:
    browser = console.browser("viewer")
    for name in ("0190c8f2-0000-7000-8000-000000000000", "nothing"):
        for path in ("watch", "events", "progress", "shortfalls", "untold", "stop"):
            assert browser.get(f"/updates/{name}/{path}").status_code == 404


def test_while_an_audience_is_planned_nothing_is_complete(console: Console) -> None:
    update = shown(console, Said(DONE.rows, planned=False))
    counted(console, update)
    said = text(console.browser("viewer").get(f"/updates/{update}/watch").text)
    assert "Still being planned: the numbers grow" in said
    assert "Time left still being planned" in said
    assert "Complete" not in said


def test_complete_is_said_once_every_row_was_checked(console: Console) -> None:
    update = shown(console, DONE)
    counted(console, update)
    page = console.browser("viewer").get(f"/updates/{update}/watch").text
    assert "Complete: nothing waits, and every number was checked against every row." in text(page)
    # Nothing more comes: nothing is asked for again.
    assert "data-events" not in page and 'http-equiv="refresh"' not in page


def test_counters_that_differ_from_rows_are_never_complete(console: Console) -> None:
    update = shown(console, DONE)
    with console.services.ledger.read() as conn:
        conn.execute("DELETE FROM attempt WHERE delivery_id IN (SELECT id FROM delivery LIMIT 1)")
        conn.execute(
            "DELETE FROM attempt WHERE delivery_id = (SELECT delivery_id FROM attempt LIMIT 1)"
        )
    counted(console, update)
    said = text(console.browser("viewer").get(f"/updates/{update}/watch").text)
    assert "It is not complete yet" in said and "Complete:" not in said


def test_without_a_script_the_page_comes_again_by_itself(console: Console) -> None:
    update = shown(console, MOVING)
    page = console.browser("viewer").get(f"/updates/{update}/watch").text
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in page


def test_a_drill_looks_like_one(console: Console) -> None:
    browser = console.browser("author")
    real, drill = shown(console, MOVING), shown(console, MOVING, drill=True)
    for path in ("watch", "untold", "stop"):
        assert 'class="drill-band"' in browser.get(f"/updates/{drill}/{path}").text
        assert 'class="drill-band"' not in browser.get(f"/updates/{real}/{path}").text


@pytest.mark.parametrize(("minutes", "missed"), [(5, False), (-5, True)])
def test_the_promised_next_update_is_counted_down_and_missed_aloud(
    console: Console, minutes: int, missed: bool
) -> None:
    promised = datetime.now(UTC) + timedelta(minutes=minutes)
    update = shown(console, Said(MOVING.rows, next_update_at=promised))
    page = console.browser("author").get(f"/updates/{update}/watch").text
    assert f'data-until="{promised.isoformat()}"' in page
    assert ("Missed." in page) is missed
    assert "/updates/new?from=nothing-new" in page


def test_a_paused_message_is_told_and_can_be_resumed(console: Console) -> None:
    update = shown(console, MOVING)
    with console.services.ledger.read() as conn:
        conn.execute("UPDATE message SET paused_at = now() WHERE channel = 'sms'")
    browser = console.browser("author")
    page = browser.get(f"/updates/{update}/watch").text
    assert "A message is paused" in page and "Media, SMS, en: 17 waiting" in text(page)
    asked = text(browser.get(f"/updates/{update}/resume").text)
    assert "Resume: 17 messages will be sent." in asked
    answer = browser.form(f"/updates/{update}/resume", {"audiences": "media"})
    assert answer.status_code == 303
    assert console.rows("SELECT count(*) FROM message WHERE paused_at IS NOT NULL") == [(0,)]


# --- stop and resume --------------------------------------------------------------------


def test_a_stop_is_asked_with_its_effect_and_tells_it_afterwards(console: Console) -> None:
    update = shown(console, MOVING)
    browser = console.browser("author")
    asked = text(browser.get(f"/updates/{update}/stop").text)
    assert "Stop now: 37 messages are still unsent" in asked
    assert "Media 17 unsent" in asked and "Partners and industry bodies 20 unsent" in asked
    answer = browser.form(f"/updates/{update}/stop", {"audiences": "media"})
    assert answer.headers["location"] == f"/console/updates/{update}/watch#stops"
    said = text(browser.get(f"/updates/{update}/watch").text)
    assert "Stopped by Author Media: 17 messages were held back, 60 had left." in said
    # The other audience goes on.
    assert "Stop now: 20 messages are still unsent" in text(
        browser.get(f"/updates/{update}/stop").text
    )
    asked = text(browser.get(f"/updates/{update}/resume").text)
    assert "Resume: 17 messages will be sent." in asked
    browser.form(f"/updates/{update}/resume", {"audiences": "media"})
    said = text(browser.get(f"/updates/{update}/watch").text)
    assert "Resumed by Author" in said and "waiting 37" in said


def test_a_stop_pressed_twice_happens_once(console: Console) -> None:
    update = shown(console, MOVING)
    browser = console.browser("author")
    fields = {"audiences": "media", "once": "o" * 24}
    first = browser.form(f"/updates/{update}/stop", fields)
    browser.form(f"/updates/{update}/resume", {"audiences": "media"})
    second = browser.form(f"/updates/{update}/stop", fields)
    assert (first.status_code, second.status_code) == (303, 303)
    assert first.headers["location"] == second.headers["location"]
    acts = console.rows("SELECT act FROM audit WHERE act LIKE 'update.%%' ORDER BY id")
    assert acts == [("update.stop",), ("update.resume",)]


def test_a_stop_of_nobody_is_asked_again(console: Console) -> None:
    update = shown(console, MOVING)
    answer = console.browser("author").form(f"/updates/{update}/stop", {})
    assert answer.status_code == 422
    assert "Tick at least one audience" in answer.text
    assert console.rows("SELECT count(*) FROM release WHERE state = 'stopped'") == [(0,)]


def test_where_nothing_waits_there_is_nothing_to_stop(console: Console) -> None:
    update = shown(console, DONE)
    asked = text(console.browser("author").get(f"/updates/{update}/stop").text)
    assert "Nothing of this update is unsent" in asked


# --- who was not told -------------------------------------------------------------------


def test_who_was_not_told_is_listed_with_every_way(console: Console) -> None:
    update = shown(console, MOVING)
    browser = console.browser("viewer")
    said = text(browser.get(f"/updates/{update}/untold").text)
    assert re.findall(r"media-\d+", said) == ["media-61", "media-62", "media-63"]
    assert "media-61 Media SMS +1…61 : The address does not exist" in said
    waiting = text(browser.get(f"/updates/{update}/untold?group=waiting&audience=partners").text)
    assert re.findall(r"partners-\d+", waiting) == [f"partners-{n}" for n in range(1, 21)]
    none = browser.get(f"/updates/{update}/untold?reason=failed.content").text
    assert "There is nobody in this list." in none


def test_the_list_leads_on_by_fifty(console: Console) -> None:
    rows = [Some("media", "sms", "failed", 1, 120, "content")]
    update = shown(console, Said(rows))
    browser = console.browser("viewer")
    path, seen, pages = f"/updates/{update}/untold", [], 0
    while path:
        page = browser.get(path).text
        seen += re.findall(r">(media-\d+)<", page)
        more = re.search(r'href="/console([^"]+after=[^"]+)"', page)
        path, pages = (more[1].replace("&amp;", "&") if more else ""), pages + 1
    assert (pages, sorted(seen)) == (3, sorted(f"media-{n}" for n in range(1, 121)))


@pytest.mark.parametrize(
    "query", ["group=all", "after=x", "after=1-2-3", "reason=%27", "audience=" + "a" * 60]
)
def test_a_list_that_cannot_be_is_not_found(console: Console, query: str) -> None:
    update = shown(console, MOVING)
    assert console.browser("viewer").get(f"/updates/{update}/untold?{query}").status_code == 404


# --- the stream -------------------------------------------------------------------------


def data(event: bytes) -> Mapping[str, Any]:
    (line,) = [line for line in event.decode().split("\n") if line.startswith("data: ")]
    found: Mapping[str, Any] = json.loads(line.removeprefix("data: "))
    return found


def test_the_stream_of_what_is_complete_is_one_event(console: Console) -> None:
    update = shown(console, DONE)
    browser = console.browser("viewer")
    stream = browser.get(f"/updates/{update}/events")
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = [part for part in stream.content.split(b"\n\n") if b"event: progress" in part]
    (found,) = [data(event) for event in events]
    assert (found["state"], found["ends"]) == ("complete", True)
    assert found["numbers"]["told"] == "60"
    assert found["bars"]["c.sms"]["failed"] == 3
    (seen,) = re.findall(rb"id: (\w+)", events[0])
    again = browser.client.get(
        f"/console/updates/{update}/events", headers={"Last-Event-ID": seen.decode()}
    )
    assert again.status_code == 204


async def test_the_stream_tells_each_change(console: Console) -> None:
    update = shown(console, MOVING)
    services, who = console.services, console.person("viewer")
    feed, board = ProgressFeed(services, interval=0.01), Board(services)
    seen = type("Visitor", (), {"zone": "UTC", "person": who})()
    first = await asyncio.to_thread(feed.now, update)
    stream = _followed(feed, board, seen, update, first)
    assert data(await anext(stream))["numbers"]["told"] == "60"

    def told_all() -> None:
        with services.ledger.read() as conn:
            conn.execute("UPDATE batch SET accepted = accepted + pending, pending = 0")
            conn.execute("UPDATE delivery SET state = 'accepted' WHERE state = 'pending'")

    await asyncio.to_thread(told_all)
    async with asyncio.timeout(30):
        async for event in stream:
            if data(event)["numbers"]["told"] == "97":
                break
    await stream.aclose()
    assert len(feed.feed) == 0


async def test_whoever_is_shut_out_while_watching_sees_nothing_more(console: Console) -> None:
    update = shown(console, MOVING)
    services, who = console.services, console.person("viewer")
    with services.ledger.transaction() as work:
        people.start_session(work.conn, who.id, "theirs")
    feed, board = ProgressFeed(services, interval=0.01), Board(services)
    seen: Any = type("Visitor", (), {"zone": "UTC", "person": who, "token": "theirs"})()
    first = await asyncio.to_thread(feed.now, update)
    still = partial(still_here, services, seen)
    stream = _followed(feed, board, seen, update, first, still=still)
    await anext(stream)

    def changed() -> None:
        with services.ledger.read() as conn:
            conn.execute("UPDATE batch SET accepted = accepted + 1, pending = pending - 1")

    await asyncio.to_thread(changed)
    async with asyncio.timeout(30):
        while data(await anext(stream))["numbers"]["told"] == "60":
            pass

    def shut_out() -> None:
        with services.ledger.transaction() as work:
            people.end_sessions(work.conn, who.id)

    await asyncio.to_thread(shut_out)
    await asyncio.to_thread(changed)
    async with asyncio.timeout(30):
        assert await anext(stream, None) is None
    assert len(feed.feed) == 0


def test_every_state_of_a_row_is_in_exactly_one_slice_of_a_bar() -> None:
    assert sorted(state for *_, states in SLICES for state in states) == sorted(STATES)


def test_live_numbers_are_those_of_the_page(console: Console) -> None:
    update = shown(console, MOVING)
    browser = console.browser("viewer")
    with console.services.ledger.read() as conn:
        found = live(_board(console).view(conn, update), zone="America/New_York")
    page = browser.get(f"/updates/{update}/progress").text
    numbers = found["numbers"]
    assert isinstance(numbers, dict)
    assert f'data-shape="{found["shape"]}"' in page
    assert re.search(rf'id="told">{numbers["told"]}<', page)
    assert all(f'id="{key}">' in page and key in numbers for key in ("told", "left", "rate"))
    for key in re.findall(r'data-n="([^"]+)"', page):
        assert key in numbers, key
    bars = found["bars"]
    assert isinstance(bars, dict)
    assert set(re.findall(r'id="bar-([^"]+)"', page)) == set(bars)


STOPPED = Said(
    [
        Some("media", "sms", "accepted", 1, 8),
        Some("media", "sms", "stopped", 9, 140),
        Some("media", "none", "skipped", 141, 143, "no_contact"),
    ],
    state="stopped",
)


def test_what_was_stopped_is_not_through_and_nobody_is_a_channel(console: Console) -> None:
    update = shown(console, STOPPED)
    page = console.browser("viewer").get(f"/updates/{update}/watch").text
    said = text(page)
    by_channel = said[said.index("By channel") : said.index("By audience")]
    assert by_channel.count("Time left: stopped") == 1
    assert "No way to reach them with this update, 3 people" in by_channel
    assert by_channel.count("Time left") == 1 and "None" not in by_channel
    assert re.search(r'id="left">stopped<', page)
    with console.services.ledger.read() as conn:
        found = live(_board(console).view(conn, update), zone="UTC")
    numbers = found["numbers"]
    assert isinstance(numbers, dict)
    assert numbers["c.sms.left"] == numbers["left"] == "stopped"


def test_who_was_stopped_before_being_counted_is_in_no_number_and_said_to_be(
    console: Console,
) -> None:
    said = Said(
        [Some("media", "sms", "accepted", 1, 8), Some("partners", "email", "accepted", 1, 2)]
    )
    update = shown(console, said)
    counted(console, update)
    with console.services.ledger.transaction() as work:
        work.conn.execute(
            "UPDATE release SET state = 'stopped', planned_at = NULL WHERE audience = 'partners'"
        )
        for table in ("delivery", "batch", "planned"):
            work.conn.execute(
                f"DELETE FROM {table} WHERE update_id = %s" + (" AND channel = 'email'"),
                (update,),
            )
    counted(console, update)
    browser = console.browser("approver")
    watch = text(browser.get(f"/updates/{update}/watch").text)
    untold = text(browser.get(f"/updates/{update}/untold").text)
    for page in (watch, untold):
        assert "Partners and industry bodies : stopped before anybody was counted" in page
    assert "Time left stopped" in watch
    # Nothing is left to stop, and a resume is more than nothing.
    assert "Stop…" not in watch and "Resume…" in watch
    assert "nothing more is under way: nobody , as of" in untold
    resume = text(browser.get(f"/updates/{update}/resume").text)
    assert "its messages will be made and sent" in resume and "0 messages" not in resume
    assert "0 to send" not in resume


def test_who_has_no_channel_is_listed_as_such(console: Console) -> None:
    update = shown(console, STOPPED)
    said = text(
        console.browser("viewer").get(f"/updates/{update}/untold?reason=skipped.no_contact").text
    )
    assert "No channel : No address for any channel of this audience" in said
    assert "None" not in said.partition("None among")[0]


# --- counting in the background ---------------------------------------------------------


class Counter:
    """Counts when it is let, and knows how often."""

    def __init__(self) -> None:
        self.times = 0
        self.may = threading.Event()

    def __call__(self, conn: Connection, update_id: str) -> Figures:
        assert self.may.wait(30)
        self.times += 1
        return Figures(
            datetime.now(UTC), (), (shortfalls.People("media", self.times, 0, 0, 0, 0, 0),)
        )


def test_a_count_is_made_once_for_the_same_counters(console: Console) -> None:
    count, now = Counter(), [0.0]
    tallies = Tallies(console.services.ledger, clock=lambda: now[0], counter=count)
    assert tallies.known("u", (1,), patience=0.0).figures is None
    assert tallies.known("u", (1,), patience=0.0).figures is None
    count.may.set()
    first = tallies.known("u", (1,), patience=30.0)
    assert first.current and first.figures is not None
    assert tallies.known("u", (1,), patience=0.0) == first
    # The numbers have moved, but the last count is too young to be made again.
    assert tallies.known("u", (2,), patience=0.0) == type(first)(first.figures, False)
    tallies.close()
    assert count.times == 1


def test_a_count_is_made_again_when_the_counters_moved_and_it_has_rested(console: Console) -> None:
    count, now = Counter(), [0.0]
    count.may.set()
    tallies = Tallies(console.services.ledger, clock=lambda: now[0], counter=count)
    first = tallies.known("u", (1,), patience=30.0)
    now[0] = 60.0
    old = tallies.known("u", (2,), patience=0.0)
    assert (old.figures, old.current) == (first.figures, False)
    while not tallies.known("u", (2,), patience=0.0).current:
        threading.Event().wait(0.01)
    assert count.times == 2
    tallies.close()


def test_a_page_does_not_wait_for_the_check_and_says_not_complete_meanwhile(
    console: Console,
) -> None:
    update = shown(console, DONE)
    checks = Checks(console.services.ledger)
    counts = (1, 2, 3)
    with console.services.ledger.read() as conn:
        assert checks.check(conn, update, counts, patience=0.0) is False
        assert checks.check(conn, update, counts, patience=30.0) is True
        assert checks.check(conn, update, counts, patience=0.0) is True
    checks.close()


# --- rate and time left -----------------------------------------------------------------


def test_the_rate_is_that_of_the_last_ten_seconds() -> None:
    pace = Pace()
    assert pace.rates(0.0, {"sms": 0}) == {}
    for second in range(31):
        gone = 100 * second if second <= 20 else 2_000
        pace.note(float(second), {"sms": gone})
        if second == 20:
            assert pace.rates(20.0, {"sms": gone})["sms"] == pytest.approx(100, rel=0.01)
    assert pace.rates(30.5, {"sms": 2_000})["sms"] == 0.0


@pytest.mark.parametrize(
    ("rates", "bounds", "left"),
    [
        ({"sms": 10.0}, {}, {"sms": 100.0}),
        # No faster than the sender may go, whatever the last seconds were like.
        ({"sms": 100.0}, {"sms": 50.0}, {"sms": 50.0}),
        # Not measured yet: at the sender's own pace.
        ({}, {"sms": 50.0}, {"sms": 50.0}),
        # Measured, and it does not move.
        ({"sms": 0.0}, {"sms": 50.0}, {}),
        ({}, {}, {}),
    ],
)
def test_the_time_left(
    rates: dict[str, float], bounds: dict[str, float], left: dict[str, float]
) -> None:
    assert time_left({"sms": 1_000, "email": 0}, rates, bounds) == left

"""Whom the form being typed would reach: the same people that the stored update then reaches."""

import re

import pytest

from tests.dispatcher.console.conftest import Browser, Console
from tests.dispatcher.console.filling import Filled, form_of
from tests.dispatcher.console.test_previewing import customers, drafted, release, shown

FETCHED = {"X-Requested-With": "fetch"}


@pytest.fixture
def author(console: Console) -> Browser:
    return console.browser("author")


def new_form(author: Browser) -> Filled:
    return (
        form_of(author.get("/incidents/new").text)
        .put("kind", "real")
        .put("services", "voice")
        .put("regions", "US-TX")
        .put("emergency_calls.status", "limited")
        .put("audiences", "consumers")
    )


def said(author: Browser, form: Filled) -> str:
    answer = author.raw("/live/reach", form.fields, headers=FETCHED)
    assert answer.status_code == 200
    return shown("<main" + answer.text)


def test_a_new_incident_is_counted_while_it_is_written(console: Console, author: Browser) -> None:
    customers(console, 6)
    customers(console, 1, "x_account")
    form = new_form(author)
    # Title, source and start are still empty: nobody is told of those.
    text = said(author, form)
    assert "Reaches 6 people" in text
    assert "1 cannot be reached" in text
    assert "Reaches nobody" in said(author, form.put("services", "broadband"))


def test_a_form_that_says_too_little_is_not_counted(author: Browser) -> None:
    form = form_of(author.get("/incidents/new").text)
    assert "counted once services and a phase are chosen" in said(author, form)


def test_an_update_that_is_changed_is_counted_as_it_would_be_then(
    console: Console, author: Browser
) -> None:
    customers(console, 4)
    first = drafted(console, audiences=["consumers"])
    release(console, first)
    console.services.planner.plan(first)
    with console.services.ledger.transaction() as work:
        work.conn.execute("UPDATE delivery SET state = 'accepted', accepted_at = now()")
        incident = work.conn.execute("SELECT number FROM incident").fetchone()
        assert incident is not None
    customers(console, 3, "email")
    form = form_of(author.get(f"/incidents/INC-{incident[0]:04d}/updates/new").text)
    form.put("audiences", "consumers")
    assert "Reaches 7 people" in said(author, form.put("phase", "monitoring"))
    # Of its end only those hear who heard of it.
    assert "Reaches 4 people" in said(author, form.put("phase", "resolved"))


def test_what_was_released_meanwhile_is_not_counted(console: Console, author: Browser) -> None:
    update = drafted(console, audiences=["consumers"])
    form = form_of(author.get(f"/updates/{update}/write").text)
    release(console, update)
    assert "counted once" in said(author, form)


def test_only_who_may_write_is_answered(console: Console, author: Browser) -> None:
    fields = new_form(author).fields
    without = [(name, value) for name, value in fields if name != "csrf"]
    assert author.raw("/live/reach", without).status_code == 403
    assert console.browser("viewer").form("/live/reach", {}).status_code == 403


def test_the_page_says_where_the_answer_goes(author: Browser) -> None:
    page = author.get("/incidents/new").text
    assert re.search(r'data-reach="/console/live/reach" hidden', page)
    assert "/console/static/reach.js?" in page

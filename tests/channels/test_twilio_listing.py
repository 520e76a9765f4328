"""Finding a message in doubt in Twilio's list: what counts as it, and when no is certain."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from channels.contract import (
    Accepted,
    CannotTell,
    Envelope,
    Finding,
    Found,
    Message,
    NotTaken,
    Reconciler,
    Slot,
)
from channels.sandbox import credentials
from channels.sandbox.config import SandboxConfig
from channels.sandbox.server import running
from channels.transport import CurlTransport
from channels.twilio_requests import PAGE_SIZE
from channels.twilio_sms import MAX_PAGES, READS_AT_ONCE, TwilioSms
from tests.channels.test_twilio_sms import SENDER, SID, settings, sms
from tests.contracts.adapters import outcomes_of
from tests.contracts.server import HANG, RESET, Answer, Raw, Received, Reply, refused_url, serving

TRIED = datetime(2026, 11, 22, 12, 0, 30, tzinfo=UTC)
PHONE = "+15550100001"
PATH = f"/2010-04-01/Accounts/{SID}/Messages.json"
SERVICE = "MG" + "0" * 32


def sid(number: int) -> str:
    return f"SM{number:032x}"


def row(number: int = 1, after: float = 1.0, **more: object) -> dict[str, Any]:
    """A message as Twilio lists it, created so many seconds after the try; queued, so unsent."""
    made = {
        "sid": sid(number),
        "to": PHONE,
        "from": SENDER,
        "messaging_service_sid": None,
        "body": "Service is back.",
        "status": "queued",
        "date_created": format_datetime(TRIED + timedelta(seconds=after)),
        "date_sent": None,
    }
    return made | more


def page(*rows: Mapping[str, Any], following: str | None = None) -> Reply:
    return Reply(200, json.dumps({"messages": rows, "next_page_uri": following}).encode())


def doubt(key: str = "d1", **more: Any) -> Envelope:
    return Envelope(key, **({"address": PHONE, "tried_at": TRIED} | more))


async def find(
    url: str, envelopes: Sequence[Envelope], message: Message | None = None, timeout: float = 5.0
) -> Mapping[str, Finding]:
    transport = CurlTransport()
    adapter = TwilioSms(settings(url, timeout), transport)
    assert isinstance(adapter, Reconciler)
    try:
        return await adapter.find(message or sms(), envelopes)
    finally:
        await transport.aclose()


async def finding(*rows: Mapping[str, Any], message: Message | None = None, **more: Any) -> Finding:
    async with serving(lambda r: page(*rows)) as server:
        return (await find(server.url, [doubt(**more)], message))["d1"]


async def test_asks_by_number_only_and_posts_nothing() -> None:
    """Not by date of sending, which a queued message has none of, and not by sender, which a
    message of a service has none of at first."""
    async with serving(lambda r: page(row())) as server:
        assert await find(server.url, [doubt()]) == {"d1": Found(sid(1))}
    (received,) = server.requests
    assert (received.method, received.path) == ("GET", PATH)
    assert received.query == {"To": PHONE, "PageSize": str(PAGE_SIZE)}
    assert received.headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (row(), Found(sid(1))),
        (row(after=-59.0), Found(sid(1))),
        (row(after=-61.0), NotTaken()),
        (row(after=86_400.0), Found(sid(1))),
        (row(status="failed"), Found(sid(1))),
        (row(body="Service is back"), NotTaken()),
        (row(body="service is back."), NotTaken()),
        (row(**{"from": "+15005550001"}), NotTaken()),
        (row(**{"from": None, "messaging_service_sid": SERVICE}), NotTaken()),
        (row(to="+15550100002"), NotTaken()),
        (row(number=7), NotTaken()),
    ],
)
async def test_what_counts_as_the_message(listed: dict[str, Any], expected: Finding) -> None:
    assert await finding(listed, known_refs=frozenset({sid(7)})) == expected


async def test_a_service_counts_as_sender_before_it_has_chosen_a_number() -> None:
    message = sms(sender=SERVICE)
    queued = row(**{"from": None, "messaging_service_sid": SERVICE})
    assert await finding(queued, message=message) == Found(sid(1))
    assert await finding(row(messaging_service_sid=SERVICE), message=message) == Found(sid(1))
    assert await finding(row(), message=message) == NotTaken()


async def test_the_text_is_this_recipients_own() -> None:
    message = sms("Hi [[name]]", slots={"name": Slot(10)})
    rows = row(1, body="Hi Bob"), row(2, body="Hi Ana")
    assert await finding(*rows, message=message, slots={"name": "Ana"}) == Found(sid(2))
    assert await finding(*rows, message=message, slots={"name": "Eve"}) == NotTaken()
    assert await finding(*rows, message=message, slots={"name": "too long a name"}) == CannotTell()


async def test_smart_encoding_may_have_changed_the_text() -> None:
    message = sms("We’re on it… – “soon”")
    assert await finding(row(body='We\'re on it... - "soon"'), message=message) == Found(sid(1))


async def test_two_in_doubt_take_one_each() -> None:
    late = doubt("late", tried_at=TRIED + timedelta(seconds=300))
    cases: list[tuple[list[dict[str, Any]], dict[str, Finding]]] = [
        ([row(2, 301), row(1, 1)], {"late": Found(sid(2)), "d1": Found(sid(1))}),
        ([row(1, 1)], {"late": NotTaken(), "d1": Found(sid(1))}),
        ([row(2, 301)], {"late": Found(sid(2)), "d1": NotTaken()}),
    ]
    for rows, expected in cases:
        async with serving(lambda r, rows=rows: page(*rows)) as server:
            assert await find(server.url, [doubt(), late]) == expected
        assert len(server.requests) == 1


async def test_a_try_of_unknown_time_is_not_judged() -> None:
    async with serving(lambda r: page(row())) as server:
        assert await find(server.url, [doubt(tried_at=None)]) == {"d1": CannotTell()}
        assert await find(server.url, [doubt()], sms(sender="")) == {"d1": CannotTell()}
        assert await find(server.url, []) == {}
    assert server.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        Reply(200, b"<html>"),
        Reply(200, b"[]"),
        Reply(200, b"{}"),
        Reply(200, b'{"messages": []}'),
        Reply(200, b'{"messages": null, "next_page_uri": null}'),
        Reply(200, b'{"messages": [null], "next_page_uri": null}'),
        Reply(200, b'{"messages": [], "next_page_uri": "/nowhere"}'),
        Reply(200, b'{"messages": [], "next_page_uri": "http://[/"}'),
        Reply(200, b'{"messages": [], "next_page_uri": 7}'),
        page(row(date_created=None)),
        page(row(date_created="soon")),
        page(row(sid=None)),
        Reply(401),
        Reply(404, b'{"messages": [], "next_page_uri": null}'),
        Reply(429),
        Reply(500, b'{"messages": [], "next_page_uri": null}'),
        Reply(503),
        RESET,
        Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
        HANG,
    ],
)
async def test_anything_less_than_a_whole_list_is_no_answer(answer: Answer) -> None:
    async with serving(lambda r: answer) as server:
        found = await find(server.url, [doubt()], timeout=0.3 if answer is HANG else 5.0)
        assert found == {"d1": CannotTell()}
    assert len(server.requests) == 1


async def test_a_provider_out_of_reach_is_no_answer() -> None:
    assert await find(refused_url(), [doubt()]) == {"d1": CannotTell()}


def paged(*pages: Sequence[Mapping[str, Any]], endless: bool = False) -> Any:
    """Pages one after the other, each naming the next as Twilio does."""

    def script(received: Received) -> Answer:
        assert received.path == PATH
        assert received.query["To"] == PHONE
        number = int(received.query.get("Page", "0"))
        assert received.query.get("PageToken", "PA0") == f"PA{number}"
        last = number + 1 >= len(pages) and not endless
        following = (
            f"{PATH}?To=%2B15550100001&PageSize=50&Page={number + 1}&PageToken=PA{number + 1}"
        )
        return page(*pages[min(number, len(pages) - 1)], following=None if last else following)

    return script


@pytest.mark.parametrize(
    ("pages", "expected", "requests"),
    [
        ([[row(2, body="other")], [row(1)]], Found(sid(1)), 2),
        ([[row(2, body="other")], [row(1, -7200)]], NotTaken(), 2),
        ([[row(3, -3600), row(2, 5, body="other")], [row(1)]], Found(sid(1)), 2),
        ([[row(3, -3600), row(2, -3601)], [row(1)]], NotTaken(), 1),
    ],
    ids=["on the second page", "nowhere", "a page of old and new", "a page of old ones"],
)
async def test_pages_are_followed_back_to_before_the_try(
    pages: Sequence[Sequence[Mapping[str, Any]]], expected: Finding, requests: int
) -> None:
    async with serving(paged(*pages)) as server:
        assert await find(server.url, [doubt()]) == {"d1": expected}
    assert len(server.requests) == requests


async def test_a_list_without_end_is_no_answer() -> None:
    async with serving(paged([row(body="other")], endless=True)) as server:
        assert await find(server.url, [doubt()]) == {"d1": CannotTell()}
    assert len(server.requests) == MAX_PAGES


async def test_what_was_read_before_a_break_can_still_say_yes() -> None:
    def script(received: Received) -> Answer:
        if "PageToken" in received.query:
            return RESET
        return page(row(), following=f"{PATH}?PageToken=PA1&Page=1")

    other = doubt("d2")
    async with serving(script) as server:
        found = await find(server.url, [doubt(), other])
    assert sorted(map(str, found.values())) == sorted(map(str, [Found(sid(1)), CannotTell()]))


async def test_a_next_page_elsewhere_is_asked_of_the_provider_itself() -> None:
    """Credentials go to the configured host only, whatever an answer names."""

    def script(received: Received) -> Answer:
        if "PageToken" in received.query:
            return page(row())
        return page(following="http://evil.example/steal?PageToken=PA1&Page=1")

    async with serving(script) as server:
        assert await find(server.url, [doubt()]) == {"d1": Found(sid(1))}
    assert [r.path for r in server.requests] == [PATH, PATH]


async def test_few_lists_at_once() -> None:
    def script(received: Received) -> Answer:
        listed = page(row(int(received.query["To"][-3:]), to=received.query["To"]))
        return replace(listed, delay=0.005)

    envelopes = [doubt(f"d{n}", address=f"+15550100{n:03d}") for n in range(60)]
    async with serving(script) as server:
        found = await find(server.url, envelopes)
        assert server.peak == READS_AT_ONCE
    assert found == {f"d{n}": Found(sid(n)) for n in range(60)}


async def test_on_the_simulator() -> None:
    """It knows Twilio's API without knowing this adapter: send, lose the answer, ask, poll."""
    transport = CurlTransport()
    config = SandboxConfig(twilio_list_lag=0.0)
    async with running(config) as sandbox:
        given = {"account_sid": config.twilio_account_sid, "auth_token": config.twilio_auth_token}
        adapter = TwilioSms(settings(sandbox.url, **given), transport)
        tried = datetime.now(UTC)
        message = sms(sender=credentials.TWILIO_FROM)
        first = [doubt(f"d{n}", address=f"+15550100{n:03d}", tried_at=tried) for n in range(3)]
        sent = await outcomes_of(adapter, message, first)
        refs = {key: outcome.ref for key, outcome in sent.items() if isinstance(outcome, Accepted)}
        assert len(refs) == 3
        never = doubt("d9", address="+15550100009", tried_at=tried)
        known = replace(first[0], known_refs=frozenset(refs.values()))
        assert await adapter.find(message, [known, *first[1:], never]) == {
            "d0": NotTaken(),
            "d1": Found(refs["d1"]),
            "d2": Found(refs["d2"]),
            "d9": NotTaken(),
        }
        assert set(await adapter.poll(list(refs.values()))) == set(refs.values())
    await transport.aclose()


def test_settle_after_is_a_setting() -> None:
    plain = TwilioSms(settings(), CurlTransport())
    tuned = TwilioSms(settings(settle_after=2.5, concurrency=7), CurlTransport())
    assert plain.limits.settle_after == TwilioSms.limits.settle_after == 60.0
    assert (tuned.limits.settle_after, tuned.limits.concurrency) == (2.5, 7)

"""The X adapter on the shared contract, and what is X's own: threads, refusals, the timeline."""

import asyncio
import base64
import hashlib
import hmac
import html
import itertools
import json
import re
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

import pytest
from pydantic import ValidationError

from channels.contract import (
    Accepted,
    Adapter,
    AdapterBroken,
    CannotTell,
    Envelope,
    Found,
    Message,
    MessageRefused,
    NotTaken,
    Reason,
    RecipientRefused,
    Reconciler,
    Severity,
    Slot,
    TryLater,
    Unknown,
)
from channels.sandbox import credentials
from channels.sandbox.config import SandboxConfig
from channels.sandbox.server import running
from channels.transport import CurlTransport, Transport
from channels.x_answers import canonical
from channels.x_social import XSettings, XSocial
from tests.contracts.adapters import Case, HttpContract, outcomes_of
from tests.contracts.server import HANG, RESET, Answer, Received, Reply, ScriptedServer, serving

CONSUMER, CONSUMER_SECRET = "the-consumer-key", "the-consumer-secret"
TOKEN, TOKEN_SECRET = "77-the-access-token", "the-access-token-secret"
PROBLEMS = "https://api.twitter.com/2/problems"
NOW = 1_800_000_000.0
POSTS = "/2/tweets"


def settings(url: str, **more: Any) -> XSettings:
    given = {
        "consumer_key": CONSUMER,
        "consumer_secret": CONSUMER_SECRET,
        "access_token": TOKEN,
        "access_token_secret": TOKEN_SECRET,
        "base_url": url,
    }
    return XSettings(**(given | more))


def post(text: str = "Calls fail in Dallas. We are on it.", **slots: Slot) -> Message:
    return Message(id="m", channel="social", locale="en", parts={"text": text}, slots=slots)


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, **more: object
) -> Reply:
    body = {"title": "No", "detail": detail, "status": status, "type": "about:blank", **more}
    return Reply(status, json.dumps(body).encode(), headers or {})


DUPLICATE = problem(403, "You are not allowed to create a Tweet with duplicate content.")
REPLY_RULE = problem(
    403, "Reply to this conversation is not allowed: the author has not mentioned you."
)
SUSPENDED = problem(403, "User is suspended.", type=f"{PROBLEMS}/user-suspended")
FORBIDDEN = problem(403, "Your client may not post.", type=f"{PROBLEMS}/client-forbidden")

IDS = itertools.count(1_900_000_000_000_000_000)


def created(received: Received) -> Reply:
    text = json.loads(received.body)["text"]
    body = {"data": {"id": str(next(IDS)), "text": text, "edit_history_tweet_ids": ["1"]}}
    return Reply(201, json.dumps(body).encode())


class TestXSocial(HttpContract):
    module = "channels.x_social"
    sdk = ("tweepy", "requests", "requests_oauthlib", "oauthlib")
    message = post()
    addresses = ("@acme_help", "@acme_news")
    secrets = (CONSUMER, CONSUMER_SECRET, TOKEN, TOKEN_SECRET)
    at_limit = {"280": post("a" * 280), "140 pictures": post("💡" * 140)}
    over_limit = {
        "281": post("a" * 281),
        "281 with a value": post("a" * 271 + "[[n]]", n=Slot(5)),
        "141 pictures": post("💡" * 141),
        "two cashtags": post("$T and $VZ are down"),
    }
    statuses = {
        "duplicate": Case(DUPLICATE, MessageRefused, Reason.DUPLICATE_CONTENT),
        "suspended": Case(SUSPENDED, AdapterBroken, Reason.ACCOUNT),
        "locked": Case(
            problem(403, "To protect our users, your account is temporarily locked."),
            AdapterBroken,
            Reason.ACCOUNT,
        ),
        "no permission": Case(FORBIDDEN, AdapterBroken, Reason.PERMISSION),
        "forbidden without a word": Case(Reply(403, b""), AdapterBroken, Reason.PERMISSION),
        "forbidden in HTML": Case(
            Reply(403, b"<html>duplicate</html>"), AdapterBroken, Reason.PERMISSION
        ),
        "too long": Case(
            Reply(403, b'{"errors":[{"code":186,"message":"Tweet needs to be shorter."}]}'),
            MessageRefused,
            Reason.TOO_LONG,
        ),
        "400": Case(
            problem(400, "One or more parameters invalid."), MessageRefused, Reason.CONTENT
        ),
        "401": Case(problem(401, "Unauthorized"), AdapterBroken, Reason.CREDENTIALS),
        "no credit": Case(problem(402, "CreditsDepleted"), AdapterBroken, Reason.ACCOUNT),
        "404": Case(Reply(404, b"<html>"), AdapterBroken, Reason.ACCOUNT),
        "redirect": Case(
            Reply(307, b"", {"Location": "/2/elsewhere"}), AdapterBroken, Reason.ACCOUNT
        ),
        "429 with a time of reset": Case(
            problem(429, "Too Many Requests", {"x-rate-limit-reset": str(int(NOW) + 321)}),
            TryLater,
            Reason.THROTTLED,
            retry_after=321,
        ),
        "429 without": Case(Reply(429, b""), TryLater, Reason.THROTTLED),
        "429 with an odd one": Case(
            Reply(429, b"[]", {"x-rate-limit-reset": "soon"}), TryLater, Reason.THROTTLED
        ),
        "429 for the day": Case(
            problem(
                429,
                "Too Many Requests",
                {
                    "x-rate-limit-reset": str(int(NOW) + 60),
                    "x-user-limit-24hour-remaining": "0",
                    "x-user-limit-24hour-reset": str(int(NOW) + 7200),
                },
            ),
            TryLater,
            Reason.THROTTLED,
            retry_after=7200,
        ),
        "the month's cap": Case(
            problem(429, "Usage cap exceeded", type=f"{PROBLEMS}/usage-capped"),
            TryLater,
            Reason.QUOTA,
        ),
        "503": Case(
            Reply(503, b"<html>", {"Retry-After": "11"}),
            TryLater,
            Reason.PROVIDER_ERROR,
            retry_after=11,
        ),
        "500": Case(Reply(500, b"<html>"), Unknown, Reason.PROVIDER_ERROR),
        "504": Case(Reply(504, b""), Unknown, Reason.PROVIDER_ERROR),
        "garbage": Case(Reply(201, b"\xff{"), Unknown, Reason.UNREADABLE_ANSWER),
        "a list": Case(Reply(201, b"[]"), Unknown, Reason.UNREADABLE_ANSWER),
        "an odd id": Case(Reply(201, b'{"data":{"id":"../1"}}'), Unknown, Reason.UNREADABLE_ANSWER),
        "odd errors": Case(
            Reply(400, b'{"errors":{"a":1},"detail":7}'), MessageRefused, Reason.CONTENT
        ),
        "a list of errors": Case(Reply(400, b"[1]"), MessageRefused, Reason.CONTENT),
    }

    def build(self, url: str, transport: Transport, timeout: float) -> Adapter:
        return XSocial(settings(url, timeout=timeout), transport, clock=lambda: NOW)

    def accept(self, received: Received) -> Answer:
        return created(received)


@asynccontextmanager
async def x(script: Any = created, **more: Any) -> AsyncIterator[tuple[XSocial, ScriptedServer]]:
    transport = CurlTransport()
    async with serving(script) as server:
        yield XSocial(settings(server.url, **more), transport, clock=lambda: NOW), server
        await transport.aclose()


def envelope(reply_to: str | None = None, attempt: int = 1, **slots: str) -> Envelope:
    return Envelope("d1", "@acme_help", slots, reply_to, attempt)


async def outcome(adapter: XSocial, message: Message, one: Envelope) -> Any:
    (only,) = (await outcomes_of(adapter, message, [one])).values()
    return only


# --- the request -------------------------------------------------------------------------


def signature(method: str, url: str, query: Mapping[str, str], header: str) -> tuple[str, str]:
    """(signature given, signature due) by RFC 5849, 3.4, worked out here by hand."""
    fields = {k: unquote(v) for k, v in re.findall(r'(\w+)="([^"]*)"', header)}
    given = fields.pop("oauth_signature")
    assert (fields["oauth_consumer_key"], fields["oauth_token"]) == (CONSUMER, TOKEN)
    pairs = sorted((quote(k, safe=""), quote(v, safe="")) for k, v in {**fields, **query}.items())
    text = "&".join(f"{k}={v}" for k, v in pairs)
    base = "&".join(quote(part, safe="") for part in (method, url, text))
    key = f"{CONSUMER_SECRET}&{TOKEN_SECRET}".encode()
    due = base64.b64encode(hmac.digest(key, base.encode(), hashlib.sha1)).decode()
    return given, due


async def test_a_post_is_signed_for_the_address_that_tweepy_knows():
    async with x() as (adapter, server):
        sent = await outcome(adapter, post("Für [[n]] ☂", n=Slot(10)), envelope(n="alle & all"))
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", POSTS)
    assert json.loads(request.body) == {"text": "Für alle & all ☂"}
    assert request.headers["content-type"] == "application/json"
    assert "accept-encoding" not in request.headers
    given, due = signature(
        "POST", f"https://api.twitter.com{POSTS}", {}, request.headers["authorization"]
    )
    assert given == due
    assert sent == Accepted("d1", sent.ref)
    assert sent.ref.isdecimal()


def test_by_itself_it_posts_where_it_signs():
    keys = ("consumer_key", "consumer_secret", "access_token", "access_token_secret")
    assert XSettings(**dict.fromkeys(keys, "k")).base_url == "https://api.twitter.com"


async def test_the_loop_runs_on_while_tweepy_waits():
    """tweepy is synchronous; a slow X must not stop everything else in the worker."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    def slow(received: Received) -> Answer:
        reply = created(received)
        return Reply(reply.status, reply.body, delay=0.3)

    async with x(slow) as (adapter, _):
        ticking = asyncio.create_task(tick())
        assert isinstance(await outcome(adapter, post(), envelope()), Accepted)
        ticking.cancel()
    assert ticks > 0


async def test_cancelling_lets_go_of_the_request_and_the_thread():
    async with x(lambda _: HANG, timeout=30) as (adapter, server):
        sending = asyncio.create_task(outcome(adapter, post(), envelope()))
        while not server.requests:
            await asyncio.sleep(0.005)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        async with asyncio.timeout(5):  # the thread is done long before the 30 s are over
            await asyncio.get_running_loop().shutdown_default_executor()
    assert not [t for t in threading.enumerate() if t.name.startswith("asyncio_") and t.is_alive()]


# --- threads -----------------------------------------------------------------------------


async def test_an_update_replies_to_the_one_before():
    async with x() as (adapter, server):
        assert isinstance(await outcome(adapter, post(), envelope("1800")), Accepted)
    assert json.loads(server.requests[0].body)["reply"] == {"in_reply_to_tweet_id": "1800"}


@pytest.mark.parametrize(
    "refusal",
    [
        REPLY_RULE,
        problem(403, "You attempted to reply to a Tweet that is deleted or not visible to you."),
        problem(403, "You have been blocked from replying."),
        Reply(
            400,
            b'{"errors":[{"parameters":{"reply.in_reply_to_tweet_id":["1800"]},"message":"bad"}]}',
        ),
    ],
)
async def test_where_replies_are_refused_it_is_posted_on_its_own(refusal: Reply):
    def script(received: Received) -> Answer:
        return refusal if "reply" in json.loads(received.body) else created(received)

    async with x(script) as (adapter, server):
        result = await outcome(adapter, post(), envelope("1800"))
    assert [json.loads(r.body) for r in server.requests] == [
        {"text": post().parts["text"], "reply": {"in_reply_to_tweet_id": "1800"}},
        {"text": post().parts["text"]},
    ]
    assert isinstance(result, Accepted)
    assert "on its own" in result.detail


@pytest.mark.parametrize(
    "answer",
    [
        DUPLICATE,
        SUSPENDED,
        FORBIDDEN,
        Reply(403, b"<html>"),
        problem(403, "Your Tweet text is too long."),
        problem(400, "Invalid."),
        Reply(401),
        Reply(429),
        Reply(500),
        Reply(503),
        Reply(201, b"?"),
        RESET,
    ],
)
async def test_nothing_else_makes_it_post_twice(answer: Answer):
    async with x(lambda _: answer) as (adapter, server):
        result = await outcome(adapter, post(), envelope("1800"))
    assert len(server.requests) == 1
    assert not isinstance(result, Accepted)


async def test_a_post_on_its_own_that_gets_lost_is_unknown_and_no_third_is_tried():
    answers = iter([REPLY_RULE, RESET])
    async with x(lambda _: next(answers)) as (adapter, server):
        result = await outcome(adapter, post(), envelope("1800"))
    assert (type(result), result.reason) == (Unknown, Reason.CONNECTION_LOST)
    assert len(server.requests) == 2


# --- refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize(("attempt", "expected"), [(1, MessageRefused), (2, Unknown), (5, Unknown)])
async def test_a_duplicate_on_a_later_try_is_probably_the_earlier_one(attempt: int, expected: type):
    async with x(lambda _: DUPLICATE) as (adapter, _):
        result = await outcome(adapter, post(), envelope(attempt=attempt))
    assert (type(result), result.reason) == (expected, Reason.DUPLICATE_CONTENT)


@pytest.mark.parametrize(
    ("account", "expected"),
    [("acme_help", Accepted), ("@ACME_Help", Accepted), ("", Accepted), ("acme", RecipientRefused)],
)
async def test_it_speaks_only_for_its_own_account(account: str, expected: type):
    async with x(account=account) as (adapter, server):
        result = await outcome(adapter, post(), envelope())
    assert type(result) is expected
    assert len(server.requests) == (expected is Accepted)


async def test_a_bad_slot_value_posts_nothing():
    async with x() as (adapter, server):
        result = await outcome(adapter, post("[[n]]", n=Slot(3)), envelope(n="Anna"))
    assert (type(result), result.reason) == (MessageRefused, Reason.SLOT_VALUE)
    assert server.requests == []


async def test_what_a_provider_says_is_not_passed_on():
    """X's prose may quote the post; operators get the codes."""
    quoting = problem(
        400, "secret text", type=f"{PROBLEMS}/invalid-request", errors=[{"code": 44}, {"code": "x"}]
    )
    async with x(lambda _: quoting) as (adapter, _):
        result = await outcome(adapter, post(), envelope())
    assert result.detail == "X answered 400, invalid-request, code 44"


def test_a_link_is_warned_of():
    adapter = XSocial(settings("http://127.0.0.1:1"), CurlTransport())
    (warning,) = adapter.check(post("See https://status.example/INC-0042"))
    assert (warning.severity, warning.code) == (Severity.WARNING, "paid_link")
    assert adapter.check(post("Call us. $T is fine.")) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"consumer_key": ""},
        {"base_url": "api.x.com"},
        {"base_url": "https://api.x.com/2"},
        {"timeout": 0},
        {"misspelt": CONSUMER_SECRET},
    ],
)
def test_settings_refuse_what_cannot_work_and_tell_no_secret(wrong: dict[str, Any]):
    with pytest.raises(ValidationError) as refused:
        settings(**({"url": "https://x.example"} | wrong))
    assert CONSUMER_SECRET not in str(refused.value)


# --- the timeline ------------------------------------------------------------------------


def shortened(ref: int, text: str) -> dict[str, Any]:
    """A post as X gives it back: links shortened, three characters escaped."""
    urls = []
    for n, link in enumerate(re.findall(r"https?://\S+", text)):
        short = f"https://t.co/{ref}{n}"
        text = text.replace(link, short)
        urls.append({"url": short, "expanded_url": link, "display_url": "status…"})
    row: dict[str, Any] = {"id": str(ref), "text": html.escape(text, quote=False)}
    return row | ({"entities": {"urls": urls}} if urls else {})


def timeline(*pages: list[dict[str, Any]], endless: bool = False) -> Any:
    def script(received: Received) -> Answer:
        assert received.method == "GET"
        url = f"https://api.twitter.com{received.path}"
        given, due = signature("GET", url, received.query, received.headers["authorization"])
        assert given == due
        if received.path == "/2/users/me":
            return Reply(200, b'{"data":{"id":"77","name":"Acme","username":"acme_help"}}')
        assert received.path == "/2/users/77/tweets"
        page = int(received.query.get("pagination_token", "0"))
        meta = {"next_token": str(page + 1)} if endless or page + 1 < len(pages) else {}
        body: dict[str, Any] = {"meta": meta}
        if rows := pages[min(page, len(pages) - 1)]:
            body["data"] = rows
        return Reply(200, json.dumps(body).encode())

    return script


def garbled(body: bytes) -> Any:
    """X knows who we are, but what it says of our posts cannot be made out."""
    known = timeline([])
    return lambda received: known(received) if "/me" in received.path else Reply(200, body)


TEXT = "Calls & data fail <1 h>.\nSee https://status.example/INC-42?a=1 & wait."
OTHER = shortened(1900, "Something else")


@pytest.mark.parametrize(
    ("script", "finding"),
    [
        (timeline([OTHER, shortened(1801, TEXT)]), Found("1801")),
        (timeline([shortened(1801, TEXT), shortened(1802, TEXT)]), Found("1802")),
        (timeline([{"id": "1801", "text": TEXT}]), Found("1801")),
        (timeline([OTHER], [OTHER, shortened(1801, TEXT)]), Found("1801")),
        (timeline([OTHER]), NotTaken()),
        (timeline([]), NotTaken()),
        (timeline([shortened(1700, TEXT)]), NotTaken()),
        (timeline([shortened(1801, TEXT.replace("INC-42", "INC-43"))]), NotTaken()),
        (timeline([OTHER], endless=True), CannotTell()),
        (timeline([{"text": "no id"}]), CannotTell()),
        (garbled(b"<html>"), CannotTell()),
        (garbled(b"{}"), CannotTell()),
        (garbled(b'{"meta":{},"errors":[{"title":"Not Found Error"}]}'), CannotTell()),
        (garbled(b'{"meta":{},"data":7}'), CannotTell()),
        (lambda _: Reply(429), CannotTell()),
        (lambda _: Reply(200, b"[]"), CannotTell()),
        (lambda _: RESET, CannotTell()),
    ],
)
async def test_find_reads_the_timeline_and_never_posts(script: Any, finding: object):
    async with x(script) as (adapter, server):
        assert isinstance(adapter, Reconciler)
        findings = await adapter.find(post(TEXT), [envelope("1800")])
    assert findings == {"d1": finding}
    assert {received.method for received in server.requests} == {"GET"}
    assert len(server.requests) <= 6


async def test_find_gives_one_post_to_one_envelope_only():
    both = [envelope("1800"), Envelope("d2", "@acme_help", {}, "1800")]
    async with x(timeline([shortened(1801, TEXT)])) as (adapter, _):
        findings = await adapter.find(post(TEXT), both)
    assert findings == {"d1": Found("1801"), "d2": NotTaken()}


def id_at(when: datetime) -> int:
    """The id of a post made then, in the middle of its millisecond."""
    return (int(when.timestamp() * 1000) - 1_288_834_974_657 << 22) + (1 << 21)


@pytest.mark.parametrize(
    ("made_after", "finding"),
    [(timedelta(seconds=1), True), (timedelta(seconds=-59), True), (timedelta(seconds=-61), False)],
)
async def test_find_takes_no_post_from_before_the_try(made_after: timedelta, finding: bool):
    tried = datetime.fromtimestamp(NOW, UTC) - timedelta(minutes=10)
    ref = id_at(tried + made_after)
    doubted = Envelope("d1", "@acme_help", tried_at=tried)
    async with x(timeline([shortened(ref, TEXT)])) as (adapter, _):
        found = await adapter.find(post(TEXT), [doubted])
    assert found == {"d1": Found(str(ref)) if finding else NotTaken()}


async def test_find_takes_no_post_that_is_accounted_for():
    known = Envelope("d1", "@acme_help", known_refs=frozenset({"1802"}))
    async with x(timeline([shortened(1802, TEXT), shortened(1801, TEXT)])) as (adapter, _):
        assert await adapter.find(post(TEXT), [known]) == {"d1": Found("1801")}
    async with x(timeline([shortened(1802, TEXT)])) as (adapter, _):
        assert await adapter.find(post(TEXT), [known]) == {"d1": NotTaken()}


async def test_find_cannot_tell_of_a_try_before_what_it_reads():
    tried = datetime.fromtimestamp(NOW, UTC) - timedelta(days=7, minutes=1)
    old = Envelope("d1", "@acme_help", tried_at=tried)
    async with x(timeline([OTHER])) as (adapter, _):
        assert await adapter.find(post(TEXT), [old]) == {"d1": CannotTell()}


async def test_settle_after_is_a_setting():
    async with x(timeline([])) as (adapter, _):
        assert adapter.limits.settle_after == 120.0
    tuned = settings("http://127.0.0.1:9", settle_after=2.5)
    assert XSocial(tuned, CurlTransport()).limits.settle_after == 2.5


async def test_find_asks_who_it_is_only_once():
    async with x(timeline([OTHER])) as (adapter, server):
        await adapter.find(post(TEXT), [envelope()])
        await adapter.find(post(TEXT), [envelope()])
    paths = [received.path for received in server.requests]
    assert paths.count("/2/users/me") == 1
    assert server.requests[1].query["start_time"] == "2027-01-08T08:00:00Z"
    assert server.requests[1].query["max_results"] == "100"


def test_the_words_of_a_post_are_the_same_before_and_after():
    links = {"https://t.co/a": "https://operator.com/", "https://t.co/b": "http://b.example/x"}
    assert canonical("a  operator.com\nb http://b.example/x") == canonical(
        "a https://t.co/a b https://t.co/b", links
    )
    assert canonical("a https://b.example/y") != canonical("a https://t.co/b", links)


# --- the simulator -----------------------------------------------------------------------


@pytest.mark.parametrize("refused", [False, True])
async def test_a_thread_on_the_simulator(refused: bool):
    """The simulator checks the signature and knows X's rules without knowing this adapter."""
    own = credentials.X_USERNAME
    keys = {
        "consumer_key": credentials.X_CONSUMER_KEY,
        "consumer_secret": credentials.X_CONSUMER_SECRET,
        "access_token": credentials.X_ACCESS_TOKEN,
        "access_token_secret": credentials.X_ACCESS_TOKEN_SECRET,
    }
    transport = CurlTransport()
    async with running(SandboxConfig(x_replies_refused=refused, x_list_lag=0.0)) as sandbox:
        adapter = XSocial(settings(sandbox.url, account=own, **keys), transport)
        first = await outcome(adapter, post(TEXT), Envelope("d1", own))
        assert isinstance(first, Accepted)
        second = await outcome(adapter, post("Fixed."), Envelope("d2", own, {}, first.ref))
        assert isinstance(second, Accepted)
        assert bool(second.detail) is refused
        again = await outcome(adapter, post("Fixed."), Envelope("d3", own, attempt=2))
        assert (type(again), again.reason) == (Unknown, Reason.DUPLICATE_CONTENT)
        found = await adapter.find(post("Fixed."), [Envelope("d3", own)])
        assert found == {"d3": Found(second.ref)}
        assert await adapter.find(post("Never"), [Envelope("d4", own)]) == {"d4": NotTaken()}
        wrong = XSocial(settings(sandbox.url), transport)
        stranger = await outcome(wrong, post("Hello"), Envelope("d5", own))
        assert (type(stranger), stranger.reason) == (AdapterBroken, Reason.CREDENTIALS)
    await transport.aclose()

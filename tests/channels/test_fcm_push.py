"""The FCM adapter on the shared contract, and what is FCM's own: tokens, payload, errors."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import jwt
from pydantic import ValidationError

from channels.contract import (
    Accepted,
    Adapter,
    AdapterBroken,
    Envelope,
    Message,
    MessageRefused,
    Reason,
    RecipientRefused,
    Severity,
    Slot,
    TryLater,
    Unknown,
)
from channels.fcm_push import FcmPush, FcmSettings
from channels.sandbox import credentials
from channels.sandbox.config import SandboxConfig
from channels.sandbox.server import running
from channels.transport import CurlTransport, Transport
from tests.contracts.adapters import Case, HttpContract, outcomes_of
from tests.contracts.server import RESET, Answer, Received, Reply, ScriptedServer, serving

FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
ACCESS = "ya29.the-access-token"
NOW = 1_800_000_000.0


@cache
def key_pair() -> tuple[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private.decode(), public.decode()


def account() -> str:
    return json.dumps(
        {
            "type": "service_account",
            "client_email": "sender@project.example",
            "private_key_id": "abc",
            "private_key": key_pair()[0],
            "token_uri": "http://127.0.0.1:1/never-asked",
        }
    )


def settings(url: str, **more: Any) -> FcmSettings:
    given = {
        "project_id": "acme-outages",
        "service_account_json": account(),
        "base_url": url,
        "token_uri": f"{url}/token",
    }
    return FcmSettings(**(given | more))


def token_reply(received: Received) -> Reply | None:
    if received.path != "/token":
        return None
    grant = {"access_token": ACCESS, "expires_in": 3599, "token_type": "Bearer"}
    return Reply(200, json.dumps(grant).encode())


def name_reply(received: Received) -> Reply:
    key = json.loads(received.body)["message"]["data"]["delivery"]
    return Reply(200, json.dumps({"name": f"projects/acme-outages/messages/{key}"}).encode())


def error(status: int, code: str, headers: Mapping[str, str] | None = None, **more: Any) -> Reply:
    details = [{"@type": FCM_ERROR, "errorCode": code}] if code else []
    if field := more.get("field"):
        details.append({"@type": BAD_REQUEST, "fieldViolations": [{"field": field}]})
    body = {"error": {"code": status, "message": more.get("message", "No."), "details": details}}
    return Reply(status, json.dumps(body).encode(), headers or {})


def notice(title: str = "Outage in Dallas", body: str = "Calls fail.", **slots: Slot) -> Message:
    return Message(
        id="m",
        channel="push",
        locale="en",
        parts={"title": title, "body": body},
        slots=slots,
        thread="INC-0042",
    )


def filling(size: int) -> Message:
    """A notice whose payload takes just `size` bytes as the adapter counts it."""
    adapter = FcmPush(settings("http://127.0.0.1:1"), CurlTransport())
    probe = notice(body="b" * 5000)
    (problem,) = [p for p in adapter.check(probe) if p.severity is Severity.ERROR]
    counted = int(problem.message.split(" bytes")[0].rsplit(" ", 1)[1])
    return notice(body="b" * (5000 - counted + size))


class TestFcmPush(HttpContract):
    module = "channels.fcm_push"
    sdk = ("google.auth", "google.oauth2", "cryptography")
    message = notice()
    addresses = ("token-of-anna:APA91b", "token-of-bert:APA91b")
    secrets = (ACCESS, "PRIVATE KEY", "sender@project.example")
    at_limit = {"4096 bytes": filling(4096)}
    over_limit = {"4097 bytes": filling(4097)}
    throttled = error(429, "QUOTA_EXCEEDED")
    statuses = {
        "unregistered": Case(error(404, "UNREGISTERED"), RecipientRefused, Reason.UNREGISTERED),
        "another sender's": Case(
            error(403, "SENDER_ID_MISMATCH"), RecipientRefused, Reason.INVALID_ADDRESS
        ),
        "token blamed by field": Case(
            error(400, "INVALID_ARGUMENT", field="message.token"),
            RecipientRefused,
            Reason.INVALID_ADDRESS,
        ),
        "token blamed in words": Case(
            error(
                400,
                "INVALID_ARGUMENT",
                message="The registration token is not a valid FCM registration token",
            ),
            RecipientRefused,
            Reason.INVALID_ADDRESS,
        ),
        "another field": Case(
            error(400, "INVALID_ARGUMENT", field="message.android.ttl"),
            MessageRefused,
            Reason.CONTENT,
        ),
        "bare 400": Case(Reply(400, b"<html>"), MessageRefused, Reason.CONTENT),
        "413": Case(Reply(413, b"<html>"), MessageRefused, Reason.TOO_LONG),
        "quota": Case(
            error(429, "QUOTA_EXCEEDED", {"Retry-After": "17"}),
            TryLater,
            Reason.THROTTLED,
            retry_after=17,
        ),
        "quota without a time": Case(
            error(429, "QUOTA_EXCEEDED"), TryLater, Reason.THROTTLED, retry_after=60
        ),
        "unavailable": Case(
            error(503, "UNAVAILABLE", {"Retry-After": "9"}),
            TryLater,
            Reason.PROVIDER_ERROR,
            retry_after=9,
        ),
        "internal": Case(error(500, "INTERNAL"), Unknown, Reason.PROVIDER_ERROR),
        "unregistered from a sick server": Case(
            error(500, "UNREGISTERED"), Unknown, Reason.PROVIDER_ERROR
        ),
        "gateway": Case(Reply(502, b"<html>"), Unknown, Reason.PROVIDER_ERROR),
        "apns key": Case(error(401, "THIRD_PARTY_AUTH_ERROR"), AdapterBroken, Reason.CREDENTIALS),
        "401": Case(error(401, ""), AdapterBroken, Reason.CREDENTIALS),
        "403": Case(error(403, ""), AdapterBroken, Reason.PERMISSION),
        "bare 404": Case(Reply(404, b"<html>"), AdapterBroken, Reason.ACCOUNT),
        "redirect": Case(
            Reply(302, b"", {"Location": "/elsewhere"}), AdapterBroken, Reason.ACCOUNT
        ),
        "garbage": Case(Reply(200, b"\xff{"), Unknown, Reason.UNREADABLE_ANSWER),
        "a list": Case(Reply(200, b"[]"), Unknown, Reason.UNREADABLE_ANSWER),
        "no name": Case(Reply(200, b"{}"), Unknown, Reason.UNREADABLE_ANSWER),
        "odd details": Case(
            Reply(404, b'{"error": {"details": [1, {"errorCode": 5}, null]}}'),
            AdapterBroken,
            Reason.ACCOUNT,
        ),
    }

    def build(self, url: str, transport: Transport, timeout: float) -> Adapter:
        return FcmPush(settings(url, timeout=timeout), transport)

    def accept(self, received: Received) -> Answer:
        return name_reply(received)

    def prelude(self, received: Received) -> Answer | None:
        return token_reply(received)

    async def test_the_worst_values_are_counted(self) -> None:
        async with self.reached() as adapter:
            slotted = notice(body="[[name]]", name=Slot(1000))
            problems = adapter.check(slotted)
        assert [p.part for p in problems if p.severity is Severity.ERROR] == ["body"]


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def fcm(
    answer: Any = None, token: Any = None, **more: Any
) -> AsyncIterator[tuple[FcmPush, ScriptedServer, Clock]]:
    """The adapter in front of a server; `answer` and `token` may replace its good answers."""

    def script(received: Received) -> Answer:
        if received.path == "/token":
            return token or token_reply(received)  # type: ignore[return-value]
        return answer or name_reply(received)

    clock = Clock()
    transport = CurlTransport()
    async with serving(script) as server:
        yield FcmPush(settings(server.url, **more), transport, clock=clock), server, clock
        await transport.aclose()


def one(key: str = "d1", **slots: str) -> Envelope:
    return Envelope(key, "token-of-anna", slots)


def asked(server: ScriptedServer, path: str) -> list[Received]:
    return [received for received in server.requests if received.path == path]


async def test_the_notice_collapses_under_its_delivery_key():
    expires = datetime.fromtimestamp(NOW + 600, UTC)
    message = replace(notice("For [[name]] ☂", name=Slot(20)), expires_at=expires)
    async with fcm() as (adapter, server, _):
        outcomes = await outcomes_of(adapter, message, [one("d-77", name="Zoë \n<b>")])

    (sent,) = asked(server, "/v1/projects/acme-outages/messages:send")
    assert sent.headers["authorization"] == f"Bearer {ACCESS}"
    assert sent.headers["content-type"] == "application/json"
    assert json.loads(sent.body) == {
        "message": {
            "token": "token-of-anna",
            "notification": {"title": "For Zoë  <b> ☂", "body": "Calls fail."},
            "android": {
                "collapse_key": "d-77",
                "priority": "HIGH",
                "ttl": "600s",
                "notification": {"tag": "d-77"},
            },
            "apns": {
                "headers": {
                    "apns-collapse-id": "d-77",
                    "apns-expiration": str(int(NOW) + 600),
                    "apns-priority": "10",
                }
            },
            "data": {"delivery": "d-77", "thread": "INC-0042"},
        }
    }
    assert outcomes["d-77"] == Accepted("d-77", "projects/acme-outages/messages/d-77")


@pytest.mark.parametrize(("left", "ttl"), [(None, 900), (100_000, 900), (60, 60), (-5, 0)])
async def test_fcm_keeps_a_notice_no_longer_than_it_is_true(left: int | None, ttl: int):
    expires = None if left is None else datetime.fromtimestamp(NOW + left, UTC)
    async with fcm(ttl=900) as (adapter, server, _):
        await outcomes_of(adapter, replace(notice(), expires_at=expires), [one()])
    sent = json.loads(asked(server, "/v1/projects/acme-outages/messages:send")[0].body)
    assert sent["message"]["android"]["ttl"] == f"{ttl}s"


async def test_the_token_is_asked_for_as_google_wants_it():
    async with fcm() as (adapter, server, clock):
        clock.now = datetime.now(UTC).timestamp()
        await outcomes_of(adapter, notice(), [one()])
        (grant,) = asked(server, "/token")
    assert grant.form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    audience = "https://oauth2.googleapis.com/token"
    claims = jwt.decode(grant.form["assertion"], certs=key_pair()[1], audience=audience)
    assert claims["iss"] == "sender@project.example"
    assert claims["scope"] == "https://www.googleapis.com/auth/firebase.messaging"
    assert claims["exp"] - claims["iat"] == 3600


async def test_one_token_serves_all_until_shortly_before_its_end():
    async with fcm() as (adapter, server, clock):
        windows = [outcomes_of(adapter, notice(), [one(f"d{i}{j}") for j in "ab"]) for i in "123"]
        await asyncio.gather(*windows)
        assert len(asked(server, "/token")) == 1
        clock.now = NOW + 3599 - 301
        await outcomes_of(adapter, notice(), [one()])
        assert len(asked(server, "/token")) == 1
        clock.now = NOW + 3599 - 299
        await outcomes_of(adapter, notice(), [one()])
        assert len(asked(server, "/token")) == 2


async def test_a_token_that_is_refused_is_not_used_again():
    async with fcm(answer=error(401, "")) as (adapter, server, _):
        await outcomes_of(adapter, notice(), [one()])
        await outcomes_of(adapter, notice(), [one()])
        assert len(asked(server, "/token")) == 2


async def test_no_more_requests_at_once_than_set():
    async with fcm(
        answer=Reply(200, b'{"name": "projects/p/messages/1"}', delay=0.02), concurrency=3
    ) as (adapter, server, _):
        await outcomes_of(adapter, notice(), [one(f"d{i}") for i in range(12)])
        assert server.peak == 3


@pytest.mark.parametrize(
    ("answer", "outcome", "reason"),
    [
        (Reply(400, b'{"error":"invalid_grant"}'), AdapterBroken, Reason.CREDENTIALS),
        (Reply(401, b"{}"), AdapterBroken, Reason.CREDENTIALS),
        (Reply(404, b"<html>"), AdapterBroken, Reason.CREDENTIALS),
        (Reply(429, b"", {"Retry-After": "5"}), TryLater, Reason.THROTTLED),
        (Reply(500, b'{"error":"internal_failure"}'), TryLater, Reason.PROVIDER_ERROR),
        (Reply(200, b"<html>"), TryLater, Reason.PROVIDER_ERROR),
        (Reply(200, b'{"access_token":"a\\r\\nb"}'), TryLater, Reason.PROVIDER_ERROR),
        (RESET, TryLater, Reason.UNREACHABLE),
    ],
)
async def test_without_a_token_nothing_is_sent(answer: Answer, outcome: type, reason: Reason):
    async with fcm(token=answer) as (adapter, server, _):
        outcomes = await outcomes_of(adapter, notice(), [one("d1"), one("d2")])
    assert {(type(o), o.reason) for o in outcomes.values()} == {(outcome, reason)}
    assert [received.path for received in server.requests] == ["/token"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"client_email":"x","private_key":"no"}'])
async def test_an_account_that_is_none_breaks_the_adapter(text: str):
    async with fcm(service_account_json=text) as (adapter, server, _):
        (outcome,) = (await outcomes_of(adapter, notice(), [one()])).values()
    assert (type(outcome), outcome.reason) == (AdapterBroken, Reason.CREDENTIALS)
    assert server.requests == []


async def test_the_account_may_be_a_file(tmp_path: Path):
    file = tmp_path / "account.json"
    file.write_text(account())
    given = {"service_account_json": None, "service_account_file": file}
    async with fcm(**given) as (adapter, _, _clock):
        (outcome,) = (await outcomes_of(adapter, notice(), [one()])).values()
        assert isinstance(outcome, Accepted)
        file.unlink()
        adapter = FcmPush(adapter.settings, CurlTransport())
        (outcome,) = (await outcomes_of(adapter, notice(), [one()])).values()
        assert (type(outcome), outcome.reason) == (AdapterBroken, Reason.CREDENTIALS)


async def test_a_bad_slot_value_fails_alone():
    message = notice("Hello [[name]]", name=Slot(5))
    async with fcm() as (adapter, _, _clock):
        outcomes = await outcomes_of(
            adapter, message, [one("d1", name="Anna"), one("d2", name="Bertram")]
        )
    assert isinstance(outcomes["d1"], Accepted)
    assert (type(outcomes["d2"]), outcomes["d2"].reason) == (MessageRefused, Reason.SLOT_VALUE)


@pytest.mark.parametrize(
    "wrong",
    [
        {"service_account_json": None},
        {"service_account_file": "/some/file"},
        {"project_id": ""},
        {"base_url": "fcm.googleapis.com"},
        {"base_url": "https://fcm.googleapis.com/v1"},
        {"ttl": 2_419_201},
        {"timeout": 0},
        {"misspelt": "PRIVATE KEY"},
    ],
)
def test_settings_refuse_what_cannot_work_and_tell_no_secret(wrong: dict[str, Any]):
    with pytest.raises(ValidationError) as refused:
        settings("https://x.example", **wrong)
    assert "PRIVATE KEY" not in str(refused.value)


async def test_on_the_simulator(tmp_path: Path):
    """The simulator verifies the signed grant and knows FCM's rules, not this adapter."""
    tokens = ["good", "unregistered-1", "mismatch-1", "not a token"]
    envelopes = [Envelope(token, token) for token in tokens]
    credentials.service_account(tmp_path)
    transport = CurlTransport()
    async with running(SandboxConfig(state_dir=tmp_path)) as sandbox:
        text = credentials.service_account(tmp_path, sandbox.url)
        given = {"service_account_json": text, "token_uri": ""}
        adapter = FcmPush(
            settings(sandbox.url, project_id=credentials.FCM_PROJECT, **given), transport
        )
        outcomes = await outcomes_of(adapter, notice(), envelopes)
        stranger = FcmPush(settings(sandbox.url, project_id="other", **given), transport)
        (refused,) = (await outcomes_of(stranger, notice(), [one()])).values()
    await transport.aclose()
    assert {key: (type(o), o.reason) for key, o in outcomes.items()} == {
        "good": (Accepted, Reason.OK),
        "unregistered-1": (RecipientRefused, Reason.UNREGISTERED),
        "mismatch-1": (RecipientRefused, Reason.INVALID_ADDRESS),
        "not a token": (RecipientRefused, Reason.INVALID_ADDRESS),
    }
    assert (type(refused), refused.reason) == (AdapterBroken, Reason.PERMISSION)

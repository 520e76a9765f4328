"""Twilio: the shared contract, its error table, its parameters, its checks."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from pydantic import ValidationError

from channels.contract import (
    Accepted,
    Adapter,
    AdapterBroken,
    Charset,
    Envelope,
    Message,
    MessageRefused,
    Outcome,
    Reason,
    RecipientRefused,
    Severity,
    Slot,
    TryLater,
    Unknown,
)
from channels.transport import CurlTransport, Request, Response, Transport
from channels.twilio_sms import TwilioSms
from tests.contracts.adapters import Case, HttpContract, outcomes_of
from tests.contracts.server import Answer, Received, Reply, serving

SID = "AC" + "0123456789abcdef" * 2
TOKEN = "fedcba9876543210" * 2
SENDER = "+15005550006"


def settings(url: str = "http://127.0.0.1:9", timeout: float = 5.0, **more: object):
    given = {"account_sid": SID, "auth_token": TOKEN, "base_url": url, "timeout": timeout}
    return TwilioSms.Settings.model_validate(given | more)


def sms(text: str = "Service is back.", **more) -> Message:
    given = {"channel": "sms", "locale": "en", "sender": SENDER, "parts": {"text": text}}
    return Message(id="m1", **(given | more))


def error(status: int, code: int) -> Reply:
    """Twilio names the number in its message; it must not reach a log."""
    body = {"code": code, "message": "The 'To' number +15550100001 is bad", "status": status}
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json"})


def service_error(status: int, code: int) -> Reply:
    body = {"type": "about:blank", "title": "Bad", "status": status, "code": code}
    return Reply(status, json.dumps(body).encode())


PROVIDED = {
    14107: (429, TryLater, Reason.THROTTLED),
    20003: (401, AdapterBroken, Reason.CREDENTIALS),
    20404: (404, AdapterBroken, Reason.ACCOUNT),
    20429: (429, TryLater, Reason.THROTTLED),
    20500: (500, Unknown, Reason.PROVIDER_ERROR),
    20503: (503, TryLater, Reason.PROVIDER_ERROR),
    21211: (400, RecipientRefused, Reason.INVALID_ADDRESS),
    21217: (400, RecipientRefused, Reason.INVALID_ADDRESS),
    21212: (400, AdapterBroken, Reason.SENDER),
    21606: (400, AdapterBroken, Reason.SENDER),
    21408: (403, RecipientRefused, Reason.PERMISSION),
    21610: (400, RecipientRefused, Reason.OPTED_OUT),
    21611: (400, TryLater, Reason.QUEUE_FULL),
    21612: (400, RecipientRefused, Reason.NOT_REACHABLE),
    21614: (400, RecipientRefused, Reason.INVALID_ADDRESS),
    21617: (400, MessageRefused, Reason.TOO_LONG),
    21635: (400, RecipientRefused, Reason.NOT_REACHABLE),
    63017: (429, TryLater, Reason.THROTTLED),
    63038: (429, AdapterBroken, Reason.QUOTA),
}


class TestTwilioSms(HttpContract):
    module = "channels.twilio_sms"
    sdk = ("twilio", "aiohttp", "requests")
    message = sms()
    addresses = ("+15550100001", "+15550100002", "+15550100003")
    secrets = (TOKEN, SID)
    accepted = Reply(201)
    throttled = error(429, 20429)
    statuses = {
        **{
            f"code {code}": Case(error(status, code), outcome, reason)
            for code, (status, outcome, reason) in PROVIDED.items()
        },
        "RFC 9457 shape": Case(service_error(400, 21610), RecipientRefused, Reason.OPTED_OUT),
        "unknown code": Case(error(400, 99999), MessageRefused, Reason.CONTENT),
        "400 in HTML": Case(Reply(400, b"<html>"), MessageRefused, Reason.CONTENT),
        "401": Case(Reply(401), AdapterBroken, Reason.CREDENTIALS),
        "403": Case(Reply(403, b"[]"), AdapterBroken, Reason.PERMISSION),
        "404": Case(Reply(404), AdapterBroken, Reason.ACCOUNT),
        "408": Case(Reply(408), Unknown, Reason.TIMEOUT),
        "413": Case(Reply(413), MessageRefused, Reason.TOO_LONG),
        "429": Case(Reply(429, b"", {"Retry-After": "3"}), TryLater, Reason.THROTTLED, 3.0),
        "500": Case(Reply(500), Unknown, Reason.PROVIDER_ERROR),
        "502": Case(Reply(502, b"<html>"), Unknown, Reason.PROVIDER_ERROR),
        "503": Case(Reply(503, b"", {"Retry-After": "9"}), TryLater, Reason.PROVIDER_ERROR, 9.0),
        "504": Case(Reply(504), Unknown, Reason.PROVIDER_ERROR),
        "redirect": Case(
            Reply(302, b"", {"Location": "http://127.0.0.1:9/"}), AdapterBroken, Reason.ACCOUNT
        ),
        "201 garbage": Case(Reply(201, b"<html>"), Unknown, Reason.UNREADABLE_ANSWER),
        "201 empty": Case(Reply(201), Unknown, Reason.UNREADABLE_ANSWER),
        "201 without sid": Case(Reply(201, b'{"sid":null}'), Unknown, Reason.UNREADABLE_ANSWER),
        "200 list": Case(Reply(200, b"[1]"), Unknown, Reason.UNREADABLE_ANSWER),
    }
    at_limit = {
        "1600 characters": sms("a" * 1600),
        "1600 with slots": sms("[[name]]" + "a" * 1590, slots={"name": Slot(10, Charset.GSM7)}),
    }
    over_limit = {
        "1601 characters": sms("a" * 1601),
        "1601 with slots": sms("[[name]]" + "a" * 1591, slots={"name": Slot(10, Charset.GSM7)}),
    }
    sids = count()

    def build(self, url: str, transport: Transport, timeout: float) -> Adapter:
        return TwilioSms(settings(url, timeout), transport)

    def accept(self, received: Received) -> Answer:
        sid = f"SM{next(self.sids):032x}"
        return Reply(201, json.dumps({"sid": sid, "to": received.form["To"]}).encode())

    async def sent(self, message: Message, envelope: Envelope, **more) -> tuple[Received, Outcome]:
        async with self.provider() as server:
            transport = CurlTransport()
            adapter = TwilioSms(settings(server.url, **more), transport)
            outcomes = await outcomes_of(adapter, message, [envelope])
            await transport.aclose()
            (outcome,) = outcomes.values()
            (received,) = server.requests
            return received, outcome

    async def test_request_is_the_providers_own(self) -> None:
        received, outcome = await self.sent(sms(), Envelope("d1", "+15550100001"))
        assert received.method == "POST"
        assert received.path == f"/2010-04-01/Accounts/{SID}/Messages.json"
        assert received.form == {"To": "+15550100001", "From": SENDER, "Body": "Service is back."}
        assert received.headers["content-type"] == "application/x-www-form-urlencoded"
        assert received.headers["authorization"].startswith("Basic ")
        assert received.headers["user-agent"].startswith("twilio-python/")
        assert isinstance(outcome, Accepted)
        assert outcome.ref.startswith("SM")

    async def test_text_arrives_byte_for_byte(self) -> None:
        text = "Привет & 100% «да» + смайл 😀\nвторая строка = конец"
        received, _ = await self.sent(sms(text), Envelope("d1", "+15550100001"))
        assert received.form["Body"] == text

    async def test_slots_are_filled(self) -> None:
        personal = sms("Hi [[name]], [[other]]", slots={"name": Slot(20)})
        envelope = Envelope("d1", "+15550100001", {"name": "Ana\n[[other]]"})
        received, _ = await self.sent(personal, envelope)
        assert received.form["Body"] == "Hi Ana [[other]], [[other]]"

    async def test_bad_slot_value_sends_nothing(self) -> None:
        personal = sms("Hi [[name]]", slots={"name": Slot(3)})
        async with self.provider() as server, self.reached(server.url) as adapter:
            envelope = Envelope("d1", "+15550100001", {"name": "Anastasia"})
            (outcome,) = (await outcomes_of(adapter, personal, [envelope])).values()
            assert server.requests == []
        assert isinstance(outcome, MessageRefused)
        assert outcome.reason is Reason.SLOT_VALUE
        assert "Anastasia" not in repr(outcome)

    async def test_service_sender_and_callback(self) -> None:
        service = "MG" + "0" * 32
        received, _ = await self.sent(
            sms(sender=service),
            Envelope("d1", "+15550100001"),
            status_callback="https://example.org/receipts",
        )
        assert received.form["MessagingServiceSid"] == service
        assert "From" not in received.form
        assert received.form["StatusCallback"] == "https://example.org/receipts?key=d1"

    @pytest.mark.parametrize(
        ("base", "key", "expected"),
        [
            ("https://a.example/r", "0190-ab", "https://a.example/r?key=0190-ab"),
            ("https://a.example/r?a=b%20c", "d1", "https://a.example/r?a=b%20c&key=d1"),
            ("https://a.example/r", "a&b=ü", "https://a.example/r?key=a%26b%3D%C3%BC"),
        ],
    )
    async def test_the_callback_carries_the_delivery(
        self, base: str, key: str, expected: str
    ) -> None:
        envelope = Envelope(key, "+15550100001")
        received, _ = await self.sent(sms(), envelope, status_callback=base)
        assert received.form["StatusCallback"] == expected

    async def test_every_character_of_a_form_survives(self) -> None:
        sender, address = "A&B =+%", "whatsapp:+1555&x=1"
        received, _ = await self.sent(sms("a=b&c", sender=sender), Envelope("d1", address))
        assert received.form == {"To": address, "From": sender, "Body": "a=b&c"}

    async def test_api_key_replaces_the_token(self) -> None:
        pair = {"api_key": "SK" + "1" * 32, "api_secret": "geheim", "auth_token": None}
        received, _ = await self.sent(sms(), Envelope("d1", "+15550100001"), **pair)
        assert SID in received.path
        import base64

        user, _, password = (
            base64.b64decode(received.headers["authorization"].split()[1]).decode().partition(":")
        )
        assert (user, password) == ("SK" + "1" * 32, "geheim")

    @pytest.mark.parametrize(("ahead", "expected"), [(120, 119), (86_400 * 3, 36_000)])
    async def test_validity_follows_expiry(self, ahead: int, expected: int) -> None:
        expiring = sms(expires_at=datetime.now(UTC) + timedelta(seconds=ahead))
        received, _ = await self.sent(expiring, Envelope("d1", "+15550100001"))
        assert abs(int(received.form["ValidityPeriod"]) - expected) <= 1

    async def test_expired_message_is_not_sent(self) -> None:
        expired = sms(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        async with self.provider() as server, self.reached(server.url) as adapter:
            outcomes = await outcomes_of(adapter, expired, self.envelopes(2))
            assert server.requests == []
        assert all(isinstance(o, TryLater) for o in outcomes.values())

    async def test_no_sender_is_a_broken_adapter(self) -> None:
        async with self.provider() as server, self.reached(server.url) as adapter:
            (outcome,) = (await outcomes_of(adapter, sms(sender=""), self.envelopes(1))).values()
            assert server.requests == []
        assert isinstance(outcome, AdapterBroken)
        assert outcome.reason is Reason.SENDER

    async def test_never_more_at_once_than_allowed(self) -> None:
        def slowly(received: Received) -> Answer:
            return replace(self.accept(received), delay=0.005)

        envelopes = [Envelope(f"d{i}", f"+1555{i:07d}") for i in range(120)]
        transport = CurlTransport()
        async with serving(slowly) as server:
            adapter = TwilioSms(settings(server.url, concurrency=7), transport)
            outcomes = await outcomes_of(adapter, sms(), envelopes)
            assert server.peak == 7
            assert server.connections == 7
            assert sorted(r.form["To"] for r in server.requests) == [e.address for e in envelopes]
        await transport.aclose()
        assert len(outcomes) == 120

    async def test_outcomes_come_as_they_are_known(self) -> None:
        def first_is_slow(received: Received) -> Answer:
            slow = received.form["To"].endswith("1")
            return replace(self.accept(received), delay=0.3 if slow else 0.0)

        transport = CurlTransport()
        async with serving(first_is_slow) as server:
            adapter = TwilioSms(settings(server.url), transport)
            keys = [o.key async for o in adapter.send(sms(), self.envelopes(3))]
        await transport.aclose()
        assert keys[-1] == "d0"

    async def test_an_escaping_error_does_not_swallow_known_outcomes(self) -> None:
        class Breaks:
            async def request(self, request: Request) -> Response:
                if b"100002" in request.body:
                    raise ZeroDivisionError
                await asyncio.sleep(0.01)  # answers after the other has failed
                return Response(201, {}, b'{"sid":"SM1"}')

        adapter = TwilioSms(settings(), Breaks())
        seen = []
        with pytest.raises(ZeroDivisionError):
            async for outcome in adapter.send(sms(), self.envelopes(3)):
                seen.append(outcome.key)
        assert sorted(seen) == ["d0", "d2"]

    def problems(self, text: str, **more) -> list[tuple[str, str]]:
        adapter = TwilioSms(settings(), CurlTransport())
        return [(p.severity, p.code) for p in adapter.check(sms(text, **more))]

    def test_check_counts_segments(self) -> None:
        assert self.problems("a" * 306) == []
        assert self.problems("a" * 307) == [(Severity.WARNING, "segments")]
        assert self.problems("я" * 134) == [(Severity.WARNING, "costly_characters")]

    def test_check_names_costly_characters(self) -> None:
        adapter = TwilioSms(settings(), CurlTransport())
        (problem,) = adapter.check(sms("We’re on it…"))
        assert problem.severity is Severity.WARNING
        assert "“’” (U+2019), better “'”" in problem.message
        assert "U+2026" in problem.message

    def test_check_leaves_a_language_alone(self) -> None:
        assert self.problems("Связь восстановлена, спасибо.") == []

    def test_check_judges_slots_at_their_worst(self) -> None:
        text = "a" * 140 + "[[name]]"
        assert self.problems(text, slots={"name": Slot(10, Charset.GSM7)}) == []
        found = self.problems(text, slots={"name": Slot(10, Charset.UNICODE)})
        assert found == [(Severity.WARNING, "segments")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"account_sid": "AC123"},
        {"account_sid": "AC" + "G" * 32},
        {"auth_token": "secretsecret"},
        {"auth_token": None},
        {"api_key": "SK" + "1" * 32},
        {"api_key": "XX", "api_secret": "geheim"},
        {"base_url": "ftp://example.org"},
        {"base_url": "https://example.org/path"},
        {"timeout": 0},
        {"concurrency": 0},
        {"unheard_of": 1},
    ],
    ids=str,
)
def test_settings_refuse(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**wrong)
    for value in wrong.values():
        if isinstance(value, str) and value.startswith(("secret", "AC", "SK")):
            assert value not in str(caught.value)

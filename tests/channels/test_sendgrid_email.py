"""SendGrid: the shared contract, the request it makes, blame in a refused request."""

import json
from itertools import count

import pytest
from pydantic import ValidationError

from channels.contract import (
    Accepted,
    Adapter,
    AdapterBroken,
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
from channels.sendgrid_email import MAX_PARTS, MAX_SUBJECT, SendgridEmail
from channels.sendgrid_requests import MAX_PEOPLE
from channels.transport import CurlTransport, Transport
from tests.contracts.adapters import Case, HttpContract, outcomes_of
from tests.contracts.server import Answer, Received, Reply

KEY = "SG.abcdefghijklmnop.0123456789-_ABCDEF"
PARTS = {"subject": "Service update", "text": "We are on it.\n", "html": "<p>We are on it.</p>"}


def settings(url: str = "http://127.0.0.1:9", timeout: float = 5.0, **more: object):
    given = {"api_key": KEY, "from_email": "noc@example.org", "base_url": url, "timeout": timeout}
    return SendgridEmail.Settings.model_validate(given | more)


def mail(parts: dict[str, str] | None = None, **more) -> Message:
    given = {"channel": "email", "locale": "en", "parts": PARTS | (parts or {})}
    return Message(id="m1", **(given | more))


def errors(status: int, *fields: str | None, message: str = "x@example.org is bad") -> Reply:
    listed = [{"message": message, "field": field, "help": None} for field in fields]
    return Reply(status, json.dumps({"errors": listed}).encode())


def people(count: int) -> list[Envelope]:
    return [Envelope(f"d{i}", f"p{i}@example.org") for i in range(count)]


def substituted(received: Received) -> dict[str, dict[str, str]]:
    """What each delivery's mail reads like after SendGrid has put the values in."""
    body = json.loads(received.body)
    mails = {}
    for person in body["personalizations"]:
        texts = {"subject": body["subject"]}
        texts |= {content["type"]: content["value"] for content in body["content"]}
        for token, value in person.get("substitutions", {}).items():
            texts = {name: text.replace(token, value) for name, text in texts.items()}
        mails[person["custom_args"]["delivery"]] = texts
    return mails


class TestSendgridEmail(HttpContract):
    module = "channels.sendgrid_email"
    sdk = ("sendgrid", "python_http_client")
    message = mail()
    addresses = ("ana@example.org", "bob@example.org", "eve@example.org")
    secrets = (KEY,)
    accepted = Reply(202)
    statuses = {
        "200, its sandbox mode": Case(Reply(200), AdapterBroken, Reason.ACCOUNT),
        "202 without an id": Case(Reply(202), Unknown, Reason.UNREADABLE_ANSWER),
        "204": Case(Reply(204), Unknown, Reason.UNREADABLE_ANSWER),
        "redirect": Case(Reply(301, b"", {"Location": "/x"}), AdapterBroken, Reason.ACCOUNT),
        "400 unreadable": Case(Reply(400, b"<html>"), MessageRefused, Reason.CONTENT),
        "400 subject": Case(errors(400, "subject"), MessageRefused, Reason.CONTENT),
        "400 content": Case(errors(400, "content.0.value"), MessageRefused, Reason.CONTENT),
        "400 no field": Case(errors(400, None), MessageRefused, Reason.CONTENT),
        "400 sender": Case(errors(400, "from.email"), AdapterBroken, Reason.SENDER),
        "400 address": Case(
            errors(400, "personalizations.0.to.0.email"),
            RecipientRefused,
            Reason.INVALID_ADDRESS,
        ),
        "400 address, other spelling": Case(
            errors(400, "personalizations[0].to"), RecipientRefused, Reason.INVALID_ADDRESS
        ),
        "400 person's values": Case(
            errors(400, "personalizations.0.substitutions"), MessageRefused, Reason.CONTENT
        ),
        "400 personalizations": Case(
            errors(400, "personalizations"), MessageRefused, Reason.CONTENT
        ),
        "401": Case(errors(401, None), AdapterBroken, Reason.CREDENTIALS),
        "401 credits": Case(
            errors(401, None, message="Maximum credits exceeded"), AdapterBroken, Reason.QUOTA
        ),
        "403": Case(errors(403, None), AdapterBroken, Reason.PERMISSION),
        "403 sender": Case(errors(403, "from"), AdapterBroken, Reason.SENDER),
        "404": Case(Reply(404), AdapterBroken, Reason.ACCOUNT),
        "408": Case(Reply(408), Unknown, Reason.TIMEOUT),
        "413 in HTML": Case(
            Reply(413, b"<html>413 Request Entity Too Large</html>"),
            MessageRefused,
            Reason.TOO_LONG,
        ),
        "418": Case(Reply(418), MessageRefused, Reason.CONTENT),
        "429": Case(Reply(429, b"", {"Retry-After": "4"}), TryLater, Reason.THROTTLED, 4.0),
        "429 long ago": Case(
            Reply(429, b"", {"X-RateLimit-Reset": "1000"}), TryLater, Reason.THROTTLED, 0.0
        ),
        "500": Case(Reply(500), Unknown, Reason.PROVIDER_ERROR),
        "502": Case(Reply(502, b"<html>"), Unknown, Reason.PROVIDER_ERROR),
        "503": Case(Reply(503, b"", {"Retry-After": "5"}), TryLater, Reason.PROVIDER_ERROR, 5.0),
    }
    at_limit = {
        "subject": mail({"subject": "s" * MAX_SUBJECT}),
        "bodies": mail(
            {"subject": "s", "text": "t", "html": "h" * (MAX_PARTS - 2)},
        ),
    }
    over_limit = {
        "subject": mail({"subject": "s" * (MAX_SUBJECT + 1)}),
        "subject with slot": mail(
            {"subject": "s" * MAX_SUBJECT + "[[name]]"}, slots={"name": Slot(1)}
        ),
        "subject of two lines": mail({"subject": "one\nBcc: two"}),
        "bodies": mail({"subject": "s", "text": "t", "html": "h" * (MAX_PARTS - 1)}),
    }
    ids = count()

    def build(self, url: str, transport: Transport, timeout: float) -> Adapter:
        return SendgridEmail(settings(url, timeout), transport)

    def accept(self, received: Received) -> Answer:
        return Reply(202, b"", {"X-Message-Id": f"msg-{next(self.ids)}"})

    async def sent(
        self, message: Message, envelopes: list[Envelope], **more
    ) -> tuple[list[Received], dict[str, Outcome]]:
        async with self.provider() as server:
            transport = CurlTransport()
            adapter = SendgridEmail(settings(server.url, **more), transport)
            outcomes = await outcomes_of(adapter, message, envelopes)
            await transport.aclose()
            return list(server.requests), outcomes

    async def test_request_is_the_providers_own(self) -> None:
        (received,), outcomes = await self.sent(mail(), people(2), from_name="NOC")
        assert (received.method, received.path) == ("POST", "/v3/mail/send")
        assert received.headers["authorization"] == f"Bearer {KEY}"
        assert received.headers["content-type"] == "application/json"
        assert received.headers["user-agent"].startswith("sendgrid/")
        body = json.loads(received.body)
        assert body["from"] == {"email": "noc@example.org", "name": "NOC"}
        assert body["personalizations"] == [
            {"to": [{"email": "p0@example.org"}], "custom_args": {"delivery": "d0"}},
            {"to": [{"email": "p1@example.org"}], "custom_args": {"delivery": "d1"}},
        ]
        assert body["content"] == [
            {"type": "text/plain", "value": PARTS["text"]},
            {"type": "text/html", "value": PARTS["html"]},
        ]
        assert "mail_settings" not in body
        refs = {key: o.ref for key, o in outcomes.items() if isinstance(o, Accepted)}
        assert set(refs) == {"d0", "d1"}
        assert all(ref.endswith(f":{key}") for key, ref in refs.items())

    async def test_a_thousand_people_a_request(self) -> None:
        received, outcomes = await self.sent(mail(), people(2 * MAX_PEOPLE + 1))
        sizes = sorted(len(json.loads(r.body)["personalizations"]) for r in received)
        assert sizes == [1, MAX_PEOPLE, MAX_PEOPLE]
        assert len(outcomes) == 2 * MAX_PEOPLE + 1

    async def test_an_address_once_a_request(self) -> None:
        same = [Envelope(f"d{i}", a) for i, a in enumerate(["a@b.example", "A@B.example"] * 2)]
        received, outcomes = await self.sent(mail(), [*same, Envelope("d9", "c@b.example")])
        for request in received:
            to = [p["to"][0]["email"].lower() for p in json.loads(request.body)["personalizations"]]
            assert len(to) == len(set(to))
        assert len(received) == 4
        assert len(outcomes) == 5

    async def test_values_are_escaped_in_html_only(self) -> None:
        parts = {"subject": "Hi [[name]]", "text": "[[name]]: [[x]]", "html": "<b>[[name]]</b>"}
        personal = mail(parts, slots={"name": Slot(40)})
        named = [
            Envelope("d0", "a@b.example", {"name": "<i>Ana & Co</i>"}),
            Envelope("d1", "c@b.example", {"name": "Bob\r\nBcc: x"}),
        ]
        (received,), _ = await self.sent(personal, named)
        read = substituted(received)
        assert read["d0"] == {
            "subject": "Hi <i>Ana & Co</i>",
            "text/plain": "<i>Ana & Co</i>: [[x]]",
            "text/html": "<b>&lt;i&gt;Ana &amp; Co&lt;/i&gt;</b>",
        }
        assert "\n" not in read["d1"]["subject"]

    async def test_a_value_that_looks_like_a_marker_is_not_filled_again(self) -> None:
        parts = {"subject": "[[a]][[b]]", "text": "[[b]]", "html": "[[a]]"}
        personal = mail(parts, slots={"a": Slot(20), "b": Slot(20)})
        tricky = Envelope("d0", "a@b.example", {"a": "[[b]]", "b": "two"})
        plain = Envelope("d1", "c@b.example", {"a": "one", "b": "two"})
        received, _ = await self.sent(personal, [tricky, plain])
        read: dict[str, dict[str, str]] = {}
        for request in received:
            read |= substituted(request)
        assert read["d0"] == {"subject": "[[b]]two", "text/plain": "two", "text/html": "[[b]]"}
        assert read["d1"] == {"subject": "onetwo", "text/plain": "two", "text/html": "one"}

    async def test_values_over_the_providers_limit_go_in_a_request_of_their_own(self) -> None:
        personal = mail({"text": "[[a]]"}, slots={"a": Slot(20_000)})
        big = Envelope("d0", "a@b.example", {"a": "x" * 9_000})
        received, _ = await self.sent(personal, [big])
        assert substituted(received[0])["d0"]["text/plain"] == "x" * 9_000
        assert "substitutions" not in json.loads(received[0].body)["personalizations"][0]

    async def test_bad_slot_value_and_no_address_stop_only_their_own(self) -> None:
        personal = mail({"text": "[[a]]"}, slots={"a": Slot(3)})
        (received,), outcomes = await self.sent(
            personal,
            [
                Envelope("d0", "a@b.example", {"a": "long value"}),
                Envelope("d1", "not an address", {"a": "x"}),
                Envelope("d2", "c@b.example", {"a": "ok"}),
            ],
        )
        assert set(substituted(received)) == {"d2"}
        assert (type(outcomes["d0"]), outcomes["d0"].reason) == (
            MessageRefused,
            Reason.SLOT_VALUE,
        )
        assert isinstance(outcomes["d1"], RecipientRefused)
        assert isinstance(outcomes["d2"], Accepted)
        assert "long value" not in repr(outcomes)

    @pytest.mark.parametrize(
        ("sender", "expected"),
        [
            ("Regulators <reg@example.org>", {"email": "reg@example.org", "name": "Regulators"}),
            ("reg@example.org", {"email": "reg@example.org"}),
            ("", {"email": "noc@example.org"}),
        ],
    )
    async def test_sender(self, sender: str, expected: dict[str, str]) -> None:
        (received,), _ = await self.sent(mail(sender=sender), people(1))
        assert json.loads(received.body)["from"] == expected

    async def test_unsubscribe_and_reply_to_only_when_configured(self) -> None:
        (received,), _ = await self.sent(
            mail(),
            people(1),
            unsubscribe_url="https://u.example.org/{key}",
            reply_to="help@example.org",
        )
        body = json.loads(received.body)
        assert body["reply_to"] == {"email": "help@example.org"}
        assert body["personalizations"][0]["headers"] == {
            "List-Unsubscribe": "<https://u.example.org/d0>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }

    async def test_tracking_that_rewrites_the_text_is_off(self) -> None:
        (received,), _ = await self.sent(mail(), people(1))
        tracking = json.loads(received.body)["tracking_settings"]
        assert {name: s["enable"] for name, s in tracking.items()} == {
            "click_tracking": False,
            "open_tracking": False,
            "subscription_tracking": False,
        }

    async def test_one_bad_address_does_not_cost_the_others(self) -> None:
        bad = errors(400, "personalizations.1.to.0.email", "personalizations.3.substitutions")
        outcomes, _ = await self.outcomes_for(bad, people(5))
        assert isinstance(outcomes["d1"], RecipientRefused)
        assert isinstance(outcomes["d3"], MessageRefused)
        for key in ("d0", "d2", "d4"):
            other = outcomes[key]
            assert isinstance(other, TryLater)
            assert other.retry_after == 0.0

    async def test_an_error_beside_the_address_blames_the_message(self) -> None:
        bad = errors(400, "personalizations.1.to.0.email", "subject")
        outcomes, _ = await self.outcomes_for(bad, people(3))
        assert isinstance(outcomes["d1"], RecipientRefused)
        assert isinstance(outcomes["d0"], MessageRefused)

    def test_check_warns_of_clipping(self) -> None:
        adapter = SendgridEmail(settings(), CurlTransport())
        (problem,) = adapter.check(mail({"html": "h" * 102_401}))
        assert (problem.severity, problem.code) == (Severity.WARNING, "clipped")


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": "secretkey"},
        {"from_email": "not an address"},
        {"from_email": "Name <a@b.example>"},
        {"base_url": "https://example.org/v3"},
        {"unsubscribe_url": "http://example.org/u"},
        {"timeout": 0},
        {"unheard_of": 1},
    ],
    ids=str,
)
def test_settings_refuse(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        settings(**wrong)
    assert "secretkey" not in str(caught.value)

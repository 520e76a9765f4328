"""Twilio's callbacks: whom it believes, what each status and word means, and polling."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from channels import twilio_signature
from channels.contract import (
    Consent,
    ContactKind,
    Reading,
    Reason,
    Receipt,
    ReceiptRefused,
    ReceiptRequest,
    ReceiptStatus,
    StatusPoller,
)
from channels.transport import CurlTransport
from channels.twilio_receipts import FAILURES, STATUSES
from channels.twilio_sms import READS_AT_ONCE, TwilioSms
from tests.channels.test_twilio_sms import SENDER, SID, TOKEN, settings
from tests.contracts.receipts import NOW, ReceiptContract, Story
from tests.contracts.server import RESET, Answer, Raw, Received, Reply, refused_url, serving

KEY = "01890a5d-ac96-774b-bcce-b302099a8057"
MESSAGE = "SM" + "00ab" * 8
PHONE = "+15550100001"
URL = f"https://alerts.example.org/v1/receipts/twilio_sms?key={KEY}"
WEBHOOK_SECRET = "a key of the webhook's own"


def callback(status: str = "delivered", **more: str) -> bytes:
    """A status callback's form in Twilio's order."""
    fields = {
        "SmsSid": MESSAGE,
        "SmsStatus": status,
        "MessageStatus": status,
        "To": PHONE,
        "MessageSid": MESSAGE,
        "AccountSid": SID,
        "From": SENDER,
        "ApiVersion": "2010-04-01",
    }
    return urlencode(fields | more).encode()


def inbound(body: str, **more: str) -> bytes:
    """A forwarded SMS."""
    fields = {"SmsStatus": "received", "Body": body, "From": PHONE, "To": SENDER}
    fields |= {"MessageSid": MESSAGE, "SmsSid": MESSAGE, "AccountSid": SID, "NumMedia": "0"}
    return urlencode(fields | more).encode()


def signature(url: str, body: bytes, secret: str = TOKEN, algorithm: str = "HMAC_SHA1") -> str:
    """As the vendor's own validator computes it."""
    fields: dict[str, list[str]] = {}
    try:
        for name, value in parse_qsl(body.decode("ascii"), keep_blank_values=True):
            fields.setdefault(name, []).append(value)
    except UnicodeDecodeError:
        fields = {}

    class Several(dict[str, list[str]]):
        def getall(self, name: str) -> list[str]:
            return self[name]

    made = RequestValidator(secret).compute_signature(url, Several(fields), algorithm)
    assert isinstance(made, str)
    return made


def request(
    body: bytes, *, url: str = URL, signed_url: str = "", secret: str = TOKEN, **headers: str
) -> ReceiptRequest:
    found = {
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
        "x-twilio-signature": signature(signed_url or url, body, secret),
    }
    return ReceiptRequest("POST", url, found | headers, body)


def told(
    status: str, reached: ReceiptStatus, reason: Reason = Reason.OK, words: str = ""
) -> Receipt:
    return Receipt(f"{MESSAGE}:{status}", KEY, MESSAGE, reached, None, reason, words or status)


def unwilling(event: str, reason: Reason = Reason.OPTED_OUT) -> Consent:
    return Consent(event, ContactKind.PHONE, PHONE, False, reason)


STOPPED = Reading(consents=(unwilling(f"{MESSAGE}:received"),))
STARTED = Reading(
    consents=(Consent(f"{MESSAGE}:received", ContactKind.PHONE, PHONE, True, Reason.OK),)
)
IGNORED = Reading(ignored=1)


def failed(code: int, status: str = "undelivered") -> Story:
    failure = FAILURES[code]
    receipt = told(
        status, ReceiptStatus.FAILED, failure.reason, f"{status}: {code} {failure.words}"
    )
    consents = (unwilling(receipt.event, failure.reason),) if failure.final else ()
    return Story(callback(status, ErrorCode=str(code)), Reading((receipt,), consents))


class TestTwilioReceipts(ReceiptContract):
    private = (TOKEN, SID, PHONE, WEBHOOK_SECRET)
    signature_header = "x-twilio-signature"
    stories = {
        **{
            status: Story(callback(status), Reading((told(status, reached),)))
            for status, reached in STATUSES.items()
            if reached is not ReceiptStatus.FAILED
        },
        **{str(code): failed(code) for code in FAILURES},
        "failed, not said why": Story(
            callback("failed"),
            Reading(
                (
                    told(
                        "failed",
                        ReceiptStatus.FAILED,
                        Reason.PROVIDER_ERROR,
                        "failed: not delivered",
                    ),
                )
            ),
        ),
        "failed, unknown code": Story(
            callback("failed", ErrorCode="39999"),
            Reading(
                (
                    told(
                        "failed",
                        ReceiptStatus.FAILED,
                        Reason.PROVIDER_ERROR,
                        "failed: 39999 not delivered",
                    ),
                )
            ),
        ),
        "odd code": Story(
            callback("failed", ErrorCode="٣٠٠٠٥"),
            Reading(
                (
                    told(
                        "failed",
                        ReceiptStatus.FAILED,
                        Reason.PROVIDER_ERROR,
                        "failed: not delivered",
                    ),
                )
            ),
        ),
        "hard failure of an address of another kind": Story(
            callback("undelivered", ErrorCode="30005", To="whatsapp:+15550100001"),
            Reading(failed(30005).reading.receipts),
        ),
        "unheard-of status": Story(callback("pondering"), IGNORED),
        "no sid": Story(callback(MessageSid="", SmsSid=""), IGNORED),
        "odd sid": Story(callback(MessageSid="SM1\0"), IGNORED),
        "STOP": Story(inbound("STOP"), STOPPED),
        "stop, untidy": Story(inbound(" Stop\n"), STOPPED),
        "unsubscribe": Story(inbound("unsubscribe"), STOPPED),
        "START": Story(inbound("start"), STARTED),
        "UNSTOP": Story(inbound("UNSTOP"), STARTED),
        "HELP": Story(inbound("HELP"), IGNORED),
        "talk": Story(inbound("please stop the music"), IGNORED),
        "empty": Story(inbound(""), IGNORED),
        "own word, Twilio says STOP": Story(inbound("GENUG", OptOutType="STOP"), STOPPED),
        "own word, Twilio says START": Story(inbound("WIEDER", OptOutType="START"), STARTED),
        "STOP is a word for help there": Story(inbound("STOP", OptOutType="HELP"), IGNORED),
        "STOP of another kind of address": Story(
            inbound("STOP", From="whatsapp:+15550100001"), Reading()
        ),
    }

    def build(self, configured: bool = True) -> TwilioSms:
        pair = {"api_key": "SK" + "1" * 32, "api_secret": "geheim", "auth_token": None}
        return TwilioSms(settings(**({} if configured else pair)), CurlTransport())

    def signed(self, body: bytes, now: datetime = NOW) -> ReceiptRequest:
        return request(body)

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            ("https://a.example/r?key=1", "https://a.example:443/r?key=1"),
            ("https://a.example:443/r?key=1", "https://a.example/r?key=1"),
            ("http://a.example/r", "http://a.example:80/r"),
            ("https://a.example:8443/r", "https://a.example/r"),
            ("https://a.example:8443/r", "https://a.example:8443/r"),
            ("https://[::1]:8443/r?a=b:c", "https://[::1]/r?a=b:c"),
            ("https://u:p@a.example:1/r", "https://u:p@a.example/r"),
            ("https://a.example", "https://a.example:443"),
        ],
    )
    def test_with_and_without_a_port(self, ours: str, theirs: str) -> None:
        read = self.build().read(request(callback(), url=ours, signed_url=theirs), now=NOW)
        assert read.receipts[0].ref == MESSAGE

    @pytest.mark.parametrize(
        "theirs",
        [
            URL.replace("alerts", "alert5"),
            URL.replace("https", "http"),
            URL + "1",
            "https://alerts.example.org:8443/v1/receipts/twilio_sms?key=" + KEY,
        ],
    )
    def test_of_another_url_is_forged(self, theirs: str) -> None:
        assert self.refusal(request(callback(), signed_url=theirs)) == "forged"

    def sha256(self, secret: str, algorithm: str = "HMAC_SHA256") -> ReceiptRequest:
        body = callback()
        return (
            request(body)
            if not secret
            else ReceiptRequest(
                "POST",
                URL,
                {
                    "x-twilio-signature": signature(URL, body, secret, "HMAC_SHA256"),
                    "x-twilio-webhooks-signature-settings": f"key=webhooks_1, algorithm={algorithm}",
                },
                body,
            )
        )

    def test_the_newer_algorithm(self) -> None:
        own = settings(webhook_secret=WEBHOOK_SECRET)
        adapter = TwilioSms(own, CurlTransport())
        for secret in (TOKEN, WEBHOOK_SECRET):
            assert adapter.read(self.sha256(secret), now=NOW).receipts
        assert self.refusal(self.sha256("another")) == "forged"

    def test_an_algorithm_that_nobody_knows_is_no_signature(self) -> None:
        assert self.refusal(self.sha256(TOKEN, "HMAC_MD5")) == "unsigned"

    def test_the_named_algorithm_counts(self) -> None:
        assert self.refusal(self.sha256(TOKEN, "HMAC_SHA1")) == "forged"

    def test_repeated_fields_are_signed_once_each(self) -> None:
        body = callback() + b"&x=2&x=1&x=2&empty="
        assert self.build().read(request(body), now=NOW).receipts

    def test_of_another_account_is_forged(self) -> None:
        assert self.refusal(request(callback(AccountSid="AC" + "0" * 32))) == "forged"

    def test_an_account_added_to_the_end_does_not_count(self) -> None:
        body = callback(AccountSid="AC" + "0" * 32) + f"&AccountSid={SID}".encode()
        assert self.refusal(request(body)) == "forged"

    def test_only_posts_are_read(self) -> None:
        assert self.refusal(replace(request(callback()), method="GET")) == "unreadable"

    @pytest.mark.parametrize("key", ["", "%00", "a b", "x" * 65, "..%2F"])
    def test_a_key_that_is_not_ours_is_left_out(self, key: str) -> None:
        url = URL.replace(KEY, key)
        (receipt,) = self.build().read(request(callback(), url=url), now=NOW).receipts
        assert (receipt.key, receipt.ref) == ("", MESSAGE)

    def json_request(self, body: bytes, told_hash: str = "") -> ReceiptRequest:
        found = told_hash or hashlib.sha256(body).hexdigest()
        url = f"{URL}&bodySHA256={found}"
        mac = hmac.new(TOKEN.encode(), url.encode(), "sha1").digest()
        headers = {
            "content-type": "application/json",
            "x-twilio-signature": base64.b64encode(mac).decode(),
        }
        return ReceiptRequest("POST", url, headers, body)

    def test_a_json_body_is_signed_by_its_hash(self) -> None:
        fields = {"MessageSid": MESSAGE, "MessageStatus": "delivered", "AccountSid": SID}
        body = json.dumps(fields | {"Odd": [1]}).encode()
        (receipt,) = self.build().read(self.json_request(body), now=NOW).receipts
        assert receipt == told("delivered", ReceiptStatus.DELIVERED)
        assert self.refusal(self.json_request(body, "0" * 64)) == "forged"
        assert self.refusal(replace(self.json_request(body), body=body + b" ")) == "forged"
        assert self.refusal(self.json_request(b"[1]")) == "unreadable"
        as_json = {"content-type": "application/json"}
        assert self.refusal(request(callback(), **as_json)) == "forged"


_PIECES = ("&", "=", "+", "%", "%2B", "%C3%A9", "%C3", "%zz", "%25", "%2b", "To", "1", "a", ";")


@given(st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
@example("To=%2B15550100001")
@example("Body=%2B+%2B")
@example("&&a&=b&a=2&")
def test_a_form_says_what_the_standard_library_reads(form: str) -> None:
    try:
        fields: Sequence[tuple[str, str]] | None = parse_qsl(
            form, keep_blank_values=True, errors="strict"
        )
    except ValueError:
        fields = None
    signed = twilio_signature.signature(URL, fields or (), TOKEN).decode()
    came = ReceiptRequest("POST", URL, {"x-twilio-signature": signed}, form.encode())
    if fields is None:
        with pytest.raises(ReceiptRefused, match="not a form"):
            twilio_signature.verified_fields(came, (TOKEN,))
    else:
        found = twilio_signature.verified_fields(came, (TOKEN,))
        assert found == dict(reversed(fields))


@pytest.mark.parametrize(
    ("query", "key"),
    [
        (f"?key={KEY}", KEY),
        (f"?key={KEY}#rc=2", KEY),
        (f"?a=1&key={KEY}", KEY),
        (f"?key=1&key={KEY}", KEY),
        ("?key=%31", "1"),
        ("?key=" + "k" * 64, "k" * 64),
        ("?key=" + "k" * 65, ""),
        ("?key=a_b", ""),
        ("?key=", ""),
        ("?a=?key=1", ""),
        ("?monkey=1", ""),
        ("#?key=1", ""),
        ("", ""),
    ],
)
def test_the_key_is_read_wherever_it_stands_in_the_query(query: str, key: str) -> None:
    adapter = TwilioSms(settings(), CurlTransport())
    url = f"https://alerts.example.org/v1/receipts/twilio_sms{query}"
    (receipt,) = adapter.read(request(callback(), url=url), now=NOW).receipts
    assert receipt.key == key


# --- polling -----------------------------------------------------------------------------


def fetched(received: Received, **fields: object) -> Reply:
    sid = received.path.rpartition("/")[2].removesuffix(".json")
    resource = {"sid": sid, "status": "delivered", "error_code": None, "to": PHONE}
    resource["date_updated"] = "Sun, 22 Nov 2026 12:00:00 +0000"
    return Reply(200, json.dumps(resource | fields).encode())


def sids(count: int) -> list[str]:
    return [f"SM{number:032x}" for number in range(count)]


async def poll(url: str, refs: list[str]) -> Mapping[str, Receipt]:
    transport = CurlTransport()
    adapter = TwilioSms(settings(url), transport)
    assert isinstance(adapter, StatusPoller)
    try:
        return await adapter.poll(refs)
    finally:
        await transport.aclose()


async def test_poll_asks_for_each_message_and_reads_its_state() -> None:
    ref, other = sids(2)

    def script(received: Received) -> Answer:
        if other in received.path:
            return fetched(received, status="undelivered", error_code=30006)
        return fetched(received)

    async with serving(script) as server:
        found = await poll(server.url, [ref, other, ref])
    at = datetime(2026, 11, 22, 12, tzinfo=UTC)
    landline = "undelivered: 30006 landline or unreachable carrier"
    assert found == {
        ref: Receipt(f"{ref}:delivered", "", ref, ReceiptStatus.DELIVERED, at, detail="delivered"),
        other: Receipt(
            f"{other}:undelivered",
            "",
            other,
            ReceiptStatus.FAILED,
            at,
            Reason.NOT_REACHABLE,
            landline,
        ),
    }
    assert sorted((r.method, r.path) for r in server.requests) == [
        ("GET", f"/2010-04-01/Accounts/{SID}/Messages/{sid}.json") for sid in (ref, other)
    ]


@pytest.mark.parametrize(
    "answer",
    [
        Reply(404, b'{"code": 20404}'),
        Reply(429),
        Reply(500),
        Reply(200, b"<html>"),
        Reply(200, b"[]"),
        Reply(200, b'{"sid": "SM1", "status": "delivered"}'),
        RESET,
        Raw(b"\0 no http\r\n\r\n"),
    ],
)
async def test_poll_leaves_out_what_it_cannot_tell(answer: Answer) -> None:
    bad, good = sids(2)
    async with serving(lambda r: answer if bad in r.path else fetched(r)) as server:
        assert list(await poll(server.url, [bad, good])) == [good]


async def test_poll_of_nothing_and_of_nobody() -> None:
    assert await poll(refused_url(), []) == {}
    assert await poll(refused_url(), ["", "not-a-sid", "SM../../x"]) == {}
    assert await poll(refused_url(), sids(3)) == {}


async def test_poll_asks_few_at_once() -> None:
    async with serving(lambda r: replace(fetched(r), delay=0.005)) as server:
        found = await poll(server.url, sids(60))
        assert server.peak == READS_AT_ONCE
    assert list(found) == list(dict.fromkeys(found))
    assert len(found) == 60


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("Sun, 22 Nov 2026 12:00:00 -0000", datetime(2026, 11, 22, 12, tzinfo=UTC)),
        ("soon", None),
        (None, None),
        (7, None),
        ("Sun, 99 Nov 2026 12:00:00 +0000", None),
    ],
)
async def test_poll_reads_the_providers_date(date: object, expected: datetime | None) -> None:
    (ref,) = sids(1)
    async with serving(lambda r: fetched(r, date_updated=date)) as server:
        found = await poll(server.url, [ref])
    assert found[ref].at == expected

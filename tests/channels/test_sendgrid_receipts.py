"""SendGrid's Event Webhook: whom it believes, and what each event means."""

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import ValidationError
from sendgrid.helpers.eventwebhook import EventWebhook

from channels.contract import (
    Accepted,
    Consent,
    ContactKind,
    Envelope,
    Reading,
    Reason,
    Receipt,
    ReceiptRequest,
    ReceiptStatus,
)
from channels.sendgrid_email import SendgridEmail
from channels.transport import CurlTransport
from tests.channels.test_sendgrid_email import KEY as API_KEY
from tests.channels.test_sendgrid_email import mail, settings
from tests.contracts.adapters import outcomes_of
from tests.contracts.receipts import NOW, ReceiptContract, Story
from tests.contracts.server import Received, Reply, serving

PRIVATE = ec.derive_private_key(20261122, ec.SECP256R1())
PUBLIC = base64.b64encode(
    PRIVATE.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
).decode()
KEY = "01890a5d-ac96-774b-bcce-b302099a8057"
MESSAGE = "hvN7aLHaQn-W7MoK0nGgDA"
EMAIL = "ana@example.org"
AT = datetime(2026, 11, 22, 11, 59, tzinfo=UTC)
URL = "https://alerts.example.org/v1/receipts/sendgrid_email"


def event(kind: str, number: int = 1, **more: object) -> dict[str, object]:
    made: dict[str, object] = {
        "email": EMAIL,
        "timestamp": int(AT.timestamp()),
        "smtp-id": "<1@ismtpd>",
        "event": kind,
        "sg_event_id": f"ev-{number}==",
        "sg_message_id": f"{MESSAGE}.filter0001.16648.5515E0B88.0",
        "delivery": KEY,
    }
    return {name: value for name, value in (made | more).items() if value is not None}


def body(*events: object) -> bytes:
    return json.dumps(events).encode()


def request(
    data: bytes, *, signed_at: datetime = NOW, stamp: str = "", sign: bytes | None = None
) -> ReceiptRequest:
    stamp = stamp or str(int(signed_at.timestamp()))
    signed = stamp.encode() + data if sign is None else sign
    mark = base64.b64encode(PRIVATE.sign(signed, ec.ECDSA(hashes.SHA256()))).decode()
    headers = {
        "x-twilio-email-event-webhook-signature": mark,
        "x-twilio-email-event-webhook-timestamp": stamp,
        "content-type": "application/json;charset=utf-8",
    }
    return ReceiptRequest("POST", URL, headers, data)


def told(
    status: ReceiptStatus, reason: Reason = Reason.OK, words: str = "", number: int = 1
) -> Receipt:
    return Receipt(f"ev-{number}==", KEY, f"{MESSAGE}:{KEY}", status, AT, reason, words)


def unwilling(reason: Reason = Reason.OPTED_OUT, *, wanted: bool = False) -> Consent:
    return Consent("ev-1==", ContactKind.EMAIL, EMAIL, wanted, reason, AT)


def failure(made: dict[str, object], reason: Reason, words: str, *, final: bool) -> Story:
    consents = (unwilling(reason),) if final else ()
    return Story(body(made), Reading((told(ReceiptStatus.FAILED, reason, words),), consents))


def drop(why: str | None, reason: Reason, words: str, *, final: bool) -> Story:
    return failure(event("dropped", reason=why), reason, words, final=final)


DELIVERED = told(ReceiptStatus.DELIVERED)
LEFT = Reading(consents=(unwilling(),))


class TestSendgridReceipts(ReceiptContract):
    private = (EMAIL, API_KEY)
    signature_header = "x-twilio-email-event-webhook-signature"
    stories = {
        "delivered": Story(body(event("delivered")), Reading((DELIVERED,))),
        "processed": Story(body(event("processed")), Reading((told(ReceiptStatus.TAKEN),))),
        "deferred": Story(
            body(event("deferred", response=f"450 {EMAIL} is busy", attempt="3")),
            Reading((told(ReceiptStatus.TAKEN, words="receiving server asks to wait"),)),
        ),
        "bounce": failure(
            event("bounce", type="bounce", status="5.1.1", reason=f"550 no {EMAIL} here"),
            Reason.NOT_REACHABLE,
            "bounced 5.1.1",
            final=True,
        ),
        "bounce of old": failure(
            event("bounce", status="odd"), Reason.NOT_REACHABLE, "bounced", final=True
        ),
        "blocked": failure(
            event("bounce", type="blocked", status="4.7.1"),
            Reason.PROVIDER_ERROR,
            "blocked by the server 4.7.1",
            final=False,
        ),
        "no such event": Story(body(event("blocked")), Reading(ignored=1)),
        "dropped, bounced": drop(
            "Bounced Address", Reason.NOT_REACHABLE, "dropped: bounced before", final=True
        ),
        "dropped, unsubscribed": drop(
            "Unsubscribed Address", Reason.OPTED_OUT, "dropped: unsubscribed", final=True
        ),
        "dropped, spam": drop(
            "Spam Reporting Address",
            Reason.OPTED_OUT,
            "dropped: reported spam before",
            final=True,
        ),
        "dropped, invalid": drop(
            "Invalid", Reason.INVALID_ADDRESS, "dropped: invalid address", final=True
        ),
        "dropped, our own fault": drop(
            "Invalid SMTPAPI header", Reason.PROVIDER_ERROR, "dropped", final=False
        ),
        "dropped, spam content": drop(
            "Spam Content (if spam checker app enabled)",
            Reason.CONTENT,
            "dropped: spam content",
            final=False,
        ),
        "dropped, quota": drop(
            "Recipient List over Package Quota",
            Reason.QUOTA,
            "dropped: over the account's quota",
            final=False,
        ),
        "dropped, no reason": drop(None, Reason.PROVIDER_ERROR, "dropped", final=False),
        "unsubscribe": Story(body(event("unsubscribe")), LEFT),
        "group_unsubscribe": Story(body(event("group_unsubscribe", asm_group_id=1)), LEFT),
        "spamreport": Story(body(event("spamreport")), LEFT),
        "group_resubscribe": Story(
            body(event("group_resubscribe")),
            Reading(consents=(unwilling(Reason.OK, wanted=True),)),
        ),
        "unsubscribe of nobody": Story(
            body(event("unsubscribe", email="not an address")), Reading(ignored=1)
        ),
        "open and click": Story(body(event("open"), event("click", 2)), Reading(ignored=2)),
        "nothing": Story(body(), Reading()),
        "bad ones among good ones": Story(
            body(
                None,
                7,
                [],
                {},
                {"event": ["delivered"]},
                event("delivered", sg_message_id=None, delivery=None),
                event("delivered"),
                event("delivered", 2, timestamp="1e999"),
                "x",
            ),
            Reading((DELIVERED, replace(told(ReceiptStatus.DELIVERED, number=2), at=None)), (), 7),
        ),
        "no key": Story(
            body(event("delivered", delivery=None)),
            Reading((replace(DELIVERED, key="", ref=MESSAGE),)),
        ),
        "odd key": Story(
            body(event("delivered", delivery="a\0b")),
            Reading((replace(DELIVERED, key="", ref=MESSAGE),)),
        ),
        "no message id": Story(
            body(event("delivered", sg_message_id=None)), Reading((replace(DELIVERED, ref=""),))
        ),
        "no event id": Story(
            body(event("delivered", sg_event_id=None)),
            Reading(
                (replace(DELIVERED, event=f"{MESSAGE}:{KEY}:delivered:{int(AT.timestamp())}"),)
            ),
        ),
    }

    def build(self, configured: bool = True) -> SendgridEmail:
        given = {"webhook_public_key": PUBLIC} if configured else {}
        return SendgridEmail(settings(**given), CurlTransport())

    def signed(self, body: bytes, now: datetime = NOW) -> ReceiptRequest:
        return request(body, signed_at=now)

    def test_the_vendors_own_verifier_agrees(self) -> None:
        made = request(body(event("delivered")))
        verifier = EventWebhook(PUBLIC)
        marks = [made.headers[name] for name in sorted(made.headers) if "webhook" in name]
        assert verifier.verify_signature(made.body.decode(), *marks)

    @pytest.mark.parametrize(
        ("ago", "code"), [(599, None), (-599, None), (601, "too_old"), (-601, "too_old")]
    )
    def test_an_old_request_is_refused(self, ago: int, code: str | None) -> None:
        made = request(body(event("delivered")), signed_at=NOW - timedelta(seconds=ago))
        if code is None:
            assert self.build().read(made, now=NOW).receipts
        else:
            assert self.refusal(made) == code

    def test_the_window_is_a_setting(self) -> None:
        own = settings(webhook_public_key=PUBLIC, webhook_window=3600)
        made = request(body(event("delivered")), signed_at=NOW - timedelta(minutes=50))
        assert SendgridEmail(own, CurlTransport()).read(made, now=NOW).receipts

    def test_the_timestamp_is_signed(self) -> None:
        made = request(body(event("delivered")), signed_at=NOW - timedelta(days=1))
        fresh = {"x-twilio-email-event-webhook-timestamp": str(int(NOW.timestamp()))}
        assert self.refusal(replace(made, headers=made.headers | fresh)) == "forged"

    @pytest.mark.parametrize("stamp", ["soon", "-5", "1e9", "²", "9" * 400])
    def test_a_timestamp_must_be_seconds(self, stamp: str) -> None:
        made = request(body(), stamp=stamp)
        assert self.refusal(made) in ("unreadable", "forged")

    @pytest.mark.parametrize("data", [b"", b"{}", b"7", b"[", b'"x"', b"\xff"])
    def test_what_is_no_array_is_unreadable(self, data: bytes) -> None:
        assert self.refusal(request(data)) == "unreadable"

    def test_another_key_is_forged(self) -> None:
        other = ec.generate_private_key(ec.SECP256R1())
        made = request(body(event("delivered")))
        stamp = made.headers["x-twilio-email-event-webhook-timestamp"].encode()
        mark = other.sign(stamp + made.body, ec.ECDSA(hashes.SHA256()))
        mine = {self.signature_header: base64.b64encode(mark).decode()}
        assert self.refusal(replace(made, headers=made.headers | mine)) == "forged"


def shown(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    der = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(der).decode()


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "not base64",
        base64.b64encode(b"not a key").decode(),
        shown(ec.generate_private_key(ec.SECP384R1())),
        shown(rsa.generate_private_key(65537, 2048)),
    ],
    ids=["empty", "no base64", "no key", "other curve", "RSA"],
)
def test_settings_refuse_a_key_that_is_not_sendgrids(wrong: str) -> None:
    with pytest.raises(ValidationError):
        settings(webhook_public_key=wrong)


async def test_a_receipt_names_the_delivery_as_acceptance_did() -> None:
    """`Receipt.ref` and `.key` are what `send` gave for the same mail."""

    def script(received: Received) -> Reply:
        return Reply(202, b"", {"X-Message-Id": MESSAGE})

    transport = CurlTransport()
    async with serving(script) as server:
        own = settings(server.url, webhook_public_key=PUBLIC)
        adapter = SendgridEmail(own, transport)
        outcomes = await outcomes_of(adapter, mail(), [Envelope(KEY, EMAIL)])
        (person,) = json.loads(server.requests[0].body)["personalizations"]
    await transport.aclose()
    flattened = event("delivered", delivery=None) | person["custom_args"]
    (receipt,) = adapter.read(request(body(flattened)), now=NOW).receipts
    (outcome,) = outcomes.values()
    assert isinstance(outcome, Accepted)
    assert (receipt.ref, receipt.key) == (outcome.ref, outcome.key)

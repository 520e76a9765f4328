"""The simulators' own callbacks, read by adapters that know nothing of them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from channels.contract import (
    Accepted,
    Adapter,
    Consent,
    Envelope,
    Message,
    Outcome,
    Reading,
    ReceiptReader,
    ReceiptRefused,
    ReceiptRequest,
    ReceiptStatus,
)
from channels.sandbox import credentials
from channels.sandbox.config import SandboxConfig
from channels.sandbox.server import Sandbox, running
from channels.sandbox.webhook_keys import sendgrid_public_key
from channels.sendgrid_email import SendgridEmail
from channels.transport import CurlTransport, Request
from channels.twilio_sms import TwilioSms
from tests.contracts.adapters import outcomes_of
from tests.contracts.server import Received, Reply, ScriptedServer, serving

KEYS = [f"01890a5d-ac96-774b-bcce-b302099a80{number:02x}" for number in range(8)]


class Receiver:
    """Where the simulator posts to, and what came of each request."""

    def __init__(self, server: ScriptedServer, sandbox: Sandbox, transport: CurlTransport) -> None:
        self.server = server
        self.sandbox = sandbox
        self.transport = transport

    async def order(self, method: str, path: str, order: object) -> None:
        """A control call of the simulator."""
        url = f"{self.sandbox.url}/_sandbox/{path}"
        headers = (("Content-Type", "application/json"),)
        response = await self.transport.request(Request(method, url, headers, orjson.dumps(order)))
        assert response.status < 300, response.body

    async def readings(
        self, reader: Adapter, enough: Callable[[Sequence[Reading]], bool]
    ) -> tuple[list[Reading], int]:
        """What was read and how many were refused, once that is enough."""
        assert isinstance(reader, ReceiptReader)
        async with asyncio.timeout(30):
            while True:
                believed, refused = self.judged(reader)
                if enough(believed):
                    return believed, refused
                await asyncio.sleep(0.02)

    def judged(self, reader: ReceiptReader) -> tuple[list[Reading], int]:
        believed, refused = [], 0
        for received in list(self.server.requests):
            request = ReceiptRequest(
                received.method,
                self.server.url + received.target,
                received.headers,
                received.body,
            )
            try:
                believed.append(reader.read(request, now=datetime.now(UTC)))
            except ReceiptRefused as refusal:
                assert refusal.code == "forged"
                refused += 1
        return believed, refused


@asynccontextmanager
async def simulated(folder: Path) -> AsyncIterator[Receiver]:
    config = SandboxConfig(
        state_dir=folder,
        twilio_sent_after=0.0,
        twilio_delivered_after=0.0,
        sendgrid_delivered_after=0.0,
        sendgrid_flush=0.0,
    )
    transport = CurlTransport()

    def accept(_: Received) -> Reply:
        return Reply(204)

    async with serving(accept) as server, running(config) as sandbox:
        yield Receiver(server, sandbox, transport)
        await transport.aclose()


def refs(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {key: one.ref for key, one in outcomes.items() if isinstance(one, Accepted)}


def delivered(readings: Sequence[Reading]) -> dict[str, str]:
    """The key and ref of each message that is known as delivered."""
    return {
        receipt.key: receipt.ref
        for reading in readings
        for receipt in reading.receipts
        if receipt.status is ReceiptStatus.DELIVERED
    }


def consents(readings: Sequence[Reading]) -> list[Consent]:
    return [consent for reading in readings for consent in reading.consents]


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
async def test_twilio(tmp_path: Path, algorithm: str) -> None:
    async with simulated(tmp_path) as there:
        given = {
            "account_sid": credentials.TWILIO_ACCOUNT_SID,
            "auth_token": credentials.TWILIO_AUTH_TOKEN,
            "webhook_secret": credentials.TWILIO_SHARED_KEY,
            "base_url": there.sandbox.url,
            "status_callback": f"{there.server.url}/v1/receipts/twilio_sms",
        }
        adapter = TwilioSms(TwilioSms.Settings.model_validate(given), there.transport)
        rules = {"provider": "twilio", "algorithm": algorithm, "forged": 1.0}
        await there.order("PUT", "events", rules)
        message = Message("m1", "sms", "en", {"text": "Back."}, sender=credentials.TWILIO_FROM)
        envelopes = [Envelope(key, f"+1555010000{n}") for n, key in enumerate(KEYS)]
        sent = refs(await outcomes_of(adapter, message, envelopes))
        readings, refused = await there.readings(adapter, lambda r: len(delivered(r)) == len(KEYS))
        assert delivered(readings) == sent
        assert refused > 0
        stop = {"provider": "twilio", "from": "+15550100000", "to": credentials.TWILIO_FROM}
        url = f"{there.server.url}/v1/receipts/twilio_sms"
        await there.order("POST", "inbound", stop | {"body": "Stop", "url": url})
        readings, _ = await there.readings(adapter, lambda r: bool(consents(r)))
        (consent,) = consents(readings)
        assert (consent.address, consent.wanted) == ("+15550100000", False)


async def test_sendgrid(tmp_path: Path) -> None:
    async with simulated(tmp_path) as there:
        given = {
            "api_key": credentials.SENDGRID_API_KEY,
            "from_email": credentials.SENDGRID_FROM,
            "webhook_public_key": sendgrid_public_key(tmp_path),
            "base_url": there.sandbox.url,
        }
        adapter = SendgridEmail(SendgridEmail.Settings.model_validate(given), there.transport)
        url = f"{there.server.url}/v1/receipts/sendgrid_email"
        await there.order("PUT", "events", {"provider": "sendgrid", "url": url, "forged": 1.0})
        parts = {"subject": "Back", "text": "Back.", "html": "<p>Back.</p>"}
        envelopes = [Envelope(key, f"p{n}@example.org") for n, key in enumerate(KEYS)]
        sent = refs(await outcomes_of(adapter, Message("m1", "email", "en", parts), envelopes))
        readings, refused = await there.readings(adapter, lambda r: len(delivered(r)) == len(KEYS))
        assert delivered(readings) == sent
        assert refused > 0
        bounce = {"provider": "sendgrid", "event": "bounce", "email": "p1@example.org"}
        await there.order("POST", "inbound", bounce)
        readings, _ = await there.readings(adapter, lambda r: bool(consents(r)))
        (consent,) = consents(readings)
        assert (consent.address, consent.wanted) == ("p1@example.org", False)

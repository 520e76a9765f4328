"""Email by SendGrid v3 Mail Send: up to 1,000 people a request, each with values of their own.

Owns the account's settings and the order of sending: `sendgrid_requests` has the vendor's
SDK build a request, our transport carries it, `sendgrid_answers` reads the answer. It must
not know incidents, ledgers or retries. SendGrid validates a request as a whole and has no
idempotency key; what became of each person is told by events later.
API: https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from channels import sendgrid_receipts, text
from channels.contract import (
    Channel,
    ContactKind,
    Envelope,
    Limits,
    Message,
    Outcome,
    Problem,
    Reading,
    Reason,
    ReceiptRequest,
    Severity,
    TryLater,
    Unit,
    Unknown,
)
from channels.flight import in_flight
from channels.sendgrid_answers import outcomes_of
from channels.sendgrid_requests import MAX_PEOPLE, Mail, SendgridRequests, mails
from channels.transport import NoAnswer, NotSent, Transport

MAX_PARTS = 15_000_000
"""Bytes of subject and bodies: 30 MB a request, less what 1,000 people's values may take."""
CLIPPED_AT = 102_400
"""Bytes of HTML beyond which Gmail hides the rest."""
MAX_SUBJECT = 900
"""Characters; a header line may hold 998, https://www.rfc-editor.org/rfc/rfc5322#section-2.1.1."""


class SendgridSettings(BaseModel):
    """Key, sender and wire. `unsubscribe_url` may hold `{key}`, the delivery's own id.

    `webhook_public_key` is that of the Signed Event Webhook as SendGrid shows it; events that
    were signed more than `webhook_window` seconds ago are refused.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    api_key: SecretStr
    from_email: str = Field(pattern=r"^[^\s<>@,;]+@[^\s<>@,;]+$")
    from_name: str = Field(default="", max_length=200)
    reply_to: str | None = Field(default=None, pattern=r"^[^\s<>@,;]+@[^\s<>@,;]+$")
    base_url: str = Field(default="https://api.sendgrid.com", pattern=r"^https?://[^/\s]+$")
    unsubscribe_url: str | None = Field(default=None, pattern=r"^https://[^\s<>]+$")
    webhook_public_key: str | None = Field(default=None, repr=False)
    webhook_window: float = Field(default=600.0, gt=0, le=86_400)
    timeout: float = Field(default=30.0, gt=0, le=120)

    @field_validator("api_key")
    @classmethod
    def _is_key(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"SG\.[\w-]+\.[\w-]+", value.get_secret_value()):
            raise ValueError("an API key is SG. and two words with a dot between them")
        return value

    @field_validator("webhook_public_key")
    @classmethod
    def _is_public_key(cls, value: str | None) -> str | None:
        if value is not None:
            sendgrid_receipts.public_key(value)
        return value


class SendgridEmail:
    """One try per envelope, many envelopes a request."""

    name: ClassVar[str] = "sendgrid_email"
    channel: ClassVar[str] = Channel.EMAIL
    accepts: ClassVar[str] = ContactKind.EMAIL
    parts: ClassVar[tuple[str, ...]] = ("subject", "text", "html")
    limits: Limits = Limits(
        unit=Unit.MESSAGE, envelopes_per_request=MAX_PEOPLE, concurrency=4, settle_after=60.0
    )
    Settings = SendgridSettings

    def __init__(self, settings: SendgridSettings, transport: Transport) -> None:
        self.settings = settings
        self._transport = transport
        self._requests: SendgridRequests | None = None
        shown = settings.webhook_public_key
        self._webhook_key = None if shown is None else sendgrid_receipts.public_key(shown)

    def check(self, message: Message) -> list[Problem]:
        """Empty parts, an unsendable subject, sizes, with worst-case slot values."""
        problems = [
            Problem(Severity.ERROR, "empty", part, f"The {part} is empty.")
            for part in self.parts
            if not message.parts.get(part, "").strip()
        ]
        worst = text.worst_case(message)
        subject = worst.get("subject", "")
        if "\n" in subject or "\r" in subject:
            words = "The subject has a line break."
            problems.append(Problem(Severity.ERROR, "line_break", "subject", words))
        if len(subject) > MAX_SUBJECT:
            words = f"Up to {len(subject)} characters; {MAX_SUBJECT} are the most."
            problems.append(Problem(Severity.ERROR, "too_long", "subject", words))
        sizes = {part: len(worst.get(part, "").encode()) for part in self.parts}
        if sum(sizes.values()) > MAX_PARTS:
            words = f"Subject and bodies take more than {MAX_PARTS} bytes."
            problems.append(Problem(Severity.ERROR, "too_long", "html", words))
        elif sizes["html"] > CLIPPED_AT:
            words = f"Up to {sizes['html']} bytes; Gmail hides what is beyond {CLIPPED_AT}."
            problems.append(Problem(Severity.WARNING, "clipped", "html", words))
        return problems

    async def prepare(self) -> None:
        """Import the SDK, which takes 0.2 s."""
        await self._connected()

    async def send(self, message: Message, envelopes: Sequence[Envelope]) -> AsyncIterator[Outcome]:
        """Yield the outcomes of a request's people together, requests as they are answered."""
        if not envelopes:
            return
        requests = await self._connected()
        refused: list[Outcome] = []
        together = mails(self.settings, message, envelopes, refused)
        for outcome in refused:
            yield outcome

        async def one(mail: Mail) -> list[Outcome]:
            return await self._try(requests, mail)

        async with aclosing(in_flight(together, one, limit=self.limits.concurrency)) as answered:
            async for outcomes in answered:
                for outcome in outcomes:
                    yield outcome

    def read(self, request: ReceiptRequest, *, now: datetime) -> Reading:
        """What a request of the Event Webhook says. Raises `ReceiptRefused`."""
        return sendgrid_receipts.read(
            request, key=self._webhook_key, window=self.settings.webhook_window, now=now
        )

    async def _connected(self) -> SendgridRequests:
        """The SDK's requests; importing it is not for the loop."""
        if self._requests is None:
            self._requests = await asyncio.to_thread(SendgridRequests, self.settings)
        return self._requests

    async def _try(self, requests: SendgridRequests, mail: Mail) -> list[Outcome]:
        # In a thread, because a message may have megabytes.
        request = await asyncio.to_thread(requests.request, mail)
        keys = mail.keys
        try:
            response = await self._transport.request(request)
        except NotSent as error:
            return [TryLater(key, Reason.UNREACHABLE, detail=str(error)) for key in keys]
        except NoAnswer as error:
            return [Unknown(key, error.reason, str(error)) for key in keys]
        return outcomes_of(keys, response)

"""SMS by Twilio's Messages resource: the vendor's SDK builds requests, our transport carries them.

Owns Twilio's parameters. It must not know incidents, ledgers or retries.
Twilio has no idempotency key, so an answer that got lost is `Unknown` and nothing else.
API: https://www.twilio.com/docs/messaging/api/message-resource
"""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from channels import text, twilio_listing, twilio_receipts
from channels.contract import (
    AdapterBroken,
    CannotTell,
    Channel,
    ContactKind,
    Envelope,
    Finding,
    Limits,
    Message,
    MessageRefused,
    Outcome,
    Problem,
    Reading,
    Reason,
    Receipt,
    ReceiptRequest,
    Severity,
    TryLater,
    Unit,
    Unknown,
)
from channels.flight import in_flight
from channels.transport import NoAnswer, NotSent, Transport, TransportError
from channels.twilio_answers import outcome_of
from channels.twilio_listing import Listed, Unreadable, Wanted
from channels.twilio_requests import TwilioRequests

MAX_CHARS = 1600
"""Longest `Body`, https://www.twilio.com/docs/api/errors/21617."""
MANY_SEGMENTS = 2
"""More than two segments are dear and slow; Twilio advises at most 320 characters."""
FEW_COSTLY = 5
"""So few distinct characters outside GSM-7 are a slip, more are a language."""
MAX_VALIDITY = 36_000
"""Longest `ValidityPeriod` in seconds, also Twilio's own default."""
READS_AT_ONCE = 8
"""Twilio limits an account's requests at once, and sending comes first."""
MAX_PAGES = 5
"""Pages of a number's messages that are read before we cannot tell."""


class TwilioSettings(BaseModel):
    """Account and wire. `api_key` and `api_secret` replace the auth token where both are set.

    Times are in seconds. `status_callback` is where Twilio posts receipts, each delivery's id
    added to its query; they are verified with the auth token, or with `webhook_secret` where
    Twilio signs with a key of its own. `settle_after` is how late Twilio may list a message.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    account_sid: str = Field(repr=False)
    auth_token: SecretStr | None = None
    api_key: str | None = Field(default=None, pattern=r"^SK[0-9a-f]{32}$", repr=False)
    api_secret: SecretStr | None = None
    base_url: str = Field(default="https://api.twilio.com", pattern=r"^https?://[^/\s]+$")
    status_callback: str | None = Field(default=None, pattern=r"^https?://[^\s#]+")
    webhook_secret: SecretStr | None = None
    timeout: float = Field(default=10.0, gt=0, le=60)
    settle_after: float = Field(default=60.0, ge=0, le=3600)
    concurrency: int = Field(default=64, ge=1, le=1000)

    @field_validator("account_sid")
    @classmethod
    def _is_sid(cls, value: str) -> str:
        if not re.fullmatch(r"AC[0-9a-f]{32}", value):
            raise ValueError("an account SID is AC and 32 hex digits")
        return value

    @field_validator("auth_token")
    @classmethod
    def _is_token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[0-9a-f]{32}", value.get_secret_value()):
            raise ValueError("an auth token is 32 hex digits")
        return value

    @model_validator(mode="after")
    def _has_credentials(self) -> "TwilioSettings":
        if (self.api_key is None) != (self.api_secret is None):
            raise ValueError("api_key and api_secret belong together")
        if self.auth_token is None and self.api_key is None:
            raise ValueError("an auth_token, or an api_key and its api_secret, is needed")
        return self

    def credentials(self) -> tuple[str, str]:
        """User name and password of HTTP Basic."""
        if self.api_key is not None and self.api_secret is not None:
            return self.api_key, self.api_secret.get_secret_value()
        if self.auth_token is None:
            raise ValueError("no credentials")
        return self.account_sid, self.auth_token.get_secret_value()

    def webhook_secrets(self) -> tuple[str, ...]:
        """What Twilio's signature may have been made with; an API key never signs."""
        known = (self.auth_token, self.webhook_secret)
        return tuple(secret.get_secret_value() for secret in known if secret is not None)


class TwilioSms:
    """One try per envelope, up to `settings.concurrency` of them at once."""

    name: ClassVar[str] = "twilio_sms"
    channel: ClassVar[str] = Channel.SMS
    accepts: ClassVar[str] = ContactKind.PHONE
    parts: ClassVar[tuple[str, ...]] = ("text",)
    limits: Limits = Limits(unit=Unit.SEGMENT, concurrency=64, settle_after=60.0)
    Settings = TwilioSettings

    def __init__(self, settings: TwilioSettings, transport: Transport) -> None:
        self.settings = settings
        self._transport = transport
        self._requests: TwilioRequests | None = None
        self.limits = replace(
            type(self).limits,
            concurrency=settings.concurrency,
            settle_after=settings.settle_after,
        )

    def check(self, message: Message) -> list[Problem]:
        """Length, segments and characters, with worst-case slot values."""
        written = message.parts.get("text", "")
        if not written.strip():
            return [_problem(Severity.ERROR, "empty", "The text is empty.")]
        worst = text.worst_case(message)["text"]
        problems = []
        if len(worst) > MAX_CHARS:
            words = f"Up to {len(worst)} characters; {MAX_CHARS} are the most."
            problems.append(_problem(Severity.ERROR, "too_long", words))
        measure = text.sms_measure(worst)
        if measure.segments > MANY_SEGMENTS:
            words = (
                f"Up to {measure.segments} segments; more than {MANY_SEGMENTS} are dear and slow."
            )
            problems.append(_problem(Severity.WARNING, "segments", words))
        slips = text.sms_measure(written)
        if 0 < len(slips.costly) <= FEW_COSTLY:
            named = ", ".join(_named(c, slips.replacements.get(c)) for c in slips.costly)
            words = f"Only 70 characters fit a segment instead of 160 because of: {named}."
            problems.append(_problem(Severity.WARNING, "costly_characters", words))
        return problems

    async def prepare(self) -> None:
        """Import the SDK, which takes 0.2 s."""
        await self._connected()

    async def send(self, message: Message, envelopes: Sequence[Envelope]) -> AsyncIterator[Outcome]:
        """Yield each envelope's outcome as Twilio answers it."""
        if not envelopes:
            return
        requests = await self._connected()
        service = message.sender.startswith("MG")
        options = {"messaging_service_sid" if service else "from_": message.sender}

        async def one(envelope: Envelope) -> Outcome:
            return await self._try(requests, message, envelope, options)

        async with aclosing(in_flight(envelopes, one, limit=self.settings.concurrency)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def find(self, message: Message, envelopes: Sequence[Envelope]) -> Mapping[str, Finding]:
        """Look for each message in the list of what its number was sent.

        `NotTaken` only where that list was read back to before the try; whatever goes wrong
        on the way, and a try of unknown time, is `CannotTell`.
        """
        findings: dict[str, Finding] = {envelope.key: CannotTell() for envelope in envelopes}
        asked: dict[str, list[Wanted]] = {}
        for envelope in envelopes:
            try:
                body = text.fill(message, envelope)["text"]
            except text.SlotError:
                continue
            if envelope.tried_at is not None and message.sender:
                wanted = Wanted(envelope, message.sender, body)
                asked.setdefault(envelope.address, []).append(wanted)
        if asked:
            requests = await self._connected()

            async def one(wanted: list[Wanted]) -> Mapping[str, Finding]:
                return await self._look(requests, wanted)

            groups = list(asked.values())
            async with aclosing(in_flight(groups, one, limit=READS_AT_ONCE)) as found:
                async for some in found:
                    findings.update(some)
        return findings

    def read(self, request: ReceiptRequest, *, now: datetime) -> Reading:
        """What a status callback or a forwarded SMS says. Raises `ReceiptRefused`.

        Twilio's requests carry no time, so there is none to judge by `now`; a repeated one
        has the same events.
        """
        settings = self.settings
        return twilio_receipts.read(
            request, account_sid=settings.account_sid, secrets=settings.webhook_secrets()
        )

    async def poll(self, refs: Sequence[str]) -> Mapping[str, Receipt]:
        """How far messages have come, each asked by its sid."""
        sids = [ref for ref in dict.fromkeys(refs) if twilio_receipts.SID.fullmatch(ref)]
        if not sids:
            return {}
        requests = await self._connected()

        async def one(sid: str) -> Receipt | None:
            try:
                return twilio_receipts.polled(
                    sid, await self._transport.request(requests.fetch(sid))
                )
            except TransportError:
                return None

        async with aclosing(in_flight(sids, one, limit=READS_AT_ONCE)) as receipts:
            return {receipt.ref: receipt async for receipt in receipts if receipt is not None}

    async def _look(
        self, requests: TwilioRequests, wanted: Sequence[Wanted]
    ) -> Mapping[str, Finding]:
        """Findings for messages to one number."""
        earliest = min(one.earliest for one in wanted)
        listed: list[Listed] = []
        query: Mapping[str, str] = {}
        whole = False
        try:
            for _ in range(MAX_PAGES):
                request = requests.page(to=wanted[0].envelope.address, page=query)
                page = twilio_listing.read_page(await self._transport.request(request))
                listed.extend(page.messages)
                query = page.following
                older = [one.created < earliest for one in page.messages]
                whole = not query or (bool(older) and all(older))
                if whole:
                    break
        except (TransportError, Unreadable):
            pass  # what was read so far can still say yes
        return twilio_listing.settled(wanted, listed, whole=whole)

    async def _try(
        self,
        requests: TwilioRequests,
        message: Message,
        envelope: Envelope,
        options: Mapping[str, Any],
    ) -> Outcome:
        key = envelope.key
        if not message.sender:
            return AdapterBroken(key, Reason.SENDER, "the message names no sender")
        if message.expires_at is not None:
            validity = _validity(message.expires_at)
            if validity < 1:
                return TryLater(key, Reason.UNREACHABLE, detail="expired before it was sent")
            options = {**options, "validity_period": validity}
        try:
            body = text.fill(message, envelope)["text"]
        except text.SlotError as error:
            return MessageRefused(key, Reason.SLOT_VALUE, str(error)[:200])
        request = requests.create(to=envelope.address, body=body, key=key, options=options)
        try:
            response = await self._transport.request(request)
        except NotSent as error:
            return TryLater(key, Reason.UNREACHABLE, detail=str(error))
        except NoAnswer as error:
            return Unknown(key, error.reason, str(error))
        return outcome_of(key, response)

    async def _connected(self) -> TwilioRequests:
        """The SDK's requests; importing the SDK takes 0.2 s, so not on the loop."""
        if self._requests is None:
            self._requests = await asyncio.to_thread(TwilioRequests, self.settings)
        return self._requests


def _validity(expires_at: datetime) -> int:
    """Seconds for `ValidityPeriod`, below 1 when the message has expired."""
    return min(MAX_VALIDITY, int((expires_at - datetime.now(UTC)).total_seconds()))


def _problem(severity: Severity, code: str, words: str) -> Problem:
    return Problem(severity, code, "text", words)


def _named(char: str, instead: str | None) -> str:
    shown = f"“{char}” (U+{ord(char):04X})" if char.isprintable() else f"U+{ord(char):04X}"
    return shown if instead is None else f"{shown}, better “{instead}”"

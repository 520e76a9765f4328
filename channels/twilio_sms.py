"""SMS by Twilio's Messages resource: the vendor's SDK builds requests, our transport carries them.

Owns Twilio's parameters. It must not know incidents, ledgers or retries.
Twilio has no idempotency key, so an answer that got lost is `Unknown` and nothing else.
API: https://www.twilio.com/docs/messaging/api/message-resource
"""

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import quote_plus, urlencode

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from channels import text
from channels.contract import (
    AdapterBroken,
    Channel,
    ContactKind,
    Envelope,
    Limits,
    Message,
    MessageRefused,
    Outcome,
    Problem,
    Reason,
    Severity,
    TryLater,
    Unit,
    Unknown,
)
from channels.flight import in_flight
from channels.transport import NoAnswer, NotSent, Request, Response, Transport
from channels.twilio_answers import outcome_of

MAX_CHARS = 1600
"""Longest `Body`, https://www.twilio.com/docs/api/errors/21617."""
MANY_SEGMENTS = 2
"""More than two segments are dear and slow; Twilio advises at most 320 characters."""
FEW_COSTLY = 5
"""So few distinct characters outside GSM-7 are a slip, more are a language."""
MAX_VALIDITY = 36_000
"""Longest `ValidityPeriod` in seconds, also Twilio's own default."""


class TwilioSettings(BaseModel):
    """Account and wire. `api_key` and `api_secret` replace the auth token where both are set.

    Times are in seconds. `status_callback` is where Twilio posts receipts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    account_sid: str = Field(repr=False)
    auth_token: SecretStr | None = None
    api_key: str | None = Field(default=None, pattern=r"^SK[0-9a-f]{32}$", repr=False)
    api_secret: SecretStr | None = None
    base_url: str = Field(default="https://api.twilio.com", pattern=r"^https?://[^/\s]+$")
    status_callback: str | None = Field(default=None, pattern=r"^https?://[^\s#]+")
    timeout: float = Field(default=10.0, gt=0, le=60)
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


class TwilioSms:
    """One try per envelope, up to `settings.concurrency` of them at once."""

    name: ClassVar[str] = "twilio_sms"
    channel: ClassVar[str] = Channel.SMS
    accepts: ClassVar[str] = ContactKind.PHONE
    parts: ClassVar[tuple[str, ...]] = ("text",)
    limits: ClassVar[Limits] = Limits(
        unit=Unit.SEGMENT, envelopes_per_request=1, concurrency=64, settle_after=60.0
    )
    Settings = TwilioSettings

    def __init__(self, settings: TwilioSettings, transport: Transport) -> None:
        self.settings = settings
        self._transport = transport
        self._messages: Any = None

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

    async def send(self, message: Message, envelopes: Sequence[Envelope]) -> AsyncIterator[Outcome]:
        """Yield each envelope's outcome as Twilio answers it."""
        common = self._common(message)
        if self._messages is None and envelopes:
            self._messages = await asyncio.to_thread(self._connect)

        async def one(envelope: Envelope) -> Outcome:
            return await self._try(message, envelope, common)

        async with aclosing(in_flight(envelopes, one, limit=self.settings.concurrency)) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def _try(
        self, message: Message, envelope: Envelope, common: Mapping[str, Any]
    ) -> Outcome:
        key = envelope.key
        if not message.sender:
            return AdapterBroken(key, Reason.SENDER, "the message names no sender")
        validity = _validity(message.expires_at)
        if validity is not None and validity < 1:
            return TryLater(key, Reason.UNREACHABLE, detail="expired before it was sent")
        try:
            body = text.fill(message, envelope)["text"]
        except text.SlotError as error:
            return MessageRefused(key, Reason.SLOT_VALUE, str(error)[:200])
        extra = {} if validity is None else {"validity_period": validity}
        try:
            await self._messages.create_async(to=envelope.address, body=body, **common, **extra)
        except _Answered as answered:
            return outcome_of(key, answered.response)
        except NotSent as error:
            return TryLater(key, Reason.UNREACHABLE, detail=str(error))
        except NoAnswer as error:
            return Unknown(key, error.reason, str(error))
        raise RuntimeError("the SDK returned without an answer of the transport")

    def _common(self, message: Message) -> dict[str, Any]:
        """The parameters that all recipients of a message share."""
        service = message.sender.startswith("MG")
        common = {"messaging_service_sid" if service else "from_": message.sender}
        if self.settings.status_callback:
            common["status_callback"] = self.settings.status_callback
        return common

    def _connect(self) -> Any:
        """The SDK's message list over our transport; importing the SDK takes 0.2 s."""
        try:
            from twilio.rest import Client  # type: ignore[import-untyped]
        except ImportError as error:
            raise ImportError("twilio_sms needs the package twilio") from error
        settings = self.settings
        user, password = settings.credentials()
        client = Client(
            user,
            password,
            settings.account_sid,
            http_client=_http_client(self._transport, settings),
            environment={"": ""},  # an empty mapping would mean the process's own
        )
        client.api.base_url = settings.base_url
        return client.messages


class _Answered(Exception):
    """Carries the transport's answer past the SDK, which would lose its headers on an error."""

    def __init__(self, response: Response) -> None:
        super().__init__("answered")
        self.response = response


def _http_client(transport: Transport, settings: TwilioSettings) -> Any:
    """The SDK's async HTTP client over our transport.

    It logs nothing (the SDK's own logs URLs and parameters) and hands every answer out as
    `_Answered`, because the SDK parses at length what we need one field of.
    """
    from twilio.http import AsyncHttpClient  # type: ignore[import-untyped]

    pair = ":".join(settings.credentials()).encode()
    authorization = ("Authorization", "Basic " + base64.b64encode(pair).decode())

    class OverTransport(AsyncHttpClient):  # type: ignore[misc]
        async def request(
            self,
            method: str,
            uri: str,
            params: Mapping[str, object] | None = None,
            data: Mapping[str, object] | None = None,
            headers: Mapping[str, str] | None = None,
            auth: tuple[str, str] | None = None,
            timeout: float | None = None,  # noqa: ASYNC109 - the SDK's signature
            allow_redirects: bool = False,
        ) -> Any:
            url = f"{uri}?{urlencode(params, doseq=True)}" if params else uri
            request = Request(
                method=method,
                url=url,
                headers=[*(headers or {}).items(), authorization],
                body=_form(data) if data else b"",
                timeout=timeout or settings.timeout,
            )
            raise _Answered(await transport.request(request))

    return OverTransport(logger=None, is_async=True, timeout=settings.timeout)


def _form(data: Mapping[str, object]) -> bytes:
    """The form's body; what recipients share, foremost the text, is quoted once."""
    quoted = (
        f"{name}={quote_plus(str(value)) if name == 'To' else _quoted(str(value))}"
        for name, value in data.items()
    )
    return "&".join(quoted).encode()


_quoted = lru_cache(maxsize=64)(quote_plus)


def _validity(expires_at: datetime | None) -> int | None:
    """Seconds for `ValidityPeriod`, below 1 when the message has expired."""
    if expires_at is None:
        return None
    return min(MAX_VALIDITY, int((expires_at - datetime.now(UTC)).total_seconds()))


def _problem(severity: Severity, code: str, words: str) -> Problem:
    return Problem(severity, code, "text", words)


def _named(char: str, instead: str | None) -> str:
    shown = f"“{char}” (U+{ord(char):04X})" if char.isprintable() else f"U+{ord(char):04X}"
    return shown if instead is None else f"{shown}, better “{instead}”"

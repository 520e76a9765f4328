"""Email by SendGrid v3 Mail Send: up to 1,000 people a request, each with values of their own.

Owns SendGrid's request and its answers: the vendor's SDK builds the request, our transport
carries it. It must not know incidents, ledgers or retries. SendGrid validates a request as
a whole and has no idempotency key; what became of each person is told by events later.
API: https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parseaddr
from typing import Any, ClassVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from channels import sendgrid_receipts, text
from channels.contract import (
    Channel,
    ContactKind,
    Envelope,
    Limits,
    Message,
    MessageRefused,
    Outcome,
    Problem,
    Reading,
    Reason,
    ReceiptRequest,
    RecipientRefused,
    Severity,
    TryLater,
    Unit,
    Unknown,
)
from channels.flight import in_flight
from channels.sendgrid_answers import outcomes_of
from channels.transport import NoAnswer, NotSent, Request, Transport

MAX_PEOPLE = 1000
"""Personalizations a request, each with one address, and no address twice."""
MAX_SUBSTITUTIONS = 10_000
"""Bytes of one person's substitutions."""
MAX_PARTS = 15_000_000
"""Bytes of subject and bodies: 30 MB a request, less what 1,000 people's values may take."""
CLIPPED_AT = 102_400
"""Bytes of HTML beyond which Gmail hides the rest."""
MAX_SUBJECT = 900
"""Characters; a header line may hold 998, https://www.rfc-editor.org/rfc/rfc5322#section-2.1.1."""

_APART = "\x1f"  # cannot occur in a slot's value, which has no control characters
_ADDRESS = re.compile(r"[^\s<>@,;]+@[^\s<>@,;]+")


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


@dataclass(frozen=True, slots=True)
class _Mail:
    """One request: who is in it, in the order of its personalizations, and its body."""

    envelopes: Sequence[Envelope]
    body: Mapping[str, Any]


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
        self._client: Any = None
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

    async def send(self, message: Message, envelopes: Sequence[Envelope]) -> AsyncIterator[Outcome]:
        """Yield the outcomes of a request's people together, requests as they are answered."""
        if self._client is None and envelopes:
            self._client = await asyncio.to_thread(self._connect)
        refused: list[Outcome] = []
        mails = list(self._mails(message, envelopes, refused))
        for outcome in refused:
            yield outcome

        async def one(mail: _Mail) -> list[Outcome]:
            return await self._try(mail)

        async with aclosing(in_flight(mails, one, limit=self.limits.concurrency)) as answered:
            async for outcomes in answered:
                for outcome in outcomes:
                    yield outcome

    def read(self, request: ReceiptRequest, *, now: datetime) -> Reading:
        """What a request of the Event Webhook says. Raises `ReceiptRefused`."""
        return sendgrid_receipts.read(
            request, key=self._webhook_key, window=self.settings.webhook_window, now=now
        )

    async def _try(self, mail: _Mail) -> list[Outcome]:
        request = await asyncio.to_thread(self._built, mail.body)
        keys = [envelope.key for envelope in mail.envelopes]
        try:
            response = await self._transport.request(request)
        except NotSent as error:
            return [TryLater(key, Reason.UNREACHABLE, detail=str(error)) for key in keys]
        except NoAnswer as error:
            return [Unknown(key, error.reason, str(error)) for key in keys]
        return outcomes_of(keys, response)

    def _mails(
        self, message: Message, envelopes: Sequence[Envelope], refused: list[Outcome]
    ) -> Iterator[_Mail]:
        """Requests for the envelopes; those that cannot be sent at all go to `refused`."""
        common = self._common(message)
        marked = _marked(message)
        shared = common | _content(marked.parts)
        people: list[list[tuple[Envelope, dict[str, Any]]]] = []  # nth occurrence of an address
        seen: dict[str, int] = {}
        for envelope in envelopes:
            if not _ADDRESS.fullmatch(envelope.address):
                refused.append(
                    RecipientRefused(envelope.key, Reason.INVALID_ADDRESS, "not a mail address")
                )
                continue
            try:
                values = _substitutions(message, envelope)
            except text.SlotError as error:
                refused.append(MessageRefused(envelope.key, Reason.SLOT_VALUE, str(error)[:200]))
                continue
            person = self._person(envelope)
            if values is None:
                own = common | _content(text.fill(message, envelope))
                yield _Mail((envelope,), own | {"personalizations": [person]})
                continue
            if values:
                person["substitutions"] = values
            nth = seen.get(envelope.address.lower(), 0)
            seen[envelope.address.lower()] = nth + 1
            if nth == len(people):
                people.append([])
            people[nth].append((envelope, person))
        for group in people:
            for start in range(0, len(group), MAX_PEOPLE):
                some = group[start : start + MAX_PEOPLE]
                yield _Mail(
                    [envelope for envelope, _ in some],
                    shared | {"personalizations": [person for _, person in some]},
                )

    def _common(self, message: Message) -> dict[str, Any]:
        """What everybody shares but the content. Tracking is off: it would rewrite the text."""
        settings = self.settings
        name, address = parseaddr(message.sender)
        if not address:
            name, address = settings.from_name, settings.from_email
        off = {"enable": False}
        common: dict[str, Any] = {
            "from": {"email": address} | ({"name": name} if name else {}),
            "tracking_settings": {
                "click_tracking": {"enable": False, "enable_text": False},
                "open_tracking": off,
                "subscription_tracking": off,
            },
        }
        if settings.reply_to:
            common["reply_to"] = {"email": settings.reply_to}
        return common

    def _person(self, envelope: Envelope) -> dict[str, Any]:
        person: dict[str, Any] = {
            "to": [{"email": envelope.address}],
            "custom_args": {sendgrid_receipts.KEY_ARGUMENT: envelope.key},
        }
        if self.settings.unsubscribe_url:
            url = self.settings.unsubscribe_url.replace("{key}", envelope.key)
            # https://www.rfc-editor.org/rfc/rfc8058#section-3.1
            person["headers"] = {
                "List-Unsubscribe": f"<{url}>",
                "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
            }
        return person

    def _connect(self) -> Any:
        """The SDK's client with its opener taken out; importing the SDK takes 0.2 s."""
        try:
            import python_http_client
            import sendgrid
        except ImportError as error:
            raise ImportError("sendgrid_email needs the package sendgrid") from error
        # The SDK writes whole requests, addresses and key included, to this log.
        logging.getLogger("python_http_client.client").disabled = True

        class Building(python_http_client.Client):  # type: ignore[misc]
            def _build_client(self, name: str | None = None) -> "Building":
                return Building(
                    host=self.host,
                    version=self._version,
                    request_headers=dict(self.request_headers),
                    url_path=[*self._url_path, name] if name else self._url_path,
                    append_slash=self.append_slash,
                    timeout=self.timeout,
                )

            def _make_request(self, opener: Any, request: Any, timeout: Any = None) -> Any:
                raise _Built(request)

        sdk = sendgrid.SendGridAPIClient(
            self.settings.api_key.get_secret_value(), host=self.settings.base_url
        )
        sdk.client = Building(
            host=sdk.client.host, request_headers=sdk.client.request_headers, version=3
        )
        return sdk.client

    def _built(self, body: Mapping[str, Any]) -> Request:
        """The request as the SDK makes it."""
        try:
            self._client.mail.send.post(request_body=body)
        except _Built as built:
            return Request(
                method=built.request.get_method(),
                url=built.request.full_url,
                headers=built.request.header_items(),
                body=built.request.data,
                timeout=self.settings.timeout,
            )
        raise RuntimeError("the SDK returned without making a request")


class _Built(Exception):
    """Carries the request that the SDK has built out of it, before it would open a socket."""

    def __init__(self, request: Any) -> None:
        super().__init__("built")
        self.request = request


def _marked(message: Message) -> Message:
    """The message with slots of its HTML under names of their own, for escaped values."""
    html = message.parts.get("html", "")
    for name in message.slots:
        html = html.replace(f"[[{name}]]", f"[[{name}:html]]")
    return replace(message, parts={**message.parts, "html": html})


def _content(parts: Mapping[str, str]) -> dict[str, Any]:
    return {
        "subject": parts["subject"],
        "content": [
            {"type": "text/plain", "value": parts["text"]},
            {"type": "text/html", "value": parts["html"]},
        ],
    }


def _substitutions(message: Message, envelope: Envelope) -> dict[str, str] | None:
    """This person's value for each marker of `_marked`.

    None when SendGrid could not put them in as `fill` does: a value with brackets might
    make a marker that is substituted again, and there is a limit of size. Such a person
    gets a request of their own with the parts filled in.
    """
    names = [n for n in message.slots if any(f"[[{n}]]" in p for p in message.parts.values())]
    if not names:
        return {}
    markers = _APART.join(f"[[{name}]]" for name in names)
    filled = text.fill(replace(message, parts={"text": markers, "html": markers}), envelope)
    values: dict[str, str] = {}
    plain, escaped = filled["text"].split(_APART), filled["html"].split(_APART)
    for name, value, html in zip(names, plain, escaped, strict=True):
        values[f"[[{name}]]"] = value
        values[f"[[{name}:html]]"] = html
    if any("[" in value or "]" in value for value in plain):
        return None
    return None if len(orjson.dumps(values)) > MAX_SUBSTITUTIONS else values

"""SendGrid's requests: who goes into which, each person's own values, and their bytes.

Owns the SDK, the body and the limits of a request. It must not know outcomes or the wire.
The SDK builds every request but for the people in it: it would take longer to write a
thousand of them as JSON than all the rest takes, so they are put where it left their place.
API: https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
"""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parseaddr
from html import escape
from typing import Any, Protocol

import orjson
from pydantic import SecretStr

from channels import text
from channels.contract import Envelope, Message, MessageRefused, Outcome, Reason, RecipientRefused
from channels.sendgrid_receipts import KEY_ARGUMENT
from channels.wire import Request

MAX_PEOPLE = 1000
"""Personalizations a request, each with one address, and no address twice."""
MAX_SUBSTITUTIONS = 10_000
"""Bytes of one person's substitutions."""

_ADDRESS = re.compile(r"[^\s<>@,;]+@[^\s<>@,;]+")
_PLACE = "\x1f"  # has no place in a message
_ABOUT_A_PLACE = re.compile(r"\[\x1f*\[[^\[\]]*\]\x1f*\]")
_NOBODY = b"[]}"


class Account(Protocol):
    """What is needed of an account's settings."""

    @property
    def api_key(self) -> SecretStr: ...
    @property
    def from_email(self) -> str: ...
    @property
    def from_name(self) -> str: ...
    @property
    def reply_to(self) -> str | None: ...
    @property
    def base_url(self) -> str: ...
    @property
    def unsubscribe_url(self) -> str | None: ...
    @property
    def timeout(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Mail:
    """One request: the deliveries in it, in the order of its personalizations, and what it says."""

    keys: Sequence[str]
    people: Sequence[Mapping[str, Any]]
    shared: Mapping[str, Any]


def mails(
    account: Account, message: Message, envelopes: Sequence[Envelope], refused: list[Outcome]
) -> list[Mail]:
    """Requests for the envelopes; those that cannot be sent at all go to `refused`."""
    common = _common(account, message)
    shared = common | _content(_marked(message).parts)
    substitutions = _Substitutions(message)
    found: list[Mail] = []
    # By the nth occurrence of an address: keys, people.
    groups: list[tuple[list[str], list[Mapping[str, Any]]]] = []
    seen: dict[str, int] = {}
    for envelope in envelopes:
        key, address = envelope.key, envelope.address
        if not _ADDRESS.fullmatch(address):
            refused.append(RecipientRefused(key, Reason.INVALID_ADDRESS, "not a mail address"))
            continue
        try:
            values = substitutions.of(envelope)
        except text.SlotError as error:
            refused.append(MessageRefused(key, Reason.SLOT_VALUE, str(error)[:200]))
            continue
        person = _person(account, envelope)
        if values is None:
            own = common | _content(text.fill(message, envelope))
            found.append(Mail((key,), (person,), own))
            continue
        if values:
            person["substitutions"] = values
        folded = address.lower()
        nth = seen.get(folded, 0)
        seen[folded] = nth + 1
        if nth == len(groups):
            groups.append(([], []))
        keys, people = groups[nth]
        keys.append(key)
        people.append(person)
    for keys, people in groups:
        for start in range(0, len(keys), MAX_PEOPLE):
            some = slice(start, start + MAX_PEOPLE)
            found.append(Mail(keys[some], people[some], shared))
    return found


def _common(account: Account, message: Message) -> dict[str, Any]:
    """What everybody shares but the content. Tracking is off: it would rewrite the text."""
    name, address = parseaddr(message.sender)
    if not address:
        name, address = account.from_name, account.from_email
    off = {"enable": False}
    common: dict[str, Any] = {
        "from": {"email": address} | ({"name": name} if name else {}),
        "tracking_settings": {
            "click_tracking": {"enable": False, "enable_text": False},
            "open_tracking": off,
            "subscription_tracking": off,
        },
    }
    if account.reply_to:
        common["reply_to"] = {"email": account.reply_to}
    return common


def _person(account: Account, envelope: Envelope) -> dict[str, Any]:
    person: dict[str, Any] = {
        "to": [{"email": envelope.address}],
        "custom_args": {KEY_ARGUMENT: envelope.key},
    }
    if account.unsubscribe_url:
        url = account.unsubscribe_url.replace("{key}", envelope.key)
        # https://www.rfc-editor.org/rfc/rfc8058#section-3.1
        person["headers"] = {
            "List-Unsubscribe": f"<{url}>",
            "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
        }
    return person


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


class _Substitutions:
    """A person's value for each marker of `_marked`; what is everybody's is worked out once."""

    def __init__(self, message: Message) -> None:
        names = [n for n in message.slots if any(f"[[{n}]]" in p for p in message.parts.values())]
        self._fields = [
            (name, message.slots[name], f"[[{name}]]", f"[[{name}:html]]")
            for name in names
            if _is_filled(message, name)
        ]
        self._possible = len(self._fields) == len(names) and not _encloses(message, names)
        # Escaped, a character takes up to six bytes, and in JSON a bare one up to four.
        most = sum(40 + 8 * len(name) + 10 * slot.max_chars for name, slot, *_ in self._fields)
        self._small = most <= MAX_SUBSTITUTIONS

    def of(self, envelope: Envelope) -> dict[str, str] | None:
        """None when SendGrid could not put the values in as `fill` does: one with brackets, or
        between brackets, might make a marker that is substituted again, and there is a limit
        of size. Such a person gets a request of their own with the parts filled in. Raises
        `SlotError`.
        """
        values: dict[str, str] = {}
        possible = self._possible
        for name, slot, marker, marker_in_html in self._fields:
            value = text.checked(name, slot, envelope.slots.get(name))
            values[marker] = value
            values[marker_in_html] = escape(value)
            if "[" in value or "]" in value:
                possible = False
        if possible and (self._small or len(orjson.dumps(values)) <= MAX_SUBSTITUTIONS):
            return values
        return None


def _encloses(message: Message, names: Sequence[str]) -> bool:
    """Whether brackets of the message's own, around a value, might make a marker of it."""
    for part in message.parts.values():
        for name in names:
            part = part.replace(f"[[{name}]]", _PLACE)
        if any(_PLACE in found[0] for found in _ABOUT_A_PLACE.finditer(part)):
            return True
    return False


def _is_filled(message: Message, name: str) -> bool:
    """Whether `fill` takes a slot of this name for one."""
    probe = replace(message, parts={"text": f"[[{name}]]"})
    return text.fill(probe, Envelope("", "", {name: ""})) == {"text": ""}


class SendgridRequests:
    """Requests of one account. Making it imports the SDK, which takes 0.2 s, and raises
    `ImportError` without it."""

    def __init__(self, account: Account) -> None:
        try:
            import python_http_client
            import sendgrid
        except ImportError as error:
            raise ImportError("sendgrid_email needs the package sendgrid") from error
        # The SDK writes whole requests, addresses and key included, to this log.
        logging.getLogger("python_http_client.client").disabled = True
        sdk = sendgrid.SendGridAPIClient(account.api_key.get_secret_value(), host=account.base_url)
        sdk.client = _building(python_http_client.Client)(
            host=sdk.client.host, request_headers=sdk.client.request_headers, version=3
        )
        self._client = sdk.client
        self._timeout = account.timeout

    def request(self, mail: Mail) -> Request:
        """The request as the SDK makes it, with the people in their place at its end."""
        built = self._built({**mail.shared, "personalizations": []})
        if not built.data.endswith(_NOBODY):
            raise RuntimeError("the SDK writes a body in another way")
        return Request(
            method=built.get_method(),
            url=built.full_url,
            headers=built.header_items(),
            body=b"%b%b}" % (built.data.removesuffix(_NOBODY), _json(mail.people)),
            timeout=self._timeout,
        )

    def _built(self, body: Mapping[str, Any]) -> Any:
        try:
            self._client.mail.send.post(request_body=body)
        except _Built as built:
            return built.request
        raise RuntimeError("the SDK returned without making a request")


def _json(people: Sequence[Mapping[str, Any]]) -> bytes:
    try:
        return orjson.dumps(people)
    except orjson.JSONEncodeError:  # half a surrogate pair, which the SDK would write as well
        return json.dumps(people).encode()


class _Built(Exception):
    """Carries the request that the SDK has built out of it, before it would open a socket."""

    def __init__(self, request: Any) -> None:
        super().__init__("built")
        self.request = request


def _building(client: Any) -> Any:
    """The SDK's client with its opener taken out."""

    class Building(client):  # type: ignore[misc]
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

    return Building

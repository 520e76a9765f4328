"""Twilio's requests, each built by the vendor's SDK and taken out before it would be sent.

Owns the SDK and the form's encoding. It must not know messages, outcomes or the wire. The
SDK's own way out logs URLs and parameters, loses an error's headers and parses at length
what we need one field of; so a request leaves it by `_Built`, and nothing is asked twice.
"""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import quote, quote_plus, urlencode

from channels.wire import Request

PAGE_SIZE = 200
"""Messages a page of a listing; Twilio allows 1,000."""


class Account(Protocol):
    """What is needed of an account's settings."""

    @property
    def account_sid(self) -> str: ...
    @property
    def base_url(self) -> str: ...
    @property
    def status_callback(self) -> str | None: ...
    @property
    def timeout(self) -> float: ...
    def credentials(self) -> tuple[str, str]: ...


class TwilioRequests:
    """Requests of one account, for messages in the form that the SDK gives them.

    The first call imports the SDK, which takes 0.2 s and raises `ImportError` without it.
    """

    def __init__(self, account: Account) -> None:
        try:
            from twilio.rest import Client  # type: ignore[import-untyped]
        except ImportError as error:
            raise ImportError("twilio_sms needs the package twilio") from error
        user, password = account.credentials()
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        client = _building(Client)(
            user,
            password,
            account.account_sid,
            environment={"": ""},  # an empty mapping would mean the process's own
        )
        client.api.base_url = account.base_url
        self._messages = client.messages
        self._timeout = account.timeout
        self._headers: dict[str, Sequence[tuple[str, str]]] = {
            method: (
                *client.get_headers(method, None).items(),
                ("Authorization", f"Basic {pair}"),
            )
            for method in ("GET", "POST")
        }
        base = account.status_callback
        self._callback = f"{base}{'&' if '?' in base else '?'}key=" if base else ""
        self._quoted_callback = quote_plus(self._callback)

    def create(self, *, to: str, body: str, key: str, options: Mapping[str, Any]) -> Request:
        """A new message; `key` goes into the query of the URL that receipts are posted to."""
        if self._callback:
            safe = key if _SAFE.fullmatch(key) else quote(key, safe="")
            options = {**options, "status_callback": self._callback + safe}
        method, url, _, data = _built(self._messages.create, to=to, body=body, **options)
        return Request(method, url, self._headers[method], self._form(data), self._timeout)

    def page(self, *, to: str, page: Mapping[str, str]) -> Request:
        """A page of the messages to a number; `page` holds the `PageToken` and `Page` of a next."""
        more = {}
        if page:
            more = {"page_token": page["PageToken"], "page_number": page.get("Page", "1")}
        return self._reading(self._messages.page, to=to, page_size=PAGE_SIZE, **more)

    def fetch(self, sid: str) -> Request:
        """One message as it stands."""
        return self._reading(self._messages(sid).fetch)

    def _reading(self, call: Callable[..., object], **arguments: object) -> Request:
        method, url, params, _ = _built(call, **arguments)
        if params:
            url = f"{url}?{urlencode(params, doseq=True)}"
        return Request(method, url, self._headers[method], b"", self._timeout)

    def _form(self, data: Mapping[str, object]) -> bytes:
        """The form's body; what recipients share, foremost the text, is quoted once."""
        pairs = []
        for name, value in data.items():
            given = value if type(value) is str else str(value)
            if name == "To":
                digits = given[1:]
                plain = given[:1] == "+" and digits.isascii() and digits.isdigit()
                quoted = "%2B" + digits if plain else quote_plus(given)
            elif name == "StatusCallback":
                own = given[len(self._callback) :].replace("%", "%25")
                quoted = self._quoted_callback + own
            else:
                quoted = _quoted(given)
            pairs.append(f"{name}={quoted}")
        return "&".join(pairs).encode()


_SAFE = re.compile(r"[A-Za-z0-9._-]*")
_quoted = lru_cache(maxsize=64)(quote_plus)

_Parts = tuple[str, str, Mapping[str, object] | None, Mapping[str, object]]


class _Built(Exception):
    """Carries a request out of the SDK."""

    def __init__(self, parts: _Parts) -> None:
        self.parts = parts


def _built(call: Callable[..., object], **arguments: object) -> _Parts:
    """Method, URL, query and form fields that the SDK made of a call."""
    try:
        call(**arguments)
    except _Built as built:
        return built.parts
    raise RuntimeError("the SDK returned without making a request")


def _building(client: Any) -> Any:
    """The SDK's client, whose requests are handed out instead of sent."""

    class Building(client):  # type: ignore[misc]
        def request(
            self,
            method: str,
            uri: str,
            params: Mapping[str, object] | None = None,
            data: Mapping[str, object] | None = None,
            **_: object,
        ) -> None:
            raise _Built((method, self.get_hostname(uri), params, data or {}))

    return Building

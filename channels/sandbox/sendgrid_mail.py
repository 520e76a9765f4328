"""SendGrid's v3 Mail Send.

Owns who may call, rate headers and what each address gets of an accepted request. It must
not know our adapter. https://www.twilio.com/docs/sendgrid/api-reference/mail-send
"""

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from channels.sandbox.answers import Request, reply
from channels.sandbox.config import Provider, SandboxConfig
from channels.sandbox.contents import Filled, Texts
from channels.sandbox.outbox import Outbox
from channels.sandbox.sendgrid_checks import checked
from channels.sandbox.sendgrid_events import SendgridEvents
from channels.sandbox.sendgrid_fields import Refused

_TOO_LARGE = (
    b"<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n"
    b"<center><h1>413 Request Entity Too Large</h1></center>\r\n"
    b"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
_UNAUTHORIZED = "The provided authorization grant is invalid, expired, or revoked"
_PARTS = {"text/plain": "text", "text/html": "html"}


class SendgridMail:
    """Takes mail for one account's key.

    One entry in the outbox per address, with the text after its substitutions. All entries
    of a request share its X-Message-Id as ref, as they do at the provider.
    """

    provider = Provider.SENDGRID

    def __init__(
        self,
        config: SandboxConfig,
        outbox: Outbox,
        *,
        number: int,
        events: SendgridEvents,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self.account_number = number
        self.events = events
        key = config.sendgrid_api_key if number == 1 else config.sendgrid_api_key_2
        self.authorization = f"Bearer {key}".encode()
        self._rate = config.sendgrid_rate
        self._run = secrets.token_urlsafe(9)[:11]
        self._taken = 0
        self._second = 0
        self._left = config.sendgrid_rate

    def clear(self) -> None:
        """Forgets what it keeps beside the outbox."""
        self.events.clear()

    def account(self, request: Request) -> int:
        return self.account_number

    def halved(self, request: Request) -> Request | None:
        try:
            mail = orjson.loads(request.body)
            people = mail["personalizations"]
            mail["personalizations"] = people[: len(people) // 2]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None
        if not mail["personalizations"]:
            return None
        half = Request()
        half.method, half.path, half.query = request.method, request.path, request.query
        half.headers, half.keep_alive = request.headers, request.keep_alive
        half.body = orjson.dumps(mail)
        return half

    def is_send(self, request: Request) -> bool:
        return request.method == b"POST" and request.path == b"/v3/mail/send"

    def addresses(self, request: Request) -> list[str]:
        try:
            people = orjson.loads(request.body)["personalizations"]
            return [str(to["email"]) for person in people for to in person["to"]]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return []

    def refusal(self, status: int, code: int | str | None = None) -> bytes:
        if status == 413:
            return reply(413, _TOO_LARGE, b"text/html")
        words = {401: _UNAUTHORIZED, 403: "access forbidden", 429: "too many requests"}
        message = str(code) if code is not None else words.get(status, "Internal Server Error")
        return _errors(status, [{"message": message, "field": None, "help": None}])

    def answer(self, request: Request) -> bytes:
        if request.oversize:
            return self.refusal(413)
        if request.headers.get(b"authorization") != self.authorization:
            return self.refusal(401)
        if request.path == b"/v3/scopes" and request.method == b"GET":
            return reply(200, orjson.dumps({"scopes": ["mail.send", "sandbox.mail.send"]}))
        if request.path != b"/v3/mail/send":
            return self.refusal(404, "not found")
        if request.method != b"POST":
            return self.refusal(405, "method not allowed")
        within, headers = self._spend()
        if not within:
            return _errors(
                429,
                [{"message": "too many requests", "field": None, "help": None}],
                headers + b"Retry-After: 1\r\n",
            )
        try:
            mail = checked(request.body, now=self._clock())
        except Refused as refused:
            return _errors(400, [refused.error], headers)
        if _is_sandboxed(mail):
            return reply(200, headers=headers)
        message_id = self._take(mail)
        return reply(202, headers=b"X-Message-Id: %b\r\n%b" % (message_id.encode(), headers))

    def _spend(self) -> tuple[bool, bytes]:
        """(whether there was room, the rate headers); windows are whole seconds."""
        second = int(self._clock())
        if second != self._second:
            self._second, self._left = second, self._rate
        within = self._left > 0
        self._left -= within
        return within, (
            b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n"
            % (self._rate, self._left, second + 1)
        )

    def _take(self, mail: dict[str, Any]) -> str:
        self._taken += 1
        message_id = f"{self._run}{self._taken:011d}"
        sender = mail["from"]["email"]
        common: dict[str, str] = {}
        for content in mail.get("content") or []:
            common[_PARTS.get(content["type"], content["type"])] = content["value"]
        if "template_id" in mail:
            common["template_id"] = mail["template_id"]
        templates: dict[str, Texts] = {}
        args = mail.get("custom_args") or {}
        common_further = _further(mail.get("categories"))
        first_seq = self._outbox.next_seq
        for person in mail["personalizations"]:
            subject = person.get("subject") or mail.get("subject") or ""
            template = templates.get(subject)
            if template is None:
                texts = {"subject": subject, **common}
                template = templates[subject] = self._outbox.template(tuple(texts.items()))
            content = Filled(template, tuple((person.get("substitutions") or {}).items()))
            if "dynamic_template_data" in person:
                data = orjson.dumps(person["dynamic_template_data"]).decode()
                content = Filled((*template, ("data", data)), content.values)
            own = {**args, **(person.get("custom_args") or {})}
            key = own.pop("delivery", None)
            further = {**common_further, **own}
            people = [*person["to"], *person.get("cc", []), *person.get("bcc", [])]
            for to in people:
                seq = self._outbox.add(
                    Provider.SENDGRID,
                    to["email"],
                    content,
                    ref=message_id,
                    sender=sender,
                    account=self.account_number,
                    key=key,
                )
                self.events.took(seq, to["email"], further)
        self.events.expect(first_seq, self._outbox.next_seq)
        return message_id


def _further(categories: list[str] | None) -> Mapping[str, Any]:
    """What the events of a mail carry for its categories."""
    return {"category": categories} if categories else {}


def _is_sandboxed(mail: dict[str, Any]) -> bool:
    return bool(mail.get("mail_settings", {}).get("sandbox_mode", {}).get("enable"))


def _errors(status: int, errors: list[dict[str, Any]], headers: bytes = b"") -> bytes:
    return reply(status, orjson.dumps({"errors": errors}), headers=headers)

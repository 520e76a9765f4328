"""Twilio's Messages resource, version 2010-04-01.

Owns who may call, what Twilio checks, and the codes it refuses with. It must not know our
adapter. https://www.twilio.com/docs/messaging/api/message-resource
"""

import base64
import re
import time
from collections.abc import Callable
from urllib.parse import unquote_plus, urlsplit

import orjson

from channels.sandbox.answers import Request, reply
from channels.sandbox.config import Behaviour, Provider, SandboxConfig
from channels.sandbox.courier import Courier
from channels.sandbox.event_rules import Regimes
from channels.sandbox.orders import TwilioInbound
from channels.sandbox.outbox import Outbox
from channels.sandbox.twilio_callbacks import TwilioCallbacks, opt_out_type
from channels.sandbox.twilio_errors import MAGIC_FROM, MAGIC_TO, Refused, error
from channels.sandbox.twilio_progress import Progress
from channels.sandbox.twilio_records import (
    NO_PLAN,
    SERVICE,
    MessageText,
    Plan,
    TwilioRecords,
    parsed_time,
)
from channels.text import sms_measure

_JSON = b"application/json;charset=utf-8"
_E164 = re.compile(r"\+[1-9]\d{6,14}")
_SHORT_CODE = re.compile(r"\d{5,6}")
_ALPHANUMERIC = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 +\-_&]{1,11}")
_HOST = re.compile(r"[A-Za-z0-9.\-:\[\]]+")

MAX_BODY = 1600
_REMEMBERED = 4096
_DAY = 86_400


class TwilioMessages:
    """Takes, shows, lists and cancels messages of one account."""

    provider = Provider.TWILIO

    def __init__(
        self,
        config: SandboxConfig,
        outbox: Outbox,
        *,
        number: int,
        behaviour: Behaviour,
        courier: Courier,
        regimes: Regimes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self.account_number = number
        self._behaviour = behaviour
        self._regimes = regimes
        self._account, token = _account(config, number)
        self._credentials = {_basic(self._account, token)}
        if number == 1:
            self._credentials.add(_basic(config.twilio_api_key, config.twilio_api_secret))
        self.progress = Progress(outbox, behaviour, regimes, clock)
        self._records = TwilioRecords(
            self._account,
            number,
            outbox=outbox,
            progress=self.progress,
            behaviour=behaviour,
            clock=clock,
        )
        self._callbacks = TwilioCallbacks(
            self._account,
            token,
            outbox=outbox,
            progress=self.progress,
            courier=courier,
            regimes=regimes,
            clock=clock,
        )
        self._root = f"/2010-04-01/Accounts/{self._account}".encode()
        self._messages_path = self._root + b"/Messages.json"
        self._message_prefix = self._root + b"/Messages/"
        self._texts: dict[bytes, MessageText] = {}
        self._good_from: dict[bytes, str] = {}
        self._opted_out: set[tuple[str, str]] = set()
        self.opted_out_refused = 0

    def clear(self) -> None:
        """Forgets what it keeps beside the outbox."""
        self._records.clear()
        self.progress.clear()
        self._opted_out.clear()
        self.opted_out_refused = 0

    @property
    def sid(self) -> str:
        """The account's own name."""
        return self._account

    def account(self, request: Request) -> int:
        return self.account_number

    def halved(self, request: Request) -> Request | None:
        return None

    def inbound(self, order: TwilioInbound) -> None:
        """A message from somebody to one of the account's senders; STOP and START count."""
        kind = opt_out_type(order.body)
        senders = [order.to] + ([order.service] if order.service else [])
        pairs = {(sender, order.sender) for sender in senders}
        self._callbacks.inbound(order)
        if kind == "STOP":
            self._opted_out |= pairs
        elif kind == "START":
            self._opted_out -= pairs

    def is_send(self, request: Request) -> bool:
        return request.method == b"POST" and request.path.endswith(b"/Messages.json")

    def addresses(self, request: Request) -> list[str]:
        return [to] if (to := request.form().get("To")) else []

    def refusal(self, status: int, code: int | str | None = None) -> bytes:
        known = {401: 20003, 429: 20429, 500: 20500, 503: 20503}
        return error(int(code or known.get(status, 20001)), status)

    def answer(self, request: Request) -> bytes:
        if request.headers.get(b"authorization") not in self._credentials:
            return error(20003, 401)
        try:
            if request.path == self._messages_path:
                if request.method == b"POST":
                    return self._create(request.body)
                if request.method == b"GET":
                    return reply(200, self._records.page(request.params()), _JSON)
            elif request.path.startswith(self._message_prefix):
                return self._one(request)
            elif request.path == self._root + b".json" and request.method == b"GET":
                return self._account_resource()
        except Refused as refused:
            return error(refused.code, refused.status, refused.message)
        return error(20404, 404, f"The requested resource {request.path.decode()} was not found")

    # --- create --------------------------------------------------------------------------

    def _create(self, body: bytes) -> bytes:
        fields = _fields(body)
        to = self._checked_to(fields.get(b"To", b""))
        service = _decoded(fields.get(b"MessagingServiceSid", b""))
        sender = self._checked_from(fields.get(b"From", b""), service)
        text = self._checked_text(fields.get(b"Body", b""))
        send_at = self._checked_options(fields, service)
        named = service or sender
        if self._opted_out and (named, to) in self._opted_out:
            self.opted_out_refused += 1
            raise Refused(21610)
        validity = fields.get(b"ValidityPeriod")
        plan = NO_PLAN
        if service or (validity and self._behaviour.twilio_sender_rates):
            plan = Plan(sender if service and sender else None, send_at, int(validity or 36_000))
        seq = self._records.take(to, text, sender=named, plan=plan)
        callback = fields.get(b"StatusCallback")
        url = _decoded(callback) if callback else self._regimes.current.url
        if url is not None:
            self._callbacks.expect(seq, url)
        resource = self._records.resource(seq, text)
        return reply(201, resource, _JSON, headers=b"Twilio-Concurrent-Requests: 1\r\n")

    def _checked_to(self, raw: bytes) -> str:
        if not raw:
            raise Refused(21604)
        plain = raw.startswith(b"%2B") and raw[3:].isdigit()
        to = "+" + raw[3:].decode() if plain else _decoded(raw)
        if to in MAGIC_TO:
            raise Refused(MAGIC_TO[to], value=to)
        if not _E164.fullmatch(to):
            raise Refused(21211, value=to)
        return to

    def _checked_from(self, raw: bytes, service: str) -> str:
        if service and not SERVICE.fullmatch(service):
            raise Refused(21701)
        known = self._good_from.get(raw)
        if known is not None:
            return known
        sender = _decoded(raw)
        if not sender:
            if not service:
                raise Refused(21603)
            return ""
        if sender in MAGIC_FROM:
            raise Refused(MAGIC_FROM[sender], value=sender)
        if not any(p.fullmatch(sender) for p in (_E164, _SHORT_CODE, _ALPHANUMERIC)):
            raise Refused(21212, value=sender)
        if len(self._good_from) < _REMEMBERED:
            self._good_from[raw] = sender
        return sender

    def _checked_text(self, raw: bytes) -> MessageText:
        known = self._texts.get(raw)
        if known is not None:
            return known
        text = _decoded(raw)
        if not text:
            raise Refused(21602)
        if len(text) > MAX_BODY:
            raise Refused(21617)
        made = MessageText(text, orjson.dumps(text), sms_measure(text).segments)
        if len(self._texts) >= _REMEMBERED:
            self._texts.clear()
        self._texts[raw] = made
        return made

    def _checked_options(self, fields: dict[bytes, bytes], service: str) -> float | None:
        """Checks the rest; returns the time a scheduled message is to leave."""
        validity = fields.get(b"ValidityPeriod")
        if validity is not None and not (
            validity.isdigit() and len(validity) <= 5 and 1 <= int(validity) <= 36_000
        ):
            raise Refused(21624)
        callback = fields.get(b"StatusCallback")
        if callback and not _is_callback(_decoded(callback)):
            raise Refused(21609)
        if fields.get(b"ScheduleType") != b"fixed":
            return None
        if not service:
            raise Refused(35118)
        send_at = parsed_time(_decoded(fields.get(b"SendAt", b"")))
        if send_at is None or not 300 <= send_at - self._clock() <= 35 * _DAY:
            raise Refused(35114)
        return send_at

    # --- read and cancel -----------------------------------------------------------------

    def _one(self, request: Request) -> bytes:
        sid = request.path[len(self._message_prefix) :].removesuffix(b".json").decode("latin-1")
        seq = self._records.seq_of(sid)
        if seq is None:
            raise Refused(20404, value=request.path.decode("latin-1"))
        if request.method == b"POST":
            if request.form().get("Status") != "canceled":
                raise Refused(20001)
            self.progress.cancel(seq)
        elif request.method != b"GET":
            raise Refused(20004)
        return reply(200, self._records.resource(seq), _JSON)

    def _account_resource(self) -> bytes:
        made = "Thu, 01 Jan 1970 00:00:00 +0000"
        account = {
            "sid": self._account,
            "friendly_name": "Sandbox",
            "status": "active",
            "type": "Full",
            "auth_token": None,
            "date_created": made,
            "date_updated": made,
            "owner_account_sid": self._account,
            "uri": f"/2010-04-01/Accounts/{self._account}.json",
            "subresource_uris": {"messages": self._messages_path.decode()},
        }
        return reply(200, orjson.dumps(account), _JSON)


def _account(config: SandboxConfig, number: int) -> tuple[str, str]:
    """SID and token of an account by its number."""
    if number == 1:
        return config.twilio_account_sid, config.twilio_auth_token
    return config.twilio_account_sid_2, config.twilio_auth_token_2


def _basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


def _fields(body: bytes) -> dict[bytes, bytes]:
    """A form's fields, values still encoded: most are looked up, not decoded."""
    fields = {}
    for pair in body.split(b"&"):
        name, _, value = pair.partition(b"=")
        fields[name] = value
    return fields


def _decoded(raw: bytes) -> str:
    return unquote_plus(raw.decode("latin-1")) if raw else ""


def _is_callback(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and _HOST.fullmatch(parts.netloc) is not None

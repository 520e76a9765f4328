"""Twilio messages that were taken: their status by the clock, their lists, their JSON.

Owns the Message resource as it is read back. It must not know how one is created or who
may ask. https://www.twilio.com/docs/messaging/api/message-resource
"""

import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

import orjson

from channels.sandbox.config import Provider, SandboxConfig
from channels.sandbox.outbox import Outbox
from channels.sandbox.twilio_errors import Refused
from channels.text import sms_measure

SERVICE = re.compile(r"MG[0-9a-f]{32}")
_MAX_PAGE = 1000
_DAY = 86_400
_POOL_NUMBER = "+15005550006"
_REMEMBERED = 4096

# In the provider's own order of fields; filled with ready-made JSON pieces.
_RESOURCE = (
    b'{"body": %b, "num_segments": "%d", "direction": "outbound-api", "from": %b, '
    b'"date_updated": %b, "price": null, "error_message": null, '
    b'"uri": "/2010-04-01/Accounts/%b/Messages/%b.json", "account_sid": "%b", '
    b'"num_media": "0", "to": %b, "date_created": %b, "status": "%b", "sid": "%b", '
    b'"date_sent": %b, "messaging_service_sid": %b, "error_code": null, "price_unit": "USD", '
    b'"api_version": "2010-04-01", "subresource_uris": '
    b'{"media": "/2010-04-01/Accounts/%b/Messages/%b/Media.json"}}'
)


@dataclass(frozen=True, slots=True)
class MessageText:
    """What is worked out once per distinct body."""

    text: str
    json: bytes
    segments: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a message sent through a Messaging Service adds to its outbox entry."""

    sender: str | None = None
    send_at: float | None = None


NO_PLAN = Plan()


class TwilioRecords:
    """The messages of one account.

    A message goes from queued (accepted through a Messaging Service) to sent to delivered
    by the clock, looked at only when it is read. The sid holds the outbox's seq.
    """

    def __init__(self, config: SandboxConfig, outbox: Outbox, clock: Callable[[], float]) -> None:
        self._outbox = outbox
        self._clock = clock
        self._sent_after = config.twilio_sent_after
        self._delivered_after = config.twilio_delivered_after
        self._sid = config.twilio_account_sid.encode()
        self._messages_path = f"/2010-04-01/Accounts/{config.twilio_account_sid}/Messages.json"
        self._run = f"SM{secrets.token_hex(8)}"
        self.clear()

    def clear(self) -> None:
        """Forgets what it keeps beside the outbox."""
        self._plans: dict[int, Plan] = {}
        self._canceled: dict[int, float] = {}

    def take(self, to: str, text: MessageText, *, sender: str, plan: Plan) -> bytes:
        """Puts a message into the outbox and returns its resource."""
        seq = self._outbox.next_seq
        sid = f"{self._run}{seq:016x}"
        self._outbox.add(Provider.TWILIO, to, text.text, ref=sid, sender=sender)
        if plan is not NO_PLAN:
            self._plans[seq] = plan
        return self.resource(seq, text)

    def cancel(self, seq: int) -> None:
        """Cancels a scheduled message; any other is refused (30409)."""
        if self._status(seq, self._clock())[0] != b"scheduled":
            raise Refused(30409)
        self._canceled[seq] = self._clock()

    def seq_of(self, sid: str) -> int | None:
        """The outbox's seq of a sid; None when there is no such message."""
        if not sid.startswith(self._run):
            return None
        try:
            seq = int(sid[len(self._run) :], 16)
        except ValueError:
            return None
        known = self._outbox.holds(Provider.TWILIO, seq) and self._outbox.ref(seq) == sid
        return seq if known else None

    def page(self, params: dict[str, str]) -> bytes:
        """One page of the list that the query asks for, as the SDK walks it."""
        size = _number(params.get("PageSize"), 50)
        if not 1 <= size <= _MAX_PAGE:
            raise Refused(20001)
        page = _number(params.get("Page"), 0)
        token = params.get("PageToken", "").removeprefix("PA")
        before = self.seq_of(token) if token else None
        if token and before is None:
            raise Refused(20001)
        found: list[int] = []
        for seq in self._matching(params, before):
            found.append(seq)
            if len(found) > size:
                break
        more = len(found) > size
        del found[size:]
        base = {k: v for k, v in params.items() if k not in ("Page", "PageToken", "PageSize")}

        def uri(number: int, last: int | None = None) -> str:
            query = base | {"PageSize": str(size), "Page": str(number)}
            if last is not None:
                query["PageToken"] = f"PA{self._outbox.ref(last)}"
            return f"{self._messages_path}?{urlencode(query)}"

        meta = {
            "first_page_uri": uri(0),
            "end": page * size + max(len(found) - 1, 0),
            "previous_page_uri": uri(page - 1) if page else None,
            "uri": uri(page, before),
            "page_size": size,
            "start": page * size,
            "next_page_uri": uri(page + 1, found[-1]) if more else None,
            "page": page,
        }
        records = b", ".join(self.resource(seq) for seq in found)
        return b'{"messages": [%b], %b' % (records, orjson.dumps(meta)[1:])

    def _matching(self, params: dict[str, str], before: int | None) -> Iterator[int]:
        """Newest first; a message that has not been sent has no DateSent and meets no filter."""
        bounds = _date_bounds(params)
        wanted_from, now = params.get("From"), self._clock()
        if "To" in params:
            seqs: Iterator[int] = reversed(self._outbox.to(Provider.TWILIO, params["To"]))
        else:
            seqs = self._outbox.newest_first(Provider.TWILIO, before)
        for seq in seqs:
            if before is not None and seq >= before:
                continue
            if wanted_from is not None and self._from(seq, now) != wanted_from:
                continue
            if bounds is not None:
                sent = self._status(seq, now)[1]
                if sent is None or not bounds[0] <= sent < bounds[1]:
                    continue
            yield seq

    # --- the resource --------------------------------------------------------------------

    def _status(self, seq: int, now: float) -> tuple[bytes, float | None]:
        """(status, time it left) at `now`."""
        if seq in self._canceled:
            return b"canceled", None
        plan = self._plans.get(seq)
        start = self._outbox.at(seq)
        if plan is not None and plan.send_at is not None:
            if now < plan.send_at:
                return b"scheduled", None
            start = plan.send_at
        if now >= start + self._delivered_after:
            return b"delivered", start + self._sent_after
        if now >= start + self._sent_after:
            return b"sent", start + self._sent_after
        return (b"accepted" if self._outbox.sender(seq).startswith("MG") else b"queued"), None

    def _from(self, seq: int, now: float) -> str | None:
        """The number it goes out from; through a service none is known until it is sent."""
        sender = self._outbox.sender(seq)
        if not SERVICE.fullmatch(sender):
            return sender
        plan = self._plans.get(seq)
        if plan is not None and plan.sender is not None:
            return plan.sender
        return _POOL_NUMBER if self._status(seq, now)[1] is not None else None

    def resource(self, seq: int, text: MessageText | None = None) -> bytes:
        """The message as JSON at this moment."""
        now = self._clock()
        outbox = self._outbox
        if text is None:
            body = outbox.texts(seq)["text"]
            text = MessageText(body, orjson.dumps(body), sms_measure(body).segments)
        status, sent = self._status(seq, now)
        sender = outbox.sender(seq)
        service = sender if sender.startswith("MG") and SERVICE.fullmatch(sender) else None
        unsent_service = service is not None and sent is None
        created = outbox.at(seq)
        updated = self._canceled.get(seq) or sent or created
        account, sid = self._sid, outbox.ref(seq).encode()
        return _RESOURCE % (
            text.json,
            0 if unsent_service else text.segments,
            orjson.dumps(self._from(seq, now) if service else sender),
            _date(int(updated)),
            account,
            sid,
            account,
            orjson.dumps(outbox.address(seq)),
            _date(int(created)),
            status,
            sid,
            b"null" if sent is None else _date(int(sent)),
            b"null" if service is None else b'"%b"' % service.encode(),
            account,
            sid,
        )


_dates: dict[int, bytes] = {}


def _date(at: int) -> bytes:
    """RFC 2822, quoted; a second's text is made once."""
    known = _dates.get(at)
    if known is None:
        if len(_dates) > _REMEMBERED:
            _dates.clear()
        text = datetime.fromtimestamp(at, UTC).strftime("%a, %d %b %Y %H:%M:%S +0000")
        known = _dates[at] = f'"{text}"'.encode()
    return known


def _number(text: str | None, default: int) -> int:
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() else -1


def parsed_time(text: str) -> float | None:
    """ISO 8601 to seconds since the epoch, UTC where no zone is given; None if it is neither."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _date_bounds(params: dict[str, str]) -> tuple[float, float] | None:
    """The half-open interval that DateSent, DateSent> and DateSent< ask for."""
    low, high = float("-inf"), float("inf")
    found = False
    for name in ("DateSent", "DateSent>", "DateSent<"):
        if name not in params:
            continue
        at = parsed_time(params[name])
        if at is None:
            raise Refused(20001)
        found = True
        if name != "DateSent<":
            low = max(low, at)
        if name == "DateSent":
            high = min(high, at - at % _DAY + _DAY)
        elif name == "DateSent<":
            high = min(high, at + (_DAY if len(params[name]) == 10 else 1))
    return (low, high) if found else None

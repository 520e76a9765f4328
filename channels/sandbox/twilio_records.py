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

from channels.sandbox.config import Behaviour, Provider
from channels.sandbox.outbox import Outbox
from channels.sandbox.twilio_errors import Refused
from channels.sandbox.twilio_progress import Progress
from channels.text import sms_measure

SERVICE = re.compile(r"MG[0-9a-f]{32}")
_MAX_PAGE = 1000
_DAY = 86_400
_POOL_NUMBER = "+15005550006"
_REMEMBERED = 4096

# In the provider's own order of fields; filled with ready-made JSON pieces.
_RESOURCE = (
    b'{"body": %b, "num_segments": "%d", "direction": "outbound-api", "from": %b, '
    b'"date_updated": %b, "price": null, "error_message": %b, '
    b'"uri": "/2010-04-01/Accounts/%b/Messages/%b.json", "account_sid": "%b", '
    b'"num_media": "0", "to": %b, "date_created": %b, "status": "%b", "sid": "%b", '
    b'"date_sent": %b, "messaging_service_sid": %b, "error_code": %b, "price_unit": "USD", '
    b'"api_version": "2010-04-01", "subresource_uris": '
    b'{"media": "/2010-04-01/Accounts/%b/Messages/%b/Media.json"}}'
)

# https://www.twilio.com/docs/api/errors
_WORDS = {
    30003: b'"Unreachable destination handset"',
    30005: b'"Unknown destination handset"',
    30006: b'"Landline or unreachable carrier"',
    30007: b'"Message filtered"',
    30008: b'"Unknown error"',
    30036: b'"Validity Period Expired"',
}


@dataclass(frozen=True, slots=True)
class MessageText:
    """What is worked out once per distinct body."""

    text: str
    json: bytes
    segments: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a message adds to its outbox entry: the service's pinned sender, when it leaves."""

    sender: str | None = None
    send_at: float | None = None
    validity: int | None = None


NO_PLAN = Plan()


class TwilioRecords:
    """The messages of one account.

    The sid holds the outbox's seq. By its sid a message is there at once, in a list only
    after the list's lag.
    """

    def __init__(
        self,
        account_sid: str,
        account: int,
        *,
        outbox: Outbox,
        progress: Progress,
        behaviour: Behaviour,
        clock: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._progress = progress
        self._behaviour = behaviour
        self._clock = clock
        self._account = account
        self._sid = account_sid.encode()
        self._messages_path = f"/2010-04-01/Accounts/{account_sid}/Messages.json"
        self._run = f"SM{secrets.token_hex(8)}"
        self.clear()

    def clear(self) -> None:
        """Forgets what it keeps beside the outbox."""
        self._pinned: dict[int, str] = {}

    def take(self, to: str, text: MessageText, *, sender: str, plan: Plan) -> int:
        """Puts a message into the outbox and its sender's queue; returns its seq."""
        turn = None
        if self._behaviour.twilio_sender_rates and plan.send_at is None:
            turn = self._progress.turn(sender, text.segments)
        seq = self._outbox.next_seq
        self._outbox.add(
            Provider.TWILIO,
            to,
            text.text,
            ref=f"{self._run}{seq:016x}",
            sender=sender,
            account=self._account,
        )
        if plan.send_at is not None:
            self._progress.begin(seq, plan.send_at, scheduled=True)
        elif turn is not None:
            self._progress.begin(seq, turn, validity=plan.validity)
        if plan.sender is not None:
            self._pinned[seq] = plan.sender
        return seq

    def seq_of(self, sid: str) -> int | None:
        """The outbox's seq of a sid; None when there is no such message."""
        if not sid.startswith(self._run):
            return None
        try:
            seq = int(sid[len(self._run) :], 16)
        except ValueError:
            return None
        # `run` is this account's own, so that no other account's message is found.
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
        shown = now - self._behaviour.twilio_list_lag
        for seq in seqs:
            if self._outbox.at(seq) > shown or self._outbox.account(seq) != self._account:
                continue
            if before is not None and seq >= before:
                continue
            if wanted_from is not None and self._from(seq, now) != wanted_from:
                continue
            if bounds is not None:
                sent = self._progress.status(seq, now).sent
                if sent is None or not bounds[0] <= sent < bounds[1]:
                    continue
            yield seq

    # --- the resource --------------------------------------------------------------------

    def _from(self, seq: int, now: float) -> str | None:
        """The number it goes out from; through a service none is known until it is sent."""
        sender = self._outbox.sender(seq)
        if not SERVICE.fullmatch(sender):
            return sender
        pinned = self._pinned.get(seq)
        if pinned is not None:
            return pinned
        return _POOL_NUMBER if self._progress.status(seq, now).sent is not None else None

    def resource(self, seq: int, text: MessageText | None = None) -> bytes:
        """The message as JSON at this moment."""
        now = self._clock()
        outbox = self._outbox
        if text is None:
            body = outbox.texts(seq)["text"]
            text = MessageText(body, orjson.dumps(body), sms_measure(body).segments)
        status, sent, updated, code = self._progress.status(seq, now)
        sender = outbox.sender(seq)
        service = sender if sender.startswith("MG") and SERVICE.fullmatch(sender) else None
        unsent_service = service is not None and sent is None
        created = outbox.at(seq)
        updated = updated or created
        account, sid = self._sid, outbox.ref(seq).encode()
        return _RESOURCE % (
            text.json,
            0 if unsent_service else text.segments,
            orjson.dumps(self._from(seq, now) if service else sender),
            _date(int(updated)),
            b"null" if code is None else _WORDS.get(code, b"null"),
            account,
            sid,
            account,
            orjson.dumps(outbox.address(seq)),
            _date(int(created)),
            status,
            sid,
            b"null" if sent is None else _date(int(sent)),
            b"null" if service is None else b'"%b"' % service.encode(),
            b"null" if code is None else b"%d" % code,
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

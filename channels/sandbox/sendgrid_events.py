"""SendGrid's event webhook: what becomes of each address's mail, in signed arrays.

Owns the events' fields, their gathering and the signature. It must not know when they are
due or how they are posted.
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event
"""

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from channels.sandbox.config import Behaviour, Provider
from channels.sandbox.courier import Courier
from channels.sandbox.event_rules import Regimes, chance
from channels.sandbox.orders import SendgridInbound
from channels.sandbox.outbox import Outbox
from channels.sandbox.outgoing import Parcel
from channels.sandbox.telling import Telling
from channels.sandbox.webhook_keys import SigningKey

ENDS = ("bounce", "blocked", "dropped")
AFTER_DELIVERY = ("open", "unsubscribe", "spamreport")
BESIDES = ("deferred", *AFTER_DELIVERY)
MAX_EVENTS = 500  # in one post
_SUPPRESSING = {
    "bounce": "Bounced Address",
    "unsubscribe": "Unsubscribed Address",
    "group_unsubscribe": "Unsubscribed Address",
    "spamreport": "Spam Reporting Address",
}
_FURTHER: dict[str, dict[str, object]] = {
    "delivered": {"response": "250 2.0.0 OK"},
    "deferred": {"response": "451 4.7.1 Try again later", "attempt": "1"},
    "bounce": {"reason": "550 5.1.1 No such user", "status": "5.1.1", "type": "bounce"},
    "blocked": {"reason": "554 5.7.1 Rejected", "status": "5.7.1", "type": "blocked"},
    "dropped": {"reason": "Invalid", "status": "5.0.0"},
    "open": {"useragent": "Mozilla/5.0", "ip": "192.0.2.1"},
    "click": {"useragent": "Mozilla/5.0", "ip": "192.0.2.1", "url": "https://example.com/"},
    "group_unsubscribe": {"asm_group_id": 1},
    "group_resubscribe": {"asm_group_id": 1},
}


class _Step(NamedTuple):
    event: str
    at: float


def retry(parcel: Parcel, status: int | None, connected: bool) -> float | None:
    """SendGrid tries again for a day whatever is not 2xx; sooner here than there."""
    return min(60.0, 2.0**parcel.tries) if parcel.tries < 1440 else None


class SendgridEvents:
    """What one account tells. `clear` forgets; `fate` is the final status of a seq."""

    def __init__(
        self,
        account: int,
        key: SigningKey,
        *,
        outbox: Outbox,
        behaviour: Behaviour,
        courier: Courier,
        regimes: Regimes,
        clock: Callable[[], float],
    ) -> None:
        self._account = account
        self._key = key
        self._forger = SigningKey.made()
        self._outbox = outbox
        self._behaviour = behaviour
        self._courier = courier
        self._regimes = regimes
        self._clock = clock
        self._telling = Telling(courier, regimes, clock)
        self._pushed = 0
        self.clear()

    def clear(self) -> None:
        """Forgets who is suppressed and what is gathered."""
        self._suppressed: dict[str, str] = {}
        self._dropped: dict[int, str] = {}
        self._further: dict[int, Mapping[str, Any]] = {}
        self._gathered: list[dict[str, Any]] = []
        self._flush_due = False

    @property
    def public_key(self) -> str:
        """What verifies the signatures."""
        return self._key.public

    # --- what is taken -------------------------------------------------------------------

    def took(self, seq: int, address: str, further: Mapping[str, Any]) -> None:
        """One address of a mail was taken; `further` is what its events carry beside the key."""
        if further:
            self._further[seq] = further
        if self._suppressed:
            reason = self._suppressed.get(address.lower())
            if reason is not None:
                self._dropped[seq] = reason

    def expect(self, first: int, end: int) -> None:
        """A request was taken whole, as these seqs; its events are told if anybody listens."""
        if self._regimes.current.url is None:
            return
        self._courier.pending += 1  # until it is known how many events there will be
        self._courier.at(self._clock(), lambda: self._spread(first, end))

    def fate(self, seq: int) -> str:
        """delivered, bounce, blocked or dropped."""
        if seq in self._dropped:
            return "dropped"
        return self._regimes.end(seq, "delivered", ENDS)

    def _spread(self, first: int, end: int) -> None:
        for seq in range(first, min(end, first + 100)):
            self._plan(seq)
        if first + 100 < end:  # a turn at a time: requests are answered in between
            self._courier.at(self._clock(), lambda: self._spread(first + 100, end))
        else:
            self._courier.pending -= 1

    def _plan(self, seq: int) -> None:
        steps = self._steps(seq)
        self._telling.plan(seq, [step.at for step in steps], lambda n: self._say(seq, steps[n], n))

    def _steps(self, seq: int) -> list[_Step]:
        at, fate = self._outbox.at(seq), self.fate(seq)
        if fate == "dropped":
            return [_Step("dropped", at)]
        rules = self._regimes.of(seq)
        seed, outcomes = self._regimes.seed(rules), rules.outcomes
        after = self._behaviour.sendgrid_delivered_after
        steps = [_Step("processed", at)]

        def happens(event: str) -> bool:
            wanted = outcomes.get(event, 0.0)
            return wanted > 0 and chance(seed, seq, 2 + BESIDES.index(event)) < wanted

        if happens("deferred"):
            steps.append(_Step("deferred", at + after / 2))
        steps.append(_Step(fate, at + after))
        if fate == "delivered":
            steps += [_Step(event, at + after * 1.5) for event in AFTER_DELIVERY if happens(event)]
        return steps

    # --- what is told --------------------------------------------------------------------

    def _say(self, seq: int, step: _Step, n: int) -> None:
        event = self._event(seq, step, self._id(seq, n))
        self._suppress(self._outbox.address(seq), step.event)
        if self._telling.is_forged(seq, n):
            self._courier.counts.forged += 1
            self._courier.pending += 1
            lie = "bounce" if self.fate(seq) == "delivered" else "delivered"
            lied = self._event(seq, _Step(lie, step.at), self._id(seq, n + 1000))
            self._post([lied], self._regimes.current.url, forged=True)
        self._gathered.append(event)
        if len(self._gathered) >= MAX_EVENTS:
            self._flush()
        elif not self._flush_due:
            self._flush_due = True
            gathered = self._gathered
            due = self._clock() + self._behaviour.sendgrid_flush
            self._courier.at(due, lambda: self._flush(gathered))

    def _flush(self, gathered: list[dict[str, Any]] | None = None) -> None:
        """Posts what is gathered; a timer's call is void when its list has gone already."""
        if gathered is not None and gathered is not self._gathered:
            return
        events, self._gathered = self._gathered, []
        self._flush_due = False
        if events:
            self._post(events, self._regimes.current.url)

    def _event(self, seq: int, step: _Step, event_id: str) -> dict[str, Any]:
        outbox = self._outbox
        ref, key = outbox.ref(seq), outbox.key(seq)
        event: dict[str, Any] = {
            "email": outbox.address(seq),
            "timestamp": int(step.at),
            "smtp-id": f"<{ref}@geopod-ismtpd-1>",
            "event": "bounce" if step.event == "blocked" else step.event,
            "sg_event_id": event_id,
            "sg_message_id": f"{ref}.filter0001.{seq}.{seq:X}.0",
        }
        if key is not None:
            event["delivery"] = key
        event |= self._further.get(seq, {})
        event |= _FURTHER.get(step.event, {})
        if step.event == "dropped" and seq in self._dropped:
            event["reason"] = self._dropped[seq]
        return event

    def _id(self, seq: int, n: int) -> str:
        made = hashlib.blake2b(b"%s:%d:%d" % (self._key.public.encode(), seq, n), digest_size=16)
        return base64.urlsafe_b64encode(made.digest()).decode().rstrip("=")

    def _suppress(self, address: str, event: str) -> None:
        if event in _SUPPRESSING:
            self._suppressed[address.lower()] = _SUPPRESSING[event]
        elif event == "group_resubscribe":
            self._suppressed.pop(address.lower(), None)

    def inbound(self, order: SendgridInbound) -> None:
        """Tells one event at once. Raises ValueError when nobody is to be told."""
        url = order.url or self._regimes.current.url
        if url is None:
            raise ValueError("name a url, here or by PUT /_sandbox/events")
        if self._courier.target(url)[0] is None:
            raise ValueError("only http to loopback, unless the sandbox was exposed")
        self._pushed += 1
        step = _Step(order.event, self._clock())
        seqs = [
            seq
            for seq in self._outbox.to(Provider.SENDGRID, order.email)
            if self._outbox.account(seq) == self._account
        ]
        if seqs:
            event = self._event(seqs[-1], step, self._id(seqs[-1], 2000 + self._pushed))
        else:
            event = {
                "email": order.email,
                "timestamp": int(step.at),
                "event": "bounce" if order.event == "blocked" else order.event,
                "sg_event_id": self._id(0, 2000 + self._pushed),
                **_FURTHER.get(order.event, {}),
            }
        self._suppress(order.email, order.event)
        self._courier.pending += 1
        self._post([event], url)

    def _post(self, events: list[dict[str, Any]], url: str | None, *, forged: bool = False) -> None:
        target, path = self._courier.target(url) if url is not None else (None, "")
        if target is None:
            self._telling.bar(len(events))
            return
        body = orjson.dumps(events)
        timestamp = b"%d" % int(self._clock())
        signature = (self._forger if forged else self._key).signature(timestamp, body)
        host = f"[{target.host}]" if ":" in target.host else target.host
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{target.port}\r\n"
            "User-Agent: SendGrid Event API\r\nAccept: */*\r\n"
            "Content-Type: application/json;charset=utf-8\r\n"
            f"X-Twilio-Email-Event-Webhook-Signature: {signature.decode()}\r\n"
            f"X-Twilio-Email-Event-Webhook-Timestamp: {timestamp.decode()}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        parcel = Parcel(target, head.encode() + body, weight=len(events), forged=forged)
        self._courier.post(parcel)

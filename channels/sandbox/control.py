"""The control calls under /_sandbox/: what arrived, which faults and which events to show.

Owns their paths and shapes. It must not know the providers' protocols. Nothing protects
these calls but the loopback address that the sandbox listens on. Bodies are JSON; unknown
names are refused (400, {"error": text}). Times are seconds, chances 0 to 1. `account` is 1
or 2: the constants of credentials.py without and with `_2` (Twilio by SID, SendGrid by key).

WHAT ARRIVED
  GET /_sandbox/health    {"status":"ok"}
  GET /_sandbox/counts    {provider: {"messages","addresses","shown","requests","errors",
                          "by_account":{"1":n,"2":n}}}
  GET /_sandbox/outbox    NDJSON; query provider, account, address, limit, after (seq), fields.
                          Fields: provider account seq at address key ref sender status
                          content content_hash. `status` is the true final status, fixed when
                          the message was taken: twilio delivered|undelivered|failed|canceled,
                          sendgrid delivered|bounce|blocked|dropped, x and fcm accepted.
  DELETE /_sandbox/outbox forgets messages, counts, opt-outs and events still to come (204)
  GET /_sandbox/contents  {content_hash: texts};  GET /_sandbox/address?provider=&address=

FAULTS
  POST /_sandbox/faults   {"provider": p, "fault": {...}} -> 201 {"id"}: see faults.Fault:
                          status code retry_after accept as_status delay slow reset hang half
                          garbage rate; for, count, probability, match, account, on.
  GET /_sandbox/faults    [{"provider","fault","struck"}]; DELETE [?provider=] ends them (204)

OPTIONS: what a provider does for good
  PUT (or POST) /_sandbox/options, any of; GET reads them back. 204.
    twilio_list_lag, x_list_lag   a list shows a message only so long after it was taken (1.0);
                                  by its id it is there at once
    twilio_sent_after (1.0), twilio_delivered_after (3.0)   counted from the message's turn
    twilio_sender_rates {sender or "*": segments a second, null for none}   surplus stays
                                  `queued`, date_sent null, until its turn
    twilio_queue_limit (36000)    a sender's queue longer than this refuses: 429, 21611
    sendgrid_delivered_after (1.0), sendgrid_flush (1.0)   events are gathered so long
    x_replies_refused (false)

EVENTS: status callbacks and the event webhook
  Twilio posts to the StatusCallback of each create call, by itself, three per message:
  `sending, sent, delivered|undelivered|failed` (none for the initial `queued`), or through a
  Messaging Service `queued, sent, ...`. SendGrid posts arrays of at most 500 once it has a
  `url`. Only http to loopback unless the sandbox was exposed; else counted as `barred`.
  PUT /_sandbox/events {"provider": "twilio"|"sendgrid", and any of} replaces that provider's
  rules for messages taken from now on (url, rate, algorithm and connections at once). 204.
    "url"        sendgrid: where events go. twilio: callback of messages that name none, and of
                 inbound messages.                                          null
    "delay"      [min, max] added to each event                             [0, 0]
    "loss"       chance that an event is never posted                       0
    "forged"     chance of a further event that lies (failed for delivered and the reverse),
                 signed with a wrong key                                    0
    "repeat"     chance that an event comes again, the same                 0
    "shuffle"    all events of a message after its end, in random order     false
    "rate"       most posts a second                                        null
    "connections" most posts at once; with 1 a message's events arrive in order,
                  with more they may overtake each other on the way         16
    "algorithm"  twilio: "sha1" (auth token) | "sha256" (TWILIO_SHARED_KEY)  "sha1"
    "outcomes"   {name: chance}. twilio: failed undelivered (else delivered). sendgrid, ends:
                 bounce blocked dropped (else delivered); besides: deferred open unsubscribe
                 spamreport                                                 {}
    "seed"       decides all chances together with the message's seq        the sandbox's
  GET /_sandbox/events {provider: {"rules", "pending", "sent", "lost", "forged", "repeated",
    "retried", "barred", "unanswered", "answered": {"2xx": n, ...}, "forged_answered": {...},
    "slowest_ms", "mean_ms", "events", "opted_out_refused", "public_key": {"1","2"}}}
    `pending`: events that are still to come, wait for an answer or for another try; 0 means
    that all is said. `sent`: posts, all kinds. `events`: true events said (SendGrid: many in
    a post). `unanswered`: given up. `opted_out_refused`: twilio, sends refused with 21610
    after a STOP. `public_key`: sendgrid, as its console shows it; the same as
    webhook_keys.sendgrid_public_key(state_dir).
  DELETE /_sandbox/events [?provider=] default rules, no counts, nothing pending (204)
  Retries as the providers do: Twilio once and only where no connection was made; SendGrid
  whatever is not 2xx, 1 s later, then doubling up to a minute.

INBOUND: at once, without delay or loss, -> 202 {"next_seq"}: what is taken from then on has
  at least this seq; an opt-out is in force when the call returns
  POST /_sandbox/inbound {"provider":"twilio", "from":"+1..", "to":"+1.. or MG..",
    "body":"STOP", "url"?, "service"? "MG..", "account"? 1}: posts Twilio's inbound webhook,
    signed. STOP words refuse the pair (and service) with 21610 until a START word.
  POST /_sandbox/inbound {"provider":"sendgrid", "event": "unsubscribe"|"bounce"|"blocked"|
    "dropped"|"spamreport"|"group_unsubscribe"|..., "email", "url"?, "account"? 1}: pushes that
    event, of the address's newest mail if it got one. SendGrid drops later mail to an address
    that unsubscribed, bounced or complained (status `dropped`), as with its own outcomes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import orjson
from pydantic import ValidationError

from channels.sandbox.answers import JSON, Answer, Request, Stream, reply
from channels.sandbox.config import Provider
from channels.sandbox.faults import Faults
from channels.sandbox.orders import (
    EventsOrder,
    FaultOrder,
    InboundOrder,
    Options,
    OutboxQuery,
    SendgridInbound,
    TwilioInbound,
)
from channels.sandbox.outbox import FIELDS, Outbox, Selection

_NDJSON = b"application/x-ndjson"


@dataclass(slots=True)
class Tally:
    """Calls that hand over a message, and how many of them got no success for an answer."""

    requests: int = 0
    errors: int = 0


class Events(Protocol):
    """What the control calls ask of the senders of events."""

    def order(self, order: EventsOrder) -> None:
        """Puts rules in force; raises ValueError for outcomes that the provider lacks."""
        ...

    def report(self) -> dict[str, object]:
        """Rules and counts by provider."""
        ...

    def reset(self, provider: Provider | None) -> None:
        """Default rules and nothing to come, of one provider or all."""
        ...

    def inbound(self, order: TwilioInbound | SendgridInbound) -> None:
        """Tells of it at once; raises ValueError when nobody is to be told."""
        ...


class Control:
    """Answers the control calls."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        faults: Faults,
        tallies: Mapping[Provider, Tally],
        clear: Callable[[], None],
        events: Events,
        set_options: Callable[[Options], None],
        options: Callable[[], dict[str, object]],
    ) -> None:
        self._outbox = outbox
        self._faults = faults
        self._tallies = tallies
        self._clear = clear
        self._events = events
        self._set_options = set_options
        self._calls: dict[tuple[bytes, bytes], Callable[[Request], Answer]] = {
            (b"GET", b"/_sandbox/health"): lambda _: _json({"status": "ok"}),
            (b"GET", b"/_sandbox/counts"): lambda _: _json(self._counts()),
            (b"GET", b"/_sandbox/outbox"): self._outbox_lines,
            (b"DELETE", b"/_sandbox/outbox"): self._clear_outbox,
            (b"GET", b"/_sandbox/contents"): lambda _: Stream(outbox.contents(), JSON),
            (b"GET", b"/_sandbox/address"): self._address,
            (b"GET", b"/_sandbox/faults"): lambda _: _json(self._struck()),
            (b"POST", b"/_sandbox/faults"): self._add_fault,
            (b"DELETE", b"/_sandbox/faults"): self._clear_faults,
            (b"GET", b"/_sandbox/options"): lambda _: _json(options()),
            (b"PUT", b"/_sandbox/options"): self._options,
            (b"POST", b"/_sandbox/options"): self._options,
            (b"GET", b"/_sandbox/events"): lambda _: _json(events.report()),
            (b"PUT", b"/_sandbox/events"): self._order_events,
            (b"DELETE", b"/_sandbox/events"): self._reset_events,
            (b"POST", b"/_sandbox/inbound"): self._inbound,
        }

    def answer(self, request: Request) -> Answer:
        """The answer to any path that belongs to no provider."""
        call = self._calls.get((request.method, request.path))
        if call is None:
            return _json({"error": "no such call"}, 404)
        try:
            return call(request)
        except (ValidationError, ValueError) as error:
            return _json({"error": str(error)}, 400)

    def _counts(self) -> dict[str, dict[str, object]]:
        return {
            provider.value: {
                "messages": self._outbox.messages(provider),
                "addresses": self._outbox.addresses(provider),
                "shown": self._outbox.shown_in_all(provider),
                "requests": self._tallies[provider].requests,
                "errors": self._tallies[provider].errors,
                "by_account": self._outbox.by_account(provider),
            }
            for provider in Provider
        }

    def _outbox_lines(self, request: Request) -> Answer:
        query = OutboxQuery.model_validate(request.params())
        fields = FIELDS if query.fields is None else tuple(query.fields.split(","))
        unknown = set(fields) - set(FIELDS)
        if unknown:
            raise ValueError(f"unknown fields; known: {', '.join(FIELDS)}")
        selection = Selection(
            query.provider,
            account=query.account,
            address=query.address,
            limit=query.limit,
            after=query.after,
            fields=fields,
        )
        return Stream(self._outbox.lines(selection), _NDJSON)

    def _clear_outbox(self, _: Request) -> Answer:
        self._clear()
        return reply(204)

    def _address(self, request: Request) -> Answer:
        query = OutboxQuery.model_validate(request.params())
        if query.provider is None or query.address is None:
            raise ValueError("provider and address are required")
        return _json(
            {
                "messages": len(self._outbox.to(query.provider, query.address)),
                "shown": self._outbox.shown(query.provider, query.address),
            }
        )

    def _struck(self) -> list[dict[str, object]]:
        return [
            {
                "provider": provider,
                "fault": fault.model_dump(mode="json", exclude_defaults=True, by_alias=True),
                "struck": struck,
            }
            for provider, fault, struck in self._faults.struck()
        ]

    def _add_fault(self, request: Request) -> Answer:
        order = FaultOrder.model_validate_json(request.body)
        return _json({"id": self._faults.add(order.provider, order.fault)}, 201)

    def _clear_faults(self, request: Request) -> Answer:
        provider = OutboxQuery.model_validate(request.params()).provider
        self._faults.clear(provider)
        return reply(204)

    def _options(self, request: Request) -> Answer:
        self._set_options(Options.model_validate_json(request.body))
        return reply(204)

    def _order_events(self, request: Request) -> Answer:
        self._events.order(EventsOrder.model_validate_json(request.body))
        return reply(204)

    def _reset_events(self, request: Request) -> Answer:
        self._events.reset(OutboxQuery.model_validate(request.params()).provider)
        return reply(204)

    def _inbound(self, request: Request) -> Answer:
        order = InboundOrder.model_validate({"order": orjson.loads(request.body)}).order
        self._events.inbound(order)
        return _json({"next_seq": self._outbox.next_seq}, 202)


def _json(value: object, status: int = 200) -> bytes:
    return reply(status, orjson.dumps(value))

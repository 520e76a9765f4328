"""The control calls under /_sandbox/: what arrived, and which faults to show.

Owns their paths and shapes. It must not know the providers' protocols. Nothing protects
these calls but the loopback address that the sandbox listens on.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from channels.sandbox.answers import JSON, Answer, Request, Stream, reply
from channels.sandbox.config import Provider
from channels.sandbox.faults import Fault, Faults
from channels.sandbox.outbox import FIELDS, Outbox, Selection

_NDJSON = b"application/x-ndjson"


@dataclass(slots=True)
class Tally:
    """Calls that hand over a message, and how many of them got no success for an answer."""

    requests: int = 0
    errors: int = 0


class FaultOrder(BaseModel):
    """Body of POST /_sandbox/faults."""

    model_config = ConfigDict(extra="forbid")

    provider: Provider
    fault: Fault


class OutboxQuery(BaseModel):
    """Query of GET /_sandbox/outbox and /_sandbox/address."""

    model_config = ConfigDict(extra="forbid")

    provider: Provider | None = None
    address: str | None = None
    limit: int | None = Field(default=None, ge=0)
    after: int = Field(default=0, ge=0)
    fields: str | None = None


class Options(BaseModel):
    """Body of POST /_sandbox/options: what a provider does for good, not as a fault."""

    model_config = ConfigDict(extra="forbid")

    x_replies_refused: bool


class Control:
    """Answers the control calls."""

    def __init__(
        self,
        *,
        outbox: Outbox,
        faults: Faults,
        tallies: Mapping[Provider, Tally],
        clear: Callable[[], None],
        set_options: Callable[[Options], None],
    ) -> None:
        self._outbox = outbox
        self._faults = faults
        self._tallies = tallies
        self._clear = clear
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
            (b"POST", b"/_sandbox/options"): self._options,
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

    def _counts(self) -> dict[str, dict[str, int]]:
        return {
            provider.value: {
                "messages": self._outbox.messages(provider),
                "addresses": self._outbox.addresses(provider),
                "shown": self._outbox.shown_in_all(provider),
                "requests": self._tallies[provider].requests,
                "errors": self._tallies[provider].errors,
            }
            for provider in Provider
        }

    def _outbox_lines(self, request: Request) -> Answer:
        query = OutboxQuery.model_validate(request.params())
        fields = FIELDS if query.fields is None else tuple(query.fields.split(","))
        unknown = set(fields) - set(FIELDS)
        if unknown:
            raise ValueError(f"unknown fields; known: {', '.join(FIELDS)}")
        selection = Selection(query.provider, query.address, query.limit, query.after, fields)
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
                "fault": fault.model_dump(mode="json", exclude_defaults=True),
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


def _json(value: object, status: int = 200) -> bytes:
    return reply(status, orjson.dumps(value))

"""Bodies and queries of the control calls.

Owns their shapes and bounds. It must not know what is done about them.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from channels.sandbox.config import Provider
from channels.sandbox.event_rules import EventRules
from channels.sandbox.faults import Fault

Account = Literal[1, 2]
Seconds = float


class FaultOrder(BaseModel):
    """Body of POST /_sandbox/faults."""

    model_config = ConfigDict(extra="forbid")

    provider: Provider
    fault: Fault


class OutboxQuery(BaseModel):
    """Query of GET /_sandbox/outbox and /_sandbox/address."""

    model_config = ConfigDict(extra="forbid")

    provider: Provider | None = None
    account: int | None = Field(default=None, ge=1, le=2)
    address: str | None = None
    limit: int | None = Field(default=None, ge=0)
    after: int = Field(default=0, ge=0)
    fields: str | None = None


class Options(BaseModel):
    """Body of PUT /_sandbox/options; what is not named stays as it is."""

    model_config = ConfigDict(extra="forbid")

    x_replies_refused: bool = False
    x_list_lag: Seconds = Field(default=1.0, ge=0)
    twilio_list_lag: Seconds = Field(default=1.0, ge=0)
    twilio_sent_after: Seconds = Field(default=1.0, ge=0)
    twilio_delivered_after: Seconds = Field(default=3.0, ge=0)
    twilio_sender_rates: dict[str, float | None] = Field(default_factory=dict)
    twilio_queue_limit: Seconds = Field(default=36_000.0, gt=0)
    sendgrid_delivered_after: Seconds = Field(default=1.0, ge=0)
    sendgrid_flush: Seconds = Field(default=1.0, ge=0)


class EventsOrder(EventRules):
    """Body of PUT /_sandbox/events."""

    provider: Literal[Provider.TWILIO, Provider.SENDGRID]

    def rules(self) -> EventRules:
        """The rules without the provider's name."""
        return EventRules(**self.model_dump(exclude={"provider"}))


class TwilioInbound(BaseModel):
    """A message that somebody sends to one of the account's numbers."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    provider: Literal[Provider.TWILIO]
    sender: str = Field(alias="from", pattern=r"^\+[1-9]\d{6,14}$")
    to: str = Field(min_length=1)
    body: str = Field(min_length=1, max_length=1600)
    url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+")
    service: str | None = Field(default=None, pattern=r"^MG[0-9a-f]{32}$")
    account: Account = 1


class SendgridInbound(BaseModel):
    """An event that an address causes by itself."""

    model_config = ConfigDict(extra="forbid")

    provider: Literal[Provider.SENDGRID]
    event: Literal[
        "delivered",
        "deferred",
        "bounce",
        "blocked",
        "dropped",
        "spamreport",
        "unsubscribe",
        "group_unsubscribe",
        "group_resubscribe",
        "open",
        "click",
    ]
    email: str = Field(min_length=3)
    url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+")
    account: Account = 1


class InboundOrder(BaseModel):
    """Body of POST /_sandbox/inbound."""

    order: TwilioInbound | SendgridInbound = Field(discriminator="provider")

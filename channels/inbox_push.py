"""In-app push of our own: stores a message in a person's inbox, where their app finds it.

Knows only the `Inbox` port; where inboxes live and how apps are told is not its business.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from channels.contract import (
    Accepted,
    Channel,
    ContactKind,
    Envelope,
    Inbox,
    InboxItem,
    Limits,
    Message,
    MessageRefused,
    Outcome,
    Problem,
    Reason,
    Severity,
    TryLater,
    Unit,
)
from channels.text import SlotError, fill, strip_controls, worst_case
from channels.transport import Transport

SEEN_CHARS = {"title": 65, "body": 240}
"""What a locked screen shows of each part before it cuts; more is stored all the same."""


class InboxSettings(BaseModel):
    """Nothing to set: the store comes by the port."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InboxPush:
    """Stores a whole window of messages in one `put`; the same key twice is stored once."""

    name: ClassVar[str] = "inbox_push"
    channel: ClassVar[str] = Channel.PUSH
    accepts: ClassVar[str] = ContactKind.INBOX
    parts: ClassVar[tuple[str, ...]] = ("title", "body")
    limits: ClassVar[Limits] = Limits(
        unit=Unit.MESSAGE,
        envelopes_per_request=200,
        concurrency=4,
        settle_after=0.0,
        repeatable=True,
    )
    Settings: ClassVar[type[InboxSettings]] = InboxSettings

    def __init__(self, settings: InboxSettings, transport: Transport, inbox: Inbox) -> None:
        self.settings = settings
        self._inbox = inbox

    def check(self, message: Message) -> list[Problem]:
        """Errors: an empty part. Warnings: more than a locked screen shows."""
        problems = []
        texts = worst_case(message)
        for part, seen in SEEN_CHARS.items():
            text = texts.get(part, "")
            if not strip_controls(text).strip():
                problems.append(Problem(Severity.ERROR, "empty", part, f"The {part} is empty."))
            elif len(text) > seen:
                words = f"The {part} has up to {len(text)} characters; about {seen} are seen."
                problems.append(Problem(Severity.WARNING, "long", part, words))
        return problems

    async def send(self, message: Message, envelopes: Sequence[Envelope]) -> AsyncIterator[Outcome]:
        """Store all envelopes at once; `TryLater` for all if the store did not take them.

        Anything else that the store raises is let through: then nobody can tell.
        """
        items = []
        for envelope in envelopes:
            try:
                items.append(_item(message, envelope))
            except SlotError as refused:
                yield MessageRefused(envelope.key, Reason.SLOT_VALUE, str(refused))
        if not items:
            return
        outcomes: list[Outcome]
        try:
            await asyncio.to_thread(self._inbox.put, items)
        except ConnectionError:
            detail = "the inbox store is away"
            outcomes = [TryLater(item.key, Reason.UNREACHABLE, detail=detail) for item in items]
        else:
            outcomes = [Accepted(item.key, f"inbox:{item.key}") for item in items]
        for outcome in outcomes:
            yield outcome


def _item(message: Message, envelope: Envelope) -> InboxItem:
    parts = fill(message, envelope)
    return InboxItem(
        key=envelope.key,
        inbox=envelope.address,
        title=parts["title"],
        body=parts["body"],
        thread=message.thread,
        expires_at=message.expires_at,
    )

"""Asking for a test send: one message of an update to one address of whoever asks.

Owns what may be asked for, how often, and the mark that every test bears. What is asked for
stands in the ledger and is named to a worker after the commit. Must not know adapters: only
`delivery` sends.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from channels.contract import Channel, ContactKind, Message, Slot
from channels.text import HTML_PART
from dispatcher.acts import Conflict
from dispatcher.ledger import audit, trials
from dispatcher.ledger.connection import Transaction
from dispatcher.ledger.trials import NewTrial
from dispatcher.planning import KIND_ORDER, Route

MARK = "TEST: "
MOST = 10
"""Test sends that a person may ask for in `WITHIN` seconds."""
WITHIN = 600.0

_MARKED = frozenset({"text", "subject", "title"})
_BODY = re.compile(r"<body\b[^>]*>", re.IGNORECASE)
_BANNER = (
    '<p style="margin:0;padding:12px;background:#344054;color:#ffffff;font-weight:bold;'
    'text-align:center;" dir="ltr" lang="en">TEST: this message was sent to nobody but you.</p>'
)


@dataclass(frozen=True, slots=True)
class TrialMessage:
    """The message to try: what an audience gets on a channel in a locale."""

    audience: str
    channel: str
    locale: str
    parts: Mapping[str, str]
    slots: Mapping[str, Slot] = field(default_factory=dict)


def marked(parts: Mapping[str, str]) -> dict[str, str]:
    """The parts as a test: text, subject and title begin with `MARK`, HTML with a banner."""
    return {part: _marked(part, text) for part, text in parts.items()}


def _marked(part: str, text: str) -> str:
    if part in _MARKED:
        return f"{MARK}{text}"
    if part == HTML_PART:
        return _BODY.sub(lambda body: f"{body[0]}\n{_BANNER}", text, count=1)
    return text


class Trials:
    """Takes wishes for test sends. `routes` and `drill_routes` are what adapters serve; `name`
    names a trial's id to a worker."""

    def __init__(
        self,
        *,
        routes: Iterable[Route],
        drill_routes: Iterable[Route],
        name: Callable[[str], object],
    ) -> None:
        self._served = frozenset((route.channel, route.kind) for route in routes)
        self._drill_served = frozenset((route.channel, route.kind) for route in drill_routes)
        self._name = name

    def refusal(self, channel: str, kind: str, *, drill: bool) -> str:
        """Why a channel's message cannot be tried on an address of this kind; empty if it can."""
        if channel == Channel.SOCIAL:
            return "A post is public: it cannot be sent to one person. Read it in the preview."
        if kind not in KIND_ORDER.get(channel, ()):
            return f"A message by {channel} does not go to an address of this kind."
        if (channel, kind) in (self._drill_served if drill else self._served):
            return ""
        if drill:
            return "A drill goes to simulators only, and this installation has none."
        words = {ContactKind.FCM_TOKEN.value: "push", ContactKind.INBOX.value: "the app's inbox"}
        return f"No account is set up that sends by {words.get(kind, channel)}."

    def ask(
        self,
        work: Transaction,
        *,
        person_id: str,
        update_id: str,
        message: TrialMessage,
        kind: str,
        sealed: bytes,
        hint: str,
        drill: bool,
    ) -> str:
        """Have a message sent to this person's own address, marked as a test; returns its id.

        `kind`, `sealed` and `hint` are the person's own address as `people.own_addresses` gives
        it, `drill` is the incident's. Raises `Conflict` with words for the person: `no-trial` for
        what cannot be tried, `too-many-trials` past `MOST` within `WITHIN` seconds.
        """
        refused = self.refusal(message.channel, kind, drill=drill)
        if refused:
            raise Conflict("no-trial", refused)
        trials.lock_person(work.conn, person_id)
        if trials.asked_since(work.conn, person_id, WITHIN) >= MOST:
            raise Conflict(
                "too-many-trials",
                f"You have asked for {MOST} test sends in {WITHIN / 60:.0f} minutes:"
                " wait a little before the next.",
            )
        trial_id = trials.insert(
            work.conn,
            NewTrial(
                person_id=person_id,
                update_id=update_id,
                audience=message.audience,
                message=Message(
                    id="",
                    channel=message.channel,
                    locale=message.locale,
                    parts=marked(message.parts),
                    slots=message.slots,
                ),
                kind=kind,
                sealed=sealed,
                hint=hint,
                drill=drill,
            ),
        )
        audit.record(
            work.conn,
            actor=f"person:{person_id}",
            act="trial.ask",
            update_id=update_id,
            detail={
                "trial": trial_id,
                "audience": message.audience,
                "channel": message.channel,
                "locale": message.locale,
                "kind": kind,
            },
        )
        work.after_commit(lambda: self._name(trial_id))
        return trial_id

"""What is to be said, and what came of rendering it: values only.

Knows no template and no language.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import orjson

from channels.contract import Message, Problem, Severity
from dispatcher.incidents import Fact, FactKind, Incident, Phase

TEXT_SLOTS: Mapping[str, str] = {
    "message": "a short paragraph of your own, on every channel",
    "details": "longer words of your own, in e-mail only",
    "statement": "a signed statement or quotation, in e-mail only",
}
"""The places where an update's own words may stand, and what each is for."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One update, ready to be put into words.

    `facts` are those that stand, `withdrawn` those that this update takes back, `texts` maps
    slot to locale to text, `stated_at` is the moment the words claim to be true at.
    """

    incident: Incident
    update_id: str
    phase: Phase
    facts: Mapping[FactKind, Fact]
    stated_at: datetime
    withdrawn: tuple[Fact, ...] = ()
    texts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    next_update_at: datetime | None = None
    expires_at: datetime | None = None
    previous: Phase | None = None


@dataclass(frozen=True, slots=True)
class Rendering:
    """One message for one audience.

    `units` is what one envelope costs in the adapter's unit; `facts` holds the ids of the
    facts whose words stand in a part of the message, in the order in which they were stated.
    """

    audience: str
    message: Message
    units: int
    problems: tuple[Problem, ...] = ()
    facts: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether a problem forbids submission."""
        return any(problem.severity is Severity.ERROR for problem in self.problems)


def hashed(message: Message) -> Message:
    """The message with its hash: SHA-256 over channel, locale, parts and slots."""
    slots = {
        name: {"max_chars": slot.max_chars, "charset": slot.charset.value}
        for name, slot in message.slots.items()
    }
    content = {
        "channel": message.channel,
        "locale": message.locale,
        "parts": dict(message.parts),
        "slots": slots,
    }
    return replace(message, hash=_sha256(content))


def content_hash(renderings: Iterable[Rendering]) -> str:
    """One hash over all renderings of an update, whatever their order."""
    rows = sorted(
        (r.audience, r.message.channel, r.message.locale, r.message.hash) for r in renderings
    )
    return _sha256(rows)


def _sha256(value: object) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()

"""What a row says, by whom and how: the few distinct voices that a selection speaks with.

Owns the nearest stored message for a locale, the sender for a country, and the numbers by
which selection's tables name both. Pure; it must know neither people nor SQL.
"""

from collections.abc import Iterable
from dataclasses import dataclass

REASONS = (
    "",
    "not_told_before",
    "suppressed",
    "no_adapter",
    "no_message",
    "shared_contact",
    "no_contact",
    "other_audience",
)
"""Why a row is not sent, by number; a cell is its voice's number times eight plus this."""

MISSING = ("suppressed", "no_adapter", "no_message", "no_contact")
"""Reasons for which a person who should hear does not."""

NUMBER = {reason: number for number, reason in enumerate(REASONS)}


@dataclass(frozen=True, slots=True)
class Step:
    """One way for an audience: channel in order of preference, kind of contact within it.

    `adapter` is empty where nothing is configured for this kind.
    """

    audience: str
    step: int
    channel: str
    kind_order: int
    kind: str
    adapter: str


@dataclass(frozen=True, slots=True)
class Sending:
    """The sender for a channel; `country` is empty for the default one."""

    channel: str
    country: str
    sender: str


@dataclass(frozen=True, slots=True)
class Wording:
    """A message that exists for an audience, channel and locale. `id` is 0 in a preview."""

    audience: str
    channel: str
    locale: str
    id: int


@dataclass(frozen=True, slots=True)
class Voice:
    """What a row says, by whom and how; message 0 and adapter '' where there is none."""

    audience: str
    channel: str
    message: int
    locale: str
    adapter: str
    sender: str


class Voices:
    """Which voice speaks on a way in a locale to a country, numbered as they are met.

    The first numbers are those of the `audiences`, for people whom nothing can reach.
    """

    def __init__(
        self,
        wordings: Iterable[Wording],
        senders: Iterable[Sending],
        *,
        default_locale: str,
        audiences: Iterable[str],
    ) -> None:
        self._default = default_locale
        self._wordings = {(w.audience, w.channel, w.locale): w.id for w in wordings}
        self._senders = {(s.channel, s.country): s.sender for s in senders}
        self._voices = {
            Voice(name, "none", 0, "", "", ""): number for number, name in enumerate(audiences, 1)
        }

    def voice(self, step: Step, locale: str, country: str) -> tuple[int, int]:
        """The voice's number, and the number of the reason why it cannot speak, or 0."""
        message, spoken = 0, ""
        for nearest in (locale, locale.split("-", 1)[0], self._default):
            found = self._wordings.get((step.audience, step.channel, nearest))
            if found is not None:
                message, spoken = found, nearest
                break
        default = self._senders.get((step.channel, ""), "")
        voice = Voice(
            audience=step.audience,
            channel=step.channel,
            message=message,
            locale=spoken,
            adapter=step.adapter,
            sender=self._senders.get((step.channel, country), default),
        )
        number = self._voices.setdefault(voice, len(self._voices) + 1)
        if not step.adapter:
            return number, NUMBER["no_adapter"]
        return number, 0 if message else NUMBER["no_message"]

    def columns(self) -> dict[str, object]:
        """The voices met so far, as arrays in the order of their numbers."""
        voices = list(self._voices)
        return {
            "voice": list(self._voices.values()),
            "voice_audience": [v.audience for v in voices],
            "voice_channel": [v.channel for v in voices],
            "voice_message": [v.message or None for v in voices],
            "voice_locale": [v.locale for v in voices],
            "voice_adapter": [v.adapter for v in voices],
            "voice_sender": [v.sender for v in voices],
        }

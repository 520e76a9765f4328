"""What a recording or a call-centre agent says, in an audience's own words, and how long it takes.

Pure. Nothing is rendered for a voice: its words are those of the message that says it shortest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from channels.contract import Channel
from dispatcher.console.showing import Shown

ENGLISH_PACE = 150.0
"""Words a minute of an English announcement, read so that it can be written down from."""
_PACE: Mapping[str, float] = {
    # Words a minute, in the proportion in which the same text is read aloud in these
    # languages (228, 218, 184 and 138): https://doi.org/10.1167/iovs.11-8284
    "en": ENGLISH_PACE,
    "es": 143.0,
    "ru": 121.0,
    "ar": 91.0,
}


@dataclass(frozen=True, slots=True)
class Voice:
    """The words as a recording or an agent would say them, and how long that takes."""

    language: str
    lang: str
    direction: str
    text: str
    seconds: int
    channel: str


_SAID_FROM = (Channel.SMS, Channel.PUSH, Channel.SOCIAL, Channel.EMAIL)
"""Whose words are fit to be said: the shortest that are whole sentences come first."""


def voices(messages: Sequence[Shown]) -> tuple[Voice, ...]:
    """Per language what a recording or an agent says, from one audience's own messages."""
    found: dict[str, Voice] = {}
    for channel in _SAID_FROM:
        for message in messages:
            if message.channel == channel and message.locale not in found:
                text = _said(message)
                found[message.locale] = Voice(
                    language=message.language,
                    lang=message.locale,
                    direction=message.direction,
                    text=text,
                    seconds=duration(text, message.locale),
                    channel=channel.value,
                )
    order = dict.fromkeys(message.locale for message in messages)
    return tuple(found[locale] for locale in order if locale in found)


def _said(message: Shown) -> str:
    """The words without what only an eye can use: bullets and line ends."""
    names = ("title", "body") if message.channel == Channel.PUSH else ("text",)
    lines = [
        line.strip().removeprefix("- ").removeprefix("[[name]]")
        for name in names
        if message.has(name)
        for line in message.part(name).text.splitlines()
    ]
    return " ".join(line if line[-1] in ".!?:;,؟…" else f"{line}." for line in lines if line)


def duration(text: str, locale: str) -> int:
    """Seconds, rounded up, to say a text; digits of long numbers are said one by one."""
    words = sum(_words_in(token) for token in text.split())
    pace = _PACE.get(locale.split("-", 1)[0], ENGLISH_PACE)
    return ceil(words / pace * 60)


def _words_in(token: str) -> int:
    digits = sum(char.isdigit() for char in token)
    return digits if digits > 4 else 1

"""An SMS in the segments that it travels in, and the characters that make it costly.

Pure. `channels.text.sms_measure` counts; this shows where a text breaks. Joined again, the
segments are the text.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from channels.text import GSM7, SmsEncoding, sms_measure

_EXTENDED = frozenset("\f^{}\\[~]|€")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a part. `mark` is empty, or `slot`, `costly`, `later`, `cut`; `note` says why."""

    text: str
    mark: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Segment:
    """What travels as one SMS. `units` of `limit` are used: septets or UTF-16 code units."""

    number: int
    pieces: tuple[Piece, ...]
    units: int
    limit: int

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Costly:
    """A character that forces the whole SMS into UCS-2, and what could stand for it."""

    char: str
    code: str
    name: str
    times: int
    replacement: str | None


@dataclass(frozen=True, slots=True)
class Sms:
    """A text message in its real segments. `left` are the units free in the last one.

    `plain_segments` is what the text would take with every costly character replaced; None
    where one of them has no replacement.
    """

    segments: tuple[Segment, ...]
    encoding: str
    units: int
    left: int
    costly: tuple[Costly, ...]
    plain_segments: int | None

    @property
    def told_costly(self) -> bool:
        """Whether replacing the costly characters would save a segment."""
        return self.plain_segments is not None and self.plain_segments < len(self.segments)


def sms(text: str) -> Sms:
    """A text as it travels: `sms_measure` counts, this shows where it breaks."""
    measure = sms_measure(text)
    wide = measure.encoding is SmsEncoding.UCS2
    segments = tuple(
        Segment(number, tuple(_costly_pieces(piece, wide=wide)), units, measure.limit)
        for number, (piece, units) in enumerate(
            _split(text, whole=measure.segments < 2, limit=measure.limit, wide=wide), 1
        )
    )
    return Sms(
        segments=segments,
        encoding="UCS-2" if wide else "GSM-7",
        units=measure.units,
        left=segments[-1].limit - segments[-1].units if segments else measure.limit,
        costly=tuple(
            Costly(
                char=char,
                code=f"U+{ord(char):04X}",
                name=unicodedata.name(char, "unnamed character").lower(),
                times=text.count(char),
                replacement=measure.replacements.get(char),
            )
            for char in measure.costly
        ),
        plain_segments=_plain_segments(text, measure.replacements) if wide else None,
    )


def _plain_segments(text: str, replacements: Mapping[str, str]) -> int | None:
    plain = "".join(replacements.get(char, char) for char in text)
    return sms_measure(plain).segments if GSM7.issuperset(plain) else None


def _split(text: str, *, whole: bool, limit: int, wide: bool) -> Iterator[tuple[str, int]]:
    """Each segment's text with its units; a pair is never split over two segments."""
    start = used = 0
    for place, char in enumerate(text):
        size = 2 if (char > "\uffff" if wide else char in _EXTENDED) else 1
        if not whole and used + size > limit:
            yield text[start:place], used
            start, used = place, 0
        used += size
    if text:
        yield text[start:], used


def _costly_pieces(text: str, *, wide: bool) -> Iterator[Piece]:
    """Costly characters apart from the rest; where nearly all are, none is marked."""
    costly = sum(char not in GSM7 for char in text) if wide else 0
    if not costly or costly * 3 > len(text):
        yield Piece(text)
        return
    start = 0
    for place in range(1, len(text) + 1):
        dear = text[start] not in GSM7
        if place == len(text) or (text[place] not in GSM7) != dear:
            piece = text[start:place]
            yield Piece(piece, "costly", "makes this SMS UCS-2") if dear else Piece(piece)
            start = place

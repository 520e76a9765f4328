"""What is odd in a text that somebody typed or pasted, and how to show it.

Pure: text in, spans out. Owns which characters are named to the writer. What is refused is
decided by the model of public text (`incidents.PlainText`); here it is only said in words,
so that nothing that cannot be seen is ever sent unseen. Changes no text by itself.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from channels.text import GSM7, SmsEncoding, sms_measure
from dispatcher.incidents import MAX_SLOT_CHARS

MOST_SCANNED = 8_000
"""Characters of one text that are looked at: what is longer is refused for its length."""
MOST_SHOWN = 40
"""Places of one text that a page marks; the rest is counted."""
CONTEXT = 24
"""Characters shown on either side of a marked place."""


class Kind(StrEnum):
    """Sorts of oddity, the most dangerous first."""

    DIRECTION = "direction"
    CONTROL = "control"
    INVISIBLE = "invisible"
    PRIVATE = "private"
    MARKUP = "markup"
    LOOKALIKE = "lookalike"
    SPACE = "space"
    COSTLY = "costly"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Oddity:
    """One place in a text. `refused` is whether the text cannot be sent with it.

    `replacement` is plain text to put there instead; None where only the writer can know.
    """

    start: int
    end: int
    kind: Kind
    name: str
    refused: bool
    replacement: str | None


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text to show; `name` tells what a marked one is, `left_out` what is not shown."""

    text: str
    name: str = ""
    refused: bool = False
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """All oddities of one sort, told once. `count` places; `message` is a sentence."""

    kind: Kind
    refused: bool
    count: int
    message: str


_RANK = {kind: place for place, kind in enumerate(Kind)}
_REFUSED_DIRECTION = frozenset(chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A)))
_REFUSED_INVISIBLE = frozenset("\u200b\u2060\ufeff")
_WARNED_DIRECTION = frozenset("\u200e\u200f\u061c")
_JOINERS = frozenset("\u200c\u200d")
_SPACES = frozenset(
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f"
    "\u3000\u2028\u2029"
)
_NAMES = {
    "\t": "tab",
    "\r": "carriage return",
    "\x00": "null character",
    "\x1b": "escape character",
    "\x7f": "delete character",
    "\u061c": "Arabic letter mark",
    "\ufeff": "byte order mark",
}
_SCRIPTS = {"LATIN": "Latin", "CYRILLIC": "Cyrillic", "GREEK": "Greek"}
_ALIKE = {
    # Letters that a reader takes for the Latin one beside them.
    **dict(zip("АВЕЅІЈКМНОРСТХҮԌԜ", "ABESIJKMHOPCTXYGW", strict=True)),
    **dict(zip("аеѕіјорсухһԁԛԝ", "aesijopcyxhdqw", strict=True)),
    **dict(zip("ΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABEZHIKMNOPTYX", strict=True)),
    **dict(zip("οναι", "ovai", strict=True)),
}
_LATIN_ALIKE = {latin: other for other, latin in _ALIKE.items() if "\u0400" <= other <= "\u04ff"}
_NOT_LATIN = frozenset({"ru", "uk", "be", "bg", "sr", "mk", "el"})
_WORD = re.compile(r"[^\W\d_]+")
_MARKS = re.compile(r"[<>]|\[\[|\{\{|\{%")


def find(text: str, *, locale: str = "en", public: bool = True) -> tuple[Oddity, ...]:
    """All oddities in order. `locale` says which letters belong there.

    `public` text may go to people: markup and what makes an SMS costly are found only there.
    """
    found = _found(text[:MOST_SCANNED], locale=locale, public=public)
    if public and len(text.strip()) > MAX_SLOT_CHARS:
        found.append(
            Oddity(
                len(text),
                len(text),
                Kind.LENGTH,
                f"{len(text.strip()):,} characters; at most {MAX_SLOT_CHARS:,} can be sent",
                True,
                None,
            )
        )
    return tuple(found)


def _found(text: str, *, locale: str, public: bool) -> list[Oddity]:
    """Oddities of a text's characters; where two fall together the more dangerous one counts."""
    unseen = list(_unseen(text, public=public))
    found = [*unseen, *_lookalikes(text, language=locale.split("-")[0])]
    if public:
        found += _markup(text)
        found += _costly(text, besides={text[odd.start] for odd in found})
    taken: set[int] = set()
    kept: list[Oddity] = []
    for oddity in sorted(found, key=lambda each: _RANK[each.kind]):
        span = range(oddity.start, oddity.end)
        if taken.isdisjoint(span):
            taken.update(span)
            kept.append(oddity)
    return sorted(kept, key=lambda each: (each.start, each.end))


def plain(text: str, *, locale: str = "en", public: bool = True) -> str:
    """The text with every oddity replaced for which a plain replacement is known."""
    done: list[str] = []
    at = 0
    for oddity in _found(text, locale=locale, public=public):
        if oddity.replacement is not None:
            done += [text[at : oddity.start], oddity.replacement]
            at = oddity.end
    return "".join([*done, text[at:]])


def mendable(oddities: Iterable[Oddity]) -> bool:
    """Whether `plain` would change anything."""
    return any(oddity.replacement is not None for oddity in oddities)


def pieces(text: str, oddities: Sequence[Oddity]) -> tuple[Piece, ...]:
    """The text around its oddities, each marked with its name; long stretches are left out."""
    marked = [oddity for oddity in oddities if oddity.end > oddity.start][:MOST_SHOWN]
    shown: list[Piece] = []
    at = 0
    for oddity in marked:
        shown += _between(text[at : oddity.start], first=not shown)
        shown.append(Piece(text[oddity.start : oddity.end], label(text, oddity), oddity.refused))
        at = oddity.end
    if marked:
        rest = text[at:]
        shown.append(Piece(rest[:CONTEXT], left_out=max(0, len(rest) - CONTEXT)))
    return tuple(piece for piece in shown if piece.text or piece.left_out)


def label(text: str, oddity: Oddity) -> str:
    """How a place is shown instead of what cannot be seen: `U+202E right-to-left override`."""
    inside = text[oddity.start : oddity.end]
    if len(inside) == 1 and oddity.kind is not Kind.MARKUP:
        return f"U+{ord(inside):04X} {oddity.name}"
    return oddity.name


def findings(text: str, oddities: Sequence[Oddity]) -> tuple[Finding, ...]:
    """The oddities as sentences, refusals first, one for each sort."""
    told: list[Finding] = []
    for refused in (True, False):
        for kind in Kind:
            own = [each for each in oddities if each.kind is kind and each.refused is refused]
            if own:
                told.append(Finding(kind, refused, len(own), _sentence(text, own, kind, refused)))
    return tuple(told)


def _between(text: str, *, first: bool) -> list[Piece]:
    """What stands between two marked places, its middle left out if it is long."""
    if first and len(text) > CONTEXT:
        return [Piece("", left_out=len(text) - CONTEXT), Piece(text[-CONTEXT:])]
    if len(text) > 2 * CONTEXT:
        return [Piece(text[:CONTEXT], left_out=len(text) - 2 * CONTEXT), Piece(text[-CONTEXT:])]
    return [Piece(text)]


_SORT = {
    Kind.DIRECTION: "characters that change the reading direction",
    Kind.CONTROL: "control characters",
    Kind.INVISIBLE: "characters that cannot be seen",
    Kind.PRIVATE: "characters of private use, which people see as boxes",
    Kind.MARKUP: "marks of HTML or of templates",
    Kind.LOOKALIKE: "letters of another alphabet that look like the ones around them",
    Kind.SPACE: "unusual spaces",
    Kind.COSTLY: "characters that make every SMS longer and costlier",
    Kind.LENGTH: "too many characters",
}


def _sentence(text: str, own: Sequence[Oddity], kind: Kind, refused: bool) -> str:
    if kind is Kind.LENGTH:
        return f"Too long: {own[0].name}."
    names = list(dict.fromkeys(label(text, oddity) for oddity in own))
    some = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    places = "1 place" if len(own) == 1 else f"{len(own):,} places"
    lead = "Cannot be sent" if refused else "Please check"
    return f"{lead}: {_SORT[kind]} in {places} ({some})."


def _unseen(text: str, *, public: bool) -> Iterator[Oddity]:
    """Controls, direction marks, zero-width characters, odd spaces, private use."""
    for at, char in enumerate(text):
        if " " <= char <= "~" or char == "\n":
            continue
        found = _character(char, public=public)
        if found is not None:
            kind, refused, replacement = found
            yield Oddity(at, at + 1, kind, _name(char), refused, replacement)


def _character(char: str, *, public: bool) -> tuple[Kind, bool, str | None] | None:
    category = unicodedata.category(char)
    if char in _REFUSED_DIRECTION:
        return Kind.DIRECTION, public, ""
    if char in _REFUSED_INVISIBLE:
        return Kind.INVISIBLE, public, ""
    if char in _WARNED_DIRECTION:
        return Kind.DIRECTION, False, None
    if char in _JOINERS:
        return Kind.INVISIBLE, False, None
    if category == "Cc":
        # Internal text may hold tabs; public text may not.
        return Kind.CONTROL, public or char != "\t", " " if char in "\t\v\f\x85" else ""
    if char in _SPACES:
        return Kind.SPACE, False, "\n" if char in "\u2028\u2029" else " "
    if category == "Co":
        return Kind.PRIVATE, public, ""
    if category in ("Cf", "Cs", "Cn"):
        return Kind.INVISIBLE, False, ""
    return None


def _name(char: str) -> str:
    if char in _NAMES:
        return _NAMES[char]
    if unicodedata.category(char) == "Co":
        return "private-use character"
    if unicodedata.category(char) == "Cc":
        return "control character"
    return unicodedata.name(char, "character without a name").lower()


def _markup(text: str) -> Iterator[Oddity]:
    for found in _MARKS.finditer(text):
        yield Oddity(found.start(), found.end(), Kind.MARKUP, f"the mark {found[0]}", True, None)


def _costly(text: str, *, besides: set[str]) -> Iterator[Oddity]:
    """Characters that alone turn a text of plain letters into the costlier encoding.

    A text that is not plain anyway (Arabic, or Spanish with its accents) gains nothing by
    replacing its quotes.
    `besides` are characters that were found odd otherwise and will not stay.
    """
    measure = sms_measure("".join(char for char in text if char not in besides))
    if measure.encoding is SmsEncoding.GSM7:
        return
    if any(char.isalpha() or char not in measure.replacements for char in measure.costly):
        return
    for at, char in enumerate(text):
        if char not in GSM7 and (like := measure.replacements.get(char)) is not None:
            yield Oddity(at, at + 1, Kind.COSTLY, _name(char), False, like)


def _script(char: str) -> str:
    return unicodedata.name(char, "").split(" ")[0]


def _lookalikes(text: str, *, language: str) -> Iterator[Oddity]:
    """Letters of another alphabet within a word, or words made wholly of such letters."""
    for found in _WORD.finditer(text):
        word = found[0]
        if word.isascii():
            continue
        scripts = {script for char in word if (script := _script(char)) in _SCRIPTS}
        for at, like in _foreign(word, scripts, language):
            start = found.start() + at
            name = unicodedata.name(word[at]).lower()
            yield Oddity(start, start + 1, Kind.LOOKALIKE, name, False, like)


def _foreign(word: str, scripts: set[str], language: str) -> Iterator[tuple[int, str]]:
    """(place, letter that was meant) of each letter that is not what it looks like."""
    if len(scripts) > 1:
        # The alphabet that most of the word is in is the one that was meant.
        own = max(sorted(scripts), key=lambda script: sum(_script(c) == script for c in word))
        meant = _LATIN_ALIKE if own == "CYRILLIC" else _ALIKE
        for at, char in enumerate(word):
            if _script(char) != own and char in meant:
                yield at, meant[char]
    elif (
        scripts & {"CYRILLIC", "GREEK"}
        and language not in _NOT_LATIN
        and all(char in _ALIKE for char in word)
    ):
        for at, char in enumerate(word):
            yield at, _ALIKE[char]

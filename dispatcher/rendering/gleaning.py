"""Reads back from a text what it claims: numbers, money, times, dates, phones, addresses.

Whatever the script and the manner: `2:45 PM`, `14:45` and `٢:٤٥ م` are one time. Knows one
text and its language, no other text to compare it with.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache

from dispatcher.rendering.tongues import Tongue, folded

MOST_VALUES = 400
"""Values of one text that are looked at; no message has so many."""


class Sort(StrEnum):
    """What a value is."""

    NUMBER = "number"
    PERCENT = "percentage"
    MONEY = "amount of money"
    TIME = "time"
    DATE = "date"
    PHONE = "phone number"
    ADDRESS = "address"
    CODE = "code"
    NAME = "name"
    REGION = "place"
    YEAR = "year"
    WEEKDAY = "weekday"
    DAY = "day"
    ZONE = "time zone"
    NEGATION = "not"


@dataclass(frozen=True, slots=True)
class Value:
    """One claim of a text. `keys` are what it may mean; `seconds` the span it lasts, if one.

    `loose` is the plain number in it, by which another manner of saying it is recognised;
    a `soft` value is never missed, only contradicted.
    """

    sort: Sort
    keys: frozenset[str]
    text: str
    at: int
    loose: str = ""
    seconds: str = ""
    soft: bool = False

    def same(self, other: "Value") -> bool:
        """Whether both say the same."""
        if self.sort is not other.sort:
            plain = Sort.NUMBER in (self.sort, other.sort)
            return plain and bool(self.loose) and self.loose == other.loose
        if self.seconds and other.seconds:
            return self.seconds == other.seconds
        return not self.keys.isdisjoint(other.keys)


@dataclass(slots=True)
class Text:
    """A text made ready for reading: western digits, no marks that are not seen."""

    plain: str
    tongue: Tongue
    twelve: bool
    found: list[Value] = field(default_factory=list)

    def add(
        self,
        sort: Sort,
        keys: Sequence[str],
        span: tuple[int, int],
        *,
        loose: str = "",
        seconds: str = "",
        soft: bool = False,
    ) -> None:
        text = self.plain[span[0] : span[1]].strip()
        value = Value(sort, frozenset(keys), text, span[0], loose, seconds, soft)
        self.found.append(value)

    def word_before(self, at: int) -> str:
        found = _LAST_WORD.search(self.plain, max(0, at - 24), at)
        return folded(found[1]) if found else ""

    def word_after(self, at: int) -> tuple[str, int]:
        """The next word, and where it ends."""
        found = _NEXT_WORD.match(self.plain, at)
        return (folded(found[1]), found.end()) if found else ("", at)


_LAST_WORD = re.compile(r"([^\W\d_]+)\.?[ -]?[(]?$")
_NEXT_WORD = re.compile(r"[ -]{0,2}([^\W\d_]+)\.?")

_UNSEEN = re.compile(
    "[\u00ad\u061c\u0640\u064b-\u0652\u0670\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
)
_PLAIN = {
    **{0x0660 + n: str(n) for n in range(10)},
    **{0x06F0 + n: str(n) for n in range(10)},
    **{0xFF10 + n: str(n) for n in range(10)},
    0x066A: "%", 0x066B: ".", 0x066C: ",", 0x060C: ",", 0xFF05: "%", 0xFE6A: "%",
    0x00A0: " ", 0x202F: " ", 0x2009: " ", 0x2007: " ",
    0x2010: "-", 0x2011: "-", 0x2012: "-", 0x2013: "-", 0x2014: "-", 0x2212: "-",
}  # fmt: skip


def readable(text: str) -> str:
    """The text with western digits and plain spaces, without what nobody sees."""
    if text.isascii():
        return text
    return _UNSEEN.sub("", unicodedata.normalize("NFC", text)).translate(_PLAIN)


_ADDRESS = re.compile(
    r"https?://[^\s<>\"'()]+|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,9}|"
    r"(?<![\w@.-])(?:[a-z0-9][a-z0-9-]{0,62}\.){1,9}[a-z]{2,}(?:/[^\s<>\"'()]*)?(?![\w@])",
    re.IGNORECASE | re.ASCII,
)
_ZONES = (
    "UTC|GMT|E[SD]T|C[SD]T|M[SD]T|P[SD]T|AK[SD]T|HST|NZ[SD]T|AE[SD]T|AW?ST|CES?T|EES?T|WES?T|"
    "BST|IST|MSK|JST|SGT"
)
_ZONE = re.compile(rf"(?<![\w])(?:{_ZONES})(?:[+-]\d{{1,2}}(?::?\d\d)?)?(?![\w])")
_CURRENCY = "US\\$|NZ\\$|CA\\$|A\\$|C\\$|[$€£¥₽₴]|(?:USD|EUR|GBP|NZD|AUD|CAD|RUB|MXN|SAR|AED|EGP)"
_MERIDIEM = re.compile(
    r" ?(?:(?P<am>a\.? ?m\b\.?|ص\b|صباحا|فجرا)|(?P<pm>p\.? ?m\b\.?|م\b|مساء|ظهرا|عصرا|ليلا)|"
    r"(?P<noon>noon|midday)|(?P<midnight>midnight)|"
    r"(?:de la (?:(?P<es_am>mañana|madrugada)|(?P<es_pm>tarde|noche)))|"
    r"(?:час(?:а|ов)? )?(?:(?P<ru_am>утра|ночи)|(?P<ru_pm>дня|вечера)))(?!\w)",
    re.IGNORECASE,
)
_DIGITS = re.compile(
    rf"""
    (?P<iso>(?<![\w])\d{{4}}-\d\d-\d\d(?!\d))
  | (?P<slashed>(?<![A-Za-z0-9/])\d{{1,2}}/\d{{1,2}}(?:/\d{{2,4}})?(?![\d/]) | (?<![A-Za-z0-9.])\d{{1,2}}\.\d{{1,2}}\.(?:\d{{4}}|\d\d)(?!\d))
  | (?P<phone>(?<![A-Za-z0-9.,])(?:\+\d[\d ().-]{{6,17}}\d | \(?\d{{1,4}}\)?(?:[ .-]\(?\d{{2,4}}\)?){{1,4}}[ .-]\d{{3,4}} | \d{{7,13}})(?![\w]))
  | (?P<clock>(?<![A-Za-z0-9:.,])\d{{1,2}}(?::\d\d(?::\d\d)?|h\d\d)(?![\d:]))
  | (?P<code>(?<![\w])[A-Za-z]+-?\d[\w-]*)
  | (?:(?P<sign>{_CURRENCY})[ ]?)?(?P<number>(?:\d{{1,3}}(?:[ ,.'’]\d{{3}})+(?!\d) | \d+)(?:[.,]\d+)?)
    (?P<tail>[ ]?(?:%|{_CURRENCY}))?
    """,
    re.VERBOSE,
)  # fmt: skip
_DIGIT = re.compile(r"\d")
_LEAD = re.compile(rf"(?:(?:{_CURRENCY})[ ]?|[+(]{{1,2}}|[A-Za-z]+-?)$")
"""What may stand right before the digits that it belongs to."""

_GROUPED = re.compile(r"\d{1,3}(?:[ ,.'’]\d{3})+")
_MONEY_WORDS = (
    ("dollar", "dólar", "dolar", "доллар", "долл", "دولار", "usd", "$"),
    ("euro", "евро", "يورو", "eur", "€"),
    ("pound", "libra", "фунт", "جنيه", "gbp", "£"),
    ("rouble", "ruble", "rublo", "руб", "روبل", "rub", "₽"),
    ("peso", "песо", "بيزو", "mxn"),
    ("riyal", "ريال", "sar"),
    ("dirham", "درهم", "aed"),
    ("cent", "centavo", "цент", "سنت"),
)
_WHOSE = frozenset({"us", "american", "canadian", "australian", "nz"})
_HOUR_BEFORE = frozenset({"las", "الساعة", "الساعه"})
_AT_BEFORE = frozenset({"at", "by", "until", "till", "from", "before", "after", "since", "to",
                        "между", "в", "до", "к", "с", "по", "после", "около"})  # fmt: skip


def glean(text: str, tongue: Tongue, *, twelve: bool) -> tuple[Value, ...]:
    """Every value of the text in order. `twelve`: the language tells times by twelve hours."""
    return _gleaned(text, tongue, twelve)


@lru_cache(maxsize=1024)
def _gleaned(text: str, tongue: Tongue, twelve: bool) -> tuple[Value, ...]:
    plain = readable(text)
    state = Text(plain, tongue, twelve)
    if "." in plain or "@" in plain or "/" in plain:
        state.plain = _ADDRESS.sub(lambda found: _address(state, found), plain)
    state.plain = _ZONE.sub(lambda found: _zone(state, found), state.plain)
    at = 0
    while (digit := _DIGIT.search(state.plain, at)) and len(state.found) < MOST_VALUES:
        lead = _LEAD.search(state.plain[max(at, digit.start() - 16) : digit.start()])
        found = _DIGITS.match(state.plain, digit.start() - (len(lead[0]) if lead else 0))
        found = found or _DIGITS.match(state.plain, digit.start())
        at = max(_digits(state, found) if found else 0, digit.end())
    _words(state)
    return tuple(sorted(state.found, key=lambda value: value.at))


def _address(state: Text, found: re.Match[str]) -> str:
    words = found[0].rstrip(".,;:!?")
    if any(char.isalpha() for char in words) and not _MERIDIEM.fullmatch(" " + words):
        key = re.sub(r"^(?:https?://)?(?:www\.)?", "", words.casefold()).rstrip("/")
        state.add(Sort.ADDRESS, [key], (found.start(), found.start() + len(words)))
        return "\0" * len(words) + found[0][len(words) :]
    return found[0]


def _zone(state: Text, found: re.Match[str]) -> str:
    state.add(Sort.ZONE, [found[0]], found.span())
    return "\0" * len(found[0])


def _digits(state: Text, found: re.Match[str]) -> int:
    """Take what stands where digits do. Answers where to go on."""
    start, end = found.span()
    if found["iso"]:
        year, month, day = found["iso"].split("-")
        return _date(state, int(month), int(day), year=year, span=(start, end))
    if found["phone"] and (phone := _phone(found["phone"])):
        state.add(Sort.PHONE, [phone], (start, end))
        return end
    if found["slashed"] and found["slashed"] != "24/7":
        return _slashed(state, found["slashed"], (start, end))
    if found["clock"] and (taken := _clock(state, found["clock"], (start, end))):
        return taken
    if found["code"]:
        state.add(Sort.CODE, [found["code"].upper()], (start, end))
        return end
    bare = _BARE.match(state.plain, start) if found["number"] is None else found
    return _number(state, bare) if bare else start + 1


_BARE = re.compile(
    rf"[+(]?(?P<sign>{_CURRENCY})?(?P<number>(?:\d{{1,3}}(?:[ ,.'’]\d{{3}})+(?!\d)|\d+)(?:[.,]\d+)?)"
    rf"(?P<tail>[ ]?(?:%|{_CURRENCY}))?"
)


def _phone(written: str) -> str:
    """The digits that tell a phone from another; none if it is only a long number."""
    if _GROUPED.fullmatch(written):
        return ""
    digits = re.sub(r"\D", "", written)
    if len(digits) < 7 or (written.isdigit() and len(digits) < 10):
        return ""
    return digits[-10:]


def _date(state: Text, month: int, day: int, *, year: str, span: tuple[int, int]) -> int:
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return span[1]
    state.add(Sort.DATE, [f"{month}-{day}"], span, loose=str(day))
    start, end = span
    if not year and (found := _YEAR.match(state.plain, end)):
        year, start, end = found[1], end, found.end()
    if len(year) == 4:
        state.add(Sort.YEAR, [year], (start, end))
    return end


_YEAR = re.compile(r",? (?:del? |عام |سنة )?((?:19|20)\d\d)(?![\d:.,]\d)")


def _slashed(state: Text, written: str, span: tuple[int, int]) -> int:
    one, two, *year = (int(each) for each in re.split(r"[/.]", written))
    pairs = [(month, day) for month, day in ((one, two), (two, one)) if month <= 12 and day <= 31]
    if "." in written:
        pairs = [(two, one)] if two <= 12 and one <= 31 else []
    if pairs:
        state.add(Sort.DATE, [f"{month}-{day}" for month, day in pairs], span)
        if year:
            state.add(Sort.YEAR, [str(year[0] if year[0] > 99 else 2000 + year[0])], span)
    return span[1]


def _clock(state: Text, written: str, span: tuple[int, int]) -> int:
    hour, minute = (int(each) for each in re.split("[:h]", written)[:2])
    if hour > 24 or minute > 59:
        return 0
    return _time(state, hour, minute, span=span, whole=written.startswith("0"))


def _time(state: Text, hour: int, minute: int, *, span: tuple[int, int], whole: bool) -> int:
    """A time, by the half of the day that is named after it."""
    half = _MERIDIEM.match(state.plain, span[1])
    end = half.end() if half else span[1]
    named = half.lastgroup if half else None
    hours = [hour % 24]
    if named in ("am", "es_am", "ru_am", "midnight"):
        hours = [hour % 12]
    elif named in ("pm", "es_pm", "ru_pm", "noon"):
        # Night is both: 9 PM and 2 AM. Small hours are read as morning where the word is wide.
        hours = [hour % 12 + 12]
        if half is not None and half[0].strip() in ("ليلا", "de la noche") and hour % 12 < 5:
            hours.append(hour % 12)
    elif state.twelve and hour <= 12 and not whole:
        hours = [hour % 12, hour % 12 + 12]
    keys = [str(each * 60 + minute) for each in hours]
    loose = str(hour) if not minute else ""
    state.add(Sort.TIME, keys, (span[0], end), loose=loose)
    return end


def _number(state: Text, found: re.Match[str]) -> int:
    written = found["number"]
    start, end = found.start("number"), found.end("number")
    sign, tail = found["sign"] or "", (found["tail"] or "").strip()
    per_cent = _PERCENT.match(state.plain, end)
    if per_cent is not None:
        end = per_cent.end()
        number = _plain_number(written)
        state.add(Sort.PERCENT, [number], (start, end), loose=number)
        return end
    if not sign and not tail and (taken := _dated(state, written, (start, end))):
        return taken
    if not sign and not tail and (taken := _hour(state, written, (start, end))):
        return taken
    if code := _CODE_TAIL.match(state.plain, end):
        text = written + code[0]
        if code[0].isupper() and len(code[0]) < 3:
            state.add(Sort.CODE, [text], (start, code.end()))
            return code.end()
    times, after = _multiplied(state, end)
    number = _plain_number(written, times)
    money = _currency(sign or tail)
    word, word_end = state.word_after(after)
    if word in _WHOSE:
        word, word_end = state.word_after(word_end)
    if not money and word and (money := _currency(word)):
        after = word_end
    if money:
        span = (found.start(), max(after, found.end()))
        state.add(Sort.MONEY, [f"{number} {money}"], span, loose=number)
        return span[1]
    seconds = ""
    if word and (unit := state.tongue.unit.get(word)):
        seconds = _spanned(number, unit)
        after = word_end if seconds else after
    state.add(Sort.NUMBER, [number], (start, after), loose=number, seconds=seconds)
    return after


_PERCENT = re.compile(
    r" ?(?:%|percent\b|per cent\b|por ?cien(?:to)?\b|процент\w*|بالمئة|بالمائة|في المئة|في المائة)",
    re.IGNORECASE,
)
_CODE_TAIL = re.compile(r"[A-Za-z]{1,2}(?![A-Za-z])")
_ORDINAL = re.compile(r"(?:st|nd|rd|th|-?го|-?е|-?й|º|ª)(?!\w)", re.IGNORECASE)


def _spanned(number: str, unit: int) -> str:
    try:
        return f"{(Decimal(number) * unit).normalize():f}"
    except InvalidOperation:
        return ""


def _plain_number(written: str, times: int = 1) -> str:
    """`1,700,000`, `1.700.000` and `1 700 000` are one number; so are `1.7` and `1,7` million."""
    whole, decimals = written, ""
    last = re.search(r"[.,](\d+)$", written)
    if last is not None:
        alone = len(re.findall(r"[ ,.'’]", written)) == 1
        grouping = len(last[1]) == 3 and not (alone and (times > 1 or written[0] == "0"))
        if not grouping:
            whole, decimals = written[: last.start()], last[1]
    digits = re.sub(r"\D", "", whole)[:40] or "0"
    number = Decimal(f"{digits}.{decimals[:10] or '0'}") * times
    return f"{number.normalize():f}"


def _multiplied(state: Text, at: int) -> tuple[int, int]:
    """`million` and its like after a number: by how much, and where it ends."""
    times, end = 1, at
    while (word := state.word_after(end)) and word[0]:
        found = state.tongue.times.get(word[0])
        if found is None or times * found > 10**12:
            break
        times, end = times * found, word[1]
    return times, end


@lru_cache(maxsize=8192)
def _currency(word: str) -> str:
    small = folded(word)
    if not small:
        return ""
    for stems in _MONEY_WORDS:
        if any(small.startswith(folded(stem)) for stem in stems) or small.endswith(stems[-1]):
            return stems[0]
    return small if word.isupper() and len(word) == 3 else ""


def _dated(state: Text, written: str, span: tuple[int, int]) -> int:
    """A day with its month before or behind it."""
    if not written.isdigit() or len(written) > 2:
        return 0
    ordinal = _ORDINAL.match(state.plain, span[1])
    end = ordinal.end() if ordinal else span[1]
    behind = _MONTH_BEHIND.match(state.plain, end)
    if behind and (month := _month(state, behind[1])):
        return _date(state, month, int(written), year="", span=(span[0], behind.end()))
    before = _LAST_WORD.search(state.plain, max(0, span[0] - 24), span[0])
    if before and (month := _month(state, before[1])):
        return _date(state, month, int(written), year="", span=(before.start(), end))
    return 0


def _month(state: Text, word: str) -> int | None:
    # "You may 3 times" names no month.
    return None if word in ("may", "march", "mar") else state.tongue.months.get(folded(word))


_MONTH_BEHIND = re.compile(r" ?(?:of |de |من )?([^\W\d_]{3,})\.?")


def _hour(state: Text, written: str, span: tuple[int, int]) -> int:
    """A full hour: `9 AM`, `a las 15`, `в 9 часов`, `الساعة 3`; `14.30` where it is a time."""
    split = re.fullmatch(r"(\d{1,2})(?:\.(\d\d))?", written)
    if split is None or int(split[1]) > 24 or int(split[2] or 0) > 59:
        return 0
    hour, minute = int(split[1]), int(split[2] or 0)
    before = state.word_before(span[0])
    after = _OCLOCK.match(state.plain, span[1])
    if before not in _HOUR_BEFORE and not _MERIDIEM.match(state.plain, span[1]):
        if after is None or (before not in _AT_BEFORE and not split[2]):
            return 0
        if _MERIDIEM.match(state.plain, after.end()) is None:
            span = (span[0], after.end())
    return _time(state, hour, minute, span=span, whole=written.startswith("0"))


_OCLOCK = re.compile(r" ?(?:o['’]clock|uhr|hs?(?!\w)|час(?:ов|а)?(?!\w)|ч(?!\w))", re.IGNORECASE)

_NOON = {"noon": "720", "midday": "720", "mediodía": "720", "полдень": "720", "midnight": "0",
         "medianoche": "0", "полночь": "0"}  # fmt: skip
_LETTERS = re.compile(r"[^\W\d_]{2,}")


def _words(state: Text) -> None:
    """Numbers, days and times that are written out."""
    tongue = state.tongue
    before = ""
    for found in _LETTERS.finditer(state.plain):
        word = found[0]
        last, before = before, word
        meaning = _meaning(tongue, word)
        if meaning is None or _taken(state, found.start()) or len(state.found) >= MOST_VALUES:
            continue
        sort, key = meaning
        if sort is Sort.NUMBER:
            _spelled(state, int(key), found)
        elif sort is Sort.TIME:
            state.add(sort, [key], found.span(), loose="12")
        elif not (sort is Sort.DAY and last.casefold() == "la"):
            state.add(sort, [key], found.span())


def _taken(state: Text, at: int) -> bool:
    return any(value.at <= at < value.at + len(value.text) for value in state.found)


@lru_cache(maxsize=16_384)
def _meaning(tongue: Tongue, written: str) -> tuple[Sort, str] | None:
    """What a word says by itself."""
    word = folded(written)
    if number := tongue.spelled.get(word):
        return Sort.NUMBER, str(number)
    if len(word) > 2 and (day := tongue.weekdays.get(word)) is not None:
        return Sort.WEEKDAY, str(day)
    if relative := tongue.days.get(word):
        return Sort.DAY, relative
    return (Sort.TIME, _NOON[word]) if word in _NOON else None


def _spelled(state: Text, number: int, found: re.Match[str]) -> None:
    times, end = _multiplied(state, found.end())
    number *= times
    word, word_end = state.word_after(end)
    if word and (money := _currency(word)):
        keys = [f"{number} {money}"]
        state.add(Sort.MONEY, keys, (found.start(), word_end), loose=str(number))
        return
    unit = state.tongue.unit.get(word) if word else None
    seconds = _spanned(str(number), unit) if unit else ""
    span = (found.start(), word_end if unit else end)
    said = str(number)
    state.add(Sort.NUMBER, [said], span, loose=said, seconds=seconds, soft=True)


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, by their marks and lines."""
    for piece in _BREAK.split(text):
        if piece and not piece.isspace():
            yield piece.strip()


_BREAK = re.compile(r"(?<![ap]\.m\.)(?<![ap]\. m\.)(?<=[.!?؟…])\s+|\n+")

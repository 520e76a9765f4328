"""Measuring text as the providers do, and filling the slots of a stored message.

Pure: no I/O, no clock, no knowledge of who sends what to whom. `fill` is the only code
that puts a recipient's own values into a message; everything else here counts.
"""

import codecs
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from html import escape
from types import MappingProxyType

from channels.contract import Charset, Envelope, Message, Slot, Unit

HTML_PART = "html"

_MARKER = re.compile(r"\[\[([A-Za-z0-9_.:-]{1,64})\]\]")

# Letters, digits and the punctuation of RFC 3986, less "[", "]" and "~": those three cost
# two septets in an SMS, and without them a link never costs more than its length.
_URL_VALUE = re.compile(r"[A-Za-z0-9\-._:/?#@!$&'()*+,;=%]*")
_URL_WORST = "https://x.example/"

# 3GPP TS 23.038, 6.2.1: the basic table (escape left out) and its extension table.
_GSM_EXTENSION = "\f^{}\\[~]|€"
_GSM_BASIC = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM7 = frozenset(_GSM_BASIC + _GSM_EXTENSION)
"""Every character that an SMS can carry without becoming UCS-2."""

_LOOKALIKES: Mapping[str, str] = {
    **dict.fromkeys("‘’‚‛′`´ʼ‹›", "'"),
    **dict.fromkeys("“”„‟″«»", '"'),
    **dict.fromkeys("‐‑‒–—―−•‣·", "-"),
    **dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\u00ad", ""),
    **dict.fromkeys("\t\u2028\u2029\u1680", " "),
    "…": "...",
    "×": "x",
    "÷": "/",
    "⁄": "/",
    "ç": "c",
    "ł": "l",
    "Ł": "L",
    "đ": "d",
    "Đ": "D",
    "ı": "i",
    "œ": "oe",
    "Œ": "OE",
    "→": "->",
    "←": "<-",
    "©": "(c)",
    "®": "(R)",
}


class SlotError(ValueError):
    """A recipient's value does not fit its slot. Says which slot and why, never the value."""

    def __init__(self, slot: str, reason: str) -> None:
        super().__init__(f"slot {slot}: {reason}")
        self.slot = slot
        self.reason = reason


def strip_controls(text: str) -> str:
    """Text as one line without anything invisible that could forge a line or turn its direction.

    Line breaks and tabs become a space; other control and format characters (zero-width,
    bidi overrides, lone surrogates) go.
    """
    if text.isprintable():
        return text
    return "".join(_visible(text.replace("\r\n", "\n")))


def _visible(text: str) -> Iterator[str]:
    for char in text:
        category = unicodedata.category(char)
        if char in "\n\r\t\v\f\x85" or category in ("Zl", "Zp"):
            yield " "
        elif category not in ("Cc", "Cf", "Cs"):
            yield char


def fill(message: Message, envelope: Envelope) -> dict[str, str]:
    """The message's parts with this recipient's values in their slots.

    Values are stripped of control characters and put into NFC; in the "html" part they are
    escaped as well. A `[[x]]` that is no declared slot stays, and nothing within a value is
    ever taken for a slot. Raises `SlotError` for a value that is missing, longer than its
    slot (in characters, after stripping) or outside its charset.
    """
    if not message.slots:
        return dict(message.parts)
    ready: dict[str, str] = {}

    def value_of(name: str) -> str:
        if name not in ready:
            ready[name] = checked(name, message.slots[name], envelope.slots.get(name))
        return ready[name]

    return _substituted(message, lambda name, _: value_of(name))


def worst_case(message: Message) -> dict[str, str]:
    """The parts with the most expensive value that each slot admits, for `check`."""
    if not message.slots:
        return dict(message.parts)
    return _substituted(message, lambda name, part: _worst(message.slots[name], part))


def _substituted(message: Message, value_of: Callable[[str, str], str]) -> dict[str, str]:
    def replaced(part: str, text: str) -> str:
        def one(found: re.Match[str]) -> str:
            name = found[1]
            if name not in message.slots:
                return found[0]
            value = value_of(name, part)
            return escape(value) if part == HTML_PART else value

        return _MARKER.sub(one, text) if "[[" in text else text

    return {part: replaced(part, text) for part, text in message.parts.items()}


def checked(name: str, slot: Slot, raw: str | None) -> str:
    """A recipient's value as `fill` puts it into plain text. Raises `SlotError`."""
    if raw is None:
        raise SlotError(name, "no value")
    value = unicodedata.normalize("NFC", strip_controls(raw))
    if len(value) > slot.max_chars:
        raise SlotError(name, f"longer than {slot.max_chars} characters")
    if slot.charset == Charset.GSM7 and not GSM7.issuperset(value):
        raise SlotError(name, "has characters outside GSM-7")
    if slot.charset == Charset.URL and not _URL_VALUE.fullmatch(value):
        raise SlotError(name, "has characters that a URL may not hold")
    return value


def _worst(slot: Slot, part: str) -> str:
    count = slot.max_chars
    if slot.charset == Charset.URL:
        # A link that X recognises, so that it is weighed as one there.
        filler = "&" if part == HTML_PART else "x"
        return (_URL_WORST + filler * count)[:count]
    if part == HTML_PART:
        return '"' * count  # escaped to six bytes
    return ("€" if slot.charset == Charset.GSM7 else "\U0001f4f5") * count


def units(message: Message, unit: Unit) -> int:
    """What one envelope of this message costs in the unit that a sender's rate counts."""
    if unit != Unit.SEGMENT:
        return 1
    return max(1, sms_measure(worst_case(message).get("text", "")).segments)


# --- SMS ---------------------------------------------------------------------------------


class SmsEncoding(StrEnum):
    """How an SMS travels; one character outside GSM-7 turns the whole text into UCS-2."""

    GSM7 = "gsm7"
    UCS2 = "ucs2"


@dataclass(frozen=True, slots=True)
class SmsMeasure:
    """What a text costs as SMS.

    `units` are septets or UTF-16 code units, `limit` is how many of them fit each of the
    `segments`. `costly` are the distinct characters that forced UCS-2, in order of
    appearance, and `replacements` the GSM-7 text that reads like them, where one exists.
    """

    encoding: SmsEncoding
    units: int
    segments: int
    limit: int
    costly: tuple[str, ...] = ()
    replacements: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


_UTF16 = codecs.lookup("utf-16-le")
"""Looked up once, so that the first message measured reads no file."""


def sms_measure(text: str) -> SmsMeasure:
    """Encoding, units and segments of a text; no segments for an empty one.

    160 septets or 70 UTF-16 units alone, 153 or 67 in each of several parts; a pair (escape
    and extension character, or two surrogates) is never split over parts.
    https://www.twilio.com/docs/glossary/what-sms-character-limit
    """
    if GSM7.issuperset(text):
        pairs = sum(map(text.count, _GSM_EXTENSION))
        segments, limit = _packed(text, len(text) + pairs, pairs, 160, 153)
        return SmsMeasure(SmsEncoding.GSM7, len(text) + pairs, segments, limit)
    total = len(_UTF16.encode(text, "surrogatepass")[0]) // 2
    segments, limit = _packed(text, total, total - len(text), 70, 67)
    costly = tuple(char for char in dict.fromkeys(text) if char not in GSM7)
    known = {char: like for char in costly if (like := _lookalike(char)) is not None}
    return SmsMeasure(
        SmsEncoding.UCS2,
        total,
        segments,
        limit,
        costly,
        MappingProxyType(known),
    )


def _packed(text: str, total: int, pairs: int, alone: int, each: int) -> tuple[int, int]:
    """(segments, units that fit each) for a text of `total` units, `pairs` of them double."""
    if total <= alone:
        return (1 if total else 0), alone
    if not pairs:
        return -(-total // each), each
    segments, used = 1, 0
    for char in text:
        size = 2 if char > "\uffff" or (char in _GSM_EXTENSION and each == 153) else 1
        if used + size > each:
            segments, used = segments + 1, 0
        used += size
    return segments, each


@lru_cache(maxsize=4096)
def _lookalike(char: str) -> str | None:
    if (like := _LOOKALIKES.get(char)) is not None:
        return like
    if "\u0300" <= char <= "\u036f":  # a loose accent
        return ""
    plain = "".join(c for c in unicodedata.normalize("NFKD", char) if not unicodedata.combining(c))
    return plain if plain and plain != char and GSM7.issuperset(plain) else None


# --- X -----------------------------------------------------------------------------------

X_LIMIT = 280
"""Most weight that one post may have. https://docs.x.com/fundamentals/counting-characters"""

_X_URL_WEIGHT = 23
_X_EMOJI_WEIGHT = 2

# A bare domain is a link to X only under a registered ending. These are the usual generic
# ones; under a country's ending X wants a path or a third label, but for .co and .tv.
_GENERIC = (
    "com|org|net|edu|gov|mil|int|info|biz|name|pro|aero|coop|museum|mobi|tel|travel|jobs|cat|asia|"
    "post|app|dev|io|ai|me|online|site|website|web|cloud|network|systems|services|support|status|"
    "help|care|email|link|live|news|media|social|shop|store|tech|mobile|phone|global|world|today|"
    "group|company|agency|digital|energy|solutions|space|xyz|top|club|life|page|zone|center|blog"
)
_COUNTRY = (
    "a[cdefgilmoqrstuwxz]|b[abdefghijmnorstvwyz]|c[acdfghiklmnoruvwxyz]|d[ejkmoz]|e[ceghrstu]|"
    "f[ijkmor]|g[abdefghilmnpqrstuwy]|h[kmnrtu]|i[delmnoqrst]|j[emop]|k[eghimnprwyz]|"
    "l[abcikrstuvy]|m[acdeghklmnopqrstuvwxyz]|n[acefgilopruz]|om|p[aefghklmnrstwy]|qa|r[eosuw]|"
    "s[abcdeghijklmnorstuvxyz]|t[cdfghjklmnortvwz]|u[agksyz]|v[aceginu]|w[fs]|y[et]|z[amw]"
)
_PATH_CHARS = r"[\w!*';:=+,.$/%#\[\]\-~@|&]"
_LINK = (
    r"(?<![a-z0-9@$#＠＃])(?P<scheme>https?://)?"
    # At most 127 labels of 63 characters (RFC 1035, 2.3.4): without a bound, "a.a.a…" costs
    # the square of its length.
    r"(?P<domain>(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,126}(?:xn--[a-z0-9-]+|[^\W\d_]{2,}))"
    r"(?![a-z0-9@])"
    rf"(?::[0-9]+)?(?P<path>/(?:{_PATH_CHARS}*(?:[\w=#/+\-]|\({_PATH_CHARS}+\)))*)?"
    r"(?:\?[\w!?*'();:&=+$/%#\[\]\-.,~|@]*[\w&=#/\-])?"
)
_PICTURE = (
    "(?:[\U0001f000-\U0001faff\u2190-\u2bff\u3030\u303d\u3297\u3299][\U0001f3fb-\U0001f3ff]?\ufe0f?"
    "|[\u00a9\u00ae\u203c\u2049\u2122\u2139]\ufe0f)[\U000e0020-\U000e007f]*"
)
_EMOJI = f"[\U0001f1e6-\U0001f1ff]{{2}}|[0-9#*]\ufe0f?\u20e3|{_PICTURE}(?:\u200d{_PICTURE})*"
_X_ENTITY = re.compile(f"{_LINK}|{_EMOJI}", re.IGNORECASE)
_X_GENERIC_ENDING = re.compile(rf"\.(?:{_GENERIC}|co|tv)\Z", re.IGNORECASE)
_X_COUNTRY_ENDING = re.compile(rf"\.(?:{_COUNTRY})\Z", re.IGNORECASE)
_X_HEAVY = re.compile("[^\\0-\u10ff\u2000-\u200d\u2010-\u201f\u2032-\u2037]")
_X_CASHTAG = re.compile(r"(?<!\S)\$[A-Za-z]{1,6}(?:[._][A-Za-z]{1,2})?(?![\w$])")


def x_weight(text: str) -> int:
    """The weight of a post against `X_LIMIT`, counted on NFC as twitter-text 3 does.

    A link weighs 23 and an emoji sequence 2; U+0000-10FF, 2000-200D, 2010-201F and
    2032-2037 weigh 1, all else 2.
    https://github.com/twitter/twitter-text/blob/master/config/v3.json
    """
    text = unicodedata.normalize("NFC", text)
    weight = done = 0
    for found in _X_ENTITY.finditer(text):
        if found["domain"] is None:
            own = _X_EMOJI_WEIGHT
        elif _is_link(found):
            own = _X_URL_WEIGHT
        else:
            continue
        weight += _plain_weight(text[done : found.start()]) + own
        done = found.end()
    return weight + _plain_weight(text[done:])


def x_links(text: str) -> tuple[str, ...]:
    """What X would shorten to a link, and charge as one."""
    text = unicodedata.normalize("NFC", text)
    return tuple(found[0] for found in _X_ENTITY.finditer(text) if _is_link(found))


def x_cashtags(text: str) -> tuple[str, ...]:
    """Ticker symbols such as `$T`; X takes one per post."""
    return tuple(_X_CASHTAG.findall(text))


def _is_link(found: re.Match[str]) -> bool:
    domain = found["domain"]
    if domain is None:
        return False
    if found["scheme"]:
        return True
    if (found.start() and found.string[found.start() - 1] in "-_./") or not domain.isascii():
        return False
    if _X_GENERIC_ENDING.search(domain):
        return True
    deep = bool(found["path"]) or domain.count(".") > 1
    return deep and _X_COUNTRY_ENDING.search(domain) is not None


def _plain_weight(text: str) -> int:
    return len(text) if text.isascii() else len(text) + len(_X_HEAVY.findall(text))

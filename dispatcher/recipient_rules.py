"""What a good recipient is: each column's rule, and a fault for each one that is broken.

Pure: no I/O. Must not know files, tables or audiences. A fault names its column and says
what would be right; it never holds the value.
"""

import functools
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from babel import Locale

from channels.contract import ContactKind
from dispatcher.contacts import Contact, ContactError, country_of, is_sandbox_only, normalise
from dispatcher.recipient_files import Record

PUBLIC_REF = "public:"
"""What the ids of the organisation's own public accounts begin with; nobody else's may."""

MAX_LISTED = 32
"""Values in one list column."""

MAX_NAME_CHARS = 200


@dataclass(frozen=True, slots=True)
class KnownValues:
    """What the installation knows. `locales`: None for every language and place of CLDR.

    `live` refuses numbers that only simulators may be sent to.
    """

    segments: frozenset[str]
    services: frozenset[str]
    locales: frozenset[str] | None = None
    live: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one column."""

    column: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record whose plain columns are good; its contacts are still as written."""

    line: int
    ref: str = field(repr=False)
    contacts: tuple[str, ...] = field(repr=False)
    name: str = field(repr=False)
    locale: str
    segment: str
    region: str
    services: tuple[str, ...]
    tags: tuple[str, ...]

    def canonical(self) -> str:
        """One text for all that is stored of it: equal exactly if nothing changed.

        The leading number is this rule's version: with another, every line is judged anew.
        """
        lists = (";".join(self.services), ";".join(self.tags))
        plain = (self.ref, self.name, self.locale, self.segment, self.region)
        return "\x1f".join(("1", *plain, *lists, *self.contacts))


CONTACT_COLUMNS: tuple[tuple[str, ContactKind], ...] = (
    ("phone", ContactKind.PHONE),
    ("email", ContactKind.EMAIL),
    ("fcm_token", ContactKind.FCM_TOKEN),
    ("inbox", ContactKind.INBOX),
)
_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_TAG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_REGION = re.compile(r"[A-Z]{2}(?:-[A-Z0-9]{1,8}){0,4}")
_LOCALE = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{4}))?(?:[-_]([A-Za-z]{2}|[0-9]{3}))?")
# They make a name read otherwise than it was written: overrides, isolates, zero width.
_HIDDEN = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200B, 0x2060)))

_MAX_CACHED = 64

_MISSING = ("missing", "the value is missing")
_WRONG: Mapping[str, tuple[str, str]] = {
    "id": (
        "bad_id",
        "an id has 1 to 128 letters, digits or . _ : - and starts with a letter or digit",
    ),
    "name": ("bad_name", f"a name has at most {MAX_NAME_CHARS} characters, none of them hidden"),
    "locale": ("unknown_locale", "not a language this installation knows, like en or en-US"),
    "segment": ("unknown_segment", "not one of the installation's segments"),
    "region": ("bad_region", "not a region code like US or US-TX"),
    "services": ("unknown_service", "not one of the installation's services"),
    "tags": ("bad_tag", "a tag has 1 to 64 small letters, digits or _ -"),
}
_TOO_MANY = ("too_many", f"more than {MAX_LISTED} values")
_SANDBOX_ONLY = ("sandbox_only", "a number for simulators only: not in live mode")
_RESERVED = ("reserved_id", "ids of this form belong to the organisation's public accounts")


def known_ref(written: str) -> bool:
    """Whether this has the form of a recipient's id."""
    return _REF.fullmatch(written) is not None


def known_locale(written: str, allowed: frozenset[str] | None = None) -> str | None:
    """The tag in its usual spelling ("en_us" -> "en-US"), None if nobody speaks it.

    `allowed` are languages or tags; a tag passes by its language. Without it CLDR decides.
    """
    # Long texts are kept out of the cache, which would hold thousands of them.
    return _known_locale(written, allowed) if len(written) <= _MAX_CACHED else None


@functools.lru_cache(maxsize=4096)
def _known_locale(written: str, allowed: frozenset[str] | None) -> str | None:
    match = _LOCALE.fullmatch(written)
    if match is None:
        return None
    language, script, place = match[1].lower(), match[2], match[3]
    tag = "-".join(
        part for part in (language, script and script.title(), place and place.upper()) if part
    )
    if allowed is not None:
        return tag if tag in allowed or language in allowed else None
    cldr = Locale("en")
    known = (
        (language in cldr.languages and language not in ("und", "zxx", "mul", "mis"))
        and (script is None or script.title() in cldr.scripts)
        and (place is None or place.upper() in cldr.territories)
    )
    return tag if known else None


def known_region(written: str) -> str | None:
    """The region code in capitals, None if it is none or its country is not one."""
    return _known_region(written) if len(written) <= _MAX_CACHED else None


@functools.lru_cache(maxsize=4096)
def _known_region(written: str) -> str | None:
    code = written.upper()
    return code if _REGION.fullmatch(code) and country_of(code) is not None else None


def _listed(written: str) -> tuple[str, ...]:
    """The values of a list column, in order, each once."""
    return _values(written) if len(written) <= _MAX_CACHED else _values.__wrapped__(written)


@functools.lru_cache(maxsize=4096)
def _values(written: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(v for v in (part.strip() for part in written.split(";")) if v))


def clean_name(written: str) -> str | None:
    """One line without runs of blanks; None if it is too long or holds what is not seen."""
    name = written if written.isprintable() else " ".join(written.split())
    if len(name) > MAX_NAME_CHARS:
        return None
    if name.isprintable():
        return name
    hidden = any(c in _HIDDEN or unicodedata.category(c) in ("Cc", "Cs", "Co") for c in name)
    return None if hidden else name


class Judge:
    """Says whether a record is a good recipient, and why not."""

    def __init__(self, known: KnownValues) -> None:
        self._known = known

    def plain(self, record: Record) -> Candidate | list[Fault]:
        """Judge all but the contacts. Cheap: an import does it for lines that did not change."""
        ref, name, locale, segment, region, services, tags, *written = map(str.strip, record.fields)
        faults: list[Fault] = []
        good = self.columns(
            {"name": name, "locale": locale, "segment": segment, "region": region}
            | {"services": _listed(services), "tags": _listed(tags)},
            faults,
        )
        if not known_ref(ref):
            faults.insert(0, Fault("id", *(_WRONG["id"] if ref else _MISSING)))
        elif ref.startswith(PUBLIC_REF):
            faults.insert(0, Fault("id", *_RESERVED))
        if faults:
            self.contacts(written, region, faults)
            return faults
        return Candidate(record.line, ref, tuple(written), **good)

    def columns(self, written: Mapping[str, Any], faults: list[Fault]) -> dict[str, Any]:
        """The good spelling of each plain column but the id; what is wrong joins `faults`."""
        good: dict[str, Any] = {}
        for column, value in written.items():
            judged = self._column(column, value)
            if judged is not None:
                good[column] = judged
            elif len(value) > MAX_LISTED and not isinstance(value, str):
                faults.append(Fault(column, *_TOO_MANY))
            else:
                faults.append(Fault(column, *(_WRONG[column] if value else _MISSING)))
        return good

    def _column(self, column: str, value: Any) -> str | tuple[str, ...] | None:
        match column:
            case "name":
                return clean_name(value)
            case "locale":
                return known_locale(value, self._known.locales)
            case "segment":
                return value if value in self._known.segments else None
            case "region":
                return known_region(value)
            case "services":
                return tuple(sorted(value)) if self._known.services.issuperset(value) else None
            case _:
                good = len(value) <= MAX_LISTED and all(map(_TAG.fullmatch, value))
                return tuple(sorted(value)) if good else None

    def contacts(self, written: Sequence[str], region: str, faults: list[Fault]) -> list[Contact]:
        """The contact points of the four columns; one fault for each wrong column."""
        found = []
        for (column, kind), text in zip(CONTACT_COLUMNS, written, strict=True):
            if text:
                found += self.points(column, kind, text.split(";"), region, faults)
        return found

    def points(
        self,
        column: str,
        kind: ContactKind,
        values: Sequence[str],
        region: str,
        faults: list[Fault],
    ) -> list[Contact]:
        """The contact points of one kind; the first wrong one joins `faults`."""
        present = [value for value in values if value.strip()]
        if len(present) > MAX_LISTED:
            faults.append(Fault(column, *_TOO_MANY))
            return []
        found = []
        for value in present:
            try:
                contact = normalise(kind, value, region=region)
            except ContactError as error:
                faults.append(Fault(column, error.code, str(error)))
                return []
            if self._known.live and column == "phone" and is_sandbox_only(contact.address):
                faults.append(Fault(column, *_SANDBOX_ONLY))
                return []
            found.append(contact)
        return found

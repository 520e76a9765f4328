"""What a person typed, and how single numbers and times in it are understood.

Pure. Everything stays as it was typed: nothing is guessed, and what cannot be understood
becomes a sentence for the field as people see it. Knows no incident and no page.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

EARLIEST, LATEST = 2000, 2199
"""Years that a time on a form may lie in."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with a field: its name in the form, as people see it, and why."""

    name: str
    label: str
    reason: str

    @property
    def sentence(self) -> str:
        return f"{self.label}: {self.reason}"


class Typed:
    """A form's values as typed, in order. Never changes."""

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in items:
            self._values.setdefault(name, []).append(value)

    @classmethod
    def of(cls, values: Mapping[str, Iterable[str]]) -> "Typed":
        return cls((name, value) for name, each in values.items() for value in each)

    def raw(self, name: str) -> str:
        """As typed; empty if there is no such field."""
        values = self._values.get(name)
        return values[-1] if values else ""

    def one(self, name: str) -> str:
        """Without spaces around."""
        return self.raw(name).strip()

    def text(self, name: str) -> str:
        """With the line ends that a browser sends made plain."""
        return self.raw(name).replace("\r\n", "\n").replace("\r", "\n").strip()

    def all(self, name: str) -> list[str]:
        """All values that are not empty."""
        return [value for value in self._values.get(name, ()) if value.strip()]

    def has(self, name: str, value: str) -> bool:
        return value in self._values.get(name, ())

    def any(self, prefix: str) -> bool:
        """Whether a field whose name begins so holds anything."""
        return any(name.startswith(prefix) and self.one(name) for name in self._values)

    def names(self) -> tuple[str, ...]:
        return tuple(self._values)

    def items(self) -> Iterator[tuple[str, str]]:
        for name, values in self._values.items():
            for value in values:
                yield name, value

    def having(self, name: str, *values: str) -> "Typed":
        """The same with one field's values replaced."""
        changed = Typed()
        changed._values = {**self._values, name: list(values)}
        return changed

    def without(self, *prefixes: str) -> "Typed":
        """The same without the fields whose names begin so."""
        changed = Typed()
        changed._values = {
            name: each for name, each in self._values.items() if not name.startswith(prefixes)
        }
        return changed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Typed) and self._values == other._values

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        # Names only: a form may hold what must not be logged.
        return f"Typed({', '.join(self._values)})"


_GROUP = re.compile(r"[0-9]{1,3}(?:([ ,'\u00a0\u2009\u202f\u2019])[0-9]{3})(?:\1[0-9]{3})*")
_DIGITS = re.compile(r"[0-9]{1,18}")
_AMOUNT = re.compile(r"(?P<whole>.*?)(?:\.(?P<cents>[0-9]{1,2}))?", re.DOTALL)


def whole_number(text: str) -> int:
    """`73,000`, `73 000` or `73000`. Raises `ValueError` with the reason in words."""
    digits = text.strip()
    if _GROUP.fullmatch(digits):
        digits = re.sub(r"[^0-9]", "", digits)
    if not _DIGITS.fullmatch(digits):
        raise ValueError("write a whole number in digits, such as 73000 or 73,000")
    return int(digits)


def amount(text: str) -> Decimal:
    """`5`, `5.00` or `1,000.50`. Raises `ValueError` with the reason in words."""
    found = _AMOUNT.fullmatch(text.strip())
    try:
        if found is None:
            raise ValueError
        whole = whole_number(found["whole"])
    except ValueError:
        raise ValueError("write an amount such as 5 or 5.00") from None
    return Decimal(f"{whole}.{found['cents']}" if found["cents"] else whole)


def grouped(number: int) -> str:
    """73,000"""
    return f"{number:,}"


_MOMENT = re.compile(
    r"(\d{4})-(\d{1,2})-(\d{1,2})[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?", re.ASCII
)


class TwiceThatNight(ValueError):
    """A local time that happened twice, when clocks were put back."""


def moment(text: str, *, zone: ZoneInfo, fold: str = "") -> datetime:
    """A local time as `datetime-local` writes it, in UTC.

    `fold` is `0` or `1` where clocks were put back and the time happened twice. Raises
    `ValueError` with the reason in words: what is no time, one that never happened because
    clocks were put forward, and `TwiceThatNight` while nobody said which one is meant.
    """
    found = _MOMENT.fullmatch(text.strip())
    if found is None:
        raise ValueError("write date and time like 2026-02-22 03:45")
    year, month, day, hour, minute = (int(found[place]) for place in range(1, 6))
    if not EARLIEST <= year <= LATEST:
        raise ValueError(f"the year must lie between {EARLIEST} and {LATEST}")
    second, part = int(found[6] or 0), int((found[7] or "0").ljust(6, "0"))
    try:
        naive = datetime(year, month, day, hour, minute, second, part)  # noqa: DTZ001 - zoned below
    except ValueError:
        raise ValueError("there is no such day or time") from None
    first, later = (naive.replace(tzinfo=zone, fold=each) for each in (0, 1))
    if first.utcoffset() == later.utcoffset():
        return first.astimezone(UTC)
    if _face(first.astimezone(UTC), zone) != naive:
        raise ValueError(
            f"{naive:%H:%M} did not happen on that day in {zone.key}: clocks were put forward"
        )
    if fold not in ("0", "1"):
        raise TwiceThatNight(
            f"{naive:%H:%M} happened twice on that day, when clocks were put back:"
            f" say whether you mean {first.tzname()} or {later.tzname()}"
        )
    return (later if fold == "1" else first).astimezone(UTC)


def local(at: datetime, *, zone: ZoneInfo) -> tuple[str, str]:
    """A moment as `datetime-local` writes it, with its fold: empty where it happened once."""
    here = at.astimezone(zone)
    exact = "milliseconds" if here.microsecond else "seconds" if here.second else "minutes"
    face = here.replace(tzinfo=None)
    first, later = (face.replace(tzinfo=zone, fold=each) for each in (0, 1))
    twice = first.utcoffset() != later.utcoffset()
    return face.isoformat(timespec=exact), str(here.fold) if twice else ""


def folds(text: str, *, zone: ZoneInfo) -> tuple[str, str] | None:
    """The two zone names of a time that happened twice; None for any other."""
    try:
        first = moment(text, zone=zone, fold="0")
        later = moment(text, zone=zone, fold="1")
    except ValueError:
        return None
    if first == later:
        return None
    return first.astimezone(zone).tzname() or "first", later.astimezone(zone).tzname() or "second"


def _face(at: datetime, zone: ZoneInfo) -> datetime:
    return at.astimezone(zone).replace(tzinfo=None)

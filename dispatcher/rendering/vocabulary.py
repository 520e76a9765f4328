"""A language's words: names of codes, sentence patterns, and how it writes times and numbers.

Owns `vocabulary.<locale>.toml`: its form, its completeness, its complaints. Knows nothing of
which facts stand. A pattern holds `{places}`; what goes in is never read as a pattern again.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time
from babel.numbers import format_currency, format_decimal

from dispatcher.audiences import PRIVATE_USE, PackError, PackProblem, line_of, read_toml
from dispatcher.incidents import (
    AccountClass,
    CauseCode,
    NextStepCode,
    Phase,
    Severity,
    WorkaroundCode,
)

LINES: Mapping[str, str] = {
    # Every sentence that a fact can become, with the places its pattern may have.
    "scope_measured": "count hedge",
    "scope_estimated": "count hedge",
    "scope_reported": "count hedge",
    "hedge_believed": "",
    "hedge_under_review": "",
    "cause_confirmed": "cause",
    "cause_believed": "cause",
    "cause_under_review": "cause",
    "cause_ruled_out": "cause",
    "not_cause_confirmed": "cause",
    "not_cause_believed": "cause",
    "not_cause_under_review": "cause",
    "workaround": "uses",
    "emergency_working": "number",
    "emergency_believed": "number",
    "emergency_limited": "number uses",
    "emergency_not_working": "number uses",
    "emergency_unknown": "number uses",
    "emergency_other_ways": "",
    "eta_confirmed": "when",
    "eta_believed": "when",
    "eta_under_review": "when",
    "restored": "percent hedge",
    "restored_all": "hedge",
    "ended": "when hedge",
    "started": "when hedge",
    "credit": "amount per hedge",
    "credit_automatic": "",
    "credit_automatic_within": "cycles",
    "credit_on_request": "",
    "credit_eligible": "accounts",
    "credit_not_eligible": "accounts",
    "apology": "",
    "apology_to_all": "",
    "next_update": "when",
    "took_back": "claim",
    "took_back_plain": "",
    "unknown_cause": "",
    "unknown_eta": "",
    "unknown_scope": "",
    "drill": "",
}

WHEN: Mapping[str, str] = {
    "since": "time zone",
    "at": "time zone",
    "by": "time zone",
    "plain": "time zone",
    "since_dated": "time zone date",
    "at_dated": "time zone date",
    "by_dated": "time zone date",
    "plain_dated": "time zone date",
    "by_date": "date",
    "between": "from to",
    "duration": "hours minutes",
    "duration_minutes": "minutes",
}

_CODES: Mapping[str, tuple[str, ...]] = {
    "phases": tuple(Phase),
    "severities": tuple(Severity),
    "causes": tuple(CauseCode),
    "workarounds": tuple(WorkaroundCode),
    "uses": tuple(WorkaroundCode),
    "accounts": tuple(AccountClass),
    "next_steps": tuple(NextStepCode),
    "per": ("account", "line", "day"),
    "malicious": (
        "unknown", "under_review", "no_indication", "ruled_out", "suspected", "confirmed",
    ),
    "emergency_status": ("working", "limited", "not_working", "unknown"),
}  # fmt: skip

_PLACES: Mapping[str, Mapping[str, str]] = {
    "lines": LINES,
    "short": LINES,
    "when": WHEN,
    "when_short": WHEN,
    "next_steps": {code.value: "by" for code in NextStepCode},
    "next_steps_short": {code.value: "by" for code in NextStepCode},
    "cycles": dict.fromkeys(("one", "two", "few", "many", "other"), "n"),
    "lists": {
        **dict.fromkeys(("and", "or", "and_before_i", "or_before_o"), "first last"),
        "more": "list n",
        "where": "places",
    },
}
_FORMATS = {"time", "date", "currency", "comma"}
_LISTS = {"and", "or", "more", "where", "everywhere"}
_SHORT = {
    f"{name}_short"
    for name in ("services", "causes", "uses", "when", "regions", "next_steps", "accounts")
}
_FREE = {"services", "regions", "currencies", *_SHORT}
_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The words of one locale. Tables map code to words or to a pattern."""

    locale: str
    babel: str
    direction: str
    tables: Mapping[str, Mapping[str, str]]

    def name(self, table: str, code: str) -> str:
        """The words for a code; the code itself, readable, where the table has none."""
        return self.tables[table].get(code) or code.replace("_", " ")

    def knows(self, table: str, code: str) -> bool:
        return code in self.tables[table]

    def line(self, key: str, *, short: bool = False, **values: str) -> str:
        """A sentence. The short form where asked for and there is one."""
        pattern = self.tables["short"].get(key) if short else None
        return filled(self.tables["lines"][key] if pattern is None else pattern, values)

    def listed(self, names: Sequence[str], *, word: str = "and") -> str:
        """`a, b and c`, as this language joins."""
        if len(names) < 2:
            return "".join(names)
        comma = self.tables["lists"].get(f"{word}_comma") or self.tables["formats"]["comma"]
        lists = self.tables["lists"]
        # Spanish writes "e" before an i and "u" before an o.
        pattern = lists.get(f"{word}_before_{names[-1][:1].lower()}") or lists[word]
        return filled(pattern, {"first": comma.join(names[:-1]), "last": names[-1]})

    def capped(self, names: Sequence[str], *, most: int) -> str:
        """A list that names at most `most` and counts the others."""
        if len(names) <= most:
            return self.listed(names)
        shown = self.tables["formats"]["comma"].join(names[:most])
        return filled(self.tables["lists"]["more"], {"list": shown, "n": str(len(names) - most)})

    def moment(
        self, at: datetime, how: str, *, zone: ZoneInfo, today: date | None, short: bool = False
    ) -> str:
        """A moment in `zone` with its abbreviation; the date only if it is not `today`."""
        local = at.astimezone(zone)
        values = {"time": self.time(local), "zone": zone_name(local)}
        if local.date() != today:
            values["date"] = self.date(local.date())
            how = f"{how}_dated"
        return self.when(how, short=short, **values)

    def when(self, how: str, *, short: bool = False, **values: str) -> str:
        pattern = self.tables["when_short"].get(how) if short else None
        return filled(pattern or self.tables["when"][how], values)

    def time(self, local: datetime) -> str:
        return _time(local.hour, local.minute, self.tables["formats"]["time"], self.babel)

    def date(self, day: date) -> str:
        return _date(day, self.tables["formats"]["date"], self.babel)

    def number(self, value: int) -> str:
        return _plain_spaces(format_decimal(value, locale=self.babel))

    def money(self, amount: Decimal, currency: str, *, short: bool = False) -> str:
        """An amount: with its sign or, if `formats.currency` is `name`, with the full name."""
        style = "symbol" if short else self.tables["formats"]["currency"]
        form = Locale.parse(self.babel).plural_form(amount)
        pattern = self.tables["currencies"].get(f"{currency}_{form}")
        if pattern is not None and style == "name" and amount == amount.to_integral_value():
            return filled(pattern, {"n": self.number(int(amount))})
        return _money(amount, currency, style, self.babel)

    def cycles(self, count: int) -> str:
        table = self.tables["cycles"]
        form = str(Locale.parse(self.babel).plural_form(count))
        return filled(table.get(form) or table["other"], {"n": str(count)})

    def warm(self) -> None:
        """Have Babel read this language's data now: some 20 ms that an update need not wait."""
        noon = datetime(2000, 1, 1, 12)  # noqa: DTZ001 - only a face of the clock
        self.time(noon)
        self.date(noon.date())
        self.money(Decimal(1), "USD")
        self.cycles(1)
        self.territory("US")

    def territory(self, code: str) -> str | None:
        return _territory(code, self.babel)


def filled(pattern: str, values: Mapping[str, str]) -> str:
    """The pattern with its places filled. Raises `KeyError` for a place without a value."""
    return _PLACE.sub(lambda place: values[place[1]], pattern)


def zone_name(local: datetime) -> str:
    """`CST`, `NZST`; `UTC+3` for zones that have no abbreviation."""
    name = local.tzname() or "UTC"
    if name[0] not in "+-":
        return name
    hours, minutes = name[1:3].lstrip("0") or "0", name[3:5]
    return f"UTC{name[0]}{hours}" + (f":{minutes}" if minutes else "")


def _plain_spaces(text: str) -> str:
    # No-break spaces and direction marks would force UCS-2 or cost characters.
    return re.sub("[\u00a0\u202f]", " ", re.sub("[\u200e\u200f\u061c]", "", text))


@lru_cache(maxsize=4096)
def _time(hour: int, minute: int, pattern: str, locale: str) -> str:
    moment = datetime(2000, 1, 1, hour, minute)  # noqa: DTZ001 - only a face of the clock
    return _plain_spaces(format_time(moment.time(), pattern, locale=locale))


@lru_cache(maxsize=4096)
def _date(day: date, pattern: str, locale: str) -> str:
    return _plain_spaces(format_date(day, pattern, locale=locale))


@lru_cache(maxsize=512)
def _money(amount: Decimal, currency: str, style: str, locale: str) -> str:
    whole = amount == amount.to_integral_value()
    shown = amount.to_integral_value() if whole else amount
    if style == "name":
        text = format_currency(
            shown, currency, locale=locale, format_type="name", currency_digits=not whole
        )
    else:
        text = format_currency(amount, currency, locale=locale)
        # Babel writes "5.00" or "5,00" for whole amounts; nobody says so.
        text = re.sub(r"[.,]00(?!\d)", "", text) if whole else text
    return _plain_spaces(text)


@lru_cache(maxsize=1024)
def _territory(code: str, locale: str) -> str | None:
    name = Locale.parse(locale).territories.get(code)
    return None if name is None else str(name)


def load_vocabularies(folders: Iterable[Path]) -> dict[str, Vocabulary]:
    """Every `vocabulary.<locale>.toml`. Raises `PackError` with every gap, by file and line."""
    problems: list[PackProblem] = []
    found: dict[str, Vocabulary] = {}
    for folder in folders:
        for file in sorted(folder.glob("vocabulary.*.toml")):
            locale = file.name.removeprefix("vocabulary.").removesuffix(".toml")
            read = read_toml(file, problems)
            if read is None:
                continue
            gaps = list(_gaps(file, read[0], text=read[1]))
            problems += gaps
            if not gaps:
                found[locale] = _vocabulary(locale, read[0])
    if problems:
        raise PackError(problems)
    return found


def _vocabulary(locale: str, data: Mapping[str, Any]) -> Vocabulary:
    tables = {name: table for name, table in data.items() if isinstance(table, dict)}
    return Vocabulary(locale, data["babel"], data["direction"], {**_empty(), **tables})


def _empty() -> dict[str, Mapping[str, str]]:
    return {name: {} for name in (*_FREE, "short", "cycles")}


def _gaps(file: Path, data: Mapping[str, Any], *, text: str) -> Iterable[PackProblem]:
    def problem(path: Sequence[str], words: str) -> PackProblem:
        return PackProblem(file, line_of(text, path), f"{'.'.join(path)}: {words}")

    try:
        Locale.parse(str(data.get("babel")))
    except (UnknownLocaleError, ValueError):
        yield problem(("babel",), "must name a locale that Babel knows")
    if data.get("direction") not in ("ltr", "rtl"):
        yield problem(("direction",), "must be ltr or rtl")
    wanted: dict[str, Iterable[str]] = {
        **_CODES,
        "lines": LINES,
        "when": WHEN,
        "formats": _FORMATS,
        "lists": _LISTS,
        "cycles": ("other",),
        "services": (),
        "regions": (),
    }
    for name, keys in wanted.items():
        table = data.get(name, {})
        for key in keys:
            if key not in table:
                yield problem((name, key), "is missing")
    for name, table in data.items():
        if not isinstance(table, dict):
            continue
        for key, value in table.items():
            if not isinstance(value, str) or (not value and name != "lines"):
                yield problem((name, key), "must be words in quotes")
                continue
            if PRIVATE_USE.search(value):
                yield problem((name, key), "holds a character of private use")
            if name in _CODES and key not in _CODES[name]:
                yield problem((name, key), "is no code of the dispatcher")
            allowed = _PLACES.get(name, {})
            if name in ("lines", "short", "when", "when_short") and key not in allowed:
                yield problem((name, key), "is no pattern of the dispatcher")
            for place in _PLACE.findall(value):
                if place not in allowed.get(key, "n" if name == "currencies" else "").split():
                    yield problem((name, key), f"has a place {{{place}}} that is never filled")

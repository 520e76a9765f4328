"""From options to the body of a call: what an operator types, as the API wants it.

Knows how facts, texts and times are written on a command line. What they may say is the
API's to judge.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

_RELATIVE = re.compile(r"^([+-])(\d{1,5})([smhd])$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class DraftError(ValueError):
    """An option that cannot be read; the text names it."""


def moment(written: str, option: str, *, now: datetime | None = None) -> str:
    """`now`, `-10m`, `+2h` or ISO 8601 with an offset, as ISO 8601. Raises `DraftError`."""
    present = now or datetime.now(UTC)
    if written == "now":
        return present.isoformat()
    relative = _RELATIVE.match(written)
    if relative:
        sign, count, unit = relative.groups()
        distance = timedelta(**{_UNITS[unit]: int(count)})
        return (present + distance if sign == "+" else present - distance).isoformat()
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        raise DraftError(
            f"{option}: write a time as 2024-02-22T03:10:00-06:00, now, -10m or +2h"
        ) from None
    if at.utcoffset() is None:
        raise DraftError(f"{option}: the time needs its offset, such as Z or -06:00")
    return at.isoformat()


def fact(written: str, *, source: str, known_at: str) -> dict[str, Any]:
    """A fact from `kind=JSON`: its value alone, or an object with `value` and what else it has.

    `source` and `known_at` hold where the JSON names none. Raises `DraftError`.
    """
    kind, separator, text = written.partition("=")
    example = """--fact 'cause={"code":"power"}'"""
    if not separator or not kind:
        raise DraftError(f"--fact: write it as kind=JSON, such as {example}")
    try:
        value = json.loads(text)
    except ValueError:
        raise DraftError(f"--fact {kind}: what follows = is not JSON, such as {example}") from None
    stated = dict(value) if isinstance(value, dict) and "value" in value else {"value": value}
    return {"kind": kind, "source": source, "known_at": known_at, **stated}


def texts(written: Sequence[str]) -> dict[str, dict[str, str]]:
    """Public texts from `slot.locale=words`. Raises `DraftError`."""
    found: dict[str, dict[str, str]] = {}
    for one in written:
        place, separator, words = one.partition("=")
        slot, dot, locale = place.partition(".")
        if not (separator and dot and slot and locale):
            raise DraftError("--text: write it as slot.locale=words, such as note.en=…")
        found.setdefault(slot, {})[locale] = words
    return found


def from_file(file: Path | None) -> dict[str, Any]:
    """The JSON object in a file, `{}` without one. Raises `DraftError`."""
    if file is None:
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DraftError(f"--file: cannot be read ({type(error).__name__})") from None
    except ValueError:
        raise DraftError("--file: is not JSON in UTF-8") from None
    if not isinstance(found, dict):
        raise DraftError("--file: must hold one JSON object")
    return found


@dataclass(frozen=True, slots=True)
class Said:
    """The options that make an update; None or empty is not given."""

    phase: str | None = None
    facts: Sequence[str] = ()
    texts: Sequence[str] = ()
    audiences: Sequence[str] = ()
    next_update: str | None = None
    expires: str | None = None
    withdraws: Sequence[str] = ()
    source: str = "operator"

    def update(self, stands: Mapping[str, Any]) -> dict[str, Any]:
        """What a file holds already, with these options over it. Raises `DraftError`."""
        now = datetime.now(UTC)
        known_at = now.isoformat()
        made = dict(stands)
        if self.phase:
            made["phase"] = self.phase
        stated = [fact(one, source=self.source, known_at=known_at) for one in self.facts]
        if stated:
            kinds = {one["kind"] for one in stated}
            kept = [one for one in made.get("facts", []) if one.get("kind") not in kinds]
            made["facts"] = [*kept, *stated]
        if self.texts:
            made["texts"] = {**made.get("texts", {}), **texts(self.texts)}
        if self.audiences:
            made["audiences"] = list(self.audiences)
        if self.withdraws:
            made["withdraws"] = list(self.withdraws)
        for name, written, option in (
            ("next_update_at", self.next_update, "--next-update"),
            ("expires_at", self.expires, "--expires"),
        ):
            if written:
                made[name] = moment(written, option, now=now)
        return made


@dataclass(frozen=True, slots=True)
class Broken:
    """The options that make an incident; None or empty is not given."""

    title: str | None = None
    summary: str | None = None
    severity: str | None = None
    services: Sequence[str] = ()
    regions: Sequence[str] = ()
    started_at: str | None = None
    drill: bool = False

    def incident(self, stands: Mapping[str, Any]) -> dict[str, Any]:
        """What a file holds already, with these options over it. Raises `DraftError`."""
        made = {name: value for name, value in stands.items() if name != "update"}
        given = {
            "title": self.title,
            "summary": self.summary,
            "severity": self.severity,
            "services": list(self.services),
            "regions": list(self.regions),
            "drill": self.drill,
        }
        made |= {name: value for name, value in given.items() if value}
        if self.started_at or "started_at" not in made:
            made["started_at"] = moment(self.started_at or "now", "--started-at")
        return made

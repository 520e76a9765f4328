"""The form of an incident and of an update: read from what was typed, and filled from values.

Pure: values in, values out; the clock and the zone are given. `read` never raises and never
loses what was typed; `fill` is its reverse. The packs' words (which service, which audience)
are judged by `Updates.judge`, whose complaints `placed` puts beside the fields they are about.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from pydantic import TypeAdapter, ValidationError

from dispatcher.console import fact_forms
from dispatcher.console.fact_forms import Reading, Values, in_words, put_time
from dispatcher.console.typed import FieldError, Typed
from dispatcher.incidents import (
    MAX_SLOT_CHARS,
    NewFact,
    NewIncident,
    NewUpdate,
    Phase,
    PlainText,
    Severity,
    problems_with_times,
)

QUICK: Mapping[str, str] = {"30": "in 30 minutes", "60": "in 1 hour", "120": "in 2 hours"}
"""Times until the next update that are one touch away, in minutes."""
ROUND_TO = timedelta(minutes=5)
"""A quick choice promises a time that people can remember: the next full five minutes."""

LABELS: Mapping[str, str] = {
    "kind": "Real or drill",
    "title": "Title",
    "summary": "Summary",
    "severity": "Severity",
    "services": "Which services",
    "regions": "Where",
    "regions_other": "Where, other regions",
    "everywhere": "Everywhere",
    "started_at": "Since when",
    "zone": "Time zone that people are told",
    "phase": "Phase",
    "audiences": "Who is told",
    "source": "How you know it",
    "known_at": "Known since",
    "next_update": "Next update",
    "next_update_at": "Next update at",
    "expires_at": "Do not send after",
    "withdraws": "What is taken back",
}
SLOTS: Mapping[str, str] = {
    "message": "Message",
    "details": "Details",
    "statement": "Statement",
}

_TEXT: TypeAdapter[str] = TypeAdapter(PlainText)


@dataclass(frozen=True, slots=True)
class Read:
    """What a form says. `incident` and `update` are there only if nothing is wrong.

    `draft` and `about` hold what could be understood so far, to show while somebody types;
    they are never stored.
    """

    typed: Typed
    incident: NewIncident | None
    update: NewUpdate | None
    errors: tuple[FieldError, ...]
    draft: NewUpdate | None
    about: NewIncident | None


def label(name: str) -> str:
    """A field as people see it."""
    if name in LABELS:
        return LABELS[name]
    head, _, rest = name.partition(".")
    if head == "texts":
        slot, _, locale = rest.partition(".")
        said = SLOTS.get(slot, slot)
        return f"{said} in {language(locale)}" if locale else said
    return fact_forms.label(name)


@cache
def language(locale: str) -> str:
    """`ar` is Arabic."""
    try:
        return Locale.parse(locale, sep="-").english_name or locale
    except (UnknownLocaleError, ValueError):
        return locale


def read(
    typed: Typed,
    *,
    zone: ZoneInfo,
    now: datetime,
    opening: bool,
    started_at: datetime | None = None,
) -> Read:
    """What the form says, or all that is wrong with it.

    `opening` is whether the form holds the incident too; `started_at` is when the incident
    began if it does not. Times are understood in `zone`.
    """
    reading = Reading(typed, zone, now.replace(microsecond=0))
    incident, about = _incident(reading) if opening else (None, None)
    if about is not None:
        started_at = about.started_at
    draft = _update(reading, opening=opening)
    if draft is not None and started_at is not None:
        times = problems_with_times(draft, now=now, started_at=started_at)
        for error in placed(times, draft):
            reading.wrong(error.name, error.label, error.reason)
    errors = tuple(sorted(reading.errors, key=_place_of))
    good = not errors
    return Read(typed, incident if good else None, draft if good else None, errors, draft, about)


def placed(errors: Iterable[tuple[str, str]], update: NewUpdate | None) -> list[FieldError]:
    """Complaints of the desk (`update.facts.0.known_at`, `services.1`) beside their fields."""
    found: list[FieldError] = []
    for path, reason in errors:
        steps = path.removeprefix("update.").split(".")
        if steps[0] == "facts" and len(steps) > 1 and steps[1].isdecimal() and update is not None:
            kind = update.facts[int(steps[1])].kind.value
            rest = [step for step in steps[2:] if step != "value"]
            name = f"{kind}.{rest[0]}" if rest else kind
        elif steps[0] == "texts":
            name = ".".join(steps[:3])
        else:
            name = steps[0]
        found.append(FieldError(name, label(name), reason))
    return found


def _place_of(error: FieldError) -> tuple[int, int]:
    """Where a field stands on the page, so that errors are told from the top down."""
    order = [*LABELS]
    head = error.name.split(".")[0]
    if head in order:
        return order.index(head), 0
    titles = [kind.value for kind in fact_forms.TITLES]
    return order.index("audiences"), titles.index(head) if head in titles else len(titles)


def _incident(reading: Reading) -> tuple[NewIncident | None, NewIncident | None]:
    """The incident, whole, and as far as it goes."""
    typed = reading.typed
    before = len(reading.errors)
    for name in ("kind", "title", "severity", "services"):
        if not typed.one(name):
            reason = "write a few words" if name == "title" else "choose one"
            reading.wrong(name, LABELS[name], reason)
    if typed.one("kind") not in ("", "real", "drill"):
        reading.wrong("kind", LABELS["kind"], "is not one of the choices")
    started = reading.time("started_at", LABELS["started_at"])
    if started is None:
        reading.wrong("started_at", LABELS["started_at"], "say when it began")
    elif started > reading.now:
        reading.wrong("started_at", LABELS["started_at"], "must not be in the future")
    fields: dict[str, Any] = {
        "title": typed.one("title"),
        "summary": typed.text("summary"),
        "severity": typed.one("severity"),
        "services": tuple(dict.fromkeys(typed.all("services"))),
        "regions": _regions(reading),
        "started_at": started,
        "zone": typed.one("zone") or None,
        "drill": typed.one("kind") == "drill",
    }
    try:
        incident = NewIncident.model_validate(fields)
    except ValidationError as error:
        for found in error.errors(include_url=False, include_input=False):
            name = str(found["loc"][0])
            reading.wrong(name, LABELS[name], _incident_reason(name, found, fields))
        return None, _so_far(fields, reading.now)
    return (incident, incident) if len(reading.errors) == before else (None, incident)


def _incident_reason(name: str, found: Any, fields: Mapping[str, Any]) -> str:
    if name == "regions":
        wrong = str(fields["regions"][found["loc"][1]]) if len(found["loc"]) > 1 else ""
        return f"{wrong} is not a region code, such as US-TX" if wrong else "too many regions"
    return in_words(found["type"], found["msg"])


def _so_far(fields: Mapping[str, Any], now: datetime) -> NewIncident | None:
    """The incident as far as it can be read, for showing its messages while it is written."""
    guess = {
        **fields,
        "title": (fields["title"] or "Untitled")[:200],
        "summary": "",
        "severity": fields["severity"] if fields["severity"] in [*Severity] else Severity.MAJOR,
        "started_at": fields["started_at"] or now,
        "zone": None,
    }
    try:
        return NewIncident.model_validate(guess)
    except ValidationError:
        return None


def _regions(reading: Reading) -> tuple[str, ...]:
    typed = reading.typed
    others = re.split(r"[\s,;]+", typed.one("regions_other"))
    found = (*typed.all("regions"), *(code.upper() for code in others if code))
    regions = tuple(dict.fromkeys(found))
    everywhere = bool(typed.one("everywhere"))
    if not regions and not everywhere:
        reading.wrong("regions", LABELS["regions"], "choose where, or tick Everywhere")
    if regions and everywhere:
        reading.wrong("regions", LABELS["regions"], "choose regions or Everywhere, not both")
    return regions


def _update(reading: Reading, *, opening: bool) -> NewUpdate | None:
    typed = reading.typed
    begun = all(error.name != "started_at" for error in reading.errors)
    if opening and begun and typed.one("started.same") and not typed.one("started.at"):
        same = typed.having("started.at", typed.raw("started_at"))
        reading.typed = same.having("started.at.fold", typed.raw("started_at.fold"))
    reading.source = typed.one("source")
    reading.known_at = reading.time("known_at", LABELS["known_at"])
    facts = fact_forms.read_facts(reading)
    reading.typed = typed
    if not typed.one("phase"):
        reading.wrong("phase", LABELS["phase"], "choose one")
    if not typed.all("audiences"):
        reading.wrong("audiences", LABELS["audiences"], "choose at least one")
    withdraws = tuple(dict.fromkeys(typed.all("withdraws")))
    if typed.one("phase") == Phase.CORRECTION and not withdraws:
        reason = "a correction takes back at least one fact: tick it"
        reading.wrong("withdraws", LABELS["withdraws"], reason)
    fields: dict[str, Any] = {
        "phase": typed.one("phase"),
        "facts": facts,
        "texts": _texts(reading),
        "next_update_at": _next_update(reading),
        "expires_at": reading.time("expires_at", LABELS["expires_at"]),
        "audiences": tuple(dict.fromkeys(typed.all("audiences"))) or None,
        "withdraws": withdraws,
    }
    return _whole(reading, fields)


def _whole(reading: Reading, fields: dict[str, Any]) -> NewUpdate | None:
    """The update; what the model refuses is noted and left out as far as the rest allows."""
    for _ in range(3):
        try:
            return NewUpdate.model_validate(fields)
        except ValidationError as error:
            for found in error.errors(include_url=False, include_input=False):
                message = found["msg"].removeprefix("Value error, ")
                name = str(found["loc"][0]) if found["loc"] else message.split(":")[0]
                known = name if name in LABELS else "phase"
                reading.wrong(known, label(known), in_words(found["type"], found["msg"]))
                if name in ("withdraws", "phase"):
                    # What a half-written form would say can be shown all the same.
                    fields["phase"] = Phase.INVESTIGATING
                elif name in fields:
                    del fields[name]
    return None


def _texts(reading: Reading) -> dict[str, dict[str, str]]:
    typed = reading.typed
    found: dict[str, dict[str, str]] = {}
    for name in typed.names():
        head, _, rest = name.partition(".")
        slot, _, locale = rest.partition(".")
        text = typed.text(name)
        if head != "texts" or not locale or not text:
            continue
        try:
            found.setdefault(slot, {})[locale] = _TEXT.validate_python(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            reason = in_words(first["type"], first["msg"])
            if first["type"] == "string_too_long":
                reason = f"{len(text):,} characters are too many: at most {MAX_SLOT_CHARS:,}"
            reading.wrong(name, label(name), reason)
    return {slot: texts for slot, texts in found.items() if texts}


def _next_update(reading: Reading) -> datetime | None:
    typed = reading.typed
    choice, own = typed.one("next_update"), typed.one("next_update_at")
    name = "next_update_at" if choice in ("", "at") else "next_update"
    if choice not in ("", "at", "none", *QUICK):
        reading.wrong("next_update", LABELS["next_update"], "is not one of the choices")
    elif choice not in ("", "at") and own:
        said = QUICK.get(choice, "no time")
        reason = f"you chose “{said}” and wrote a time as well: keep one of them"
        reading.wrong(name, LABELS[name], reason)
    elif choice in QUICK:
        return quick(choice, reading.now)
    elif choice == "at" and not own:
        reading.wrong("next_update_at", LABELS["next_update_at"], "write the time")
    return reading.time("next_update_at", LABELS["next_update_at"])


def quick(choice: str, now: datetime) -> datetime:
    """The moment of a quick choice, in whole five minutes."""
    exact = now + timedelta(minutes=int(choice))
    over = timedelta(seconds=exact.timestamp() % ROUND_TO.total_seconds())
    return (exact - over + (ROUND_TO if over else timedelta(0))).astimezone(UTC)


def fill(
    incident: NewIncident | None,
    update: NewUpdate,
    *,
    zone: ZoneInfo,
    audiences: Sequence[str],
) -> Typed:
    """The form that says exactly this. `audiences` are all there are: none named means all."""
    values: Values = {}
    if incident is not None:
        values |= _fill_incident(incident, zone)
    values["phase"] = [update.phase.value]
    values["audiences"] = list(update.audiences or audiences)
    facts = update.facts
    if incident is not None and any(_is_start(fact, incident) for fact in facts):
        values["started.same"] = ["yes"]
    values |= fact_forms.fill_facts(facts, zone=zone)
    if "started.same" in values:
        values.pop("started.at", None)
        values.pop("started.at.fold", None)
    for slot, by_locale in update.texts.items():
        values |= {f"texts.{slot}.{locale}": [text] for locale, text in by_locale.items()}
    values["next_update"] = ["none" if update.next_update_at is None else "at"]
    put_time(values, "next_update_at", update.next_update_at, zone)
    put_time(values, "expires_at", update.expires_at, zone)
    values["withdraws"] = list(update.withdraws)
    return Typed.of({name: each for name, each in values.items() if each})


def _fill_incident(incident: NewIncident, zone: ZoneInfo) -> Values:
    values: Values = {
        "kind": ["drill" if incident.drill else "real"],
        "title": [incident.title],
        "summary": [incident.summary],
        "severity": [incident.severity.value],
        "services": list(incident.services),
        "regions": list(incident.regions),
        "everywhere": [] if incident.regions else ["yes"],
        "zone": [incident.zone or ""],
    }
    put_time(values, "started_at", incident.started_at, zone)
    return values


def _is_start(fact: NewFact, incident: NewIncident) -> bool:
    return fact.kind.value == "started" and getattr(fact.value, "at", None) == incident.started_at

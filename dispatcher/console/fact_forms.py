"""Facts as fields of a form: each kind read from what was typed, and written back to it.

Pure. A fact is stated when its main field is filled, and only then; what belongs to a fact
whose main field is empty is an error, so that nothing typed is dropped in silence. Knows
what a fact may hold from `incidents`, and nothing of pages.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import TypeAdapter, ValidationError

from dispatcher.console.typed import FieldError, Typed, amount, grouped, local, moment, whole_number
from dispatcher.incidents import (
    Apology,
    Cause,
    Compensation,
    Confidence,
    EmergencyCalls,
    Eta,
    FactKind,
    Moment,
    NewFact,
    NextStep,
    Restored,
    Scope,
    Workaround,
)

WAYS = 4
"""Other ways that one fact may name."""

TITLES: Mapping[FactKind, str] = {
    FactKind.EMERGENCY_CALLS: "Emergency calls",
    FactKind.STARTED: "When it began",
    FactKind.SCOPE: "How many are affected",
    FactKind.CAUSE: "Cause",
    FactKind.NOT_CAUSE: "What it is not",
    FactKind.WORKAROUND: "Other ways to get service",
    FactKind.ETA: "When service is expected back",
    FactKind.RESTORED: "How much is back",
    FactKind.ENDED: "When it ended",
    FactKind.APOLOGY: "Apology",
    FactKind.COMPENSATION: "Compensation",
    FactKind.NEXT_STEP: "What you do next",
}
"""The kinds in the order in which a form asks for them."""

MAIN: Mapping[FactKind, str] = {
    FactKind.EMERGENCY_CALLS: "status",
    FactKind.STARTED: "at",
    FactKind.SCOPE: "count",
    FactKind.CAUSE: "code",
    FactKind.NOT_CAUSE: "code",
    FactKind.WORKAROUND: "codes",
    FactKind.ETA: "at",
    FactKind.RESTORED: "percent",
    FactKind.ENDED: "at",
    FactKind.APOLOGY: "to",
    FactKind.COMPENSATION: "amount",
    FactKind.NEXT_STEP: "code",
}
"""The field without which a kind is not stated."""

LABELS: Mapping[str, str] = {
    "emergency_calls.status": "Do emergency calls work",
    "emergency_calls.use": "What to use for emergency calls",
    "started.at": "It began at",
    "scope.count": "How many are affected",
    "scope.basis": "How the number is known",
    "cause.code": "Cause",
    "not_cause.code": "What it is not",
    "workaround.codes": "Other ways to get service",
    "eta.at": "Service expected back",
    "eta.latest": "At the latest",
    "restored.percent": "How much is back, in percent",
    "ended.at": "It ended at",
    "apology.to": "Apology",
    "compensation.amount": "Compensation, amount",
    "compensation.currency": "Compensation, currency",
    "compensation.per": "Compensation, for each",
    "compensation.automatic": "Compensation, how people get it",
    "compensation.within_billing_cycles": "Compensation, within how many bills",
    "compensation.eligible": "Compensation, who gets it",
    "compensation.not_eligible": "Compensation, who does not",
    "next_step.code": "What you do next",
    "next_step.by": "What you do next, by when",
}

_PARTS = {
    "confidence": "how sure you are",
    "source": "how it is known",
    "known_at": "known since",
    "audiences": "only for these audiences",
}
MUST_SAY_HOW_SURE = frozenset({FactKind.CAUSE, FactKind.NOT_CAUSE, FactKind.ETA})
"""Kinds for which no confidence is assumed."""

_DECIDED = frozenset({FactKind.APOLOGY, FactKind.COMPENSATION, FactKind.NEXT_STEP})
_OURS = "our own decision"
"""How we know what nobody has to find out."""

_FACT: TypeAdapter[NewFact] = TypeAdapter(NewFact)
_REASONS = {
    "missing": "must be filled in",
    "greater_than": "must be more than nothing",
    "too_short": "choose at least one",
    "literal_error": "is not one of the choices",
    "enum": "is not one of the choices",
    "decimal_max_digits": "is too large",
    "decimal_whole_digits": "is too large",
}


def label(name: str) -> str:
    """A fact's field as people see it."""
    if name in LABELS:
        return LABELS[name]
    kind, _, part = name.partition(".")
    title = TITLES[FactKind(kind)] if kind in FactKind._value2member_map_ else kind
    return f"{title}, {_PARTS.get(part, part.replace('_', ' '))}" if part else title


@dataclass(slots=True)
class Reading:
    """One pass over a form: where times lie, what holds for all facts, and what went wrong."""

    typed: Typed
    zone: ZoneInfo
    now: datetime
    source: str = ""
    known_at: datetime | None = None
    errors: list[FieldError] = field(default_factory=list)

    def wrong(self, name: str, label: str, reason: str) -> None:
        if all(error.name != name for error in self.errors):
            self.errors.append(FieldError(name, label, reason))

    def time(self, name: str, label: str) -> datetime | None:
        """A time of the form; None if it is empty or wrong, which is then noted."""
        if not self.typed.one(name):
            return None
        try:
            return moment(self.typed.one(name), zone=self.zone, fold=self.typed.one(f"{name}.fold"))
        except ValueError as error:
            self.wrong(name, label, str(error))
            return None

    def number(self, name: str, label: str, read: Callable[[str], Any] = whole_number) -> Any:
        if not self.typed.one(name):
            return None
        try:
            return read(self.typed.one(name))
        except ValueError as error:
            self.wrong(name, label, str(error))
            return None


def read_facts(reading: Reading) -> tuple[NewFact, ...]:
    """Every fact that is stated and could be understood, in the form's order."""
    found = (_read(reading, kind) for kind in TITLES)
    return tuple(fact for fact in found if fact is not None)


def stated(typed: Typed, kind: FactKind) -> bool:
    """Whether the form states this kind."""
    if kind is FactKind.WORKAROUND:
        return any(typed.one(f"workaround.codes.{place}") for place in range(WAYS))
    return bool(typed.all(f"{kind.value}.{MAIN[kind]}"))


def touched(typed: Typed, kind: FactKind) -> bool:
    """Whether anything at all of this kind is filled in, so that its fields must be open."""
    by_itself = _BY_ITSELF if kind in MUST_SAY_HOW_SURE else (*_BY_ITSELF, ".confidence")
    return any(
        typed.one(name)
        for name in typed.names()
        if name.startswith(f"{kind.value}.") and not name.endswith(by_itself)
    )


_BY_ITSELF = (".per", ".currency", ".fold", ".same")
"""Choices that a browser sends although nobody touched them."""


def _read(reading: Reading, kind: FactKind) -> NewFact | None:
    typed, prefix = reading.typed, kind.value
    if not stated(typed, kind):
        if touched(typed, kind):
            main = f"{prefix}.{MAIN[kind]}"
            reason = "fill this in, or empty what else is written for it"
            reading.wrong(main, label(main), reason)
        return None
    before = len(reading.errors)
    value = _READERS[kind](reading, prefix)
    claim = _claim(reading, kind)
    if len(reading.errors) > before:
        return None
    try:
        return _FACT.validate_python({"kind": prefix, "value": value, **claim})
    except ValidationError as error:
        _note(reading, prefix, error)
        return None


def _note(reading: Reading, prefix: str, error: ValidationError) -> None:
    """A model's complaints as sentences of the fields they are about."""
    for found in error.errors(include_url=False, include_input=False):
        path = [str(part) for part in found["loc"] if part not in (prefix, "value")]
        name = f"{prefix}.{path[0]}" if path else f"{prefix}.{MAIN[FactKind(prefix)]}"
        reading.wrong(name, label(name), in_words(found["type"], found["msg"]))


def in_words(kind: str, message: str) -> str:
    """A model's complaint as a person would say it."""
    if kind in _REASONS:
        return _REASONS[kind]
    said = message.removeprefix("Value error, ")
    return said[:1].lower() + said[1:]


def _claim(reading: Reading, kind: FactKind) -> dict[str, Any]:
    """What a fact carries beside its value; what is common to all stands in where it is empty."""
    typed, prefix = reading.typed, kind.value
    confidence = typed.one(f"{prefix}.confidence")
    if not confidence:
        if kind in MUST_SAY_HOW_SURE:
            name = f"{prefix}.confidence"
            reading.wrong(name, label(name), "choose one")
        confidence = Confidence.CONFIRMED.value
    own = _OURS if kind in _DECIDED else ""
    source = typed.one(f"{prefix}.source") or reading.source or own
    if not source:
        name = f"{prefix}.source"
        reason = "say how you know it, here or once for all facts above"
        reading.wrong(name, label(name), reason)
    known = reading.time(f"{prefix}.known_at", label(f"{prefix}.known_at"))
    return {
        "confidence": confidence,
        "source": source,
        "known_at": known or reading.known_at or reading.now,
        "audiences": tuple(typed.all(f"{prefix}.audiences")) or None,
    }


def _moment(reading: Reading, prefix: str) -> Any:
    return {"at": reading.time(f"{prefix}.at", label(f"{prefix}.at"))}


def _scope(reading: Reading, prefix: str) -> Any:
    if not reading.typed.one("scope.basis"):
        reading.wrong("scope.basis", label("scope.basis"), "choose one")
    count = reading.number("scope.count", label("scope.count"))
    return {"count": count, "basis": reading.typed.one("scope.basis")}


def _code(reading: Reading, prefix: str) -> Any:
    return {"code": reading.typed.one(f"{prefix}.code")}


def _ways(typed: Typed, name: str) -> tuple[str, ...]:
    chosen = (typed.one(f"{name}.{place}") for place in range(WAYS))
    return tuple(dict.fromkeys(code for code in chosen if code))


def _workaround(reading: Reading, prefix: str) -> Any:
    return {"codes": _ways(reading.typed, "workaround.codes")}


def _emergency(reading: Reading, prefix: str) -> Any:
    status = reading.typed.one("emergency_calls.status")
    return {"status": status, "use": _ways(reading.typed, "emergency_calls.use")}


def _eta(reading: Reading, prefix: str) -> Any:
    at = reading.time("eta.at", label("eta.at"))
    latest = reading.time("eta.latest", label("eta.latest"))
    if at is not None and latest is not None and latest < at:
        reading.wrong("eta.latest", label("eta.latest"), "must not be before the time expected")
    return {"at": at, "latest": latest}


def _restored(reading: Reading, prefix: str) -> Any:
    text = reading.typed.one("restored.percent").removesuffix("%")
    name = "restored.percent"
    try:
        percent = whole_number(text)
    except ValueError as error:
        reading.wrong(name, label(name), str(error).replace("73000 or 73,000", "40"))
        return {}
    if percent > 100:
        reading.wrong(name, label(name), "must be between 0 and 100")
    return {"percent": percent}


def _compensation(reading: Reading, prefix: str) -> Any:
    typed = reading.typed
    if not typed.one("compensation.automatic"):
        name = "compensation.automatic"
        reading.wrong(name, label(name), "choose one")
    cycles = "compensation.within_billing_cycles"
    eligible = tuple(typed.all("compensation.eligible"))
    not_eligible = tuple(typed.all("compensation.not_eligible"))
    if set(eligible) & set(not_eligible):
        name = "compensation.not_eligible"
        reading.wrong(name, label(name), "the same customers cannot both get it and not get it")
    currency = typed.one("compensation.currency").upper()
    if len(currency) != 3 or not (currency.isascii() and currency.isalpha()):
        name = "compensation.currency"
        reading.wrong(name, label(name), "write three letters, such as USD")
    return {
        "amount": reading.number("compensation.amount", label("compensation.amount"), amount),
        "currency": currency,
        "per": typed.one("compensation.per") or "account",
        "automatic": typed.one("compensation.automatic") == "yes",
        "within_billing_cycles": reading.number(cycles, label(cycles)),
        "eligible": eligible,
        "not_eligible": not_eligible,
    }


def _apology(reading: Reading, prefix: str) -> Any:
    to = reading.typed.one("apology.to")
    if to not in ("all", "affected"):
        reading.wrong("apology.to", label("apology.to"), "is not one of the choices")
    return {"to_all": to == "all"}


def _next_step(reading: Reading, prefix: str) -> Any:
    by = reading.time("next_step.by", label("next_step.by"))
    return {"code": reading.typed.one("next_step.code"), "by": by}


_READERS: Mapping[FactKind, Callable[[Reading, str], Any]] = {
    FactKind.STARTED: _moment,
    FactKind.ENDED: _moment,
    FactKind.SCOPE: _scope,
    FactKind.CAUSE: _code,
    FactKind.NOT_CAUSE: _code,
    FactKind.WORKAROUND: _workaround,
    FactKind.EMERGENCY_CALLS: _emergency,
    FactKind.ETA: _eta,
    FactKind.RESTORED: _restored,
    FactKind.COMPENSATION: _compensation,
    FactKind.APOLOGY: _apology,
    FactKind.NEXT_STEP: _next_step,
}


Values = dict[str, list[str]]


def put_time(values: Values, name: str, at: datetime | None, zone: ZoneInfo) -> None:
    """A time as its field holds it, with the choice where it happened twice."""
    if at is None:
        return
    face, fold = local(at, zone=zone)
    values[name] = [face]
    if fold:
        values[f"{name}.fold"] = [fold]


def fill_facts(facts: Sequence[NewFact], *, zone: ZoneInfo) -> Values:
    """The form that states these facts. What all of them share is written once, for all."""
    values: Values = {}
    sources = {fact.source for fact in facts}
    moments = {fact.known_at for fact in facts}
    if len(sources) == 1:
        values["source"] = list(sources)
    if len(moments) == 1:
        put_time(values, "known_at", next(iter(moments)), zone)
    for fact in facts:
        prefix = fact.kind.value
        _fill_value(values, prefix, fact.value, zone)
        values[f"{prefix}.confidence"] = [fact.confidence.value]
        if len(sources) > 1:
            values[f"{prefix}.source"] = [fact.source]
        if len(moments) > 1:
            put_time(values, f"{prefix}.known_at", fact.known_at, zone)
        if fact.audiences is not None:
            values[f"{prefix}.audiences"] = list(fact.audiences)
    return values


def _fill_value(values: Values, prefix: str, value: object, zone: ZoneInfo) -> None:
    match value:
        case Moment():
            put_time(values, f"{prefix}.at", value.at, zone)
        case Scope():
            values |= {"scope.count": [grouped(value.count)], "scope.basis": [value.basis]}
        case Cause():
            values[f"{prefix}.code"] = [value.code.value]
        case Workaround():
            _fill_ways(values, "workaround.codes", value.codes)
        case EmergencyCalls():
            values["emergency_calls.status"] = [value.status]
            _fill_ways(values, "emergency_calls.use", value.use)
        case Eta():
            put_time(values, "eta.at", value.at, zone)
            put_time(values, "eta.latest", value.latest, zone)
        case Restored():
            values["restored.percent"] = [str(value.percent)]
        case Compensation():
            _fill_compensation(values, value)
        case Apology():
            values["apology.to"] = ["all" if value.to_all else "affected"]
        case NextStep():
            values["next_step.code"] = [value.code.value]
            put_time(values, "next_step.by", value.by, zone)


def _fill_ways(values: Values, name: str, codes: Sequence[str]) -> None:
    for place, code in enumerate(codes):
        values[f"{name}.{place}"] = [str(code)]


def _fill_compensation(values: Values, value: Compensation) -> None:
    values |= {
        "compensation.amount": [f"{value.amount:f}"],
        "compensation.currency": [value.currency],
        "compensation.per": [value.per],
        "compensation.automatic": ["yes" if value.automatic else "no"],
        "compensation.eligible": [each.value for each in value.eligible],
        "compensation.not_eligible": [each.value for each in value.not_eligible],
    }
    if value.within_billing_cycles is not None:
        values["compensation.within_billing_cycles"] = [str(value.within_billing_cycles)]

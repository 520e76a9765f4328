"""Real incidents as timelines: what was known when, and what should have been said to whom.

Owns the form of `scenarios/*.toml`, its validation and the moving of a timeline in time.
Facts are judged by `dispatcher.incidents`, so a scenario states nothing that the API would
refuse. Must not know how an update is sent.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from dispatcher.incidents import (
    EndedFact,
    NewFact,
    NewIncident,
    NewUpdate,
    Phase,
    StartedFact,
    problems_with_times,
)

SCENARIOS = Path(__file__).parent / "scenarios"


class ScenarioError(ValueError):
    """A scenario file that cannot be used; the message names the file, the step and the reason."""


@dataclass(frozen=True, slots=True)
class StatedFact:
    """A fact of a step. `ref` names it within the scenario, where the ledger gives an id."""

    ref: str
    fact: NewFact


@dataclass(frozen=True, slots=True)
class Step:
    """One update of the timeline: when it is said, and to whom.

    `event` is for the reader of the scenario and never sent. `withdraws` names refs of
    facts of earlier steps.
    """

    at: datetime
    phase: Phase
    event: str
    facts: tuple[StatedFact, ...]
    audiences: tuple[str, ...]
    withdraws: tuple[str, ...] = ()
    next_update_at: datetime | None = None
    expires_at: datetime | None = None
    texts: Mapping[str, Mapping[str, str]] | None = None

    def update(self, fact_ids: Mapping[str, str] | None = None) -> NewUpdate:
        """The update as it is put to the API.

        `fact_ids` maps the refs of earlier facts to the ledger's ids; without it the refs
        themselves stand in `withdraws`. Raises `KeyError` for a ref that it lacks.
        """
        withdraws = self.withdraws
        if fact_ids is not None:
            withdraws = tuple(fact_ids[ref] for ref in withdraws)
        return NewUpdate(
            phase=self.phase,
            facts=tuple(stated.fact for stated in self.facts),
            texts={slot: dict(by_locale) for slot, by_locale in (self.texts or {}).items()},
            next_update_at=self.next_update_at,
            expires_at=self.expires_at,
            audiences=self.audiences,
            withdraws=withdraws,
        )

    def states(self) -> Sequence[tuple[str, str, Sequence[str] | None]]:
        """Each fact stated: its ref, its kind, the audiences it is for (None: all)."""
        return [(s.ref, s.fact.kind.value, s.fact.audiences) for s in self.facts]


@dataclass(frozen=True, slots=True)
class Scenario:
    """An incident and its updates in order. `country` says whose directory it is played to.

    `overlay` is a folder of the scenario's own organisation and audiences, if it brings any.
    """

    name: str
    country: str
    incident: NewIncident
    steps: tuple[Step, ...]
    sources: tuple[str, ...]
    overlay: Path | None = None

    @property
    def services(self) -> tuple[str, ...]:
        return self.incident.services

    @property
    def regions(self) -> tuple[str, ...]:
        return self.incident.regions


def names() -> tuple[str, ...]:
    """The scenarios there are, in alphabetical order."""
    return tuple(sorted(path.stem for path in SCENARIOS.glob("*.toml")))


def load(name: str) -> Scenario:
    """The scenario of this name, with its original times.

    Raises `ScenarioError` for an unknown name and for a file that is wrong in itself.
    """
    if name not in names():
        raise ScenarioError(f"no scenario {name!r}: there are {', '.join(names())}")
    return read(SCENARIOS / f"{name}.toml")


def read(path: Path) -> Scenario:
    """The scenario in a TOML file. Raises `ScenarioError`."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ScenarioError(f"{path.name}: {error}") from error
    overlay = path.with_suffix("")
    place = "incident"
    try:
        incident = NewIncident.model_validate(data["incident"])
        steps: list[Step] = []
        for number, step in enumerate(data["steps"], start=1):
            place = f"step {number}"
            steps.append(_step(step))
        place = "scenario"
        scenario = Scenario(
            name=data["name"],
            country=data["country"],
            incident=incident,
            steps=tuple(steps),
            sources=tuple(data["sources"]),
            overlay=overlay if overlay.is_dir() else None,
        )
    except KeyError as error:
        raise ScenarioError(f"{path.name}: {place}: {error} is missing") from error
    except (ValidationError, TypeError, ValueError) as error:
        raise ScenarioError(f"{path.name}: {place}: {error}") from error
    problem = next(iter(_problems(scenario)), None)
    if problem is not None:
        raise ScenarioError(f"{path.name}: {problem}")
    return scenario


def rebase(scenario: Scenario, start: datetime) -> Scenario:
    """The same timeline with its first update at `start`; every distance in time is kept.

    The incident therefore starts a little before `start`, as it did. Raises `ValueError`
    for a naive `start`.
    """
    if start.utcoffset() is None:
        raise ValueError("start must be aware")
    by = start - scenario.steps[0].at
    return replace(
        scenario,
        incident=scenario.incident.model_copy(
            update={"started_at": scenario.incident.started_at + by}
        ),
        steps=tuple(_moved(step, by) for step in scenario.steps),
    )


def told_at(scenario: Scenario, step: Step, now: datetime) -> Step:
    """The step as it is said at `now` when the waits between steps are cut short.

    What was known stays as old as it was when it was said, and what is promised stays as
    far ahead, so nothing lies in the future that has happened and nothing promised is past.
    The incident's start stays where the (rebased) scenario has it, and its end after that.
    """
    moved = _moved(step, now - step.at)
    started_at = scenario.incident.started_at.astimezone(UTC)
    facts = tuple(_anchored(stated, started_at, now) for stated in moved.facts)
    return replace(moved, facts=facts)


def _anchored(stated: StatedFact, started_at: datetime, now: datetime) -> StatedFact:
    fact = stated.fact
    if isinstance(fact, StartedFact):
        at = min(started_at, now)
    elif isinstance(fact, EndedFact):
        at = min(max(fact.value.at, started_at), now)
    else:
        return stated
    return replace(
        stated, fact=fact.model_copy(update={"value": fact.value.model_copy(update={"at": at})})
    )


_FACT: TypeAdapter[NewFact] = TypeAdapter(NewFact)
_STEP_KEYS = {
    *("at", "phase", "event", "facts", "audiences", "withdraws"),
    *("next_update_at", "expires_at", "texts"),
}


def _step(data: Mapping[str, Any]) -> Step:
    if unknown := set(data) - _STEP_KEYS:
        raise ValueError(f"unknown keys {sorted(unknown)}")
    facts = []
    for fact in data.get("facts", ()):
        stated = {key: value for key, value in fact.items() if key != "ref"}
        facts.append(StatedFact(fact["ref"], _FACT.validate_python(stated)))
    step = Step(
        at=data["at"],
        phase=Phase(data["phase"]),
        event=data["event"],
        facts=tuple(facts),
        audiences=tuple(data["audiences"]),
        withdraws=tuple(data.get("withdraws", ())),
        next_update_at=data.get("next_update_at"),
        expires_at=data.get("expires_at"),
        texts=data.get("texts"),
    )
    if step.at.utcoffset() is None:
        raise ValueError("at needs an offset from UTC")
    step.update()
    return step


def _moved(step: Step, by: timedelta) -> Step:
    return replace(
        step,
        at=step.at + by,
        facts=tuple(
            replace(stated, fact=_FACT.validate_python(_shifted(stated.fact.model_dump(), by)))
            for stated in step.facts
        ),
        next_update_at=step.next_update_at and step.next_update_at + by,
        expires_at=step.expires_at and step.expires_at + by,
    )


def _shifted(value: object, by: timedelta) -> object:
    match value:
        case datetime():
            return value + by
        case dict():
            return {key: _shifted(inner, by) for key, inner in value.items()}
        case _:
            return value


def _problems(scenario: Scenario) -> Sequence[str]:
    """What no single step can show: order, knowledge before its time, facts not stated yet."""
    found: list[str] = []
    incident = scenario.incident
    if not scenario.steps:
        return ["a scenario needs at least one step"]
    if scenario.steps[0].at < incident.started_at:
        found.append("step 1: before the incident starts")
    stated: set[str] = set()
    for number, step in enumerate(scenario.steps, start=1):
        place = f"step {number}"
        if number > 1 and step.at <= scenario.steps[number - 2].at:
            found.append(f"{place}: not after the step before it")
        times = problems_with_times(step.update(), now=step.at, started_at=incident.started_at)
        found += [f"{place}: {field} {reason}" for field, reason in times]
        found += [
            f"{place}: withdraws {ref!r}, which no earlier step states"
            for ref in step.withdraws
            if ref not in stated
        ]
        for one in step.facts:
            if one.ref in stated:
                found.append(f"{place}: ref {one.ref!r} is used twice")
            stated.add(one.ref)
            if not set(one.fact.audiences or step.audiences) & set(step.audiences):
                found.append(f"{place}: {one.ref!r} is for nobody who is told here")
    return found

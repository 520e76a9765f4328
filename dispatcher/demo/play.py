"""A scenario played through the real HTTP interface, each step when the one before is told.

Knows the calls and the order of a communications desk: preview, open or update, a second
key's approval where the audience's rule wants it, release, and watching. Must not know the
engine.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dispatcher.commands.client import ApiError, Client
from dispatcher.demo.scenario import Scenario, Step, rebase, told_at
from dispatcher.demo.screen import Screen, rate

WATCH_EVERY = 0.25
TITLE_CHARS = 46
PATIENCE = 30.0
"""Seconds that the API may be away, or a settled ledger unbalanced, before that is a failure."""


class TooLate(Exception):
    """The time given for the whole run is over."""


@dataclass(slots=True)
class Told:
    """One update as it went. `progress` is the API's own last word on it."""

    number: int
    phase: str
    reference: str
    incident_id: str
    update_id: str
    audiences: tuple[str, ...]
    approved: tuple[str, ...]
    released_at: datetime
    seconds: float = 0.0
    seconds_to_last_accept: float | None = None
    progress: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The progress document with what the demo knows besides."""
        return {
            "number": self.number,
            "id": self.update_id,
            "reference": self.reference,
            "phase": self.phase,
            "audiences": list(self.audiences),
            "approved": list(self.approved),
            "seconds": round(self.seconds, 2),
            "seconds_to_last_accept": self.seconds_to_last_accept,
            **self.progress,
        }


class Player:
    """Plays one scenario. `deadline` is on the monotonic clock, None for no end."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        operator: Client,
        approver: Client,
        screen: Screen,
        deadline: float | None,
    ) -> None:
        # The incident started a little before its first update, as it did.
        self._scenario = rebase(scenario, datetime.now(UTC))
        self._operator = operator
        self._approver = approver
        self._screen = screen
        self._deadline = deadline
        self._incident = ""
        self._fact_ids: dict[str, str] = {}
        self._pause = threading.Event()  # never set: paces the watching

    def play(self) -> list[Told]:
        """Every step in order. Raises `ApiError`, `TooLate`."""
        count = len(self._scenario.steps)
        return [
            self._tell(number, count, step)
            for number, step in enumerate(self._scenario.steps, start=1)
        ]

    def _tell(self, number: int, count: int, step: Step) -> Told:
        step = told_at(self._scenario, step, datetime.now(UTC))
        self._screen.work(f"{number:2}/{count} {_short(step.event)}", None)
        update = step.update(self._fact_ids).model_dump(mode="json")
        if self._incident:
            path = f"/v1/incidents/{self._incident}/updates"
            body = {"update": update, "release": "now"}
        else:
            path = "/v1/incidents"
            incident = self._scenario.incident.model_dump(mode="json")
            body = {**incident, "update": update, "release": "now"}
        made = self._call(lambda: self._operator.post(path, body, key=f"demo-step-{number}"))
        self._incident = made["id"]
        approved = tuple(made["update"]["held"])
        if approved:
            self._approve(number, made["update"], approved)
        whole = self._call(lambda: self._operator.get(f"/v1/incidents/{self._incident}"))
        self._learn_facts(step, whole, made["update"]["id"])
        told = Told(
            number=number,
            phase=step.phase.value,
            reference=made["reference"],
            incident_id=made["id"],
            update_id=made["update"]["id"],
            audiences=step.audiences,
            approved=approved,
            released_at=_released_at(whole, made["update"]["id"]),
        )
        self._watch(told)
        return told

    def _approve(self, number: int, update: Mapping[str, Any], held: tuple[str, ...]) -> None:
        self._screen.moved(0, None, f"approved by a second key: {', '.join(held)}")
        path = f"/v1/updates/{update['id']}"
        body = {"content_hash": update["content_hash"], "audiences": list(held)}
        self._call(
            lambda: self._approver.post(f"{path}/approve", body, key=f"demo-approve-{number}")
        )

    def _learn_facts(self, step: Step, whole: Mapping[str, Any], update_id: str) -> None:
        """The ledger's ids of what this step stated: in the order stated."""
        own = [fact["id"] for fact in whole["facts"] if fact["update_id"] == update_id]
        for stated, fact_id in zip(step.facts, own, strict=True):
            self._fact_ids[stated.ref] = fact_id

    def _watch(self, told: Told) -> None:
        path = f"/v1/updates/{told.update_id}/progress"
        settled_at: float | None = None
        while True:
            numbers = self._call(lambda: self._operator.get(path))
            now = time.monotonic()
            waited = (datetime.now(UTC) - told.released_at).total_seconds()
            moving = sum(numbers["by_state"][state] for state in ("pending", "sending"))
            self._screen.moved(
                numbers["planned"] - moving, numbers["planned"] or None, rate(numbers, waited)
            )
            if numbers["settled"] and settled_at is None:
                settled_at = now
            if numbers["complete"] or (settled_at is not None and now - settled_at > PATIENCE):
                break
            self._pace()
        told.progress = numbers
        told.seconds = waited
        last = numbers["last_accepted_at"]
        if last is not None:
            at = datetime.fromisoformat(last)
            told.seconds_to_last_accept = round((at - told.released_at).total_seconds(), 2)
        self._screen.done(_summary(told))

    def _pace(self) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline:
            raise TooLate("the demo did not finish within its time")
        self._pause.wait(WATCH_EVERY)

    def _call(self, call: Callable[[], Any]) -> Any:
        """A call, again while the API or its database is away. Posts carry a key: no harm."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return call()
            except ApiError as error:
                away = not error.problem or error.problem.get("status", 0) >= 500
                if not away or time.monotonic() > until:
                    raise
            self._pace()


def _short(event: str) -> str:
    """An event in the width of a line of the screen."""
    return event if len(event) <= TITLE_CHARS else event[: TITLE_CHARS - 1].rstrip(" ,;:") + "…"


def _released_at(whole: Mapping[str, Any], update_id: str) -> datetime:
    """When the first audience of an update was released, by the ledger's clock."""
    update = next(u for u in whole["updates"] if u["id"] == update_id)
    at = [a["released_at"] for a in update["audiences"] if a["released_at"]]
    return datetime.fromisoformat(min(at))


def _summary(told: Told) -> str:
    by_state = told.progress["by_state"]
    word = "complete" if told.progress["complete"] else "NOT complete"
    doubt = f", {by_state['unknown']:,} in doubt" if by_state["unknown"] else ""
    accepted = by_state["accepted"] + by_state["delivered"]
    return f"{accepted:,} accepted{doubt}, {word} in {told.seconds:.1f} s"


def span(told: list[Told]) -> float | None:
    """Seconds from the first release to the last acceptance of all."""
    last = max(
        (u.released_at + timedelta(seconds=u.seconds_to_last_accept or 0.0) for u in told),
        default=None,
    )
    return None if last is None else round((last - told[0].released_at).total_seconds(), 2)

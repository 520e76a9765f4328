"""What the calls answer: the interface's own words, fixed apart from what the ledger holds."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from channels.contract import Problem
from dispatcher.acts import Outcome
from dispatcher.incidents import Incident, NewFact, Phase, Severity
from dispatcher.ledger.counting import State
from dispatcher.previews import Preview


class Warned(BaseModel):
    """A problem with a message. An `error` refuses submission, a `warning` is only shown."""

    where: str = Field(description="audience/channel/locale")
    severity: str
    code: str
    part: str
    message: str

    @classmethod
    def of(cls, where: str, problem: Problem) -> "Warned":
        return cls(
            where=where,
            severity=problem.severity.value,
            code=problem.code,
            part=problem.part,
            message=problem.message,
        )


class UpdateMade(BaseModel):
    """An update as stored: what went out at once and what waits."""

    id: str
    content_hash: str | None = Field(description="Null while it is a draft.")
    released: list[str]
    held: list[str] = Field(description="Audiences that wait for submission or approval.")
    warnings: list[Warned] = []


class Opened(BaseModel):
    """The incident, and the update just made."""

    id: str
    reference: str
    update: UpdateMade

    @classmethod
    def of(cls, outcome: Outcome) -> "Opened":
        return cls(
            id=outcome.incident.id,
            reference=outcome.incident.reference,
            update=UpdateMade(
                id=outcome.update_id,
                content_hash=outcome.content_hash,
                released=list(outcome.released),
                held=list(outcome.held),
                warnings=[Warned.of(*found) for found in outcome.warnings],
            ),
        )


class IncidentShown(BaseModel):
    """An incident."""

    id: str
    reference: str
    title: str
    summary: str
    severity: Severity
    services: tuple[str, ...]
    regions: tuple[str, ...]
    started_at: datetime
    zone: str | None
    drill: bool
    status: str
    created_at: datetime
    resolved_at: datetime | None

    @classmethod
    def of(cls, incident: Incident) -> "IncidentShown":
        return cls(reference=incident.reference, **incident.model_dump(exclude={"number"}))


class ReleaseShown(BaseModel):
    """Where one audience of an update stands, and who let it."""

    audience: str
    lane: str
    state: str
    preapproved: bool
    approved_by: str | None
    approved_at: datetime | None
    released_by: str | None
    released_at: datetime | None
    planned_at: datetime | None
    stopped_by: str | None
    stopped_at: datetime | None
    reason: str


class UpdateShown(BaseModel):
    """An update with its release per audience."""

    id: str
    phase: Phase
    content_hash: str | None
    texts: dict[str, dict[str, str]]
    next_update_at: datetime | None
    expires_at: datetime | None
    withdraws: list[str]
    author: str
    created_at: datetime
    submitted_at: datetime | None
    withdrawn_at: datetime | None
    audiences: list[ReleaseShown]


class FactShown(BaseModel):
    """A fact; `withdrawn_by` names the update that took it back."""

    id: str
    update_id: str
    stated: NewFact
    withdrawn_by: str | None


class Act(BaseModel):
    """One row of the audit log."""

    at: datetime
    actor: str
    act: str
    update_id: str | None
    detail: dict[str, Any]


class IncidentWhole(IncidentShown):
    """An incident with all that was said of it and done about it."""

    updates: list[UpdateShown]
    facts: list[FactShown]
    timeline: list[Act]


class IncidentPage(BaseModel):
    """Incidents, newest first. `next` is the cursor of the next page, null on the last."""

    incidents: list[IncidentShown]
    next: str | None


class UpdateStanding(BaseModel):
    """An update after an act upon it."""

    id: str
    incident_id: str
    reference: str
    content_hash: str | None
    released: list[str] = Field(description="Audiences that this act let go.")
    held: list[str] = Field(description="Audiences that wait for submission, approval or release.")
    audiences: dict[str, str] = Field(description="Each audience's state.")
    warnings: list[Warned] = []


class UpdateStopped(UpdateStanding):
    """What a stop saved, of what was planned by then, and what had left before it.

    People whom planning has not reached yet are stopped too; `progress` counts them.
    """

    stopped: list[str]
    saved: int
    left: int


class UpdateResumed(UpdateStanding):
    """Which audiences go on."""

    resumed: list[str]


class PreviewMessageShown(BaseModel):
    """One message, as its receivers would get it."""

    audience: str
    channel: str
    locale: str
    parts: Mapping[str, str]
    problems: list[Warned]
    size: int = Field(description="In the provider's unit for one receiver, such as SMS segments.")
    recipients: int
    cost: float = Field(description="At list price, for all of its receivers.")
    eta_seconds: float = Field(description="Until the last of them has left.")


class ReachShown(BaseModel):
    """How many people an audience has in this incident, and how they are reached."""

    people: int
    reached: int
    by_channel: Mapping[str, int]


class PreviewShown(BaseModel):
    """What would be sent, to whom, and what it costs. Nothing is stored."""

    messages: list[PreviewMessageShown]
    reach: dict[str, ReachShown]
    not_reachable: Mapping[str, int] = Field(description="People not reached, by reason.")
    content_hash: str

    @classmethod
    def of(cls, preview: Preview) -> "PreviewShown":
        return cls(
            messages=[
                PreviewMessageShown(
                    audience=m.audience,
                    channel=m.channel,
                    locale=m.locale,
                    parts=m.parts,
                    problems=[
                        Warned.of(f"{m.audience}/{m.channel}/{m.locale}", p) for p in m.problems
                    ],
                    size=m.size,
                    recipients=m.recipients,
                    cost=m.cost,
                    eta_seconds=m.eta_seconds,
                )
                for m in preview.messages
            ],
            reach={
                name: ReachShown(people=r.people, reached=r.reached, by_channel=r.by_channel)
                for name, r in preview.reach.items()
            },
            not_reachable=preview.not_reachable,
            content_hash=preview.content_hash,
        )


class DeliveryShown(BaseModel):
    """One update to one contact point. `hint` shows a trace of the address, never all of it."""

    id: str
    recipient: str | None
    audience: str
    channel: str
    state: State
    reason: str
    hint: str | None
    attempts: int
    adapter: str
    changed_at: datetime
    accepted_at: datetime | None
    next_attempt_at: datetime | None
    ref: str | None


class DeliveryPage(BaseModel):
    """Deliveries in order of id. `next` is the cursor of the next page, null on the last."""

    deliveries: list[DeliveryShown]
    next: str | None

"""Calls on incidents: open, update, reopen, list, show."""

from collections.abc import Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Body, Depends, Query, Response

from dispatcher.acts import find_incident, incident_id
from dispatcher.http.answers import (
    Act,
    FactShown,
    IncidentPage,
    IncidentShown,
    IncidentWhole,
    Opened,
    ReleaseShown,
    UpdateShown,
)
from dispatcher.http.desk import Call, Desk, Reader, acting
from dispatcher.http.guard import JsonRoute
from dispatcher.http.requests import Addition, Nothing, Opening
from dispatcher.ledger import audit, incidents, updates
from dispatcher.ledger.connection import Connection, Transaction
from dispatcher.ledger.updates import UpdateRow
from dispatcher.security.rights import Scope

router = APIRouter(prefix="/v1", tags=["incidents"], route_class=JsonRoute)

Writer = Annotated[Call, Depends(acting(Scope.INCIDENTS_WRITE))]


def _at_incident(body: Mapping[str, str]) -> str:
    return f"/v1/incidents/{body['id']}"


@router.post("/incidents", status_code=201, response_model=Opened)
def open_incident(body: Opening, call: Writer) -> Response:
    """Open an incident with its first update.

    The update is rendered and stored at once. With `release: now` every audience whose rule
    pre-approves this phase is released; the others are `held` for approval.
    """

    def work(transaction: Transaction) -> Opened:
        outcome = call.services.updates.open(
            transaction,
            body.incident(),
            body.update,
            release=body.release,
            actor=call.actor,
            force=body.force,
        )
        return Opened.of(outcome)

    return call.once(work, status=201, location=_at_incident)


@router.post("/incidents/{incident}/updates", status_code=201, response_model=Opened)
def add_update(incident: str, body: Addition, call: Writer) -> Response:
    """Add an update to an incident: open, or for a follow-up or correction also resolved."""

    def work(transaction: Transaction) -> Opened:
        outcome = call.services.updates.add(
            transaction,
            incident_id(incident),
            body.update,
            release=body.release,
            actor=call.actor,
        )
        return Opened.of(outcome)

    return call.once(work, status=201, location=_at_incident)


@router.post("/incidents/{incident}/reopen", response_model=IncidentShown)
def reopen_incident(
    incident: str, call: Writer, body: Annotated[Nothing | None, Body()] = None
) -> Response:
    """Take a resolved incident back to open."""

    def work(transaction: Transaction) -> IncidentShown:
        reopened = call.services.updates.reopen(
            transaction, incident_id(incident), actor=call.actor
        )
        return IncidentShown.of(reopened)

    return call.once(work)


@router.get("/incidents")
def list_incidents(
    services: Desk,
    actor: Reader,
    status: Literal["open", "resolved"] | None = None,
    cursor: Annotated[int | None, Query(ge=1, le=2**62, description="`next` of a page.")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> IncidentPage:
    """Incidents, newest first."""
    with services.ledger.read() as conn:
        found = incidents.listed(conn, status=status, before=cursor, limit=limit)
    more = str(found[-1].number) if len(found) == limit else None
    return IncidentPage(incidents=[IncidentShown.of(incident) for incident in found], next=more)


@router.get("/incidents/{incident}")
def get_incident(incident: str, services: Desk, actor: Reader) -> IncidentWhole:
    """An incident, by id or reference, with its updates, facts and timeline."""
    with services.ledger.read() as conn:
        found = find_incident(conn, incident_id(incident))
        return IncidentWhole(
            **IncidentShown.of(found).model_dump(),
            updates=[_shown(conn, row) for row in updates.of_incident(conn, found.id)],
            facts=[
                FactShown.model_validate(fact.model_dump())
                for fact in incidents.facts(conn, found.id)
            ],
            timeline=[Act.model_validate(act) for act in audit.timeline(conn, found.id)],
        )


def _shown(conn: Connection, row: UpdateRow) -> UpdateShown:
    audiences = [
        ReleaseShown.model_validate(release, from_attributes=True)
        for release in updates.releases(conn, row.id)
    ]
    names = set(UpdateShown.model_fields) - {"audiences"}
    return UpdateShown(**{name: getattr(row, name) for name in names}, audiences=audiences)

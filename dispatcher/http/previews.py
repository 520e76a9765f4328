"""The preview call: what would be sent, before anything is stored."""

from typing import Annotated

from fastapi import APIRouter, Depends

from dispatcher.acts import Invalid, find_incident, incident_id
from dispatcher.http.answers import PreviewShown
from dispatcher.http.desk import Desk, holding
from dispatcher.http.guard import JsonRoute
from dispatcher.http.requests import PreviewBody, PreviewUpdate
from dispatcher.ledger import incidents
from dispatcher.security.rights import Actor, Scope
from dispatcher.wiring import Services

router = APIRouter(prefix="/v1", tags=["incidents"], route_class=JsonRoute)


@router.post("/previews")
def preview(
    body: PreviewBody,
    services: Desk,
    actor: Annotated[Actor, Depends(holding(Scope.PREVIEW))],
) -> PreviewShown:
    """What would be sent, to how many, at what cost and by when.

    Takes the body of either call: that of a new incident, or that of an update together
    with the `incident_id` it is for. Judges it by the same rules, and stores nothing.
    """
    if isinstance(body, PreviewUpdate):
        return _addition(services, body, actor)
    about = body.incident()
    services.updates.judge(about, body.update)
    if body.update.withdraws:
        raise Invalid([("update.withdraws", "a new incident has no facts to withdraw")])
    return PreviewShown.of(services.previews.preview(about, None, body.update, actor=actor))


def _addition(services: Services, body: PreviewUpdate, actor: Actor) -> PreviewShown:
    with services.ledger.read() as conn:
        incident = find_incident(conn, incident_id(body.incident_id))
        known = {fact.id: fact for fact in incidents.standing(conn, incident.id)}
    services.updates.judge(incident, body.update)
    for fact_id in body.update.withdraws:
        if fact_id not in known or known[fact_id].withdrawn_by is not None:
            told = "names a fact that this incident does not have or has withdrawn"
            raise Invalid([("update.withdraws", told)])
    return PreviewShown.of(services.previews.preview(None, incident.id, body.update, actor=actor))

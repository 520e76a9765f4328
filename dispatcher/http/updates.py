"""Calls on an update: submit, approve, release, withdraw, stop, resume; its progress and rows."""

from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response

from channels.contract import Channel
from dispatcher.acts import Invalid, NotFound, Outcome, find_update, update_id
from dispatcher.http import standing
from dispatcher.http.answers import (
    DeliveryPage,
    DeliveryShown,
    UpdateResumed,
    UpdateStanding,
    UpdateStopped,
    Warned,
)
from dispatcher.http.desk import Call, Desk, Reader, acting
from dispatcher.http.events import ProgressFeed, Snapshot
from dispatcher.http.guard import JsonRoute
from dispatcher.http.requests import Chosen, Named, Nothing
from dispatcher.http.standing import ProgressShown
from dispatcher.http.streams import SSE_RESPONSE, event_stream
from dispatcher.ledger import progress, updates
from dispatcher.ledger.connection import Transaction
from dispatcher.ledger.counting import State
from dispatcher.security.rights import Scope

router = APIRouter(prefix="/v1/updates/{update}", tags=["updates"], route_class=JsonRoute)

Writer = Annotated[Call, Depends(acting(Scope.INCIDENTS_WRITE))]
Approver = Annotated[Call, Depends(acting(Scope.APPROVE))]
Releaser = Annotated[Call, Depends(acting(Scope.RELEASE, Scope.RELEASE_ANY))]
Stopper = Annotated[Call, Depends(acting(Scope.RELEASE))]
Empty = Annotated[Nothing | None, Body()]
Choice = Annotated[Chosen | None, Body()]

WATCHED = {
    **SSE_RESPONSE,
    204: {"description": "Complete, and seen: nothing more will come."},
}
_WAITING = frozenset({"draft", "submitted", "returned", "approved"})


def _standing(
    work: Transaction, update: str, *, released: tuple[str, ...] = (), outcome: Outcome | None
) -> dict[str, Any]:
    row, incident = find_update(work.conn, update)
    audiences = {found.audience: found.state for found in updates.releases(work.conn, update)}
    return {
        "id": update,
        "incident_id": incident.id,
        "reference": incident.reference,
        "content_hash": row.content_hash,
        "released": list(released),
        "held": [name for name, state in audiences.items() if state in _WAITING],
        "audiences": audiences,
        "warnings": [Warned.of(*found) for found in (outcome.warnings if outcome else ())],
    }


def _after(work: Transaction, outcome: Outcome) -> UpdateStanding:
    found = _standing(work, outcome.update_id, released=outcome.released, outcome=outcome)
    return UpdateStanding(**found)


@router.post("/submit", response_model=UpdateStanding)
def submit_update(update: str, call: Writer, body: Empty = None) -> Response:
    """Render and store every message, for approval. An earlier approval is void."""

    def work(transaction: Transaction) -> UpdateStanding:
        outcome = call.services.updates.submit(transaction, update_id(update), actor=call.actor)
        return _after(transaction, outcome)

    return call.once(work)


@router.post("/approve", response_model=UpdateStanding)
def approve_update(update: str, body: Named, call: Approver) -> Response:
    """Approve exactly the named content, by another key than its author's."""

    def work(transaction: Transaction) -> UpdateStanding:
        outcome = call.services.releases.approve(
            transaction,
            update_id(update),
            content_hash=body.content_hash,
            audiences=body.audiences,
            actor=call.actor,
        )
        return _after(transaction, outcome)

    return call.once(work)


@router.post("/release", response_model=UpdateStanding)
def release_update(update: str, body: Named, call: Releaser) -> Response:
    """Release exactly the named content where it is approved or needs no approval.

    A key with `release:any` also releases what nobody approved; that is always audited.
    """

    def work(transaction: Transaction) -> UpdateStanding:
        outcome = call.services.releases.release(
            transaction,
            update_id(update),
            content_hash=body.content_hash,
            audiences=body.audiences,
            actor=call.actor,
        )
        return _after(transaction, outcome)

    return call.once(work)


@router.post("/withdraw", response_model=UpdateStanding)
def withdraw_update(update: str, call: Writer, body: Empty = None) -> Response:
    """Take back an update of which nothing was released; its facts go with it."""

    def work(transaction: Transaction) -> UpdateStanding:
        outcome = call.services.releases.withdraw(transaction, update_id(update), actor=call.actor)
        return _after(transaction, outcome)

    return call.once(work)


@router.post("/stop", response_model=UpdateStopped)
def stop_update(update: str, call: Stopper, body: Choice = None) -> Response:
    """Stop what is unsent, at the next claim of every worker."""

    def work(transaction: Transaction) -> UpdateStopped:
        stopped, effect = call.services.releases.stop(
            transaction,
            update_id(update),
            audiences=body.audiences if body else None,
            actor=call.actor,
        )
        found = _standing(transaction, update_id(update), outcome=None)
        return UpdateStopped(**found, stopped=list(stopped), saved=effect.saved, left=effect.left)

    return call.once(work)


@router.post("/resume", response_model=UpdateResumed)
def resume_update(update: str, call: Stopper, body: Choice = None) -> Response:
    """Go on where a stop, or a message paused by its provider's refusals, left off."""

    def work(transaction: Transaction) -> UpdateResumed:
        resumed = call.services.releases.resume(
            transaction,
            update_id(update),
            audiences=body.audiences if body else None,
            actor=call.actor,
        )
        found = _standing(transaction, update_id(update), outcome=None)
        return UpdateResumed(**found, resumed=list(resumed))

    return call.once(work)


@router.get("/progress")
def get_progress(update: str, services: Desk, actor: Reader) -> ProgressShown:
    """The update's numbers as they stand."""
    with services.ledger.read() as conn:
        return standing.read(services, conn, update_id(update))


def _exists(update: str, services: Desk, actor: Reader) -> str:
    """A watched update's id. Raises `NotFound`."""
    wanted = update_id(update)
    with services.ledger.read() as conn:
        if updates.get(conn, wanted) is None:
            raise NotFound("no such update")
    return wanted


def _now(request: Request, update: str, actor: Reader) -> tuple[str, Snapshot]:
    wanted = update_id(update)
    feed: ProgressFeed = request.app.state.progress_feed
    return wanted, feed.now(wanted)


@router.get("/progress/events", responses=WATCHED)
async def watch_progress(
    request: Request,
    watched: Annotated[tuple[str, Snapshot], Depends(_now)],
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Resume after this event.")
    ] = None,
) -> Response:
    """The same numbers as server-sent events, whenever they change.

    `progress` events carry the document of `/progress`; the last one is followed by
    `complete`, and the stream ends. A comment every 15 seconds keeps it open meanwhile. Who
    resumes with the id of the complete state gets 204: there is nothing more to come.
    """
    wanted, first = watched
    if first.complete and first.id == last_event_id:
        return Response(status_code=204)
    feed: ProgressFeed = request.app.state.progress_feed
    return event_stream(feed.follow(wanted, first, last_event_id=last_event_id))


@router.get("/deliveries")
def list_deliveries(
    update: str,
    services: Desk,
    actor: Reader,
    state: State | None = None,
    channel: Channel | None = None,
    audience: Annotated[str | None, Query(max_length=48)] = None,
    told: Annotated[
        Literal["no"] | None,
        Query(description="`no`: only people to whom nothing was accepted or delivered."),
    ] = None,
    cursor: Annotated[UUID | None, Query(description="`next` of a page.")] = None,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
) -> DeliveryPage:
    """The ledger's rows, page by page. No address is ever shown, only a hint of it."""
    wanted = update_id(update)
    if audience is not None and audience not in services.packs.audiences:
        known = ", ".join(services.packs.audiences)
        raise Invalid([("audience", f"unknown audience; known: {known}")])
    with services.ledger.read() as conn:
        if updates.get(conn, wanted) is None:
            raise NotFound("no such update")
        rows = progress.deliveries(
            conn,
            wanted,
            state=state,
            channel=channel,
            audience=audience,
            untold=told == "no",
            after=str(cursor) if cursor else None,
            limit=limit,
        )
    more = rows[-1]["id"] if len(rows) == limit else None
    return DeliveryPage(deliveries=[DeliveryShown.model_validate(row) for row in rows], next=more)

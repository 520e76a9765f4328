"""Calls on the directory: one recipient, and addresses that are never sent to again."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from channels.contract import ContactKind
from dispatcher import recipients
from dispatcher.acts import NotFound
from dispatcher.contacts import normalise
from dispatcher.http.desk import Call, Desk, Reader, acting, holding
from dispatcher.http.guard import JsonRoute
from dispatcher.http.requests import Address, PatchRecipient, Suppress
from dispatcher.ledger import audit, suppressions
from dispatcher.ledger.connection import Transaction
from dispatcher.recipient_rules import KnownValues, known_ref
from dispatcher.recipients import Changes
from dispatcher.security.rights import Actor, Scope
from dispatcher.wiring import Services

router = APIRouter(prefix="/v1", tags=["recipients"], route_class=JsonRoute)

Keeper = Annotated[Actor, Depends(holding(Scope.RECIPIENTS_WRITE))]
Writer = Annotated[Call, Depends(acting(Scope.RECIPIENTS_WRITE))]


class ContactShown(BaseModel):
    """A contact point: `hint` is a trace of the address."""

    model_config = ConfigDict(from_attributes=True)

    kind: ContactKind
    hint: str
    country: str | None
    suppressed: bool


class RecipientShown(BaseModel):
    """A recipient, without name and addresses."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(validation_alias="ref")
    locale: str
    segment: str
    region: str
    services: list[str]
    tags: list[str]
    contacts: list[ContactShown]
    created_at: datetime
    updated_at: datetime


class SuppressionShown(BaseModel):
    """An address never sent to: `hint` is a trace of it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    kind: ContactKind
    hint: str
    reason: str
    source: str
    created_at: datetime


class SuppressionPage(BaseModel):
    """Suppressions in the order they were made. `next` is the next page's cursor."""

    suppressions: list[SuppressionShown]
    next: str | None


class Suppressed(BaseModel):
    """`added` is false if the address was suppressed before; the first reason stays."""

    kind: ContactKind
    hint: str
    added: bool


def known_values(services: Services) -> KnownValues:
    """What a recipient may name here: the packs' segments and services."""
    return KnownValues(
        segments=frozenset(
            segment
            for audience in services.packs.audiences.values()
            for segment in audience.segments
        ),
        services=frozenset(services.packs.organisation.services),
        live=services.mode == "live",
    )


def _ref(recipient: str) -> str:
    if not known_ref(recipient):
        raise NotFound("no such recipient")
    return recipient


@router.get("/recipients/{recipient}")
def get_recipient(recipient: str, services: Desk, actor: Reader) -> RecipientShown:
    """A recipient, with hints for addresses and without a name."""
    found = recipients.find(services.ledger, _ref(recipient))
    if found is None:
        raise NotFound("no such recipient")
    return RecipientShown.model_validate(found)


@router.patch("/recipients/{recipient}")
def patch_recipient(
    recipient: str, body: PatchRecipient, services: Desk, actor: Keeper
) -> RecipientShown:
    """Change one recipient. The next import of its line applies that line again."""
    amended = recipients.amend(
        services.ledger,
        services.sealer,
        _ref(recipient),
        Changes(**{name: getattr(body, name) for name in PatchRecipient.model_fields}),
        known=known_values(services),
        actor=actor.id,
    )
    if amended is None:
        raise NotFound("no such recipient")
    return RecipientShown.model_validate(amended)


@router.delete("/recipients/{recipient}", status_code=204)
def delete_recipient(recipient: str, services: Desk, actor: Keeper) -> Response:
    """Remove one recipient. What was sent to it stays in the ledger."""
    if not recipients.remove(services.ledger, _ref(recipient), actor=actor.id):
        raise NotFound("no such recipient")
    return Response(status_code=204)


@router.get("/suppressions")
def list_suppressions(
    services: Desk,
    actor: Reader,
    cursor: Annotated[int, Query(ge=0, le=2**62, description="`next` of a page.")] = 0,
    limit: Annotated[int, Query(ge=1, le=suppressions.MAX_PAGE)] = 100,
) -> SuppressionPage:
    """Addresses that are never sent to, in the order they were suppressed."""
    with services.ledger.read() as conn:
        found = suppressions.page(conn, after=cursor, limit=limit)
    more = str(found[-1].id) if len(found) == limit else None
    shown = [SuppressionShown.model_validate(row) for row in found]
    return SuppressionPage(suppressions=shown, next=more)


@router.post("/suppressions", status_code=201, response_model=Suppressed)
def add_suppression(body: Suppress, call: Writer) -> Response:
    """Never send to an address again, whichever recipients it belongs to, now or later."""
    contact = normalise(body.kind, body.address)

    def work(transaction: Transaction) -> Suppressed:
        added = suppressions.add(
            transaction.conn,
            kind=contact.kind,
            lookup=call.services.sealer.lookup(contact.kind, contact.address),
            hint=contact.hint,
            reason=body.reason,
            source=call.actor.id,
        )
        if added:
            detail: dict[str, Any] = {"kind": contact.kind, "reason": body.reason}
            audit.record(
                transaction.conn, actor=call.actor.id, act="suppressions.add", detail=detail
            )
        return Suppressed(kind=ContactKind(contact.kind), hint=contact.hint, added=added)

    return call.once(work, status=201)


@router.delete("/suppressions", status_code=204)
def remove_suppression(body: Address, services: Desk, actor: Keeper) -> Response:
    """Send to an address again."""
    lifted = recipients.unsuppress(
        services.ledger, services.sealer, body.kind, body.address, actor=actor.id
    )
    if not lifted:
        raise NotFound("no such suppression")
    return Response(status_code=204)

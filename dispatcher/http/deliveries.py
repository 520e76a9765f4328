"""Calls on one delivery: a person settles what nobody else can."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field, StringConstraints, model_validator

from dispatcher.acts import Conflict, NotFound
from dispatcher.delivery.evidence import SETTLED_REF
from dispatcher.http.desk import Call, acting
from dispatcher.http.guard import JsonRoute
from dispatcher.http.requests import Body
from dispatcher.ledger import audit, settling
from dispatcher.ledger.connection import Transaction
from dispatcher.ledger.counting import State
from dispatcher.ledger.settling import Doubt
from dispatcher.security.rights import Scope

router = APIRouter(prefix="/v1/deliveries/{delivery}", tags=["updates"], route_class=JsonRoute)

Settler = Annotated[Call, Depends(acting(Scope.INCIDENTS_WRITE, Scope.RELEASE))]
_Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[ -~]+$")]


class Settle(Body):
    """What a person found out about a delivery in doubt, or that it is to go out again."""

    state: Literal["accepted", "failed"] | None = None
    resend: bool = Field(
        default=False,
        description="Send it once more, although it may have arrived. Instead of `state`.",
    )
    ref: _Line | None = Field(
        default=None, description="The provider's own id of the message, with `accepted`."
    )
    reason: _Line = Field(description="How it is known; kept in the timeline, without contacts.")

    @model_validator(mode="after")
    def _one_wish(self) -> "Settle":
        if (self.state is None) != self.resend:
            raise ValueError("state: give either `state` or `resend`: true")
        if self.ref is not None and self.state != "accepted":
            raise ValueError("ref: belongs to `accepted` only")
        return self


class Settled(BaseModel):
    """Where the delivery is now."""

    id: str
    update_id: str
    state: State
    ref: str | None


def _doubt(work: Transaction, delivery: str) -> Doubt:
    try:
        found = settling.hold(work.conn, str(UUID(delivery)))
    except ValueError:
        found = None
    if found is None:
        raise NotFound("no such delivery")
    if found.row.state is not State.UNKNOWN:
        raise Conflict("not-unknown", "this delivery is not in doubt")
    return found


def _may_go_again(doubt: Doubt) -> None:
    if not doubt.released:
        raise Conflict("not-released", "its audience is stopped: resume it first")
    if doubt.expired:
        raise Conflict("expired", "its update is past its time")


@router.post("/settle", response_model=Settled)
def settle_delivery(delivery: str, body: Settle, call: Settler) -> Response:
    """Settle a delivery whose outcome is unknown, by what a person found out.

    `accepted` counts it as told, `failed` as not told. `resend` sends it again: whoever asks
    for that accepts that it may arrive twice. A receipt that comes later outweighs both.
    """

    def work(transaction: Transaction) -> Settled:
        doubt = _doubt(transaction, delivery)
        state = State(body.state) if body.state else State.PENDING
        ref: str | None = None
        if state is State.ACCEPTED:
            ref = body.ref or f"{SETTLED_REF}{doubt.row.id}"
            if settling.ref_taken(transaction.conn, doubt, ref):
                raise Conflict("ref-taken", "another delivery stands for that message")
        elif state is State.PENDING:
            _may_go_again(doubt)
        if not settling.settle(transaction.conn, doubt, state, ref=ref):
            raise Conflict("not-unknown", "this delivery is not in doubt")
        audit.record(
            transaction.conn,
            actor=call.actor.id,
            act="deliveries.settle",
            incident_id=doubt.incident_id,
            update_id=doubt.row.update_id,
            detail={"delivery": doubt.row.id, "state": state.value, "reason": body.reason},
        )
        if state is State.PENDING:
            name = call.services.broker.enqueue
            transaction.after_commit(lambda: name("send", doubt.row.batch_id, queue=doubt.lane))
        return Settled(id=doubt.row.id, update_id=doubt.row.update_id, state=state, ref=ref)

    return call.once(work)

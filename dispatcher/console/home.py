"""The incidents: what is open, what was, and one of them with what is known and was said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from dispatcher.acts import find_incident, incident_id
from dispatcher.claims import sensitive
from dispatcher.console.door import Desk, Known, Post, Visitor, posting
from dispatcher.console.views import page
from dispatcher.incidents import Fact, Incident, Phase, live_facts
from dispatcher.ledger import incidents, people, updates
from dispatcher.ledger.connection import Connection, Transaction
from dispatcher.ledger.updates import ReleaseRow, UpdateRow, Waiting
from dispatcher.security.rights import Scope

router = APIRouter()

AT_ONCE = 50
"""Incidents on a page, and updates of one: what is older is a link away."""

_ORDER = ("returned", "submitted", "approved", "stopped", "released", "draft", "withdrawn")


@dataclass(frozen=True, slots=True)
class UpdateLine:
    """An update in a list: `states` counts its audiences by state, the most pressing first."""

    row: UpdateRow
    number: int
    author: str
    states: tuple[tuple[str, int], ...]

    @property
    def begun(self) -> bool:
        """Whether it waits for somebody before anybody is told."""
        waiting = ("draft", "returned", "submitted", "approved")
        return not self.told and any(state in waiting for state, _ in self.states)

    @property
    def told(self) -> bool:
        """Whether anybody was told it."""
        return any(state in ("released", "stopped") for state, _ in self.states)


@router.get("/")
def incidents_page(
    request: Request,
    services: Desk,
    who: Known,
    status: Annotated[Literal["open", "resolved", "all"], Query()] = "all",
    before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
) -> Response:
    """Incidents, newest first; the open ones stand out."""
    wanted = None if status == "all" else status
    with services.ledger.read() as conn:
        found = incidents.listed(conn, status=wanted, before=before, limit=AT_ONCE)
        waiting = updates.waiting(conn)
        names = people.names(conn, list({each.author for each in waiting}))
    return page(
        request,
        "home.html",
        who,
        incidents=found,
        waiting=sorted(
            ((each, called(names, each.author), asked_of(who, each)) for each in waiting),
            key=lambda line: not line[2],
        ),
        shown=status,
        older=found[-1].number if len(found) == AT_ONCE else None,
        newer=before is not None,
    )


def asked_of(who: Visitor, each: Waiting) -> str:
    """What this person is asked to do about it; empty if it waits for somebody else."""
    mine = each.author == who.actor.id
    match each.state:
        case "submitted" if not mine and who.may(Scope.APPROVE):
            return "You can approve it or return it."
        case "returned" if mine:
            return "Returned to you: change it and submit it again."
        case "approved" if who.may(Scope.RELEASE):
            return "You can release it."
    return ""


@router.get("/incidents/{ref}")
def incident_page(request: Request, ref: str, services: Desk, who: Known) -> Response:
    """One incident: its clock, what is known, what was said and what waits."""
    with services.ledger.read() as conn:
        incident = find_incident(conn, incident_id(ref))
        rows = updates.of_incident(conn, incident.id)
        lines = update_lines(conn, rows[-AT_ONCE:], first=max(0, len(rows) - AT_ONCE) + 1)
        facts = incidents.facts(conn, incident.id)
        standing = incidents.standing(conn, incident.id)
        promise = updates.promised(conn, incident.id)
    live = live_facts(standing)
    return page(
        request,
        "incident.html",
        who,
        drill=incident.drill,
        incident=incident,
        lines=lines[::-1],
        begun=_begun(who, lines),
        promise=promise,
        live=live,
        past=[fact for fact in facts if live.get(fact.kind) != fact],
        sensitive={fact.id for fact in facts if sensitive([fact.stated])},
        draft_of=_drafted(facts, standing),
        next_phase=next_phase(incident, [line.row for line in lines if line.told]),
    )


def _begun(who: Visitor, lines: Sequence[UpdateLine]) -> UpdateLine | None:
    """The newest update that nobody was told yet; what this person may approve comes first."""
    found = [line for line in reversed(lines) if line.begun]
    mine = who.actor.id
    yours = [
        line
        for line in found
        if any(state == "submitted" for state, _ in line.states)
        and who.may(Scope.APPROVE)
        and mine not in (line.row.author, *line.row.editors)
    ]
    return next(iter(yours or found), None)


def _drafted(facts: Sequence[Fact], standing: Sequence[Fact]) -> frozenset[str]:
    """Facts that only a draft states: nobody speaks of them yet."""
    known = {fact.id for fact in standing}
    return frozenset(fact.id for fact in facts if fact.id not in known)


def next_phase(incident: Incident, told: Sequence[UpdateRow]) -> Phase:
    """What is usually said next where people were told this. That it is over, a person decides."""
    order = (Phase.INVESTIGATING, Phase.IDENTIFIED, Phase.MONITORING)
    if incident.status == "resolved":
        return Phase.FOLLOW_UP
    said = [Phase(row.phase) for row in told if row.phase in order]
    if not said:
        return Phase.INVESTIGATING
    return order[min(order.index(said[-1]) + 1, len(order) - 1)]


def update_lines(
    conn: Connection, rows: Sequence[UpdateRow], *, first: int = 1
) -> list[UpdateLine]:
    """Updates as lists show them; `first` is the number of the first in its incident."""
    by_update = updates.releases_of(conn, [row.id for row in rows])
    names = people.names(conn, list({row.author for row in rows}))
    return [
        UpdateLine(row, number, called(names, row.author), states_of(by_update.get(row.id, ())))
        for number, row in enumerate(rows, first)
    ]


def states_of(releases: Sequence[ReleaseRow]) -> tuple[tuple[str, int], ...]:
    """How many audiences stand where, the most pressing state first."""
    states = [release.state for release in releases]
    return tuple((state, states.count(state)) for state in _ORDER if state in states)


def called(names: dict[str, str], actor: str | None) -> str:
    """What an actor of the audit log is called."""
    if actor is None:
        return "nobody"
    return names.get(actor) or ("the machine's owner" if actor == "owner" else "somebody unknown")


@router.post("/incidents/{ref}/reopen")
def reopen(ref: str, post: Annotated[Post, Depends(posting(Scope.INCIDENTS_WRITE))]) -> Response:
    """Take a resolved incident back to open."""

    def work(transaction: Transaction) -> str:
        found = post.services.updates.reopen(
            transaction, incident_id(ref), actor=post.visitor.actor
        )
        return f"/incidents/{found.reference}"

    return post.once(work, done="reopened")

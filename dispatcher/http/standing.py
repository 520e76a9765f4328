"""Where an update stands in one word, and its progress as every watcher sees it.

Owns the words of `state`:

    draft      stored, not submitted          submitted  rendered, waits for approval
    approved   waits for release              planning   released, being made into rows
    sending    rows are pending or in flight  stopped    a person stopped it
    released   sent as far as released, but not complete: something waits or differs
    complete   balanced and settled           withdrawn  taken back before anything left
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, Field

from dispatcher.acts import NotFound
from dispatcher.incidents import Phase
from dispatcher.ledger import progress, updates
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.updates import ReleaseRow, UpdateRow
from dispatcher.wiring import Services


class Stand(StrEnum):
    """Where an update stands."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    APPROVED = "approved"
    RELEASED = "released"
    PLANNING = "planning"
    SENDING = "sending"
    STOPPED = "stopped"
    COMPLETE = "complete"
    WITHDRAWN = "withdrawn"


class ProgressShown(BaseModel):
    """An update's numbers. People never told are found by `/deliveries?told=no`."""

    update_id: str
    incident_id: str
    phase: Phase
    mode: str = Field(description="`sandbox`: simulators only. `live`: real providers.")
    state: Stand
    planned: int = Field(description="Rows that the selection counted before it made any.")
    by_state: Mapping[str, int]
    by_channel: Mapping[str, Mapping[str, int]]
    by_audience: Mapping[str, Mapping[str, int]]
    audiences: dict[str, str] = Field(description="Each audience's release.")
    first_accepted_at: datetime | None
    last_accepted_at: datetime | None
    balanced: bool = Field(description="Planned, counters, rows and proofs agree.")
    settled: bool = Field(description="Nothing is pending, in flight or being reconciled.")
    complete: bool = Field(description="Balanced and settled.")


def read(services: Services, conn: Connection, update_id: str) -> ProgressShown:
    """Progress of an update. Raises `NotFound`."""
    update = updates.get(conn, update_id)
    if update is None:
        raise NotFound("no such update")
    releases = updates.releases(conn, update_id)
    found = progress.read(conn, update_id, services.balances)
    return ProgressShown(
        update_id=update.id,
        incident_id=update.incident_id,
        phase=Phase(update.phase),
        mode=services.mode,
        state=stand(update, releases, found),
        planned=found.planned,
        by_state=found.by_state,
        by_channel=found.by_channel,
        by_audience=found.by_audience,
        audiences={row.audience: row.state for row in releases},
        first_accepted_at=found.first_accepted_at,
        last_accepted_at=found.last_accepted_at,
        balanced=found.balanced,
        settled=found.settled,
        complete=found.complete,
    )


def stand(update: UpdateRow, releases: Sequence[ReleaseRow], found: progress.Progress) -> Stand:
    """One word for an update, by the first rule that holds."""
    states = {row.state for row in releases}
    if update.withdrawn_at is not None:
        return Stand.WITHDRAWN
    if not states & {"released", "stopped"}:
        if "approved" in states:
            return Stand.APPROVED
        return Stand.DRAFT if update.submitted_at is None else Stand.SUBMITTED
    if "released" not in states:
        return Stand.STOPPED
    if any(row.state == "released" and row.planned_at is None for row in releases):
        return Stand.PLANNING
    if any(found.by_state[state] for state in progress.MOVING):
        return Stand.SENDING
    if "stopped" in states:
        return Stand.STOPPED
    return Stand.COMPLETE if found.complete else Stand.RELEASED

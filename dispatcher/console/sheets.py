"""What a form is about: a new incident, a further update, or an update that is being changed.

Reads the ledger and stores nothing. Knows no page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

from dispatcher.acts import Conflict, NotFound, find_incident, incident_id, update_id
from dispatcher.audiences import Organisation, Packs
from dispatcher.console import drafting, fact_forms
from dispatcher.console.forms import QUICK, Read, fill, quick, read
from dispatcher.console.home import next_phase
from dispatcher.console.typed import Typed
from dispatcher.incidents import Fact, FactKind, Incident, NewIncident, NewUpdate, Phase, live_facts
from dispatcher.ledger import incidents, updates
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.updates import ReleaseRow, UpdateRow
from dispatcher.rendering import Statement

_ZONES = frozenset(available_timezones())
_FIRST_QUICK = "30"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A form's ground. `incident` is none while it is being opened, `row` the update changed.

    `opening` is whether the incident's own particulars are on the form; `known` are the facts
    of other updates, in the order stated; `own` those of the update that is being changed;
    `told` names the updates that anybody was told.
    """

    incident: Incident | None = None
    row: UpdateRow | None = None
    opening: bool = True
    known: tuple[Fact, ...] = ()
    own: tuple[Fact, ...] = ()
    rows: tuple[UpdateRow, ...] = ()
    told: frozenset[str] = frozenset()
    returned: str = ""

    @property
    def path(self) -> str:
        """Where the form is sent."""
        if self.row is not None:
            return f"/updates/{self.row.id}/write"
        if self.incident is not None:
            return f"/incidents/{self.incident.reference}/updates/new"
        return "/incidents/new"

    @property
    def standing(self) -> dict[FactKind, Fact]:
        """What people know unless this update says otherwise."""
        return live_facts(self.known)

    @property
    def takeable(self) -> tuple[Fact, ...]:
        """Facts that people heard and that can be taken back: those that stand come first."""
        live = {fact.id for fact in self.standing.values()}
        left = [
            fact for fact in self.known if fact.withdrawn_by is None and fact.update_id in self.told
        ]
        return tuple(sorted(left, key=lambda fact: fact.id not in live))

    @property
    def previous(self) -> Phase | None:
        """The phase of the update before this one."""
        earlier = [row for row in self.rows if self.row is None or row.id < self.row.id]
        return Phase(earlier[-1].phase) if earlier else None

    def zone(self, typed: Typed, organisation: Organisation, *, reader: str) -> ZoneInfo:
        """Where the form's times lie: as the form itself says, else the incident's own zone."""
        said = typed.one("typed_zone")
        if said in _ZONES:
            return ZoneInfo(said)
        if self.incident is not None:
            own = self.incident.zone or organisation.zone(self.incident.regions)
            return ZoneInfo(own)
        return ZoneInfo(reader)

    def read(self, typed: Typed, *, zone: ZoneInfo, now: datetime) -> Read:
        """What the form says."""
        began = self.incident.started_at if self.incident is not None else None
        return read(typed, zone=zone, now=now, opening=self.opening, started_at=began)

    def about(self, found: Read, now: datetime) -> Incident | None:
        """The incident that the form speaks of, as far as it is known."""
        if found.about is not None:
            imagined = drafting.imagined(found.about, now=now)
            if self.incident is None:
                return imagined
            kept = {"id": self.incident.id, "number": self.incident.number}
            return imagined.model_copy(update={**kept, "drill": self.incident.drill})
        return self.incident

    def statement(self, found: Read, *, now: datetime) -> Statement | None:
        """What would be said now; none while the form holds too little."""
        about = self.about(found, now)
        if about is None or found.draft is None:
            return None
        return drafting.statement(about, found.draft, self.known, now=now, previous=self.previous)


def adding(conn: Connection, ref: str) -> Sheet:
    """The ground of a further update. Raises `NotFound`."""
    incident = find_incident(conn, incident_id(ref))
    rows = tuple(updates.of_incident(conn, incident.id))
    return Sheet(
        incident=incident,
        opening=False,
        known=tuple(incidents.standing(conn, incident.id)),
        rows=rows,
        told=_told(updates.releases_of(conn, [row.id for row in rows])),
    )


def _told(releases: Mapping[str, Sequence[ReleaseRow]]) -> frozenset[str]:
    """The updates of which something was released."""
    return frozenset(
        update for update, rows in releases.items() if any(row.released_at for row in rows)
    )


def revising(conn: Connection, wanted: str) -> Sheet:
    """The ground of changing an update. Raises `NotFound`, and `Conflict` if it is too late."""
    row = updates.get(conn, update_id(wanted))
    if row is None:
        raise NotFound("no such update")
    incident = find_incident(conn, row.incident_id)
    rows = tuple(updates.of_incident(conn, incident.id))
    releases = updates.releases_of(conn, [each.id for each in rows])
    if any(each.released_at for each in releases.get(row.id, ())):
        raise Conflict("released", "part of this update is released; add a new update")
    if row.withdrawn_at is not None:
        raise Conflict("withdrawn", "this update is withdrawn; add a new one")
    told = _told(releases)
    facts = incidents.standing(conn, incident.id, update_id=row.id)
    reasons = [each.reason for each in releases.get(row.id, ()) if each.state == "returned"]
    return Sheet(
        incident=incident,
        row=row,
        opening=rows[0].id == row.id and not told,
        known=tuple(drafting.others(facts, row.id)),
        own=tuple(fact for fact in facts if fact.update_id == row.id),
        rows=rows,
        told=told,
        returned=reasons[0] if reasons else "",
    )


def stored_form(sheet: Sheet, *, zone: ZoneInfo) -> Typed:
    """The form that says what is stored of the update that is being changed."""
    row, found = sheet.row, sheet.incident
    assert row is not None and found is not None
    update = NewUpdate(
        phase=Phase(row.phase),
        facts=tuple(fact.stated for fact in sheet.own),
        texts=row.texts,
        next_update_at=row.next_update_at,
        expires_at=row.expires_at,
        audiences=tuple(row.audiences),
        withdraws=tuple(row.withdraws),
    )
    incident = None
    if sheet.opening:
        names = NewIncident.model_fields
        incident = NewIncident.model_validate({name: getattr(found, name) for name in names})
    return fill(incident, update, zone=zone, audiences=row.audiences)


def normal_form(found: Read, sheet: Sheet, *, zone: ZoneInfo) -> Typed:
    """What was written, as a form that was filled would write it: so that forms can be compared."""
    if found.update is None:
        return found.typed
    incident = found.incident if sheet.opening else None
    return fill(incident, found.update, zone=zone, audiences=found.update.audiences or ())


def blank_form(packs: Packs, *, kind: str) -> Typed:
    """An empty form of a new incident: everybody is told, soon again."""
    return Typed.of(
        {
            "kind": [kind] if kind in ("real", "drill") else [],
            "phase": [Phase.INVESTIGATING.value],
            "audiences": list(packs.audiences),
            "started.same": ["yes"],
            "next_update": [_FIRST_QUICK],
        }
    )


def next_form(
    sheet: Sheet,
    packs: Packs,
    *,
    zone: ZoneInfo,
    now: datetime,
    phase: str = "",
    origin: str = "",
    withdraws: Sequence[str] = (),
) -> Typed:
    """The form of a further update as it is usually begun.

    `origin` is `nothing-new` (as before, with a new promise) or `correction`.
    """
    assert sheet.incident is not None
    said = [row for row in sheet.rows if row.id in sheet.told]
    audiences = list(packs.audiences)
    chosen = next_phase(sheet.incident, said)
    if phase in [*Phase]:
        chosen = Phase(phase)
    if origin == "correction" or withdraws:
        chosen = Phase.CORRECTION
    promise = "none" if chosen in (Phase.RESOLVED, Phase.FOLLOW_UP) else _FIRST_QUICK
    if origin == "nothing-new" and said:
        chosen = _same_phase(said)
        audiences = [name for name in said[-1].audiences if name in packs.audiences] or audiences
        return _nothing_new(packs, chosen, audiences, zone=zone, now=now)
    return Typed.of(
        {
            "phase": [chosen.value],
            "audiences": audiences,
            "next_update": [promise],
            "withdraws": list(withdraws),
        }
    )


def _same_phase(said: Sequence[UpdateRow]) -> Phase:
    """The phase that was said last, corrections aside."""
    for row in reversed(said):
        if row.phase != Phase.CORRECTION:
            return Phase(row.phase)
    return Phase.INVESTIGATING


def _nothing_new(
    packs: Packs, phase: Phase, audiences: Sequence[str], *, zone: ZoneInfo, now: datetime
) -> Typed:
    minutes = str(drafting.shortest_cadence(packs, audiences))
    values: fact_forms.Values = {"phase": [phase.value], "audiences": list(audiences)}
    if minutes in QUICK:
        values["next_update"] = [minutes]
    else:
        values["next_update"] = ["at"]
        fact_forms.put_time(values, "next_update_at", quick(minutes, now), zone)
    return Typed.of(values)

"""Incidents and their facts as stored."""

import uuid
from collections.abc import Sequence
from typing import Any

import orjson
from psycopg.rows import dict_row

from dispatcher.incidents import Fact, Incident, NewFact, NewIncident
from dispatcher.ledger.connection import Connection, one

_COLUMNS = (
    "id::text, number, title, summary, severity, services, regions, started_at, zone, drill,"
    " status, created_at, resolved_at"
)


def insert(conn: Connection, new: NewIncident, *, created_by: str) -> Incident:
    """Store a new open incident; its number is the next one."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "INSERT INTO incident (title, summary, severity, services, regions, started_at, zone,"
            " drill, created_by) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
            f" RETURNING {_COLUMNS}",
            (
                new.title,
                new.summary,
                new.severity.value,
                list(new.services),
                list(new.regions),
                new.started_at,
                new.zone,
                new.drill,
                created_by,
            ),
        )
        row = cursor.fetchone()
    assert row is not None
    return Incident.model_validate(row)


def get(conn: Connection, incident: str, *, lock: bool = False) -> Incident | None:
    """By id or by reference (`INC-0042`). `lock` serialises those who change it."""
    number = incident[4:][:18] if incident.upper().startswith("INC-") else ""
    if not number.isdecimal() and not is_id(incident):
        return None
    where, value = ("number", int(number)) if number.isdecimal() else ("id", incident)
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM incident WHERE {where} = %s" + (" FOR UPDATE" if lock else ""),
            (value,),
        )
        row = cursor.fetchone()
    return Incident.model_validate(row) if row else None


def next_number(conn: Connection) -> int:
    """The number that the next incident gets, if nobody else opens one first."""
    return int(
        one(conn.execute("SELECT last_value + is_called::int FROM incident_number_seq").fetchone())
    )


def listed(
    conn: Connection, *, status: str | None, before: int | None, limit: int
) -> list[Incident]:
    """Newest first; `before` is the number of the last one seen."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM incident"
            " WHERE (%(status)s::text IS NULL OR status = %(status)s)"
            " AND (%(before)s::bigint IS NULL OR number < %(before)s)"
            " ORDER BY number DESC LIMIT %(limit)s",
            {"status": status, "before": before, "limit": limit},
        )
        return [Incident.model_validate(row) for row in cursor.fetchall()]


def similar_open(conn: Connection, new: NewIncident) -> Incident | None:
    """An open incident with the same services and a region in common, if there is one.

    Drills and real incidents are never similar. Regions meet when one lies within the
    other; an empty list is everywhere.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM incident WHERE status = 'open' AND drill = %(drill)s"
            " AND services @> %(services)s AND services <@ %(services)s"
            " AND (cardinality(regions) = 0 OR cardinality(%(regions)s::text[]) = 0 OR EXISTS ("
            "   SELECT FROM unnest(regions) ours, unnest(%(regions)s::text[]) theirs"
            "   WHERE ours = theirs OR starts_with(ours, theirs || '-')"
            "     OR starts_with(theirs, ours || '-')))"
            " ORDER BY number DESC LIMIT 1",
            {"drill": new.drill, "services": list(new.services), "regions": list(new.regions)},
        )
        row = cursor.fetchone()
    return Incident.model_validate(row) if row else None


def set_status(conn: Connection, incident_id: str, status: str) -> None:
    conn.execute(
        "UPDATE incident SET status = %(status)s,"
        " resolved_at = CASE WHEN %(status)s = 'resolved' THEN now() END WHERE id = %(id)s",
        {"status": status, "id": incident_id},
    )


def add_facts(
    conn: Connection, facts: Sequence[NewFact], *, incident_id: str, update_id: str
) -> list[str]:
    """Append facts in order; returns their ids."""
    return [
        one(
            conn.execute(
                "INSERT INTO fact (incident_id, update_id, stated) VALUES (%s, %s, %s)"
                " RETURNING id::text",
                (incident_id, update_id, fact.model_dump_json()),
            ).fetchone()
        )
        for fact in facts
    ]


_LET_GO = (
    "EXISTS (SELECT FROM release r WHERE r.update_id = {0}.id AND r.released_at IS NOT NULL)"
    " AND {0}.withdrawn_at IS NULL"
)


def withdraw_facts(
    conn: Connection, fact_ids: Sequence[str], *, incident_id: str, update_id: str
) -> list[str]:
    """Mark facts of this incident withdrawn; returns those that were live until now."""
    rows = conn.execute(
        # What an update that was not released takes back still stands: another may take it back.
        "UPDATE fact SET withdrawn_by = %s WHERE incident_id = %s AND id::text = ANY(%s)"
        " AND NOT EXISTS (SELECT FROM incident_update w WHERE w.id = withdrawn_by"
        f"  AND {_LET_GO.format('w')}) RETURNING id::text",
        (update_id, incident_id, list(fact_ids)),
    ).fetchall()
    return [row[0] for row in rows]


def facts(conn: Connection, incident_id: str) -> list[Fact]:
    """All facts in the order stated, those of withdrawn updates left out.

    A fact taken back by an update that was itself withdrawn stands again.
    """
    rows = conn.execute(
        "SELECT f.id::text, f.stated, f.update_id::text,"
        " CASE WHEN w.withdrawn_at IS NULL THEN f.withdrawn_by::text END"
        " FROM fact f JOIN incident_update u ON u.id = f.update_id"
        " LEFT JOIN incident_update w ON w.id = f.withdrawn_by"
        " WHERE f.incident_id = %s AND u.withdrawn_at IS NULL ORDER BY f.seq",
        (incident_id,),
    ).fetchall()
    return [
        Fact.model_validate(
            {"id": row[0], "stated": row[1], "update_id": row[2], "withdrawn_by": row[3]}
        )
        for row in rows
    ]


def standing(conn: Connection, incident_id: str, *, update_id: str | None = None) -> list[Fact]:
    """The facts an update may speak of, in the order stated, its own last.

    Those of other updates count once they were released: what nobody has let go is said by
    nobody else, and takes nothing back.
    """
    rows = conn.execute(
        "SELECT f.id::text, f.stated, f.update_id::text,"
        f" CASE WHEN {_LET_GO.format('w')} OR w.id = %(update)s::uuid THEN f.withdrawn_by::text END"
        " FROM fact f JOIN incident_update u ON u.id = f.update_id"
        " LEFT JOIN incident_update w ON w.id = f.withdrawn_by"
        " WHERE f.incident_id = %(incident)s AND u.withdrawn_at IS NULL"
        f" AND (u.id = %(update)s::uuid OR {_LET_GO.format('u')})"
        " ORDER BY u.id IS NOT DISTINCT FROM %(update)s::uuid, f.seq",
        {"incident": incident_id, "update": update_id},
    ).fetchall()
    return [
        Fact.model_validate(
            {"id": row[0], "stated": row[1], "update_id": row[2], "withdrawn_by": row[3]}
        )
        for row in rows
    ]


def forget_facts(conn: Connection, update_id: str) -> None:
    """Remove what a draft states and takes back, to be stated anew."""
    conn.execute("DELETE FROM fact WHERE update_id = %s", (update_id,))
    conn.execute("UPDATE fact SET withdrawn_by = NULL WHERE withdrawn_by = %s", (update_id,))


def amend(conn: Connection, incident_id: str, new: NewIncident) -> None:
    """Put other particulars in place of an incident's own; whether it is a drill stays."""
    conn.execute(
        "UPDATE incident SET title = %s, summary = %s, severity = %s, services = %s, regions = %s,"
        " started_at = %s, zone = %s WHERE id = %s",
        (
            new.title,
            new.summary,
            new.severity.value,
            list(new.services),
            list(new.regions),
            new.started_at,
            new.zone,
            incident_id,
        ),
    )


def is_id(text: str) -> bool:
    """Whether a text can be one of our ids at all: what is not is simply not found."""
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def as_json(value: Any) -> str:
    """JSON text for a jsonb column."""
    return orjson.dumps(value).decode()

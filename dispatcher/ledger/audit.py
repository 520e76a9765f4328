"""Who did what and when: one row for every release and key act, written with the act."""

from collections.abc import Mapping
from typing import Any

import orjson
from psycopg.rows import dict_row

from dispatcher.ledger.connection import Connection


def record(
    conn: Connection,
    *,
    actor: str,
    act: str,
    incident_id: str | None = None,
    update_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Append one act. `detail` holds counts and names of ours, never a contact."""
    conn.execute(
        "INSERT INTO audit (actor, act, incident_id, update_id, detail)"
        " VALUES (%s, %s, %s, %s, %s)",
        (actor, act, incident_id, update_id, orjson.dumps(dict(detail or {})).decode()),
    )


def timeline(conn: Connection, incident_id: str) -> list[dict[str, Any]]:
    """An incident's acts in order: at, actor, act, update_id, detail."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT at, actor, act, update_id::text, detail FROM audit"
            " WHERE incident_id = %s ORDER BY id",
            (incident_id,),
        )
        return cursor.fetchall()

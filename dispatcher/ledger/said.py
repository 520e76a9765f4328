"""What an audience was told before an update: the stored messages of an earlier one."""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class Said:
    """One message of the last update that was released to an audience, without its HTML."""

    update_id: str
    phase: str
    released_at: datetime
    channel: str
    locale: str
    parts: dict[str, str]


def last_said(conn: Connection, update_id: str, audience: str) -> list[Said]:
    """The messages of the incident's last update before this one that was released to the
    audience; empty if it was told nothing yet."""
    with conn.cursor(row_factory=class_row(Said)) as cursor:
        return cursor.execute(
            "SELECT m.update_id::text, before.phase, before.released_at, m.channel, m.locale,"
            " m.parts - 'html' AS parts"
            " FROM (SELECT u.id, u.phase, r.released_at FROM incident_update own"
            "   JOIN incident_update u ON u.incident_id = own.incident_id AND u.id < own.id"
            "   JOIN release r ON r.update_id = u.id AND r.audience = %(audience)s"
            "     AND r.released_at IS NOT NULL"
            "   WHERE own.id = %(update)s::uuid ORDER BY u.id DESC LIMIT 1) before"
            " JOIN message m ON m.update_id = before.id AND m.audience = %(audience)s"
            " ORDER BY m.channel, m.locale",
            {"update": update_id, "audience": audience},
        ).fetchall()

"""What an audience was told before: of which updates a message left, and with which words.

Owns what *told* means of an update and an audience: at least one message was taken by a provider,
or may have been. Reads counters and messages, and no deliveries.
"""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class Reached:
    """How far an update came with one audience, in messages.

    `told` were taken by a provider, `perhaps` are leaving or in doubt. `planned` are all but those
    that could never be sent, as to somebody without an address.
    """

    planned: int
    told: int
    perhaps: int

    @property
    def left(self) -> bool:
        """Whether anything left, or may have."""
        return self.told + self.perhaps > 0


def reached(conn: Connection, incident_id: str, audience: str) -> dict[str, Reached]:
    """How far each update of an incident came with an audience, by update, from counters.

    Updates of which nothing was planned for the audience are not in it.
    """
    rows = conn.execute(
        "SELECT b.update_id::text, sum(b.size - b.skipped)::bigint,"
        " sum(b.accepted + b.delivered)::bigint, sum(b.sending + b.unknown)::bigint"
        " FROM batch b JOIN incident_update u ON u.id = b.update_id"
        " WHERE u.incident_id = %s AND b.audience = %s GROUP BY b.update_id",
        (incident_id, audience),
    ).fetchall()
    return {update_id: Reached(*numbers) for update_id, *numbers in rows}


@dataclass(frozen=True, slots=True)
class Said:
    """One message of the last update that an audience was told, without its HTML.

    `stopped` is whether that update was stopped, with `told` of the audience's messages gone.
    """

    update_id: str
    phase: str
    released_at: datetime
    stopped: bool
    told: int
    channel: str
    locale: str
    parts: dict[str, str]


def last_said(conn: Connection, update_id: str, audience: str) -> list[Said]:
    """The messages of the incident's last update before this one of which anything left for the
    audience, or may have; empty if it was told nothing yet."""
    with conn.cursor(row_factory=class_row(Said)) as cursor:
        return cursor.execute(
            "SELECT m.update_id::text, before.phase, before.released_at, before.stopped,"
            " before.told, m.channel, m.locale, m.parts - 'html' AS parts"
            " FROM (SELECT u.id, u.phase, r.released_at, r.state = 'stopped' AS stopped, gone.told"
            "   FROM incident_update own"
            "   JOIN incident_update u ON u.incident_id = own.incident_id AND u.id < own.id"
            "   JOIN release r ON r.update_id = u.id AND r.audience = %(audience)s"
            "     AND r.released_at IS NOT NULL"
            "   CROSS JOIN LATERAL (SELECT sum(b.accepted + b.delivered)::bigint AS told,"
            "     sum(b.accepted + b.delivered + b.sending + b.unknown) AS gone"
            "     FROM batch b WHERE b.update_id = u.id AND b.audience = %(audience)s) gone"
            "   WHERE own.id = %(update)s::uuid AND gone.gone > 0 ORDER BY u.id DESC LIMIT 1) before"
            " JOIN message m ON m.update_id = before.id AND m.audience = %(audience)s"
            " ORDER BY m.channel, m.locale",
            {"update": update_id, "audience": audience},
        ).fetchall()

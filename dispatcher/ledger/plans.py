"""A selection becomes rows: planned counts, batches in order, deliveries with reasons.

Everything of one lane is one transaction, so a plan is there whole or not at all, and
planning the same audience again adds nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.ledger.connection import Connection, one
from dispatcher.ledger.counting import counters


@dataclass(frozen=True, slots=True)
class Due:
    """An audience released and not yet planned."""

    audience: str
    lane: str


@dataclass(frozen=True, slots=True)
class Queued:
    """A batch to be named to a worker."""

    batch_id: int
    lane: str


def try_lock(conn: Connection, incident_id: str) -> bool:
    """Plans of one incident follow one another, so that each sees what the last one did.

    False if another planner is at it: the sweep comes back for what it leaves.
    """
    return bool(
        one(
            conn.execute(
                "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 1))", (incident_id,)
            ).fetchone()
        )
    )


def due(conn: Connection, update_id: str) -> list[Due]:
    """The audiences of an update that are released and not planned."""
    rows = conn.execute(
        "SELECT audience, lane FROM release WHERE update_id = %s AND state = 'released'"
        " AND planned_at IS NULL ORDER BY audience",
        (update_id,),
    ).fetchall()
    return [Due(*row) for row in rows]


def mark_planned(conn: Connection, update_id: str, audiences: Sequence[str]) -> None:
    conn.execute(
        "UPDATE release SET planned_at = now() WHERE update_id = %s AND audience = ANY(%s)",
        (update_id, list(audiences)),
    )


_PLANNED = """
INSERT INTO planned (update_id, audience, channel, rows)
SELECT %(update)s, audience, channel, count(*) FROM choice GROUP BY audience, channel
ON CONFLICT (update_id, audience, channel) DO UPDATE SET rows = planned.rows + EXCLUDED.rows
"""

_MEMBERS = """
INSERT INTO membership (incident_id, audience, recipients)
SELECT %(incident)s, belongs, array_agg(id) FROM who
WHERE belongs IS NOT NULL AND NOT member GROUP BY belongs
"""

_CELLS = """
CREATE TEMP TABLE cell ON COMMIT DROP AS
SELECT *, row_number() OVER ()::int AS cell FROM (
    SELECT DISTINCT audience, channel, message_id, adapter, sender, reason,
        CASE reason WHEN '' THEN 'pending' WHEN 'not_told_before' THEN 'spared'
            ELSE 'skipped' END AS state
    FROM choice
) distinct_cells
"""

# Priority first, then who was never told, then who was told longest ago, then a shuffle
# of this incident's own, so that a slow rate does not starve the same people each time.
_PLACED = """
CREATE TEMP TABLE placed ON COMMIT DROP AS
SELECT recipient_id, contact_point_id, shared_contact_id, cell, (turn - 1) / %(size)s AS chunk,
    turn AS seq
FROM (
    SELECT c.recipient_id, c.contact_point_id, c.shared_contact_id, cell.cell,
        row_number() OVER (PARTITION BY cell.cell ORDER BY c.priority DESC,
            told.at NULLS FIRST,
            hashint8extended(c.recipient_id, hashtextextended(%(incident)s::text, 2))) AS turn
    FROM choice c
    JOIN cell ON cell.audience = c.audience AND cell.channel = c.channel
        AND coalesce(cell.message_id, 0) = coalesce(c.message_id, 0)
        AND cell.adapter = c.adapter AND cell.sender = c.sender AND cell.reason = c.reason
    LEFT JOIN told ON told.recipient_id = c.recipient_id
) ordered
"""

# The first chunk of every cell goes before the second of any.
_PARCELS = """
CREATE TEMP TABLE parcel ON COMMIT DROP AS
SELECT g.*, c.audience, c.channel, c.message_id, c.adapter, c.sender, c.reason, c.state,
    nextval(pg_get_serial_sequence('batch', 'id')) AS batch_id,
    row_number() OVER (ORDER BY g.chunk, g.cell) AS seq
FROM (SELECT cell, chunk, count(*) AS size FROM placed GROUP BY cell, chunk) g
JOIN cell c ON c.cell = g.cell
"""

_BATCHES = """
INSERT INTO batch (id, update_id, audience, channel, adapter, sender, message_id, lane, seq,
    size, open, due_at, enqueued_at, pending, skipped, spared)
OVERRIDING SYSTEM VALUE
SELECT batch_id, %(update)s, audience, channel, adapter, sender, message_id, %(lane)s,
    seq, size, state = 'pending', CASE state WHEN 'pending' THEN now() END,
    CASE state WHEN 'pending' THEN now() END,
    CASE state WHEN 'pending' THEN size ELSE 0 END,
    CASE state WHEN 'skipped' THEN size ELSE 0 END,
    CASE state WHEN 'spared' THEN size ELSE 0 END
FROM parcel
"""

_DELIVERIES = """
INSERT INTO delivery (update_id, batch_id, recipient_id, contact_point_id, shared_contact_id,
    channel, seq, state, reason, next_attempt_at)
SELECT %(update)s, p.batch_id, d.recipient_id, d.contact_point_id, d.shared_contact_id,
    p.channel, d.seq, p.state, p.reason, CASE p.state WHEN 'pending' THEN now() END
FROM placed d JOIN parcel p USING (cell, chunk)
"""


def insert(
    conn: Connection, *, incident_id: str, update_id: str, lane: str, batch_size: int
) -> list[Queued]:
    """Turn this transaction's selection into rows; returns the batches to send, in order."""
    values = {
        "incident": incident_id,
        "update": update_id,
        "lane": lane,
        "size": batch_size,
    }
    conn.execute("DROP TABLE IF EXISTS pg_temp.cell, pg_temp.placed, pg_temp.parcel")
    for statement in (_PLANNED, _MEMBERS, _CELLS, _PLACED, _PARCELS, _BATCHES, _DELIVERIES):
        conn.execute(statement, values)
    rows = conn.execute(
        "SELECT batch_id FROM parcel WHERE state = 'pending' ORDER BY seq"
    ).fetchall()
    return [Queued(batch_id=row[0], lane=lane) for row in rows]


def supersede(conn: Connection, *, earlier: Sequence[str]) -> int:
    """Take back what is unsent of earlier updates for the people now selected; returns how many.

    Batches are locked before their rows, as everywhere, so that two movers cannot
    wait for each other.
    """
    locked = conn.execute(
        "SELECT id FROM batch WHERE update_id = ANY(%s::uuid[]) AND pending > 0 AND open"
        " ORDER BY id FOR UPDATE",
        (list(earlier),),
    ).fetchall()
    if not locked:
        return 0
    row = conn.execute(
        "WITH moved AS (UPDATE delivery d SET state = 'superseded', reason = 'newer_update',"
        " changed_at = now(), next_attempt_at = NULL FROM choice c"
        " WHERE d.update_id = ANY(%(earlier)s::uuid[]) AND d.recipient_id = c.recipient_id"
        " AND d.state = 'pending' AND c.reason IN ('', 'not_told_before', 'shared_contact')"
        " RETURNING d.batch_id, 'pending' AS was_state, d.state AS now_state,"
        " NULL::timestamptz AS accepted_at), " + counters() + " SELECT count(*) FROM moved",
        {"earlier": list(earlier)},
    ).fetchone()
    return int(one(row))


def earlier_updates(conn: Connection, incident_id: str, update_id: str) -> list[str]:
    """Updates of the incident that came before this one and were released to anybody."""
    rows = conn.execute(
        "SELECT u.id::text FROM incident_update u WHERE u.incident_id = %s AND u.id < %s"
        " AND EXISTS (SELECT FROM release r WHERE r.update_id = u.id AND r.released_at IS NOT NULL)"
        " ORDER BY u.id",
        (incident_id, update_id),
    ).fetchall()
    return [row[0] for row in rows]

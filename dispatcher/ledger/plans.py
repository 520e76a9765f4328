"""A selection becomes rows: planned counts, batches in order, deliveries with reasons.

A part of a lane is one transaction, so it is there whole or not at all, and planning the same
audience again adds only what is missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.ledger import selection
from dispatcher.ledger.connection import Connection, one
from dispatcher.ledger.counting import counters
from dispatcher.ledger.question import Span
from dispatcher.ledger.superseding import told_since


@dataclass(frozen=True, slots=True)
class Due:
    """An audience released and not yet planned, but for the people of `done`."""

    audience: str
    lane: str
    done: Span | None = None


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


def wordings(conn: Connection, update_id: str, audiences: Sequence[str]) -> list[selection.Wording]:
    """The stored messages of these audiences, without their text."""
    rows = conn.execute(
        "SELECT audience, channel, locale, id FROM message WHERE update_id = %s"
        " AND audience = ANY(%s)",
        (update_id, list(audiences)),
    ).fetchall()
    return [selection.Wording(*row) for row in rows]


def due(conn: Connection, update_id: str) -> list[Due]:
    """The audiences of an update that are released and not planned."""
    rows = conn.execute(
        "SELECT audience, lane, vanguard_first, vanguard_last FROM release WHERE update_id = %s"
        " AND state = 'released' AND planned_at IS NULL ORDER BY audience",
        (update_id,),
    ).fetchall()
    return [Due(row[0], row[1], None if row[2] is None else Span(row[2], row[3])) for row in rows]


def mark_planned(
    conn: Connection, update_id: str, audiences: Sequence[str], *, falling: Sequence[str] = ()
) -> None:
    """These audiences have their rows; `falling` are those with a next step for a failed one."""
    conn.execute(
        "UPDATE release SET planned_at = now(), falls = audience = ANY(%(falling)s)"
        " WHERE update_id = %(update)s AND audience = ANY(%(audiences)s)",
        {"update": update_id, "audiences": list(audiences), "falling": list(falling)},
    )


def directory(conn: Connection) -> Span | None:
    """From the first to the last person; None if there is nobody."""
    row = conn.execute("SELECT min(id), max(id) FROM recipient").fetchone()
    return None if row is None or row[0] is None else Span(row[0], row[1])


def mark_part(conn: Connection, update_id: str, audiences: Sequence[str], done: Span) -> None:
    """These people of the audiences are planned; the rest follows."""
    conn.execute(
        "UPDATE release SET vanguard_first = %s, vanguard_last = %s"
        " WHERE update_id = %s AND audience = ANY(%s)",
        (done.first, done.last, update_id, list(audiences)),
    )


_CELLS = """
CREATE TEMP TABLE cell ON COMMIT DROP AS
SELECT c.cell, c.size, v.audience, v.channel, v.message_id, v.adapter, v.sender,
    (%(reasons)s::text[])[c.cell %% 8 + 1] AS reason,
    CASE c.cell %% 8 WHEN 0 THEN 'pending' WHEN %(spared)s THEN 'spared' ELSE 'skipped' END AS state
FROM (SELECT cell, count(*)::int AS size FROM choice GROUP BY cell) c
JOIN voice v ON v.voice = c.cell / 8
"""

_PLANNED = """
INSERT INTO planned (update_id, audience, channel, rows)
SELECT %(update)s, audience, channel, sum(size) FROM cell GROUP BY audience, channel
ON CONFLICT (update_id, audience, channel) DO UPDATE SET rows = planned.rows + EXCLUDED.rows
"""

_MEMBERS = """
INSERT INTO membership (incident_id, audience, recipients)
SELECT %(incident)s, (%(rules)s::text[])[belongs], array_agg(id) FROM who
WHERE belongs > 0 AND NOT member GROUP BY belongs
"""

# The first chunk of every cell goes before the second of any.
_PARCELS = """
CREATE TEMP TABLE parcel ON COMMIT DROP AS
SELECT c.*, chunk, least(%(size)s, c.size - chunk * %(size)s) AS rows,
    nextval(pg_get_serial_sequence('batch', 'id')) AS batch_id,
    row_number() OVER (ORDER BY chunk, c.cell) AS seq
FROM cell c, generate_series(0, (c.size - 1) / %(size)s) AS chunk
"""

_BATCHES = """
INSERT INTO batch (id, update_id, audience, channel, adapter, sender, message_id, lane, seq,
    size, open, due_at, enqueued_at, pending, skipped, spared, fallen)
OVERRIDING SYSTEM VALUE
SELECT batch_id, %(update)s, audience, channel, adapter, sender, message_id, %(lane)s,
    seq, rows, state = 'pending', CASE state WHEN 'pending' THEN now() END,
    CASE state WHEN 'pending' THEN now() END,
    CASE state WHEN 'pending' THEN rows ELSE 0 END,
    CASE state WHEN 'skipped' THEN rows ELSE 0 END,
    CASE state WHEN 'spared' THEN rows ELSE 0 END,
    CASE state WHEN 'skipped' THEN rows ELSE 0 END
FROM parcel
"""

# Priority first, then who was never told, then who was told longest ago, then a shuffle
# of this incident's own, so that a slow rate does not starve the same people each time.
_DELIVERIES = """
INSERT INTO delivery (update_id, batch_id, recipient_id, contact_point_id, shared_contact_id,
    channel, seq, state, reason, next_attempt_at)
SELECT %(update)s, p.batch_id, d.recipient_id, d.contact_point_id, d.shared_contact_id,
    p.channel, d.turn, p.state, p.reason, CASE p.state WHEN 'pending' THEN now() END
FROM (
    SELECT c.recipient_id, c.contact_point_id, c.shared_contact_id, c.cell,
        row_number() OVER (PARTITION BY c.cell ORDER BY NOT c.priority, told.at NULLS FIRST,
            hashint8extended(c.recipient_id, hashtextextended(%(incident)s::text, 2))) AS turn
    FROM choice c LEFT JOIN told ON told.recipient_id = c.recipient_id
) d JOIN parcel p ON p.cell = d.cell AND p.chunk = (d.turn - 1) / %(size)s
"""


def insert(
    conn: Connection,
    *,
    incident_id: str,
    update_id: str,
    lane: str,
    rules: Sequence[selection.Rule],
    batch_size: int,
) -> list[Queued]:
    """Turn this transaction's selection into rows; returns the batches to send, in order.

    `rules` are those of the selection's question.
    """
    values = {
        "incident": incident_id,
        "update": update_id,
        "lane": lane,
        "rules": selection.names(rules),
        "reasons": list(selection.REASONS),
        "spared": selection.REASONS.index("not_told_before"),
        "size": batch_size,
    }
    conn.execute("DROP TABLE IF EXISTS pg_temp.cell, pg_temp.parcel")
    with selection.joining(conn, few=False):
        for statement in (_CELLS, _PLANNED, _MEMBERS, _PARCELS, _BATCHES, _DELIVERIES):
            conn.execute(statement, values, prepare=False)
    rows = conn.execute(
        "SELECT batch_id FROM parcel WHERE state = 'pending' ORDER BY seq", prepare=False
    ).fetchall()
    return [Queued(batch_id=row[0], lane=lane) for row in rows]


_TELLING = ("", "not_told_before", "shared_contact")
"""A person selected with one of these needs no earlier update any more."""

_SUPERSEDE = f"""
WITH moved AS (
    UPDATE delivery d SET state = 'superseded', reason = 'newer_update', changed_at = now(),
        next_attempt_at = NULL
    FROM choice c
    WHERE d.update_id = ANY(%(earlier)s::uuid[]) AND d.recipient_id = c.recipient_id
        AND d.state = 'pending' AND c.cell %% 8 = ANY(%(telling)s::int[])
    RETURNING d.batch_id, 'pending' AS was_state, d.state AS now_state,
        NULL::timestamptz AS accepted_at
), {counters()}
SELECT count(*) FROM moved
"""


def supersede(conn: Connection, *, earlier: Sequence[str], few: bool) -> int:
    """Take back what is unsent of earlier updates for the people now selected; returns how many.

    `few` as the selection said.

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
    values = {
        "earlier": list(earlier),
        "telling": [selection.REASONS.index(reason) for reason in _TELLING],
    }
    with selection.joining(conn, few=few):
        row = conn.execute(_SUPERSEDE, values, prepare=False).fetchone()
    return int(one(row))


_OVERTAKEN = f"""
WITH moved AS (
    UPDATE delivery d SET state = 'superseded', reason = 'newer_update', changed_at = now(),
        next_attempt_at = NULL
    WHERE d.update_id = %(update)s AND d.batch_id = ANY(%(batches)s) AND d.state = 'pending'
        AND {told_since(update="%(update)s", recipient="d.recipient_id")}
    RETURNING d.batch_id, 'pending' AS was_state, d.state AS now_state,
        NULL::timestamptz AS accepted_at
), {counters()}
SELECT count(*) FROM moved
"""


def give_way(conn: Connection, *, incident_id: str, update_id: str, batches: Sequence[int]) -> int:
    """Take back, of what was just planned, whoever a newer update tells; returns how many.

    The newer one was planned between two parts of this one, or while it was stopped.
    """
    newer = conn.execute(
        "SELECT EXISTS (SELECT FROM incident_update u JOIN release r ON r.update_id = u.id"
        " WHERE u.incident_id = %s AND u.id > %s AND r.released_at IS NOT NULL)",
        (incident_id, update_id),
    ).fetchone()
    if not one(newer):
        return 0
    row = conn.execute(
        _OVERTAKEN, {"update": update_id, "batches": list(batches)}, prepare=False
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

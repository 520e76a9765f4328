"""Stop, resume and expiry: moving what is unsent, with the counts of what was and was not."""

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.ledger.connection import Connection, one
from dispatcher.ledger.counting import counters


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a stop saved (never sent) and what had left before it took effect."""

    saved: int
    left: int


def _lock(conn: Connection, update_id: str, audiences: Sequence[str] | None) -> list[int]:
    rows = conn.execute(
        "SELECT id FROM batch WHERE update_id = %(update)s AND message_id IS NOT NULL"
        " AND (%(all)s OR audience = ANY(%(audiences)s)) ORDER BY id FOR UPDATE",
        {"update": update_id, "all": audiences is None, "audiences": list(audiences or ())},
    ).fetchall()
    return [row[0] for row in rows]


def stop(conn: Connection, update_id: str, audiences: Sequence[str]) -> Stopped:
    """Move what is pending to *stopped*; the release rows are already marked."""
    batches = _lock(conn, update_id, audiences)
    saved = int(
        one(
            conn.execute(
                "WITH moved AS (UPDATE delivery SET state = 'stopped', reason = 'stopped',"
                " changed_at = now(), next_attempt_at = NULL"
                " WHERE update_id = %s AND batch_id = ANY(%s) AND state = 'pending'"
                " RETURNING batch_id, 'pending' AS was_state, state AS now_state,"
                " NULL::timestamptz AS accepted_at), " + counters() + " SELECT count(*) FROM moved",
                (update_id, batches),
            ).fetchone()
        )
    )
    left = int(
        one(
            conn.execute(
                "SELECT coalesce(sum(sending + accepted + delivered + unknown), 0)"
                " FROM batch WHERE id = ANY(%s)",
                (batches,),
            ).fetchone()
        )
    )
    return Stopped(saved=saved, left=left)


def resume(conn: Connection, update_id: str, audiences: Sequence[str]) -> list[tuple[int, str]]:
    """Move what was stopped back to pending; returns the (batch, lane) to enqueue."""
    batches = _lock(conn, update_id, audiences)
    conn.execute(
        "WITH moved AS (UPDATE delivery SET state = 'pending', reason = '',"
        " changed_at = now(), next_attempt_at = now()"
        " WHERE update_id = %s AND batch_id = ANY(%s) AND state = 'stopped'"
        " RETURNING batch_id, 'stopped' AS was_state, state AS now_state,"
        " NULL::timestamptz AS accepted_at), " + counters() + " SELECT count(*) FROM moved",
        (update_id, batches),
    )
    conn.execute("UPDATE message SET paused_at = NULL WHERE update_id = %s", (update_id,))
    rows = conn.execute(
        "UPDATE batch SET due_at = now(), enqueued_at = now()"
        " WHERE id = ANY(%s) AND pending > 0 RETURNING id, lane, seq",
        (batches,),
    ).fetchall()
    return [(row[0], row[1]) for row in sorted(rows, key=lambda row: int(row[2]))]


def expire(conn: Connection, update_id: str) -> int:
    """Move what is still pending past the update's expiry to *expired*; returns how many."""
    batches = _lock(conn, update_id, None)
    return int(
        one(
            conn.execute(
                "WITH moved AS (UPDATE delivery d SET state = 'expired', reason = 'expired',"
                " changed_at = now(), next_attempt_at = NULL FROM incident_update u"
                " WHERE u.id = %(update)s AND u.expires_at <= now() AND d.update_id = %(update)s"
                " AND d.batch_id = ANY(%(batches)s) AND d.state = 'pending'"
                " RETURNING d.batch_id, 'pending' AS was_state, d.state AS now_state,"
                " NULL::timestamptz AS accepted_at), " + counters() + " SELECT count(*) FROM moved",
                {"update": update_id, "batches": batches},
            ).fetchone()
        )
    )

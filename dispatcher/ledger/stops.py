"""Stop, resume and expiry: moving what is unsent, with the counts of what was and was not.

A stop takes effect with its commit: every batch is halted, which each claim looks at under
the batch's own lock, so the counts are exact and nothing is claimed after them. The rows
follow in small transactions (`align`), however many they are; a resume is the same way back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.ledger.connection import Connection, one
from dispatcher.ledger.counting import counters

AT_ONCE = 20
"""Batches whose rows are moved in one transaction."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """What a stop saved (never sent) and what had left before it took effect.

    Counted of what was planned by then: whoever is planned later is stopped uncounted.
    """

    saved: int
    left: int


@dataclass(frozen=True, slots=True)
class Aligned:
    """How many batches were looked at, and those (id, lane) that are to be sent again."""

    batches: int
    queued: tuple[tuple[int, str], ...] = ()


def _lock(conn: Connection, update_id: str, audiences: Sequence[str] | None) -> list[int]:
    rows = conn.execute(
        "SELECT id FROM batch WHERE update_id = %(update)s AND message_id IS NOT NULL"
        " AND (%(all)s OR audience = ANY(%(audiences)s)) ORDER BY id FOR UPDATE",
        {"update": update_id, "all": audiences is None, "audiences": list(audiences or ())},
    ).fetchall()
    return [row[0] for row in rows]


def stop(conn: Connection, update_id: str, audiences: Sequence[str]) -> Stopped:
    """Halt the batches of audiences whose release rows are already marked.

    Call inside the transaction that marks them.
    """
    batches = _lock(conn, update_id, audiences)
    row = conn.execute(
        "WITH halt AS (UPDATE batch SET halted = true, turning = true WHERE id = ANY(%s)"
        " RETURNING pending, sending + accepted + delivered + unknown AS gone)"
        " SELECT coalesce(sum(pending), 0)::int, coalesce(sum(gone), 0)::int FROM halt",
        (batches,),
    ).fetchone()
    assert row is not None
    align(conn, update_id=update_id)
    return Stopped(saved=row[0], left=row[1])


def halt_stopped(conn: Connection, update_id: str, batches: Sequence[int]) -> None:
    """Halt what was planned while its audience was being stopped.

    Call at the end of the planning transaction, when it has locked the release rows: a stop that
    came before is seen then, and one that comes after sees these batches.
    """
    conn.execute(
        "UPDATE batch b SET halted = true, turning = true FROM release r"
        " WHERE b.id = ANY(%s) AND r.update_id = %s AND r.audience = b.audience"
        " AND r.state = 'stopped'",
        (list(batches), update_id),
    )


def resume(conn: Connection, update_id: str, audiences: Sequence[str]) -> list[tuple[int, str]]:
    """Let go what was stopped or paused; returns the (batch, lane) to enqueue now.

    The rest is enqueued by who aligns it.
    """
    batches = _lock(conn, update_id, audiences)
    conn.execute("UPDATE message SET paused_at = NULL WHERE update_id = %s", (update_id,))
    rows = conn.execute(
        "UPDATE batch SET halted = false, turning = turning OR halted OR stopped > 0,"
        " due_at = CASE WHEN pending > 0 THEN now() ELSE due_at END,"
        " enqueued_at = CASE WHEN pending > 0 THEN now() ELSE enqueued_at END"
        " WHERE id = ANY(%s) RETURNING id, lane, pending > 0",
        (batches,),
    ).fetchall()
    pending = [(row[0], row[1]) for row in sorted(rows) if row[2]]
    return [*pending, *align(conn, update_id=update_id).queued]


_ALIGN = """
WITH moved AS (
    UPDATE delivery d SET changed_at = now(),
        state = CASE WHEN b.halted THEN 'stopped' ELSE 'pending' END,
        reason = CASE WHEN b.halted THEN 'stopped' ELSE '' END,
        next_attempt_at = CASE WHEN b.halted THEN NULL ELSE now() END
    FROM batch b
    WHERE b.id = ANY(%(batches)s) AND d.update_id = %(update)s AND d.batch_id = b.id
        AND d.state = CASE WHEN b.halted THEN 'pending' ELSE 'stopped' END
    RETURNING d.batch_id, OLD.state AS was_state, d.state AS now_state,
        NULL::timestamptz AS accepted_at
), """


def align(conn: Connection, *, update_id: str | None = None, limit: int = AT_ONCE) -> Aligned:
    """Move the rows of some batches that were halted or let go; call inside a transaction.

    Batches that others are at are left to the next call.
    """
    found = conn.execute(
        "SELECT id, update_id::text FROM batch WHERE turning AND (%(update)s::uuid IS NULL OR"
        " update_id = %(update)s) ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED",
        {"update": update_id, "limit": limit},
    ).fetchall()
    for update in {row[1] for row in found}:
        batches = [row[0] for row in found if row[1] == update]
        conn.execute(
            (_ALIGN + counters()).encode() + b" SELECT", {"update": update, "batches": batches}
        )
    # What is under way when a stop comes may come back refused for now: it is looked at again.
    rows = conn.execute(
        "UPDATE batch SET turning = halted AND sending > 0,"
        " due_at = CASE WHEN NOT halted AND pending > 0 THEN now() ELSE due_at END,"
        " enqueued_at = CASE WHEN NOT halted AND pending > 0 THEN now() ELSE enqueued_at END"
        " WHERE id = ANY(%s) RETURNING id, lane, seq, NOT halted AND pending > 0, turning",
        ([row[0] for row in found],),
    ).fetchall()
    queued = sorted((row[2], row[0], row[1]) for row in rows if row[3])
    return Aligned(
        batches=sum(not row[4] for row in rows),
        queued=tuple((batch, lane) for _, batch, lane in queued),
    )


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

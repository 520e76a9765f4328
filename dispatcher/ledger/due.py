"""What the sweep looks for: due batches, dead leases, expired updates, months to come."""

from dataclasses import dataclass

from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class DueBatch:
    """A batch with work to do and nobody on it."""

    batch_id: int
    lane: str


@dataclass(frozen=True, slots=True)
class DeadLease:
    """A batch whose lease ran out with rows in doubt."""

    batch_id: int
    update_id: str


def take_due(conn: Connection, *, lane: str, quiet_seconds: float, limit: int) -> list[DueBatch]:
    """Batches of a lane that are due, free, and not named to a worker in the last while.

    Marks them as named now, so that two sweeps at once do not both name them. At most
    `limit`, the longest due first.
    """
    rows = conn.execute(
        "UPDATE batch SET enqueued_at = now() WHERE id IN ("
        " SELECT b.id FROM batch b JOIN release r ON r.update_id = b.update_id"
        " AND r.audience = b.audience AND r.state = 'released'"
        " JOIN message m ON m.id = b.message_id AND m.paused_at IS NULL"
        " WHERE b.open AND b.due_at <= now() AND b.lane = %(lane)s"
        " AND (b.lease_until IS NULL OR b.lease_until <= now())"
        " AND (b.enqueued_at IS NULL OR b.enqueued_at < b.due_at"
        "  OR b.enqueued_at < now() - make_interval(secs => %(quiet)s))"
        " ORDER BY b.due_at, b.seq LIMIT %(limit)s FOR UPDATE OF b SKIP LOCKED)"
        " RETURNING id, lane, seq",
        {"lane": lane, "quiet": quiet_seconds, "limit": limit},
    ).fetchall()
    return [DueBatch(row[0], row[1]) for row in sorted(rows, key=lambda row: int(row[2]))]


def named_now(conn: Connection, batch_id: int) -> str | None:
    """Mark one batch as named to a worker; returns its lane, None if it has nothing to do."""
    row = conn.execute(
        "UPDATE batch SET enqueued_at = now() WHERE id = %s AND open AND due_at <= now()"
        " RETURNING lane",
        (batch_id,),
    ).fetchone()
    return row[0] if row else None


def dead_leases(conn: Connection) -> list[DeadLease]:
    """Open batches whose lease ran out while rows were on their way."""
    rows = conn.execute(
        "SELECT id, update_id::text FROM batch WHERE open AND sending > 0"
        " AND lease_until <= now() ORDER BY id"
    ).fetchall()
    return [DeadLease(*row) for row in rows]


def bury(conn: Connection, batch_id: int) -> bool:
    """Take a dead lease over for good: its epoch ends, so that late outcomes are only evidence."""
    row = conn.execute(
        "UPDATE batch SET lease_epoch = lease_epoch + 1, lease_owner = NULL, lease_until = NULL,"
        " due_at = CASE WHEN pending > 0 THEN now() END"
        " WHERE id = %s AND lease_until <= now() RETURNING id",
        (batch_id,),
    ).fetchone()
    return row is not None


def expired_updates(conn: Connection) -> list[str]:
    """Updates past their expiry with rows still pending."""
    rows = conn.execute(
        "SELECT DISTINCT b.update_id::text FROM batch b"
        " JOIN incident_update u ON u.id = b.update_id"
        " WHERE b.open AND b.pending > 0 AND u.expires_at <= now()"
    ).fetchall()
    return [row[0] for row in rows]


def ensure_months(conn: Connection) -> None:
    """Partitions for this month and the next two."""
    conn.execute(
        "SELECT ensure_month(now() + make_interval(months => n)) FROM generate_series(0, 2) n"
    )

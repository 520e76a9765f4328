"""Circuit breakers: which adapter and sender nothing goes out by, until when, and who probes.

A breaker is a row as long as it is open. Once `probe_at` has come it is half open: one
batch is leased to try one envelope, and its outcome closes the breaker or opens it anew.
"""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from dispatcher.ledger.connection import Connection

PROBE_SECONDS = 30.0
"""How long a probe may take before another batch may try."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """An open breaker as operators see it. `probes` counts the tries in vain."""

    adapter: str
    sender: str
    reason: str
    detail: str
    opened_at: datetime
    probe_at: datetime
    probes: int


def open_now(conn: Connection) -> list[Breaker]:
    """Every open breaker, the oldest first."""
    with conn.cursor(row_factory=class_row(Breaker)) as cursor:
        return cursor.execute(
            "SELECT adapter, sender, reason, detail, opened_at, probe_at, probes FROM breaker"
            " ORDER BY opened_at, adapter, sender"
        ).fetchall()


def open_breaker(
    conn: Connection,
    *,
    adapter: str,
    sender: str,
    reason: str,
    detail: str,
    seconds: float,
    longest: float,
    probed: bool,
) -> bool:
    """Nothing more goes out by this adapter and sender for a while; True if it was not open.

    `seconds` at first, twice as long after each probe in vain (`probed`), at most `longest`.
    What other workers had on the wire when it opened does not make it longer.
    """
    row = conn.execute(
        "INSERT INTO breaker AS k (adapter, sender, reason, detail, opened_at, probe_at)"
        " VALUES (%(adapter)s, %(sender)s, %(reason)s, %(detail)s, now(),"
        " now() + make_interval(secs => %(seconds)s))"
        " ON CONFLICT (adapter, sender) DO UPDATE SET reason = EXCLUDED.reason,"
        " detail = EXCLUDED.detail,"
        " probing_batch = CASE WHEN %(probed)s THEN NULL ELSE k.probing_batch END,"
        " probes = k.probes + %(probed)s::int,"
        " probe_at = CASE WHEN %(probed)s THEN now() + make_interval(secs =>"
        "  least(%(longest)s, %(seconds)s * power(2, least(k.probes + 1, 20))))"
        "  ELSE greatest(k.probe_at, EXCLUDED.probe_at) END"
        " RETURNING OLD.adapter IS NULL",
        {
            "adapter": adapter,
            "sender": sender,
            "reason": reason,
            "detail": detail,
            "seconds": seconds,
            "longest": longest,
            "probed": probed,
        },
    ).fetchone()
    return bool(row and row[0])


def take_probe(conn: Connection, *, adapter: str, sender: str, batch_id: int) -> bool:
    """Whether this freshly leased batch may try what the breaker keeps back; else its lease ends.

    Call inside the transaction of the lease.
    """
    values = {
        "adapter": adapter,
        "sender": sender,
        "batch": batch_id,
        "seconds": PROBE_SECONDS,
    }
    closed = conn.execute(
        "SELECT probe_at > now() FROM breaker WHERE adapter = %(adapter)s"
        " AND sender IN ('', %(sender)s) ORDER BY sender FOR UPDATE",
        values,
    ).fetchall()
    if any(row[0] for row in closed):
        conn.execute(
            "UPDATE batch b SET lease_owner = NULL, lease_until = NULL,"
            " due_at = CASE WHEN b.pending > 0 THEN greatest(b.due_at, k.at) END"
            " FROM (SELECT max(probe_at) AS at FROM breaker WHERE adapter = %(adapter)s"
            "  AND sender IN ('', %(sender)s)) k WHERE b.id = %(batch)s",
            values,
        )
        return False
    conn.execute(
        "UPDATE breaker SET probing_batch = %(batch)s,"
        " probe_at = now() + make_interval(secs => %(seconds)s)"
        " WHERE adapter = %(adapter)s AND sender IN ('', %(sender)s)",
        values,
    )
    return True


def probe_again(conn: Connection, *, adapter: str, sender: str, seconds: float) -> None:
    """A probe that proved nothing: another may be made `seconds` from now."""
    conn.execute(
        "UPDATE breaker SET probing_batch = NULL,"
        " probe_at = now() + make_interval(secs => %s) WHERE adapter = %s AND sender IN ('', %s)",
        (seconds, adapter, sender),
    )


def close_breaker(conn: Connection, *, adapter: str, sender: str) -> bool:
    """The adapter works again; True if it was open. Batches that it kept back are due at once.

    Call inside a transaction.
    """
    gone = conn.execute(
        "DELETE FROM breaker WHERE adapter = %s AND sender IN ('', %s)", (adapter, sender)
    )
    if gone.rowcount:
        conn.execute(
            "UPDATE batch SET due_at = now(), enqueued_at = NULL WHERE id IN ("
            " SELECT id FROM batch WHERE open AND adapter = %s AND sender = %s"
            " AND due_at > now() AND pending > 0 ORDER BY id FOR UPDATE SKIP LOCKED)",
            (adapter, sender),
        )
    return gone.rowcount > 0

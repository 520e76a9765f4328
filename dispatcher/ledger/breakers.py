"""Circuit breakers: which adapter and sender nothing goes out by, and until when."""

from dispatcher.ledger.connection import Connection


def open_breaker(
    conn: Connection, *, adapter: str, sender: str, reason: str, detail: str, seconds: float
) -> None:
    """Nothing more goes out by this adapter and sender until `seconds` from now."""
    conn.execute(
        "INSERT INTO breaker (adapter, sender, reason, detail, opened_at, probe_at)"
        " VALUES (%(adapter)s, %(sender)s, %(reason)s, %(detail)s, now(),"
        " now() + make_interval(secs => %(seconds)s))"
        " ON CONFLICT (adapter, sender) DO UPDATE SET reason = EXCLUDED.reason,"
        " detail = EXCLUDED.detail, probe_at = EXCLUDED.probe_at",
        {
            "adapter": adapter,
            "sender": sender,
            "reason": reason,
            "detail": detail,
            "seconds": seconds,
        },
    )


def close_breaker(conn: Connection, *, adapter: str, sender: str) -> bool:
    """An acceptance proves that the adapter works again; True if it was open."""
    return (
        conn.execute(
            "DELETE FROM breaker WHERE adapter = %s AND sender = %s", (adapter, sender)
        ).rowcount
        > 0
    )

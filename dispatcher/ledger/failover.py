"""Batches that go by another account while their own is broken, and home again.

A batch moves only while nobody holds it and nothing of it is on the wire, so what is in
doubt stays with the account that tried it: that one stands in `attempt` and `doubt`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.ledger.connection import Connection


@dataclass(frozen=True, slots=True)
class Way:
    """From one adapter to another of the same channel and kind of contact point.

    `to_sender` is the other account's own sender, None if it uses the batch's.
    """

    from_adapter: str
    to_adapter: str
    to_sender: str | None


def wanted(conn: Connection) -> bool:
    """Whether a breaker is open, or a batch with work left is away from home."""
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM breaker) OR EXISTS"
        " (SELECT FROM batch WHERE home_adapter IS NOT NULL AND open)"
    ).fetchone()
    return bool(row and row[0])


_FREE = "b.open AND b.sending = 0 AND (b.lease_until IS NULL OR b.lease_until <= now())"

# A probe takes what can wait: bulk before urgent, the last before the first.
_MAY_PROBE = f"""
JOIN release r ON r.update_id = b.update_id AND r.audience = b.audience AND r.state = 'released'
JOIN message m ON m.id = b.message_id AND m.paused_at IS NULL
WHERE k.probe_at <= now() AND {_FREE} AND b.due_at <= now()
ORDER BY k.adapter, k.sender, array_position(ARRAY['bulk', 'normal', 'urgent'], b.lane), b.id DESC
"""

_AWAY = f"""
WITH way AS (
    SELECT * FROM unnest(%(from)s::text[], %(to)s::text[], %(senders)s::text[])
        WITH ORDINALITY AS w(from_adapter, to_adapter, to_sender, place)
), kept AS (
    SELECT DISTINCT ON (k.adapter, k.sender) b.id FROM breaker k
    JOIN batch b ON b.adapter = k.adapter AND k.sender IN ('', b.sender) {_MAY_PROBE}
), stuck AS (
    SELECT b.id, b.adapter, b.sender, b.home_adapter, b.home_sender FROM batch b
    WHERE {_FREE} AND b.id NOT IN (SELECT id FROM kept)
        AND EXISTS (SELECT FROM breaker k WHERE k.adapter = b.adapter
            AND k.sender IN ('', b.sender))
    ORDER BY b.id FOR UPDATE OF b SKIP LOCKED
), chosen AS (
    SELECT DISTINCT ON (s.id) s.id, w.to_adapter, n.sender,
        coalesce(s.home_adapter, s.adapter) AS home_adapter,
        coalesce(s.home_sender, s.sender) AS home_sender
    FROM stuck s JOIN way w ON w.from_adapter = s.adapter
    CROSS JOIN LATERAL (SELECT CASE WHEN w.to_adapter = s.home_adapter THEN s.home_sender
        ELSE coalesce(w.to_sender, s.home_sender, s.sender) END AS sender) n
    WHERE NOT EXISTS (SELECT FROM breaker k WHERE k.adapter = w.to_adapter
        AND k.sender IN ('', n.sender))
    ORDER BY s.id, w.place
)
UPDATE batch b SET adapter = c.to_adapter, sender = c.sender,
    home_adapter = CASE WHEN c.to_adapter <> c.home_adapter THEN c.home_adapter END,
    home_sender = CASE WHEN c.to_adapter <> c.home_adapter THEN c.home_sender END,
    lease_epoch = b.lease_epoch + 1, lease_owner = NULL, lease_until = NULL,
    due_at = now(), enqueued_at = NULL
FROM chosen c WHERE b.id = c.id
"""


def move_away(conn: Connection, ways: Sequence[Way]) -> int:
    """Move what an open breaker keeps back to the first way that is open; returns how many.

    Where the breaker may be probed, one batch stays for that. Call inside a transaction.
    """
    return conn.execute(
        _AWAY.encode(),
        {
            "from": [way.from_adapter for way in ways],
            "to": [way.to_adapter for way in ways],
            "senders": [way.to_sender for way in ways],
        },
        prepare=False,
    ).rowcount


_HOME = f"""
WITH probe AS (
    SELECT DISTINCT ON (k.adapter, k.sender) b.id FROM breaker k
    JOIN batch b ON b.home_adapter = k.adapter AND k.sender IN ('', b.home_sender)
        AND NOT EXISTS (SELECT FROM batch o WHERE o.adapter = k.adapter
            AND k.sender IN ('', o.sender) AND o.open AND o.due_at <= now())
    {_MAY_PROBE}
), back AS (
    SELECT b.id FROM batch b
    WHERE b.home_adapter = ANY(%(adapters)s::text[]) AND {_FREE}
        AND (b.id IN (SELECT id FROM probe) OR NOT EXISTS (SELECT FROM breaker k
            WHERE k.adapter = b.home_adapter AND k.sender IN ('', b.home_sender)))
    ORDER BY b.id FOR UPDATE OF b SKIP LOCKED
)
UPDATE batch b SET adapter = b.home_adapter, sender = b.home_sender, home_adapter = NULL,
    home_sender = NULL, lease_epoch = b.lease_epoch + 1, lease_owner = NULL, lease_until = NULL,
    due_at = now(), enqueued_at = NULL
FROM back WHERE b.id = back.id
"""


def move_home(conn: Connection, adapters: Sequence[str]) -> int:
    """Move batches home where the breaker is closed, and one where it may be probed.

    `adapters` are those that are configured. Call inside a transaction.
    """
    return conn.execute(_HOME.encode(), {"adapters": list(adapters)}, prepare=False).rowcount

"""Addresses that are never sent to again, by kind and keyed hash.

Owns the suppression table. Must not know addresses: a row holds a hash and a hint. A
suppression outlives its recipient, so that an import cannot undo an opt-out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from psycopg.rows import class_row

from dispatcher.ledger.connection import Connection

MAX_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Suppression:
    """A suppressed address as it may be shown. `id` is the cursor of the page after it."""

    id: int
    kind: str
    hint: str = field(repr=False)
    reason: str
    source: str
    created_at: datetime


def page(conn: Connection, *, after: int = 0, limit: int = 100) -> list[Suppression]:
    """Suppressions in the order they were made, from the one after the cursor `after`.

    At most `limit` (and never more than `MAX_PAGE`); fewer means that there are no more.
    """
    with conn.cursor(row_factory=class_row(Suppression)) as cursor:
        return cursor.execute(
            "SELECT id, kind, hint, reason, source, created_at FROM suppression"
            " WHERE id > %s ORDER BY id LIMIT %s",
            (after, max(1, min(limit, MAX_PAGE))),
        ).fetchall()


def add(conn: Connection, *, kind: str, lookup: bytes, hint: str, reason: str, source: str) -> bool:
    """Suppress an address; False, and the first reason stays, if it was already."""
    added = conn.execute(
        "INSERT INTO suppression (kind, lookup, hint, reason, source)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (kind, lookup) DO NOTHING",
        (str(kind), lookup, hint, reason, source),
    )
    return added.rowcount == 1


def add_points(
    conn: Connection, contact_point_ids: Sequence[int], *, reason: str, source: str
) -> int:
    """Suppress stored contact points; returns how many were not suppressed before."""
    return conn.execute(
        "INSERT INTO suppression (kind, lookup, hint, reason, source)"
        " SELECT kind, lookup, hint, %s, %s FROM contact_point WHERE id = ANY(%s)"
        " ORDER BY kind, lookup ON CONFLICT (kind, lookup) DO NOTHING",
        (reason, source, list(contact_point_ids)),
    ).rowcount


def remove(conn: Connection, *, kind: str, lookup: bytes) -> bool:
    """Lift a suppression; False if there was none."""
    gone = conn.execute(
        "DELETE FROM suppression WHERE kind = %s AND lookup = %s", (str(kind), lookup)
    )
    return gone.rowcount == 1


def suppress(
    conn: Connection, rows: Sequence[tuple[str, bytes]], *, reason: str, source: str
) -> None:
    """Suppress contact points (kind, lookup) that a provider says can never receive."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO suppression (kind, lookup, hint, reason, source)"
            " SELECT kind, lookup, hint, %s, %s FROM contact_point WHERE kind = %s AND lookup = %s"
            " ON CONFLICT DO NOTHING",
            [(reason, source, kind, lookup) for kind, lookup in rows],
        )

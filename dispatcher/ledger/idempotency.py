"""Answers kept for repeated requests, stored in the transaction that does the work.

A key counts per actor and route for 24 hours. Two requests with one key at once: the
second is told to come back, it never waits and never works twice.
"""

import hashlib
from dataclasses import dataclass

from dispatcher.ledger.connection import Connection

KEEP_HOURS = 24


class StillRunning(Exception):
    """The first request with this key has not finished."""


class KeyReused(Exception):
    """This key was used for another body."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored answer: HTTP status and body as sent."""

    status: int
    body: bytes


def begin(conn: Connection, *, actor: str, route: str, key: str, body: bytes) -> Answer | None:
    """The stored answer for this request, or None if the work is to be done now.

    Call inside the transaction that does the work. Raises `StillRunning`, `KeyReused`.
    """
    lock = int.from_bytes(
        hashlib.sha256(f"{actor}\n{route}\n{key}".encode()).digest()[:8], "big", signed=True
    )
    taken = conn.execute("SELECT pg_try_advisory_xact_lock(%s)", (lock,)).fetchone()
    if not taken or not taken[0]:
        raise StillRunning
    row = conn.execute(
        "SELECT body_hash, status, body FROM idempotency"
        " WHERE actor = %s AND route = %s AND key = %s"
        f" AND created_at > now() - interval '{KEEP_HOURS} hours'",
        (actor, route, key),
    ).fetchone()
    if row is None:
        return None
    if bytes(row[0]) != hashlib.sha256(body).digest():
        raise KeyReused
    return Answer(status=row[1], body=bytes(row[2]))


def kept(conn: Connection, *, actor: str, route: str, key: str) -> Answer | None:
    """The stored answer under a key, whatever its body was."""
    row = conn.execute(
        "SELECT status, body FROM idempotency WHERE actor = %s AND route = %s AND key = %s",
        (actor, route, key),
    ).fetchone()
    return None if row is None else Answer(status=row[0], body=bytes(row[1]))


def keep(
    conn: Connection, *, actor: str, route: str, key: str, body: bytes, answer: Answer
) -> None:
    """Store the answer with the work; an expired one under the same key is replaced."""
    conn.execute(
        "INSERT INTO idempotency (actor, route, key, body_hash, status, body)"
        " VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (actor, route, key) DO UPDATE SET body_hash = EXCLUDED.body_hash,"
        " status = EXCLUDED.status, body = EXCLUDED.body, created_at = now()",
        (actor, route, key, hashlib.sha256(body).digest(), answer.status, answer.body),
    )


def forget_old(conn: Connection) -> int:
    """Remove answers past their time; returns how many."""
    return conn.execute(
        f"DELETE FROM idempotency WHERE created_at < now() - interval '{KEEP_HOURS} hours'"
    ).rowcount

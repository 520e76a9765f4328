"""API keys as stored: prefix to find, hash to prove, scopes and reach limit to judge."""

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from dispatcher.ledger import audit
from dispatcher.ledger.connection import Connection, one
from dispatcher.security import keys
from dispatcher.security.rights import Actor, Scope, parse_scopes


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it may be shown."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    reach_limit: int | None
    created_at: datetime
    revoked_at: datetime | None


def create(
    conn: Connection,
    *,
    name: str,
    scopes: frozenset[Scope],
    reach_limit: int | None,
    created_by: str,
) -> tuple[str, str]:
    """Store a new key; returns (id, token). The token is not stored and cannot be shown again."""
    fresh = keys.new_key()
    key_id: str = one(
        conn.execute(
            "INSERT INTO api_key (name, prefix, hash, scopes, reach_limit, created_by)"
            " VALUES (%s, %s, %s, %s, %s, %s) RETURNING id::text",
            (
                name,
                fresh.prefix,
                fresh.hash,
                sorted(scope.value for scope in scopes),
                reach_limit,
                created_by,
            ),
        ).fetchone()
    )
    audit.record(
        conn,
        actor=created_by,
        act="key.create",
        detail={"key": key_id, "name": name, "scopes": sorted(s.value for s in scopes)},
    )
    return key_id, fresh.token


def revoke(conn: Connection, key_id: str, *, revoked_by: str) -> bool:
    """Revoke by id or prefix; False if there is no such live key."""
    row = conn.execute(
        "UPDATE api_key SET revoked_at = now()"
        " WHERE (id::text = %(key)s OR prefix = %(key)s) AND revoked_at IS NULL RETURNING id::text",
        {"key": key_id},
    ).fetchone()
    if row is None:
        return False
    audit.record(conn, actor=revoked_by, act="key.revoke", detail={"key": row[0]})
    return True


def listed(conn: Connection) -> list[KeyRow]:
    """All keys, newest first."""
    with conn.cursor(row_factory=class_row(KeyRow)) as cursor:
        cursor.execute(
            "SELECT id::text, name, prefix, scopes, reach_limit, created_at, revoked_at"
            " FROM api_key ORDER BY created_at DESC"
        )
        return cursor.fetchall()


def actor_for(conn: Connection, token: str) -> Actor | None:
    """Who holds this token, or None if it is unknown or revoked."""
    prefix = keys.prefix_of(token)
    if prefix is None:
        return None
    row = conn.execute(
        "SELECT id::text, name, hash, scopes, reach_limit FROM api_key"
        " WHERE prefix = %s AND revoked_at IS NULL",
        (prefix,),
    ).fetchone()
    if row is None or not keys.matches(token, bytes(row[2])):
        return None
    return Actor(id=f"key:{row[0]}", name=row[1], scopes=parse_scopes(row[3]), reach_limit=row[4])

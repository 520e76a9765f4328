"""In-app messages as rows: put once per key, read in order, opened by a short-lived token.

Owns the inbox tables and implements the port of `channels`. An inbox is known by its keyed
hash only. Must not know providers, HTTP or how a message came to be.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from psycopg.rows import class_row

from channels.contract import ContactKind, InboxItem
from dispatcher.ledger.connection import Connection, Ledger, LedgerAway
from dispatcher.security.sealing import Sealer

MAX_TOKEN_SECONDS = 3600
MAX_PAGE = 500

_PUT_LOCK = 0x6F75_7465


class NoInbox(Exception):
    """There is no such recipient, or it has no inbox."""


@dataclass(frozen=True, slots=True)
class InboxMessage:
    """One message as its reader sees it. `seq` is the cursor of what comes after it."""

    seq: int
    key: str
    title: str
    body: str
    thread: str
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class InboxCopies:
    """How often one inbox shows one content; `content` is the SHA-256 of title and body."""

    inbox: bytes = field(repr=False)
    content: str
    copies: int


class LedgerInbox:
    """The `Inbox` port of `channels`, kept in PostgreSQL."""

    def __init__(self, ledger: Ledger, sealer: Sealer) -> None:
        self._ledger = ledger
        self._sealer = sealer

    def put(self, items: Sequence[InboxItem]) -> None:
        """Store each item once per key, durable on return; a repeated key changes nothing.

        Raises `ConnectionError` if the database certainly did not take them, and
        `LedgerAway` if it went away while it was told to commit: then it may have.
        """
        told_to_commit = False
        try:
            with self._ledger.transaction() as work:
                self._insert(work.conn, items)
                told_to_commit = True
        except LedgerAway:
            if told_to_commit:
                raise
        if not told_to_commit:
            raise ConnectionError("the inbox cannot be reached")

    def _insert(self, conn: Connection, items: Sequence[InboxItem]) -> None:
        # Numbers are taken and committed in one order, so that a reader who goes on
        # after the highest it saw misses nothing.
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (_PUT_LOCK,))
        conn.execute(
            "INSERT INTO inbox_message (key, inbox, title, body, thread, expires_at)"
            " SELECT key, inbox, title, body, thread, expires_at FROM unnest(%s::uuid[],"
            " %s::bytea[], %s::text[], %s::text[], %s::text[], %s::timestamptz[])"
            " WITH ORDINALITY AS t (key, inbox, title, body, thread, expires_at, place)"
            " ORDER BY place ON CONFLICT (key) DO NOTHING",
            (
                [item.key for item in items],
                [self._sealer.lookup(ContactKind.INBOX, item.inbox) for item in items],
                [item.title for item in items],
                [item.body for item in items],
                [item.thread for item in items],
                [item.expires_at for item in items],
            ),
        )


def after(
    conn: Connection, inbox_lookup: bytes, last_seq: int = 0, limit: int = 100
) -> list[InboxMessage]:
    """An inbox's messages after `last_seq` that have not expired, oldest first."""
    with conn.cursor(row_factory=class_row(InboxMessage)) as cursor:
        return cursor.execute(
            "SELECT seq, key::text, title, body, thread, created_at, expires_at"
            " FROM inbox_message WHERE inbox = %s AND seq > %s"
            " AND (expires_at IS NULL OR expires_at > now()) ORDER BY seq LIMIT %s",
            (inbox_lookup, last_seq, max(1, min(limit, MAX_PAGE))),
        ).fetchall()


def issue_token(conn: Connection, ref: str, seconds: int = MAX_TOKEN_SECONDS) -> str:
    """A token that opens one recipient's inbox, its first if it has several.

    Only its hash is stored; it cannot be shown again. Raises `NoInbox`, and `ValueError`
    for a time of less than a second or more than an hour.
    """
    if not 1 <= seconds <= MAX_TOKEN_SECONDS:
        raise ValueError(f"a token lives 1 to {MAX_TOKEN_SECONDS} seconds")
    token = secrets.token_urlsafe(32)
    issued = conn.execute(
        "INSERT INTO inbox_token (hash, inbox, expires_at)"
        " SELECT %s, p.lookup, now() + make_interval(secs => %s)"
        " FROM recipient r JOIN recipient_contact l ON l.recipient_id = r.id"
        " JOIN contact_point p ON p.id = l.contact_point_id"
        " WHERE r.ref = %s AND p.kind = %s ORDER BY p.id LIMIT 1",
        (_hash(token), seconds, ref, ContactKind.INBOX.value),
    )
    if issued.rowcount != 1:
        raise NoInbox("no recipient of this id has an inbox")
    return token


def inbox_of_token(conn: Connection, token: str) -> bytes | None:
    """The lookup of the inbox that a token opens, or None if it is unknown or has expired."""
    row = conn.execute(
        "SELECT inbox FROM inbox_token WHERE hash = %s AND expires_at > now()", (_hash(token),)
    ).fetchone()
    return bytes(row[0]) if row else None


def forget_old_tokens(conn: Connection) -> int:
    """Remove tokens past their time; returns how many."""
    return conn.execute("DELETE FROM inbox_token WHERE expires_at <= now()").rowcount


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


# What an independent reader of all inboxes counts


def counts(conn: Connection, *, after_seq: int = 0) -> dict[str, int]:
    """For each delivery id, how many messages stand in inboxes under it, expired or not."""
    return dict(
        conn.execute(
            "SELECT key::text, count(*) FROM inbox_message WHERE seq > %s GROUP BY key",
            (after_seq,),
        ).fetchall()
    )


def copies(conn: Connection, *, after_seq: int = 0) -> list[InboxCopies]:
    """For each inbox and content, how often it is there: more than planned is a duplicate."""
    with conn.cursor(row_factory=class_row(InboxCopies)) as cursor:
        return cursor.execute(
            "SELECT inbox, encode(sha256(convert_to(title || chr(10) || body, 'UTF8')), 'hex')"
            " AS content, count(*) AS copies FROM inbox_message WHERE seq > %s"
            " GROUP BY inbox, content",
            (after_seq,),
        ).fetchall()

"""What an incident's account afterwards is made from: who was told when, and with which words.

Owns questions over all updates of an incident. They read batches and messages, of which there
are few, and no deliveries, but for `carried`, which says so. Knows no words for people.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from dispatcher.ledger.connection import Connection
from dispatcher.ledger.updates import ReleaseRow

MOST_ACTS = 2_000
"""Acts of one incident that an account shows, the latest."""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one update's messages to one audience by one channel."""

    update_id: str
    audience: str
    channel: str
    planned: int
    told: int
    failed: int
    doubt: int
    first_at: datetime | None
    last_at: datetime | None


def told(conn: Connection, incident_id: str) -> tuple[Told, ...]:
    """All that was planned for an incident, by update, audience and channel, from counters."""
    rows = conn.execute(
        "SELECT b.update_id::text, b.audience, b.channel, sum(b.size)::bigint,"
        " sum(b.accepted + b.delivered)::bigint, sum(b.failed)::bigint, sum(b.unknown)::bigint,"
        " min(b.first_accepted_at), max(b.last_accepted_at)"
        " FROM batch b JOIN incident_update u ON u.id = b.update_id WHERE u.incident_id = %s"
        " GROUP BY b.update_id, b.audience, b.channel ORDER BY 1, 2, 3",
        (incident_id,),
    ).fetchall()
    return tuple(Told(*row) for row in rows)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Messages that were accepted between two moments, about evenly."""

    update_id: str
    audience: str
    channel: str
    first_at: datetime
    last_at: datetime
    told: int


def stretches(conn: Connection, incident_id: str) -> tuple[Stretch, ...]:
    """When messages were accepted, by the batches they went in: some thousand at a time.

    Batches that began and ended in the same seconds are one stretch.
    """
    rows = conn.execute(
        "SELECT b.update_id::text, b.audience, b.channel,"
        " date_trunc('second', b.first_accepted_at) AS first,"
        " date_trunc('second', b.last_accepted_at) AS last, sum(b.accepted + b.delivered)::bigint"
        " FROM batch b JOIN incident_update u ON u.id = b.update_id"
        " WHERE u.incident_id = %s AND b.first_accepted_at IS NOT NULL"
        " GROUP BY 1, 2, 3, 4, 5 ORDER BY 4, 1, 2, 3",
        (incident_id,),
    ).fetchall()
    return tuple(Stretch(*row) for row in rows)


@dataclass(frozen=True, slots=True)
class SentMessage:
    """The words that an audience was sent by one channel in one language."""

    update_id: str
    audience: str
    channel: str
    locale: str
    parts: Mapping[str, str]
    slots: Sequence[str]
    hash: str
    facts: Sequence[str]
    told: int


def sent_messages(
    conn: Connection, incident_id: str, *, audiences: Sequence[str] | None = None
) -> tuple[SentMessage, ...]:
    """The messages of audiences that were released, with how many had them accepted."""
    rows = conn.execute(
        "SELECT m.update_id::text, m.audience, m.channel, m.locale, m.parts, m.slots, m.hash,"
        " m.facts::text[], coalesce(t.told, 0)"
        " FROM incident_update u JOIN message m ON m.update_id = u.id"
        " JOIN release r ON r.update_id = u.id AND r.audience = m.audience"
        " LEFT JOIN (SELECT b.message_id, sum(b.accepted + b.delivered)::bigint AS told"
        "  FROM batch b JOIN incident_update o ON o.id = b.update_id"
        "  WHERE o.incident_id = %(incident)s GROUP BY b.message_id) t ON t.message_id = m.id"
        " WHERE u.incident_id = %(incident)s AND r.released_at IS NOT NULL"
        " AND (%(audiences)s::text[] IS NULL OR m.audience = ANY(%(audiences)s::text[]))"
        " ORDER BY m.update_id, m.audience, m.channel, m.locale",
        {"incident": incident_id, "audiences": None if audiences is None else list(audiences)},
    ).fetchall()
    return tuple(
        SentMessage(row[0], row[1], row[2], row[3], row[4], tuple(row[5]), row[6], row[7], row[8])
        for row in rows
    )


def releases(conn: Connection, incident_id: str) -> dict[str, tuple[ReleaseRow, ...]]:
    """Where each audience of each of an incident's updates stands, by update."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT r.update_id::text, r.audience, r.lane, r.state, r.preapproved, r.approved_by,"
            " r.approved_at, r.released_by, r.released_at, r.planned_at, r.stopped_by,"
            " r.stopped_at, r.reason, r.returned_by, r.returned_at"
            " FROM release r JOIN incident_update u ON u.id = r.update_id"
            " WHERE u.incident_id = %s ORDER BY r.update_id, r.audience",
            (incident_id,),
        )
        found: dict[str, tuple[ReleaseRow, ...]] = {}
        for row in cursor.fetchall():
            update_id: str = row.pop("update_id")
            found[update_id] = (*found.get(update_id, ()), ReleaseRow(**row))
    return found


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that somebody did, as the audit has it."""

    at: datetime
    actor: str
    act: str
    update_id: str | None
    detail: Mapping[str, Any]


def acts(
    conn: Connection, incident_id: str, *, update_id: str | None = None, limit: int = MOST_ACTS
) -> tuple[Act, ...]:
    """An incident's acts, or those on one of its updates, oldest first; the latest `limit`."""
    rows = conn.execute(
        "SELECT at, actor, act, update_id::text, detail FROM audit"
        " WHERE incident_id = %(incident)s"
        " AND (%(update)s::uuid IS NULL OR update_id = %(update)s::uuid)"
        " ORDER BY id DESC LIMIT %(limit)s",
        {"incident": incident_id, "update": update_id, "limit": limit},
    ).fetchall()
    return tuple(Act(*row) for row in reversed(rows))


def heard(conn: Connection, incident_id: str) -> dict[str, int]:
    """Messages of released updates that held a fact and left, or may have, by the fact's id.

    From counters, at once: a contact point that had it by two updates counts twice.
    """
    rows = conn.execute(
        "SELECT fact::text, sum(b.sending + b.accepted + b.delivered + b.unknown)::bigint"
        " FROM incident_update u JOIN message m ON m.update_id = u.id"
        " CROSS JOIN unnest(m.facts) fact"
        " JOIN batch b ON b.message_id = m.id AND b.update_id = m.update_id"
        " WHERE u.incident_id = %s AND EXISTS (SELECT FROM release r WHERE r.update_id = u.id"
        "  AND r.released_at IS NOT NULL) GROUP BY fact",
        (incident_id,),
    ).fetchall()
    return dict(rows)

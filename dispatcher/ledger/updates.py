"""Updates, their rendered messages and their release per audience, as stored."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row, dict_row

from channels.contract import Charset, Message, Slot
from dispatcher.incidents import NewUpdate
from dispatcher.ledger.connection import Connection, one
from dispatcher.ledger.incidents import as_json, is_id


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """One update as stored; its facts are rows of their own."""

    id: str
    incident_id: str
    phase: str
    texts: dict[str, dict[str, str]]
    next_update_at: datetime | None
    expires_at: datetime | None
    audiences: list[str]
    withdraws: list[str]
    author: str
    release_on_approval: bool
    created_at: datetime
    submitted_at: datetime | None
    content_hash: str | None
    withdrawn_at: datetime | None


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """Where one audience of an update stands."""

    audience: str
    lane: str
    state: str
    preapproved: bool
    approved_by: str | None
    approved_at: datetime | None
    released_by: str | None
    released_at: datetime | None
    planned_at: datetime | None
    stopped_by: str | None
    stopped_at: datetime | None
    reason: str


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message to store: `message` as rendered, with what the preview said of it."""

    audience: str
    message: Message
    units: int
    problems: list[dict[str, str]]
    facts: list[str]


_UPDATE = (
    "id::text, incident_id::text, phase, texts, next_update_at, expires_at, audiences,"
    " withdraws::text[] AS withdraws, author, release_on_approval, created_at, submitted_at,"
    " content_hash, withdrawn_at"
)
_RELEASE = (
    "audience, lane, state, preapproved, approved_by, approved_at, released_by, released_at,"
    " planned_at, stopped_by, stopped_at, reason"
)


def insert(
    conn: Connection,
    new: NewUpdate,
    *,
    incident_id: str,
    audiences: Sequence[str],
    author: str,
    release_on_approval: bool,
) -> str:
    """Store an update as a draft; returns its id."""
    update_id: str = one(
        conn.execute(
            "INSERT INTO incident_update (incident_id, phase, texts, next_update_at, expires_at,"
            " audiences, withdraws, author, release_on_approval)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s::uuid[], %s, %s) RETURNING id::text",
            (
                incident_id,
                new.phase.value,
                as_json(new.texts),
                new.next_update_at,
                new.expires_at,
                list(audiences),
                list(new.withdraws),
                author,
                release_on_approval,
            ),
        ).fetchone()
    )
    return update_id


def get(conn: Connection, update_id: str, *, lock: bool = False) -> UpdateRow | None:
    """One update; `lock` serialises those who submit, approve, release or stop it."""
    if not is_id(update_id):
        return None
    with conn.cursor(row_factory=class_row(UpdateRow)) as cursor:
        cursor.execute(
            f"SELECT {_UPDATE} FROM incident_update WHERE id = %s::uuid"
            + (" FOR UPDATE" if lock else ""),
            (update_id,),
        )
        return cursor.fetchone()


def of_incident(conn: Connection, incident_id: str) -> list[UpdateRow]:
    """An incident's updates in order."""
    with conn.cursor(row_factory=class_row(UpdateRow)) as cursor:
        cursor.execute(
            f"SELECT {_UPDATE} FROM incident_update WHERE incident_id = %s ORDER BY id",
            (incident_id,),
        )
        return cursor.fetchall()


def mark_submitted(conn: Connection, update_id: str, *, content_hash: str) -> None:
    conn.execute(
        "UPDATE incident_update SET submitted_at = now(), content_hash = %s WHERE id = %s",
        (content_hash, update_id),
    )


def mark_withdrawn(conn: Connection, update_id: str) -> None:
    conn.execute("UPDATE incident_update SET withdrawn_at = now() WHERE id = %s", (update_id,))


def replace_messages(conn: Connection, update_id: str, messages: Iterable[StoredMessage]) -> None:
    """Store what was rendered, in place of an earlier submission's messages."""
    conn.execute("DELETE FROM message WHERE update_id = %s", (update_id,))
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO message (update_id, audience, channel, locale, parts, slots, hash, units,"
            " problems, facts) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s::uuid[])",
            [
                (
                    update_id,
                    stored.audience,
                    stored.message.channel,
                    stored.message.locale,
                    as_json(dict(stored.message.parts)),
                    as_json(
                        {
                            name: {"max_chars": slot.max_chars, "charset": slot.charset.value}
                            for name, slot in stored.message.slots.items()
                        }
                    ),
                    stored.message.hash,
                    stored.units,
                    as_json(stored.problems),
                    stored.facts,
                )
                for stored in messages
            ],
        )


def messages(conn: Connection, update_id: str) -> list[dict[str, Any]]:
    """What was rendered: id, audience, channel, locale, parts, slots, hash, units, problems."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT id, audience, channel, locale, parts, slots, hash, units, problems FROM message"
            " WHERE update_id = %s ORDER BY audience, channel, locale",
            (update_id,),
        )
        return cursor.fetchall()


def message_from(
    row: Mapping[str, Any], *, thread: str, sender: str, expires_at: datetime | None
) -> Message:
    """The message that an adapter sends, from its stored row."""
    return Message(
        id=str(row["id"]),
        channel=row["channel"],
        locale=row["locale"],
        parts=dict(row["parts"]),
        slots={
            name: Slot(max_chars=slot["max_chars"], charset=Charset(slot["charset"]))
            for name, slot in row["slots"].items()
        },
        thread=thread,
        sender=sender,
        expires_at=expires_at,
        hash=row["hash"],
    )


def create_releases(
    conn: Connection, update_id: str, lanes: Mapping[str, tuple[str, bool]]
) -> None:
    """One row per audience: its lane and whether this update needs no approval for it."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO release (update_id, audience, lane, state, preapproved)"
            " VALUES (%s, %s, %s, 'draft', %s)",
            [(update_id, name, lane, free) for name, (lane, free) in lanes.items()],
        )


def releases(conn: Connection, update_id: str) -> list[ReleaseRow]:
    """Where each audience of an update stands."""
    with conn.cursor(row_factory=class_row(ReleaseRow)) as cursor:
        cursor.execute(
            f"SELECT {_RELEASE} FROM release WHERE update_id = %s ORDER BY audience", (update_id,)
        )
        return cursor.fetchall()


def move_releases(
    conn: Connection,
    update_id: str,
    *,
    audiences: Sequence[str],
    states: Sequence[str],
    to: str,
    actor: str,
    reason: str = "",
) -> list[str]:
    """Move audiences that are in one of `states`; returns those moved. Who and when is kept."""
    stamp = {
        "approved": ", approved_by = %(actor)s, approved_at = now()",
        "released": ", released_by = %(actor)s, released_at = now()",
        "stopped": ", stopped_by = %(actor)s, stopped_at = now()",
        "submitted": ", approved_by = NULL, approved_at = NULL",
    }.get(to, "")
    rows = conn.execute(
        f"UPDATE release SET state = %(to)s, reason = %(reason)s{stamp}"
        " WHERE update_id = %(update)s AND audience = ANY(%(audiences)s)"
        " AND state = ANY(%(states)s) RETURNING audience",
        {
            "to": to,
            "reason": reason,
            "actor": actor,
            "update": update_id,
            "audiences": list(audiences),
            "states": list(states),
        },
    ).fetchall()
    return sorted(row[0] for row in rows)


def resume_releases(conn: Connection, update_id: str, *, audiences: Sequence[str]) -> list[str]:
    """Take stopped audiences back to released, keeping who released them and when."""
    rows = conn.execute(
        "UPDATE release SET state = 'released', stopped_by = NULL, stopped_at = NULL"
        " WHERE update_id = %s AND audience = ANY(%s) AND state = 'stopped' RETURNING audience",
        (update_id, list(audiences)),
    ).fetchall()
    return sorted(row[0] for row in rows)


def unplanned(conn: Connection) -> list[str]:
    """Updates with a released audience that has not been planned."""
    rows = conn.execute(
        "SELECT DISTINCT update_id::text FROM release"
        " WHERE state = 'released' AND planned_at IS NULL"
    ).fetchall()
    return [row[0] for row in rows]


def paused_audiences(conn: Connection, update_id: str, *, audiences: Sequence[str]) -> list[str]:
    """Audiences with a message that was paused because its content was refused."""
    rows = conn.execute(
        "SELECT DISTINCT audience FROM message WHERE update_id = %s AND audience = ANY(%s)"
        " AND paused_at IS NOT NULL",
        (update_id, list(audiences)),
    ).fetchall()
    return sorted(row[0] for row in rows)

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
    revision: int
    editors: list[str]
    revised_at: datetime | None

    @property
    def stated_at(self) -> datetime:
        """The moment at which its words claim to be true."""
        return self.revised_at or self.created_at


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
    returned_by: str | None
    returned_at: datetime | None


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
    " content_hash, withdrawn_at, revision, editors, revised_at"
)
_RELEASE = (
    "audience, lane, state, preapproved, approved_by, approved_at, released_by, released_at,"
    " planned_at, stopped_by, stopped_at, reason, returned_by, returned_at"
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


def revise(
    conn: Connection, update_id: str, new: NewUpdate, *, audiences: Sequence[str], editor: str
) -> None:
    """Put other words in place of an update's own: it is a draft again, of the next revision."""
    conn.execute(
        "UPDATE incident_update SET phase = %(phase)s, texts = %(texts)s,"
        " next_update_at = %(next)s, expires_at = %(expires)s, audiences = %(audiences)s,"
        " withdraws = %(withdraws)s::uuid[], revision = revision + 1, revised_at = now(),"
        " submitted_at = NULL, content_hash = NULL, editors = CASE"
        "  WHEN author = %(editor)s OR %(editor)s = ANY(editors) THEN editors"
        "  ELSE editors || %(editor)s END"
        " WHERE id = %(id)s",
        {
            "phase": new.phase.value,
            "texts": as_json(new.texts),
            "next": new.next_update_at,
            "expires": new.expires_at,
            "audiences": list(audiences),
            "withdraws": list(new.withdraws),
            "editor": editor,
            "id": update_id,
        },
    )
    conn.execute("DELETE FROM message WHERE update_id = %s", (update_id,))
    conn.execute("DELETE FROM release WHERE update_id = %s", (update_id,))


def set_release_on_approval(conn: Connection, update_id: str, *, wanted: bool) -> None:
    """Whether what is approved goes out with its approval."""
    conn.execute(
        "UPDATE incident_update SET release_on_approval = %s WHERE id = %s", (wanted, update_id)
    )


def mark_returned(conn: Connection, update_id: str) -> None:
    """All that was submitted was given back: it is a draft again, with its messages to look at."""
    conn.execute("UPDATE incident_update SET submitted_at = NULL WHERE id = %s", (update_id,))


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
    """What was rendered: id, audience, channel, locale, parts, slots, hash, units, problems,
    and the ids of the facts whose words stand in it."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT id, audience, channel, locale, parts, slots, hash, units, problems,"
            " facts::text[] AS facts FROM message"
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


def releases_of(conn: Connection, update_ids: Sequence[str]) -> dict[str, list[ReleaseRow]]:
    """Where each audience of several updates stands, by update."""
    found: dict[str, list[ReleaseRow]] = {}
    with conn.cursor() as cursor:
        cursor.execute(
            f"SELECT update_id::text, {_RELEASE} FROM release"
            " WHERE update_id = ANY(%s::uuid[]) ORDER BY update_id, audience",
            (list(update_ids),),
        )
        for row in cursor:
            found.setdefault(row[0], []).append(ReleaseRow(*row[1:]))
    return found


@dataclass(frozen=True, slots=True)
class Waiting:
    """An update with audiences that wait for a person: how many, in which state."""

    update_id: str
    incident: int
    title: str
    drill: bool
    phase: str
    state: str
    audiences: int
    author: str
    since: datetime


def waiting(conn: Connection, *, limit: int = 20) -> list[Waiting]:
    """Updates that wait for approval, for release, or for their author; the longest first."""
    with conn.cursor(row_factory=class_row(Waiting)) as cursor:
        cursor.execute(
            "SELECT u.id::text AS update_id, i.number AS incident, i.title, i.drill, u.phase,"
            " r.state, count(*)::int AS audiences, u.author,"
            " min(coalesce(r.returned_at, r.approved_at, u.submitted_at, u.created_at)) AS since"
            " FROM release r JOIN incident_update u ON u.id = r.update_id"
            " JOIN incident i ON i.id = u.incident_id"
            " WHERE r.state IN ('submitted', 'returned', 'approved')"
            " GROUP BY u.id, i.id, r.state ORDER BY since LIMIT %s",
            (limit,),
        )
        return cursor.fetchall()


@dataclass(frozen=True, slots=True)
class Promise:
    """When the next update was promised, and by which update, which audiences heard it."""

    at: datetime
    update_id: str


def promised(conn: Connection, incident_id: str) -> Promise | None:
    """The promise that stands: that of the newest update that people are told, or were.

    One that was stopped before a message of it left has promised nothing to anybody.
    """
    row = conn.execute(
        "SELECT u.next_update_at, u.id::text FROM incident_update u WHERE u.incident_id = %s"
        " AND (EXISTS (SELECT FROM release r WHERE r.update_id = u.id AND r.state = 'released')"
        " OR EXISTS (SELECT FROM batch b WHERE b.update_id = u.id"
        "  AND b.sending + b.accepted + b.delivered + b.unknown > 0))"
        " ORDER BY u.id DESC LIMIT 1",
        (incident_id,),
    ).fetchone()
    return None if row is None or row[0] is None else Promise(row[0], row[1])


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
        "returned": ", returned_by = %(actor)s, returned_at = now(), approved_by = NULL,"
        " approved_at = NULL",
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

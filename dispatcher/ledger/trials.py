"""Test sends of one message to one address of the person who asked for it.

Owns the table of trials. A trial leaves *waiting* once, by compare-and-set on the database's
clock; what is found *sending* long after was cut off, and nobody sends it again. Must not know
batches or deliveries: no trial counts into an update's progress.
"""

from dataclasses import dataclass, field
from datetime import datetime

from psycopg.rows import class_row, dict_row

from channels.contract import Message
from dispatcher.ledger.connection import Connection, one
from dispatcher.ledger.incidents import as_json, is_id
from dispatcher.ledger.updates import message_from

KEEPS_SECONDS = 600.0
"""A trial that nobody took for so long is not sent any more: who asked has long looked away."""
LOST_SECONDS = 120.0
"""A trial that is *sending* for so long has lost its worker; none has that long to send it."""

UNKNOWN = "unknown"
"""The outcome of a trial that may have left, of which nobody knows."""
NOT_SENT = "not_sent"
"""The outcome of a trial of which nothing left."""


@dataclass(frozen=True, slots=True)
class NewTrial:
    """What to send, and to which address: `sealed` opens with `people.opened_address`."""

    person_id: str
    update_id: str
    audience: str
    message: Message
    kind: str
    sealed: bytes = field(repr=False)
    hint: str
    drill: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial to be sent. `name` is the person's own."""

    id: str
    person_id: str
    name: str = field(repr=False)
    message: Message
    kind: str
    sealed: bytes = field(repr=False)
    drill: bool


@dataclass(frozen=True, slots=True)
class TrialRow:
    """A trial as its person sees it. `outcome` and `reason` are there once it is *done*."""

    id: str
    audience: str
    channel: str
    locale: str
    kind: str
    hint: str
    drill: bool
    state: str
    outcome: str | None
    reason: str
    created_at: datetime
    done_at: datetime | None


def lock_person(conn: Connection, person_id: str) -> None:
    """Make one person's wishes follow one another, so that they can be counted."""
    conn.execute("SELECT FROM person WHERE id = %s::uuid FOR NO KEY UPDATE", (person_id,))


def asked_since(conn: Connection, person_id: str, seconds: float) -> int:
    """How many trials a person has asked for in the last so many seconds."""
    return int(
        one(
            conn.execute(
                "SELECT count(*) FROM trial WHERE person_id = %s::uuid"
                " AND created_at > now() - make_interval(secs => %s)",
                (person_id, seconds),
            ).fetchone()
        )
    )


def insert(conn: Connection, new: NewTrial) -> str:
    """Store a trial as *waiting*; returns its id."""
    message = new.message
    slots = {
        name: {"max_chars": slot.max_chars, "charset": slot.charset.value}
        for name, slot in message.slots.items()
    }
    trial_id: str = one(
        conn.execute(
            "INSERT INTO trial (person_id, update_id, audience, channel, locale, kind, sealed,"
            " hint, parts, slots, drill) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " RETURNING id::text",
            (
                new.person_id,
                new.update_id,
                new.audience,
                message.channel,
                message.locale,
                new.kind,
                new.sealed,
                new.hint,
                as_json(dict(message.parts)),
                as_json(slots),
                new.drill,
            ),
        ).fetchone()
    )
    return trial_id


def waiting(conn: Connection, trial_id: str) -> Trial | None:
    """A trial that may still be taken; None for every other."""
    if not is_id(trial_id):
        return None
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            "SELECT t.id::text, t.person_id::text, p.name, t.channel, t.locale, t.kind, t.sealed,"
            " t.parts, t.slots, t.drill, '' AS hash FROM trial t JOIN person p ON p.id = t.person_id"
            " WHERE t.id = %s::uuid AND t.state = 'waiting'"
            " AND t.created_at > now() - make_interval(secs => %s)",
            (trial_id, KEEPS_SECONDS),
        ).fetchone()
    if row is None:
        return None
    return Trial(
        id=row["id"],
        person_id=row["person_id"],
        name=row["name"],
        message=message_from(row, thread="", sender="", expires_at=None),
        kind=row["kind"],
        sealed=bytes(row["sealed"]),
        drill=row["drill"],
    )


def take(conn: Connection, trial_id: str) -> bool:
    """Take a trial, *waiting* to *sending*; exactly one who asks is told True."""
    taken = conn.execute(
        "UPDATE trial SET state = 'sending', taken_at = now() WHERE id = %s::uuid"
        " AND state = 'waiting' AND created_at > now() - make_interval(secs => %s)",
        (trial_id, KEEPS_SECONDS),
    )
    return taken.rowcount == 1


def refuse(conn: Connection, trial_id: str, *, reason: str) -> bool:
    """Close a trial that nobody has taken: nothing of it left."""
    closed = conn.execute(
        "UPDATE trial SET state = 'done', outcome = %s, reason = %s, done_at = now()"
        " WHERE id = %s::uuid AND state = 'waiting'",
        (NOT_SENT, reason, trial_id),
    )
    return closed.rowcount == 1


def finish(conn: Connection, trial_id: str, *, outcome: str, reason: str) -> bool:
    """Record what became of a trial that was taken, also after it was given up as unknown."""
    closed = conn.execute(
        "UPDATE trial SET state = 'done', outcome = %(outcome)s, reason = %(reason)s,"
        " done_at = now() WHERE id = %(trial)s::uuid"
        " AND (state = 'sending' OR (state = 'done' AND outcome = %(unknown)s))",
        {"trial": trial_id, "outcome": outcome, "reason": reason, "unknown": UNKNOWN},
    )
    return closed.rowcount == 1


def close_cut_off(conn: Connection, *, lost: str, late: str) -> int:
    """Close what was cut off while *sending*, and what *waited* too long; returns how many.

    `lost` and `late` are the reasons that their persons are told. Costs an index look where
    nothing is to do.
    """
    return conn.execute(
        "UPDATE trial SET state = 'done', done_at = now(),"
        " outcome = CASE state WHEN 'sending' THEN %(unknown)s ELSE %(not_sent)s END,"
        " reason = CASE state WHEN 'sending' THEN %(lost)s ELSE %(late)s END"
        " WHERE (state = 'sending' AND taken_at <= now() - make_interval(secs => %(lost_after)s))"
        " OR (state = 'waiting' AND created_at <= now() - make_interval(secs => %(keeps)s))",
        {
            "unknown": UNKNOWN,
            "not_sent": NOT_SENT,
            "lost": lost,
            "late": late,
            "lost_after": LOST_SECONDS,
            "keeps": KEEPS_SECONDS,
        },
    ).rowcount


def unnamed(conn: Connection, *, quiet_seconds: float) -> list[str]:
    """Trials that have waited for so long that no worker may know of them, oldest first."""
    rows = conn.execute(
        "SELECT id::text FROM trial WHERE state = 'waiting'"
        " AND created_at <= now() - make_interval(secs => %s) ORDER BY created_at LIMIT 100",
        (quiet_seconds,),
    ).fetchall()
    return [row[0] for row in rows]


def of(conn: Connection, update_id: str, person_id: str, *, limit: int = 50) -> list[TrialRow]:
    """What a person has tried of an update, newest first."""
    if not is_id(update_id):
        return []
    with conn.cursor(row_factory=class_row(TrialRow)) as cursor:
        return cursor.execute(
            "SELECT id::text, audience, channel, locale, kind, hint, drill, state, outcome, reason,"
            " created_at, done_at FROM trial WHERE update_id = %s::uuid AND person_id = %s::uuid"
            " ORDER BY created_at DESC, id DESC LIMIT %s",
            (update_id, person_id, limit),
        ).fetchall()


def suppressed(conn: Connection, *, kind: str, lookup: bytes) -> bool:
    """Whether nothing may be sent to this address."""
    return bool(
        one(
            conn.execute(
                "SELECT EXISTS (SELECT FROM suppression WHERE kind = %s AND lookup = %s)",
                (kind, lookup),
            ).fetchone()
        )
    )

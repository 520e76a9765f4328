"""Updates whose rows are simply there, by the thousand or the million: filled by SQL.

Counters are those of the rows. Must not know how rows come to be in earnest.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from dispatcher.ledger.connection import Connection, Ledger, one
from dispatcher.ledger.counting import STATES


@dataclass(frozen=True)
class Some:
    """Rows of people `first` to `last` of an audience by one channel, all in one state."""

    audience: str
    channel: str
    state: str
    first: int
    last: int
    reason: str = ""


@dataclass(frozen=True)
class Said:
    """One update of an incident as it is to be found in the ledger."""

    rows: Sequence[Some]
    phase: str = "investigating"
    facts: Sequence[str] = ()
    state: str = "released"
    planned: bool = True
    ago: timedelta = timedelta(minutes=30)
    took: timedelta = timedelta(minutes=5)
    next_update_at: datetime | None = None
    batch: int = 100
    parts: dict[str, str] = field(default_factory=lambda: {"text": "Down"})


def opened(ledger: Ledger, *, drill: bool = False, ago: timedelta = timedelta(hours=1)) -> str:
    """An open incident; returns its id."""
    with ledger.transaction() as work:
        return str(
            one(
                work.conn.execute(
                    "INSERT INTO incident (title, summary, severity, services, regions,"
                    " started_at, drill, created_by, created_at) VALUES ('Voice is down', '',"
                    " 'critical', '{voice}', '{US-TX}', %(at)s, %(drill)s, 'test', %(at)s)"
                    " RETURNING id",
                    {"at": datetime.now(UTC) - ago, "drill": drill},
                ).fetchone()
            )
        )


def told(ledger: Ledger, incident: str, said: Said) -> str:
    """An update with these rows; returns its id."""
    with ledger.transaction() as work:
        conn = work.conn
        audiences = sorted({some.audience for some in said.rows})
        began = datetime.now(UTC) - said.ago
        update = str(
            one(
                conn.execute(
                    "INSERT INTO incident_update (incident_id, phase, texts, next_update_at,"
                    " audiences, withdraws, author, release_on_approval, created_at, submitted_at,"
                    " content_hash) VALUES (%s, %s, '{}', %s, %s, '{}', 'key:x', true, %s, %s, 'h')"
                    " RETURNING id",
                    (incident, said.phase, said.next_update_at, audiences, began, began),
                ).fetchone()
            )
        )
        for audience in audiences:
            conn.execute(
                "INSERT INTO release (update_id, audience, lane, state, preapproved, released_at,"
                " released_by, planned_at) VALUES (%s, %s, 'bulk', %s, true, %s, 'key:x', %s)",
                (update, audience, said.state, began, began if said.planned else None),
            )
        for some in said.rows:
            _rows(conn, update, some, _message(conn, update, some, said), said.batch)
        _count(conn, update, began, said.took)
    return update


def filled(
    ledger: Ledger, update: str, rows: Sequence[Some], *, began: datetime, took: timedelta
) -> None:
    """Rows for an update that was really written and let go, as if planned and sent."""
    with ledger.transaction() as work:
        conn = work.conn
        for some in rows:
            message = conn.execute(
                "SELECT id FROM message WHERE update_id = %s AND audience = %s AND channel = %s"
                " AND locale = 'en'",
                (update, some.audience, some.channel),
            ).fetchone()
            _rows(conn, update, some, one(message), 100)
        conn.execute("UPDATE release SET planned_at = now() WHERE update_id = %s", (update,))
        _count(conn, update, began, took)


def _message(conn: Connection, update: str, some: Some, said: Said) -> int:
    return int(
        one(
            conn.execute(
                "INSERT INTO message (update_id, audience, channel, locale, parts, slots, hash,"
                " units, problems, facts) VALUES (%s, %s, %s, 'en', %s, '{}', 'h', 1, '[]',"
                " %s::uuid[]) ON CONFLICT (update_id, audience, channel, locale)"
                " DO UPDATE SET hash = 'h' RETURNING id",
                (
                    update,
                    some.audience,
                    some.channel,
                    _json(said.parts),
                    list(said.facts),
                ),
            ).fetchone()
        )
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _rows(conn: Connection, update: str, some: Some, message: int, size: int) -> None:
    values = {
        "update": update,
        "audience": some.audience,
        "channel": some.channel,
        "state": some.state,
        "reason": some.reason,
        "first": some.first,
        "last": some.last,
        "size": size,
        "message": None if some.state in ("skipped", "spared") else message,
        "kind": {"sms": "phone", "email": "email", "push": "inbox"}.get(some.channel, "phone"),
    }
    for statement in _STATEMENTS:
        conn.execute(statement.encode(), values, prepare=False)


_STATEMENTS = (
    "INSERT INTO recipient (ref, name, locale, segment, region, services, tags, row_hash)"
    " SELECT %(audience)s || '-' || n, '', 'en', 'x', 'US-TX', '{voice}', '{}', ''"
    " FROM generate_series(%(first)s::int, %(last)s::int) n ON CONFLICT (ref) DO NOTHING",
    "INSERT INTO contact_point (kind, sealed, lookup, hint)"
    " SELECT %(kind)s, '', (%(audience)s || %(channel)s || n)::bytea, '+1…' || n"
    " FROM generate_series(%(first)s::int, %(last)s::int) n ON CONFLICT DO NOTHING",
    "CREATE TEMP TABLE filling ON COMMIT DROP AS"
    " SELECT r.id AS recipient_id, c.id AS contact_id, n, (n - %(first)s::int) / %(size)s AS part"
    " FROM generate_series(%(first)s::int, %(last)s::int) n"
    " JOIN recipient r ON r.ref = %(audience)s || '-' || n"
    " JOIN contact_point c ON c.kind = %(kind)s"
    "  AND c.lookup = (%(audience)s || %(channel)s || n)::bytea",
    "CREATE TEMP TABLE parcels ON COMMIT DROP AS SELECT part, rows,"
    " nextval(pg_get_serial_sequence('batch', 'id')) AS batch_id FROM ("
    "  SELECT part, count(*)::int AS rows FROM filling GROUP BY part ORDER BY part) ordered",
    "INSERT INTO batch (id, update_id, audience, channel, adapter, sender, message_id, lane, seq,"
    " size, open) OVERRIDING SYSTEM VALUE SELECT batch_id, %(update)s, %(audience)s, %(channel)s,"
    " 'twilio_sms', '72345', %(message)s, 'bulk', part + 1, rows, %(state)s = 'pending'"
    " FROM parcels",
    "INSERT INTO delivery (update_id, batch_id, recipient_id, contact_point_id, channel, seq,"
    " state, reason) SELECT %(update)s, p.batch_id, f.recipient_id,"
    " CASE WHEN %(reason)s NOT IN ('no_contact', 'other_audience') THEN f.contact_id END,"
    " %(channel)s, f.n, %(state)s, %(reason)s FROM filling f JOIN parcels p ON p.part = f.part",
    "DROP TABLE filling, parcels",
)

_SUMS = ", ".join(f"count(*) FILTER (WHERE state = '{s}') AS {s}" for s in STATES)
_SETS = ", ".join(f"{s} = d.{s}" for s in STATES)


def _count(conn: Connection, update: str, began: datetime, took: timedelta) -> None:
    """Counters, planned and moments of acceptance, from the rows."""
    values = {"update": update, "began": began, "took": took}
    conn.execute(
        f"UPDATE batch b SET {_SETS} FROM (SELECT batch_id, {_SUMS} FROM delivery"
        " WHERE update_id = %(update)s GROUP BY batch_id) d WHERE b.id = d.batch_id".encode(),
        values,
    )
    conn.execute(
        "UPDATE batch SET first_accepted_at = %(began)s,"
        " last_accepted_at = %(began)s::timestamptz + %(took)s::interval"
        " WHERE update_id = %(update)s AND accepted + delivered > 0",
        values,
    )
    conn.execute(
        "INSERT INTO planned (update_id, audience, channel, rows) SELECT %(update)s, audience,"
        " channel, sum(size) FROM batch WHERE update_id = %(update)s GROUP BY audience, channel",
        values,
    )
    conn.execute(
        "INSERT INTO attempt (update_id, delivery_id, number, epoch, adapter, outcome, reason,"
        " detail, ref) SELECT %(update)s, id, 1, 1, 'twilio_sms', 'accepted', 'ok', '', id::text"
        " FROM delivery WHERE update_id = %(update)s AND state IN ('accepted', 'delivered')",
        values,
    )

"""What providers said later: kept as it came, found by delivery, applied to rows.

Owns the tables of receipts and consents. Must not know what an event means for a row: that
is decided outside and comes in as changes. Events are inserted in order of their keys, and
batches are locked in order of their ids before any row is moved, so that two writers never
wait for each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter

import orjson
from psycopg.rows import class_row

from dispatcher.ledger.connection import Connection, one
from dispatcher.ledger.counting import State, counters

KEEP_DAYS = 30
"""How long requests are kept as they came, and events and consents with them."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing a provider said of one message, once. `at` is aware and not in the future."""

    event: str
    delivery_id: str | None
    ref: str
    status: str
    reason: str
    detail: str
    at: datetime | None


_KEEP = """
WITH kept AS (
    INSERT INTO receipt (adapter, requests, sealed) SELECT %(adapter)s, %(requests)s, %(sealed)s
    WHERE %(sealed)s::bytea IS NOT NULL RETURNING id
)
INSERT INTO receipt_event (adapter, event, receipt_id, delivery_id, ref, status, reason, detail,
    at)
SELECT %(adapter)s, e.event, (SELECT id FROM kept), e.delivery_id, e.ref, e.status, e.reason,
    e.detail, least(coalesce(e.at, now()), now())
FROM json_to_recordset(%(events)s::json) AS e(event text, delivery_id uuid, ref text, status text,
    reason text, detail text, at timestamptz)
ON CONFLICT (adapter, event) DO NOTHING
"""


def keep(
    conn: Connection, adapter: str, events: Sequence[Event], *, sealed: bytes | None, requests: int
) -> int:
    """Keep requests, sealed together, and the events in them; returns how many are new.

    `sealed` is None for what we asked for ourselves. One statement, so that outside a
    transaction it is one by itself.
    """
    ordered = sorted(events, key=attrgetter("event"))
    return conn.execute(
        _KEEP.encode(),
        {
            "adapter": adapter,
            "requests": requests,
            "sealed": sealed,
            # Not seven arrays: writing and planning those costs more than the rows do.
            "events": orjson.dumps(ordered).decode(),
        },
    ).rowcount


@dataclass(frozen=True, slots=True)
class Wish:
    """An address that wants nothing more, or wants to again. `delivery_id` also names it, where
    the provider spells an address differently from us."""

    event: str
    kind: str
    lookup: bytes = field(repr=False)
    hint: str = field(repr=False)
    wanted: bool
    reason: str
    at: datetime | None
    delivery_id: str | None = None


_CONSENT = """
INSERT INTO consent (adapter, event, kind, lookup, wanted, reason, at)
VALUES (%(adapter)s, %(event)s, %(kind)s, %(lookup)s, %(wanted)s, %(reason)s,
    least(coalesce(%(at)s::timestamptz, now()), now()))
ON CONFLICT DO NOTHING RETURNING at
"""


def consent(conn: Connection, adapter: str, wish: Wish) -> bool:
    """Apply a wish once, unless a later one of that address is known; True if it was applied.

    Who wants to again is told again only if it was their own word that suppressed them.
    """
    values = {
        "adapter": adapter,
        "event": wish.event,
        "kind": wish.kind,
        "lookup": wish.lookup,
        "hint": wish.hint,
        "wanted": wish.wanted,
        "reason": wish.reason,
        "at": wish.at,
        "delivery": wish.delivery_id,
    }
    fresh = conn.execute(_CONSENT.encode(), values).fetchone()
    if fresh is None:
        return False
    later = conn.execute(
        "SELECT FROM consent WHERE kind = %(kind)s AND lookup = %(lookup)s AND at > %(said)s"
        " AND wanted <> %(wanted)s",
        values | {"said": fresh[0]},
    ).fetchone()
    if later is not None:
        return False
    if wish.wanted:
        conn.execute(
            "DELETE FROM suppression WHERE kind = %(kind)s AND lookup = %(lookup)s"
            " AND reason = 'opted_out'",
            values,
        )
        return True
    conn.execute(
        "INSERT INTO suppression (kind, lookup, hint, reason, source)"
        " SELECT %(kind)s, %(lookup)s, %(hint)s, %(reason)s, %(adapter)s"
        " UNION SELECT p.kind, p.lookup, p.hint, %(reason)s, %(adapter)s FROM delivery d"
        "  JOIN contact_point p ON p.id = d.contact_point_id"
        "  WHERE d.id = %(delivery)s::uuid AND p.kind = %(kind)s"
        " ORDER BY 1, 2 ON CONFLICT (kind, lookup) DO NOTHING",
        values,
    )
    return True


# Working off


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that nobody has looked at yet."""

    id: int
    adapter: str
    delivery_id: str | None
    ref: str
    status: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Row:
    """A delivery as an event finds it. `ref` stands exactly if an accepting attempt does."""

    id: str
    update_id: str
    batch_id: int
    state: State
    tried: bool
    ref: str | None
    receipt_at: datetime | None


@dataclass(frozen=True, slots=True)
class Change:
    """Where a row goes. `fresh` is the ref of an acceptance that was not known before."""

    was: Row
    adapter: str
    state: State
    reason: str
    receipt_at: datetime | None
    fresh: str | None


def take_turn(conn: Connection) -> bool:
    """One worker at a time works events off; the right lasts as long as this transaction."""
    return bool(
        one(
            conn.execute(
                "SELECT pg_try_advisory_xact_lock(hashtextextended('receipts', 3))"
            ).fetchone()
        )
    )


def waiting(conn: Connection, *, limit: int) -> list[Waiting]:
    """Events to be looked at now, the longest kept first."""
    with conn.cursor(row_factory=class_row(Waiting)) as cursor:
        return cursor.execute(
            "SELECT id, adapter, delivery_id::text, ref, status, reason, at FROM receipt_event"
            " WHERE result IS NULL AND work_at <= now() ORDER BY id LIMIT %s",
            (limit,),
        ).fetchall()


def any_waiting(conn: Connection) -> bool:
    """Whether an event is to be looked at now."""
    return bool(
        one(
            conn.execute(
                "SELECT EXISTS (SELECT FROM receipt_event WHERE result IS NULL"
                " AND work_at <= now())"
            ).fetchone()
        )
    )


_ROW = (
    "SELECT id::text, update_id::text, batch_id, state, attempts > 0 AS tried, ref, receipt_at"
    " FROM delivery WHERE id = ANY(%(ids)s::uuid[])"
)


def find(conn: Connection, ids: Sequence[str]) -> dict[str, Row]:
    """Deliveries by id, unlocked. Looks among the updates of the last months first."""
    if not ids:
        return {}
    found = _rows(
        conn,
        _ROW + " AND update_id >= month_floor_uuid(now() - interval '1 month')",
        {"ids": list(ids)},
    )
    missing = [id for id in ids if id not in found]
    return found | _rows(conn, _ROW, {"ids": missing}) if missing else found


def lock(conn: Connection, rows: Sequence[Row]) -> dict[str, Row]:
    """The same deliveries of one update as they stand, with their batches held still.

    Rows themselves are not locked: a window that is being recorded has its rows before its
    batch. Call inside a transaction; `move` compares again.
    """
    conn.execute(
        "SELECT FROM batch WHERE id = ANY(%s) ORDER BY id FOR UPDATE",
        (sorted({row.batch_id for row in rows}),),
    )
    return _rows(
        conn,
        _ROW + " AND update_id = %(update)s",
        {"ids": [row.id for row in rows], "update": rows[0].update_id},
    )


def _rows(conn: Connection, statement: str, values: Mapping[str, object]) -> dict[str, Row]:
    cursor = conn.execute(statement.encode(), values)
    return {
        row[0]: Row(row[0], row[1], row[2], State(row[3]), row[4], row[5], row[6])
        for row in cursor.fetchall()
    }


_MOVE = (
    """
WITH change AS (
    SELECT * FROM unnest(%(ids)s::uuid[], %(was)s::text[], %(was_refs)s::text[],
        %(states)s::text[], %(reasons)s::text[], %(ats)s::timestamptz[], %(fresh)s::text[],
        %(adapters)s::text[]) AS c(id, was, was_ref, state, reason, at, fresh, adapter)
), changed AS (
    UPDATE delivery d SET state = c.state, reason = c.reason, ref = coalesce(c.fresh, d.ref),
        receipt_at = c.at, changed_at = now(),
        next_attempt_at = CASE WHEN c.state = 'pending' THEN now() END,
        accepted_at = CASE WHEN c.fresh IS NULL THEN d.accepted_at ELSE now() END
    FROM change c
    WHERE d.update_id = %(update)s AND d.id = ANY(%(ids)s::uuid[]) AND d.id = c.id
        AND d.state = c.was AND d.ref IS NOT DISTINCT FROM c.was_ref
    RETURNING d.id, d.batch_id, d.attempts, d.epoch, c.was AS was_state, d.state AS now_state,
        c.fresh, c.adapter, CASE WHEN c.fresh IS NOT NULL THEN d.accepted_at END AS accepted_at
), tried AS (
    INSERT INTO attempt (update_id, delivery_id, number, epoch, adapter, outcome, reason, detail,
        ref, late)
    SELECT %(update)s, id, attempts, epoch, adapter, 'accepted', 'ok', %(told)s, fresh, true
    FROM changed WHERE fresh IS NOT NULL
), moved AS (
    SELECT batch_id, was_state, now_state, accepted_at FROM changed
), """
    + counters()
    + " SELECT id::text FROM changed"
)


def move(conn: Connection, update_id: str, changes: Sequence[Change], *, told: str) -> set[str]:
    """Move rows of one update with their counters; returns the ids that moved.

    A row that has meanwhile changed stays. A `fresh` acceptance becomes an attempt, whose
    detail says by whom it was `told`.
    """
    if not changes:
        return set()
    rows = conn.execute(
        _MOVE.encode(),
        {
            "update": update_id,
            "told": told,
            "ids": [c.was.id for c in changes],
            "was": [c.was.state.value for c in changes],
            "was_refs": [c.was.ref for c in changes],
            "states": [c.state.value for c in changes],
            "reasons": [c.reason for c in changes],
            "ats": [c.receipt_at for c in changes],
            "fresh": [c.fresh for c in changes],
            "adapters": [c.adapter for c in changes],
        },
    ).fetchall()
    return {row[0] for row in rows}


def close(conn: Connection, results: Mapping[int, tuple[str, str]]) -> None:
    """Write each event's (adapter, result) and count them; call inside a transaction."""
    if not results:
        return
    ids = sorted(results)
    conn.execute(
        "WITH done AS (UPDATE receipt_event e SET result = r.result"
        " FROM unnest(%(ids)s::bigint[], %(results)s::text[]) AS r(id, result)"
        " WHERE e.id = ANY(%(ids)s::bigint[]) AND e.id = r.id AND e.result IS NULL"
        " RETURNING e.adapter, e.result)"
        " INSERT INTO receipt_total (adapter, result, events)"
        " SELECT adapter, result, count(*) FROM done GROUP BY adapter, result ORDER BY 1, 2"
        " ON CONFLICT (adapter, result) DO UPDATE"
        " SET events = receipt_total.events + EXCLUDED.events",
        {"ids": ids, "results": [results[id][1] for id in ids]},
    )


def postpone(conn: Connection, ids: Sequence[int]) -> None:
    """Look at these again later: soon after they came, and ever more seldom, once a minute."""
    conn.execute(
        "UPDATE receipt_event SET work_at = now() + least(interval '1 minute',"
        " greatest(interval '1 second', (now() - received_at) / 4))"
        " WHERE id = ANY(%s::bigint[]) AND result IS NULL",
        (list(ids),),
    )


@dataclass(frozen=True, slots=True)
class Figures:
    """Events by (adapter, result) since the ledger began, and what waits (counted to 10,000)."""

    totals: Mapping[tuple[str, str], int]
    waiting: int
    oldest_seconds: float


def figures(conn: Connection) -> Figures:
    """What an operator watches; costs nothing that grows with the years."""
    rows = conn.execute("SELECT adapter, result, events FROM receipt_total").fetchall()
    found = conn.execute(
        "SELECT count(*), coalesce(extract(epoch FROM now() - min(received_at)), 0)::float8"
        " FROM (SELECT received_at FROM receipt_event WHERE result IS NULL ORDER BY id"
        " LIMIT 10000) w"
    ).fetchone()
    assert found is not None
    return Figures({(row[0], row[1]): row[2] for row in rows}, found[0], max(0.0, found[1]))


def forget_old(conn: Connection) -> int:
    """Remove requests, events and consents past their time; returns how many requests.

    Suppressions stay: they are the effect, not the evidence.
    """
    for table in ("receipt_event", "consent"):
        conn.execute(
            f"DELETE FROM {table} WHERE received_at < now() - interval '{KEEP_DAYS} days'".encode()
        )
    return conn.execute(
        f"DELETE FROM receipt WHERE received_at < now() - interval '{KEEP_DAYS} days'".encode()
    ).rowcount

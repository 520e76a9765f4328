"""The next step for whom the first did not reach: found by counters, chosen as planning chooses.

A batch is looked at when rows of it failed, were skipped, or are in doubt for good since the
last look (`fallen`), when acceptances have waited long enough for a receipt (`waited_to`), or
when what is pending should have started. Only such batches are read row by row; the others
cost their line in an index. The people found go through the selection of planning, with the
later steps only, and become rows of new batches in the same transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row

from dispatcher.ledger import plans, selection
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.counting import counters

HOURS = 24
"""How long after its release an update is followed."""
LOOK_AGAIN = 5.0
"""Seconds between two looks at a batch for the sake of time alone."""

_DOUBTS = """
LEFT JOIN LATERAL (SELECT count(*) AS many FROM doubt q
    WHERE q.update_id = b.update_id AND q.batch_id = b.id) q ON b.unknown > 0
"""
_FALLEN = "b.failed + b.skipped + b.unknown - coalesce(q.many, 0)"
_FOLLOWED = f"""
r.falls AND r.state = 'released' AND r.planned_at IS NOT NULL
    AND r.released_at > now() - interval '{HOURS} hours'
    AND (u.expires_at IS NULL OR u.expires_at > now())
"""


def owing(conn: Connection, update_id: str) -> bool:
    """Whether rows of this update failed, or stay in doubt, that nobody looked at since."""
    row = conn.execute(
        f"SELECT EXISTS (SELECT FROM release r JOIN incident_update u ON u.id = r.update_id"
        f" JOIN batch b ON b.update_id = r.update_id AND b.audience = r.audience {_DOUBTS}"
        f" WHERE r.update_id = %s AND {_FOLLOWED} AND {_FALLEN} <> b.fallen)".encode(),
        (update_id,),
    ).fetchone()
    return bool(row and row[0])


@dataclass(frozen=True, slots=True)
class Rule:
    """How long a step of an audience is waited for, in seconds.

    `wait` from acceptance to *delivered*, `start_by` from the release to acceptance; None:
    as long as it takes. Where there is no later step, neither is.
    """

    audience: str
    channel: str
    wait: float | None
    start_by: float | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A batch to look at: rows fell (`fell`), waited (`waited`), or should have started (`late`)."""

    update_id: str
    incident_id: str
    audience: str
    lane: str
    batch_id: int
    channel: str
    adapter: str
    fell: bool
    waited: bool
    late: bool


_CANDIDATES = f"""
WITH rule AS (
    SELECT * FROM unnest(%(audiences)s::text[], %(channels)s::text[], %(waits)s::float8[],
        %(starts)s::float8[]) AS w(audience, channel, wait, start_by)
), seen AS (
    SELECT r.update_id::text, u.incident_id::text, r.audience, r.lane, b.id AS batch_id, b.channel,
        b.adapter, {_FALLEN} <> b.fallen AS fell,
        coalesce(b.accepted > 0 AND b.last_accepted_at > coalesce(b.waited_to, '-infinity')
            AND coalesce(b.waited_to, b.first_accepted_at) + make_interval(secs => w.wait) <= now()
            AND (b.looked_at IS NULL OR b.looked_at < now() - make_interval(secs => %(again)s)),
            false) AS waited,
        coalesce(b.pending > 0 AND r.released_at + make_interval(secs => w.start_by) <= now()
            AND (b.looked_at IS NULL OR b.looked_at < now() - make_interval(secs => %(again)s)),
            false) AS late
    FROM release r
    JOIN incident_update u ON u.id = r.update_id
    JOIN batch b ON b.update_id = r.update_id AND b.audience = r.audience
    LEFT JOIN rule w ON w.audience = r.audience AND w.channel = b.channel
    {_DOUBTS}
    WHERE {_FOLLOWED}
)
SELECT * FROM seen WHERE fell OR waited OR late ORDER BY update_id, audience, batch_id
"""


def candidates(conn: Connection, rules: Sequence[Rule]) -> list[Candidate]:
    """Batches whose rows may need a next step now, or that are to be marked as seen."""
    with conn.cursor(row_factory=class_row(Candidate)) as cursor:
        return cursor.execute(
            _CANDIDATES.encode(),
            {
                "audiences": [rule.audience for rule in rules],
                "channels": [rule.channel for rule in rules],
                "waits": [rule.wait for rule in rules],
                "starts": [rule.start_by for rule in rules],
                "again": LOOK_AGAIN,
            },
        ).fetchall()


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of an audience; `skipped` if nothing of it was ever to be sent."""

    id: int
    channel: str
    adapter: str
    skipped: bool


def batches_of(conn: Connection, update_id: str, audience: str) -> list[Batch]:
    """Every batch of an audience."""
    with conn.cursor(row_factory=class_row(Batch)) as cursor:
        return cursor.execute(
            "SELECT id, channel, adapter, skipped = size AS skipped FROM batch"
            " WHERE update_id = %s AND audience = %s ORDER BY id",
            (update_id, audience),
        ).fetchall()


def lock(conn: Connection, batch_ids: Sequence[int]) -> None:
    """Hold these batches until the transaction ends: none of their rows moves meanwhile."""
    conn.execute(
        "SELECT id FROM batch WHERE id = ANY(%s) ORDER BY id FOR UPDATE", (list(batch_ids),)
    )


def receipts_flow(conn: Connection, adapter: str, *, seconds: float) -> bool | None:
    """Whether receipts of an adapter came in the last `seconds`; None if none ever did."""
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM receipt WHERE adapter = %(adapter)s"
        " AND received_at > now() - make_interval(secs => %(seconds)s)),"
        " EXISTS (SELECT FROM receipt WHERE adapter = %(adapter)s)",
        {"adapter": adapter, "seconds": seconds},
    ).fetchone()
    assert row is not None
    return True if row[0] else (False if row[1] else None)


@dataclass(frozen=True, slots=True)
class Look:
    """One way of one audience: `these` are the batches looked at (and those of people who share
    a contact point with theirs), `same` all of that way, `later` those of later ways. `wait` is None where acceptance counts as reaching."""

    update_id: str
    incident_id: str
    these: tuple[int, ...]
    same: tuple[int, ...]
    later: tuple[int, ...]
    wait: float | None
    late: bool


# `d` is a person's row, `s` the row of the contact point that it shares with somebody else.
_FELL = """
CASE coalesce(s.state, d.state) WHEN 'failed' THEN true
    WHEN 'skipped' THEN coalesce(s.reason, d.reason) IN ('suppressed', 'no_message', 'no_adapter')
    WHEN 'unknown' THEN NOT EXISTS (SELECT FROM doubt q WHERE q.update_id = d.update_id
        AND q.delivery_id = coalesce(s.id, d.id))
    WHEN 'accepted' THEN coalesce(coalesce(s.accepted_at, d.accepted_at)
        + make_interval(secs => %(wait)s) <= now(), false)
    WHEN 'pending' THEN %(late)s::boolean
    ELSE false END
"""
_ROWS = """
delivery d LEFT JOIN delivery s ON s.update_id = %(update)s::uuid AND s.channel = d.channel
    AND s.contact_point_id = d.shared_contact_id
"""

_WHO = f"""
CREATE TEMP TABLE who ON COMMIT DROP AS
SELECT r.id, r.locale, 'priority' = ANY(r.tags) AS priority, %(number)s::int AS belongs,
    true AS member, %(number)s::int AS audience, 0 AS reason
FROM (SELECT DISTINCT d.recipient_id FROM {_ROWS}
    WHERE d.update_id = %(update)s::uuid AND d.batch_id = ANY(%(these)s::bigint[]) AND {_FELL}) f
JOIN recipient r ON r.id = f.recipient_id
WHERE NOT EXISTS (SELECT FROM {_ROWS} WHERE d.update_id = %(update)s::uuid
        AND d.recipient_id = r.id AND (d.batch_id = ANY(%(later)s::bigint[])
            OR d.batch_id = ANY(%(same)s::bigint[]) AND NOT {_FELL}))
    AND NOT EXISTS (SELECT FROM incident_update n
        JOIN delivery o ON o.update_id = n.id AND o.recipient_id = r.id
        WHERE n.incident_id = %(incident)s::uuid AND n.id > %(update)s::uuid
            AND NOT (o.state = 'skipped' AND o.reason <> 'shared_contact'))
"""

# Whom no later step reaches stays where they are.
_PRUNE = "DELETE FROM choice WHERE cell %% 8 <> ALL(%(kept)s::int[])"
_KEPT = ("", "shared_contact")

_SUPERSEDE = f"""
WITH moved AS (
    UPDATE delivery d SET state = 'superseded', reason = 'next_step', changed_at = now(),
        next_attempt_at = NULL
    WHERE d.update_id = %(update)s::uuid AND d.batch_id = ANY(%(same)s::bigint[])
        AND d.state = 'pending' AND d.recipient_id IN (SELECT recipient_id FROM choice)
    RETURNING d.batch_id, 'pending' AS was_state, d.state AS now_state,
        NULL::timestamptz AS accepted_at
), {counters()}
SELECT count(*) FROM moved
"""

_MARK = f"""
UPDATE batch m SET looked_at = now(), fallen = x.fallen,
    waited_to = coalesce(now() - make_interval(secs => %(waited)s), m.waited_to)
FROM (SELECT b.id, {_FALLEN} AS fallen FROM batch b {_DOUBTS}
    WHERE b.id = ANY(%(these)s::bigint[])) x
WHERE m.id = x.id
"""


def fall(
    conn: Connection,
    look: Look,
    question: selection.Question,
    *,
    lane: str,
    batch_size: int,
) -> list[plans.Queued]:
    """Make the next step's rows for whom this one did not reach; returns the batches to send.

    Call inside the transaction that holds the incident's plan lock and the batches `same`.
    What is still pending of this step is superseded first.
    """
    rules = selection.names(question.rules)
    values: dict[str, Any] = {
        "update": look.update_id,
        "incident": look.incident_id,
        "these": list(look.these),
        "same": list(look.same),
        "later": list(look.later),
        "wait": look.wait,
        "late": look.late,
        "number": rules.index(question.due[0]) + 1,
    }
    if not selection.select_from(conn, question, _WHO, values):
        return []
    kept = [selection.REASONS.index(reason) for reason in _KEPT]
    if conn.execute(_PRUNE, {"kept": kept}, prepare=False).rowcount:
        conn.execute("ANALYZE choice")
    with selection.joining(conn, few=True):
        conn.execute(_SUPERSEDE.encode(), values, prepare=False)
    return plans.insert(
        conn,
        incident_id=look.incident_id,
        update_id=look.update_id,
        lane=lane,
        rules=question.rules,
        batch_size=batch_size,
    )


def mark(conn: Connection, batch_ids: Sequence[int], *, waited: float | None) -> None:
    """These batches were looked at; `waited` is for how long their acceptances had been waited."""
    values: Mapping[str, Any] = {"these": list(batch_ids), "waited": waited}
    conn.execute(_MARK.encode(), values)

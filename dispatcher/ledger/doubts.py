"""Rows in doubt: which may be asked about, by whom, and what the answer moves.

A row of `doubt` is made by the statement that makes its delivery *unknown*, and goes with
the decision; a row that is unknown without one stays so for good. Whoever asks takes rows
for a while (`ask_at` moves ahead, `asked` is the token). A decision is a compare-and-set on
token, state and try, so that of two who asked one decides. Batches are locked before rows.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from psycopg.rows import dict_row

from channels.contract import Message
from dispatcher.ledger.batches import Claim
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.counting import counters
from dispatcher.ledger.superseding import told_since
from dispatcher.ledger.updates import message_from

KNOWN_DAYS = 7
"""How far back the releases lie whose messages to the same address are looked through."""
TRIES = 20
"""After so many tries that a provider did not take, a row is given up."""
BUSY_AGAIN = 5.0
"""Seconds until a row is looked at again that could not be told from another."""
_DECIDING = 0x646F_7562


@dataclass(frozen=True, slots=True)
class Doubt:
    """One row in doubt, taken to be asked about. `age` is seconds since it fell into doubt.

    Its try was claimed at `claimed_at`: nothing of it left earlier. `asked` is the token.
    """

    update_id: str
    batch_id: int
    message: Message
    audience: str
    adapter: str
    sender: str
    drill: bool
    contact_point_id: int
    claim: Claim
    claimed_at: datetime
    age: float
    asked: int


class Act(StrEnum):
    """What follows an answer: *keep* leaves the row unknown for good."""

    FOUND = "found"
    RESEND = "resend"
    AGAIN = "again"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is decided of one doubt. `ref` of what was found; `delay` until asked again;
    `reason` why it may be sent again."""

    doubt: Doubt
    act: Act
    ref: str = ""
    delay: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """Of an address: `refs` that are accounted for; `busy` if one more is on the wire now."""

    refs: frozenset[str]
    busy: bool


def due_adapters(conn: Connection, settle: Mapping[str, float]) -> list[str]:
    """Adapters with rows to be asked about now; `settle` is each one's least age in seconds."""
    rows = conn.execute(
        "SELECT DISTINCT q.adapter FROM doubt q LEFT JOIN unnest(%s::text[], %s::float8[])"
        " AS s(adapter, seconds) ON s.adapter = q.adapter WHERE q.ask_at <= now()"
        " AND q.doubted_at <= now() - make_interval(secs => coalesce(s.seconds, 0))"
        " ORDER BY q.adapter",
        (list(settle), list(settle.values())),
    ).fetchall()
    return [row[0] for row in rows]


_FORGET = """
DELETE FROM doubt WHERE (update_id, delivery_id) IN (
    SELECT q.update_id, q.delivery_id FROM doubt q
    JOIN delivery d ON d.update_id = q.update_id AND d.id = q.delivery_id
    WHERE q.adapter = %(adapter)s AND q.ask_at <= now() AND d.state <> 'unknown'
    FOR UPDATE OF q SKIP LOCKED)
"""

_TAKE = """
WITH due AS (
    SELECT q.update_id, q.delivery_id FROM doubt q
    WHERE q.adapter = %(adapter)s AND q.ask_at <= now()
        AND q.doubted_at <= now() - make_interval(secs => %(settle)s)
    ORDER BY q.ask_at, q.delivery_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE doubt q SET asked = q.asked + 1, ask_at = now() + make_interval(secs => %(hold)s)
    FROM due WHERE q.update_id = due.update_id AND q.delivery_id = due.delivery_id
    RETURNING q.*
)
SELECT q.update_id::text, q.delivery_id::text, q.batch_id, q.adapter, q.sender, q.claimed_at,
    q.asked, extract(epoch FROM now() - q.doubted_at)::float8 AS age, b.audience,
    d.attempts, d.contact_point_id, p.sealed, p.lookup, p.kind, r.name, r.ref,
    i.drill, i.id::text AS incident_id, u.expires_at,
    m.id, m.channel, m.locale, m.parts, m.slots, m.hash
FROM taken q
JOIN delivery d ON d.update_id = q.update_id AND d.id = q.delivery_id AND d.state = 'unknown'
    AND d.epoch = q.epoch AND d.attempts = q.number
JOIN batch b ON b.id = q.batch_id
JOIN message m ON m.id = b.message_id
JOIN incident_update u ON u.id = q.update_id
JOIN incident i ON i.id = u.incident_id
JOIN contact_point p ON p.id = d.contact_point_id
LEFT JOIN recipient r ON r.id = d.recipient_id
ORDER BY q.claimed_at, q.delivery_id
"""


def take(conn: Connection, adapter: str, *, settle: float, hold: float, limit: int) -> list[Doubt]:
    """Take rows of an adapter to ask about, for `hold` seconds; call inside a transaction.

    None that has been in doubt for less than `settle` seconds: a request that a worker had
    begun has ended by then, and its provider has listed it. Rows that somebody else has
    settled meanwhile are forgotten.
    """
    values = {"adapter": adapter, "settle": settle, "hold": hold, "limit": limit}
    conn.execute(_FORGET, values)
    messages: dict[tuple[int, str], Message] = {}
    found = []
    with conn.cursor(row_factory=dict_row) as cursor:
        for row in cursor.execute(_TAKE, values):
            at = (row["id"], row["sender"])
            if at not in messages:
                messages[at] = message_from(
                    row,
                    thread=row["incident_id"],
                    sender=row["sender"],
                    expires_at=row["expires_at"],
                )
            found.append(_doubt(row, messages[at]))
    return found


def _doubt(row: Mapping[str, Any], message: Message) -> Doubt:
    named = "name" in message.slots
    return Doubt(
        update_id=row["update_id"],
        batch_id=row["batch_id"],
        message=message,
        audience=row["audience"],
        adapter=row["adapter"],
        sender=row["sender"],
        drill=row["drill"],
        contact_point_id=row["contact_point_id"],
        claim=Claim(
            id=row["delivery_id"],
            attempts=row["attempts"],
            sealed=row["sealed"],
            lookup=row["lookup"],
            suppressed=False,
            name=row["name"] if named else None,
            ref=row["ref"] if named else None,
            kind=row["kind"],
        ),
        claimed_at=row["claimed_at"],
        age=row["age"],
        asked=row["asked"],
    )


def known(conn: Connection, doubts: Sequence[Doubt]) -> dict[int, Known]:
    """By contact point, what its provider's list may show that is no answer to the doubt."""
    points = sorted({doubt.contact_point_id for doubt in doubts})
    rows = conn.execute(
        "SELECT d.contact_point_id, array_agg(a.ref) FILTER (WHERE a.ref IS NOT NULL),"
        " bool_or(d.state = 'sending') FROM delivery d"
        " LEFT JOIN attempt a ON a.update_id = d.update_id AND a.delivery_id = d.id"
        " WHERE d.contact_point_id = ANY(%(points)s) AND d.update_id = ANY(ARRAY("
        "  SELECT update_id FROM release WHERE released_at > now() - make_interval(days => %(days)s)"
        "  UNION SELECT unnest(%(updates)s::uuid[])))"
        " GROUP BY d.contact_point_id",
        {
            "points": points,
            "days": KNOWN_DAYS,
            "updates": sorted({doubt.update_id for doubt in doubts}),
        },
    ).fetchall()
    return {row[0]: Known(frozenset(row[1] or ()), bool(row[2])) for row in rows}


# Only who holds the token of a row that is still unknown by that very try decides.
_TOLD = """
told AS (
    SELECT * FROM unnest(%(updates)s::uuid[], %(ids)s::uuid[], %(asked)s::int[],
        %(refs)s::text[], %(delays)s::float8[], %(reasons)s::text[], %(numbers)s::int[])
        AS t(update_id, delivery_id, asked, ref, delay, reason, number)
)"""
_HELD = f"""
{_TOLD}, held AS (
    DELETE FROM doubt q USING told t
    WHERE q.update_id = t.update_id AND q.delivery_id = t.delivery_id AND q.asked = t.asked
        AND q.number = t.number
    RETURNING q.*, t.ref, t.reason
)"""

_FOUND = f"""
WITH {_HELD}, changed AS (
    UPDATE delivery d SET state = 'accepted', reason = 'found', ref = h.ref, changed_at = now(),
        accepted_at = now(), next_attempt_at = NULL
    FROM held h
    WHERE d.update_id = ANY(%(updates)s::uuid[]) AND d.id = ANY(%(ids)s::uuid[])
        AND d.update_id = h.update_id AND d.id = h.delivery_id
        AND d.state = 'unknown' AND d.epoch = h.epoch AND d.attempts = h.number
    RETURNING d.update_id, d.id, d.batch_id, d.attempts, d.epoch, h.adapter, d.ref, d.accepted_at
), tried AS (
    INSERT INTO attempt (update_id, delivery_id, number, epoch, adapter, outcome, reason, detail,
        ref, late)
    SELECT update_id, id, attempts, epoch, adapter, 'accepted', 'found',
        'asked, and the provider has it', ref, true FROM changed
), moved AS (
    SELECT batch_id, 'unknown' AS was_state, 'accepted' AS now_state, accepted_at FROM changed
), {counters()}
SELECT count(*) FROM changed
"""

# Who is told something newer by now, too late, or stopped meanwhile is not told this again.
_RESEND = f"""
WITH {_HELD}, placed AS (
    SELECT h.*, CASE WHEN u.expires_at <= now() THEN 'expired'
        WHEN {told_since(update="u.id", recipient="d.recipient_id")} THEN 'superseded'
        WHEN h.number >= {TRIES} THEN 'failed'
        WHEN r.state <> 'released' THEN 'stopped' ELSE 'pending' END AS state
    FROM held h
    JOIN delivery d ON d.update_id = h.update_id AND d.id = h.delivery_id
    JOIN batch b ON b.id = h.batch_id
    JOIN incident_update u ON u.id = h.update_id
    JOIN release r ON r.update_id = b.update_id AND r.audience = b.audience
), changed AS (
    UPDATE delivery d SET state = p.state, changed_at = now(),
        reason = CASE p.state WHEN 'pending' THEN p.reason WHEN 'superseded' THEN 'newer_update'
            WHEN 'failed' THEN 'tries_used_up'
            ELSE p.state END,
        next_attempt_at = CASE p.state WHEN 'pending' THEN now() END
    FROM placed p
    WHERE d.update_id = ANY(%(updates)s::uuid[]) AND d.id = ANY(%(ids)s::uuid[])
        AND d.update_id = p.update_id AND d.id = p.delivery_id
        AND d.state = 'unknown' AND d.epoch = p.epoch AND d.attempts = p.number
    RETURNING d.update_id, d.id, d.batch_id, d.attempts, d.epoch, p.adapter, d.state, p.reason
), tried AS (
    INSERT INTO attempt (update_id, delivery_id, number, epoch, adapter, outcome, reason, detail,
        late)
    SELECT update_id, id, attempts, epoch, adapter, 'not_taken', reason, '', true FROM changed
), moved AS (
    SELECT batch_id, 'unknown' AS was_state, state AS now_state, NULL::timestamptz AS accepted_at
    FROM changed
), {counters(", due_at = CASE WHEN d.pending > 0 THEN now() ELSE b.due_at END")}
SELECT count(*) FROM changed
"""

_AGAIN = f"""
WITH {_TOLD}
UPDATE doubt q SET ask_at = now() + make_interval(secs => t.delay) FROM told t
WHERE q.update_id = t.update_id AND q.delivery_id = t.delivery_id AND q.asked = t.asked
    AND q.number = t.number
"""

_KEEP = f"WITH {_HELD} SELECT count(*) FROM held"


def decide(conn: Connection, verdicts: Sequence[Verdict]) -> dict[Act, int]:
    """Move what is decided; returns how many rows each act moved. Call inside a transaction.

    A ref that is accounted for by now, or found twice, proves nothing: that row is asked
    about again.
    """
    # One decision after another: two doubts of one address must not both claim one message.
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_DECIDING,))
    verdicts = _proven(conn, verdicts)
    conn.execute(
        "SELECT id FROM batch WHERE id = ANY(%s) ORDER BY id FOR UPDATE",
        (sorted({verdict.doubt.batch_id for verdict in verdicts}),),
    )
    moved: dict[Act, int] = {}
    for act, statement in _STATEMENTS.items():
        chosen = [verdict for verdict in verdicts if verdict.act is act]
        if not chosen:
            continue
        cursor = conn.execute(statement.encode(), _columns(chosen))
        row = cursor.fetchone() if cursor.description else None
        moved[act] = int(row[0]) if row is not None else cursor.rowcount
    return moved


_STATEMENTS: Mapping[Act, str] = {
    Act.FOUND: _FOUND,
    Act.RESEND: _RESEND,
    Act.AGAIN: _AGAIN,
    Act.KEEP: _KEEP,
}


def _proven(conn: Connection, verdicts: Iterable[Verdict]) -> list[Verdict]:
    verdicts = list(verdicts)
    claimed = [verdict for verdict in verdicts if verdict.act is Act.FOUND]
    before = known(conn, [verdict.doubt for verdict in claimed]) if claimed else {}
    seen: set[tuple[str, str]] = set()
    proven = []
    for verdict in verdicts:
        if verdict.act is Act.FOUND:
            told = before.get(verdict.doubt.contact_point_id)
            at = (verdict.doubt.adapter, verdict.ref)
            if at in seen or (told is not None and verdict.ref in told.refs):
                verdict = Verdict(verdict.doubt, Act.AGAIN, delay=BUSY_AGAIN)
            seen.add(at)
        proven.append(verdict)
    return proven


def _columns(verdicts: Sequence[Verdict]) -> dict[str, list[Any]]:
    return {
        "updates": [verdict.doubt.update_id for verdict in verdicts],
        "ids": [verdict.doubt.claim.id for verdict in verdicts],
        "asked": [verdict.doubt.asked for verdict in verdicts],
        "refs": [verdict.ref for verdict in verdicts],
        "delays": [verdict.delay for verdict in verdicts],
        "reasons": [verdict.reason for verdict in verdicts],
        # Tokens begin anew with each doubt of a row; the number of its try never comes again.
        "numbers": [verdict.doubt.claim.attempts for verdict in verdicts],
    }


def open_in(conn: Connection, update_id: str) -> bool:
    """Whether a provider may still be asked about a row of this update."""
    row = conn.execute(
        "SELECT EXISTS (SELECT FROM doubt q JOIN delivery d ON d.update_id = q.update_id"
        " AND d.id = q.delivery_id WHERE q.update_id = %s AND d.state = 'unknown')",
        (update_id,),
    ).fetchone()
    return bool(row and row[0])

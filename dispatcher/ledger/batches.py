"""A batch in work: lease, claim a window, record outcomes, hand back.

The rules of claiming live in these statements. A lease is a compare-and-set on
`lease_epoch` by the database's clock. Rows are claimed *pending to sending* only while
the lease is ours and the update still released, and the claim commits before any request
leaves. Rows found *sending* under an older epoch become *unknown*, never pending.
Batches are always locked before their rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from channels.contract import Message
from dispatcher.ledger import breakers
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.counting import DOUBTED, State, counters
from dispatcher.ledger.superseding import told_since
from dispatcher.ledger.updates import message_from


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send one batch until `until` (database clock), while `epoch` stands."""

    batch_id: int
    update_id: str
    epoch: int
    lane: str
    adapter: str
    sender: str
    drill: bool
    units: int
    message: Message
    pending: int
    probing: bool = False
    repeatable: bool = False


class Record(NamedTuple):
    """What became of one claimed delivery.

    `state` is where the row goes; `delay` seconds until the next try if it is *pending*
    again; `tried` is False if nothing left (no attempt row, the try does not count).
    """

    id: str
    state: State
    outcome: str
    reason: str
    detail: str = ""
    ref: str | None = None
    delay: float = 0.0
    tried: bool = True

    @property
    def plain(self) -> bool:
        """Whether an acceptance says nothing but its ref."""
        return self.outcome == "accepted" and self.reason == "ok" and not self.detail


_LEASE = """
UPDATE batch b SET lease_owner = %(owner)s, lease_epoch = b.lease_epoch + 1,
    lease_until = now() + make_interval(secs => %(seconds)s)
FROM release r, incident_update u, incident i, message m
WHERE b.id = %(batch)s AND b.open AND NOT b.halted AND b.due_at <= now()
    AND (b.lease_until IS NULL OR b.lease_until <= now())
    AND r.update_id = b.update_id AND r.audience = b.audience AND r.state = 'released'
    AND u.id = b.update_id AND i.id = u.incident_id AND m.id = b.message_id
    AND m.paused_at IS NULL AND (u.expires_at IS NULL OR u.expires_at > now())
RETURNING b.id AS batch_id, b.update_id::text, b.lease_epoch AS epoch, b.lane, b.adapter, b.sender,
    i.drill, i.id::text AS incident_id, u.expires_at, b.pending, b.sending,
    EXISTS (SELECT FROM breaker k WHERE k.adapter = b.adapter AND k.sender IN ('', b.sender))
        AS probing,
    m.id, m.channel, m.locale, m.parts, m.slots, m.hash, m.units
"""


def lease(conn: Connection, batch_id: int, *, owner: str, seconds: float) -> Lease | None:
    """Take the batch if it is due, free, released and neither paused nor expired; call
    inside a transaction.

    A dead predecessor's rows in doubt become *unknown* here. While the breaker of its adapter
    and sender is open, one batch at a time is leased to probe it.
    """
    cursor = conn.execute(_LEASE, {"batch": batch_id, "owner": owner, "seconds": seconds})
    found = cursor.fetchone()
    if found is None:
        return None
    assert cursor.description is not None
    row = dict(zip((column.name for column in cursor.description), found, strict=True))
    if row["sending"]:
        abandon(conn, batch_id, update_id=row["update_id"])
    if row["probing"] and not breakers.take_probe(
        conn, adapter=row["adapter"], sender=row["sender"], batch_id=batch_id
    ):
        return None
    return Lease(
        batch_id=row["batch_id"],
        update_id=row["update_id"],
        epoch=row["epoch"],
        lane=row["lane"],
        adapter=row["adapter"],
        sender=row["sender"],
        drill=row["drill"],
        units=row["units"],
        message=message_from(
            row, thread=row["incident_id"], sender=row["sender"], expires_at=row["expires_at"]
        ),
        pending=row["pending"],
        probing=row["probing"],
    )


def abandon(conn: Connection, batch_id: int, *, update_id: str) -> int:
    """Rows still *sending* under a lease that ended become *unknown*, with an attempt each."""
    row = conn.execute(
        "WITH held AS (SELECT id, lease_epoch FROM batch WHERE id = %(batch)s FOR UPDATE),"
        " changed AS (UPDATE delivery d SET state = 'unknown', reason = 'lease_lost',"
        " changed_at = now() WHERE d.update_id = %(update)s AND d.batch_id = %(batch)s"
        " AND d.state = 'sending' AND EXISTS (SELECT FROM held) RETURNING d.id, d.batch_id, d.attempts,"
        " d.epoch, OLD.changed_at AS claimed_at),"
        " in_doubt AS (SELECT c.*, b.adapter, b.sender FROM changed c"
        " JOIN batch b ON b.id = c.batch_id), " + DOUBTED + ","
        " tried AS (INSERT INTO attempt (update_id, delivery_id, number, epoch, adapter, outcome,"
        " reason, detail) SELECT %(update)s, c.id, c.attempts, c.epoch, b.adapter, 'unknown',"
        " 'lease_lost', 'the worker stopped before the answer was recorded'"
        " FROM changed c JOIN batch b ON b.id = c.batch_id),"
        " moved AS (SELECT batch_id, 'sending' AS was_state, 'unknown' AS now_state,"
        " NULL::timestamptz AS accepted_at FROM changed), "
        + counters()
        + " SELECT count(*) FROM changed",
        {"batch": batch_id, "update": update_id},
    ).fetchone()
    return int(row[0]) if row else 0


_TOLD_SINCE = told_since(update="%(update)s", recipient="d.recipient_id")

# Acceptances, nearly all there is, come as two short arrays. Rows are reached by their
# keys: anything else reads the whole update for each window.
_RECORD = f"""
result AS (
    SELECT id, 'accepted' AS state, 'accepted' AS outcome, 'ok' AS reason, '' AS detail, ref,
        0.0::float8 AS delay, true AS tried
    FROM unnest(%(taken)s::uuid[], %(taken_refs)s::text[]) AS a(id, ref)
    UNION ALL
    SELECT * FROM unnest(%(ids)s::uuid[], %(states)s::text[], %(outcomes)s::text[],
        %(reasons)s::text[], %(details)s::text[], %(refs)s::text[], %(delays)s::float8[],
        %(tried)s::boolean[])
), recorded AS (
    UPDATE delivery d SET ref = r.ref, changed_at = now(),
        -- Under way when a newer update took back what was unsent: not sent after it.
        state = CASE WHEN r.state = 'pending' AND {_TOLD_SINCE}
            THEN 'superseded' ELSE r.state END,
        reason = CASE WHEN r.state = 'pending' AND {_TOLD_SINCE}
            THEN 'newer_update' ELSE r.reason END,
        next_attempt_at = CASE WHEN r.state = 'pending' AND NOT {_TOLD_SINCE}
            THEN now() + make_interval(secs => r.delay) END,
        accepted_at = CASE WHEN r.state = 'accepted' THEN now() END,
        attempts = d.attempts - CASE WHEN r.tried THEN 0 ELSE 1 END
    FROM result r
    WHERE d.update_id = %(update)s AND d.id = ANY(%(taken)s::uuid[] || %(ids)s::uuid[])
        AND d.id = r.id AND d.epoch = %(epoch)s
        -- A late acceptance settles what is in doubt, and keeps what is to be sent again.
        AND (d.state = 'sending' OR (d.state IN ('unknown', 'pending') AND r.state = 'accepted'))
    RETURNING d.id, d.batch_id, d.attempts, OLD.state AS was_state, d.state AS now_state,
        d.accepted_at, OLD.changed_at AS claimed_at
), in_doubt AS (
    SELECT id, batch_id, %(adapter)s::text AS adapter, %(sender)s::text AS sender, attempts,
        %(epoch)s::int AS epoch, claimed_at
    FROM recorded WHERE now_state = 'unknown'
), {DOUBTED}, tried AS (
    INSERT INTO attempt (update_id, delivery_id, number, epoch, adapter, outcome, reason, detail,
        ref, late)
    SELECT %(update)s, r.id, coalesce(x.attempts, 0), %(epoch)s, %(adapter)s,
        -- Accepted twice and shown once: no second proof of one delivery.
        -- So is one that a person had settled before its answer came.
        CASE WHEN x.id IS NULL AND r.outcome = 'accepted' AND (%(repeatable)s
                OR EXISTS (SELECT FROM attempt p WHERE p.update_id = %(update)s
                    AND p.delivery_id = r.id AND p.ref = 'settled:' || r.id)) THEN 'repeated'
            ELSE r.outcome END,
        r.reason, r.detail, r.ref, x.id IS NULL OR x.was_state <> 'sending'
    FROM result r LEFT JOIN recorded x ON x.id = r.id
    -- Told again because the commit's answer got lost: the same try is not written twice.
    WHERE r.tried AND (x.id IS NOT NULL OR NOT EXISTS (SELECT FROM attempt a
        WHERE a.update_id = %(update)s AND a.delivery_id = r.id AND a.epoch = %(epoch)s
            AND a.outcome IN (r.outcome, 'repeated') AND a.ref IS NOT DISTINCT FROM r.ref))
)"""

# Whoever moves rows locks their batch first, so no row is locked before it is moved. Another
# may have moved it while this one waited for the batch: the update looks at its state again.
_CLAIM = """
held AS (
    SELECT b.id FROM batch b
    JOIN release r ON r.update_id = b.update_id AND r.audience = b.audience
    JOIN incident_update u ON u.id = b.update_id
    JOIN message m ON m.id = b.message_id
    WHERE b.id = %(batch)s AND b.lease_epoch = %(epoch)s AND b.lease_until > now()
        AND NOT b.halted AND r.state = 'released' AND m.paused_at IS NULL
        AND (u.expires_at IS NULL OR u.expires_at > now())
        AND NOT EXISTS (SELECT FROM breaker k WHERE k.adapter = b.adapter
            AND k.sender IN ('', b.sender) AND k.probe_at > now()
            AND k.probing_batch IS DISTINCT FROM b.id)
    FOR UPDATE OF b
), chosen AS (
    SELECT d.id FROM delivery d
    WHERE d.update_id = %(update)s AND d.batch_id = %(batch)s AND d.state = 'pending'
        AND d.next_attempt_at <= now() AND EXISTS (SELECT FROM held)
    ORDER BY d.seq LIMIT %(limit)s
), claimed AS (
    UPDATE delivery d SET state = 'sending', epoch = %(epoch)s, attempts = d.attempts + 1,
        changed_at = now()
    WHERE d.update_id = %(update)s AND d.id = ANY(ARRAY(SELECT id FROM chosen))
        AND d.state = 'pending'
    RETURNING d.id, d.batch_id, d.seq, d.recipient_id, d.contact_point_id, d.attempts
)"""

_RENEW = """,
    lease_until = CASE WHEN b.id = %(batch)s AND b.lease_epoch = %(epoch)s
        THEN now() + make_interval(secs => %(seconds)s) ELSE b.lease_until END"""

_WINDOW = (
    f"WITH {_RECORD}, {_CLAIM}, moved AS ("
    " SELECT batch_id, was_state, now_state, accepted_at FROM recorded"
    " UNION ALL SELECT batch_id, 'pending', 'sending', NULL FROM claimed), "
    + counters(_RENEW)
    + " SELECT c.id::text, c.attempts, p.sealed, p.lookup, x.kind IS NOT NULL AS suppressed,"
    " r.name, r.ref, p.kind"
    " FROM claimed c JOIN contact_point p ON p.id = c.contact_point_id"
    " LEFT JOIN recipient r ON r.id = c.recipient_id AND %(names)s"
    " LEFT JOIN suppression x ON x.kind = p.kind AND x.lookup = p.lookup ORDER BY c.seq"
)

_REPORT = (
    f"WITH {_RECORD}, moved AS (SELECT batch_id, was_state, now_state, accepted_at FROM recorded), "
    + counters(_RENEW)
    + " SELECT count(*) FROM recorded"
)


def _arrays(records: Sequence[Record]) -> dict[str, Any]:
    taken = [r for r in records if r.state is State.ACCEPTED and r.plain]
    other = [r for r in records if r.state is not State.ACCEPTED or not r.plain]
    return {
        "taken": [record.id for record in taken],
        "taken_refs": [record.ref for record in taken],
        "ids": [record.id for record in other],
        "states": [record.state.value for record in other],
        "outcomes": [record.outcome for record in other],
        "reasons": [record.reason for record in other],
        "details": [record.detail for record in other],
        "refs": [record.ref for record in other],
        "delays": [record.delay for record in other],
        "tried": [record.tried for record in other],
    }


class Claim(NamedTuple):
    """A claimed delivery, its contact still sealed; the sending worker alone opens it.

    `name` and `ref` (the recipient's own id) are there only if the message has that slot. Like
    a record it is a tuple: there is one of each for every message sent.
    """

    id: str
    attempts: int
    sealed: bytes
    lookup: bytes
    suppressed: bool
    name: bytes | None
    ref: str | None
    kind: str


def window(
    conn: Connection, held: Lease, records: Sequence[Record], *, limit: int, seconds: float
) -> list[Claim]:
    """Record the last window's outcomes and claim the next rows, in one statement.

    Claims nothing if the lease is lost, the audience is stopped, the message paused, the
    update expired or the adapter's breaker open; outcomes are recorded all the same, as
    late evidence where the lease is no longer ours.
    """
    with conn.cursor() as cursor:
        cursor.execute(
            _WINDOW.encode(),
            _arrays(records)
            | {
                "batch": held.batch_id,
                "update": held.update_id,
                "epoch": held.epoch,
                "adapter": held.adapter,
                "sender": held.sender,
                "repeatable": held.repeatable,
                "limit": limit,
                "seconds": seconds,
                "names": "name" in held.message.slots,
            },
        )
        return [Claim._make(row) for row in cursor.fetchall()]


def report(conn: Connection, held: Lease, records: Sequence[Record], *, seconds: float) -> int:
    """Record outcomes alone; returns how many rows they moved."""
    row = conn.execute(
        _REPORT.encode(),
        _arrays(records)
        | {
            "batch": held.batch_id,
            "update": held.update_id,
            "epoch": held.epoch,
            "adapter": held.adapter,
            "sender": held.sender,
            "repeatable": held.repeatable,
            "seconds": seconds,
        },
    ).fetchone()
    return int(row[0]) if row else 0


def renew(conn: Connection, held: Lease, *, seconds: float) -> bool:
    """Hold the lease for another `seconds`; False if it is no longer ours."""
    return (
        conn.execute(
            "UPDATE batch SET lease_until = now() + make_interval(secs => %s)"
            " WHERE id = %s AND lease_epoch = %s AND lease_until > now()",
            (seconds, held.batch_id, held.epoch),
        ).rowcount
        > 0
    )


def hand_back(conn: Connection, held: Lease, *, park: float = 0.0) -> float | None:
    """End the lease; returns seconds until the batch is due again, None if it is not.

    `park` is how long the sender's pace asks to wait. A breaker that is open parks it too.
    Call inside a transaction, after all outcomes are recorded.
    """
    values = {
        "update": held.update_id,
        "batch": held.batch_id,
        "epoch": held.epoch,
        "adapter": held.adapter,
        "sender": held.sender,
        "park": park,
    }
    found = conn.execute(
        "SELECT b.sending, r.state <> 'released' FROM batch b"
        " JOIN release r ON r.update_id = b.update_id AND r.audience = b.audience"
        " WHERE b.id = %(batch)s AND b.lease_epoch = %(epoch)s FOR UPDATE OF b",
        values,
    ).fetchone()
    if found is None:
        return None
    sending, stopped = found
    if sending:
        # Claimed by a statement whose answer got lost: nothing of it ever left.
        conn.execute((_MOVE + counters()).encode() + b" SELECT", values | _UNCLAIM)
    if stopped:
        # Refused for now, and stopped meanwhile.
        conn.execute((_MOVE + counters()).encode() + b" SELECT", values | _STOP)
    row = conn.execute(
        "WITH next AS (SELECT min(next_attempt_at) AS at FROM delivery"
        " WHERE update_id = %(update)s AND batch_id = %(batch)s AND state = 'pending'),"
        " closed AS (SELECT max(probe_at) AS at FROM breaker WHERE adapter = %(adapter)s"
        " AND sender IN ('', %(sender)s))"
        " UPDATE batch b SET lease_owner = NULL, lease_until = NULL, due_at = CASE"
        " WHEN next.at IS NULL THEN NULL ELSE"
        " greatest(next.at, closed.at, now() + make_interval(secs => %(park)s)) END"
        " FROM next, closed WHERE b.id = %(batch)s"
        " RETURNING extract(epoch FROM b.due_at - now())::float8",
        values,
    ).fetchone()
    return None if row is None or row[0] is None else max(0.0, float(row[0]))


_MOVE = """
WITH moved AS (
    UPDATE delivery d SET state = %(now_state)s, reason = %(reason)s, changed_at = now(),
        next_attempt_at = CASE WHEN %(now_state)s = 'pending' THEN now() END,
        attempts = d.attempts - %(untried)s
    WHERE d.update_id = %(update)s AND d.batch_id = %(batch)s AND d.state = %(was_state)s
    RETURNING d.batch_id, %(was_state)s::text AS was_state, d.state AS now_state,
        NULL::timestamptz AS accepted_at
), """
_UNCLAIM = {"was_state": "sending", "now_state": "pending", "reason": "", "untried": 1}
_STOP = {"was_state": "pending", "now_state": "stopped", "reason": "stopped", "untried": 0}


def thread_refs(
    conn: Connection, held: Lease, contact_lookups: Sequence[bytes]
) -> Mapping[bytes, str]:
    """The latest accepted post of this incident per account, for replies in a thread."""
    rows = conn.execute(
        "SELECT DISTINCT ON (p.lookup) p.lookup, d.ref FROM delivery d"
        " JOIN contact_point p ON p.id = d.contact_point_id"
        " WHERE p.lookup = ANY(%s) AND d.channel = %s AND d.state IN ('accepted', 'delivered')"
        " AND d.update_id IN (SELECT o.id FROM incident_update o JOIN incident_update u"
        "   ON u.incident_id = o.incident_id WHERE u.id = %s AND o.id < u.id)"
        " ORDER BY p.lookup, d.update_id DESC",
        (list(contact_lookups), held.message.channel, held.update_id),
    ).fetchall()
    return {bytes(row[0]): row[1] for row in rows}

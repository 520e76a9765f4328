"""Which accepted deliveries a provider is asked about, because it has not told their end.

A delivery is asked about when it has been accepted for `after` seconds, and then each time
that age has doubled, for a day, each at most half of `after` late. Batches carry the time of
their next question, so that only those are read which have one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from dispatcher.ledger.connection import Connection

BATCHES = 200
"""Most batches looked at in one run."""
_YOUNG = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Question:
    """A delivery to ask about: `adapter` is the one that took it, under `ref`."""

    delivery_id: str
    update_id: str
    adapter: str
    ref: str


_NEXT = """
    CASE WHEN d.polled_at IS NULL THEN d.accepted_at + make_interval(secs => %(after)s)
    ELSE d.accepted_at + 2 * (d.polled_at - d.accepted_at) END"""

_OPEN = """
FROM delivery d WHERE d.update_id = %(update)s AND d.batch_id = %(batch)s
    AND d.state = 'accepted' AND d.accepted_at > now() - interval '1 day'
    AND d.ref NOT LIKE 'settled:%%'"""

_BATCHES = """
SELECT id, update_id::text FROM batch
WHERE update_id >= %(since)s AND accepted > 0 AND adapter = ANY(%(adapters)s)
    AND first_accepted_at <= now() - make_interval(secs => %(after)s)
    AND (poll_at IS NULL OR poll_at <= now())
ORDER BY id LIMIT %(batches)s
"""

_QUESTIONS = f"""
SELECT d.id::text, d.update_id::text, (SELECT a.adapter FROM attempt a
    WHERE a.update_id = %(update)s AND a.delivery_id = d.id AND a.outcome = 'accepted' LIMIT 1),
    d.ref {_OPEN} AND {_NEXT} <= now() ORDER BY d.seq LIMIT %(limit)s
"""

_AGAIN = f"""
UPDATE batch b SET poll_at = CASE WHEN n.at <= now() AND %(cut)s THEN now()
    ELSE least(greatest(coalesce(n.at, 'infinity'), now() + make_interval(secs => %(after)s) / 2),
        now() + make_interval(secs => %(after)s) * 12) END
FROM (SELECT min({_NEXT}) AS at {_OPEN}) n WHERE b.id = %(batch)s
"""


def questions(
    conn: Connection, adapters: Sequence[str], *, after: float, limit: int
) -> list[Question]:
    """At most `limit` deliveries to ask about now; their batches are put off meanwhile."""
    if not adapters:
        return []
    moment = datetime.now(UTC) - _YOUNG
    values = {
        "since": UUID(int=int(moment.timestamp() * 1000) << 80),
        "adapters": list(adapters),
        "after": after,
        "batches": BATCHES,
    }
    found: list[Question] = []
    for batch, update in conn.execute(_BATCHES.encode(), values).fetchall():
        about = {"batch": batch, "update": update, "after": after}
        rows = conn.execute(_QUESTIONS.encode(), about | {"limit": limit - len(found)}).fetchall()
        found += [Question(*row) for row in rows if row[2] in adapters]
        cut = len(found) >= limit
        conn.execute(_AGAIN.encode(), about | {"cut": cut})
        if cut:
            break
    return found


def asked(conn: Connection, answered: Sequence[Question]) -> None:
    """These were answered now, whatever the answer was."""
    for update in sorted({question.update_id for question in answered}):
        conn.execute(
            "UPDATE delivery SET polled_at = now() WHERE update_id = %(update)s"
            " AND id = ANY(%(ids)s::uuid[])",
            {
                "update": update,
                "ids": sorted(q.delivery_id for q in answered if q.update_id == update),
            },
        )

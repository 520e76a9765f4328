"""What operators watch, read from the ledger: true whichever process is asked.

Owns one statement whose cost hangs on what is under way and what was released within a day,
never on the years before: counters stand on batch rows, and every other table it reads is
small or read by an index. Must not know how figures are shown, and knows no person.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.ledger.connection import Connection, Ledger
from dispatcher.ledger.counting import STATES

RECENT = "24 hours"
"""How long after its release an update is watched, once nothing of it moves."""
SWEEP = "sweep"


@dataclass(frozen=True, slots=True)
class Sample:
    """One figure: which one, the values of its labels, and its value."""

    figure: str
    labels: tuple[str, ...]
    value: float


_STATES = ", ".join(f"('{state}', b.{state})" for state in STATES)
_AGE = "greatest(0, extract(epoch FROM now() - {}))::float8"

# `watched` are batches of updates of which something moves or that were released of late; what
# is `due` follows `due.take_due`. OFFSET 0 has them read update by update, through the index: the
# planner expects more updates than there are, and would read the batches of all years.
_READ = f"""
WITH watched AS MATERIALIZED (
    SELECT b.* FROM (
        SELECT update_id FROM release WHERE released_at > now() - interval '{RECENT}'
        UNION SELECT update_id FROM batch WHERE open) u
    CROSS JOIN LATERAL (SELECT * FROM batch WHERE update_id = u.update_id OFFSET 0) b
), waiting AS (
    SELECT b.lane, b.due_at, b.sending, b.lease_until, b.lease_until > now() AS held,
        b.due_at <= now() AND r.state = 'released' AND m.paused_at IS NULL AS due
    FROM watched b JOIN release r ON r.update_id = b.update_id AND r.audience = b.audience
    LEFT JOIN message m ON m.id = b.message_id WHERE b.open
), lanes AS (
    SELECT lane, count(*) FILTER (WHERE held) AS held,
        count(*) FILTER (WHERE due AND held IS NOT TRUE) AS due,
        min(due_at) FILTER (WHERE due AND held IS NOT TRUE) AS oldest
    FROM unnest(ARRAY['urgent', 'normal', 'bulk']) lane LEFT JOIN waiting USING (lane)
    GROUP BY lane
), doubted AS (
    SELECT adapter, count(*) AS rows, min(doubted_at) AS oldest FROM doubt GROUP BY adapter
), for_good AS (
    SELECT b.adapter, sum(greatest(0, b.unknown - coalesce(q.rows, 0))) AS rows
    FROM watched b LEFT JOIN (SELECT batch_id, count(*) AS rows FROM doubt GROUP BY batch_id) q
        ON q.batch_id = b.id
    WHERE b.unknown > 0 GROUP BY b.adapter
)
SELECT 'deliveries', ARRAY[b.channel, s.state], sum(s.rows)::float8
    FROM watched b, LATERAL (VALUES {_STATES}) s(state, rows) GROUP BY b.channel, s.state
UNION ALL SELECT 'batches', ARRAY[lane, 'due'], due FROM lanes
UNION ALL SELECT 'batches', ARRAY[lane, 'leased'], held FROM lanes
UNION ALL SELECT 'oldest_due', ARRAY[lane], coalesce({_AGE.format("oldest")}, 0) FROM lanes
UNION ALL SELECT 'leases_dead', '{{}}', count(*) FROM waiting
    WHERE sending > 0 AND lease_until <= now()
UNION ALL SELECT 'messages_paused', '{{}}', count(DISTINCT m.id) FROM watched b
    JOIN message m ON m.id = b.message_id WHERE b.open AND m.paused_at IS NOT NULL
UNION ALL SELECT 'unplanned', '{{}}', coalesce({_AGE.format("min(released_at)")}, 0) FROM release
    WHERE state = 'released' AND planned_at IS NULL
UNION ALL SELECT 'doubts', ARRAY[adapter], rows FROM doubted
UNION ALL SELECT 'oldest_doubt', ARRAY[adapter], {_AGE.format("oldest")} FROM doubted
UNION ALL SELECT 'unknown_for_good', ARRAY[adapter], rows FROM for_good
UNION ALL SELECT 'breakers_open', ARRAY[adapter], count(*) FROM breaker GROUP BY adapter
UNION ALL SELECT 'breaker_open', ARRAY[adapter, sender, reason], {_AGE.format("opened_at")}
    FROM breaker
UNION ALL SELECT 'last_accepted', ARRAY[adapter], {_AGE.format("max(last_accepted_at)")}
    FROM watched WHERE last_accepted_at IS NOT NULL GROUP BY adapter
UNION ALL SELECT 'last_receipt', ARRAY[name], coalesce((SELECT {_AGE.format("received_at")}
    FROM receipt WHERE adapter = name ORDER BY received_at DESC LIMIT 1), 'Infinity')
    FROM unnest(%(readers)s::text[]) name
UNION ALL SELECT 'last_sweep', '{{}}', coalesce((SELECT {_AGE.format("at")} FROM pulse
    WHERE name = '{SWEEP}'), 'Infinity')
UNION ALL SELECT 'schema', ARRAY[version_num], 1 FROM alembic_version
UNION ALL SELECT 'mode', ARRAY[mode], 1 FROM installation
UNION ALL SELECT 'database_bytes', '{{}}', pg_database_size(current_database())
"""


def read(conn: Connection, *, readers: Sequence[str]) -> list[Sample]:
    """Every figure of the ledger. `readers` are the adapters whose receipts are expected."""
    rows = conn.execute(_READ.encode(), {"readers": list(readers)}).fetchall()
    return [Sample(row[0], tuple(row[1]), float(row[2])) for row in rows]


def mark_sweep(ledger: Ledger) -> None:
    """Write down that the sweep ran now, by the database's clock. Raises `LedgerAway`."""
    with ledger.read() as conn:
        conn.execute(
            "INSERT INTO pulse (name, at) VALUES (%s, now())"
            " ON CONFLICT (name) DO UPDATE SET at = EXCLUDED.at",
            (SWEEP,),
        )

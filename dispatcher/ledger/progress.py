"""Where an update stands, read from counters; and the full check that they are true.

`planned` is what the selection counted before any row was made. While rows move, balance
is planned against counters; once nothing moves, it is the whole check: rows against
planned, counters against rows, and one accepting attempt with a ref of its own for each
accepted or delivered row. That check reads every row, so its answer is kept per process
for as long as the counters do not change.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from dispatcher.ledger import doubts, fallback
from dispatcher.ledger.connection import Connection, one
from dispatcher.ledger.counting import STATES, State

_SUMS = ", ".join(f"coalesce(sum(b.{state}), 0)::bigint AS {state}" for state in STATES)
MOVING = ("pending", "sending")


@dataclass(frozen=True, slots=True)
class Progress:
    """One update's numbers. `rows` per (audience, channel) hold planned and every state."""

    rows: Mapping[tuple[str, str], Mapping[str, int]]
    planned: int
    by_state: Mapping[str, int]
    by_channel: Mapping[str, Mapping[str, int]]
    by_audience: Mapping[str, Mapping[str, int]]
    first_accepted_at: datetime | None
    last_accepted_at: datetime | None
    all_planned: bool
    balanced: bool
    settled: bool

    @property
    def complete(self) -> bool:
        return self.balanced and self.settled


class Balances:
    """Remembers full checks by the counters they were made at."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, ...], bool]] = {}

    def check(self, conn: Connection, update_id: str, counts: tuple[int, ...]) -> bool:
        """Whether the rows bear the counters out, read anew only if the counters changed."""
        known = self._known.get(update_id)
        if known is not None and known[0] == counts:
            return known[1]
        verdict = not imbalances(conn, update_id)
        if len(self._known) > 1_000:
            self._known.clear()
        self._known[update_id] = (counts, verdict)
        return verdict


def read(conn: Connection, update_id: str, balances: Balances) -> Progress:
    """Progress from the counters of the update's batches; costs one row per batch.

    All of it is of one moment: numbers from before a plan and its mark from after it would
    add up to *complete* with nobody told. Call outside a transaction.
    """
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return _read(conn, update_id, balances)


def _read(conn: Connection, update_id: str, balances: Balances) -> Progress:
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT coalesce(p.audience, b.audience) AS audience,"
            " coalesce(p.channel, b.channel) AS channel, coalesce(p.rows, 0) AS planned, b.*"
            " FROM (SELECT audience, channel, rows FROM planned WHERE update_id = %(update)s) p"
            f" FULL JOIN (SELECT audience, channel, {_SUMS}, min(first_accepted_at) AS first,"
            " max(last_accepted_at) AS last FROM batch b WHERE update_id = %(update)s"
            " GROUP BY audience, channel) b USING (audience, channel)",
            {"update": update_id},
        )
        found = cursor.fetchall()
    all_planned = bool(
        one(
            conn.execute(
                "SELECT NOT EXISTS (SELECT FROM release WHERE update_id = %s"
                " AND state IN ('released', 'approved') AND planned_at IS NULL)"
                " AND EXISTS (SELECT FROM release WHERE update_id = %s AND planned_at IS NOT NULL)",
                (update_id, update_id),
            ).fetchone()
        )
    )
    rows = {
        (row["audience"], row["channel"]): {
            name: int(row[name] or 0) for name in ("planned", *STATES)
        }
        for row in found
    }
    totals = _total(rows.values())
    moving = sum(totals[state] for state in MOVING)
    level = all(
        counts["planned"] == sum(counts[state] for state in STATES) for counts in rows.values()
    )
    settled = (
        all_planned
        and moving == 0
        and not (totals[State.UNKNOWN] and doubts.open_in(conn, update_id))
        and not fallback.owing(conn, update_id)
    )
    balanced = level and (
        moving > 0
        or not rows
        or balances.check(conn, update_id, tuple(totals[name] for name in ("planned", *STATES)))
    )
    return Progress(
        rows=rows,
        planned=totals["planned"],
        by_state={state: totals[state] for state in STATES},
        by_channel=_grouped(rows, 1),
        by_audience=_grouped(rows, 0),
        first_accepted_at=min((row["first"] for row in found if row["first"]), default=None),
        last_accepted_at=max((row["last"] for row in found if row["last"]), default=None),
        all_planned=all_planned,
        balanced=balanced,
        settled=settled,
    )


def _total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total = dict.fromkeys(("planned", *STATES), 0)
    for count in counts:
        for name, value in count.items():
            total[name] += value
    return total


def _grouped(
    rows: Mapping[tuple[str, str], Mapping[str, int]], position: int
) -> dict[str, dict[str, int]]:
    groups: dict[str, list[Mapping[str, int]]] = {}
    for key, counts in rows.items():
        groups.setdefault(key[position], []).append(counts)
    return {name: _total(counts) for name, counts in sorted(groups.items())}


def imbalances(conn: Connection, update_id: str) -> list[str]:
    """What does not add up, in words with figures; empty when the ledger balances."""
    found: list[str] = []
    counted = ", ".join(f"count(*) FILTER (WHERE state = '{s}')" for s in STATES)
    stored = ", ".join(f"b.{s}" for s in STATES)
    wrong = one(
        conn.execute(
            f"SELECT count(*) FROM batch b LEFT JOIN (SELECT batch_id, ARRAY[{counted}] AS counts"
            " FROM delivery WHERE update_id = %(update)s GROUP BY batch_id) d ON d.batch_id = b.id"
            f" WHERE b.update_id = %(update)s AND ARRAY[{stored}]::bigint[] IS DISTINCT FROM d.counts",
            {"update": update_id},
        ).fetchone()
    )
    if wrong:
        found.append(f"{wrong} batches whose counters differ from their rows")
    differing = one(
        conn.execute(
            "SELECT count(*) FROM (SELECT audience, channel, rows FROM planned"
            " WHERE update_id = %(update)s) p FULL JOIN (SELECT b.audience, b.channel, count(*) AS n"
            " FROM delivery d JOIN batch b ON b.id = d.batch_id WHERE d.update_id = %(update)s"
            " GROUP BY 1, 2) r USING (audience, channel) WHERE p.rows IS DISTINCT FROM r.n",
            {"update": update_id},
        ).fetchone()
    )
    if differing:
        found.append(f"{differing} audience and channel pairs whose rows differ from planned")
    # Both tables in one pass and one grouping: a join's plan would hang on statistics.
    unproven = one(
        conn.execute(
            "SELECT count(*) FROM ("
            " SELECT id, sum(due) AS due, sum(proofs) AS proofs, max(ref) AS ref FROM ("
            "  SELECT id, 1 AS due, 0 AS proofs, NULL AS ref FROM delivery"
            "  WHERE update_id = %(update)s AND state IN ('accepted', 'delivered')"
            "  UNION ALL SELECT delivery_id, 0, 1, ref FROM attempt"
            "  WHERE update_id = %(update)s AND outcome = 'accepted') both_sides GROUP BY id"
            " ) paired WHERE due = 1 AND (proofs <> 1 OR coalesce(ref, '') = '')",
            {"update": update_id},
        ).fetchone()
    )
    if unproven:
        found.append(f"{unproven} accepted deliveries without exactly one accepting attempt")
    shared_refs = one(
        conn.execute(
            "SELECT count(*) - count(DISTINCT (adapter, ref)) FROM attempt"
            " WHERE update_id = %s AND outcome = 'accepted'",
            (update_id,),
        ).fetchone()
    )
    if shared_refs:
        found.append(f"{shared_refs} accepting attempts that share a provider's ref")
    return found


def deliveries(
    conn: Connection,
    update_id: str,
    *,
    state: str | None = None,
    channel: str | None = None,
    audience: str | None = None,
    untold: bool = False,
    after: str | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """A page of deliveries in order of id, `after` the last one seen.

    `untold` keeps only rows of people to whom nothing was accepted or delivered on any
    channel, themselves or through a contact point they share.
    """
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT d.id::text, r.ref AS recipient, b.audience, d.channel, d.state, d.reason,"
            " p.hint, d.attempts, b.adapter, d.changed_at, d.accepted_at, d.next_attempt_at, d.ref"
            " FROM delivery d JOIN batch b ON b.id = d.batch_id"
            " LEFT JOIN recipient r ON r.id = d.recipient_id"
            " LEFT JOIN contact_point p ON p.id = d.contact_point_id"
            " WHERE d.update_id = %(update)s"
            " AND (%(after)s::uuid IS NULL OR d.id > %(after)s::uuid)"
            " AND (%(state)s::text IS NULL OR d.state = %(state)s)"
            " AND (%(channel)s::text IS NULL OR d.channel = %(channel)s)"
            " AND (%(audience)s::text IS NULL OR b.audience = %(audience)s)"
            " AND (NOT %(untold)s OR NOT EXISTS (SELECT FROM delivery o"
            "  WHERE o.update_id = %(update)s AND o.recipient_id = d.recipient_id"
            "  AND (o.state IN ('accepted', 'delivered') OR EXISTS (SELECT FROM delivery s"
            "   WHERE s.update_id = %(update)s AND s.contact_point_id = o.shared_contact_id"
            "   AND s.channel = o.channel AND s.state IN ('accepted', 'delivered')))))"
            " ORDER BY d.id LIMIT %(limit)s",
            {
                "update": update_id,
                "after": after,
                "state": state,
                "channel": channel,
                "audience": audience,
                "untold": untold,
                "limit": limit,
            },
        )
        return cursor.fetchall()

"""Who has not been told by an update and why: counts of whole updates, and pages of people.

Owns two kinds of question. A *count* reads every row of an update and takes seconds where
there are a million, so it belongs in the background. A *page* reads a bounded number of rows,
whatever there are.
Knows no words for the reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from dispatcher.ledger.connection import Connection, one
from dispatcher.ledger.counting import STATES

EXAMPLES = 5
"""Examples shown for a reason."""
PAGE = 50
"""People on a page."""
BATCHES_AT_ONCE = 20
"""Batches that one look goes into."""
ROWS_AT_ONCE = 1_500
"""Rows not told that one look takes in."""
FEW_ROWS = 4 * PAGE
"""Rows that a look takes in first: mostly they are a page, and cost a fifth."""
LOOKS = 3
"""Looks of one page, while they find nobody."""

_TOLD = "('accepted', 'delivered')"
_ON_THE_WAY = "('pending', 'sending')"


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a shortfall: whom, and how, without an address."""

    recipient: str
    audience: str
    hint: str


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Messages of one channel that did not arrive, for one reason."""

    channel: str
    state: str
    reason: str
    rows: int
    audiences: Mapping[str, int]
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class People:
    """People of one audience: each stands in exactly one of the last four.

    `told` by any channel, themselves or by a contact point they share; else `waiting` for one
    that is pending or under way; else in `doubt`; else `untold`. Who was left out on purpose
    (told by a newer update, or spared) is `left_out` and not untold.
    """

    audience: str
    people: int
    told: int
    waiting: int
    doubt: int
    left_out: int
    untold: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What a count found, and when."""

    counted_at: datetime
    shortfalls: tuple[Shortfall, ...]
    people: tuple[People, ...]

    @property
    def untold(self) -> int:
        return sum(each.untold for each in self.people)


def count(conn: Connection, update_id: str) -> Figures:
    """Count an update's shortfalls and people. Reads all of its rows: seconds for a million."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        conn.execute("SET LOCAL work_mem = '64MB'; SET LOCAL jit = off")
        counted_at: datetime = one(conn.execute("SELECT now()").fetchone())
        return Figures(counted_at, _shortfalls(conn, update_id), _people(conn, update_id))


# Few rows of each batch are kept as examples: as numbers, since there may be a million.
_REASONS = f"""
SELECT b.audience, d.channel, d.state, d.reason, count(*) AS rows,
    d.batch_id, (array_agg(d.seq))[1:{EXAMPLES}] AS seqs
FROM delivery d JOIN batch b ON b.id = d.batch_id
WHERE d.update_id = %(update)s AND d.state <> ALL(%(well)s)
    AND NOT (d.state = 'skipped' AND d.reason = 'shared_contact')
GROUP BY d.batch_id, b.audience, d.channel, d.state, d.reason
ORDER BY rows DESC
"""
_WELL = ["accepted", "delivered", "pending", "sending", "spared", "superseded"]

_EXAMPLES = """
SELECT w.place, coalesce(r.ref, ''), b.audience, coalesce(p.hint, '')
FROM unnest(%(places)s::int[], %(batches)s::bigint[], %(seqs)s::int[]) AS w(place, batch, seq)
JOIN delivery d ON d.update_id = %(update)s AND d.batch_id = w.batch AND d.seq = w.seq
JOIN batch b ON b.id = d.batch_id
LEFT JOIN recipient r ON r.id = d.recipient_id
LEFT JOIN contact_point p ON p.id = d.contact_point_id
ORDER BY w.place, d.batch_id, d.seq
"""


def _shortfalls(conn: Connection, update_id: str) -> tuple[Shortfall, ...]:
    rows = conn.execute(
        _REASONS.encode(), {"update": update_id, "well": _WELL}, prepare=False
    ).fetchall()
    sums: dict[tuple[str, str, str], dict[str, int]] = {}
    picked: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for audience, channel, state, reason, number, batch, seqs in rows:
        key = (channel, state, reason)
        by_audience = sums.setdefault(key, {})
        by_audience[audience] = by_audience.get(audience, 0) + number
        chosen = picked.setdefault(key, [])
        chosen.extend((batch, seq) for seq in seqs[: EXAMPLES - len(chosen)])
    keys = sorted(sums, key=lambda key: (-sum(sums[key].values()), key))
    examples = _examples(conn, update_id, [picked[key] for key in keys])
    return tuple(
        Shortfall(*key, sum(sums[key].values()), sums[key], examples.get(place, ()))
        for place, key in enumerate(keys)
    )


def _examples(
    conn: Connection, update_id: str, picked: Sequence[Sequence[tuple[int, int]]]
) -> dict[int, tuple[Example, ...]]:
    flat = [(place, *row) for place, rows in enumerate(picked) for row in rows]
    found: dict[int, tuple[Example, ...]] = {}
    rows = conn.execute(
        _EXAMPLES.encode(),
        {
            "update": update_id,
            "places": [place for place, _, _ in flat],
            "batches": [batch for _, batch, _ in flat],
            "seqs": [seq for _, _, seq in flat],
        },
    ).fetchall()
    for place, ref, audience, hint in rows:
        known = found.get(place, ())
        if len(known) < EXAMPLES:
            found[place] = (*known, Example(ref, audience, hint))
    return found


# A row that points at a shared contact point stands where that point's own row stands.
_STANDING = """
    SELECT d.recipient_id, d.batch_id, d.seq, d.state, d.reason FROM delivery d
    WHERE d.update_id = %(update)s AND d.shared_contact_id IS NULL {mine}
    UNION ALL
    SELECT d.recipient_id, d.batch_id, d.seq, coalesce(s.state, d.state),
        coalesce(s.reason, d.reason)
    FROM delivery d LEFT JOIN delivery s ON s.update_id = %(update)s
        AND s.contact_point_id = d.shared_contact_id AND s.channel = d.channel
    WHERE d.update_id = %(update)s AND d.shared_contact_id IS NOT NULL {mine}
"""
_PLACE = f"""
    CASE WHEN bool_or(state IN {_TOLD}) THEN 'told'
        WHEN bool_or(state IN {_ON_THE_WAY}) THEN 'waiting'
        WHEN bool_or(state = 'unknown') THEN 'doubt'
        WHEN bool_or(state IN ('superseded', 'spared') AND reason <> 'next_step') THEN 'left_out'
        ELSE 'untold' END AS place
"""
_PEOPLE = f"""
WITH standing AS ({_STANDING.format(mine="")}), person AS (
    SELECT min(batch_id) AS batch_id, {_PLACE} FROM standing GROUP BY recipient_id
)
SELECT b.audience, count(*), count(*) FILTER (WHERE place = 'told'),
    count(*) FILTER (WHERE place = 'waiting'), count(*) FILTER (WHERE place = 'doubt'),
    count(*) FILTER (WHERE place = 'left_out'), count(*) FILTER (WHERE place = 'untold')
FROM person p JOIN batch b ON b.id = p.batch_id GROUP BY b.audience ORDER BY b.audience
"""


def _people(conn: Connection, update_id: str) -> tuple[People, ...]:
    rows = conn.execute(_PEOPLE.encode(), {"update": update_id}, prepare=False).fetchall()
    return tuple(People(*row) for row in rows)


@dataclass(frozen=True, slots=True)
class Way:
    """One way that was tried, or could not be, for a person."""

    channel: str
    state: str
    reason: str
    hint: str
    changed_at: datetime


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who has not been told, with every way there was."""

    recipient: str
    audience: str
    ways: tuple[Way, ...]


@dataclass(frozen=True, slots=True)
class Untold:
    """A page of people. `after` is where the next page begins; None at the end.

    `looked` says how many rows this page looked at: with few people among many rows a page
    may hold fewer than it has room for, even none, and yet not be the last.
    """

    people: tuple[Person, ...]
    looked: int
    after: tuple[int, int] | None


class Group(StrEnum):
    """Where people stand who were not told."""

    UNTOLD = "untold"
    WAITING = "waiting"
    DOUBT = "doubt"
    LEFT_OUT = "left_out"


_STATES: Mapping[Group, tuple[str, ...]] = {
    # A person of the group has a row in one of these, so that no others need be looked at.
    Group.UNTOLD: ("failed", "skipped", "expired", "stopped"),
    Group.WAITING: ("pending", "sending"),
    Group.DOUBT: ("unknown",),
    Group.LEFT_OUT: ("superseded", "spared"),
}
_SHARES = "(d.state = 'skipped' AND d.reason = 'shared_contact')"

_CANDIDATES = f"""
WITH looked AS MATERIALIZED (
    SELECT d.batch_id, d.seq, d.recipient_id FROM delivery d
    WHERE d.update_id = %(update)s AND d.batch_id = ANY(%(batches)s)
        AND (d.batch_id, d.seq) > (%(batch)s::bigint, %(seq)s::int)
        AND (d.state = ANY(%(states)s) OR %(any)s AND {_SHARES})
        AND (%(reason)s::text IS NULL OR d.reason = %(reason)s)
    ORDER BY d.batch_id, d.seq LIMIT %(rows)s
)
SELECT l.batch_id, l.seq, l.recipient_id, p.place = %(group)s AND NOT EXISTS (
    SELECT FROM delivery d WHERE d.update_id = %(update)s AND d.recipient_id = l.recipient_id
        AND (d.batch_id, d.seq) < (l.batch_id, l.seq)
        AND (d.state = ANY(%(states)s) OR %(any)s AND {_SHARES})
        AND (%(reason)s::text IS NULL OR d.reason = %(reason)s))
FROM looked l CROSS JOIN LATERAL (
    SELECT {_PLACE} FROM ({_STANDING.format(mine="AND d.recipient_id = l.recipient_id")}) standing
) p ORDER BY l.batch_id, l.seq
"""
_WAYS = """
SELECT w.place, coalesce(r.ref, ''), b.audience, d.channel, d.state, d.reason,
    coalesce(p.hint, c.hint, ''), d.changed_at
FROM unnest(%(places)s::int[], %(people)s::bigint[]) AS w(place, recipient)
JOIN delivery d ON d.update_id = %(update)s AND d.recipient_id = w.recipient
JOIN batch b ON b.id = d.batch_id
LEFT JOIN recipient r ON r.id = d.recipient_id
LEFT JOIN contact_point p ON p.id = d.contact_point_id
LEFT JOIN contact_point c ON c.id = d.shared_contact_id
ORDER BY w.place, d.channel
"""


def untold(
    conn: Connection,
    update_id: str,
    *,
    group: Group = Group.UNTOLD,
    audience: str | None = None,
    state: str | None = None,
    reason: str | None = None,
    after: tuple[int, int] = (0, -1),
) -> Untold:
    """A page of people of a group, as `People` counts them, each once with all their ways.

    `after` is the (batch, seq) where the page before ended; `state` and `reason` keep to people
    with such a row. Looks `LOOKS` times, each time at `BATCHES_AT_ONCE` batches and
    `ROWS_AT_ONCE` rows at most, and ends sooner with the first that finds anybody.
    """
    if state is None and not _any(conn, update_id, _STATES[group]):
        # Who shares a contact stands where its row stands: without such a row nobody does.
        return Untold((), 0, None)
    looked = 0
    for _ in range(LOOKS):
        found = _look(
            conn,
            update_id,
            group=group,
            audience=audience,
            states=_STATES[group] if state is None else (state,),
            reason=reason,
            after=after,
        )
        looked += found.looked
        if found.people or found.after is None:
            break
        after = found.after
    return replace(found, looked=looked)


def _look(
    conn: Connection,
    update_id: str,
    *,
    group: Group,
    audience: str | None,
    states: Sequence[str],
    reason: str | None,
    after: tuple[int, int],
) -> Untold:
    shares = states == _STATES[group] and "skipped" not in states
    holding = (*states, "skipped") if shares else states
    batches = _batches(conn, update_id, holding=holding, audience=audience, first=after[0])
    more, batches = len(batches) > BATCHES_AT_ONCE, batches[:BATCHES_AT_ONCE]
    if not batches:
        return Untold((), 0, None)
    for most in (FEW_ROWS, ROWS_AT_ONCE):
        rows = conn.execute(
            _CANDIDATES.encode(),
            {
                "update": update_id,
                "batches": batches,
                "batch": after[0],
                "seq": after[1],
                "group": group.value,
                "states": list(states),
                "any": shares,
                "reason": reason,
                "rows": most,
            },
            prepare=False,
        ).fetchall()
        chosen: list[int] = []
        looked = 0
        ends: tuple[int, int] | None = None
        for batch, seq, recipient, belongs in rows:
            if len(chosen) == PAGE:
                break
            looked, ends = looked + 1, (batch, seq)
            if belongs:
                chosen.append(recipient)
        if len(chosen) == PAGE or len(rows) < most:
            break
    if looked == len(rows) < most:
        # These batches are through: go on behind them.
        ends = (batches[-1] + 1, -1) if more else None
    return Untold(_with_ways(conn, update_id, chosen), looked, ends)


def _any(conn: Connection, update_id: str, states: Sequence[str]) -> bool:
    counters = " + ".join(state for state in STATES if state in states)
    found = conn.execute(
        f"SELECT EXISTS (SELECT FROM batch WHERE update_id = %s AND {counters} > 0)".encode(),
        (update_id,),
    ).fetchone()
    return bool(one(found))


def _batches(
    conn: Connection,
    update_id: str,
    *,
    holding: Sequence[str],
    audience: str | None,
    first: int,
) -> list[int]:
    counters = " + ".join(state for state in STATES if state in holding)
    rows = conn.execute(
        "SELECT id FROM batch WHERE update_id = %(update)s AND id >= %(first)s"
        f" AND {counters or '0'} > 0 AND (%(audience)s::text IS NULL OR audience = %(audience)s)"
        " ORDER BY id LIMIT %(most)s",
        {
            "update": update_id,
            "first": first,
            "audience": audience,
            "most": BATCHES_AT_ONCE + 1,
        },
    ).fetchall()
    return [row[0] for row in rows]


def _with_ways(conn: Connection, update_id: str, people: Sequence[int]) -> tuple[Person, ...]:
    rows = conn.execute(
        _WAYS.encode(),
        {"update": update_id, "places": list(range(len(people))), "people": list(people)},
    ).fetchall()
    found: dict[int, Person] = {}
    for place, ref, audience, *way in rows:
        ways = (*(found[place].ways if place in found else ()), Way(*way))
        found[place] = Person(ref, audience, ways)
    return tuple(found[place] for place in sorted(found))


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What waits for one sender: messages, and their size in the adapter's own unit."""

    channel: str
    sender: str
    rows: int
    units: int


def outstanding(conn: Connection, update_id: str) -> tuple[Outstanding, ...]:
    """What is pending or under way, by sender, from the batches' counters."""
    rows = conn.execute(
        "SELECT b.channel, b.sender, sum(b.pending + b.sending)::bigint,"
        " sum((b.pending + b.sending) * coalesce(m.units, 1))::bigint"
        " FROM batch b LEFT JOIN message m ON m.id = b.message_id"
        " WHERE b.update_id = %s AND b.pending + b.sending > 0 AND NOT b.halted"
        " GROUP BY b.channel, b.sender ORDER BY b.channel, b.sender",
        (update_id,),
    ).fetchall()
    return tuple(Outstanding(*row) for row in rows)


@dataclass(frozen=True, slots=True)
class Paused:
    """A message whose remaining rows wait for a person, since its content was refused."""

    audience: str
    channel: str
    locale: str
    paused_at: datetime
    waiting: int


def paused(conn: Connection, update_id: str) -> tuple[Paused, ...]:
    """The update's messages that are paused, with how many rows wait."""
    rows = conn.execute(
        "SELECT m.audience, m.channel, m.locale, m.paused_at,"
        " (SELECT coalesce(sum(b.pending), 0)::bigint FROM batch b WHERE b.update_id = %(update)s"
        "  AND b.message_id = m.id)"
        " FROM message m WHERE m.update_id = %(update)s AND m.paused_at IS NOT NULL"
        " ORDER BY m.audience, m.channel, m.locale",
        {"update": update_id},
    ).fetchall()
    return tuple(Paused(*row) for row in rows)

"""Working receipts off: what providers said since the last time is applied to the rows.

One worker at a time. What changes nothing, most of it, is noted without holding anything;
the rest is applied batch by batch in short transactions, so that no sender waits for long.
Whatever is cut short is done by the next run: a result is written with the move it stands
for.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

import structlog

from dispatcher.delivery.evidence import Result, Verdict, judge
from dispatcher.ledger import receipts
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.receipts import Row, Waiting

log = structlog.get_logger(__name__)

MOST = 5_000
"""Events worked off in one run."""
TOGETHER = 500
"""Rows moved in one transaction."""

HOUSEKEEPING = 3_600.0

Results = dict[int, tuple[str, str]]


class Receipts:
    """Applies what waits. `name` names this work to a worker, and `poll` that of asking, every
    `poll_every` seconds; None where no provider is asked."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        name: Callable[[], object],
        poll: Callable[[], object] | None,
        poll_every: float,
        monotonic: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._name = name
        self._poll = poll
        self._poll_every = poll_every
        self._monotonic = monotonic
        self._polled: float | None = None
        self._kept_house: float | None = None

    def remind(self) -> None:
        """What the sweep does for receipts: name what waits, and forget what is old enough.

        Raises `LedgerAway`.
        """
        now = self._monotonic()
        with self._ledger.read() as conn:
            if receipts.any_waiting(conn):
                self._name()
        if self._poll is not None and _due(self._polled, now, self._poll_every):
            self._polled = now
            self._poll()
        if _due(self._kept_house, now, HOUSEKEEPING):
            with self._ledger.transaction() as work:
                receipts.forget_old(work.conn)
            self._kept_house = now

    def work(self) -> int:
        """Work off at most `MOST` events; returns how many were looked at, 0 if another worker
        is at it. Raises `LedgerAway`; what is left stays for the next run."""
        with self._ledger.transaction() as turn:
            if not receipts.take_turn(turn.conn):
                return 0
            looked_at = self._work()
        if looked_at == MOST:
            self._name()
        return looked_at

    def _work(self) -> int:
        with self._ledger.read() as conn:
            events = receipts.waiting(conn, limit=MOST)
            if not events:
                return 0
            rows = receipts.find(conn, sorted({e.delivery_id for e in events if e.delivery_id}))
        by_row: dict[str, list[Waiting]] = {}
        results: Results = {}
        for event in events:
            if event.delivery_id in rows:
                by_row.setdefault(event.delivery_id, []).append(event)
            else:
                results[event.id] = (event.adapter, Result.UNMATCHED)
        moving: list[Row] = []
        later: list[int] = []
        for id, words in by_row.items():
            verdict = judge(rows[id], words)
            if verdict.change is not None:
                moving.append(rows[id])
            else:
                # Rows only ever go on from here, so that what is nothing new now never will be.
                later += self._note(rows[id], words, verdict, results)
        with self._ledger.transaction() as work:
            receipts.close(work.conn, results)
            if later:
                receipts.postpone(work.conn, later)
        for part in _parts(moving):
            self._apply(part, by_row)
        log.info("receipts.worked", events=len(events), rows=len(moving), waiting=len(later))
        return len(events)

    def _apply(self, rows: Sequence[Row], by_row: Mapping[str, Sequence[Waiting]]) -> None:
        """Move rows of one update, judged anew with their batches held."""
        results: Results = {}
        with self._ledger.transaction() as work:
            present = receipts.lock(work.conn, rows)
            verdicts = {id: judge(row, by_row[id]) for id, row in present.items()}
            changes = [v.change for v in verdicts.values() if v.change is not None]
            moved = receipts.move(work.conn, rows[0].update_id, changes, told="told by a receipt")
            for id, verdict in verdicts.items():
                if verdict.change is None or id in moved:
                    self._note(present[id], by_row[id], verdict, results)
            receipts.close(work.conn, results)

    @staticmethod
    def _note(row: Row, words: Sequence[Waiting], verdict: Verdict, results: Results) -> list[int]:
        """Add each event's result; returns those that have to wait."""
        waiting: list[int] = []
        for word, result in zip(words, verdict.results, strict=True):
            if result is None:
                waiting.append(word.id)
                continue
            results[word.id] = (word.adapter, result.value)
            if result is Result.SECOND_REF:
                log.error("receipt.second_ref", delivery=row.id, adapter=word.adapter)
        return waiting


def _parts(rows: Iterable[Row]) -> Iterable[list[Row]]:
    """Rows of one update together, batch by batch, at most `TOGETHER` at once."""
    ordered = sorted(rows, key=lambda row: (row.update_id, row.batch_id))
    for _, group in groupby(ordered, key=lambda row: row.update_id):
        found = list(group)
        for first in range(0, len(found), TOGETHER):
            yield found[first : first + TOGETHER]


def _due(last: float | None, now: float, every: float) -> bool:
    return last is None or now - last >= every

"""The sweep: whatever was lost on the way is found in the ledger and named again.

Runs once a second from beat; two at once do no harm. It plans what was released and not
planned, buries dead leases (rows in doubt become *unknown*), expires what is too late,
does what other parts want done each second (`chores`), names due batches to their lanes
and the adapters whose rows in doubt may be asked about, so that a flushed broker loses
nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from dispatcher.delivery.errors import where
from dispatcher.ledger import batches, doubts, due, idempotency, stops, updates
from dispatcher.ledger.connection import Ledger, LedgerAway
from dispatcher.planning import LANE_ORDER

log = structlog.get_logger(__name__)

QUIET = 30.0
"""Seconds after which a batch named to a busy queue is named again."""
QUIET_WHEN_EMPTY = 2.0
"""The same when its queue is empty: the message was lost, or its worker was."""
MOST = 500
"""Batches named per lane and sweep: the rest is named by the next."""
HOUSEKEEPING = 3_600
ASK_QUIET = 5.0
"""Seconds after which an adapter with rows in doubt is named again."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep found."""

    planned: int
    named: int
    in_doubt: int
    expired: int


class Recovery:
    """Sweeps. `plan`, `send` and `ask` name work; `depth` is a queue's length or None if
    unknown; `settle` is how many seconds rows of an adapter must be in doubt before it is
    asked; `chores` are done by each sweep, and cost next to nothing where nothing is to do."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        plan: Callable[[str], object],
        send: Callable[[Sequence[tuple[int, str]]], object],
        depth: Callable[[str], int | None],
        monotonic: Callable[[], float],
        ask: Callable[[str], object] = lambda adapter: None,
        settle: Mapping[str, float] | None = None,
        chores: Sequence[Callable[[], object]] = (),
    ) -> None:
        self._ledger = ledger
        self._plan = plan
        self._send = send
        self._depth = depth
        self._monotonic = monotonic
        self._ask = ask
        self._settle = settle or {}
        self._chores = tuple(chores)
        self._asked: dict[str, float] = {}
        self._kept_house: float | None = None

    def sweep(self) -> Sweep:
        """One pass. Raises `LedgerAway`; the next pass finds what this one did not."""
        with self._ledger.read() as conn:
            unplanned = updates.unplanned(conn)
            dead = due.dead_leases(conn)
            late = due.expired_updates(conn)
        for update_id in unplanned:
            self._plan(update_id)
        in_doubt = sum(self._bury(lease) for lease in dead)
        expired = 0
        for update_id in late:
            with self._ledger.transaction() as work:
                expired += stops.expire(work.conn, update_id)
        for chore in self._chores:
            self._do(chore)
        named = sum(self._name(lane) for lane in LANE_ORDER)
        self._ask_about_doubts()
        self._align()
        self._keep_house()
        found = Sweep(len(unplanned), named, in_doubt, expired)
        if unplanned or named or in_doubt or expired:
            log.info(
                "sweep", planned=found.planned, named=named, in_doubt=in_doubt, expired=expired
            )
        return found

    def _do(self, chore: Callable[[], object]) -> None:
        """One chore; what it fails at must not keep the others from being done."""
        try:
            chore()
        except LedgerAway:
            raise
        except Exception as error:
            log.error("chore.failed", errors=where(error))  # noqa: TRY400

    def _align(self) -> None:
        """Rows of batches that were stopped or resumed follow, in small transactions."""
        while True:
            with self._ledger.transaction() as work:
                aligned = stops.align(work.conn)
            if aligned.queued:
                self._send(aligned.queued)
            if not aligned.batches:
                return

    def _ask_about_doubts(self) -> None:
        with self._ledger.read() as conn:
            due_now = doubts.due_adapters(conn, self._settle)
        now = self._monotonic()
        for adapter in due_now:
            if now - self._asked.get(adapter, now - ASK_QUIET) >= ASK_QUIET:
                self._asked[adapter] = now
                self._ask(adapter)

    def _bury(self, lease: due.DeadLease) -> int:
        with self._ledger.transaction() as work:
            if not due.bury(work.conn, lease.batch_id):
                return 0
            return batches.abandon(work.conn, lease.batch_id, update_id=lease.update_id)

    def _name(self, lane: str) -> int:
        quiet = QUIET_WHEN_EMPTY if self._depth(lane) == 0 else QUIET
        with self._ledger.transaction() as work:
            found = due.take_due(work.conn, lane=lane, quiet_seconds=quiet, limit=MOST)
        if found:
            self._send([(batch.batch_id, batch.lane) for batch in found])
        return len(found)

    def name_again(self, batch_id: int) -> None:
        """Name a batch whose turn ended with work left, behind those that wait."""
        with self._ledger.read() as conn:
            lane = due.named_now(conn, batch_id)
        if lane is not None:
            self._send([(batch_id, lane)])

    def _keep_house(self) -> None:
        """Once an hour: partitions for the months to come, answers past their time."""
        now = self._monotonic()
        if self._kept_house is not None and now - self._kept_house < HOUSEKEEPING:
            return
        with self._ledger.transaction() as work:
            due.ensure_months(work.conn)
            idempotency.forget_old(work.conn)
        self._kept_house = now

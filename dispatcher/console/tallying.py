"""Counts of whole updates, made in the background and remembered by the counters they fit.

Owns when a count is made: one at a time in this process, and seldom while much moves. What is
counted, and how, is the matter of `ledger.shortfalls` and `ledger.progress`.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import structlog

from dispatcher.ledger.connection import Connection, Ledger, LedgerAway
from dispatcher.ledger.progress import Balances
from dispatcher.ledger.shortfalls import Figures, count

QUIET_SHARE = 20.0
"""An update is counted again after this many times as long as its last count took."""
LEAST_QUIET = 2.0
"""Seconds between two counts of an update at least."""
PATIENCE = 0.08
"""Seconds for which a page waits for a first count: small updates need no second look."""
WORTH_WAITING = 100_000
"""Rows of an update up to which its first count may be there within `PATIENCE`."""
REMEMBERED = 200
"""Updates whose counts are kept."""

log = structlog.get_logger(__name__)


def _worth(patience: float, counts: tuple[int, ...]) -> float:
    """Seconds to wait for a count: none where it takes longer than a page's patience anyway."""
    return 0.0 if patience <= PATIENCE and counts[0] > WORTH_WAITING else patience


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of an update: the figures, and whether the counters moved since."""

    figures: Figures | None
    current: bool


@dataclass(slots=True)
class _Kept:
    counts: tuple[int, ...]
    figures: Figures
    took: float
    at: float


class Tallies:
    """Counts updates in the background, one at a time in this process, and remembers.

    A count that takes a second is not repeated for twenty, however often it is asked for
    while messages leave; once the counters stand still the last count is exact.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        clock: Callable[[], float] = time.monotonic,
        counter: Callable[[Connection, str], Figures] = count,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._count = counter
        self._kept: dict[str, _Kept] = {}
        self._asked: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shortfalls")

    def known(
        self, update_id: str, counts: tuple[int, ...], *, patience: float = PATIENCE
    ) -> Known:
        """What is known of an update whose counters are `counts`; asks for more if it is old.

        Returns at once, or within `patience` seconds where nothing is known yet.
        """
        with self._lock:
            kept = self._kept.get(update_id)
            if kept is not None and kept.counts == counts:
                return Known(kept.figures, True)
            rested = kept is None or self._clock() - kept.at >= max(
                LEAST_QUIET, kept.took * QUIET_SHARE
            )
            if rested and update_id not in self._asked:
                self._asked[update_id] = self._worker.submit(self._work, update_id, counts)
            asked = self._asked.get(update_id)
        if kept is None and asked is not None:
            wait([asked], timeout=_worth(patience, counts))
            with self._lock:
                kept = self._kept.get(update_id)
        if kept is None:
            return Known(None, False)
        return Known(kept.figures, kept.counts == counts)

    def close(self) -> None:
        """Let the count under way end; no further one begins."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _work(self, update_id: str, counts: tuple[int, ...]) -> None:
        began = self._clock()
        figures: Figures | None = None
        try:
            with self._ledger.read() as conn:
                figures = self._count(conn, update_id)
        except LedgerAway:
            log.warning("shortfalls.ledger_away")
        except Exception as error:  # the next who asks tries again
            log.error("shortfalls.failed", error=type(error).__name__)  # noqa: TRY400
        with self._lock:
            self._asked.pop(update_id, None)
            if figures is None:
                return
            if len(self._kept) >= REMEMBERED:
                self._kept.clear()
            now = self._clock()
            self._kept[update_id] = _Kept(counts, figures, now - began, now)


class Checks(Balances):
    """Full checks for pages: made in the background, and *not balanced* until they are through.

    A page so never says *complete* too early, and never waits for a million rows.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self._asked: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checks")

    def check(
        self,
        conn: Connection,
        update_id: str,
        counts: tuple[int, ...],
        *,
        patience: float = PATIENCE,
    ) -> bool:
        """Whether the rows bear the counters out; False too while that is being found out."""
        with self._lock:
            known = self._known.get(update_id)
            if known is not None and known[0] == counts:
                return known[1]
            if update_id not in self._asked:
                self._asked[update_id] = self._worker.submit(self._work, update_id, counts)
            asked = self._asked[update_id]
        wait([asked], timeout=_worth(patience, counts))
        with self._lock:
            known = self._known.get(update_id)
        return known is not None and known[0] == counts and known[1]

    def close(self) -> None:
        """Let the check under way end; no further one begins."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _work(self, update_id: str, counts: tuple[int, ...]) -> None:
        try:
            with self._ledger.read() as conn:
                super().check(conn, update_id, counts)
        except LedgerAway:
            log.warning("checks.ledger_away")
        except Exception as error:  # the next who asks tries again
            log.error("checks.failed", error=type(error).__name__)  # noqa: TRY400
        finally:
            with self._lock:
                self._asked.pop(update_id, None)

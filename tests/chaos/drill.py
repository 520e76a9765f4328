"""One run: an update to everybody, faults at its moments, the end, the verdict."""

import contextlib
import heapq
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.chaos.faults import strike
from tests.chaos.judge import Verdict, judge, shown
from tests.chaos.plan import Run
from tests.chaos.site import NotNow, Site, back

PATIENCE = 4.0
"""Seconds without the progress that a blow waits for, after which it falls all the same."""
SETTLES_WITHIN = 240.0
_PAUSE = threading.Event()  # never set: paces the looking at what other processes do


class Unsettled(AssertionError):
    """A run that did not come to its end."""


@dataclass(slots=True)
class Sums:
    """What runs found, together."""

    runs: int = 0
    faults: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    planned: int = 0
    sandbox_total: int = 0
    lost: int = 0
    duplicates: int = 0
    unknown: int = 0
    unknown_taken: int = 0

    def add(self, run: Run, verdict: Verdict) -> None:
        self.runs += 1
        self.faults += len(run.blows)
        self.by_kind.update(blow.kind for blow in run.blows)
        self.planned += verdict.planned
        self.sandbox_total += verdict.held
        self.lost += verdict.lost
        self.duplicates += verdict.duplicates
        self.unknown += verdict.unknown
        self.unknown_taken += verdict.taken


def drill(site: Site, run: Run) -> Verdict:
    """Run it to its end. Raises `Unsettled`, with the update's numbers, if there is none."""
    update = site.begin(run.delay)
    _fall(site, run, update)
    settle(site, update)
    return judge(site, update)


def settle(site: Site, update: str) -> None:
    """Wait until all is there again, the update is calm, and nothing more arrives."""
    back(site)
    _wait(lambda: site.calm(update), site, update)
    _wait(site.quiet, site, update)
    _still(site)


def settled(site: Site, updates: Sequence[str]) -> None:
    """Wait until these updates stand as they will stand, balanced. Raises `Unsettled`."""
    for update in updates:
        _wait(partial(site.settled, update), site, update)


def _fall(site: Site, run: Run, update: str) -> None:
    """Let the blows fall at their share of messages taken, and undo each in its time."""
    waiting = list(reversed(run.blows))
    undoing: list[tuple[float, int, Callable[[], object]]] = []
    order = itertools.count()
    last = time.monotonic()
    try:
        while waiting or undoing:
            now = time.monotonic()
            while undoing and undoing[0][0] <= now:
                heapq.heappop(undoing)[2]()
            if waiting:
                reached = site.taken() >= waiting[-1].at * site.size
                if reached or now - last > PATIENCE:
                    with contextlib.suppress(NotNow):
                        undo = strike(site, waiting[-1])
                        waiting.pop()
                        last = time.monotonic()
                        if undo is not None:
                            heapq.heappush(undoing, (last + undo.after, next(order), undo.end))
            _PAUSE.wait(0.01)
    finally:
        for _, _, end in undoing:
            end()


def _wait(done: Callable[[], bool], site: Site, update: str) -> None:
    end = time.monotonic() + SETTLES_WITHIN
    while not done():
        if time.monotonic() > end:
            numbers = site.progress(update)
            raise Unsettled(f"not settled after {SETTLES_WITHIN:.0f} s: {numbers}")
        _PAUSE.wait(0.1)


def _still(site: Site) -> None:
    """Until the simulators have taken nothing more for a while: a request that is still on its
    way would be a duplicate, and has to be seen."""
    count, looks = -1, 0
    while looks < 10:
        now = site.taken()
        looks = looks + 1 if now == count else 0
        count = now
        _PAUSE.wait(0.1)


def told(run: Run, verdict: Verdict, *, blind: bool) -> list[str]:
    """What is wrong with a run, in words; empty for a good one."""
    found = []
    if verdict.duplicates:
        found.append(f"{verdict.duplicates} duplicates")
    if blind and verdict.lost != verdict.unknown:
        found.append(f"{verdict.lost} lost, {verdict.unknown} of them listed as unknown")
    if not blind and verdict.lost:
        found.append(f"{verdict.lost} lost")
    if verdict.wrong:
        found.append(shown(verdict.wrong))
    if found:
        found.append(f"run {run.number}: {words(run.blows)}")
    return found


def words(blows: Sequence[object]) -> str:
    return "; ".join(str(blow) for blow in blows)

"""How fast an update goes and how long it will still take. Pure; clocks are arguments."""

from collections import deque
from collections.abc import Mapping

WINDOW = 10.0
"""Seconds over which a rate is measured."""


class Pace:
    """What had gone by channel at some moments of the last ten seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, dict[str, int]]] = deque()

    def note(self, at: float, gone: Mapping[str, int]) -> None:
        """Remember that by `at` (monotonic seconds) so many had gone."""
        if self._seen and at - self._seen[-1][0] < 0.5:
            return
        self._seen.append((at, dict(gone)))
        while len(self._seen) > 2 and self._seen[1][0] <= at - WINDOW:
            self._seen.popleft()

    def rates(self, now: float, gone: Mapping[str, int]) -> dict[str, float]:
        """Messages per second by channel, up to `now`; empty until there are two moments."""
        before = [seen for seen in self._seen if now - seen[0] <= 2 * WINDOW]
        if not before or now - before[0][0] < 0.5:
            return {}
        at, then = before[0]
        return {
            channel: max(0.0, (number - then.get(channel, 0)) / (now - at))
            for channel, number in gone.items()
        }


def time_left(
    waiting: Mapping[str, int], rates: Mapping[str, float], bounds: Mapping[str, float]
) -> dict[str, float]:
    """Seconds until each channel is through, as far as that can be said.

    `bounds` are the seconds that the senders' own rates need at least, which is all that is known
    before a rate was measured. A channel that waits and does not move is left out.
    """
    found: dict[str, float] = {}
    for channel, rows in waiting.items():
        if not rows:
            continue
        rate, bound = rates.get(channel), bounds.get(channel)
        if rate:
            found[channel] = max(rows / rate, bound or 0.0)
        elif rate is None and bound is not None:
            found[channel] = bound
    return found

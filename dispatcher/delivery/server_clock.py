"""What a worker knows of Valkey's clock: pure, no I/O.

A grant's moments are on the server's clock, a worker waits on its own. Each answer bounds
the difference, since the server read its clock between the asking and the answer; the
bounds of all answers together are far closer than one round trip, and one answer that was
read late, by a process that stood still, cannot move them.
"""

from dataclasses import dataclass

DRIFT = 500e-6
"""Seconds a second that two clocks may run apart: the most that a clock is slewed
(https://man7.org/linux/man-pages/man2/adjtimex.2.html)."""
SHARP = 0.005
"""Seconds of uncertainty below which a moment can be trusted."""


@dataclass(slots=True)
class ServerClock:
    """Bounds of (server clock minus own clock), in seconds."""

    low: float = float("-inf")
    high: float = float("inf")
    seen: float = 0.0

    def saw(self, server: float, *, asked: float, answered: float) -> bool:
        """Take one reading in, own times around it; True if a clock has jumped since the last.

        After a jump only this reading counts.
        """
        slack = max(0.0, answered - self.seen) * DRIFT
        # The server answers in whole microseconds, and may drift during the answer.
        play = max(0.0, answered - asked) * DRIFT + 1e-6
        low, high = server - answered - play, server - asked + play
        jumped = low > self.high + slack or high < self.low - slack
        if jumped:
            self.low, self.high = low, high
        else:
            self.low = max(self.low - slack, low)
            self.high = min(self.high + slack, high)
        self.seen = answered
        return jumped

    def width(self, now: float) -> float:
        """Seconds of uncertainty at own time `now`."""
        return self.high - self.low + 2 * DRIFT * max(0.0, now - self.seen)

    def own(self, server: float) -> float:
        """The own time of a moment on the server's clock; needs a reading first."""
        return server - (self.low + self.high) / 2

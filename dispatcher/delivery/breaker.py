"""When a sender is left alone for a while: pure.

A broken account opens the breaker at once. A rate of failures opens it when at least `least`
outcomes of the last `window` seconds are known and the share of them that failed is `share`
or more. Being throttled is no failure, and neither is what a provider refuses for its content
or its recipient: it answered. Each process judges what it sent itself; the breaker that it
opens stands in the ledger and holds for all.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from channels.contract import (
    Accepted,
    AdapterBroken,
    MessageRefused,
    Outcome,
    Reason,
    RecipientRefused,
    TryLater,
    Unknown,
)

FAILURES = frozenset(
    {
        Reason.PROVIDER_ERROR,
        Reason.UNREACHABLE,
        Reason.TIMEOUT,
        Reason.CONNECTION_LOST,
        Reason.UNREADABLE_ANSWER,
    }
)
"""Reasons of `TryLater` that speak against the provider, not against our pace."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """Times in seconds. `first` doubles with each probe in vain up to `longest`; an account
    that is broken is tried every `broken`."""

    least: int = 20
    share: float = 0.5
    window: float = 30.0
    first: float = 5.0
    longest: float = 60.0
    broken: float = 60.0


class Verdict(StrEnum):
    """What the outcomes of a probe say of the provider."""

    WORKS = "works"
    FAILS = "fails"
    SAYS_NOTHING = "says_nothing"


def failed(outcome: Outcome) -> bool | None:
    """Whether an outcome speaks against the provider; None if it says nothing of it."""
    match outcome:
        case Unknown() | AdapterBroken():
            return True
        case TryLater():
            return True if outcome.reason in FAILURES else None
        case Accepted() | MessageRefused() | RecipientRefused():
            return False


def probed(outcomes: Iterable[Outcome]) -> Verdict:
    """The verdict on a half-open breaker."""
    judged = [failed(outcome) for outcome in outcomes]
    if any(one is True for one in judged):
        return Verdict.FAILS
    return Verdict.WORKS if any(one is False for one in judged) else Verdict.SAYS_NOTHING


class Rate:
    """The outcomes of one sender in the last while, counted window by window."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._seen: deque[tuple[float, int, int]] = deque()

    def saw(self, outcomes: Iterable[Outcome], *, now: float) -> bool:
        """Count outcomes known at `now` (monotonic seconds); True if the breaker is to open."""
        judged = [failed(outcome) for outcome in outcomes]
        bad, good = judged.count(True), judged.count(False)
        if bad or good:
            self._seen.append((now, bad, good))
        while self._seen and self._seen[0][0] <= now - self._policy.window:
            self._seen.popleft()
        bad = sum(entry[1] for entry in self._seen)
        known = bad + sum(entry[2] for entry in self._seen)
        if known < self._policy.least or bad < known * self._policy.share:
            return False
        self._seen.clear()
        return True

    def forget(self) -> None:
        """Begin anew: what was seen belongs to a time that is over."""
        self._seen.clear()

"""When a refused-for-now delivery is tried again, or given up: pure.

Exponential with full jitter (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/):
the wait is drawn evenly from nothing to a bound that doubles, so that many rows refused at
once do not come back at once. A provider's own wish is a lower bound. Permanent outcomes
never come here.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds of the first and the longest bound, and how many tries there are in all."""

    first: float = 1.0
    longest: float = 300.0
    tries: int = 10


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Try again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again; `reason` goes to the ledger."""

    reason: str


def decide(
    policy: RetryPolicy,
    *,
    attempts: int,
    retry_after: float | None,
    now: datetime,
    expires_at: datetime | None,
    rng: random.Random,
) -> TryAgain | GiveUp:
    """What follows the `attempts`-th refused try.

    A wait that would end after `expires_at` is not begun.
    """
    if attempts >= policy.tries:
        return GiveUp("tries_used_up")
    bound = min(policy.longest, policy.first * 2.0 ** (attempts - 1))
    delay = max(rng.uniform(0.0, bound), retry_after or 0.0)
    if expires_at is not None and now + timedelta(seconds=delay) >= expires_at:
        return GiveUp("expires_first")
    return TryAgain(delay)

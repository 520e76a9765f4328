"""When a refused-for-now delivery is tried again, or given up: pure.

Exponential with full jitter (https://aws.amazon.com/builders-library/timeouts-retries-and-backoff-with-jitter/):
the wait is drawn evenly from nothing to a bound that doubles, so that many rows refused at
once do not come back at once. A provider's own wish is a lower bound. Permanent outcomes
never come here.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Seconds of the first and the longest bound, and how many tries there are in all.

    The default goes on for an hour and a half on average: a provider that throttles for ten
    minutes loses nobody, and what is too late by then has expired or been superseded.
    """

    first: float = 1.0
    longest: float = 300.0
    tries: int = 40


DEFAULT = RetryPolicy()
POLICIES: Mapping[str, RetryPolicy] = {
    # Few posts to one account whose windows last 15 minutes
    # (https://docs.x.com/x-api/fundamentals/rate-limits): no hurry, and no flood.
    "x_social": RetryPolicy(first=5.0, longest=900.0, tries=20),
    # Our own store: it is away for seconds, or the whole ledger is.
    "inbox_push": RetryPolicy(first=0.5, longest=30.0, tries=200),
}


def policy_of(adapter: str) -> RetryPolicy:
    """The policy of an adapter, or of a further account of it (`name.account`)."""
    return POLICIES.get(adapter.partition(".")[0], DEFAULT)


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

"""When a refused-for-now delivery is tried again: a table, and what holds for every value."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.delivery.retries import GiveUp, RetryPolicy, TryAgain, decide

NOW = datetime(2026, 2, 22, 9, 0, tzinfo=UTC)
POLICY = RetryPolicy(first=1.0, longest=300.0, tries=10)


class Highest(random.Random):
    """Dice that always show the most."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Lowest(random.Random):
    """Dice that always show the least."""

    def uniform(self, a: float, b: float) -> float:
        return a


@pytest.mark.parametrize(
    ("attempts", "retry_after", "expires_in", "expected"),
    [
        (1, None, None, TryAgain(1.0)),
        (2, None, None, TryAgain(2.0)),
        (5, None, None, TryAgain(16.0)),
        (9, None, None, TryAgain(256.0)),
        (1, 30.0, None, TryAgain(30.0)),
        (9, 30.0, None, TryAgain(256.0)),
        (1, 900.0, None, TryAgain(900.0)),
        (10, None, None, GiveUp("tries_used_up")),
        (10, 1.0, None, GiveUp("tries_used_up")),
        (1, None, 2.0, TryAgain(1.0)),
        (1, None, 1.0, GiveUp("expires_first")),
        (1, 60.0, 30.0, GiveUp("expires_first")),
        (1, None, -5.0, GiveUp("expires_first")),
    ],
)
def test_the_longest_wait(
    attempts: int,
    retry_after: float | None,
    expires_in: float | None,
    expected: TryAgain | GiveUp,
) -> None:
    assert (
        decide(
            POLICY,
            attempts=attempts,
            retry_after=retry_after,
            now=NOW,
            expires_at=None if expires_in is None else NOW + timedelta(seconds=expires_in),
            rng=Highest(),
        )
        == expected
    )


def test_the_jitter_goes_down_to_nothing_and_never_below_the_provider_s_wish() -> None:
    def least(retry_after: float | None) -> TryAgain | GiveUp:
        return decide(
            POLICY, attempts=6, retry_after=retry_after, now=NOW, expires_at=None, rng=Lowest()
        )

    assert least(None) == TryAgain(0.0)
    assert least(7.0) == TryAgain(7.0)


@given(
    attempts=st.integers(1, 40),
    tries=st.integers(1, 30),
    first=st.floats(0.01, 60),
    longest=st.floats(0.01, 3_600),
    retry_after=st.none() | st.floats(0, 7_200),
    expires_in=st.none() | st.floats(-60, 7_200),
    seed=st.integers(),
)
def test_every_wait_is_within_its_bounds(
    attempts: int,
    tries: int,
    first: float,
    longest: float,
    retry_after: float | None,
    expires_in: float | None,
    seed: int,
) -> None:
    """Given up exactly when the tries are used or it would be too late; else within bounds."""
    expires_at = None if expires_in is None else NOW + timedelta(seconds=expires_in)
    verdict = decide(
        RetryPolicy(first=first, longest=longest, tries=tries),
        attempts=attempts,
        retry_after=retry_after,
        now=NOW,
        expires_at=expires_at,
        rng=random.Random(seed),
    )
    most = max(min(longest, first * 2.0 ** (attempts - 1)), retry_after or 0.0)
    if attempts >= tries:
        assert verdict == GiveUp("tries_used_up")
    elif isinstance(verdict, TryAgain):
        assert (retry_after or 0.0) <= verdict.delay <= most
        assert expires_at is None or NOW + timedelta(seconds=verdict.delay) < expires_at
    else:
        assert verdict == GiveUp("expires_first")
        assert expires_at is not None
        assert NOW + timedelta(seconds=most) >= expires_at

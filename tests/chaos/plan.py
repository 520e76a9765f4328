"""Which faults fall when: drawn from a seed alone, before anything runs. Pure.

Kinds are dealt like cards: each is used once before any is used again, so that many runs hold
about as many of each. Must not know how a fault is made.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault. `at` is the share of the run's messages taken when it falls, `aim` a number from
    0 to 1 that picks among its targets, `force` one that picks between its mildest and worst."""

    kind: str
    at: float
    aim: float
    force: float


@dataclass(frozen=True, slots=True)
class Run:
    """One run: its number, how slow the providers are (seconds an answer), and its blows in order."""

    number: int
    delay: float
    blows: tuple[Blow, ...]


def plan(
    seed: int, *, runs: int, blows: int, kinds: Sequence[str], delay: tuple[float, float]
) -> list[Run]:
    """The runs of a seed: the same for the same arguments."""
    rng = random.Random(seed)
    dealt = _deal(rng, kinds)
    planned = []
    for number in range(1, runs + 1):
        hand = [next(dealt) for _ in range(blows)]
        moments = sorted(rng.uniform(0.0, 0.9) for _ in hand)
        planned.append(
            Run(
                number=number,
                delay=round(rng.uniform(*delay), 3),
                blows=tuple(
                    Blow(kind, round(at, 3), rng.random(), rng.random())
                    for kind, at in zip(hand, moments, strict=True)
                ),
            )
        )
    return planned


def _deal(rng: random.Random, kinds: Sequence[str]) -> Iterator[str]:
    while True:
        yield from rng.sample(kinds, len(kinds))

"""Whether two texts in two languages deny the same: "not" sentence by sentence.

Knows texts and languages, no fact. A language without known words for "not" is left alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dispatcher.rendering.gleaning import readable, sentences
from dispatcher.rendering.tongues import Tongue, tongue

_MOST_SENTENCES = 80
"""Sentences that are laid side by side; longer texts are compared as a whole."""


@dataclass(frozen=True, slots=True)
class Passage:
    """Some sentences of a text, and whether they say "not"."""

    text: str
    denies: bool


def opposed(one: str, language: str, other: str, other_language: str) -> bool:
    """Whether one of two sentences says "not" and nothing in the other amounts to it."""
    return _opposed(one, tongue(language), other, tongue(other_language))


def _opposed(one: str, speaks: Tongue, other: str, others: Tongue) -> bool:
    if not (speaks.knows_not and others.knows_not):
        return False
    mine, theirs = speaks.denies(one), others.denies(other)
    if mine == theirs:
        return False
    return not (others.denies_within(other) if mine else speaks.denies_within(one))


def denials(
    one: str, language: str, other: str, other_language: str
) -> Iterator[tuple[Passage, Passage]]:
    """The passages, side by side, of which only one says "not"."""
    speaks, others = tongue(language), tongue(other_language)
    if not (speaks.knows_not and others.knows_not):
        return
    mine, theirs = list(sentences(readable(one))), list(sentences(readable(other)))
    for left, right in aligned(mine, theirs):
        first, second = " ".join(left), " ".join(right)
        if _opposed(first, speaks, second, others):
            yield Passage(first, speaks.denies(first)), Passage(second, others.denies(second))


Bead = tuple[Sequence[str], Sequence[str]]


def aligned(one: Sequence[str], other: Sequence[str]) -> list[Bead]:
    """Which sentences of one text stand for which of the other, by their lengths.

    One for one, two for one or one for two, whichever way the lengths agree best.
    """
    if len(one) == len(other):
        return [([left], [right]) for left, right in zip(one, other, strict=True)]
    if not one or not other or max(len(one), len(other)) > _MOST_SENTENCES:
        return [(one, other)]
    ratio = sum(map(len, other)) / max(1, sum(map(len, one)))
    best: dict[tuple[int, int], tuple[float, tuple[int, int]]] = {(0, 0): (0.0, (0, 0))}
    for i in range(len(one) + 1):
        for j in range(len(other) + 1):
            if (i, j) not in best:
                continue
            so_far = best[i, j][0]
            for di, dj, price in _STEPS:
                to = (i + di, j + dj)
                if to[0] > len(one) or to[1] > len(other):
                    continue
                wide = sum(map(len, one[i : to[0]])) * ratio
                high = sum(map(len, other[j : to[1]]))
                cost = so_far + price + abs(wide - high) / (1 + wide + high)
                if to not in best or cost < best[to][0]:
                    best[to] = (cost, (i, j))
    end = (len(one), len(other))
    if end not in best:
        return [(one, other)]
    beads: list[Bead] = []
    while end != (0, 0):
        start = best[end][1]
        beads.append((one[start[0] : end[0]], other[start[1] : end[1]]))
        end = start
    return beads[::-1]


_STEPS = ((1, 1, 0.0), (1, 2, 0.2), (2, 1, 0.2), (1, 3, 0.5), (3, 1, 0.5), (2, 2, 0.4))

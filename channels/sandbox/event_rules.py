"""How events about taken messages behave: late, lost, forged, repeated, and what they say.

Owns the rules and the chances they are decided by. A decision depends on the seed, on the
message's seq and on what is asked, on nothing else: it can be taken again at any time, so
nothing of it has to be kept. It must not know a provider's words or how events are posted.
"""

from bisect import bisect_right
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_MASK = (1 << 64) - 1
_SCALE = 1.0 / (1 << 64)


def chance(seed: int, seq: int, what: int) -> float:
    """A number in [0, 1) for one question about one message (splitmix64 over the three).

    https://prng.di.unimi.it/splitmix64.c
    """
    x = (seed * 0xD1342543DE82EF95 + seq * 0x9E3779B97F4A7C15 + what * 0xA0761D6478BD642F) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return (x ^ (x >> 31)) * _SCALE


class EventRules(BaseModel):
    """One provider's rules, as PUT /_sandbox/events gives them; see control.py."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+")
    delay: tuple[float, float] = (0.0, 0.0)
    loss: float = Field(default=0.0, ge=0, le=1)
    forged: float = Field(default=0.0, ge=0, le=1)
    repeat: float = Field(default=0.0, ge=0, le=1)
    shuffle: bool = False
    rate: float | None = Field(default=None, gt=0)
    connections: int = Field(default=16, ge=1, le=1000)
    algorithm: Literal["sha1", "sha256"] = "sha1"
    outcomes: dict[str, float] = Field(default_factory=dict)
    seed: int | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        low, high = self.delay
        if not 0 <= low <= high <= 86_400:
            raise ValueError("delay is [min, max] in seconds, at most a day")
        if any(not 0 <= value <= 1 for value in self.outcomes.values()):
            raise ValueError("outcomes are chances from 0 to 1")
        return self

    def require_outcomes(self, ends: frozenset[str], besides: frozenset[str]) -> None:
        """Refuses outcomes that the provider does not have, or ends of more than 1 together."""
        unknown = set(self.outcomes) - ends - besides
        if unknown:
            known = ", ".join(sorted(ends | besides))
            raise ValueError(f"unknown outcomes; known: {known}")
        if sum(self.outcomes.get(end, 0.0) for end in ends) > 1.0 + 1e-9:
            raise ValueError(f"the chances of {', '.join(sorted(ends))} are more than 1 together")


class Regimes:
    """Which rules were in force when a message was taken; `current` are those for the next."""

    default = EventRules()

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._first = [0]
        self._rules = [self.default]
        self.current = self.default

    def change(self, rules: EventRules, *, from_seq: int) -> None:
        """Puts rules in force for messages from this seq on."""
        self.current = rules
        if self._first[-1] == from_seq:
            self._rules[-1] = rules
        else:
            self._first.append(from_seq)
            self._rules.append(rules)

    def of(self, seq: int) -> EventRules:
        """The rules that hold for a message for good."""
        if len(self._rules) == 1:
            return self._rules[0]
        return self._rules[bisect_right(self._first, seq) - 1]

    def seed(self, rules: EventRules) -> int:
        """What decides the chances under these rules."""
        return self._seed if rules.seed is None else rules.seed

    def end(self, seq: int, default: str, ends: tuple[str, ...]) -> str:
        """Which of the ends a message comes to."""
        rules = self.of(seq)
        if not rules.outcomes:
            return default
        drawn = chance(self.seed(rules), seq, 0)
        for end in ends:
            drawn -= rules.outcomes.get(end, 0.0)
            if drawn < 0:
                return end
        return default

"""Faults that the simulators can be told to show.

Owns the rules and the decision which request is struck; a decision depends on the seed and
the order of requests, on nothing else. It must not know how a provider words an error or
how bytes reach the wire.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from channels.sandbox.config import Provider


class Strikes(StrEnum):
    """Which requests a fault can strike."""

    SEND = "send"
    OTHER = "other"
    ANY = "any"


class Fault(BaseModel):
    """One rule, as the control call gives it.

    What happens: `status` (the provider's own error body, with `code` and `retry_after` if
    given; the message is taken only with `accept`), `delay` (taken at once, answered
    `delay` seconds later; combines with the others), `reset` or `hang` `before` or `after`
    the message was taken, `garbage` (taken, then `body`: a success that cannot be read, or
    `wire`: bytes that are no HTTP), `rate` (requests a second; the surplus gets 429 or
    `status`). When: with `probability`, at most `count` times, and only for requests that
    name an address like `match` (`*` and `?` as in file names).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: int | None = Field(default=None, ge=400, le=599)
    code: int | str | None = None
    retry_after: float | None = Field(default=None, ge=0)
    accept: bool = False
    delay: float = Field(default=0.0, ge=0, le=3600)
    reset: Literal["before", "after"] | None = None
    hang: Literal["before", "after"] | None = None
    garbage: Literal["body", "wire"] | None = None
    rate: float | None = Field(default=None, gt=0)
    probability: float = Field(default=1.0, ge=0, le=1)
    count: int | None = Field(default=None, ge=1)
    match: str | None = Field(default=None, min_length=1)
    on: Strikes = Strikes.SEND

    @model_validator(mode="after")
    def _says_what_happens(self) -> Self:
        ends = [self.status or self.rate, self.reset, self.hang, self.garbage]
        if sum(end is not None for end in ends) > 1:
            raise ValueError("choose one of status or rate, reset, hang, garbage")
        if not self.delay and all(end is None for end in ends):
            raise ValueError("say what happens: status, delay, reset, hang, garbage or rate")
        return self

    @property
    def takes(self) -> bool:
        """Whether a request that is struck has its message taken all the same."""
        if self.status is not None or self.rate is not None:
            return self.accept
        return "before" not in (self.reset, self.hang)


@dataclass(slots=True)
class _Rule:
    """A fault and what it has done so far."""

    provider: Provider
    fault: Fault
    chance: random.Random
    tokens: float = 0.0
    filled_at: float = 0.0
    struck: int = field(default=0)

    def strikes(self, now: float) -> bool:
        fault = self.fault
        if fault.count is not None and self.struck >= fault.count:
            return False
        if fault.rate is not None and self._within_rate(fault.rate, now):
            return False
        if fault.probability < 1.0 and self.chance.random() >= fault.probability:
            return False
        self.struck += 1
        return True

    def _within_rate(self, rate: float, now: float) -> bool:
        """A bucket that holds one second's worth, at least one request."""
        full = max(rate, 1.0)
        self.tokens = min(full, self.tokens + (now - self.filled_at) * rate)
        self.filled_at = now
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class Faults:
    """The rules in force, in the order in which they were given; the first that fits strikes."""

    def __init__(self, *, seed: int, clock: Callable[[], float]) -> None:
        self._seed = seed
        self._clock = clock
        self._rules: list[_Rule] = []
        self._given = 0

    @property
    def active(self) -> bool:
        """False on the way that has to be fast."""
        return bool(self._rules)

    def add(self, provider: Provider, fault: Fault) -> int:
        """Puts a rule in force and returns its number."""
        self._given += 1
        rule = _Rule(provider, fault, random.Random(f"{self._seed}:{self._given}"))
        rule.tokens, rule.filled_at = max(fault.rate or 0.0, 1.0), self._clock()
        self._rules.append(rule)
        return self._given

    def clear(self, provider: Provider | None = None) -> None:
        """Ends all rules, or those of one provider; numbering starts again with none left."""
        self._rules = [r for r in self._rules if provider is not None and r.provider != provider]
        if not self._rules:
            self._given = 0

    def struck(self) -> list[tuple[Provider, Fault, int]]:
        """The rules in force with how many requests each has struck."""
        return [(rule.provider, rule.fault, rule.struck) for rule in self._rules]

    def next(
        self, provider: Provider, *, is_send: bool, addresses: Callable[[], list[str]]
    ) -> Fault | None:
        """The fault for this request, if one strikes; `addresses` is asked only for a match."""
        kind = Strikes.SEND if is_send else Strikes.OTHER
        for rule in self._rules:
            fault = rule.fault
            if rule.provider is not provider or fault.on not in (kind, Strikes.ANY):
                continue
            pattern = fault.match
            if pattern is not None and not any(fnmatchcase(a, pattern) for a in addresses()):
                continue
            if rule.strikes(self._clock()):
                return fault
        return None

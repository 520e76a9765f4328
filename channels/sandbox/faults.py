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
    given; the message is taken only with `accept`; with `as_status` 200 to 299 the error body
    comes under that status), `delay` (taken at once, answered `delay` seconds later; combines
    with the others), `slow` (the answer's bytes dribble in over so many seconds; combines
    with status and rate), `reset` or `hang` `before` or `after` the message was taken (a
    hang with a `delay` is reset after it, else it lasts), `half` (the first half of a bulk
    request is taken, then a reset; of a single message nothing is), `garbage` (taken, then
    `body`: a success that cannot be read, or `wire`: bytes that are no HTTP), `rate`
    (requests a second; the surplus gets 429 or `status`). When: with `probability`, at most
    `count` times, within `for` seconds of the order, only for requests to `account`, and
    only for those that name an address like `match` (`*` and `?` as in file names).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    status: int | None = Field(default=None, ge=400, le=599)
    code: int | str | None = None
    retry_after: float | None = Field(default=None, ge=0)
    accept: bool = False
    as_status: int | None = Field(default=None, ge=200, le=299)
    delay: float = Field(default=0.0, ge=0, le=3600)
    slow: float = Field(default=0.0, ge=0, le=3600)
    reset: Literal["before", "after"] | None = None
    hang: Literal["before", "after"] | None = None
    half: bool = False
    garbage: Literal["body", "wire"] | None = None
    rate: float | None = Field(default=None, gt=0)
    probability: float = Field(default=1.0, ge=0, le=1)
    count: int | None = Field(default=None, ge=1)
    lasts: float | None = Field(default=None, gt=0, alias="for")
    account: int | None = Field(default=None, ge=1, le=2)
    match: str | None = Field(default=None, min_length=1)
    on: Strikes = Strikes.SEND

    @model_validator(mode="after")
    def _says_what_happens(self) -> Self:
        ends = [self.status or self.rate, self.reset, self.hang, self.half or None, self.garbage]
        if sum(end is not None for end in ends) > 1:
            raise ValueError("choose one of status or rate, reset, hang, half, garbage")
        if not self.delay and not self.slow and all(end is None for end in ends):
            raise ValueError(
                "say what happens: status, delay, slow, reset, hang, half, garbage or rate"
            )
        if self.as_status is not None and self.status is None:
            raise ValueError("as_status needs the status whose body it carries")
        if self.slow and (self.reset or self.hang or self.half):
            raise ValueError("slow is for answers; here none comes")
        return self

    @property
    def takes(self) -> bool:
        """Whether a request that is struck has its message taken all the same."""
        if self.status is not None or self.rate is not None:
            return self.accept
        return not self.half and "before" not in (self.reset, self.hang)


@dataclass(slots=True)
class _Rule:
    """A fault and what it has done so far."""

    provider: Provider
    fault: Fault
    chance: random.Random
    ends: float
    tokens: float = 0.0
    filled_at: float = 0.0
    struck: int = field(default=0)

    def strikes(self, now: float) -> bool:
        fault = self.fault
        if now >= self.ends:
            return False
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
        now = self._clock()
        ends = float("inf") if fault.lasts is None else now + fault.lasts
        rule = _Rule(provider, fault, random.Random(f"{self._seed}:{self._given}"), ends)
        rule.tokens, rule.filled_at = max(fault.rate or 0.0, 1.0), now
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
        self,
        provider: Provider,
        *,
        is_send: bool,
        addresses: Callable[[], list[str]],
        account: Callable[[], int] = lambda: 1,
    ) -> Fault | None:
        """The fault for this request, if one strikes.

        `addresses` and `account` are asked only for a rule that names one.
        """
        kind = Strikes.SEND if is_send else Strikes.OTHER
        for rule in self._rules:
            fault = rule.fault
            if rule.provider is not provider or fault.on not in (kind, Strikes.ANY):
                continue
            if fault.account is not None and fault.account != account():
                continue
            pattern = fault.match
            if pattern is not None and not any(fnmatchcase(a, pattern) for a in addresses()):
                continue
            if rule.strikes(self._clock()):
                return fault
        return None

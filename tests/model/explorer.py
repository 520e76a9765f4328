"""An explicit-state model checker: every state of a small world, breadth first.

A model says where it starts, what may happen in each state, what must hold in each, and
where it may rest. The explorer visits every reachable state once. It knows nothing of what
is modelled.

* A state that breaks an invariant ends the search; since the search is breadth first, the
  way to it is a shortest one.
* Liveness: from every reachable state a resting state must be reachable by fair moves
  alone, those that happen in the end if nobody interferes. What cannot get to rest is told
  by a shortest way into it.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Move(Generic[S]):
    """Something that may happen. `fair` if it happens in the end unless something prevents it."""

    name: str
    after: S
    fair: bool = True


class Model(Protocol[S]):
    """A world. States are hashable; equal ones are the same."""

    def start(self) -> S:
        """Where it begins."""
        ...

    def moves(self, state: S) -> Iterable[Move[S]]:
        """All that may happen next."""
        ...

    def broken(self, state: S) -> str:
        """The invariant that this state breaks, in words; empty if none."""
        ...

    def at_rest(self, state: S) -> bool:
        """Whether everything is settled here."""
        ...


@dataclass(frozen=True, slots=True)
class Verdict(Generic[S]):
    """What was found. `fault` is empty if everything holds; `way` leads to it from the start."""

    states: int
    moves: int
    depth: int
    fault: str = ""
    way: tuple[tuple[str, S], ...] = ()

    def told(self) -> str:
        """The shortest counterexample, a move a line."""
        steps = "\n".join(
            f"  {n:2}. {name}\n      {state}" for n, (name, state) in enumerate(self.way)
        )
        return f"{self.fault or 'holds'} ({self.states} states)\n{steps}"

    @property
    def names(self) -> list[str]:
        """The moves of the way, by name."""
        return [name for name, _ in self.way[1:]]


class Unfinished(Exception):
    """There are more states than were allowed for."""


def explore(model: Model[S], *, most: int = 2_000_000) -> Verdict[S]:
    """Visit every reachable state. Raises `Unfinished` beyond `most`."""
    start = model.start()
    number: dict[S, int] = {start: 0}
    states: list[S] = [start]
    came: list[tuple[int, str]] = [(-1, "start")]
    depth = [0]
    back: list[list[int]] = [[]]  # fair moves, backwards
    queue = deque([0])
    moves = 0

    def verdict(fault: str, at: int) -> Verdict[S]:
        way: list[tuple[str, S]] = []
        while at >= 0:
            before, name = came[at]
            way.append((name, states[at]))
            at = before
        return Verdict(len(states), moves, depth[-1], fault, tuple(reversed(way)))

    fault = model.broken(start)
    if fault:
        return verdict(fault, 0)
    while queue:
        here = queue.popleft()
        for move in model.moves(states[here]):
            moves += 1
            there = number.get(move.after)
            if there is None:
                there = number[move.after] = len(states)
                states.append(move.after)
                came.append((here, move.name))
                depth.append(depth[here] + 1)
                back.append([])
                fault = model.broken(move.after)
                if fault:
                    return verdict(fault, there)
                if len(states) > most:
                    raise Unfinished(f"more than {most} states")
                queue.append(there)
            if move.fair:
                back[there].append(here)
    restless = _restless(model, states, back)
    if restless is not None:
        return verdict("never at rest again: no fair move leads to a settled state", restless)
    return Verdict(len(states), moves, depth[-1])


def _restless(model: Model[S], states: list[S], back: list[list[int]]) -> int | None:
    """The nearest state from which no fair moves lead to rest."""
    resting = [n for n, state in enumerate(states) if model.at_rest(state)]
    reached = bytearray(len(states))
    for n in resting:
        reached[n] = 1
    while resting:
        for before in back[resting.pop()]:
            if not reached[before]:
                reached[before] = 1
                resting.append(before)
    missed = reached.find(0)
    return None if missed < 0 else missed

"""Envelopes leave at the moments that `pacing` granted, not before and never in a clump.

A worker may stand still between the grant and the moment: a busy loop, a slow claim, a
frozen process. A moment that has passed by more than `LATE` is lost, never made up for by
two starts at once: other workers hold the moments around it. What lost its moment asks for
another that comes soon; what gets none is left to the caller, who has not sent it.

Must not know the ledger, messages or outcomes.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Generic, TypeVar

from dispatcher.delivery.pace_scripts import REACH
from dispatcher.delivery.pacing import Grant, Pace, Pacing

T = TypeVar("T")

SLICE: Final = 0.003
"""Seconds of moments that are started together: fewer wake-ups than moments."""
LATE: Final = 0.015
"""Seconds after which a moment is lost. With `SLICE`, well within what pacing's guard leaves:
the rest of that is the wire's and the provider's."""
SOON: Final = 0.05
"""Seconds within which new moments must lie for rows already claimed, beyond the lead of those
that are still to be: the caller has taken its next moments by then, which must not pass."""


def always() -> bool:
    """Nothing speaks against a start."""
    return True


class Starting(Generic[T]):
    """Starts what was claimed. `launch(part)` is the sending of envelopes that leave together."""

    def __init__(
        self,
        pacing: Pacing,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._pacing = pacing
        self._monotonic = monotonic
        self._sleep = sleep

    async def start(
        self,
        group: asyncio.TaskGroup,
        pace: Pace,
        grant: Grant,
        envelopes: Sequence[T],
        launch: Callable[[Sequence[T]], Coroutine[Any, Any, None]],
        *,
        urgent: bool = False,
        may_start: Callable[[], bool] = always,
    ) -> list[T]:
        """Launch envelopes in order at their moments, as tasks of the caller's `group`.

        Returns, when the last has been launched, those that were not: their moments had passed
        and the sender had no others soon, or `may_start`, asked right before each launch, said
        no. What was launched the caller knows, who made the coroutines: also when one of them
        raises and the group ends this call. The next grant may be started as soon as this call
        returns, while the answers are still to come.
        """
        waiting = deque(envelopes)
        if waiting and grant.count:
            self._pacing.started(self._monotonic() - grant.first - LATE / 2)
        while waiting and may_start():
            if not grant.count:
                grant = await self._pacing.take(
                    pace,
                    len(waiting),
                    urgent=urgent,
                    within=REACH if urgent else SOON + self._pacing.lead,
                    in_hand=True,
                )
                if not grant.count:
                    break
            left, missed = await self._spend(group, pace, grant, waiting, launch, may_start)
            await self._pacing.give_back(pace, grant, left, missed=missed)
            grant = Grant(0)
        return list(waiting)

    async def _spend(
        self,
        group: asyncio.TaskGroup,
        pace: Pace,
        grant: Grant,
        waiting: deque[T],
        launch: Callable[[Sequence[T]], Coroutine[Any, Any, None]],
        may_start: Callable[[], bool],
    ) -> tuple[int, int]:
        """Use up a grant: how many of its last moments nobody needed, how many were missed."""
        next_moment = missed = 0
        while next_moment < grant.count and waiting:
            late = self._monotonic() - grant.moment(next_moment)
            if late < 0.0:
                # Not a wait on the rate: the moment was granted, at most a second from now.
                await self._sleep(-late)
                continue
            if late > LATE:
                lost = min(math.ceil((late - LATE) / grant.interval), grant.count - next_moment)
                next_moment += lost
                missed += lost
                continue
            if not may_start():
                break
            due = max(int((late + SLICE) / grant.interval) + 1, pace.lump)
            part = [
                waiting.popleft() for _ in range(min(due, grant.count - next_moment, len(waiting)))
            ]
            group.create_task(launch(part))
            next_moment += len(part)
        return grant.count - next_moment, missed

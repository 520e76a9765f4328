"""Requests that wait for a free connection: first come, first served, none beyond its time.

Owns the queue and one timer for all of it. It must not know how a request is carried.
"""

import asyncio
from collections import deque
from typing import NamedTuple

from channels.wire import NotSent, Permit, Request, Response

TOO_LATE = "no free connection in time"


class Waiting(NamedTuple):
    """A request in line. `ends` is on the loop's clock; `held` is the permit of its sender."""

    waiter: asyncio.Future[Response]
    request: Request
    ends: float
    held: Permit | None


class Line:
    """Whoever gives up is left where it stands: a waiter that is done is passed over."""

    __slots__ = ("_loop", "_queue", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: deque[Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def join(self, waiting: Waiting) -> None:
        """Stand last. Unless it leaves in time, its waiter fails as `NotSent`."""
        self._queue.append(waiting)
        timer = self._timer
        if timer is None or waiting.ends < timer.when():
            if timer is not None:
                timer.cancel()
            self._timer = self._loop.call_at(waiting.ends, self._on_time)

    def leave(self) -> Waiting | None:
        """The first that still waits, which is in line no more."""
        queue = self._queue
        while queue:
            first = queue.popleft()
            if not first.waiter.done():
                return first
        return None

    def forget(self, waiter: asyncio.Future[Response]) -> None:
        """Take out one whose sender is gone without a cancellation, as a coroutine closed is."""
        if not waiter.done():
            self._queue = deque(one for one in self._queue if one.waiter is not waiter)

    def close(self, words: str) -> None:
        """Let all that wait fail as `NotSent`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while (waiting := self.leave()) is not None:
            if not self._loop.is_closed():
                waiting.waiter.set_exception(NotSent(words))

    def _on_time(self) -> None:
        """The first end of a wait; it may be that of one who has left, which does no harm."""
        self._timer = None
        now = self._loop.time() + 0.001
        still = [waiting for waiting in self._queue if not waiting.waiter.done()]
        for waiting in still:
            if waiting.ends <= now:
                waiting.waiter.set_exception(NotSent(TOO_LATE))
        self._queue = deque(waiting for waiting in still if waiting.ends > now)
        if self._queue:
            first = min(waiting.ends for waiting in self._queue)
            self._timer = self._loop.call_at(first, self._on_time)

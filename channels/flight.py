"""Many awaitable calls at once, never more than a limit, results as they come.

For adapters whose provider takes one message a request. Knows nothing of what is called.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def in_flight(
    items: Sequence[T], call: Callable[[T], Awaitable[R]], *, limit: int
) -> AsyncGenerator[R, None]:
    """Yield `call(item)` of each item, at most `limit` under way, in the order they finish.

    When a call raises, no further one is started, those under way are awaited and yielded,
    and then the first exception is raised. Closing the generator cancels what is under way.
    """
    todo = iter(items)
    done: deque[R] = deque()
    failures: list[Exception] = []
    wake = asyncio.Event()
    left = min(limit, len(items))

    async def lane() -> None:
        nonlocal left
        try:
            for item in todo:
                done.append(await call(item))
                wake.set()
                if failures:
                    break
        except Exception as failure:  # kept for the caller, who gets it below
            failures.append(failure)
        finally:
            left -= 1
            wake.set()

    lanes = [asyncio.create_task(lane()) for _ in range(left)]
    try:
        while left or done:
            while done:
                yield done.popleft()
            if left:
                await wake.wait()
                wake.clear()
        if failures:
            raise failures[0]
    finally:
        for task in lanes:
            task.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)

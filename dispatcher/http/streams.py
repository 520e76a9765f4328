"""Server-sent events, and one reading of the ledger a second for all who watch.

Knows nothing of what is streamed. https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any, Generic, TypeVar

import structlog
from starlette.responses import StreamingResponse

from dispatcher.ledger.connection import LedgerAway

HEARTBEAT_SECONDS = 15.0
POLL_SECONDS = 1.0
MEDIA_TYPE = "text/event-stream"
SSE_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events.", "content": {MEDIA_TYPE: {}}},
}
_HEARTBEAT = b": heartbeat\n\n"
_RETRY = b"retry: 2000\n\n"
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}

log = structlog.get_logger(__name__)

K = TypeVar("K")
S = TypeVar("S")


@dataclass(slots=True)
class _Topic(Generic[S]):
    """The last state of one key, and an event that is set when there is a newer one."""

    latest: S
    watchers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, state: S) -> None:
        self.latest = state
        self.changed.set()
        self.changed = asyncio.Event()


class Feed(Generic[K, S]):
    """States of keys for any number of watchers, read together once every `interval` seconds.

    `read` is given the last known state of each watched key and returns the present ones;
    it runs in a thread. While the ledger is away watchers simply wait.
    """

    def __init__(
        self, read: Callable[[Mapping[K, S]], Mapping[K, S]], *, interval: float = POLL_SECONDS
    ) -> None:
        self._read = read
        self._interval = interval
        self._topics: dict[K, _Topic[S]] = {}
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many watch."""
        return sum(topic.watchers for topic in self._topics.values())

    async def watch(self, key: K, seen: S) -> AsyncGenerator[S, None]:
        """Each state that differs from the one `seen` before it, for as long as it is iterated."""
        topic = self._topics.setdefault(key, _Topic(seen))
        topic.watchers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._poll())
        try:
            while True:
                changed = topic.changed
                if topic.latest == seen:
                    await changed.wait()
                    continue
                seen = topic.latest
                yield seen
        finally:
            topic.watchers -= 1
            if not topic.watchers:
                self._topics.pop(key, None)
            if not self._topics and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            known = {key: topic.latest for key, topic in self._topics.items()}
            try:
                found = await asyncio.to_thread(self._read, known)
            except LedgerAway:
                continue
            except Exception as error:  # one bad reading must not end everybody's stream
                log.error("feed.failed", error=type(error).__name__)  # noqa: TRY400
                continue
            for key, state in found.items():
                topic = self._topics.get(key)
                if topic is not None and topic.latest != state:
                    topic.publish(state)


def event(name: str, data: bytes, *, id: str) -> bytes:
    """One event. `data` holds no line break (JSON as we write it has none)."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (id.encode(), name.encode(), data)


def event_stream(
    events: AsyncGenerator[bytes, None],
    *,
    heartbeat: float = HEARTBEAT_SECONDS,
    at_most: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> StreamingResponse:
    """The events as a response, with a heartbeat whenever they have been silent that long.

    `heartbeat` and `at_most`, after which the stream ends, are in seconds.
    """
    return StreamingResponse(
        _beating(events, heartbeat, at_most=at_most),
        media_type=MEDIA_TYPE,
        headers={**_HEADERS, **(headers or {})},
    )


async def _next(events: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(events, None)


async def _beating(
    events: AsyncGenerator[bytes, None], heartbeat: float, *, at_most: float | None
) -> AsyncIterator[bytes]:
    yield _RETRY
    clock = asyncio.get_running_loop().time
    ends = clock() + (inf if at_most is None else at_most)
    waiting = asyncio.ensure_future(_next(events))
    try:
        while clock() < ends:
            done, _ = await asyncio.wait({waiting}, timeout=heartbeat)
            if not done:
                yield _HEARTBEAT
                continue
            found = waiting.result()
            if found is None:
                return
            yield found
            waiting = asyncio.ensure_future(_next(events))
    finally:
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        await events.aclose()

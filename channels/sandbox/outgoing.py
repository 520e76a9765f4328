"""Posts to one receiver over few kept connections, written for speed.

Owns sockets to the outside, one request at a time on each. It must not know what is posted
or when: it asks its owner whether it may, and tells it what came of each parcel.
"""

import asyncio
import time
from collections import deque
from typing import NamedTuple, Protocol, cast

import httptools

TOTAL_SECONDS = 15.0
"""Twilio's whole patience, https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides."""


class Target(NamedTuple):
    """Where a receiver listens."""

    host: str
    port: int


class Parcel:
    """One whole HTTP request. `weight` is how many events it says, 0 of them when `forged`."""

    __slots__ = ("data", "forged", "stale", "target", "tries", "weight")

    def __init__(
        self, target: Target, data: bytes, *, weight: int = 1, forged: bool = False
    ) -> None:
        self.target = target
        self.data = data
        self.weight = weight
        self.forged = forged
        self.tries = 0
        self.stale = False  # failed once because a kept connection had ended unseen


class Owner(Protocol):
    """Who gives parcels to a route."""

    def may_post(self) -> bool:
        """Whether a parcel may leave now; if not, the owner calls `pump` when it may."""
        ...

    def answered(self, parcel: Parcel, status: int, seconds: float) -> None:
        """A whole answer came."""
        ...

    def unanswered(self, parcel: Parcel, *, connected: bool) -> None:
        """None came: no connection was made, or it broke, or the time was over."""
        ...


class Route:
    """The waiting parcels for one target and its connections."""

    def __init__(self, target: Target, owner: Owner) -> None:
        self._target = target
        self.owner = owner
        self.limit = 16
        self.waiting: deque[Parcel] = deque()
        self._idle: list[Line] = []
        self._lines: set[Line] = set()
        self._connecting = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited or a connection is being made."""
        return self._connecting > 0 or len(self._idle) < len(self._lines)

    def pump(self) -> None:
        """Posts what may be posted now; opens connections while there are too few."""
        waiting, idle = self.waiting, self._idle
        while waiting and idle:
            if not self.owner.may_post():
                return
            idle.pop().post(waiting.popleft())
        wanted = min(len(waiting), self.limit - len(self._lines)) - self._connecting
        for _ in range(wanted):
            self._connecting += 1
            task = asyncio.get_running_loop().create_task(self._connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(5.0):
                await loop.create_connection(lambda: Line(self), *self._target)
        except (OSError, TimeoutError):
            self._connecting -= 1
            if self.waiting and not self._lines and not self._connecting:
                # Nobody listens: what waits now is told so, once each.
                for _ in range(len(self.waiting)):
                    self.owner.unanswered(self.waiting.popleft(), connected=False)
            return
        self._connecting -= 1
        self.pump()

    def opened(self, line: "Line") -> None:
        """A connection stands."""
        self._lines.add(line)
        self._idle.append(line)

    def free(self, line: "Line", *, keep: bool) -> None:
        """A line has its answer."""
        if keep and len(self._lines) <= self.limit:
            self._idle.append(line)
        else:
            self._lines.discard(line)
            line.end()
        if self.waiting:
            self.pump()

    def lost(self, line: "Line") -> None:
        """A connection has ended; its parcel, if it had one, comes first on a new one once."""
        if line in self._idle:
            self._idle.remove(line)
        self._lines.discard(line)
        parcel, line.parcel = line.parcel, None
        if parcel is not None:
            if line.reused and not parcel.stale and not line.heard:
                parcel.stale = True
                self.waiting.appendleft(parcel)
            else:
                self.owner.unanswered(parcel, connected=True)
        if self.waiting:
            self.pump()

    def end_overdue(self) -> None:
        """Ends lines whose answer is overdue."""
        limit = time.monotonic() - TOTAL_SECONDS
        for line in tuple(self._lines):
            if line.parcel is not None and line.posted_at < limit:
                line.heard = True  # too late is no reason to try anew
                line.end()

    def close(self) -> None:
        """Ends everything; nothing more is told to the owner."""
        self.waiting.clear()
        for task in tuple(self._tasks):
            task.cancel()
        for line in tuple(self._lines):
            line.parcel = None
            line.end()
        self._lines.clear()
        self._idle.clear()
        self._connecting = 0


class Line(asyncio.Protocol):
    """One connection to a receiver."""

    __slots__ = ("_parser", "_route", "_transport", "heard", "parcel", "posted_at", "reused")

    def __init__(self, route: Route) -> None:
        self._route = route
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.parcel: Parcel | None = None
        self.posted_at = 0.0
        self.heard = False
        self.reused = False

    def post(self, parcel: Parcel) -> None:
        """Writes a parcel; the line has no other."""
        self.parcel = parcel
        self.heard = False
        self.posted_at = time.monotonic()
        if self._transport is not None:
            self._transport.write(parcel.data)

    def end(self) -> None:
        """Ends the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._route.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._route.lost(self)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.end()

    def on_message_complete(self) -> None:
        """The parser's call: a whole answer has come."""
        status = self._parser.get_status_code()
        if status < 200:
            return
        parcel, self.parcel = self.parcel, None
        if parcel is None:
            self.end()
            return
        self.reused = True
        self._route.owner.answered(parcel, status, time.monotonic() - self.posted_at)
        self._route.free(self, keep=self._parser.should_keep_alive())

"""Events of one provider on their way out: when each is due, how fast, what came of it.

Owns the queue of events that are still to come, the pace of posting, tries and counts. It
must not know what an event says: whoever expects one makes its parcel when it is due.
"""

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from channels.sandbox.config import is_loopback
from channels.sandbox.event_rules import EventRules
from channels.sandbox.outgoing import Parcel, Route, Target

_TURN = 64  # jobs in one turn of the event loop: requests are answered in between
_BACKLOG = 2048  # parcels made but not posted; more stay unmade
_BURST = 0.02  # seconds' worth of posts that a rate lets go together

Job = Callable[[], None]
Retry = Callable[[Parcel, int | None, bool], float | None]


@dataclass(slots=True)
class Counts:
    """What became of the events; see control.py for the names."""

    sent: int = 0
    lost: int = 0
    forged: int = 0
    repeated: int = 0
    retried: int = 0
    barred: int = 0
    unanswered: int = 0
    events: int = 0
    answered: dict[str, int] = field(default_factory=dict)
    forged_answered: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    total: float = 0.0


class Courier:
    """Posts a provider's events. `retry` gives the seconds to the next try, or None.

    `exposed` allows other receivers than loopback.
    """

    def __init__(self, *, clock: Callable[[], float], exposed: bool, retry: Retry) -> None:
        self._clock = clock
        self._exposed = exposed
        self._retry = retry
        self._origins: dict[str, Target | None] = {}
        self._routes: dict[Target, Route] = {}
        self._rate: float | None = None
        self._connections = 16
        self._due: list[tuple[float, int, Job]] = []
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._paced: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._tokens, self._filled_at = 0.0, 0.0
        self._armed_for = float("inf")
        self._given = 0
        self._ready = 0
        self.pending = 0
        self.counts = Counts()

    def follow(self, rules: EventRules) -> None:
        """Takes the pace and the connections of these rules from now on."""
        self._rate, self._connections = rules.rate, rules.connections
        if self._paced is not None:
            self._paced.cancel()
            self._paced = None
        if rules.rate is not None:
            self._tokens = max(1.0, rules.rate * _BURST)
            self._filled_at = asyncio.get_running_loop().time()
        for route in self._routes.values():
            route.limit = rules.connections
        self._pump()

    def clear(self) -> None:
        """Forgets what is still to come and all counts."""
        self.close()
        self.pending = 0
        self.counts = Counts()

    def close(self) -> None:
        """Posts nothing more."""
        for handle in (self._timer, self._paced, self._watch):
            if handle is not None:
                handle.cancel()
        self._timer = self._paced = self._watch = None
        self._armed_for = float("inf")
        self._due.clear()
        self._ready = 0
        for route in self._routes.values():
            route.close()
        self._routes.clear()

    # --- what is to come -----------------------------------------------------------------

    def at(self, due: float, job: Job) -> None:
        """Runs the job at this time of the clock, or as soon as it can be after it."""
        self._given += 1
        heapq.heappush(self._due, (due, self._given, job))
        if due < self._armed_for:
            self._arm(due)

    def _arm(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._armed_for = due
        wait = due - self._clock()
        self._timer = loop.call_later(wait, self._run) if wait > 0 else loop.call_soon(self._run)

    def _run(self) -> None:
        self._timer, self._armed_for = None, float("inf")
        due, now = self._due, self._clock()
        for _ in range(_TURN):
            if not due or due[0][0] > now or self._ready >= _BACKLOG:
                break
            heapq.heappop(due)[2]()
        # With a full backlog the next answer goes on; see `_settled`.
        if due and self._ready < _BACKLOG:
            self._arm(due[0][0])

    # --- posting -------------------------------------------------------------------------

    def target(self, url: str) -> tuple[Target | None, str]:
        """(who listens for this URL, its path with query); None for whom nothing may be sent.

        A fragment is for the provider only and is neither sent nor signed.
        """
        url = url.partition("#")[0]
        start = url.find("/", 8)
        origin, path = (url, "/") if start < 0 else (url[:start], url[start:])
        if origin not in self._origins:
            self._origins[origin] = self._listener(origin)
        return self._origins[origin], path

    def _listener(self, origin: str) -> Target | None:
        parts = urlsplit(origin)
        try:
            host, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return None
        allowed = self._exposed or is_loopback(host)
        return Target(host, port) if parts.scheme == "http" and allowed else None

    def post(self, parcel: Parcel) -> None:
        """Posts a parcel as soon as pace and connections allow it."""
        self._ready += 1
        route = self._routes.get(parcel.target)
        if route is None:
            route = self._routes[parcel.target] = Route(parcel.target, self)
            route.limit = self._connections
        route.waiting.append(parcel)
        route.pump()
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(1.0, self._look)

    def _look(self) -> None:
        self._watch = None
        for route in tuple(self._routes.values()):
            route.end_overdue()
        if any(route.busy for route in self._routes.values()):
            self._watch = asyncio.get_running_loop().call_later(1.0, self._look)

    def may_post(self) -> bool:
        if self._rate is None:
            self.counts.sent += 1
            return True
        loop = asyncio.get_running_loop()
        full = max(1.0, self._rate * _BURST)
        now = loop.time()
        self._tokens = min(full, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            self.counts.sent += 1
            return True
        if self._paced is None:
            self._paced = loop.call_later((full - self._tokens) / self._rate, self._next_turn)
        return False

    def _next_turn(self) -> None:
        self._paced = None
        self._pump()

    def _pump(self) -> None:
        for route in tuple(self._routes.values()):
            route.pump()

    # --- what came of it -----------------------------------------------------------------

    def answered(self, parcel: Parcel, status: int, seconds: float) -> None:
        counts = self.counts
        counts.total += seconds
        counts.slowest = max(counts.slowest, seconds)
        kind = f"{status // 100}xx"
        told = counts.forged_answered if parcel.forged else counts.answered
        told[kind] = told.get(kind, 0) + 1
        if status < 300:
            if not parcel.forged:
                counts.events += parcel.weight
            self._settled(parcel)
        else:
            self._try_again(parcel, status, connected=True)

    def unanswered(self, parcel: Parcel, *, connected: bool) -> None:
        self._try_again(parcel, None, connected=connected)

    def _try_again(self, parcel: Parcel, status: int | None, *, connected: bool) -> None:
        wait = None if parcel.forged else self._retry(parcel, status, connected)
        if wait is None:
            if status is None:
                self.counts.unanswered += 1
            self._settled(parcel)
            return
        parcel.tries += 1
        parcel.stale = False
        self.counts.retried += 1
        self._ready -= 1
        self.at(self._clock() + wait, lambda: self.post(parcel))

    def _settled(self, parcel: Parcel) -> None:
        self.pending -= parcel.weight
        self._ready -= 1
        if self._timer is None and self._due and self._ready < _BACKLOG:
            self._arm(self._due[0][0])

"""An update's numbers as the watchers of the console see them: words, bars, rate and time left.

Owns what this process remembers of updates that are watched. Reads counters, and never the rows:
what needs these is counted in the background (`tallying`).
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from dispatcher.console import reasons, views
from dispatcher.console.pace import Pace, time_left
from dispatcher.console.tallying import Checks, Known, Tallies
from dispatcher.http import standing
from dispatcher.http.standing import ProgressShown, Stand
from dispatcher.ledger import shortfalls
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.counting import STATES
from dispatcher.ledger.shortfalls import Outstanding
from dispatcher.senders import sender_speed
from dispatcher.wiring import Services

WATCHED = 500
"""Updates whose pace is remembered."""

SLICES: Sequence[tuple[str, str, str, tuple[str, ...]]] = (
    # key, words, colour, states. Every state is in exactly one.
    ("told", "told", "good", ("accepted", "delivered")),
    ("leaving", "leaving now", "info", ("sending",)),
    ("waiting", "waiting", "wait", ("pending",)),
    ("doubt", "in doubt", "late", ("unknown",)),
    ("failed", "failed", "bad", ("failed",)),
    ("left_out", "not sent", "off", ("skipped", "spared", "superseded", "expired", "stopped")),
)
NO_CHANNEL = "c.none"
"""The line of those whom no channel of the update leads to: a row each."""
_GONE = ("accepted", "delivered", "failed", "unknown")


@dataclass(frozen=True, slots=True)
class Line:
    """Messages of one audience, one channel, or all. `slices` as in `SLICES`, by key."""

    key: str
    name: str
    planned: int
    delivered: int
    slices: Mapping[str, int]
    stopped: int = 0
    rate: float = 0.0
    left: float | None = None

    @property
    def bar(self) -> list[tuple[str, int, str, str]]:
        """What the page's bar is drawn from."""
        return [(words, self.slices[key], colour, key) for key, words, colour, _ in SLICES]

    @property
    def label(self) -> str:
        """Its name with how many there are: people, where no channel leads to them."""
        if self.key == NO_CHANNEL:
            return f"{self.name}, {views.people(self.planned)}"
        return f"{self.name}, {views.count(self.planned)} planned"

    @property
    def moving(self) -> bool:
        return bool(self.slices["waiting"] or self.slices["leaving"])

    @property
    def left_words(self) -> str:
        """The time left, as far as it can be told; empty where nothing is ever sent."""
        if self.key == NO_CHANNEL:
            return ""
        if not self.moving:
            return "stopped" if self.stopped else "nothing waits"
        return _about(self.left)


@dataclass(frozen=True, slots=True)
class View:
    """All that a page of an update's sending shows of its counters."""

    shown: ProgressShown
    whole: Line
    channels: tuple[Line, ...]
    audiences: tuple[Line, ...]

    @property
    def state(self) -> Stand:
        return self.shown.state

    @property
    def sentence(self) -> str:
        """Where it stands, in a sentence."""
        return reasons.STATES[self.shown.state.value]

    @property
    def ends(self) -> bool:
        """Whether nothing more will change by itself."""
        return self.shown.state in (Stand.COMPLETE, Stand.WITHDRAWN)

    @property
    def moving(self) -> bool:
        return self.whole.moving

    @property
    def counts(self) -> tuple[int, ...]:
        """The counters that a count of the rows was made at, or was not."""
        return (
            self.shown.planned,
            *(self.shown.by_state[state] for state in STATES),
        )

    @property
    def left_words(self) -> str:
        if self.state is Stand.PLANNING:
            return "still being planned"
        if self.state is Stand.STOPPED and not self.moving:
            return "stopped"
        return self.whole.left_words

    @property
    def rate_words(self) -> str:
        return (
            f"{self.whole.rate:,.0f} a second" if self.whole.rate >= 1 else _slow(self.whole.rate)
        )


def _about(left: float | None) -> str:
    if left is None:
        return "not moving just now"
    return views.lasting(left) if left < 1 else f"about {views.lasting(left)}"


def _slow(rate: float) -> str:
    return f"{rate * 60:,.0f} a minute" if rate > 0 else "none just now"


def _channel(name: str) -> str:
    return reasons.NO_WAY if f"c.{name}" == NO_CHANNEL else reasons.channel(name)


def _line(key: str, name: str, counts: Mapping[str, int], planned: int) -> Line:
    return Line(
        key=key,
        name=name,
        planned=planned,
        delivered=counts["delivered"],
        stopped=counts["stopped"],
        slices={slice: sum(counts[state] for state in states) for slice, _, _, states in SLICES},
    )


@dataclass(slots=True)
class _Watched:
    pace: Pace = field(default_factory=Pace)
    snapshot: str = ""
    outstanding: Sequence[Outstanding] = ()


class Board:
    """The numbers of updates for the pages and for whoever watches them."""

    def __init__(self, services: Services, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self.tallies = Tallies(services.ledger)
        self.checks = Checks(services.ledger)
        # A page does not wait for the check of a million rows, and says meanwhile that it runs.
        self._patient = replace(services, balances=self.checks)
        self._watched: dict[str, _Watched] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let what runs in the background end."""
        self.tallies.close()
        self.checks.close()

    def view(self, conn: Connection, update_id: str) -> View:
        """The present numbers. Call outside a transaction. Raises `NotFound`."""
        shown = standing.read(self._patient, conn, update_id)
        return self._viewed(shown, lambda: shortfalls.outstanding(conn, update_id), "")

    def followed(self, shown: ProgressShown, snapshot: str) -> View:
        """The same of numbers that were read already; `snapshot` is their id. Blocks."""

        def outstanding() -> Sequence[Outstanding]:
            with self._services.ledger.read() as conn:
                return shortfalls.outstanding(conn, shown.update_id)

        return self._viewed(shown, outstanding, snapshot)

    def figures(self, view: View, *, patience: float = 0.0) -> Known:
        """What is known of the people and the reasons behind these numbers."""
        return self.tallies.known(view.shown.update_id, view.counts, patience=patience)

    def _viewed(
        self, shown: ProgressShown, outstanding: Callable[[], Sequence[Outstanding]], snapshot: str
    ) -> View:
        gone = {
            channel: sum(counts[state] for state in _GONE)
            for channel, counts in shown.by_channel.items()
        }
        with self._lock:
            if shown.update_id not in self._watched and len(self._watched) >= WATCHED:
                self._watched.clear()
            watched = self._watched.setdefault(shown.update_id, _Watched())
            now = self._clock()
            rates = watched.pace.rates(now, gone)
            watched.pace.note(now, gone)
            known = watched.outstanding if snapshot and watched.snapshot == snapshot else None
        if known is None:
            known = outstanding()
            with self._lock:
                watched.snapshot, watched.outstanding = snapshot, known
        return self._made(shown, rates, known)

    def _rate(self, channel: str, sender: str) -> float:
        """Units a second of a sender, also of an account that took over for another."""
        services = self._services
        return sender_speed(
            services.packs,
            services.mode == "sandbox",
            channel,
            sender,
            accounts=services.accounts,
        ).rate

    def _made(
        self, shown: ProgressShown, rates: Mapping[str, float], known: Sequence[Outstanding]
    ) -> View:
        bounds: dict[str, float] = {}
        waiting: dict[str, int] = {}
        for each in known:
            seconds = each.units / max(1e-9, self._rate(each.channel, each.sender))
            bounds[each.channel] = max(bounds.get(each.channel, 0.0), seconds)
            waiting[each.channel] = waiting.get(each.channel, 0) + each.rows
        left = time_left(waiting, rates, bounds)
        titles = {name: rule.title for name, rule in self._services.packs.audiences.items()}
        channels = tuple(
            replace(
                _line(f"c.{name}", _channel(name), counts, counts["planned"]),
                rate=rates.get(name, 0.0),
                left=left.get(name),
            )
            for name, counts in shown.by_channel.items()
        )
        order = list(titles)
        audiences = tuple(
            _line(f"a.{name}", titles.get(name, name), counts, counts["planned"])
            for name, counts in sorted(
                shown.by_audience.items(),
                key=lambda item: order.index(item[0]) if item[0] in order else len(order),
            )
        )
        whole = replace(
            _line("all", "All messages", shown.by_state, shown.planned),
            rate=sum(rates.values()),
            left=max(left.values(), default=None),
        )
        return View(shown, whole, channels, audiences)


def live(view: View, *, zone: str) -> dict[str, object]:
    """What the page's script puts into its places, in the reader's zone."""
    lines = (view.whole, *view.channels, *view.audiences)
    numbers = {
        "planned": views.count(view.whole.planned),
        "told": views.count(view.whole.slices["told"]),
        "delivered": views.count(view.whole.delivered),
        "rate": view.rate_words,
        "left": view.left_words,
        "first": _moment(view.shown.first_accepted_at, zone),
        "last": _moment(view.shown.last_accepted_at, zone),
        "sentence": view.sentence,
    }
    for line in lines:
        numbers[f"{line.key}.planned"] = views.count(line.planned)
        numbers[f"{line.key}.delivered"] = views.count(line.delivered)
        if line.key.startswith("c."):
            numbers[f"{line.key}.left"] = line.left_words
    return {
        "state": view.state.value,
        "shape": shape(view),
        "numbers": numbers,
        "bars": {line.key: dict(line.slices) for line in lines},
        "say": spoken(view),
        "ends": view.ends,
    }


def shape(view: View) -> str:
    """Changes when rows come or go, or the state does: then the page is fetched again."""
    keys = [line.key for line in (*view.channels, *view.audiences)]
    return " ".join([view.state.value, *keys])


def spoken(view: View) -> str:
    """The numbers in a sentence, for those who listen."""
    told = f"{view.whole.slices['told']:,} of {view.whole.planned:,} messages told"
    return f"{view.sentence} {told}, time left: {view.left_words}."


def _moment(moment: datetime | None, zone: str) -> str:
    return "not yet" if moment is None else views.both(moment, zone, seconds=True)

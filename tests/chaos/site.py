"""The installation that faults fall upon, and what they need of it.

A house of three workers with a short lease and impatient adapters, so that a lost worker costs
seconds. Owns which simulators' faults are in force and which process is which.
"""

import contextlib
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis

from channels import registry
from tests.chaos import clock as clocks
from tests.chaos.clock import Clock
from tests.chaos.crowd import crowd, places
from tests.stories.house import House, living, until

LEASE = 6.0
TIMEOUT = 2.0
SETTLE_AFTER = 2.5
"""Seconds; longer than a simulator's list lags behind."""
WORKERS: Mapping[str, tuple[str, ...]] = {
    "desk": ("urgent", "plan", "sweep"),
    "post-1": ("urgent", "normal", "bulk"),
    "post-2": ("urgent", "bulk", "normal", "plan", "sweep"),
}
PROVIDERS = ("twilio", "sendgrid", "fcm", "x")
LISTED = ("twilio", "x")
"""Providers that can be asked what they took."""
MUTE = ("sendgrid_email",)
"""Adapters whose provider says yes by its events, and never no."""


class NotNow(Exception):
    """What a fault needs is down by an earlier one: it falls a moment later."""


@dataclass(slots=True)
class Site:
    """The running installation. `blind`: providers that could be asked answer 500 instead."""

    house: House
    clock: Clock | None
    size: int
    blind: bool
    delay: float = 0.1
    updates: list[str] = field(default_factory=list)
    unattended: bool = False
    _rules: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    # -- the simulators ------------------------------------------------------------------

    def begin(self, delay: float) -> str:
        """Forget what the simulators hold, and open an incident for everybody; returns the update."""
        self.delay = delay
        self._rules.clear()
        self.house.sandbox.clear()
        self._apply()
        update: str = self.house.open("consumers", "public")["update"]["id"]
        self.updates.append(update)
        return update

    def provider_fault(self, provider: str, **fault: Any) -> Callable[[], None]:
        """Put a fault in force before the usual slowness; returns what ends it."""
        rule = (provider, fault)
        self._rules.append(rule)
        self._apply()

        def end() -> None:
            if rule in self._rules:
                self._rules.remove(rule)
                self._apply()

        return end

    def _apply(self) -> None:
        """The first rule that fits strikes, so the usual slowness comes last."""
        self.house.sandbox.clear_faults()
        if self.blind:
            for provider in LISTED:
                self.house.sandbox.fault(provider, status=500, on="other")
        for provider, fault in self._rules:
            self.house.sandbox.fault(provider, **fault)
        for provider in PROVIDERS:
            self.house.sandbox.fault(provider, delay=self.delay)

    def taken(self) -> int:
        """How many messages the simulators hold."""
        return sum(self._counts().values())

    def waiting(self) -> set[str]:
        """The simulators that do not hold all messages yet."""
        wanted = Counter(place.provider for place in places(self.size))
        held = self._counts()
        return {provider for provider, count in wanted.items() if held[provider] < count}

    def _counts(self) -> dict[str, int]:
        counts = self.house.sandbox.http.get("/_sandbox/counts").json()
        return {provider: int(each["messages"]) for provider, each in counts.items()}

    # -- processes -----------------------------------------------------------------------

    def worker(self, aim: float) -> str:
        return tuple(WORKERS)[min(int(aim * len(WORKERS)), len(WORKERS) - 1)]

    def pid(self, name: str) -> int:
        """A child's present process. Raises `NotNow` if there is none or nobody who knows."""
        found = 0 if self.unattended else self.house.stack.pids().get(name, 0)
        if not found:
            raise NotNow(name)
        return found

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        signal_all([self.pid(name)], number)

    def freeze(self, name: str) -> Callable[[], None]:
        """Stop a process, PostgreSQL with all its own; returns what lets it go on."""
        pid = self.pid(name)
        pids = [pid, *children(pid)] if name == "postgres" else [pid]
        signal_all(pids, signal.SIGSTOP)
        return lambda: signal_all(pids, signal.SIGCONT)

    def without_database(self) -> Callable[[], None]:
        """Kill PostgreSQL and keep it from being mended; returns what lets it be."""
        pid = self.pid("postgres")
        signal_all([self.house.stack.pid], signal.SIGSTOP)
        self.unattended = True
        signal_all([pid], signal.SIGKILL)

        def end() -> None:
            signal_all([self.house.stack.pid], signal.SIGCONT)
            self.unattended = False

        return end

    def batches(self, where: str) -> list[tuple[int, str]]:
        """Some batches with their lanes, the newest first. Raises `NotNow`."""
        url = self.house.stack.addresses.database_url
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=2) as conn:
                asked = f"SELECT id, lane FROM batch WHERE {where} ORDER BY id DESC LIMIT 50"
                return [(int(row[0]), str(row[1])) for row in conn.execute(asked.encode())]
        except psycopg.OperationalError:
            raise NotNow("postgres") from None

    def enqueue(self, task: str, work: Sequence[tuple[int | str, str]]) -> None:
        """Name work to the workers, as anybody could who reaches the broker. Raises `NotNow`."""
        if self.house.services.broker.enqueue_all(task, work) < len(work):
            raise NotNow("valkey")

    def flush(self) -> None:
        """Make the broker forget everything. Raises `NotNow`."""
        url = self.house.stack.addresses.broker_url
        try:
            with redis.Redis.from_url(url, socket_timeout=2.0, socket_connect_timeout=2.0) as link:
                link.flushall()
        except (redis.RedisError, OSError):
            raise NotNow("valkey") from None

    # -- the end of a run ----------------------------------------------------------------

    def progress(self, update: str) -> dict[str, Any] | None:
        """The update's numbers; None while the API has none to give."""
        try:
            answer = self.house.operator.http.get(f"/v1/updates/{update}/progress")
        except httpx.TransportError:
            return None
        found: dict[str, Any] | None = answer.json() if answer.is_success else None
        return found

    def calm(self, update: str) -> bool:
        """Whether nothing of it will be sent any more: all is planned, nothing pending, on its
        way, or in doubt at a provider that answers. (Whether it is settled to the last, once
        nobody is waited for either, is `settled`, which takes a minute more for mail.)"""
        now = self.progress(update)
        if now is None or not now["balanced"]:
            return False
        planned = "SELECT count(*) FROM release WHERE update_id = %s AND planned_at IS NULL"
        asked = "SELECT count(*) FROM doubt WHERE update_id = %s AND adapter <> ALL(%s)"
        moving = now["by_state"]["pending"] + now["by_state"]["sending"]
        return (
            moving == 0
            and self.house.sql(planned, update) == [(0,)]
            and (self.blind or self.house.sql(asked, update, list(MUTE)) == [(0,)])
        )

    def settled(self, update: str) -> bool:
        """Whether it stands as it will stand for good, and its sums are right."""
        now = self.progress(update)
        return now is not None and bool(now["balanced"] and now["settled"])

    def quiet(self) -> bool:
        """Whether no worker holds a batch."""
        leased = "SELECT count(*) FROM batch WHERE lease_until > now()"
        return self.house.sql(leased) == [(0,)]


@contextmanager
def standing(folder: Path, *, size: int, blind: bool) -> Iterator[Site]:
    """An installation with `size` recipients in its directory."""
    folder.mkdir(parents=True, exist_ok=True)
    clock = clocks.build(folder)
    with living(
        folder,
        workers=WORKERS,
        env=clock.env if clock else None,
        port=_own_port(),
        lease=LEASE,
        batch_size=250,
        channels=_impatient(),
    ) as house:
        house.people(crowd(size))
        yield Site(house, clock, size, blind)


def _own_port() -> int:
    """A port that no other installation will look at while our API is away for a moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _impatient() -> dict[str, dict[str, str]]:
    wanted = {"timeout": str(TIMEOUT), "settle_after": str(SETTLE_AFTER)}
    found = {}
    for name in registry.names():
        kind: Any = registry.load(name)
        found[name] = {n: v for n, v in wanted.items() if n in kind.Settings.model_fields}
    return found


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(each) for each in listed.read_text().split()]
    except OSError:
        return []


def signal_all(pids: Sequence[int], number: int) -> None:
    """Signal those of the processes that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def back(site: Site) -> None:
    """Wait until every process is there again and the API answers; fails with what is missing."""
    missing: list[str] = []

    def look() -> bool:
        missing[:] = sorted({*WORKERS, "beat", "api"} - set(site.house.stack.pids()))
        try:
            ready = site.house.operator.http.get("/readyz")
        except httpx.TransportError as error:
            missing.append(f"an answer of the API ({type(error).__name__})")
        else:
            missing.extend([] if ready.is_success else [ready.text])
        return not missing

    try:
        until(look, within=90)
    except AssertionError:
        raise AssertionError(f"not back after 90 s: {missing}") from None

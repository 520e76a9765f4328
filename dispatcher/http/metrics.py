"""`GET /metrics`: what operators watch, for Prometheus.

Owns names, units and help texts. What stands in the ledger is the same on every process; only
requests, refused receipts and open streams are a process's own. No label holds an id, an
address or a key of anybody but the operator.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, Histogram
from prometheus_client import generate_latest as rendered
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from channels.contract import ReceiptReader
from dispatcher.broker import QUEUES, Broker
from dispatcher.http.watching import Watcher
from dispatcher.ledger import metrics as figures
from dispatcher.ledger.connection import Ledger, LedgerAway, LedgerFull
from dispatcher.wiring import Services

router = APIRouter(tags=["health"])

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class Told:
    """How a figure of the ledger is shown."""

    name: str
    help: str
    labels: tuple[str, ...] = ()


LEDGER: Mapping[str, Told] = {
    "deliveries": Told(
        "dispatcher_deliveries",
        "Deliveries of updates that are under way or were released within a day.",
        ("channel", "state"),
    ),
    "batches": Told(
        "dispatcher_batches",
        "Open batches: due and waiting for a worker, or leased by one.",
        ("lane", "condition"),
    ),
    "oldest_due": Told(
        "dispatcher_oldest_due_seconds",
        "How long the batch that is due longest has waited for a worker.",
        ("lane",),
    ),
    "leases_dead": Told(
        "dispatcher_leases_dead", "Leases that ran out with rows on the wire, not yet buried."
    ),
    "messages_paused": Told(
        "dispatcher_messages_paused",
        "Messages held back because a provider refused their content, with deliveries waiting.",
    ),
    "unplanned": Told(
        "dispatcher_oldest_unplanned_seconds",
        "How long ago the oldest release was that is not planned yet.",
    ),
    "doubts": Told(
        "dispatcher_doubts",
        "Deliveries in doubt that a provider may still be asked about.",
        ("adapter",),
    ),
    "oldest_doubt": Told(
        "dispatcher_oldest_doubt_seconds",
        "How long the oldest of them has been in doubt.",
        ("adapter",),
    ),
    "unknown_for_good": Told(
        "dispatcher_unknown_for_good",
        "Deliveries, of those shown, that stay unknown until a receipt or a person settles them.",
        ("adapter",),
    ),
    "breakers_open": Told(
        "dispatcher_breakers_open",
        "Open circuit breakers, by adapter: its senders that nothing goes out by.",
        ("adapter",),
    ),
    "breaker_open": Told(
        "dispatcher_breaker_open_seconds",
        "How long a circuit breaker has been open. An empty sender is every one of the adapter.",
        ("adapter", "sender", "reason"),
    ),
    "last_accepted": Told(
        "dispatcher_last_accepted_seconds",
        "Time since a provider last accepted a message.",
        ("adapter",),
    ),
    "last_receipt": Told(
        "dispatcher_last_receipt_seconds",
        "Time since a receipt last came from a provider that was told where to call.",
        ("adapter",),
    ),
    "last_sweep": Told("dispatcher_last_sweep_seconds", "Time since the sweep last ran."),
    "schema": Told("dispatcher_schema", "The schema's revision.", ("revision",)),
    "mode": Told("dispatcher_mode", "Whether providers are simulated.", ("mode",)),
    "database_bytes": Told("dispatcher_database_bytes", "Size of the ledger's database."),
}
"""Figures of `ledger.metrics` by their names there."""


class Metrics:
    """One app's figures: its own in `registry`, those of the ledger in `ledger`."""

    def __init__(self, services: Services) -> None:
        self.registry = CollectorRegistry()
        self.ledger = CollectorRegistry()
        self.requests = Histogram(
            "dispatcher_http_request_seconds",
            "Time to the end of an answer, by route. Streams are not among them.",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.watchers = Gauge(
            "dispatcher_stream_watchers",
            "Open event streams.",
            ["stream"],
            registry=self.registry,
        )
        settings = services.settings
        called = settings.public_url is not None
        self.ledger.register(
            LedgerFigures(
                services.ledger,
                readers=[
                    name
                    for name, adapter in services.adapters.items()
                    if called and isinstance(adapter, ReceiptReader)
                ],
            )
        )
        self.registry.register(QueueFigures(services.broker))
        if settings.database_url is None:
            self.registry.register(DiskFigures(settings.data_dir))

    def render(self, away: LedgerAway | None) -> bytes:
        """All of it; of a ledger that is `away`, only that, so that nobody waits for it again."""
        if away is None:
            return rendered(self.registry) + rendered(self.ledger)
        told = CollectorRegistry()
        told.register(Reachable(away))
        return rendered(self.registry) + rendered(told)


class Reachable(Collector):
    """Whether the ledger can be read, and written."""

    def __init__(self, away: LedgerAway | None) -> None:
        self._full = isinstance(away, LedgerFull)
        self._reachable = away is None or self._full

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        reachable = GaugeMetricFamily(
            "dispatcher_ledger_reachable", "1 if the database answers, 0 if it does not."
        )
        reachable.add_metric([], float(self._reachable))
        full = GaugeMetricFamily(
            "dispatcher_ledger_full", "1 if the database has no room left on its disk."
        )
        full.add_metric([], float(self._full))
        yield reachable
        yield full


class LedgerFigures(Collector):
    """The ledger's figures, and whether it can be read and written at all."""

    def __init__(self, ledger: Ledger, *, readers: Sequence[str]) -> None:
        self._ledger = ledger
        self._readers = sorted(readers)

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        found: Sequence[figures.Sample] = []
        away: LedgerAway | None = None
        try:
            with self._ledger.read() as conn:
                found = figures.read(conn, readers=self._readers)
            self._ledger.check_room()
        except LedgerAway as error:
            away = error
        yield from Reachable(away).collect()
        for figure, told in LEDGER.items():
            family = GaugeMetricFamily(told.name, told.help, labels=told.labels)
            for sample in found:
                if sample.figure == figure:
                    family.add_metric(sample.labels, sample.value)
            yield family


class QueueFigures(Collector):
    """Tasks that wait in the broker, and whether it answers."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        reachable = GaugeMetricFamily(
            "dispatcher_broker_reachable", "1 if the broker answers, 0 if it does not."
        )
        queues = GaugeMetricFamily(
            "dispatcher_queue_messages",
            "Tasks waiting in a queue of the broker.",
            labels=["queue"],
        )
        there = True
        for queue in QUEUES:
            depth = self._broker.depth(queue)
            if depth is None:
                there = False
                break  # one wait for a broker that is away is enough
            queues.add_metric([queue], depth)
        reachable.add_metric([], float(there))
        yield reachable
        yield queues


class DiskFigures(Collector):
    """Room on the disk of the embedded database; another machine's cannot be seen from here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        try:
            found = shutil.disk_usage(self._folder)
        except OSError:
            return
        free = GaugeMetricFamily(
            "dispatcher_disk_free_bytes", "Room left on the data folder's disk."
        )
        free.add_metric([], found.free)
        size = GaugeMetricFamily("dispatcher_disk_size_bytes", "Size of the data folder's disk.")
        size.add_metric([], found.total)
        yield free
        yield size


@router.get("/metrics", response_class=Response)
def metrics(request: Request, away: Watcher) -> Response:
    """Figures for Prometheus. A key that was good stays so here while the database is away."""
    state = request.app.state
    shown: Metrics = state.metrics
    shown.watchers.labels("progress").set(len(state.progress_feed.feed))
    shown.watchers.labels("inbox").set(len(state.inbox_feed.feed))
    return Response(shown.render(away), media_type=CONTENT_TYPE_LATEST)

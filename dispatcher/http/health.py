"""Whether this process lives, whether it can do its work, and its figures.

Metrics are counted by route and status; no label holds an id, an address or a key.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, Histogram
from prometheus_client import generate_latest as rendered
from pydantic import BaseModel, Field

from dispatcher.broker import QUEUES
from dispatcher.http.desk import Desk, holding
from dispatcher.ledger.connection import LedgerAway, SchemaTooOld
from dispatcher.security.rights import Actor, Scope

router = APIRouter(tags=["health"])

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """One app's figures, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Histogram(
            "dispatcher_http_request_seconds",
            "Time to the end of an answer, by route. Streams are not among them.",
            ["method", "route", "status"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.queues = Gauge(
            "dispatcher_queue_messages",
            "Tasks waiting in a queue of the broker.",
            ["queue"],
            registry=self.registry,
        )
        self.watchers = Gauge(
            "dispatcher_stream_watchers",
            "Open event streams.",
            ["stream"],
            registry=self.registry,
        )


class Alive(BaseModel):
    """The process answers."""

    status: str = "ok"


class Ready(BaseModel):
    """Each thing this process needs, and whether it is there."""

    ready: bool
    mode: str
    database: bool
    db_schema: bool = Field(serialization_alias="schema")
    broker: bool


@router.get("/healthz")
async def healthz() -> Alive:
    """Open to all: the process lives. Says nothing of what it needs."""
    return Alive()


@router.get("/readyz", response_model=Ready, responses={503: {"model": Ready}})
def readyz(
    services: Desk, actor: Annotated[Actor, Depends(holding(Scope.READ))], response: Response
) -> Ready:
    """Whether database, schema and broker are there; 503 if one is not."""
    database = schema = True
    try:
        services.ledger.check_schema()
    except LedgerAway:
        database = schema = False
    except SchemaTooOld:
        schema = False
    broker = services.broker.depth(QUEUES[0]) is not None
    ready = database and schema and broker
    if not ready:
        response.status_code = 503
        response.headers["Retry-After"] = "5"
    return Ready(
        ready=ready, mode=services.mode, database=database, db_schema=schema, broker=broker
    )


@router.get("/metrics", response_class=Response)
def metrics(
    request: Request, services: Desk, actor: Annotated[Actor, Depends(holding(Scope.READ))]
) -> Response:
    """Figures for Prometheus."""
    figures: Metrics = request.app.state.metrics
    for queue in QUEUES:
        depth = services.broker.depth(queue)
        if depth is None:
            break  # one wait for a broker that is away is enough
        figures.queues.labels(queue).set(depth)
    state = request.app.state
    figures.watchers.labels("progress").set(len(state.progress_feed.feed))
    figures.watchers.labels("inbox").set(len(state.inbox_feed.feed))
    return Response(rendered(figures.registry), media_type=CONTENT_TYPE_LATEST)

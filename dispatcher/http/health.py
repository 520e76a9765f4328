"""Whether this process lives, and whether it can do its work. Figures are in `metrics`."""

from dataclasses import asdict
from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from dispatcher.broker import QUEUES
from dispatcher.http.desk import Desk
from dispatcher.http.watching import Watcher
from dispatcher.ledger import breakers
from dispatcher.ledger.connection import LedgerAway, LedgerFull, SchemaTooOld
from dispatcher.wiring import Services

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process answers."""

    status: str = "ok"


class BreakerShown(BaseModel):
    """Nothing goes out by this adapter and sender until a probe works."""

    adapter: str
    sender: str = Field(description="Empty: every sender of the adapter.")
    reason: str
    detail: str
    opened_at: datetime
    probe_at: datetime
    probes: int = Field(description="How often it was tried in vain.")


class Ready(BaseModel):
    """Each thing this process needs, and whether it is there."""

    ready: bool
    mode: str
    database: bool
    db_schema: bool = Field(serialization_alias="schema")
    broker: bool
    reasons: list[str] = Field(
        description="Why not: `disk full`, `database away`, `schema too old`, `broker away`."
    )
    breakers: list[BreakerShown] = Field(description="Open ones; their deliveries wait, or move.")


@router.get("/healthz")
async def healthz() -> Alive:
    """Open to all: the process lives. Says nothing of what it needs."""
    return Alive()


@router.get("/readyz", response_model=Ready, responses={503: {"model": Ready}})
def readyz(services: Desk, away: Watcher, response: Response) -> Ready:
    """Whether what this process needs is there; 503 with the reasons if something is not.

    A key that was good stays so here while the database is away.
    """
    reasons: list[str] = []
    found: list[BreakerShown] = []
    schema = True
    try:
        if away is not None:
            raise away
        services.ledger.check_schema()
        found = _breakers(services)
        services.ledger.check_room()
    except LedgerAway as error:
        away = error
        reasons.append("disk full" if isinstance(error, LedgerFull) else "database away")
    except SchemaTooOld:
        schema = False
        reasons.append("schema too old")
    database = away is None or isinstance(away, LedgerFull)
    broker = services.broker.depth(QUEUES[0]) is not None
    if not broker:
        reasons.append("broker away")
    if reasons:
        response.status_code = 503
        response.headers["Retry-After"] = "5"
    return Ready(
        ready=not reasons,
        mode=services.mode,
        database=database,
        db_schema=database and schema,
        broker=broker,
        reasons=reasons,
        breakers=found,
    )


def _breakers(services: Services) -> list[BreakerShown]:
    with services.ledger.read() as conn:
        return [BreakerShown(**asdict(breaker)) for breaker in breakers.open_now(conn)]

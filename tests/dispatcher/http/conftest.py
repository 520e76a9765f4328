"""One app on one port for the session, on a database that every test finds empty.

Planning and sending are only noted: there is no worker behind these tests.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dispatcher import wiring
from dispatcher.embedded import Addresses
from dispatcher.http.app import create_app
from dispatcher.ledger import keys
from dispatcher.planning import Planner, Route
from dispatcher.previews import Previews
from dispatcher.releases import Releases
from dispatcher.security.rights import Scope, parse_scopes
from dispatcher.settings import Settings
from dispatcher.updates import Updates
from dispatcher.wiring import Services
from tests.conftest import MASTER_KEY, database_named
from tests.dispatcher.http.client import Client, serving

POLL_SECONDS = 0.05


@dataclass
class Noted:
    """What would have been named to workers."""

    planned: list[str] = field(default_factory=list)
    sent: list[tuple[int, str]] = field(default_factory=list)

    def send(self, batches: Sequence[tuple[int, str]]) -> None:
        self.sent += batches


@dataclass
class Api:
    """The running API of this test."""

    services: Services
    noted: Noted
    port: int

    def key(self, *scopes: str, reach_limit: int | None = None) -> str:
        """A fresh key's token; without scopes it has all but `release:any`."""
        chosen = parse_scopes(scopes) if scopes else frozenset(Scope) - {Scope.RELEASE_ANY}
        with self.services.ledger.transaction() as work:
            return keys.create(
                work.conn,
                name="test",
                scopes=chosen,
                reach_limit=reach_limit,
                created_by="test",
            )[1]

    def client(self, *scopes: str, reach_limit: int | None = None) -> Client:
        return Client(self.port, self.key(*scopes, reach_limit=reach_limit))

    def count(self, table: str) -> int:
        with self.services.ledger.read() as conn:
            row = conn.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        return int(row[0])

    def stored(self) -> dict[str, int]:
        """How many rows stand in the tables that a call may write."""
        tables = ("incident", "incident_update", "fact", "message", "release", "audit")
        return {table: self.count(table) for table in (*tables, "idempotency", "suppression")}


def recording(services: Services, noted: Noted) -> Services:
    """The services with planning and sending only noted."""
    routes = [Route(n, a.channel, a.accepts) for n, a in services.adapters.items()]
    planner = Planner(
        services.ledger, services.packs, routes=routes, drill_routes=routes, send=noted.send
    )
    releases = Releases(planner, plan=noted.planned.append, send=noted.send)
    return replace(
        services,
        planner=planner,
        releases=releases,
        updates=Updates(services.packs, services.renderer, releases),
        previews=Previews(
            services.ledger,
            services.packs,
            services.renderer,
            planner,
            rate=services.rate,
            price=lambda channel, sender: 0.0,
        ),
    )


@pytest.fixture(scope="session")
def running(
    stack: Addresses, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """The app and its server, for the whole session."""
    name = f"http_{uuid.uuid4().hex}"
    with psycopg.connect(stack.database_url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {migrated}")
    settings = Settings.model_validate(
        {
            "database_url": database_named(stack.database_url, name),
            "broker_url": stack.broker_url,
            "master_key": MASTER_KEY,
            "data_dir": Path(tmp_path_factory.mktemp("http")),
        }
    )
    noted = Noted()
    services = recording(wiring.build(settings), noted)
    with serving(create_app(services, poll_seconds=POLL_SECONDS)) as port:
        yield Api(services, noted, port)
    services.ledger.close()
    with psycopg.connect(stack.database_url, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def api(running: Api) -> Api:
    """The API on an empty database."""
    with running.services.ledger.read() as conn:
        tables = conn.execute(
            "SELECT string_agg(quote_ident(c.relname), ', ') FROM pg_class c"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
            " AND NOT c.relispartition AND c.relname <> 'alembic_version'"
        ).fetchone()
        assert tables is not None
        conn.execute(f"TRUNCATE {tables[0]} RESTART IDENTITY CASCADE")
    running.noted.planned.clear()
    running.noted.sent.clear()
    return running


@pytest.fixture
def client(api: Api) -> Client:
    """A client whose key has every scope but the break-glass one."""
    return api.client()


@pytest.fixture
def opening() -> Callable[..., dict[str, Any]]:
    """The body of a good new incident, with fields of the incident or `update` changed."""
    return opened_by


def opened_by(update: dict[str, Any] | None = None, **incident: Any) -> dict[str, Any]:
    """A good body of `POST /v1/incidents`, changed as named."""
    return {
        "title": "Voice and data lost in the south",
        "summary": "Core routers lost routes after a change.",
        "severity": "critical",
        "services": ["voice", "mobile_data"],
        "regions": ["US-TX"],
        "started_at": "2026-01-02T08:45:00Z",
        "release": "on_approval",
        "update": {
            "phase": "investigating",
            "facts": [
                {
                    "kind": "started",
                    "value": {"at": "2026-01-02T08:45:00Z"},
                    "source": "noc",
                    "known_at": "2026-01-02T09:00:00Z",
                },
                {
                    "kind": "emergency_calls",
                    "value": {"status": "limited", "use": ["wifi_calling", "landline"]},
                    "source": "noc",
                    "known_at": "2026-01-02T09:00:00Z",
                },
            ],
            "next_update_at": "2099-01-02T10:00:00Z",
        }
        | (update or {}),
    } | incident

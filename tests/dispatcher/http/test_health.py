"""Health, figures, pages and log lines; and what happens when things go wrong on our side."""

import dataclasses
from typing import Any

import psycopg
import pytest
from psycopg_pool import PoolClosed
from structlog.testing import capture_logs

from dispatcher import asgi
from dispatcher.broker import Broker, build
from dispatcher.http.app import create_app
from dispatcher.ledger.connection import Ledger
from tests.dispatcher.http.client import Client, serving
from tests.dispatcher.http.conftest import Api, opened_by


def test_health_is_open_and_readiness_names_what_is_there(api: Api, client: Client) -> None:
    assert Client(api.port).get("/healthz").json == {"status": "ok"}

    assert client.get("/readyz").json == {
        "ready": True,
        "mode": "sandbox",
        "database": True,
        "schema": True,
        "broker": True,
        "reasons": [],
        "breakers": [],
    }


def test_a_process_prepares_its_services_and_closes_them(api: Api) -> None:
    ledger = Ledger(api.services.ledger.database_url)
    services = dataclasses.replace(api.services, ledger=ledger)
    token = api.key("read")
    with serving(asgi.of(services), lifespan="on") as port:
        assert Client(port, token).get("/readyz").json["ready"] is True

    assert api.count("installation") == 1
    with pytest.raises(PoolClosed), ledger.read():
        pass


def test_an_absent_broker_is_not_ready(api: Api) -> None:
    nowhere = "redis://127.0.0.1:9/0"
    away = Broker(build(nowhere), nowhere)
    with serving(create_app(dataclasses.replace(api.services, broker=away))) as port:
        found = Client(port, api.key("read")).get("/readyz")

    assert (found.status, found.json["broker"], found.json["database"]) == (503, False, True)


def test_a_database_that_is_away_is_a_503_to_come_back_to(api: Api) -> None:
    ledger = Ledger("postgresql://nobody@127.0.0.1:9/none", patience=0.2)
    services = dataclasses.replace(api.services, ledger=ledger)
    with serving(create_app(services)) as port:
        client = Client(port, api.key("incidents:write"))
        found = client.post("/v1/incidents", opened_by())
        assert Client(port).get("/healthz").status == 200
    ledger.close()

    assert found.status == 503
    assert found.headers["retry-after"] == "5"
    assert found.json["type"] == "/problems/database-away"


class Broken:
    """An engine that fails with words that nobody may read."""

    def open(self, *given: Any, **named: Any) -> None:
        raise psycopg.errors.UniqueViolation("Key (address)=(zyxwvu@example.org) already exists")


def test_what_nobody_foresaw_is_told_without_its_words(
    api: Api, capfd: pytest.CaptureFixture[str]
) -> None:
    services = dataclasses.replace(api.services, updates=Broken())  # type: ignore[arg-type]
    with capture_logs() as logged, serving(create_app(services)) as port:
        client = Client(port, api.key("incidents:write"))
        found = client.post("/v1/incidents", opened_by(), Idempotency_Key="k")

    assert (found.status, found.json["type"]) == (500, "/problems/internal")
    failure = next(line for line in logged if line["event"] == "http.failed")
    assert failure["error"].startswith("LedgerRefused")
    assert any("incidents.py" in place for place in failure["at"])
    told = f"{found.body!r} {logged} {capfd.readouterr()}"
    assert "zyxwvu" not in told
    assert api.count("idempotency") == 0


def test_log_lines_and_figures_hold_no_token_query_or_name(api: Api, client: Client) -> None:
    with capture_logs() as logged, serving(create_app(api.services)) as port:
        own = Client(port, client.key)
        own.get("/v1/inbox?token=Zyxwvu1")
        own.get("/v1/recipients/Zyxwvu2")
        own.get("/v1/incidents/Zyxwvu@3")
        own.get("/Zyxwvu4?a=Zyxwvu5")
        own.send("ZYXWVU", "/v1/incidents")
        own.post("/v1/incidents", {"title": "Zyxwvu6"})
        figures = own.get("/metrics").body.decode()

    assert [line["route"] for line in logged if line["event"] == "http.request"][:2] == [
        "/v1/inbox",
        "/v1/recipients/{recipient}",
    ]
    assert 'route="/v1/recipients/{recipient}",status="404"' in figures
    assert 'dispatcher_queue_messages{queue="bulk"}' in figures
    for told in (str(logged), figures):
        assert "zyxwvu" not in told.lower()
        assert client.key is not None and client.key not in told


def test_openapi_and_pages_tell_every_call(client: Client) -> None:
    document = client.get("/openapi.json").json
    kinds = document["components"]["schemas"]["NewUpdate"]["properties"]["facts"]["items"]
    assert set(kinds["discriminator"]["mapping"]) >= {"started", "cause", "next_step"}
    assert "Problem" in document["components"]["schemas"]
    calls = [call for methods in document["paths"].values() for call in methods.values()]
    assert all(call.get("description") for call in calls)

    page = client.get("/docs")
    assert page.status == 200
    assert page.headers["x-content-type-options"] == "nosniff"
    for path in document["paths"]:
        assert path in page.body.decode()
    assert b"<script" not in page.body

    where = client.get("/problems/similar-open").headers["location"]
    assert where == "/docs#problem-similar-open"
    assert b'id="problem-similar-open"' in page.body

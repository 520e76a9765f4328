"""Keys and scopes at the edge, and work that is done once however often it is asked for."""

import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from dispatcher.ledger import keys
from tests.dispatcher.http.client import Client
from tests.dispatcher.http.conftest import Api

Opening = Callable[..., dict[str, Any]]
UPDATE = "/v1/updates/01890a5d-ac96-774b-bcce-b302099a8057"
DELIVERY = "/v1/deliveries/01890a5d-ac96-774b-bcce-b302099a8057"
HASH = {"content_hash": "0" * 64}

CALLS: list[tuple[str, str, Any, str]] = [
    ("POST", "/v1/incidents", None, "incidents:write"),
    ("POST", "/v1/incidents/INC-0001/updates", None, "incidents:write"),
    ("POST", "/v1/incidents/INC-0001/reopen", None, "incidents:write"),
    ("GET", "/v1/incidents", None, "read"),
    ("GET", "/v1/incidents/INC-0001", None, "read"),
    ("POST", "/v1/previews", None, "preview"),
    ("POST", f"{UPDATE}/submit", None, "incidents:write"),
    ("POST", f"{UPDATE}/approve", HASH, "approve"),
    ("POST", f"{UPDATE}/release", HASH, "release"),
    ("POST", f"{UPDATE}/withdraw", None, "incidents:write"),
    ("POST", f"{UPDATE}/stop", None, "release"),
    ("POST", f"{UPDATE}/resume", None, "release"),
    ("GET", f"{UPDATE}/progress", None, "read"),
    ("GET", f"{UPDATE}/progress/events", None, "read"),
    ("GET", f"{UPDATE}/deliveries", None, "read"),
    ("POST", f"{DELIVERY}/settle", None, "incidents:write"),
    ("POST", "/v1/recipients/import", None, "recipients:write"),
    ("GET", "/v1/recipients/r1", None, "read"),
    ("PATCH", "/v1/recipients/r1", None, "recipients:write"),
    ("DELETE", "/v1/recipients/r1", None, "recipients:write"),
    ("GET", "/v1/suppressions", None, "read"),
    ("POST", "/v1/suppressions", None, "recipients:write"),
    ("DELETE", "/v1/suppressions", None, "recipients:write"),
    ("POST", "/v1/inbox/tokens", None, "recipients:write"),
    ("GET", "/readyz", None, "read"),
    ("GET", "/metrics", None, "read"),
]
OPEN = {"/healthz", "/v1/inbox", "/v1/inbox/events", "/v1/receipts/{adapter}"}
"""Open to all, to the holder of an inbox token, or to a provider that signs."""

OTHER = {"read": "preview"}


@pytest.mark.parametrize(("method", "path", "body", "scope"), CALLS)
def test_every_call_needs_a_key_with_its_scope(
    api: Api, method: str, path: str, body: Any, scope: str
) -> None:
    bare = Client(api.port).send(method, path)
    assert bare.status == 401
    assert bare.headers["www-authenticate"].startswith("Bearer")
    assert bare.headers["content-type"] == "application/problem+json"

    under = api.client(OTHER.get(scope, "read")).send(method, path)
    assert under.status == 403
    assert under.json["type"] == "/problems/not-allowed"
    assert repr(scope) in under.json["detail"]


def test_no_call_is_left_out_above(client: Client) -> None:
    known = {(method, path.replace(UPDATE, "/v1/updates/{update}")) for method, path, _, _ in CALLS}
    known = {
        (
            m,
            p.replace("INC-0001", "{incident}")
            .replace("/r1", "/{recipient}")
            .replace(DELIVERY, "/v1/deliveries/{delivery}"),
        )
        for m, p in known
    }
    document = client.get("/openapi.json").json
    there = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method in methods
        if path not in OPEN
    }
    assert there == known


def test_unknown_malformed_and_revoked_keys_are_refused(api: Api) -> None:
    token = api.key("read")
    assert Client(api.port, token).get("/v1/incidents").status == 200
    wrong = token[:-1] + ("a" if token[-1] != "a" else "b")
    with api.services.ledger.transaction() as work:
        assert keys.revoke(work.conn, token.split("_")[1], revoked_by="test")

    for bad in (token, wrong, "nonsense", "od_x_y"):
        found = Client(api.port, bad).get("/v1/incidents")
        assert found.status == 401
        assert bad.encode() not in found.body
    basic = Client(api.port).get("/v1/incidents", Authorization="Basic dXNlcjpwYXNz")
    assert basic.status == 401


def test_release_now_needs_the_right_to_release(api: Api, opening: Opening) -> None:
    found = api.client("incidents:write").post("/v1/incidents", opening(release="now"))

    assert found.status == 403
    assert "'release'" in found.json["detail"]
    assert api.count("incident") == 0


# Idempotency-Key


def test_the_same_call_again_gets_the_first_answer(
    api: Api, client: Client, opening: Opening
) -> None:
    first = client.post("/v1/incidents", opening(), Idempotency_Key="a key")
    again = client.post("/v1/incidents", opening(), Idempotency_Key="a key")

    assert (again.status, again.body) == (first.status, first.body)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert api.count("incident") == 1


def test_a_key_counts_for_one_body_one_route_and_one_holder(
    api: Api, client: Client, opening: Opening
) -> None:
    first = client.post("/v1/incidents", opening(), Idempotency_Key="k")
    other = client.post("/v1/incidents", opening(title="Another"), Idempotency_Key="k")
    assert other.status == 409
    assert other.json["type"] == "/problems/idempotency-key-reused"
    assert api.count("incident") == 1

    route = f"/v1/incidents/{first.json['id']}/updates"
    update = {"release": "draft", "update": {"phase": "identified"}}
    assert client.post(route, update, Idempotency_Key="k").status == 201
    somebody = api.client().post("/v1/incidents", opening(force=True), Idempotency_Key="k")
    assert somebody.status == 201
    assert api.count("incident") == 2


def test_after_a_day_a_key_is_new(api: Api, client: Client, opening: Opening) -> None:
    client.post("/v1/incidents", opening(), Idempotency_Key="k")
    with api.services.ledger.read() as conn:
        conn.execute("UPDATE idempotency SET created_at = now() - interval '24 hours 1 second'")

    again = client.post("/v1/incidents", opening(title="Another", force=True), Idempotency_Key="k")

    assert again.status == 201
    assert api.count("incident") == 2


def test_a_refused_call_is_not_remembered(api: Api, client: Client, opening: Opening) -> None:
    assert client.post("/v1/incidents", opening(severity="x"), Idempotency_Key="k").status == 422
    assert (
        client.post("/v1/incidents", opening({"audiences": ["x"]}), Idempotency_Key="k").status
        == 422
    )
    first = client.post("/v1/incidents", opening(), Idempotency_Key="k")
    assert first.status == 201

    similar = client.post("/v1/incidents", opening(), Idempotency_Key="l")
    assert similar.status == 409
    forced = client.post("/v1/incidents", opening(force=True), Idempotency_Key="l")
    assert forced.status == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9", "tab\tin"])
def test_a_key_of_another_form_is_refused(
    api: Api, client: Client, opening: Opening, key: str
) -> None:
    found = client.post("/v1/incidents", opening(), Idempotency_Key=key)

    assert found.status == 400
    assert found.fields == {"Idempotency-Key"}
    assert api.count("incident") == 0


def test_the_longest_key_is_good(client: Client, opening: Opening) -> None:
    assert client.post("/v1/incidents", opening(), Idempotency_Key="~" * 255).status == 201


def test_a_call_while_the_first_is_running_comes_back_later(
    api: Api, client: Client, opening: Opening
) -> None:
    """Another's lock on the incident's numbers holds the first call inside its transaction."""
    url = api.services.ledger.database_url
    answers = []
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE incident IN EXCLUSIVE MODE")

        def call() -> None:
            answers.append(client.post("/v1/incidents", opening(), Idempotency_Key="k"))

        first = threading.Thread(target=call)
        first.start()
        with psycopg.connect(url, autocommit=True) as watcher:
            waits = "SELECT FROM pg_locks WHERE relation = 'incident'::regclass AND NOT granted"
            while not watcher.execute(waits).fetchall():
                assert first.is_alive()
        second = client.post("/v1/incidents", opening(), Idempotency_Key="k")
        holder.rollback()
    first.join()

    assert second.status == 409
    assert second.json["type"] == "/problems/idempotency-still-running"
    assert second.headers["retry-after"] == "1"
    assert [answer.status for answer in answers] == [201]
    assert api.count("incident") == 1

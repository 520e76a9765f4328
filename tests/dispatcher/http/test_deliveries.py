"""A person settles a delivery whose outcome nobody else can tell."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from dispatcher.http.app import create_app
from dispatcher.ledger import progress
from tests.dispatcher.http.client import Client, Reply, serving
from tests.dispatcher.http.conftest import Api
from tests.dispatcher.test_engine import Desk, made


@pytest.fixture
def doubt(api: Api) -> Desk:
    """An update to five people, of whom the first two are in doubt."""
    desk = made(api.services.ledger, api.services.sealer, people=5)
    desk.sql(
        "UPDATE delivery SET state = 'unknown', reason = 'timeout', attempts = 1,"
        " next_attempt_at = NULL WHERE seq < 2"
    )
    desk.sql("UPDATE batch SET unknown = 2, pending = 3")
    return desk


def keys(desk: Desk) -> list[str]:
    return [row[0] for row in desk.sql("SELECT id::text FROM delivery ORDER BY seq")]


def settle(client: Client, key: str, **body: Any) -> Reply:
    return client.post(f"/v1/deliveries/{key}/settle", {"reason": "asked the provider", **body})


def counters(desk: Desk) -> tuple[Any, ...]:
    return desk.sql("SELECT pending, accepted, failed, unknown FROM batch")[0]


def test_settled_as_taken_with_and_without_the_providers_id(client: Client, doubt: Desk) -> None:
    first, second, *_ = keys(doubt)
    found = settle(client, first, state="accepted", ref="SM1")
    assert (found.status, found.json["state"], found.json["ref"]) == (200, "accepted", "SM1")
    assert settle(client, second, state="accepted").json["ref"] == f"settled:{second}"
    assert counters(doubt) == (3, 2, 0, 0)
    assert doubt.imbalances() == []
    assert doubt.sql("SELECT count(*) FROM attempt WHERE outcome = 'accepted' AND late") == [(2,)]


def test_settled_as_not_taken_is_in_the_timeline(api: Api, client: Client, doubt: Desk) -> None:
    assert settle(client, keys(doubt)[0], state="failed").status == 200
    assert counters(doubt) == (3, 0, 1, 1)
    assert doubt.sql("SELECT reason FROM delivery WHERE seq = 0") == [("settled",)]
    act, detail = doubt.sql("SELECT act, detail FROM audit ORDER BY id DESC LIMIT 1")[0]
    assert act == "deliveries.settle"
    assert detail == {
        "delivery": keys(doubt)[0],
        "state": "failed",
        "reason": "asked the provider",
    }


@pytest.fixture
def naming(api: Api) -> Iterator[tuple[Client, list[Any]]]:
    """A client of an app whose naming of work is only noted."""
    named: list[Any] = []

    class Noting:
        def enqueue(self, task: str, id: Any, *, queue: str) -> bool:
            named.append((task, id, queue))
            return True

    services: Any = dataclasses.replace(api.services, broker=Noting())  # type: ignore[arg-type]
    with serving(create_app(services)) as port:
        yield Client(port, api.key()), named


def test_sent_again_on_purpose(naming: tuple[Client, list[Any]], doubt: Desk) -> None:
    client, named = naming
    doubt.sql("UPDATE batch SET due_at = NULL, pending = 0, skipped = 3, open = false")
    doubt.sql("UPDATE delivery SET state = 'skipped' WHERE seq > 1")
    assert settle(client, keys(doubt)[0], resend=True).json["state"] == "pending"
    assert doubt.sql("SELECT pending, unknown, open, due_at <= now() FROM batch") == [
        (1, 1, True, True)
    ]
    assert named == [("send", doubt.batch, "bulk")]
    assert doubt.lease() is not None


def test_what_is_stopped_or_past_its_time_does_not_go_again(client: Client, doubt: Desk) -> None:
    key = keys(doubt)[0]
    doubt.sql("UPDATE incident_update SET expires_at = now() - interval '1 second'")
    assert settle(client, key, resend=True).json["type"] == "/problems/expired"
    doubt.sql("UPDATE release SET state = 'stopped'")
    found = settle(client, key, resend=True)
    assert (found.status, found.json["type"]) == (409, "/problems/not-released")
    assert counters(doubt) == (3, 0, 0, 2)
    assert settle(client, key, state="failed").status == 200


def test_only_what_is_in_doubt_and_only_once(client: Client, doubt: Desk) -> None:
    first, second, third, *_ = keys(doubt)
    assert settle(client, third, state="accepted").status == 409
    assert settle(client, first, state="accepted", ref="SM1").status == 200
    again = settle(client, first, state="failed")
    assert (again.status, again.json["type"]) == (409, "/problems/not-unknown")
    taken = settle(client, second, state="accepted", ref="SM1")
    assert (taken.status, taken.json["type"]) == (409, "/problems/ref-taken")
    assert counters(doubt) == (3, 1, 0, 1)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"state": "accepted", "resend": True},
        {"state": "pending"},
        {"state": "failed", "ref": "SM1"},
        {"state": "failed", "reason": ""},
        {"resend": False},
    ],
)
def test_a_wish_is_one_wish_with_a_reason(client: Client, doubt: Desk, body: Any) -> None:
    assert settle(client, keys(doubt)[0], **body).status == 422
    assert counters(doubt) == (3, 0, 0, 2)


def test_unknown_ids_are_not_found(client: Client, doubt: Desk) -> None:
    for key in ("x", "018f0000-0000-7000-8000-000000000000"):
        assert settle(client, key, state="failed").status == 404


def test_a_repeated_call_is_one_act(client: Client, doubt: Desk) -> None:
    path = f"/v1/deliveries/{keys(doubt)[0]}/settle"
    body = {"state": "failed", "reason": "asked"}
    first = client.post(path, body, Idempotency_Key="k")
    assert client.post(path, body, Idempotency_Key="k").body == first.body
    with doubt.ledger.read() as conn:
        assert progress.imbalances(conn, doubt.update) == []

"""The in-app inbox: a token for one person, what came, what comes, and the page that shows it."""

import uuid

import pytest

from channels.contract import InboxItem
from dispatcher.ledger.inbox import LedgerInbox
from tests.dispatcher.http.client import Client
from tests.dispatcher.http.conftest import Api

HEADER = "id,name,locale,segment,region,services,tags,phone,email,fcm_token,inbox\n"
PEOPLE = (
    HEADER
    + "r1,A,en,consumer,US,,,,,,app-1\nr2,B,en,consumer,US,,,,,,app-2\nr3,C,en,consumer,US,,,,,,\n"
)


def put(api: Api, inbox: str, title: str) -> None:
    item = InboxItem(key=str(uuid.uuid4()), inbox=inbox, title=title, body="Body", thread="t")
    LedgerInbox(api.services.ledger, api.services.sealer).put([item])


@pytest.fixture
def token(client: Client) -> str:
    """A token for r1."""
    assert (
        client.send(
            "POST", "/v1/recipients/import", PEOPLE.encode(), Content_Type="text/csv"
        ).status
        == 200
    )
    issued = client.post("/v1/inbox/tokens", {"recipient": "r1"})
    assert issued.status == 201
    return str(issued.json["token"])


def test_a_token_opens_one_inbox(api: Api, token: str) -> None:
    for title in ("one", "two", "three"):
        put(api, "app-1", title)
    put(api, "app-2", "another's")
    reader = Client(api.port)

    page = reader.get(f"/v1/inbox?token={token}&limit=2")
    assert [message["title"] for message in page.json["messages"]] == ["one", "two"]
    assert page.headers["access-control-allow-origin"] == "*"
    assert page.headers["cache-control"] == "no-store"
    rest = reader.get(f"/v1/inbox?token={token}&after={page.json['next']}").json
    assert [message["title"] for message in rest["messages"]] == ["three"]
    assert rest["next"] is None


def test_messages_are_replayed_and_then_come_live(api: Api, token: str) -> None:
    put(api, "app-1", "one")
    put(api, "app-1", "two")
    reader = Client(api.port)
    with reader.stream(f"/v1/inbox/events?token={token}") as events:
        live = iter(events)
        one, two = next(live), next(live)
        put(api, "app-2", "another's")
        put(api, "app-1", "three")
        three = next(live)

    assert [event.json["title"] for event in (one, two, three)] == ["one", "two", "three"]
    with reader.stream(f"/v1/inbox/events?token={token}", Last_Event_ID=one.id) as events:
        assert [next(iter(events)).id for _ in range(2)] == [two.id, three.id]


def test_nothing_comes_once_a_token_is_over(api: Api, token: str) -> None:
    put(api, "app-1", "one")
    with Client(api.port).stream(f"/v1/inbox/events?token={token}") as events:
        live = iter(events)
        assert next(live).json["title"] == "one"
        with api.services.ledger.read() as conn:
            conn.execute("UPDATE inbox_token SET expires_at = now()")
        put(api, "app-1", "two")
        assert list(live) == []


@pytest.mark.parametrize("path", ["/v1/inbox", "/v1/inbox/events"])
def test_an_unknown_token_opens_nothing(api: Api, client: Client, path: str) -> None:
    found = client.get(f"{path}?token=Zyxwvu")

    assert found.status == 401
    assert b"Zyxwvu" not in found.body
    assert client.get(path).fields == {"token"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"recipient": "nobody"}, 404),
        ({"recipient": "r3"}, 404),
        ({"recipient": "r1", "seconds": 3_601}, 422),
        ({"recipient": "r1", "seconds": 0}, 422),
        ({"recipient": "r\u0000"}, 404),
        ({}, 422),
    ],
)
def test_tokens_are_for_those_with_an_inbox_and_an_hour(
    api: Api, client: Client, token: str, body: dict[str, object], status: int
) -> None:
    assert client.post("/v1/inbox/tokens", body).status == status
    assert api.count("inbox_token") == 1


def test_the_page_and_its_script_load_nothing_from_elsewhere(api: Api, token: str) -> None:
    reader = Client(api.port)
    page = reader.get(f"/inbox?token={token}")
    script = reader.get("/inbox.js")

    assert (page.status, script.status) == (200, 200)
    assert token.encode() not in page.body
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert b"https://" not in page.body and b"http://" not in page.body
    assert script.headers["content-type"].startswith("text/javascript")
    assert b"innerHTML" not in script.body

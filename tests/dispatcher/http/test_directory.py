"""Recipients and suppressions over HTTP: a stream in, line errors out, no address ever shown."""

import threading
from collections.abc import Iterator

import pytest

from dispatcher.ledger.recipients import importing
from tests.dispatcher.http.client import Client
from tests.dispatcher.http.conftest import Api

HEADER = b"id,name,locale,segment,region,services,tags,phone,email,fcm_token,inbox\n"
GOOD = b"r1,Zyxwvu Smith,en,consumer,US-TX,voice;sms,vip,+12025550123,zyxwvu@example.org,,app-1\n"
IMPORT = "/v1/recipients/import"
SECRETS = (b"Zyxwvu", b"zyxwvu", b"2025550123")


def take(client: Client, lines: bytes, query: str = "") -> dict[str, object]:
    found = client.send("POST", IMPORT + query, HEADER + lines, Content_Type="text/csv")
    assert found.status == 200, found.body
    return dict(found.json)


def test_good_lines_are_kept_and_wrong_ones_named_without_their_values(client: Client) -> None:
    wrong = b"r2,Zyxwvu,xx-QQ,consumer,US,voice,,+1Zyxwvu,zyxwvu at example.org,,\nr3,Zyxwvu\n"

    took = client.send("POST", IMPORT, HEADER + GOOD + wrong, Content_Type="text/csv")

    assert (took.status, took.json["added"], took.json["refused"]) == (200, 1, 2)
    assert {(e["line"], e["column"]) for e in took.json["errors"]} >= {(3, "locale"), (4, "")}
    assert not any(secret in took.body for secret in SECRETS)


def test_the_same_file_again_changes_nothing_and_replace_removes(api: Api, client: Client) -> None:
    other = GOOD.replace(b"r1", b"r2").replace(b"0123", b"0124").replace(b"zyx", b"xyz")
    assert take(client, GOOD + other)["added"] == 2
    assert take(client, GOOD + other)["unchanged"] == 2
    assert take(client, GOOD)["removed"] == 0

    assert take(client, GOOD, "?mode=replace")["removed"] == 1
    assert client.get("/v1/recipients/r2").status == 404
    assert api.count("recipient") == 1


def test_ndjson_in_pieces_of_any_size(client: Client) -> None:
    line = (
        b'{"id":"r1","name":"Zyxwvu","locale":"en","segment":"consumer","region":"US",'
        b'"services":["voice"],"phone":["+12025550123"]}\n'
    )
    pieces = (line[at : at + 7] for at in range(0, len(line), 7))

    took = client.send("POST", IMPORT, pieces, Content_Type="application/x-ndjson; charset=utf-8")

    assert (took.status, took.json["added"], took.json["errors"]) == (200, 1, [])


@pytest.mark.parametrize(
    "content_type", ["application/json", "", "text/csv; charset=latin-1", "multipart/form-data"]
)
def test_another_content_type_is_refused(api: Api, client: Client, content_type: str) -> None:
    found = client.send("POST", IMPORT, HEADER + GOOD, Content_Type=content_type)

    assert found.status == 415
    assert api.count("recipient") == 0


def test_a_wrong_header_or_mode_takes_nothing(api: Api, client: Client) -> None:
    found = client.send("POST", IMPORT, b"id,Zyxwvu\n" + GOOD, Content_Type="text/csv")
    assert found.status == 422
    assert {"phone", "email"} <= found.fields
    assert {error["line"] for error in found.json["errors"]} == {1}
    assert not any(secret in found.body for secret in SECRETS)

    mode = client.send("POST", IMPORT + "?mode=Zyxwvu", HEADER + GOOD, Content_Type="text/csv")
    assert (mode.status, mode.fields) == (422, {"mode"})
    assert api.count("recipient") == 0


def test_one_import_runs_at_a_time(api: Api, client: Client) -> None:
    with importing(api.services.ledger):
        found = client.send("POST", IMPORT, HEADER + GOOD, Content_Type="text/csv")

    assert found.status == 409
    assert found.json["type"] == "/problems/import-running"
    assert found.headers["retry-after"] == "5"


def test_other_calls_are_answered_while_a_slow_import_runs(api: Api, client: Client) -> None:
    go_on = threading.Event()
    answers = []

    def slowly() -> Iterator[bytes]:
        yield HEADER
        assert go_on.wait(10)
        yield GOOD

    def call() -> None:
        answers.append(client.send("POST", IMPORT, slowly(), Content_Type="text/csv"))

    sender = threading.Thread(target=call)
    sender.start()
    assert client.get("/v1/incidents").status == 200
    go_on.set()
    sender.join()
    assert answers[0].json["added"] == 1


def test_one_recipient_is_shown_changed_and_removed(api: Api, client: Client) -> None:
    take(client, GOOD)
    shown = client.get("/v1/recipients/r1")
    assert shown.json["id"] == "r1"
    assert set(shown.json["services"]) == {"voice", "sms"}
    assert {contact["kind"] for contact in shown.json["contacts"]} == {"phone", "email", "inbox"}
    assert not any(secret in shown.body for secret in SECRETS)

    changed = client.send(
        "PATCH",
        "/v1/recipients/r1",
        b'{"locale": "es", "phone": [], "name": "Zyxwvu Jones"}',
        Content_Type="application/json",
    )
    assert (changed.status, changed.json["locale"]) == (200, "es")
    assert {contact["kind"] for contact in changed.json["contacts"]} == {"email", "inbox"}

    assert client.send("DELETE", "/v1/recipients/r1").status == 204
    assert client.send("DELETE", "/v1/recipients/r1").status == 404
    assert client.get("/v1/recipients/r1").status == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"phone": ["Zyxwvu"]}', "phone"),
        (b'{"locale": "Zyxwvu"}', "locale"),
        (b'{"segment": "Zyxwvu"}', "segment"),
        (b'{"services": ["Zyxwvu"]}', "services"),
        (b'{"region": "Zyxwvu"}', "region"),
        (b'{"name": 7}', "name"),
        (b'{"colour": "Zyxwvu"}', "colour"),
    ],
)
def test_a_wrong_change_names_its_column(client: Client, body: bytes, field: str) -> None:
    take(client, GOOD)

    found = client.send("PATCH", "/v1/recipients/r1", body, Content_Type="application/json")

    assert (found.status, found.fields) == (422, {field})
    assert not any(secret in found.body for secret in SECRETS)


def test_addresses_are_suppressed_listed_and_lifted(api: Api, client: Client) -> None:
    body = {"kind": "phone", "address": "+1 (202) 555-0123", "reason": "complaint"}
    added = client.post("/v1/suppressions", body, Idempotency_Key="k")
    assert (added.status, added.json["added"]) == (201, True)
    assert client.post("/v1/suppressions", body, Idempotency_Key="k").body == added.body
    assert client.post("/v1/suppressions", body).json["added"] is False
    client.post("/v1/suppressions", {"kind": "email", "address": "zyxwvu@example.org"})

    first = client.get("/v1/suppressions?limit=1").json
    assert [row["reason"] for row in first["suppressions"]] == ["complaint"]
    rest = client.get(f"/v1/suppressions?cursor={first['next']}")
    assert [row["kind"] for row in rest.json["suppressions"]] == ["email"]
    assert not any(secret in rest.body for secret in SECRETS)

    gone = b'{"kind": "phone", "address": "+12025550123"}'
    for status in (204, 404):
        lifted = client.send("DELETE", "/v1/suppressions", gone, Content_Type="application/json")
        assert lifted.status == status
    assert api.count("suppression") == 1


def test_a_wrong_address_is_not_repeated(client: Client) -> None:
    for body, field in (
        ({"kind": "phone", "address": "Zyxwvu"}, "address"),
        ({"kind": "Zyxwvu", "address": "+12025550123"}, "kind"),
    ):
        found = client.post("/v1/suppressions", body)
        assert (found.status, found.fields) == (422, {field})
        assert not any(secret in found.body for secret in SECRETS)

"""Incidents over HTTP: opened, updated, reopened, listed and shown, each act once."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.dispatcher.http.client import Client
from tests.dispatcher.http.conftest import Api

Opening = Callable[..., dict[str, Any]]


def test_an_incident_is_opened_submitted_and_held(
    api: Api, client: Client, opening: Opening
) -> None:
    made = client.post("/v1/incidents", opening())

    assert made.status == 201
    assert made.json["reference"] == "INC-0001"
    assert made.headers["location"] == f"/v1/incidents/{made.json['id']}"
    update = made.json["update"]
    assert update["released"] == []
    assert set(update["held"]) == set(api.services.packs.audiences)
    assert len(update["content_hash"]) == 64
    assert api.count("message") > 0
    assert api.noted.planned == []


def test_release_now_lets_go_what_the_rules_preapprove(
    api: Api, client: Client, opening: Opening
) -> None:
    made = client.post("/v1/incidents", opening(release="now")).json
    update = made["update"]

    free = {
        name
        for name, audience in api.services.packs.audiences.items()
        if "investigating" in audience.preapproved
    }
    assert set(update["released"]) == free
    assert set(update["held"]) == set(api.services.packs.audiences) - free
    assert api.noted.planned == [update["id"]]


def test_a_draft_has_no_content_yet(client: Client, opening: Opening) -> None:
    made = client.post("/v1/incidents", opening(release="draft")).json

    assert made["update"]["content_hash"] is None


def test_a_similar_open_incident_is_named_until_forced(client: Client, opening: Opening) -> None:
    first = client.post("/v1/incidents", opening()).json

    again = client.post("/v1/incidents", opening())
    assert again.status == 409
    assert again.headers["content-type"] == "application/problem+json"
    assert again.json["type"] == "/problems/similar-open"
    assert again.json["conflict"] == {"id": first["id"], "reference": "INC-0001"}

    assert client.post("/v1/incidents", opening(force=True)).status == 201


def test_updates_facts_and_timeline_are_shown(client: Client, opening: Opening) -> None:
    made = client.post("/v1/incidents", opening()).json
    added = client.post(
        f"/v1/incidents/{made['id']}/updates",
        {
            "release": "draft",
            "update": {
                "phase": "identified",
                "facts": [
                    {
                        "kind": "cause",
                        "value": {"code": "network_change"},
                        "confidence": "believed",
                        "source": "noc",
                        "known_at": "2026-01-02T09:30:00+00:00",
                    }
                ],
            },
        },
    )
    assert added.status == 201

    for name in (made["id"], made["id"].upper(), "INC-0001", "inc-1"):
        whole = client.get(f"/v1/incidents/{name}").json
        assert whole["id"] == made["id"]
    assert [update["phase"] for update in whole["updates"]] == ["investigating", "identified"]
    assert {row["state"] for row in whole["updates"][0]["audiences"]} == {"submitted"}
    assert {row["state"] for row in whole["updates"][1]["audiences"]} == {"draft"}
    assert [fact["stated"]["kind"] for fact in whole["facts"]] == [
        "started",
        "emergency_calls",
        "cause",
    ]
    assert whole["facts"][2]["update_id"] == added.json["update"]["id"]
    assert [act["act"] for act in whole["timeline"]] == [
        "incident.open",
        "update.create",
        "update.submit",
        "update.create",
    ]


def test_only_a_resolved_incident_is_reopened(api: Api, client: Client, opening: Opening) -> None:
    made = client.post("/v1/incidents", opening()).json
    early = client.post(f"/v1/incidents/{made['id']}/reopen")
    assert (early.status, early.json["type"]) == (409, "/problems/open")

    with api.services.ledger.read() as conn:
        conn.execute("UPDATE incident SET status = 'resolved', resolved_at = now()")
    assert client.get("/v1/incidents?status=resolved").json["incidents"][0]["id"] == made["id"]
    late = client.post(f"/v1/incidents/{made['id']}/updates", {"update": {"phase": "monitoring"}})
    assert (late.status, late.json["type"]) == (409, "/problems/resolved")

    reopened = client.post(f"/v1/incidents/{made['id']}/reopen", {})
    assert (reopened.status, reopened.json["status"]) == (200, "open")


def test_incidents_are_paged_newest_first(client: Client, opening: Opening) -> None:
    for _ in range(3):
        client.post("/v1/incidents", opening(release="draft", force=True))

    first = client.get("/v1/incidents?limit=2").json
    assert [found["reference"] for found in first["incidents"]] == ["INC-0003", "INC-0002"]
    rest = client.get(f"/v1/incidents?limit=2&cursor={first['next']}").json
    assert [found["reference"] for found in rest["incidents"]] == ["INC-0001"]
    assert rest["next"] is None


@pytest.mark.parametrize(
    "path",
    [
        "/v1/incidents/INC-0099",
        "/v1/incidents/INC-",
        "/v1/incidents/INC-%D9%A1",
        "/v1/incidents/%00",
        "/v1/incidents/nothing",
        "/v1/incidents/01890a5d-ac96-774b-bcce-b302099a8057",
        "/v1/updates/nothing/progress",
        "/v1/updates/01890a5d-ac96-774b-bcce-b302099a8057/progress",
        "/v1/updates/01890a5d-ac96-774b-bcce-b302099a8057/progress/events",
        "/v1/updates/01890a5d-ac96-774b-bcce-b302099a8057/deliveries",
        "/v1/recipients/nobody",
        "/v1/recipients/%00",
        "/v1/nothing",
    ],
)
def test_what_is_not_there_is_a_404(client: Client, path: str) -> None:
    found = client.get(path)

    assert found.status == 404
    assert found.headers["content-type"] == "application/problem+json"
    assert found.json["type"] == "/problems/not-found"


def test_a_wrong_method_names_the_right_one(client: Client) -> None:
    found = client.send("PUT", "/v1/incidents")

    assert found.status == 405
    assert found.json["type"] == "/problems/method-not-allowed"
    assert found.headers["allow"]


def test_a_preview_stores_nothing(api: Api, client: Client, opening: Opening) -> None:
    before = api.stored()
    seen = client.post("/v1/previews", opening())

    assert seen.status == 200
    assert api.stored() == before
    consumers = [m for m in seen.json["messages"] if m["audience"] == "consumers"]
    assert {m["channel"] for m in consumers} >= {"sms", "email", "push"}
    assert all(m["parts"] for m in consumers)
    assert set(seen.json["reach"]) == set(api.services.packs.audiences)

    made = client.post("/v1/incidents", opening(release="draft")).json
    further = client.post(
        "/v1/previews",
        {"incident_id": made["reference"], "update": {"phase": "identified"}},
    )
    assert further.status == 200, further.json


def test_a_preview_is_judged_like_the_call_itself(client: Client, opening: Opening) -> None:
    wrong = client.post("/v1/previews", opening({"audiences": ["nobody"]}))
    assert wrong.status == 422
    assert wrong.fields == {"update.audiences.0"}

    missing = client.post(
        "/v1/previews", {"incident_id": "INC-0404", "update": {"phase": "identified"}}
    )
    assert missing.status == 404

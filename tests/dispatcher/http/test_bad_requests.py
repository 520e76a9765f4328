"""Every wrong request: a problem that names field and reason, repeats nothing, stores nothing."""

from typing import Any

import pytest

from tests.dispatcher.http.client import Client
from tests.dispatcher.http.conftest import Api, opened_by

SOURCE = {"source": "noc", "known_at": "2026-01-02T09:00:00Z"}
CANARY = "Zyxwvu"
"""Stands in wrong values and may not come back in an answer."""


def facts(*given: dict[str, Any]) -> dict[str, Any]:
    return opened_by({"facts": list(given)})


def fact(kind: Any, value: Any, **more: Any) -> dict[str, Any]:
    return facts({"kind": kind, "value": value, **SOURCE, **more})


def without(name: str) -> dict[str, Any]:
    body = opened_by()
    del body[name]
    return body


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown phase": (opened_by({"phase": CANARY}), "update.phase", "must be one of: inv"),
    "no phase": (opened_by({"phase": None}), "update.phase", "must be"),
    "unknown severity": (opened_by(severity=CANARY), "severity", "must be one of: minor, major"),
    "unknown audience": (
        opened_by({"audiences": ["consumers", "nobody"]}),
        "update.audiences.1",
        "unknown audience; known: ",
    ),
    "malformed audience": (
        opened_by({"audiences": [CANARY]}),
        "update.audiences.0",
        "must be an audience's name",
    ),
    "audience named twice": (
        opened_by({"audiences": ["consumers", "consumers"]}),
        "update.audiences",
        "an audience is named twice",
    ),
    "no audience": (opened_by({"audiences": []}), "update.audiences", "at least 1"),
    "unknown service": (opened_by(services=["voice", "pigeons"]), "services.1", "unknown service"),
    "no service": (opened_by(services=[]), "services", "at least 1"),
    "malformed region": (opened_by(regions=[CANARY]), "regions.0", "must be a region code"),
    "unknown zone": (opened_by(zone=CANARY), "zone", "must be a time zone"),
    "unknown fact kind": (fact(CANARY, {}), "update.facts.0.kind", "must be one of: started,"),
    "no fact kind": (facts({"value": {}, **SOURCE}), "update.facts.0.kind", "is required"),
    "unknown cause": (
        fact("cause", {"code": CANARY}),
        "update.facts.0.value.code",
        "must be one of: network_change",
    ),
    "unknown basis": (
        fact("scope", {"count": 5, "basis": CANARY}),
        "update.facts.0.value.basis",
        "must be one of: measured, estimated, reported",
    ),
    "negative count": (
        fact("scope", {"count": -5, "basis": "measured"}),
        "update.facts.0.value.count",
        "must be at least 0",
    ),
    "count in words": (
        fact("scope", {"count": CANARY, "basis": "measured"}),
        "update.facts.0.value.count",
        "must be a whole number",
    ),
    "more than all restored": (
        fact("restored", {"percent": 101}),
        "update.facts.0.value.percent",
        "must be at most 100",
    ),
    "unknown confidence": (
        fact("restored", {"percent": 1}, confidence=CANARY),
        "update.facts.0.confidence",
        "must be one of: confirmed",
    ),
    "fact for an unknown audience": (
        fact("restored", {"percent": 1}, audiences=["nobody"]),
        "update.facts.0.audiences",
        "unknown audience",
    ),
    "two facts of a kind": (
        facts(
            {"kind": "restored", "value": {"percent": 1}, **SOURCE},
            {"kind": "restored", "value": {"percent": 2}, **SOURCE},
        ),
        "update.facts",
        "two facts of kind restored",
    ),
    "start in the future": (opened_by(started_at="2098-01-01T00:00:00Z"), "started_at", "future"),
    "fact's start in the future": (
        fact("started", {"at": "2098-01-01T00:00:00Z"}),
        "update.facts.0.value.at",
        "start must not be in the future",
    ),
    "end in the future": (
        fact("ended", {"at": "2098-01-01T00:00:00Z"}),
        "update.facts.0.value.at",
        "end must not be in the future",
    ),
    "end before start": (
        fact("ended", {"at": "2026-01-02T08:44:59Z"}),
        "update.facts.0.value.at",
        "end must not be before the start",
    ),
    "known in the future": (
        fact("restored", {"percent": 1}, known_at="2098-01-01T00:00:00Z"),
        "update.facts.0.known_at",
        "must not be in the future",
    ),
    "window that ends before it begins": (
        fact("eta", {"at": "2098-01-02T00:00:00Z", "latest": "2098-01-01T00:00:00Z"}),
        "update.facts.0.value",
        "latest must not be before at",
    ),
    "naive start": (opened_by(started_at="2026-01-02T08:45:00"), "started_at", "with an offset"),
    "naive fact": (
        fact("started", {"at": "2026-01-02T08:45:00"}),
        "update.facts.0.value.at",
        "with an offset",
    ),
    "naive next update": (
        opened_by({"next_update_at": "2099-01-02T10:00:00"}),
        "update.next_update_at",
        "with an offset",
    ),
    "time in words": (opened_by(started_at=f"at {CANARY}"), "started_at", "must be a time"),
    "next update in the past": (
        opened_by({"next_update_at": "2026-01-02T10:00:00Z"}),
        "update.next_update_at",
        "must be in the future",
    ),
    "expired already": (
        opened_by({"expires_at": "2026-01-02T10:00:00Z"}),
        "update.expires_at",
        "must be in the future",
    ),
    "text over its slot": (
        opened_by({"texts": {"message": {"en": CANARY * 200}}}),
        "update.texts.message.en",
        "at most 1000 characters",
    ),
    "empty text": (
        opened_by({"texts": {"message": {"en": "  "}}}),
        "update.texts.message.en",
        "must not be empty",
    ),
    "unknown slot": (
        opened_by({"texts": {"motto": {"en": CANARY}}}),
        "update.texts.motto",
        "unknown slot; known: message",
    ),
    "slot's name with an address": (
        opened_by({"texts": {f"{CANARY}@example.org": {"en": "words"}}}),
        "update.texts.?",
        "must be a slot's name",
    ),
    "unknown language form": (
        opened_by({"texts": {"message": {"english": "words"}}}),
        "update.texts.message.english",
        "must be a language tag",
    ),
    "markup in a text": (
        opened_by({"texts": {"message": {"en": f"<b>{CANARY}</b>"}}}),
        "update.texts.message.en",
        "markup and template marks are not allowed",
    ),
    "template mark in a text": (
        opened_by({"texts": {"message": {"en": f"{{{{ {CANARY} }}}}"}}}),
        "update.texts.message.en",
        "markup and template marks are not allowed",
    ),
    "control character in a text": (
        opened_by({"texts": {"message": {"en": f"{CANARY}\u0007"}}}),
        "update.texts.message.en",
        "control characters",
    ),
    "direction override in a text": (
        opened_by({"texts": {"message": {"en": f"{CANARY}\u202e"}}}),
        "update.texts.message.en",
        "hidden or direction-changing",
    ),
    "control character in the title": (
        opened_by(title=f"{CANARY}\u0000"),
        "title",
        "control characters",
    ),
    "control character in a source": (
        facts({"kind": "apology", "source": "a\u001b", "known_at": "2026-01-02T09:00:00Z"}),
        "update.facts.0.source",
        "control characters",
    ),
    "lone surrogate": (opened_by(title="\ud800"), "title", "must be text in UTF-8"),
    "title too long": (opened_by(title=CANARY * 50), "title", "at most 200 characters"),
    "no title": (without("title"), "title", "is required"),
    "title that is no text": (opened_by(title=[CANARY]), "title", "must be text"),
    "unknown field": (opened_by(colour=CANARY), "colour", "is not a known field"),
    "unknown field in the update": (
        opened_by({"colour": CANARY}),
        "update.colour",
        "is not a known field",
    ),
    "unknown field in a fact": (
        fact("restored", {"percent": 1, "colour": CANARY}),
        "update.facts.0.value.colour",
        "is not a known field",
    ),
    "field named like a number": (opened_by() | {"+15551234567": 1}, "?", "is not a known field"),
    "unknown release": (opened_by(release=CANARY), "release", "must be one of: now, on_approval"),
    "withdrawal in a first update": (
        opened_by({"withdraws": ["01890a5d-ac96-774b-bcce-b302099a8057"]}),
        "update.withdraws",
        "a new incident has no facts to withdraw",
    ),
    "correction of nothing": (
        opened_by({"phase": "correction"}),
        "update.withdraws",
        "must withdraw at least one fact",
    ),
    "update that is no object": (opened_by() | {"update": [CANARY]}, "update", "be an object"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("path", ["/v1/incidents", "/v1/previews"])
def test_a_wrong_incident(api: Api, client: Client, name: str, path: str) -> None:
    body, field, reason = WRONG[name]
    before = api.stored()

    found = client.post(path, body, Idempotency_Key="one")

    assert found.status == 422
    assert found.headers["content-type"] == "application/problem+json"
    assert found.json["type"] == "/problems/invalid"
    told = {error["field"]: error["reason"] for error in found.json["errors"]}
    assert list(told) == [field]
    assert reason in told[field]
    assert CANARY.encode() not in found.body
    assert b"5551234567" not in found.body
    assert api.stored() == before
    assert api.noted.planned == []


def test_a_wrong_update_of_an_incident(api: Api, client: Client) -> None:
    made = client.post("/v1/incidents", opened_by()).json
    before = api.stored()
    path = f"/v1/incidents/{made['id']}/updates"

    unknown = {"phase": "identified", "withdraws": ["01890a5d-ac96-774b-bcce-b302099a8057"]}
    for body, field in (
        ({"update": unknown}, "update.withdraws"),
        ({"update": {"phase": "identified", "audiences": ["nobody"]}}, "update.audiences.0"),
        ({"update": {"phase": "identified"}, "force": True}, "force"),
        ({}, "update"),
        ([], ""),
    ):
        found = client.post(path, body)
        assert (found.status, found.fields) == (422, {field})
    assert api.stored() == before


@pytest.mark.parametrize(
    ("update", "field", "code"),
    [
        ({"texts": {"message": {"en": "Words."}}}, "update.texts.message", "text_missing"),
        ({"facts": []}, "update.facts", "fact_missing"),
        (
            {"texts": {"message": dict.fromkeys(("en", "es", "ru", "ar"), "word " * 199)}},
            "update",
            "too_long",
        ),
    ],
    ids=["language without words", "fact that must be told", "message too long"],
)
def test_a_message_that_cannot_be_sent_refuses_the_submission(
    api: Api, client: Client, update: dict[str, Any], field: str, code: str
) -> None:
    before = api.stored()

    found = client.post("/v1/incidents", opened_by(update))

    assert found.status == 422
    assert found.json["type"] == "/problems/refused"
    assert {problem["code"] for problem in found.json["problems"]} == {code}
    assert found.fields == {field}
    assert api.stored() == before


@pytest.mark.parametrize(
    "body",
    [b'{"title": Zyxwvu}', b"", b"\xff\xfe", b'{"title": "Zyxwvu', b"[" * 100_000],
    ids=["word", "empty", "not utf-8", "broken off", "deep"],
)
def test_what_is_not_json(api: Api, client: Client, body: bytes) -> None:
    before = api.stored()
    found = client.send("POST", "/v1/incidents", body, Content_Type="application/json")

    assert found.status == (400 if body else 422)
    assert found.headers["content-type"] == "application/problem+json"
    assert b"Zyxwvu" not in found.body
    assert api.stored() == before


def test_broken_json_is_told_by_position(client: Client) -> None:
    found = client.send("POST", "/v1/incidents", b'{"a": x}', Content_Type="application/json")

    assert found.json["type"] == "/problems/invalid-json"
    assert "position 6" in found.json["detail"]


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/xml"]
)
def test_a_wrong_content_type(api: Api, client: Client, content_type: str) -> None:
    found = client.send("POST", "/v1/incidents", b'{"title": "x"}', Content_Type=content_type)

    assert found.status == 415
    assert found.json["type"] == "/problems/wrong-content-type"
    assert api.count("incident") == 0


def test_a_body_over_the_limit_declared_or_not(api: Api, client: Client) -> None:
    large = b'{"title": "' + b"x" * 1_000_000 + b'"}'
    declared = client.send("POST", "/v1/incidents", large, Content_Type="application/json")
    pieces = (large[at : at + 100_000] for at in range(0, len(large), 100_000))
    chunked = client.send("POST", "/v1/incidents", pieces, Content_Type="application/json")

    for found in (declared, chunked):
        assert found.status == 413
        assert found.json["type"] == "/problems/too-large"
    assert api.count("incident") == 0


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/incidents?status=Zyxwvu", "status"),
        ("/v1/incidents?limit=0", "limit"),
        ("/v1/incidents?cursor=Zyxwvu", "cursor"),
        ("/v1/updates/01890a5d-ac96-774b-bcce-b302099a8057/deliveries?state=Zyxwvu", "state"),
        ("/v1/updates/01890a5d-ac96-774b-bcce-b302099a8057/deliveries?channel=Zyxwvu", "channel"),
        ("/v1/updates/01890a5d-ac96-774b-bcce-b302099a8057/deliveries?told=Zyxwvu", "told"),
        ("/v1/updates/01890a5d-ac96-774b-bcce-b302099a8057/deliveries?cursor=Zyxwvu", "cursor"),
        ("/v1/updates/01890a5d-ac96-774b-bcce-b302099a8057/deliveries?audience=nobody", "audience"),
        ("/v1/suppressions?cursor=-1", "cursor"),
    ],
)
def test_a_wrong_query(client: Client, path: str, field: str) -> None:
    found = client.get(path)

    assert (found.status, found.fields) == (422, {field})
    assert b"Zyxwvu" not in found.body

"""What was previewed is what was sent: each audience, channel and locale, byte for byte."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from dispatcher.demo.people import Person
from tests.stories.everyone import Key, everyone
from tests.stories.house import House, at, fact


@pytest.fixture
def everybody(house: House) -> Mapping[Key, Sequence[Person]]:
    """A directory in which each audience is heard on each of its channels in each locale."""
    wanted = everyone(house.services.packs)
    house.people(each for those in wanted.values() for each in those)
    return wanted


def test_previewed_text_is_the_text_that_arrived(
    house: House, everybody: Mapping[Key, Sequence[Person]]
) -> None:
    """Preview, stored message and what simulators and inboxes hold are the same bytes."""
    incident = house.operator.post("/v1/incidents", house.opening(release="draft"))["id"]
    said: dict[str, Any] = {
        "phase": "identified",
        "next_update_at": at(3_600),
        "facts": [
            fact("cause", {"code": "software"}, confidence="believed"),
            fact("workaround", {"codes": ["wifi_calling", "landline"]}),
            fact("emergency_calls", {"status": "limited", "use": ["wifi_calling"]}),
        ],
    }
    body = {"update": said, "release": "now"}
    preview = house.operator.post("/v1/previews", {"incident_id": incident, **body})
    shown = {(m["audience"], m["channel"], m["locale"]): m["parts"] for m in preview["messages"]}
    update = house.operator.post(f"/v1/incidents/{incident}/updates", body)["update"]
    assert update["content_hash"] == preview["content_hash"]
    if update["held"]:
        named = {"content_hash": update["content_hash"], "audiences": update["held"]}
        house.approver.post(f"/v1/updates/{update['id']}/approve", named)
    people = sum(len(those) for those in everybody.values())
    numbers = house.when(
        update["id"], lambda now: now["complete"] and now["by_state"]["accepted"] > people
    )
    assert numbers["by_state"]["accepted"] == people + 1  # the public account

    stored = house.sql(
        "SELECT audience, channel, locale, parts FROM message WHERE update_id = %s", update["id"]
    )
    assert {(a, c, locale): parts for a, c, locale, parts in stored} == shown
    assert set(shown) >= set(everybody)
    assert {channel for _, channel, _ in shown} == {"sms", "email", "social", "push"}

    held = {e["address"]: e["content"] for e in house.sandbox.outbox() if e["provider"] != "x"}
    compared = 0
    for key, those in everybody.items():
        for each in those:
            expected = {n: t.replace("[[name]]", each.name) for n, t in shown[key].items()}
            if each.inbox:
                message = house.inbox(each.id)[0]
                assert {"title": message["title"], "body": message["body"]} == expected
            else:
                address = each.phone or each.email or each.fcm_token
                assert held.pop(address) == expected, key
            compared += 1
    assert held == {}
    assert compared == people
    post = house.sandbox.outbox("x")[0]["content"]
    assert post == shown["public", "social", "en"]
    assert any("[[name]]" in text for parts in shown.values() for text in parts.values())

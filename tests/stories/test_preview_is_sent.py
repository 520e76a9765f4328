"""What was previewed is what was sent: each audience, channel and locale, byte for byte."""

from collections.abc import Mapping
from typing import Any

import pytest

from dispatcher.demo.people import Person
from tests.stories.house import House, at, fact, person, phone

Key = tuple[str, str, str]
KINDS = {"phone": "sms", "email": "email", "fcm_token": "push", "inbox": "push"}


@pytest.fixture
def everyone(house: House) -> dict[Key, list[Person]]:
    """A directory in which each audience is heard on each of its channels in each locale."""
    wanted: dict[Key, list[Person]] = {}
    number = 0
    for audience in house.services.packs.audiences.values():
        for segment in sorted(audience.segments)[:1]:
            channels = {step.channel for step in audience.channels}
            for locale in audience.locales:
                for kind, channel in KINDS.items():
                    if channel not in channels or segment == "public":
                        continue
                    number += 1
                    one = person(number, segment, locale=locale, **{kind: _address(kind, number)})
                    wanted.setdefault((audience.name, channel, locale), []).append(one)
    house.people(each for those in wanted.values() for each in those)
    return wanted


def _address(kind: str, number: int) -> str:
    token = f"{number:022d}:APA91b" + "x" * 134
    ways = {"phone": phone(number), "email": f"r{number}@mail.example.com", "fcm_token": token}
    return ways.get(kind, f"app-{number}")


def test_previewed_text_is_the_text_that_arrived(
    house: House, everyone: Mapping[Key, list[Person]]
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
    people = sum(len(those) for those in everyone.values())
    numbers = house.when(
        update["id"], lambda now: now["complete"] and now["by_state"]["accepted"] > people
    )
    assert numbers["by_state"]["accepted"] == people + 1  # the public account

    stored = house.sql(
        "SELECT audience, channel, locale, parts FROM message WHERE update_id = %s", update["id"]
    )
    assert {(a, c, locale): parts for a, c, locale, parts in stored} == shown
    assert set(shown) >= set(everyone)
    assert {channel for _, channel, _ in shown} == {"sms", "email", "social", "push"}

    held = {e["address"]: e["content"] for e in house.sandbox.outbox() if e["provider"] != "x"}
    compared = 0
    for key, those in everyone.items():
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

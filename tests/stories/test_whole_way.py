"""An incident from the call that opens it to the outboxes: told, approved, updated, resolved."""

from collections import Counter

from dispatcher.demo.people import people
from tests.stories.house import HAVE_IT, PROVIDERS, House, at, fact, person, phone, until

CHANNELS = {"sms": ("twilio",), "email": ("sendgrid",), "social": ("x",), "push": ("fcm",)}


def test_everybody_is_told_on_four_channels(house: House) -> None:
    """Progress says what the simulators and the inboxes hold, and investors wait for a person."""
    house.people(people(400))
    opened = house.open()
    update = opened["update"]
    assert "investors" in update["held"]
    assert "consumers" in update["released"]
    released = house.complete(update["id"])
    assert house.rows(update["id"], audience="investors") == []

    body = {"content_hash": update["content_hash"], "audiences": update["held"]}
    refused = house.operator.http.post(f"/v1/updates/{update['id']}/approve", json=body)
    assert refused.status_code == 403
    house.approver.post(f"/v1/updates/{update['id']}/approve", body)
    whole = house.when(update["id"], lambda now: bool(now["complete"]) and _told(now, "investors"))

    assert whole["balanced"]
    assert whole["settled"]
    assert whole["planned"] > released["planned"]
    assert house.judged(update["id"]) == Counter(
        {state: count for state, count in whole["by_state"].items() if count}
    )
    rows = house.rows(update["id"])
    in_app = [r for r in rows if r["adapter"] == "inbox_push" and r["state"] in HAVE_IT]
    for channel, providers in CHANNELS.items():
        held = sum(house.sandbox.counts(provider)["messages"] for provider in providers)
        shown = len(in_app) if channel == "push" else 0
        assert whole["by_channel"][channel]["accepted"] == held + shown > 0
    assert {row["adapter"] for row in rows} >= {*PROVIDERS, "inbox_push"}
    assert all(house.inbox(row["recipient"])[0]["key"] == row["id"] for row in in_app[:5])


def test_the_urgent_lane_leaves_first(house: House) -> None:
    """Emergency services hold their message before the crowd does."""
    crowd = [person(n, phone=phone(n)) for n in range(3_000)]
    desks = [person(n, "emergency_service", phone=phone(n)) for n in range(9_000, 9_005)]
    house.people([*crowd, *desks])
    update = house.open("emergency-services", "consumers")["update"]["id"]
    house.complete(update)
    outbox = house.sandbox.outbox("twilio")
    urgent = {person.phone for person in desks}
    places = [place for place, entry in enumerate(outbox) if entry["address"] in urgent]
    assert len(outbox) == 3_005
    assert max(places) < 1_000


def test_update_supersedes_and_resolve_spares(house: House) -> None:
    """What is unsent of the older update gives way; who never heard of it gets no 'resolved'."""
    told = [person(n, phone=phone(n)) for n in range(20)]
    house.people(told)
    opened = house.open("consumers")
    first = opened["update"]["id"]
    house.complete(first)

    house.sandbox.fault("twilio", status=429, retry_after=30)
    second = house.add(
        opened["id"], "identified", "consumers", facts=[fact("cause", {"code": "software"})]
    )["update"]["id"]
    until(lambda: house.sandbox.struck() == 20)
    house.when(second, lambda now: now["by_state"]["pending"] == 20)
    house.sandbox.clear_faults()
    third = house.add(opened["id"], "monitoring", "consumers")["update"]["id"]
    assert house.complete(third)["by_state"]["accepted"] == 20
    assert house.complete(second)["by_state"]["superseded"] == 20

    late = [person(n, phone=phone(n)) for n in range(100, 107)]
    house.people(late)
    end = [fact("ended", {"at": at(-60)})]
    resolved = house.add(opened["id"], "resolved", "consumers", facts=end, next_update_at=None)[
        "update"
    ]["id"]
    numbers = house.complete(resolved)
    assert (numbers["by_state"]["accepted"], numbers["by_state"]["spared"]) == (20, 7)
    assert house.operator.get(f"/v1/incidents/{opened['id']}")["status"] == "resolved"
    judged = house.judged(first, second, third, resolved)
    assert judged == Counter(accepted=60, superseded=20, spared=7)
    assert house.sandbox.counts("twilio")["messages"] == 60


def _told(now: dict[str, dict[str, dict[str, int]]], audience: str) -> bool:
    return now["by_audience"].get(audience, {}).get("accepted", 0) > 0

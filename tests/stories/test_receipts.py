"""Providers call back, out of order, late, twice, falsely or not at all; the ledger ends as
the simulators know it."""

import itertools
import random
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dispatcher.demo.numbers import sandbox_only
from tests.stories.house import House, living, person, phone, until

PEOPLE = 3_000
ENDS = {"delivered": "delivered", "undelivered": "failed", "failed": "failed", "canceled": "failed"}
MAIL_ENDS = {"delivered": "delivered", "bounce": "failed", "blocked": "failed", "dropped": "failed"}


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A house that providers can call."""
    with callable_house(tmp_path_factory.mktemp("reached")) as house:
        yield house


@pytest.fixture
def house(reached: House) -> House:
    """The same, with nobody in its directory and nothing ever sent."""
    reached.sandbox.http.delete("/_sandbox/events")
    reached.empty()
    return reached


def callable_house(folder: Path, *, poll_after: float = 5.0) -> Any:
    port = _port()
    # A lease as long as in earnest: mail is given 30 s to be taken.
    url = f"http://127.0.0.1:{port}"
    return living(folder, port=port, public_url=url, poll_after=poll_after, lease=60.0)


def _port() -> int:
    """A free port below those that the system hands out by itself."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 50):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("no free port")


def events(house: House, provider: str, **rules: Any) -> None:
    answer = house.sandbox.http.put("/_sandbox/events", json={"provider": provider, **rules})
    assert answer.is_success, answer.text


def options(house: House, **options: float) -> None:
    answer = house.sandbox.http.put("/_sandbox/options", json=options)
    assert answer.is_success, answer.text


def told(house: House, provider: str, *, within: float = 90.0) -> dict[str, Any]:
    """What the simulator says of its callbacks, once all are said."""

    def look() -> dict[str, Any]:
        report: dict[str, Any] = house.sandbox.http.get("/_sandbox/events").json()[provider]
        return report if report["pending"] == 0 else {}

    report = until(look, within=within, what=f"the end of {provider}'s events")
    until(lambda: "waiting" not in results(house), within=within, what="everything worked off")
    return report


def ended(
    house: House, update: str, provider: str, ends: Mapping[str, str], *, within: float = 90.0
) -> Counter[str]:
    """The rows' states, once each is what the simulator knows of its message."""
    house.when(
        update,
        lambda now: bool(now["complete"]) and not now["by_state"]["accepted"],
        within=within,
    )
    rows = {row["ref"]: row["state"] for row in house.rows(update)}
    truth = {entry["ref"]: ends[entry["status"]] for entry in house.sandbox.outbox(provider)}
    assert rows == truth
    progress = house.progress(update)
    assert progress["balanced"]
    return Counter(truth.values())


def shuffled(house: House, people: int) -> dict[str, Any]:
    """SMS to `people`, three callbacks each: shuffled, 2 % lost, 1 % forged, some repeated.

    Returns the simulator's report. It may be run with as many as there are numbers.
    """
    options(house, twilio_sent_after=0.2, twilio_delivered_after=0.4)
    events(
        house,
        "twilio",
        delay=[0.0, 0.5],
        loss=0.02,
        forged=0.01,
        repeat=0.02,
        shuffle=True,
        seed=7,
        outcomes={"undelivered": 0.05, "failed": 0.02},
    )
    numbers = itertools.islice(sandbox_only(), people)
    house.people(person(n, phone=number) for n, number in enumerate(numbers))
    update = house.open("consumers")["update"]["id"]
    # The end is looked at when nothing more can come, true or false, that would change it.
    within = 90 + people / 100
    house.complete(update, within=within)
    report = told(house, "twilio", within=within)
    counts = ended(house, update, "twilio", ENDS, within=within)
    assert counts.total() == people
    assert min(counts["delivered"], counts["failed"]) > 0
    return report


def results(house: House) -> dict[str, int]:
    found = house.sql("SELECT coalesce(result, 'waiting'), count(*) FROM receipt_event GROUP BY 1")
    return {row[0]: row[1] for row in found}


def test_the_ledger_ends_as_the_simulator_knows_it(house: House) -> None:
    report = shuffled(house, PEOPLE)
    assert min(report["lost"], report["forged"], report["repeated"]) > 0
    assert report["unanswered"] == 0
    assert report["answered"] == {"2xx": report["sent"] - report["forged"]}
    assert report["forged_answered"] == {"4xx": report["forged"]}
    polled, called = house.sql(
        "SELECT count(*) FILTER (WHERE receipt_id IS NULL), count(receipt_id) FROM receipt_event"
    )[0]
    assert min(polled, called) > 0
    assert set(results(house)) <= {"applied", "noted", "stale"}


def test_mail_ends_by_the_event_webhook_and_bounces_are_remembered(house: House) -> None:
    options(house, sendgrid_delivered_after=0.2, sendgrid_flush=0.2)
    events(
        house,
        "sendgrid",
        url=f"{house.settings.public_url}/v1/receipts/sendgrid_email",
        repeat=0.1,
        shuffle=True,
        seed=3,
        outcomes={"bounce": 0.1, "blocked": 0.05, "deferred": 0.2, "open": 0.2},
    )
    house.people(person(n, email=f"Ada.{n}@example.org") for n in range(300))
    update = house.open("consumers")["update"]["id"]
    house.complete(update)
    report = told(house, "sendgrid")
    assert ended(house, update, "sendgrid", MAIL_ENDS).total() == 300
    bounced = sum(entry["status"] == "bounce" for entry in house.sandbox.outbox("sendgrid"))
    assert bounced > 0
    assert set(report["answered"]) == {"2xx"}
    suppressed = house.operator.get("/v1/suppressions", limit=1_000)["suppressions"]
    assert {row["source"] for row in suppressed} == {"sendgrid_email"}
    assert len(suppressed) == bounced

    again = house.open("consumers")["update"]["id"]
    states = house.complete(again)["by_state"]
    assert states["skipped"] == bounced, states


def test_stop_during_the_fan_out_and_nothing_after_it(house: House) -> None:
    crowd = 1_500
    house.people(person(n, phone=phone(n)) for n in range(crowd))
    house.sandbox.fault("twilio", delay=0.5)
    update = house.open("consumers")["update"]["id"]
    house.when(update, lambda now: now["by_state"]["accepted"] > 0)
    sender = house.sql("SELECT sender FROM batch WHERE pending > 0 LIMIT 1")[0][0]
    leaving = range(crowd - 60, crowd)
    stopped: dict[str, int] = {}
    for n in leaving:
        answer = house.sandbox.http.post(
            "/_sandbox/inbound",
            json={
                "provider": "twilio",
                "from": phone(n),
                "to": sender,
                "body": " stop ",
                "url": f"{house.settings.public_url}/v1/receipts/twilio_sms",
            },
        )
        assert answer.is_success, answer.text
        stopped[phone(n)] = answer.json()["next_seq"]
    suppressed = "SELECT count(*) FROM suppression WHERE reason = 'opted_out'"
    until(lambda: house.sql(suppressed) == [(len(leaving),)], what="every STOP")

    lookups = [house.services.sealer.lookup("phone", number) for number in stopped]
    about = (
        "SELECT d.id::text, d.state, d.reason FROM delivery d"
        " JOIN contact_point p ON p.id = d.contact_point_id WHERE p.lookup = ANY(%s)"
    )
    unsent = [id for id, state, _ in house.sql(about, lookups) if state == "pending"]
    house.sandbox.clear_faults()
    house.complete(update)
    after = [
        entry
        for entry in house.sandbox.outbox("twilio")
        if entry["address"] in stopped and entry["seq"] >= stopped[entry["address"]]
    ]
    assert after == []
    ends = {id: (state, reason) for id, state, reason in house.sql(about, lookups)}
    assert {ends[id] for id in unsent} <= {("skipped", "suppressed")}
    refused = sum(end == ("failed", "opted_out") for end in ends.values())
    report = house.sandbox.http.get("/_sandbox/events").json()["twilio"]
    assert report["opted_out_refused"] == refused

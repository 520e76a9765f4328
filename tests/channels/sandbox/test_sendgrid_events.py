"""The event webhook, verified by SendGrid's own helper."""

import pytest
import requests
from sendgrid.helpers.eventwebhook import EventWebhook

from channels.sandbox import credentials as c
from channels.sandbox.webhook_keys import sendgrid_public_key
from tests.channels.sandbox.receiver import Got, receiving


@pytest.fixture
def receiver():
    with receiving() as running:
        yield running


@pytest.fixture
def rules(control, receiver):
    control.options(sendgrid_delivered_after=0.02, sendgrid_flush=0.02)

    def ruled(**more: object) -> None:
        control.rules("sendgrid", url=f"{receiver.url}/events", **more)

    ruled()
    return ruled


@pytest.fixture
def mail(sandbox, rules):
    def mailed(*addresses: str, key: str = c.SENDGRID_API_KEY, **more: object) -> requests.Response:
        body = {
            "from": {"email": "a@example.com"},
            "subject": "s",
            "content": [{"type": "text/plain", "value": "x"}],
            "personalizations": [
                {"to": [{"email": address}], "custom_args": {"delivery": f"d-{address}"}}
                for address in addresses
            ],
        }
        headers = {"Authorization": f"Bearer {key}"}
        url = f"{sandbox.url}/v3/mail/send"
        return requests.post(url, json=body | more, headers=headers, timeout=10)

    return mailed


def is_genuine(got: Got, public_key: str) -> bool:
    webhook = EventWebhook()
    return webhook.verify_signature(
        got.body.decode(),
        got.headers["x-twilio-email-event-webhook-signature"],
        got.headers["x-twilio-email-event-webhook-timestamp"],
        webhook.convert_public_key_to_ecdsa(public_key),
    )


def people(count: int) -> list[str]:
    return [f"p{n}@example.org" for n in range(count)]


def test_processed_and_delivered_with_our_own_arguments(mail, control, receiver, state_dir):
    answer = mail("ann@example.org", custom_args={"lane": "bulk"}, categories=["outage"])
    told = control.told("sendgrid")
    first, second = sorted(receiver.events, key=lambda event: event["event"], reverse=True)
    message_id = answer.headers["X-Message-Id"]
    assert first["sg_message_id"].startswith(f"{message_id}.filter")
    assert first | {"timestamp": 0, "sg_event_id": "", "sg_message_id": ""} == {
        "email": "ann@example.org",
        "timestamp": 0,
        "smtp-id": f"<{message_id}@geopod-ismtpd-1>",
        "event": "processed",
        "sg_event_id": "",
        "sg_message_id": "",
        "delivery": "d-ann@example.org",
        "lane": "bulk",
        "category": ["outage"],
    }
    assert (second["event"], second["response"]) == ("delivered", "250 2.0.0 OK")
    assert second["sg_event_id"] != first["sg_event_id"]
    assert told["events"] == 2
    shown = told["public_key"]["1"]
    assert shown == sendgrid_public_key(state_dir)
    assert all(is_genuine(got, shown) for got in receiver.got)


def test_nobody_is_told_without_a_url(mail, control):
    control.rules("sendgrid")
    mail("ann@example.org")
    assert control.told("sendgrid")["sent"] == 0


def test_events_come_in_arrays_of_at_most_500(mail, control, receiver):
    control.options(sendgrid_flush=0.5)
    assert mail(*people(1000)).status_code == 202
    told = control.told("sendgrid")
    sizes = [len(got.events) for got in receiver.got]
    assert (sum(sizes), max(sizes)) == (2000, 500)
    assert told["sent"] == len(sizes)
    assert len({event["sg_event_id"] for event in receiver.events}) == 2000


def test_ends_are_those_of_the_outbox(mail, rules, control, receiver):
    outcomes = {"bounce": 0.2, "blocked": 0.2, "dropped": 0.2, "deferred": 0.3, "open": 0.5}
    rules(outcomes=outcomes, seed=2)
    mail(*people(100))
    control.told("sendgrid")
    ends = {entry["key"]: entry["status"] for entry in control.outbox()}
    assert set(ends.values()) == {"delivered", "bounce", "blocked", "dropped"}
    told: dict[str, list[str]] = {}
    for event in receiver.events:
        told.setdefault(event["delivery"], []).append(event.get("type", event["event"]))
    for key, end in ends.items():
        assert {end} == set(told[key]) & set(ends.values())
        assert ("processed" in told[key]) == (end != "dropped")
        assert end == "delivered" or "open" not in told[key]
    kinds = {kind for events in told.values() for kind in events}
    assert {"deferred", "open"} <= kinds


def test_lost_forged_and_repeated(mail, rules, control, receiver):
    rules(loss=0.2, forged=0.2, repeat=0.2, shuffle=True, seed=4)
    mail(*people(100))
    told = control.told("sendgrid")
    key = told["public_key"]["1"]
    genuine = [event for got in receiver.got if is_genuine(got, key) for event in got.events]
    forged = [event for got in receiver.got if not is_genuine(got, key) for event in got.events]
    assert len(genuine) == 200 - told["lost"] + told["repeated"] == told["events"]
    assert len({event["sg_event_id"] for event in genuine}) == 200 - told["lost"]
    assert len(forged) == told["forged"] > 0
    assert {event["event"] for event in forged} == {"bounce"}
    assert min(told["lost"], told["repeated"]) > 10


def test_what_is_refused_comes_again(mail, control, receiver):
    receiver.statuses = [500]
    mail("ann@example.org")
    told = control.told("sendgrid")
    assert (told["answered"]["5xx"], told["retried"], told["events"]) == (1, 1, 2)
    ids = [event["sg_event_id"] for event in receiver.events]
    assert len(ids) > len(set(ids)) == 2


def test_pushed_event_suppresses(mail, control, receiver):
    order = {"provider": "sendgrid", "event": "unsubscribe", "email": "Ann@example.org"}
    assert control.call("POST", "inbound", json=order).status_code == 202
    mail("ann@example.org", "bob@example.org")
    control.told("sendgrid")
    assert [entry["status"] for entry in control.outbox()] == ["dropped", "delivered"]
    told = {event["event"]: event for event in receiver.events if "nn@" in event["email"]}
    assert set(told) == {"unsubscribe", "dropped"}
    assert told["dropped"]["reason"] == "Unsubscribed Address"


def test_pushed_event_names_the_newest_mail(mail, control, receiver):
    mail("ann@example.org")
    answer = mail("ann@example.org")
    order = {"provider": "sendgrid", "event": "spamreport", "email": "ann@example.org"}
    control.call("POST", "inbound", json=order)
    control.told("sendgrid")
    (event,) = [event for event in receiver.events if event["event"] == "spamreport"]
    assert event["sg_message_id"].startswith(answer.headers["X-Message-Id"])
    assert event["delivery"] == "d-ann@example.org"


def test_second_key_is_another_account(mail, control, receiver):
    mail("ann@example.org", key=c.SENDGRID_API_KEY_2)
    told = control.told("sendgrid")
    assert control.outbox()[0]["account"] == 2
    assert all(is_genuine(got, told["public_key"]["2"]) for got in receiver.got)
    assert not any(is_genuine(got, told["public_key"]["1"]) for got in receiver.got)


def test_half_of_a_bulk_request_is_taken_before_the_reset(mail, control):
    control.fault("sendgrid", half=True, count=2)
    with pytest.raises(requests.ConnectionError):
        mail(*people(7))
    assert [entry["address"] for entry in control.outbox()] == people(3)
    with pytest.raises(requests.ConnectionError):
        mail("ann@example.org")
    assert control.counts("sendgrid")["messages"] == 3
    assert control.counts("sendgrid")["errors"] == 2
    assert mail("ann@example.org").status_code == 202

"""Status callbacks and inbound messages, verified by Twilio's own validator."""

from collections import Counter

import pytest
import requests
from twilio.base.exceptions import TwilioRestException
from twilio.request_validator import RequestValidator, get_signature_algorithm

from channels.sandbox import credentials as c
from tests.channels.sandbox.receiver import Got, receiving
from tests.channels.sandbox.test_twilio import client_of

FROM = c.TWILIO_FROM
TO = "+12025550123"


@pytest.fixture
def receiver():
    with receiving() as running:
        yield running


@pytest.fixture
def quick(control):
    control.options(twilio_sent_after=0.01, twilio_delivered_after=0.02)


@pytest.fixture
def client(sandbox, quick):
    return client_of(sandbox.url)


@pytest.fixture
def send(client, receiver):
    def sent(to: str = TO, **more: str):
        asked = {"from_": FROM, "body": "x", "status_callback": f"{receiver.url}/cb?delivery=7"}
        return client.messages.create(to=to, **(asked | more))

    return sent


def is_genuine(got: Got, key: str = c.TWILIO_AUTH_TOKEN) -> bool:
    algorithm = get_signature_algorithm(got.headers.get("x-twilio-webhooks-signature-settings"))
    signature = got.headers["x-twilio-signature"]
    return RequestValidator(key).validate(got.url, got.form, signature, algorithm)


def test_three_callbacks_in_order_with_the_url_as_it_was_given(send, control, receiver):
    control.rules("twilio", connections=1)
    sid = send().sid
    told = control.told("twilio")
    first, second, third = receiver.forms
    assert first == {
        "AccountSid": c.TWILIO_ACCOUNT_SID,
        "ApiVersion": "2010-04-01",
        "From": FROM,
        "MessageSid": sid,
        "MessageStatus": "sending",
        "SmsSid": sid,
        "SmsStatus": "sending",
        "To": TO,
    }
    assert [second["MessageStatus"], third["SmsStatus"]] == ["sent", "delivered"]
    assert len(third["RawDlrDoneDate"]) == 10
    assert {got.url for got in receiver.got} == {f"{receiver.url}/cb?delivery=7"}
    assert all(is_genuine(got) for got in receiver.got)
    assert (told["sent"], told["events"], told["answered"]) == (3, 3, {"2xx": 3})
    assert receiver.connections < 3


def test_nobody_is_told_without_a_callback(client, control):
    client.messages.create(to=TO, from_=FROM, body="x")
    assert control.told("twilio")["sent"] == 0


def test_service_names_its_number_once_it_is_known(send, control, receiver):
    control.rules("twilio", connections=1)
    send(messaging_service_sid=c.TWILIO_MESSAGING_SERVICE, from_="")
    control.told("twilio")
    assert [(form["MessageStatus"], form.get("From")) for form in receiver.forms] == [
        ("queued", None),
        ("sent", FROM),
        ("delivered", FROM),
    ]
    assert {form["MessagingServiceSid"] for form in receiver.forms} == {c.TWILIO_MESSAGING_SERVICE}


def test_newer_signature(send, control, receiver):
    control.rules("twilio", algorithm="sha256")
    send()
    control.told("twilio")
    settings = {got.headers["x-twilio-webhooks-signature-settings"] for got in receiver.got}
    assert settings == {f"key={c.TWILIO_SHARED_KEY_ID},algorithm=HMAC_SHA256"}
    assert all(is_genuine(got, c.TWILIO_SHARED_KEY) for got in receiver.got)
    assert not any(is_genuine(got) for got in receiver.got)


def test_fragment_is_neither_sent_nor_signed(send, control, receiver):
    send(status_callback=f"{receiver.url}/cb#rc=3&rp=all")
    control.told("twilio")
    assert {got.url for got in receiver.got} == {f"{receiver.url}/cb"}
    assert all(is_genuine(got) for got in receiver.got)


def test_callback_of_messages_that_name_none(client, control, receiver):
    control.rules("twilio", url=f"{receiver.url}/mine")
    client.messages.create(to=TO, from_=FROM, body="x")
    assert control.told("twilio")["events"] == 3
    assert {got.url for got in receiver.got} == {f"{receiver.url}/mine"}


def test_only_loopback_is_told(send, control):
    send(status_callback="http://192.0.2.1/cb")
    send(status_callback="https://127.0.0.1/cb")
    told = control.told("twilio")
    assert (told["barred"], told["sent"]) == (6, 0)


def test_outbox_knows_the_true_end_and_so_do_callbacks_and_the_api(send, client, control, receiver):
    control.rules("twilio", outcomes={"failed": 0.3, "undelivered": 0.4}, seed=3, connections=1)
    for n in range(40):
        send(f"+120255501{n:02d}")
    control.told("twilio")
    ends = {entry["ref"]: entry["status"] for entry in control.outbox(provider="twilio")}
    assert set(ends.values()) == {"delivered", "undelivered", "failed"}
    for sid, end in ends.items():
        told = receiver.forms_of(sid)
        last, message = told[-1], client.messages(sid).fetch()
        assert (last["MessageStatus"], message.status) == (end, end)
        assert message.error_code == (int(last["ErrorCode"]) if "ErrorCode" in last else None)
        assert ("ErrorCode" in last) == (end != "delivered")
        assert len(told) == (2 if end == "failed" else 3)
        assert (message.date_sent is None) == (end == "failed")


def test_change_of_rules_leaves_the_ends_of_what_was_taken(send, control):
    control.rules("twilio", outcomes={"failed": 1.0})
    send()
    control.rules("twilio")
    send()
    control.call("DELETE", "events", params={"provider": "twilio"})
    send()
    ends = [entry["status"] for entry in control.outbox()]
    assert ends == ["failed", "delivered", "delivered"]


def test_lost_forged_and_repeated(send, control, receiver):
    control.rules("twilio", loss=0.3, forged=0.3, repeat=0.3, seed=5)
    for n in range(30):
        send(f"+120255501{n:02d}")
    told = control.told("twilio")
    genuine = [got for got in receiver.got if is_genuine(got)]
    forged = [got for got in receiver.got if not is_genuine(got)]
    assert len(genuine) == 90 - told["lost"] + told["repeated"]
    assert len(forged) == told["forged"] == sum(told["forged_answered"].values())
    assert all(10 < told[kind] < 45 for kind in ("lost", "repeated")), told
    distinct = {(got.form["MessageSid"], got.form["MessageStatus"]) for got in genuine}
    assert len(distinct) == 90 - told["lost"]
    assert {got.form["MessageStatus"] for got in forged} == {"failed"}


def test_shuffle_tells_after_the_end_in_any_order(send, control, receiver):
    control.rules("twilio", shuffle=True, seed=1, connections=1)
    for n in range(20):
        send(f"+120255501{n:02d}")
    control.told("twilio")
    orders = Counter(
        tuple(form["MessageStatus"] for form in receiver.forms_of(entry["ref"]))
        for entry in control.outbox()
    )
    assert len(orders) > 3
    assert {frozenset(order) for order in orders} == {frozenset(["sending", "sent", "delivered"])}


def test_rate_holds_back(send, control, receiver):
    control.rules("twilio", rate=0.001)
    send()
    while control.events("twilio")["sent"] < 1:
        pass
    assert control.events("twilio")["pending"] >= 2
    control.rules("twilio")
    assert control.told("twilio")["events"] == 3


def test_answer_that_is_no_success_is_not_tried_again(send, control, receiver):
    control.rules("twilio", connections=1)
    receiver.statuses = [500, 403]
    send()
    told = control.told("twilio")
    assert told["answered"] == {"5xx": 1, "4xx": 1, "2xx": 1}
    assert (told["retried"], told["events"]) == (0, 1)


def test_nobody_listening_is_tried_once_more(send, control):
    with receiving() as gone:
        url = gone.url
    send(status_callback=f"{url}/cb")
    told = control.told("twilio")
    assert (told["retried"], told["unanswered"], told["sent"]) == (3, 3, 0)


def test_clearing_the_outbox_forgets_what_was_to_come(send, control):
    control.rules("twilio", delay=[60, 60])
    send()
    assert control.events("twilio")["pending"] > 0
    control.call("DELETE", "outbox")
    assert control.events("twilio")["pending"] == 0


@pytest.mark.parametrize(
    "rules",
    [
        {"loss": 2},
        {"delay": [2, 1]},
        {"outcomes": {"eaten": 0.1}},
        {"outcomes": {"failed": 0.6, "undelivered": 0.6}},
        {"algorithm": "md5"},
        {"typo": 1},
        {"provider": "x"},
    ],
)
def test_senseless_rules_are_refused(control, rules):
    body = {"provider": "twilio", **rules}
    assert control.call("PUT", "events", json=body).status_code == 400


# --- inbound -----------------------------------------------------------------------------


def inbound(control, receiver, body: str, **more: object) -> requests.Response:
    order = {"provider": "twilio", "from": TO, "to": FROM, "body": body}
    order |= {"url": f"{receiver.url}/in?x=1", **more}
    return control.call("POST", "inbound", json=order)


def test_stop_is_told_and_holds_for_the_pair_until_start(client, control, receiver):
    client.messages.create(to=TO, from_=FROM, body="before")
    answer = inbound(control, receiver, " stop ")
    assert (answer.status_code, answer.json()) == (202, {"next_seq": 2})
    with pytest.raises(TwilioRestException) as caught:
        client.messages.create(to=TO, from_=FROM, body="after")
    assert caught.value.code == 21610
    client.messages.create(to="+12025550124", from_=FROM, body="another person")
    client.messages.create(to=TO, from_="12345", body="another sender")
    told = control.told("twilio")
    assert told["opted_out_refused"] == 1
    (got,) = receiver.got
    assert is_genuine(got)
    expected = {"From": TO, "To": FROM, "Body": " stop ", "OptOutType": "STOP"}
    assert expected.items() <= got.form.items()
    assert control.outbox(address=TO, after=1)[0]["sender"] == "12345"
    inbound(control, receiver, "START")
    client.messages.create(to=TO, from_=FROM, body="again")


def test_stop_to_a_service(client, control, receiver):
    service = c.TWILIO_MESSAGING_SERVICE
    inbound(control, receiver, "STOP", to=service)
    with pytest.raises(TwilioRestException) as caught:
        client.messages.create(to=TO, messaging_service_sid=service, body="x")
    assert caught.value.code == 21610
    control.told("twilio")
    assert receiver.forms[0]["MessagingServiceSid"] == service


def test_other_words_change_nothing(client, control, receiver):
    inbound(control, receiver, "When will it work again?")
    client.messages.create(to=TO, from_=FROM, body="x")
    control.told("twilio")
    assert "OptOutType" not in receiver.forms[0]


def test_inbound_to_nobody_is_refused(control):
    order = {"provider": "twilio", "from": TO, "to": FROM, "body": "STOP"}
    assert control.call("POST", "inbound", json=order).status_code == 400
    order["url"] = "http://192.0.2.1/"
    assert control.call("POST", "inbound", json=order).status_code == 400
    assert control.events("twilio")["pending"] == 0


# --- the second account ------------------------------------------------------------------


def test_second_account_is_apart(sandbox, control, receiver, quick, at_once):
    first = client_of(sandbox.url)
    second = client_of(sandbox.url, c.TWILIO_ACCOUNT_SID_2, c.TWILIO_AUTH_TOKEN_2, account=2)
    callback = f"{receiver.url}/cb"
    one = first.messages.create(to=TO, from_=FROM, body="x")
    two = second.messages.create(to=TO, from_=FROM, body="x", status_callback=callback)
    control.told("twilio")
    assert [entry["account"] for entry in control.outbox()] == [1, 2]
    assert [entry["ref"] for entry in control.outbox(account=2)] == [two.sid]
    assert control.counts("twilio")["by_account"] == {"1": 1, "2": 1}
    assert [message.sid for message in second.messages.list()] == [two.sid]
    assert [message.sid for message in first.messages.list(to=TO)] == [one.sid]
    assert all(is_genuine(got, c.TWILIO_AUTH_TOKEN_2) for got in receiver.got)
    with pytest.raises(TwilioRestException):
        second.messages(one.sid).fetch()
    mixed = client_of(sandbox.url, c.TWILIO_ACCOUNT_SID, c.TWILIO_AUTH_TOKEN, account=2)
    with pytest.raises(TwilioRestException) as caught:
        mixed.messages.create(to=TO, from_=FROM, body="x")
    assert caught.value.status == 401

"""Twilio's simulator through Twilio's own SDK."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from twilio.base.exceptions import TwilioRestException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from channels.sandbox import credentials as c

OK_FROM = "+15005550006"
TO = "+12025550123"


def client_of(
    url: str,
    user: str = c.TWILIO_ACCOUNT_SID,
    password: str = c.TWILIO_AUTH_TOKEN,
    *,
    account: int = 1,
):
    sid = c.TWILIO_ACCOUNT_SID if account == 1 else c.TWILIO_ACCOUNT_SID_2
    client = Client(user, password, sid, http_client=TwilioHttpClient(timeout=10))
    client.api.base_url = url
    return client


@pytest.fixture
def client(sandbox):
    return client_of(sandbox.url)


def test_message_is_taken_and_answered_in_full(client, control):
    message = client.messages.create(to=TO, from_=OK_FROM, body="Привет & 100 % €")
    assert (message.status, message.to, message.from_) == ("queued", TO, OK_FROM)
    assert message.body == "Привет & 100 % €"
    assert (message.num_segments, message.num_media) == ("1", "0")
    assert message.sid.startswith("SM")
    assert len(message.sid) == 34
    assert message.error_code is None
    assert message.date_sent is None
    assert abs(message.date_created - datetime.now(UTC)) < timedelta(seconds=5)
    (entry,) = control.outbox()
    assert entry | {"at": "", "content_hash": ""} == {
        "provider": "twilio",
        "account": 1,
        "seq": 1,
        "at": "",
        "address": TO,
        "key": None,
        "ref": message.sid,
        "sender": OK_FROM,
        "status": "delivered",
        "content": {"text": "Привет & 100 % €"},
        "content_hash": "",
    }


def test_api_key_opens_too(sandbox, control):
    client = client_of(sandbox.url, c.TWILIO_API_KEY, c.TWILIO_API_SECRET)
    client.messages.create(to=TO, from_=OK_FROM, body="x")
    assert control.counts("twilio")["messages"] == 1


@pytest.mark.parametrize(
    ("body", "segments"),
    [("a" * 160, "1"), ("a" * 161, "2"), ("€" * 80, "1"), ("я" * 70, "1"), ("я" * 71, "2")],
)
def test_segments_follow_the_real_alphabet(client, body, segments):
    assert client.messages.create(to=TO, from_=OK_FROM, body=body).num_segments == segments


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"to": ""}, 400, 21604),
        ({"to": "12025550123"}, 400, 21211),
        ({"to": "+1202555"}, 201, None),
        ({"to": "+120"}, 400, 21211),
        ({"to": "+15005550001"}, 400, 21211),
        ({"to": "+15005550002"}, 400, 21612),
        ({"to": "+15005550003"}, 403, 21408),
        ({"to": "+15005550004"}, 400, 21610),
        ({"to": "+15005550009"}, 400, 21614),
        ({"from_": ""}, 400, 21603),
        ({"from_": "+15005550001"}, 400, 21212),
        ({"from_": "+15005550007"}, 400, 21606),
        ({"from_": "+15005550008"}, 429, 21611),
        ({"from_": "1234"}, 400, 21212),
        ({"from_": "12345"}, 201, None),
        ({"from_": "Operator"}, 201, None),
        ({"from_": "OperatorLimited"}, 400, 21212),
        ({"body": ""}, 400, 21602),
        ({"body": "x" * 1600}, 201, None),
        ({"body": "x" * 1601}, 400, 21617),
        ({"validity_period": 0}, 400, 21624),
        ({"validity_period": 1}, 201, None),
        ({"validity_period": 36_000}, 201, None),
        ({"validity_period": 36_001}, 400, 21624),
        ({"status_callback": "https://example.com/receipts"}, 201, None),
        ({"status_callback": "https://bad_host.example.com/"}, 400, 21609),
        ({"messaging_service_sid": "MG123"}, 400, 21701),
    ],
)
def test_what_is_checked(client, control, changed: dict[str, Any], status, code):
    asked = {"to": TO, "from_": OK_FROM, "body": "x"} | changed
    if code is None:
        client.messages.create(**asked)
        assert control.counts("twilio")["messages"] == 1
        return
    with pytest.raises(TwilioRestException) as caught:
        client.messages.create(**asked)
    assert (caught.value.status, caught.value.code) == (status, code)
    assert control.counts("twilio") == {
        "messages": 0,
        "addresses": 0,
        "shown": 0,
        "requests": 1,
        "errors": 1,
        "by_account": {"1": 0, "2": 0},
    }


def test_error_body_is_the_providers(sandbox):
    url = f"{sandbox.url}/2010-04-01/Accounts/{c.TWILIO_ACCOUNT_SID}/Messages.json"
    auth = (c.TWILIO_ACCOUNT_SID, c.TWILIO_AUTH_TOKEN)
    assert requests.post(url, data={"To": "nobody"}, auth=auth, timeout=10).json() == {
        "code": 21211,
        "message": "The 'To' number nobody is not a valid phone number.",
        "more_info": "https://www.twilio.com/docs/errors/21211",
        "status": 400,
    }


def test_wrong_token_is_refused(sandbox, control):
    with pytest.raises(TwilioRestException) as caught:
        client_of(sandbox.url, password="0" * 32).messages.create(to=TO, from_=OK_FROM, body="x")
    assert (caught.value.status, caught.value.code) == (401, 20003)
    assert control.counts("twilio")["messages"] == 0


def test_other_account_is_not_found(sandbox):
    client = Client(c.TWILIO_ACCOUNT_SID, c.TWILIO_AUTH_TOKEN, "AC" + "0" * 32)
    client.api.base_url = sandbox.url
    with pytest.raises(TwilioRestException) as caught:
        client.messages.create(to=TO, from_=OK_FROM, body="x")
    assert (caught.value.status, caught.value.code) == (404, 20404)


def test_account_can_be_fetched(client):
    assert client.api.accounts(c.TWILIO_ACCOUNT_SID).fetch().status == "active"


def test_messaging_service_accepts_first(client):
    service = c.TWILIO_MESSAGING_SERVICE
    message = client.messages.create(to=TO, messaging_service_sid=service, body="x")
    assert (message.status, message.from_, message.num_segments) == ("accepted", None, "0")
    assert message.messaging_service_sid == service


def test_message_moves_on_by_the_clock(start):
    sandbox, _ = start(twilio_sent_after=0.0, twilio_delivered_after=3600.0)
    client = client_of(sandbox.url)
    service = c.TWILIO_MESSAGING_SERVICE
    message = client.messages.create(to=TO, messaging_service_sid=service, body="x")
    sent = client.messages(message.sid).fetch()
    assert (sent.status, sent.num_segments) == ("sent", "1")
    assert sent.date_sent is not None
    assert sent.from_ == OK_FROM


def test_list_pages_through_everything_newest_first(client, at_once):
    sids = [client.messages.create(to=TO, from_=OK_FROM, body=f"{i}").sid for i in range(7)]
    client.messages.create(to="+12025550199", from_=OK_FROM, body="other")
    listed = client.messages.list(to=TO, page_size=3)
    assert [message.sid for message in listed] == sids[::-1]
    assert len(client.messages.list(page_size=4)) == 8
    page = client.messages.page(to=TO, page_size=3)
    assert [message.sid for message in page] == sids[:3:-1]


def test_list_filters(start):
    sandbox, _ = start(twilio_sent_after=0.0, twilio_delivered_after=0.0, twilio_list_lag=0.0)
    client = client_of(sandbox.url)
    sid = client.messages.create(to=TO, from_=OK_FROM, body="x").sid
    client.messages.create(to=TO, from_="12345", body="x")
    assert [m.sid for m in client.messages.list(to=TO, from_=OK_FROM)] == [sid]
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    assert len(client.messages.list(date_sent_after=now - hour)) == 2
    assert client.messages.list(date_sent_after=now + hour) == []
    assert client.messages.list(date_sent_before=now - hour) == []
    assert len(client.messages.list(date_sent=now.date())) == 2


def test_queued_message_has_no_date_sent_and_meets_no_date_filter(client, at_once):
    client.messages.create(to=TO, from_=OK_FROM, body="x")
    after = datetime.now(UTC) - timedelta(hours=1)
    assert client.messages.list(to=TO, date_sent_after=after) == []
    assert len(client.messages.list(to=TO)) == 1


def test_only_a_scheduled_message_can_be_canceled(client):
    later = datetime.now(UTC) + timedelta(hours=1)
    scheduled = client.messages.create(
        to=TO,
        messaging_service_sid=c.TWILIO_MESSAGING_SERVICE,
        body="x",
        schedule_type="fixed",
        send_at=later,
    )
    assert scheduled.status == "scheduled"
    assert client.messages(scheduled.sid).update(status="canceled").status == "canceled"
    queued = client.messages.create(to=TO, from_=OK_FROM, body="x")
    with pytest.raises(TwilioRestException) as caught:
        client.messages(queued.sid).update(status="canceled")
    assert caught.value.code == 30409


def test_unknown_message_is_not_found(client):
    with pytest.raises(TwilioRestException) as caught:
        client.messages("SM" + "0" * 32).fetch()
    assert (caught.value.status, caught.value.code) == (404, 20404)

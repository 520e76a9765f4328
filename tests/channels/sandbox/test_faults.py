"""Faults: what the client sees, and that the counts stay honest about what was taken."""

import time

import pytest
import requests
import tweepy
from twilio.base.exceptions import TwilioRestException

from channels.sandbox import credentials as c
from channels.sandbox.config import Provider
from channels.sandbox.faults import Fault, Faults

URL = f"/2010-04-01/Accounts/{c.TWILIO_ACCOUNT_SID}/Messages.json"
AUTH = (c.TWILIO_ACCOUNT_SID, c.TWILIO_AUTH_TOKEN)


@pytest.fixture
def post(sandbox):
    session = requests.Session()
    session.trust_env = False

    def posted(to: str = "+12025550123", *, timeout: float = 10):
        data = {"To": to, "From": c.TWILIO_FROM, "Body": "x"}
        return session.post(sandbox.url + URL, data=data, auth=AUTH, timeout=timeout)

    return posted


def taken(control) -> tuple[int, int, int]:
    counts = control.counts("twilio")
    return counts["messages"], counts["requests"], counts["errors"]


def test_reset_before_takes_nothing(control, post):
    control.fault("twilio", reset="before")
    with pytest.raises(requests.ConnectionError):
        post()
    assert taken(control) == (0, 1, 1)


def test_reset_after_takes_the_message_so_that_a_repeat_is_a_duplicate(control, post):
    control.fault("twilio", reset="after", count=1)
    with pytest.raises(requests.ConnectionError):
        post()
    assert taken(control) == (1, 1, 1)
    assert post().status_code == 201
    assert taken(control) == (2, 2, 1)
    first, second = control.outbox(address="+12025550123")
    assert first["content_hash"] == second["content_hash"]
    address = {"provider": "twilio", "address": "+12025550123"}
    assert control.call("GET", "address", params=address).json()["messages"] == 2


@pytest.mark.parametrize(("side", "messages"), [("before", 0), ("after", 1)])
def test_hang(control, post, side, messages):
    control.fault("twilio", hang=side)
    with pytest.raises(requests.Timeout):
        post(timeout=0.2)
    assert taken(control) == (messages, 1, 1)


def test_delay_takes_at_once_and_answers_late(control, post):
    control.fault("twilio", delay=0.2, count=2)
    start = time.monotonic()
    assert post().status_code == 201
    assert time.monotonic() - start >= 0.2
    assert taken(control) == (1, 1, 0)
    with pytest.raises(requests.Timeout):
        post(timeout=0.05)
    assert control.counts("twilio")["messages"] == 2


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ({"status": 500}, 500, 20500),
        ({"status": 503, "retry_after": 3}, 503, 20503),
        ({"status": 429}, 429, 20429),
        ({"status": 429, "code": 63038}, 429, 63038),
        ({"status": 400, "code": 21610}, 400, 21610),
    ],
)
def test_status_comes_in_the_providers_words(control, post, fault, status, code):
    control.fault("twilio", **fault)
    answer = post()
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers.get("Retry-After") == ("3" if status == 503 else None)
    assert taken(control) == (0, 1, 1)


def test_status_after_taking(control, post):
    control.fault("twilio", status=500, accept=True)
    assert post().status_code == 500
    assert taken(control) == (1, 1, 1)


def test_garbage(control, post):
    control.fault("twilio", garbage="body", count=1)
    with pytest.raises(requests.JSONDecodeError):
        post().json()
    control.fault("twilio", garbage="wire", count=1)
    with pytest.raises(requests.ConnectionError):
        post()
    assert taken(control) == (2, 2, 2)


def test_count_and_match(control, post):
    control.fault("twilio", status=503, count=2, match="+1202*")
    assert post("+13035550123").status_code == 201
    assert [post().status_code for _ in range(3)] == [503, 503, 201]
    (rule,) = control.call("GET", "faults").json()
    assert rule == {
        "provider": "twilio",
        "fault": {"status": 503, "count": 2, "match": "+1202*"},
        "struck": 2,
    }


def test_match_looks_at_every_address_of_a_mail(control, sandbox):
    control.fault("sendgrid", status=500, match="bob@example.org")
    headers = {"Authorization": f"Bearer {c.SENDGRID_API_KEY}"}

    def mail(*addresses: str) -> int:
        body = {
            "from": {"email": "a@example.com"},
            "subject": "s",
            "content": [{"type": "text/plain", "value": "x"}],
            "personalizations": [{"to": [{"email": address}]} for address in addresses],
        }
        url = f"{sandbox.url}/v3/mail/send"
        return requests.post(url, json=body, headers=headers, timeout=10).status_code

    assert mail("ann@example.org") == 202
    assert mail("ann@example.org", "bob@example.org") == 500


def test_reading_is_spared_unless_asked(control, sandbox, post):
    def read() -> int:
        return requests.get(sandbox.url + URL, auth=AUTH, timeout=10).status_code

    control.fault("twilio", status=503)
    assert (post().status_code, read()) == (503, 200)
    control.fault("twilio", status=500, on="other")
    assert (post().status_code, read()) == (503, 500)
    assert control.call("DELETE", "faults").status_code == 204
    assert (post().status_code, read()) == (201, 200)


def test_faults_of_one_provider_leave_the_others(control, post):
    control.fault("x", status=503)
    control.fault("twilio", status=503)
    assert post().status_code == 503
    control.call("DELETE", "faults", params={"provider": "twilio"})
    assert post().status_code == 201
    assert [rule["provider"] for rule in control.call("GET", "faults").json()] == ["x"]


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"status": 200},
        {"status": 500, "reset": "after"},
        {"reset": "sometimes"},
        {"probability": 0.5},
        {"status": 500, "probability": 2},
        {"status": 500, "typo": 1},
    ],
)
def test_senseless_faults_are_refused(control, fault):
    response = control.call("POST", "faults", json={"provider": "twilio", "fault": fault})
    assert response.status_code == 400
    assert control.call("GET", "faults").json() == []


def test_probability_is_decided_by_the_seed():
    def struck(seed: int) -> list[bool]:
        faults = Faults(seed=seed, clock=lambda: 0.0)
        faults.add(Provider.TWILIO, Fault(status=500, probability=0.1))
        return [
            faults.next(Provider.TWILIO, is_send=True, addresses=list) is not None
            for _ in range(1000)
        ]

    assert struck(1) == struck(1)
    assert struck(1) != struck(2)
    assert 60 < sum(struck(1)) < 140


def test_rate_lets_through_its_number_a_second():
    now = 100.0
    faults = Faults(seed=1, clock=lambda: now)
    faults.add(Provider.TWILIO, Fault(rate=5))

    def passed(count: int) -> int:
        return sum(
            faults.next(Provider.TWILIO, is_send=True, addresses=list) is None for _ in range(count)
        )

    assert passed(20) == 5
    now += 1.0
    assert passed(20) == 5
    now += 0.2
    assert passed(20) == 1


def test_rate_answers_429(control, post):
    control.fault("twilio", rate=0.001)
    assert [post().status_code for _ in range(3)] == [201, 429, 429]


def test_status_without_words_of_its_own_reaches_the_sdk(control, sandbox):
    from tests.channels.sandbox.test_twilio import client_of

    control.fault("twilio", status=502)
    with pytest.raises(TwilioRestException) as caught:
        client_of(sandbox.url).messages.create(to="+12025550123", from_=c.TWILIO_FROM, body="x")
    assert caught.value.status == 502


def test_x_faults_carry_a_problem_document(control, sandbox):
    from tests.channels.sandbox.test_x import client_of

    control.fault("x", status=403, code="Your account is suspended.")
    with pytest.raises(tweepy.Forbidden, match="suspended"):
        client_of(sandbox.url).create_tweet(text="x")
    control.call("DELETE", "faults")
    control.fault("x", status=503)
    with pytest.raises(tweepy.TwitterServerError):
        client_of(sandbox.url).create_tweet(text="x")

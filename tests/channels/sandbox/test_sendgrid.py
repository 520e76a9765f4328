"""SendGrid's simulator through SendGrid's own SDK."""

import copy
from typing import Any

import pytest
import requests
from python_http_client.exceptions import (
    BadRequestsError,
    PayloadTooLargeError,
    TooManyRequestsError,
    UnauthorizedError,
)
from sendgrid import SendGridAPIClient
from sendgrid.helpers.mail import Mail

from channels.sandbox import credentials as c

MAIL: dict[str, Any] = {
    "from": {"email": "outages@example.com", "name": "Operator"},
    "subject": "Outage, [[name]]",
    "content": [
        {"type": "text/plain", "value": "Dear [[name]]"},
        {"type": "text/html", "value": "<p>Dear [[name:html]]</p>"},
    ],
    "personalizations": [
        {
            "to": [{"email": "ann@example.org"}],
            "custom_args": {"delivery": "key-1"},
            "substitutions": {"[[name]]": "A & B", "[[name:html]]": "A &amp; [[name]]"},
        },
        {"to": [{"email": "bob@example.org"}], "custom_args": {"delivery": "key-2"}},
    ],
}


def client_of(url: str, key: str = c.SENDGRID_API_KEY) -> SendGridAPIClient:
    client = SendGridAPIClient(key, host=url)
    client.client.timeout = 10
    return client


@pytest.fixture
def client(sandbox):
    return client_of(sandbox.url)


def changed(**changes: Any) -> dict[str, Any]:
    mail = copy.deepcopy(MAIL) | changes
    return {name: value for name, value in mail.items() if value is not None}


def test_each_address_gets_its_own_final_text(client, control):
    response = client.client.mail.send.post(request_body=MAIL)
    assert (response.status_code, response.body) == (202, b"")
    message_id = response.headers["X-Message-Id"]
    assert int(response.headers["X-RateLimit-Remaining"]) > 0
    ann, bob = control.outbox(provider="sendgrid")
    assert ann["content"] == {
        "subject": "Outage, A & B",
        "text": "Dear A & B",
        "html": "<p>Dear A &amp; [[name]]</p>",
    }
    assert bob["content"]["text"] == "Dear [[name]]"
    assert [entry["address"] for entry in (ann, bob)] == ["ann@example.org", "bob@example.org"]
    assert [entry["key"] for entry in (ann, bob)] == ["key-1", "key-2"]
    assert {ann["ref"], bob["ref"]} == {message_id}
    assert ann["content_hash"] != bob["content_hash"]
    counts = control.counts("sendgrid")
    assert (counts["messages"], counts["requests"]) == (2, 1)


def test_helper_classes_work(client, control):
    mail = Mail("a@example.com", "b@example.com", "subject", "text", "<p>html</p>")
    assert client.send(mail).status_code == 202
    (entry,) = control.outbox()
    assert entry["content"] == {"subject": "subject", "text": "text", "html": "<p>html</p>"}


def test_a_thousand_people_in_one_request(client, control):
    people = [{"to": [{"email": f"p{n}@example.com"}]} for n in range(1000)]
    client.client.mail.send.post(request_body=changed(personalizations=people))
    assert control.counts("sendgrid")["addresses"] == 1000


def person(**more: Any) -> list[dict[str, Any]]:
    return [{"to": [{"email": "ann@example.org"}], **more}]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"personalizations": None}, "personalizations"),
        ({"personalizations": []}, "personalizations"),
        (
            {"personalizations": [{"to": [{"email": f"{n}@example.com"}]} for n in range(1001)]},
            "personalizations",
        ),
        ({"personalizations": [{"to": []}]}, "personalizations.0.to"),
        ({"personalizations": [{"to": [{"email": "ann@"}]}]}, "personalizations.0.to.0.email"),
        (
            {"personalizations": [*person(), {"to": [{"email": "ANN@example.org"}]}]},
            "personalizations.1",
        ),
        ({"personalizations": person(bcc=[{"email": "ann@example.org"}])}, "personalizations.0"),
        (
            {"personalizations": person(substitutions={"[[n]]": "x" * 10_000})},
            "personalizations.0.substitutions",
        ),
        (
            {"personalizations": person(custom_args={"delivery": "x" * 10_000})},
            "personalizations.0.custom_args",
        ),
        (
            {"personalizations": person(custom_args={"delivery": 7})},
            "personalizations.0.custom_args.delivery",
        ),
        ({"personalizations": person(headers={"Reply-To": "x"})}, "personalizations.0.headers"),
        ({"headers": {"DKIM-Signature": "x"}}, "headers"),
        ({"from": None}, "from.email"),
        ({"from": {"email": "nobody"}}, "from.email"),
        ({"subject": None}, "subject"),
        ({"content": None}, "content"),
        ({"content": [{"type": "text/plain", "value": ""}]}, "content.0.value"),
        ({"content": MAIL["content"][::-1]}, "content"),
        ({"send_at": 99_999_999_999}, "send_at"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_one_fault_refuses_the_whole_request(client, control, changes, field):
    with pytest.raises(BadRequestsError) as caught:
        client.client.mail.send.post(request_body=changed(**changes))
    (error,) = caught.value.to_dict["errors"]
    assert error["field"] == field
    assert set(error) == {"message", "field", "help"}
    counts = control.counts("sendgrid")
    assert (counts["messages"], counts["errors"]) == (0, 1)


def test_wrong_key(sandbox):
    with pytest.raises(UnauthorizedError) as caught:
        client_of(sandbox.url, "SG.wrong").client.mail.send.post(request_body=MAIL)
    assert caught.value.to_dict == {
        "errors": [
            {
                "message": "The provided authorization grant is invalid, expired, or revoked",
                "field": None,
                "help": None,
            }
        ]
    }


def test_sandbox_mode_sends_nothing(client, control):
    mail = changed(mail_settings={"sandbox_mode": {"enable": True}})
    assert client.client.mail.send.post(request_body=mail).status_code == 200
    assert control.outbox() == []


def test_over_30_mb_is_answered_by_the_proxy(client, control):
    content = [{"type": "text/plain", "value": "x" * (30 * 1024 * 1024)}]
    with pytest.raises(PayloadTooLargeError) as caught:
        client.client.mail.send.post(request_body=changed(content=content))
    assert b"<center>nginx</center>" in caught.value.body
    assert control.counts("sendgrid")["messages"] == 0


def test_surplus_over_the_rate_is_throttled(start):
    sandbox, _ = start(sendgrid_rate=1)
    session = requests.Session()
    headers = {"Authorization": f"Bearer {c.SENDGRID_API_KEY}"}
    url = f"{sandbox.url}/v3/mail/send"
    answers = [session.post(url, json=MAIL, headers=headers, timeout=10) for _ in range(8)]
    assert {answer.status_code for answer in answers} == {202, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert refused.json()["errors"][0]["message"] == "too many requests"


def test_throttling_reads_as_the_sdks_own_error(client, control):
    control.fault("sendgrid", status=429, retry_after=7)
    with pytest.raises(TooManyRequestsError) as caught:
        client.client.mail.send.post(request_body=MAIL)
    assert caught.value.headers["Retry-After"] == "7"


def test_scopes_show_that_a_key_is_good(client):
    assert "mail.send" in client.client.scopes.get().to_dict["scopes"]

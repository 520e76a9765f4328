"""FCM's simulator through google-auth."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2 import service_account as google

from channels.sandbox import credentials as c
from channels.sandbox.credentials import service_account

SCOPE = "https://www.googleapis.com/auth/firebase.messaging"


def session_of(state_dir: Path, url: str, **claims: Any) -> AuthorizedSession:
    info = json.loads(service_account(state_dir, url)) | claims
    return AuthorizedSession(google.Credentials.from_service_account_info(info, scopes=[SCOPE]))


@pytest.fixture
def send(state_dir, sandbox):
    session = session_of(state_dir, sandbox.url)

    def sent(message: object, *, project: str = c.FCM_PROJECT, **more: object):
        url = f"{sandbox.url}/v1/projects/{project}/messages:send"
        return session.post(url, json={"message": message, **more}, timeout=10)

    return sent


def push(token: str = "device-1", key: str = "key-1", **more: object) -> dict[str, Any]:
    return {
        "token": token,
        "notification": {"title": "Outage", "body": "Calls are down"},
        "android": {"collapse_key": key, "ttl": "3600s", "notification": {"tag": key}},
        "data": {"delivery": key},
    } | more


def error_of(response) -> tuple[int, str, str | None]:
    error = response.json()["error"]
    assert error["code"] == response.status_code
    codes = [d["errorCode"] for d in error.get("details", []) if d["@type"].endswith("FcmError")]
    return response.status_code, error["status"], codes[0] if codes else None


def test_message_is_taken(send, control):
    response = send(push())
    assert response.status_code == 200
    name = response.json()["name"]
    assert name.startswith(f"projects/{c.FCM_PROJECT}/messages/")
    (entry,) = control.outbox(provider="fcm")
    assert (entry["address"], entry["key"], entry["ref"]) == ("device-1", "key-1", name)
    assert entry["content"] == {"title": "Outage", "body": "Calls are down"}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (push("unregistered-7"), (404, "NOT_FOUND", "UNREGISTERED")),
        (push("mismatch-7"), (403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH")),
        (push(""), (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        (push("has space"), (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        (push(topic="news"), (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        (push(data={"x": "y" * 4096}), (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        (push(data={"x": 1}), (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        (push(android={"ttl": "2419201s"}), (400, "INVALID_ARGUMENT", "INVALID_ARGUMENT")),
        (push(nonsense=1), (400, "INVALID_ARGUMENT", None)),
    ],
)
def test_what_is_refused(send, control, message, expected):
    assert error_of(send(message)) == expected
    assert control.counts("fcm")["messages"] == 0


def test_bad_token_is_named_as_the_field(send):
    details = send(push("has space")).json()["error"]["details"]
    assert details[1]["fieldViolations"][0]["field"] == "message.token"


def test_other_project(send):
    assert send(push(), project="other").status_code == 403


def test_validate_only_sends_nothing(send, control):
    assert send(push(), validate_only=True).status_code == 200
    assert control.counts("fcm")["messages"] == 0


def test_a_repeat_under_the_same_tag_is_counted_and_shown_once(send, control):
    send(push(key="a"))
    send(push(key="a"))
    send(push(key="b"))
    send(push(token="device-2", key="a"))
    counts = control.counts("fcm")
    assert (counts["messages"], counts["addresses"], counts["shown"]) == (4, 2, 3)
    got = control.call("GET", "address", params={"provider": "fcm", "address": "device-1"})
    assert got.json() == {"messages": 3, "shown": 2}


@pytest.mark.parametrize("authorization", ["", "Bearer ya29.sandbox.9999999999.x.00", "Bearer x"])
def test_without_a_token(sandbox, control, authorization):
    url = f"{sandbox.url}/v1/projects/{c.FCM_PROJECT}/messages:send"
    headers = {"Authorization": authorization}
    response = control.http.post(url, json={"message": push()}, headers=headers, timeout=10)
    assert error_of(response) == (401, "UNAUTHENTICATED", None)


def test_assertion_of_a_foreign_key(tmp_path, sandbox):
    foreign = session_of(tmp_path, sandbox.url)  # another state folder, another key
    with pytest.raises(RefreshError, match="Invalid JWT Signature"):
        foreign.credentials.refresh(Request())


def test_assertion_of_a_foreign_account(state_dir, sandbox):
    foreign = session_of(state_dir, sandbox.url, client_email="else@example.com")
    with pytest.raises(RefreshError, match="account not found"):
        foreign.credentials.refresh(Request())


def test_scope_that_cannot_send(state_dir, sandbox):
    info = json.loads(service_account(state_dir, sandbox.url))
    scopes = ["https://www.googleapis.com/auth/drive"]
    credentials = google.Credentials.from_service_account_info(info, scopes=scopes)
    with pytest.raises(RefreshError, match="invalid_scope"):
        credentials.refresh(Request())


def test_token_outlives_a_restart(start, state_dir):
    first, _ = start()
    session = session_of(state_dir, first.url)
    session.credentials.refresh(Request())
    second, control = start()
    url = f"{second.url}/v1/projects/{c.FCM_PROJECT}/messages:send"
    headers = {"Authorization": f"Bearer {session.credentials.token}"}
    response = control.http.post(url, json={"message": push()}, headers=headers, timeout=10)
    assert response.status_code == 200


def test_service_account_is_made_once_and_private(tmp_path):
    made: list[str] = []
    makers = [
        threading.Thread(target=lambda: made.append(service_account(tmp_path))) for _ in range(4)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert len(set(made)) == 1
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert json.loads(made[0])["token_uri"] == "http://127.0.0.1/token"

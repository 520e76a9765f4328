"""Junk in any field of any call is refused in the provider's words, never by a failure."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from google.auth.transport.requests import AuthorizedSession

from channels.sandbox import credentials as c
from tests.channels.sandbox.test_fcm import push, session_of
from tests.channels.sandbox.test_sendgrid import MAIL

JUNK: list[Any] = [1, "x", "", [], [1], {}, {"a": 1}, None, True]


def spoiled(value: Any) -> Iterator[Any]:
    """Copies of a JSON value with each node in turn replaced by each piece of junk."""

    def paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        children = node.items() if isinstance(node, dict) else ()
        children = enumerate(node) if isinstance(node, list) else children
        for name, child in children:
            yield (*path, name)
            yield from paths(child, (*path, name))

    for path in paths(value):
        for junk in JUNK:
            changed = copy.deepcopy(value)
            node = changed
            for name in path[:-1]:
                node = node[name]
            node[path[-1]] = junk
            yield changed


FULL_MAIL = MAIL | {
    "mail_settings": {"sandbox_mode": {"enable": False}},
    "template_id": "d-1",
    "categories": ["outage"],
    "headers": {"X-Note": "x"},
    "custom_args": {"delivery": "k"},
    "send_at": 1,
}
FULL_PUSH = push() | {"apns": {"headers": {"apns-collapse-id": "k"}}, "webpush": {}}
POST = {"text": "x", "reply": {"in_reply_to_tweet_id": "1"}}


@pytest.mark.parametrize("provider", ["sendgrid", "fcm", "x"])
def test_junk(sandbox, state_dir, provider):
    url, body, session = {
        "sendgrid": ("/v3/mail/send", FULL_MAIL, requests.Session()),
        "fcm": (
            f"/v1/projects/{c.FCM_PROJECT}/messages:send",
            {"message": FULL_PUSH},
            session_of(state_dir, sandbox.url),
        ),
        "x": ("/2/tweets", POST, requests.Session()),
    }[provider]
    token = {"sendgrid": c.SENDGRID_API_KEY, "x": c.X_USER_TOKEN}.get(provider)
    if not isinstance(session, AuthorizedSession):
        session.headers["Authorization"] = f"Bearer {token}"
    seen = set()
    for changed in spoiled(body):
        answer = session.post(sandbox.url + url, json=changed, timeout=10)
        assert answer.status_code != 500, changed
        seen.add(answer.status_code)
    assert 400 in seen


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"\xff\xfe", b'"x"'])
def test_bodies_that_are_no_object(sandbox, state_dir, body):
    mail = {"Authorization": f"Bearer {c.SENDGRID_API_KEY}"}
    post = {"Authorization": f"Bearer {c.X_USER_TOKEN}"}
    push_url = f"{sandbox.url}/v1/projects/{c.FCM_PROJECT}/messages:send"
    answers = [
        requests.post(f"{sandbox.url}/v3/mail/send", data=body, headers=mail, timeout=10),
        requests.post(f"{sandbox.url}/2/tweets", data=body, headers=post, timeout=10),
        session_of(state_dir, sandbox.url).post(push_url, data=body, timeout=10),
        requests.post(f"{sandbox.url}/token", data=body, timeout=10),
        requests.post(f"{sandbox.url}/_sandbox/faults", data=body, timeout=10),
    ]
    assert [answer.status_code for answer in answers] == [400] * 5


@pytest.mark.parametrize("query", ["since_id=x", "max_results=1000", "start_time=soon"])
def test_timeline_queries(sandbox, query):
    url = f"{sandbox.url}/2/users/{c.X_USER_ID}/tweets?{query}"
    headers = {"Authorization": f"Bearer {c.X_USER_TOKEN}"}
    assert requests.get(url, headers=headers, timeout=10).status_code == 400


@pytest.mark.parametrize(
    "query", ["PageSize=x", "PageSize=1001", "PageToken=PASM00", "DateSent=soon"]
)
def test_list_queries(sandbox, query):
    path = f"/2010-04-01/Accounts/{c.TWILIO_ACCOUNT_SID}/Messages.json"
    auth = (c.TWILIO_ACCOUNT_SID, c.TWILIO_AUTH_TOKEN)
    answer = requests.get(f"{sandbox.url}{path}?{query}", auth=auth, timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (400, 20001)

"""The outbox: what it holds, how it is read, and that repeats stay visible."""

import json

import pytest
import requests

from channels.sandbox import credentials as c
from channels.sandbox.config import Provider
from channels.sandbox.contents import Filled, content_hash, texts_of
from channels.sandbox.outbox import Outbox, Selection


def filled(count: int) -> Outbox:
    outbox = Outbox(lambda: 1_708_594_200.0)
    for n in range(count):
        provider = Provider.TWILIO if n % 2 else Provider.FCM
        outbox.add(provider, f"address-{n % 10}", f"text {n % 3}", ref=f"ref-{n}", sender="me")
    return outbox


def read(outbox: Outbox, **query) -> list[dict]:
    text = b"".join(outbox.lines(Selection(**query)))
    return [json.loads(line) for line in text.splitlines()]


def test_lines_hold_every_field():
    (first, *_) = read(filled(3))
    assert first == {
        "provider": "fcm",
        "account": 1,
        "seq": 1,
        "at": "2024-02-22T09:30:00.000+00:00",
        "address": "address-0",
        "key": None,
        "ref": "ref-0",
        "sender": "me",
        "status": "accepted",
        "content": {"text": "text 0"},
        "content_hash": content_hash({"text": "text 0"}),
    }


def test_selection():
    outbox = filled(100)
    assert [e["seq"] for e in read(outbox, limit=3, after=10)] == [11, 12, 13]
    assert len(read(outbox, provider=Provider.TWILIO)) == 50
    assert [e["seq"] for e in read(outbox, address="address-3", limit=2)] == [4, 14]
    assert read(outbox, provider=Provider.FCM, address="address-3") == []
    assert read(outbox, limit=1, fields=("ref", "address")) == [
        {"address": "address-0", "ref": "ref-0"}
    ]


def test_large_outbox_is_read_whole_in_bounded_pieces():
    outbox = filled(5000)
    pieces = list(outbox.lines(Selection()))
    assert max(map(len, pieces)) < 128 * 1024
    assert b"".join(pieces).count(b"\n") == 5000


def test_equal_texts_are_held_once():
    outbox = filled(1000)
    contents = json.loads(b"".join(outbox.contents()))
    assert contents == {
        content_hash({"text": text}): {"text": text} for text in ("text 0", "text 1", "text 2")
    }


def test_contents_of_nothing():
    assert json.loads(b"".join(Outbox(lambda: 0.0).contents())) == {}


def test_clearing_never_reuses_a_seq():
    outbox = filled(10)
    outbox.clear()
    assert (read(outbox), outbox.messages(Provider.TWILIO)) == ([], 0)
    assert outbox.add(Provider.X, "a", "t", ref="r", sender="s") == 11
    assert not outbox.holds(Provider.X, 10)


def test_a_reader_under_way_ends_when_the_outbox_is_cleared():
    outbox = filled(5000)
    lines = outbox.lines(Selection())
    next(lines)
    outbox.clear()
    assert list(lines) == []


def test_repeats_are_counted_apart_from_what_is_shown():
    outbox = Outbox(lambda: 0.0)
    for collapse in ("a", "a", None, None):
        outbox.add(Provider.FCM, "d", "t", ref="r", sender="s", key="a", collapse=collapse)
    assert outbox.to(Provider.FCM, "d") == [1, 2, 3, 4]
    assert outbox.shown(Provider.FCM, "d") == outbox.shown_in_all(Provider.FCM) == 3
    assert outbox.addresses(Provider.FCM) == 1


def test_values_go_in_once_and_the_longest_name_first():
    template = (("text", "[[n]] -n- [[name]]"),)
    values = (("-n-", "[[n]]"), ("[[n]]", "N"), ("[[name]]", "[[n]]"))
    assert texts_of(Filled(template, values)) == {"text": "N [[n]] [[n]]"}
    assert texts_of(Filled((("t", "-a--ab-"),), (("-a", "1"), ("-ab", "2")))) == {"t": "1-2-"}


def test_hash_does_not_depend_on_the_order_of_parts():
    assert content_hash({"a": "1", "b": "2"}) == content_hash({"b": "2", "a": "1"})
    assert content_hash({"a": "1"}) != content_hash({"a": "2"})


def test_calls(control, sandbox):
    assert control.call("GET", "health").json() == {"status": "ok"}
    url = f"{sandbox.url}/2010-04-01/Accounts/{c.TWILIO_ACCOUNT_SID}/Messages.json"
    auth = (c.TWILIO_ACCOUNT_SID, c.TWILIO_AUTH_TOKEN)
    for n in range(3):
        data = {"To": f"+1202555012{n}", "From": c.TWILIO_FROM, "Body": "x"}
        requests.post(url, data=data, auth=auth, timeout=10)
    small = control.outbox(fields="address,ref,content_hash", limit=2)
    assert [sorted(entry) for entry in small] == [["address", "content_hash", "ref"]] * 2
    assert control.outbox(after=2)[0]["address"] == "+12025550122"
    contents = control.call("GET", "contents").json()
    assert contents == {small[0]["content_hash"]: {"text": "x"}}
    assert control.call("DELETE", "outbox").status_code == 204
    assert control.outbox() == []
    assert control.counts("twilio") == {
        "messages": 0,
        "addresses": 0,
        "shown": 0,
        "requests": 0,
        "errors": 0,
        "by_account": {"1": 0, "2": 0},
    }
    listed = requests.get(url, auth=auth, timeout=10).json()
    assert listed["messages"] == []


@pytest.mark.parametrize(
    "path", ["outbox?provider=nobody", "outbox?fields=secret", "outbox?limit=-1", "address"]
)
def test_bad_queries(control, path):
    assert control.call("GET", path).status_code == 400


def test_unknown_calls(control, sandbox):
    assert control.call("GET", "nothing").status_code == 404
    assert requests.get(f"{sandbox.url}/", timeout=10).status_code == 404

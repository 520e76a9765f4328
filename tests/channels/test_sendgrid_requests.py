"""SendGrid's requests: what each person reads, and the bytes, for any message and any values."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.request import Request as SdkRequest

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from channels import text
from channels.contract import Charset, Envelope, Message, Outcome, Slot
from channels.sendgrid_email import SendgridSettings
from channels.sendgrid_requests import MAX_SUBSTITUTIONS, Mail, SendgridRequests, mails

ACCOUNT = SendgridSettings.model_validate(
    {
        "api_key": "SG.abcdefghijklmnop.0123456789-_ABCDEF",
        "from_email": "noc@example.org",
        "reply_to": "help@example.org",
        "unsubscribe_url": "https://u.example.org/{key}",
    }
)
REQUESTS = SendgridRequests(ACCOUNT)
# Names that `fill` knows and one that it does not take for a slot.
NAMES = ("name", "x:y", "ref-1", "no slot")

MARKERS = [f"[[{name}]]" for name in NAMES]

pieces = st.one_of(
    st.sampled_from(MARKERS),
    st.sampled_from([*MARKERS, "[[", "]]", "[[other]]", '"', "&", "مرحبا"]),
    st.text(max_size=6),
)
parts = st.lists(pieces, max_size=6).map("".join)
slots = st.builds(
    Slot,
    max_chars=st.sampled_from([80, 5, MAX_SUBSTITUTIONS]),
    charset=st.sampled_from([Charset.UNICODE, Charset.UNICODE, Charset.GSM7, Charset.URL]),
)
messages = st.builds(
    Message,
    id=st.just("m1"),
    channel=st.just("email"),
    locale=st.just("en"),
    parts=st.fixed_dictionaries({"subject": parts, "text": parts, "html": parts}),
    slots=st.dictionaries(st.sampled_from(NAMES), slots, max_size=4),
    sender=st.sampled_from(["", "Regulators <reg@example.org>"]),
)
values = st.one_of(
    st.sampled_from(["Ana & Co", "", "<i>", "[[name]]", "[", "]", "x\x1fy", "\ud800", "e\u0301"]),
    st.text(max_size=7),
    st.integers(900, MAX_SUBSTITUTIONS).map("é".__mul__),
)
addresses = st.one_of(
    st.emails(),
    st.sampled_from(["a@b.example", "A@B.example", "c@b.example", "nobody", "\ud800@b.example"]),
)
given_slots = st.one_of(
    st.fixed_dictionaries(dict.fromkeys(NAMES, values)),
    st.dictionaries(st.sampled_from(NAMES), values),
)
people = st.lists(st.tuples(addresses, given_slots), min_size=1, max_size=6).map(
    lambda found: [Envelope(f"d{n}", address, own) for n, (address, own) in enumerate(found)]
)


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read(mail: Mail) -> dict[str, dict[str, str]]:
    """By delivery, what SendGrid makes of the parts once it has put the values in."""
    texts = {"subject": mail.shared["subject"]}
    texts |= {part["type"]: part["value"] for part in mail.shared["content"]}
    found = {}
    for key, person in zip(mail.keys, mail.people, strict=True):
        own = dict(texts)
        for token, value in person.get("substitutions", {}).items():
            own = {name: whole.replace(token, value) for name, whole in own.items()}
        found[key] = own
    return found


@unhurried
@given(messages, people)
def test_everybody_reads_what_fill_gives(message: Message, envelopes: list[Envelope]) -> None:
    refused: list[Outcome] = []
    made = mails(ACCOUNT, message, envelopes, refused)
    told: dict[str, dict[str, str]] = {}
    for mail in made:
        told |= read(mail)
    assert sorted([*told, *(o.key for o in refused)]) == [e.key for e in envelopes]
    assert sum(len(mail.keys) for mail in made) == len(told)
    for envelope in envelopes:
        if envelope.key in told:
            filled = text.fill(message, envelope)
            assert told[envelope.key] == {
                "subject": filled["subject"],
                "text/plain": filled["text"],
                "text/html": filled["html"],
            }


@unhurried
@given(messages, people)
def test_a_request_keeps_the_providers_limits(message: Message, envelopes: list[Envelope]) -> None:
    for mail in mails(ACCOUNT, message, envelopes, []):
        to = [person["to"][0]["email"].lower() for person in mail.people]
        assert len(to) == len(set(to))
        for person in mail.people:
            size = len(json.dumps(person.get("substitutions", {}), ensure_ascii=False).encode())
            assert size <= MAX_SUBSTITUTIONS + 4 * len(NAMES) * 4  # json puts blanks between


@unhurried
@given(messages, people)
def test_the_body_is_what_the_sdk_would_have_written(
    message: Message, envelopes: list[Envelope]
) -> None:
    for mail in mails(ACCOUNT, message, envelopes, []):
        request = REQUESTS.request(mail)
        assert json.loads(request.body) == as_json({**mail.shared, "personalizations": mail.people})
        assert (request.method, request.url) == ("POST", "https://api.sendgrid.com/v3/mail/send")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("[[[[x:y]]name]]", ""),
        ("[[[x:y]][name]]", ""),
        ("[[na[[x:y]]me]]", ""),
        ("[[name[[x:y]]", "]]"),
        ("[[x:y]]name]]", "[["),
    ],
)
def test_brackets_about_a_value_make_no_marker(part: str, value: str) -> None:
    told = Message(
        "m1",
        "email",
        "en",
        {"subject": part, "text": part + "[[name]]", "html": part},
        {"x:y": Slot(9), "name": Slot(9)},
    )
    given_values = {"x:y": value, "name": "Ana"}
    (mail,) = mails(ACCOUNT, told, [Envelope("d0", "a@b.example", given_values)], [])
    assert read(mail)["d0"]["text/plain"] == part.replace("[[x:y]]", value) + "Ana"


@pytest.mark.parametrize(
    ("value", "alone"), [("x" * 900, False), ("é" * 2_400, False), ("&" * 2_500, True)]
)
def test_who_takes_too_much_room_goes_alone(value: str, *, alone: bool) -> None:
    told = Message(
        "m1",
        "email",
        "en",
        {"subject": "s", "text": "[[name]]", "html": "h"},
        {"name": Slot(4_000)},
    )
    (mail,) = mails(ACCOUNT, told, [Envelope("d0", "a@b.example", {"name": value})], [])
    assert ("substitutions" not in mail.people[0]) == alone
    assert read(mail)["d0"]["text/plain"] == value


def as_json(body: dict[str, Any]) -> Any:
    """A body once through JSON, as the SDK writes it."""
    return json.loads(json.dumps(body))


def test_a_person_is_told_from_the_next() -> None:
    mail = Mail(("d0", "d1"), ({"n": 0}, {"n": 1}), {"subject": "[]}", "personalizations": "x"})
    body = json.loads(REQUESTS.request(mail).body)
    assert body == {"subject": "[]}", "personalizations": [{"n": 0}, {"n": 1}]}


class Otherwise(SendgridRequests):
    def _built(self, body: Mapping[str, Any]) -> Any:
        return SdkRequest("http://127.0.0.1/", data=b'{"personalizations": [ ]}')


def test_an_sdk_that_writes_otherwise_is_noticed() -> None:
    with pytest.raises(RuntimeError, match="another way"):
        Otherwise(ACCOUNT).request(Mail((), (), {}))

"""Planted names, numbers, addresses and tokens are found in nothing that is kept or shown.

Sealed rows of the ledger and the providers' own record are where they belong. Everything
else is searched, with imports, inserts, requests and providers made to fail on the way.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from dispatcher.demo.people import COLUMNS, Person
from tests.stories.house import WORKERS, House, person, phone, until

NAME = "Zebulon Quarrington"
CANARIES = tuple(
    person(
        7_000 + n,
        ("consumer", "enterprise", "employee")[n % 3],
        name=f"{NAME} {n}",
        phone=phone(17_000 + n),
        email=f"zq-canary-{n}@mail.example.com",
        # Who has a token is not reached by the inbox.
        fcm_token=f"{n:022d}:APA91b" + "canaryZq" * 17 if n % 2 else "",
        inbox=f"canary-inbox-{n}",
    )
    for n in range(60)
)
NEEDLES = re.compile(
    "|".join(
        [
            *(NAME, "Quarrington", "zq-canary", "canaryZq", "canary-inbox", "666-canary"),
            *(re.escape(each.phone.removeprefix("+1")) for each in CANARIES),
        ]
    ),
    re.IGNORECASE,
)
BROKEN = (
    {"status": 400, "code": 21211, "count": 3},
    {"status": 500, "count": 2},
    {"reset": "after", "count": 2},
    {"garbage": "body", "count": 2},
    {"garbage": "wire", "count": 2},
)


def csv_of(*people: Person) -> bytes:
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow(COLUMNS)
    writer.writerows(each.row() for each in people)
    return written.getvalue().encode()


@pytest.fixture
def told(house: House) -> Iterator[list[str]]:
    """What callers were told and what stood in logs, queues and metrics, by the end."""
    found: list[str] = []
    yield found
    house.sql("ALTER TABLE inbox_message DROP CONSTRAINT IF EXISTS story")
    house.sql("ALTER TABLE contact_point DROP CONSTRAINT IF EXISTS story")


def _import(house: House, body: bytes) -> str:
    answer = house.operator.http.post(
        "/v1/recipients/import", content=body, headers={"Content-Type": "text/csv"}
    )
    return f"{answer.status_code} {answer.text} {answer.headers}"


def _wrong_requests(house: House) -> Iterator[str]:
    """Answers to requests that carry a canary where it is wrong."""
    good = CANARIES[0]
    calls = [
        ("POST", "/v1/incidents", {"title": NAME, "severity": NAME, "zone": good.email}),
        ("POST", "/v1/suppressions", {"kind": "phone", "address": f"{NAME} 666-canary"}),
        ("POST", "/v1/suppressions", {"kind": "email", "address": good.email, "reason": NAME}),
        ("PATCH", f"/v1/recipients/{good.id}", {"email": ["zq-canary-@@example"], "x": NAME}),
        ("PATCH", f"/v1/recipients/{good.id}", {"phone": ["666-canary"], "name": NAME + "\x07"}),
        ("POST", "/v1/inbox/tokens", {"recipient": f"{NAME}"}),
    ]
    for method, path, body in calls:
        answer = house.operator.http.request(method, path, json=body)
        assert answer.status_code >= 400, (method, path)
        yield answer.text
    broken = f'{{"title": "{NAME}", "severity": }}'.encode()
    headers = {"Content-Type": "application/json"}
    yield house.operator.http.post("/v1/incidents", content=broken, headers=headers).text
    yield house.operator.http.get(f"/v1/recipients/{good.email}").text
    yield house.operator.http.get("/v1/inbox", params={"token": "canaryZq" * 12}).text


def _failing_inserts(house: House) -> Iterator[str]:
    """A constraint that the canaries break, in the import and in the workers."""
    house.sql("ALTER TABLE contact_point ADD CONSTRAINT story CHECK (kind <> 'phone') NOT VALID")
    fresh = [replace(each, id=f"x{each.id}", phone=phone(18_000)) for each in CANARIES[:1]]
    yield _import(house, csv_of(*fresh))
    good = CANARIES[1]
    patched = house.operator.http.patch(
        f"/v1/recipients/{good.id}", json={"phone": [phone(18_001)]}
    )
    assert patched.status_code >= 400
    yield patched.text
    house.sql("ALTER TABLE contact_point DROP CONSTRAINT story")
    house.sql("ALTER TABLE inbox_message ADD CONSTRAINT story CHECK (title = '') NOT VALID")


def _in_valkey(house: House) -> Iterator[str]:
    """Every key with all it holds, while batches wait in the queues."""
    with redis.Redis.from_url(house.stack.addresses.broker_url) as valkey:
        for key in valkey.scan_iter():
            kind = valkey.type(key)
            match kind:
                case b"list":
                    held: object = valkey.lrange(key, 0, -1)
                case b"set":
                    held = valkey.smembers(key)
                case b"zset":
                    held = valkey.zrange(key, 0, -1)
                case b"hash":
                    held = valkey.hgetall(key)
                case _:
                    held = valkey.get(key)
            yield f"{key!r} {held!r}"


def test_nobody_is_named_outside_the_sealed_ledger(house: House, told: list[str]) -> None:
    """Logs, keys, payloads, metrics, documents: none holds a canary, whatever fails."""
    house.people(CANARIES)
    wrong = replace(CANARIES[0], id="w1", phone="666-canary", email="zq-canary@", locale=NAME)
    told.append(_import(house, csv_of(wrong)))
    told.append(_import(house, csv_of(CANARIES[0]) + f'"{NAME}'.encode()))
    told.append(_import(house, f"{NAME},zq-canary\n1,2\n".encode("utf-16")))
    told += _wrong_requests(house)
    told += _failing_inserts(house)
    for provider in ("twilio", "sendgrid", "x", "fcm"):
        for fault in BROKEN:
            house.sandbox.fault(provider, **fault)

    with house.frozen(*WORKERS):
        updates = [house.open()["update"]["id"] for _ in range(3)]
        waiting = list(_in_valkey(house))
        assert any("dispatcher.plan" in held for held in waiting)
        told += waiting
    for update in updates:
        house.when(update, lambda now: now["planned"] > 0)
    until(lambda: "adapter.bug" in house.log("post") + house.log("desk"), what="a failing insert")
    with house.frozen("post"):
        told += _in_valkey(house)
    for update in updates:
        numbers = house.when(update, lambda now: now["by_state"]["sending"] == 0)
        told += [str(numbers), str(house.rows(update))]
        told.append(house.operator.http.get(f"/v1/updates/{update}/deliveries").text)
    told += _in_valkey(house)
    told.append(house.operator.http.get("/metrics").text)
    told.append(str(house.operator.get("/v1/incidents")))
    told.append(str(house.sql("SELECT outcome, reason, detail FROM attempt")))
    told.append(str(house.sql("SELECT detail FROM audit")))
    logs = sorted((house.folder / "log").glob("*.log*"))
    assert {log.stem for log in logs} >= {"api", "desk", "post", "beat", "postgres", "valkey"}
    told += [log.read_text(errors="replace") for log in logs]

    assert house.sandbox.struck() > 10
    planted = {each.email for each in CANARIES} | {each.phone for each in CANARIES}
    until(
        # Whose requests the faults struck is tried again in a while, and either will do.
        lambda: planted & {entry["address"] for entry in house.sandbox.outbox()},
        what="a canary where the search must find one",
    )
    assert NEEDLES.search(str(house.sandbox.outbox()))
    leaks = {match.group() for text in told for match in NEEDLES.finditer(text)}
    assert leaks == set(), [
        text[max(0, match.start() - 200) : match.end() + 80]
        for text in told
        if (match := NEEDLES.search(text))
    ][:3]

"""One account breaks in the middle of it: another of the same kind goes on, and gives back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stories.house import House, living, person, phone

CROWD = 300
BACKUP = {"twilio_sms.backup": {"sender": "+15005550006", "rate": "20000"}}


@pytest.fixture
def twofold(tmp_path: Path) -> Iterator[House]:
    """A house with two accounts for SMS."""
    with living(tmp_path / "house", channels=BACKUP) as house:
        yield house


def by_account(house: House) -> dict[str, int]:
    counts: dict[str, Any] = house.sandbox.http.get("/_sandbox/counts").json()["twilio"]
    return {name: int(many) for name, many in counts["by_account"].items()}


def test_a_broken_account_loses_nobody_and_gets_its_work_back(twofold: House) -> None:
    house = twofold
    house.people(person(n, phone=phone(n)) for n in range(CROWD))
    house.sandbox.fault("twilio", status=401, code=20003, account=1)
    first = house.open("consumers")["update"]["id"]
    house.complete(first)
    assert by_account(house) == {"1": 0, "2": CROWD}
    shown = house.operator.get("/readyz")["breakers"]
    assert [(b["adapter"], b["reason"]) for b in shown] == [("twilio_sms", "credentials")]
    assert 'dispatcher_breakers_open{adapter="twilio_sms"} 1.0' in (
        house.operator.http.get("/metrics").text
    )

    assert house.judged(first) == {"accepted": CROWD}

    house.sandbox.clear()
    house.sql("UPDATE breaker SET probe_at = now(), probing_batch = NULL")
    second = house.open("consumers")["update"]["id"]
    house.complete(second)
    assert by_account(house) == {"1": CROWD, "2": 0}
    assert house.operator.get("/readyz")["breakers"] == []
    assert house.judged(second) == {"accepted": CROWD}

"""Answers that got lost: the provider is asked, nobody is lost and nobody told twice."""

import pytest

from tests.stories.house import House, person, phone, until

LISTED_AT_ONCE = {"twilio_list_lag": 0}


@pytest.fixture
def asking(house: House) -> House:
    """A house whose simulator lists what it took at once: its lag has a test of its own."""
    assert house.sandbox.http.put("/_sandbox/options", json=LISTED_AT_ONCE).is_success
    return house


def wait_no_longer(house: House) -> None:
    """As if the rows had been in doubt for as long as their provider wants."""
    house.sql(
        "UPDATE doubt SET doubted_at = doubted_at - interval '5 minutes',"
        " ask_at = ask_at - interval '5 minutes' WHERE asked = 0"
    )


def test_the_provider_is_asked_before_anything_is_sent_again(asking: House) -> None:
    """Some answers are lost before it was taken, some after: all end accepted, once each."""
    house = asking
    house.people(person(n, phone=phone(n)) for n in range(60))
    house.sandbox.fault("twilio", reset="after", count=4)
    house.sandbox.fault("twilio", reset="before", count=4)
    update = house.open("consumers")["update"]["id"]
    now = house.when(
        update,
        lambda now: (
            now["by_state"]["unknown"] == 8
            and now["by_state"]["pending"] + now["by_state"]["sending"] == 0
        ),
    )
    assert not now["settled"]
    assert house.sandbox.counts("twilio")["messages"] == 56
    wait_no_longer(house)
    house.complete(update)
    assert house.judged(update) == {"accepted": 60}
    took = house.sandbox.counts("twilio")
    assert took["messages"] == took["addresses"] == 60
    reasons = sorted(row["reason"] for row in house.rows(update) if row["reason"] != "ok")
    assert reasons == ["found"] * 4
    assert sorted(row["attempts"] for row in house.rows(update))[-5:] == [1, 2, 2, 2, 2]


def test_who_cannot_be_told_about_stays_unknown_and_says_so(asking: House) -> None:
    """The list cannot be read: nothing is repeated, and the rows count as not told."""
    house = asking
    house.people(person(n, phone=phone(n)) for n in range(12))
    house.sandbox.fault("twilio", reset="after", count=3)
    house.sandbox.fault("twilio", status=500, on="other")
    update = house.open("consumers")["update"]["id"]
    house.when(update, lambda now: now["by_state"]["unknown"] == 3)
    wait_no_longer(house)
    asked = "SELECT count(*) FROM doubt WHERE asked > 0"
    until(lambda: house.sql(asked) == [(3,)], what="the asking")
    assert not house.progress(update)["settled"]
    house.sql("UPDATE doubt SET doubted_at = doubted_at - interval '2 hours', ask_at = now()")
    numbers = house.complete(update)
    assert numbers["by_state"]["unknown"] == 3
    assert len(house.rows(update, told="no")) == 3
    assert house.judged(update) == {"accepted": 9, "unknown": 3}
    assert house.sandbox.counts("twilio")["messages"] == 12

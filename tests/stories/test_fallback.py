"""Whom one channel does not reach is told by the next that the audience names."""

from collections import Counter

from tests.stories.house import House, person, phone


def mail(number: int) -> str:
    return f"r{number}@mail.example.com"


def test_who_cannot_be_told_by_sms_is_told_by_mail(house: House) -> None:
    """Refused numbers fall to mail at once, those without another way say so; all balances."""
    house.people(
        [
            *(person(n, phone=phone(n), email=mail(n)) for n in range(20)),
            *(person(n, phone=phone(n)) for n in range(20, 22)),
        ]
    )
    refused = (3, 7, 21)
    for number in refused:
        house.sandbox.fault("twilio", status=400, code=21610, match=phone(number))
    update = house.open("consumers")["update"]["id"]
    numbers = house.complete(update)
    assert numbers["planned"] == 24
    rows = house.rows(update)
    assert Counter((row["channel"], row["state"]) for row in rows) == {
        ("sms", "accepted"): 19,
        ("sms", "failed"): 3,
        ("email", "accepted"): 2,
    }
    mailed = {row["recipient"] for row in rows if row["channel"] == "email"}
    assert mailed == {"r3", "r7"}
    assert {row["recipient"] for row in house.rows(update, told="no")} == {"r21"}
    assert sorted(e["address"] for e in house.sandbox.outbox("sendgrid")) == [mail(3), mail(7)]
    assert house.judged(update) == {"accepted": 21, "failed": 3}


def test_what_could_not_start_in_time_goes_the_next_way(house: House) -> None:
    """SMS is refused for now past `start_by`: pending rows give way to mail, none is told twice."""
    house.people(person(n, phone=phone(n), email=mail(n)) for n in range(10))
    house.sandbox.fault("twilio", status=429, retry_after=120)
    update = house.open("consumers")["update"]["id"]
    house.when(
        update,
        lambda now: (
            now["by_state"]["sending"] == 0
            and now["by_state"]["pending"] == 10
            and house.sandbox.counts("twilio")["requests"] > 0
        ),
    )
    house.sql("UPDATE release SET released_at = now() - interval '11 minutes'")
    house.complete(update)
    rows = house.rows(update)
    assert Counter((row["channel"], row["state"], row["reason"]) for row in rows) == {
        ("sms", "superseded", "next_step"): 10,
        ("email", "accepted", "ok"): 10,
    }
    assert house.sandbox.counts("twilio")["messages"] == 0

"""What providers refuse: for now, for good, to one person, to everybody."""

from collections import Counter

from tests.stories.house import House, at, fact, person, phone, until


def test_what_is_refused_for_now_is_told_later(house: House) -> None:
    """429 with Retry-After: not before its time, then told, once; the tries are on record."""
    house.people(person(n, phone=phone(n)) for n in range(30))
    house.sandbox.fault("twilio", status=429, retry_after=2, count=30)
    update = house.open("consumers")["update"]["id"]
    house.complete(update)
    assert house.judged(update) == {"accepted": 30}
    rows = house.rows(update)
    assert {row["attempts"] for row in rows} == {2}
    assert house.sandbox.counts("twilio")["requests"] == 60
    waits = house.sql(
        "SELECT extract(epoch FROM min(l.at - f.at)) FROM attempt f JOIN attempt l"
        " USING (delivery_id) WHERE f.outcome = 'try_later' AND l.outcome = 'accepted'"
    )
    assert waits[0][0] >= 2


def test_nothing_is_sent_past_its_expiry(house: House) -> None:
    """Refused until it is too late: nobody is told then, and the ledger says expired."""
    house.people(person(n, phone=phone(n)) for n in range(10))
    house.sandbox.fault("twilio", status=429)
    update = house.open("consumers", expires_at=at(3))["update"]["id"]
    numbers = house.complete(update)
    house.sandbox.clear_faults()
    states = Counter((row["state"], row["reason"]) for row in house.rows(update))
    assert set(states) <= {("expired", "expired"), ("failed", "expires_first")}
    assert numbers["by_state"]["accepted"] == 0
    assert house.sandbox.counts("twilio")["messages"] == 0


def test_a_broken_account_holds_its_rows_and_no_others(house: House) -> None:
    """401: no further window goes out by SMS, its rows stay pending, e-mail is not touched."""
    house.people(
        person(n, "enterprise", phone=phone(n), email=f"r{n}@mail.example.com") for n in range(450)
    )
    house.sandbox.fault("twilio", status=401, code=20003)
    update = house.open("enterprise")["update"]["id"]
    house.when(update, lambda now: now["by_state"]["accepted"] == 450)
    numbers = house.when(
        update,
        lambda now: (
            now["by_state"]["sending"] == 0 and house.sandbox.counts("twilio")["errors"] > 0
        ),
    )
    assert numbers["by_channel"]["email"]["accepted"] == 450
    assert numbers["by_channel"]["sms"]["pending"] == 450
    assert not numbers["settled"]
    breaker = house.sql("SELECT adapter, sender, reason FROM breaker")
    assert breaker == [("twilio_sms", "72345", "credentials")]
    asked = house.sandbox.counts("twilio")["requests"]
    assert asked < 450
    stopped = house.operator.post(f"/v1/updates/{update}/stop")
    assert stopped["saved"] == 450
    assert house.sandbox.counts("twilio")["requests"] == asked


def test_a_refused_message_pauses_and_a_person_lets_it_go_on(house: House) -> None:
    """After three people's refusals the rest wait; resume sends them; the queue is not spun."""
    house.people(person(n, phone=phone(n)) for n in range(450))
    house.sandbox.fault("twilio", status=400, code=21617, count=5)
    update = house.open("consumers")["update"]["id"]
    paused = "SELECT count(*) FROM message WHERE paused_at IS NOT NULL"
    until(lambda: house.sql(paused) == [(1,)])
    numbers = house.when(update, lambda now: now["by_state"]["sending"] == 0)
    assert numbers["by_state"]["failed"] == 5
    assert numbers["by_state"]["pending"] > 0
    leased = house.sql("SELECT sum(lease_epoch) FROM batch WHERE update_id = %s", update)
    house.people([person(900, "enterprise", phone=phone(900))])
    other = house.open("enterprise")["update"]["id"]
    house.complete(other)
    again = house.sql("SELECT sum(lease_epoch) FROM batch WHERE update_id = %s", update)
    assert again == leased
    assert house.progress(update)["by_state"]["failed"] == 5
    house.operator.post(f"/v1/updates/{update}/resume")
    numbers = house.complete(update)
    assert numbers["by_state"]["accepted"] == 445
    assert house.judged(update, other) == {"accepted": 446, "failed": 5}


def test_a_refused_recipient_is_never_sent_to_again(house: House) -> None:
    """Opted out: that row fails, the address is suppressed, the next update leaves it out."""
    house.people(person(n, phone=phone(n)) for n in range(12))
    house.sandbox.fault("twilio", status=400, code=21610, match=phone(7))
    opened = house.open("consumers")
    first = opened["update"]["id"]
    house.complete(first)
    failed = house.rows(first, state="failed")
    assert [(row["recipient"], row["reason"]) for row in failed] == [("r7", "opted_out")]
    shown = house.operator.get("/v1/suppressions")["suppressions"]
    assert [(s["reason"], s["source"]) for s in shown] == [("opted_out", "twilio_sms")]
    cause = [fact("cause", {"code": "software"})]
    second = house.add(opened["id"], "identified", "consumers", facts=cause)["update"]["id"]
    house.complete(second)
    skipped = house.rows(second, state="skipped")
    assert [(row["recipient"], row["reason"]) for row in skipped] == [("r7", "suppressed")]
    assert house.judged(first, second) == {"accepted": 22, "failed": 1, "skipped": 1}

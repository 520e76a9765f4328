"""The audit tells each kind of loss and of double from a ledger that is true."""

from pathlib import Path

import pytest

from dispatcher.demo.audit import Entry, Row, entries, examine
from dispatcher.demo.census import Verdict

PEOPLE = """id,name,locale,segment,region,services,tags,phone,email,fcm_token,inbox
a,A,en,consumer,US,voice,,+12125550100,,,
b,B,en,consumer,US,voice,,,b@example.com,,
c,C,en,consumer,US,voice,,,,,app-c
d,D,en,consumer,US,voice,,,,token-d,
"""
TOLD = {name: Verdict("consumers") for name in "abcd"}
ROWS = {
    "a": Row("1", "a", "consumers", "sms", "accepted", "twilio_sms", "SM1"),
    "b": Row("2", "b", "consumers", "email", "accepted", "sendgrid_email", "M1:2"),
    "c": Row("3", "c", "consumers", "push", "accepted", "inbox_push", "3"),
    "d": Row("4", "d", "consumers", "push", "delivered", "fcm_push", "F1"),
}
HELD = {
    "a": Entry("twilio", "SM1", "+12125550100", "x"),
    "b": Entry("sendgrid", "M1:2", "B@example.com", "y"),
    "d": Entry("fcm", "F1", "token-d", "z"),
}


@pytest.fixture
def people(tmp_path: Path) -> Path:
    file = tmp_path / "people.csv"
    file.write_text(PEOPLE, encoding="utf-8")
    return file


def found(people: Path, *, rows=None, held=None, inboxes=None, verdicts=None):
    return examine(
        people,
        updates=[list((rows or ROWS).values())],
        verdicts=[verdicts or TOLD],
        held=list((HELD if held is None else held).values()),
        inboxes={"3": 1} if inboxes is None else inboxes,
        texts=[[("consumers", "sms", "x")]],
    )


def test_a_true_ledger_has_nothing_lost_and_nothing_twice(people: Path) -> None:
    findings = found(people)
    assert (findings.lost, findings.duplicates) == (0, 0)
    assert (findings.rows, findings.accepted, findings.held, findings.covered) == (4, 4, 4, 4)


@pytest.mark.parametrize("missing", ["a", "b", "d"])
def test_an_accepted_row_that_no_outbox_holds_is_lost(people: Path, missing: str) -> None:
    held = {name: entry for name, entry in HELD.items() if name != missing}
    assert found(people, held=held).not_in_outbox == 1


def test_an_accepted_row_that_is_in_no_inbox_is_lost(people: Path) -> None:
    assert found(people, inboxes={}).lost == 1


def test_one_message_does_not_tell_two(people: Path) -> None:
    rows = ROWS | {"more": Row("5", "a", "consumers", "sms", "accepted", "twilio_sms", "SM1")}
    assert found(people, rows=rows).not_in_outbox == 1


def test_a_message_at_another_persons_address_is_lost(people: Path) -> None:
    held = HELD | {"a": Entry("twilio", "SM1", "+12125550199", "x")}
    assert found(people, held=held).at_another_address == 1


def test_somebody_without_a_row_is_lost_whatever_the_counters_say(people: Path) -> None:
    rows = {name: row for name, row in ROWS.items() if name != "a"}
    held = {name: entry for name, entry in HELD.items() if name != "a"}
    findings = found(people, rows=rows, held=held)
    assert (findings.without_row, findings.duplicates) == (1, 0)


def test_a_row_of_another_audience_is_no_row(people: Path) -> None:
    rows = ROWS | {"a": ROWS["a"]._replace(audience="media")}
    assert found(people, rows=rows).without_row == 1


def test_who_is_not_due_needs_no_row(people: Path) -> None:
    rows = {name: row for name, row in ROWS.items() if name != "a"}
    held = {name: entry for name, entry in HELD.items() if name != "a"}
    verdicts = TOLD | {"a": Verdict(reason="not_affected")}
    assert found(people, rows=rows, held=held, verdicts=verdicts).lost == 0


def test_a_second_message_is_a_duplicate(people: Path) -> None:
    held = HELD | {"again": Entry("twilio", "SM2", "+12125550100", "x")}
    assert found(people, held=held).duplicates == 1


def test_what_its_key_shows_once_is_no_duplicate_however_often_it_was_sent(people: Path) -> None:
    rows = {**ROWS, "d": ROWS["d"]._replace(id="4")}
    held = {**HELD, "d": HELD["d"]._replace(key="4")}
    again = {"again": Entry("fcm", "F2", "token-d", "z", "4")}
    findings = found(people, rows=rows, held=held | again)
    assert (findings.duplicates, findings.covered) == (0, 5)
    other = {"other": Entry("fcm", "F2", "token-d", "z", "9")}
    assert found(people, rows=rows, held=held | other).duplicates == 1


def test_a_second_inbox_message_is_a_duplicate(people: Path) -> None:
    assert found(people, inboxes={"3": 2}).duplicates == 1
    assert found(people, inboxes={"3": 1, "9": 1}).duplicates == 1


def test_a_message_of_a_row_in_doubt_is_neither(people: Path) -> None:
    rows = ROWS | {"doubt": Row("5", "a", "consumers", "sms", "unknown", "twilio_sms", None)}
    held = HELD | {"again": Entry("twilio", "SM2", "+12125550100", "x")}
    findings = found(people, rows=rows, held=held)
    assert (findings.lost, findings.duplicates, findings.in_doubt) == (0, 0, 1)


def test_a_row_in_doubt_excuses_one_message_of_its_own_text_only(people: Path) -> None:
    rows = ROWS | {"doubt": Row("5", "a", "consumers", "sms", "unknown", "twilio_sms", None)}
    two = {
        "again": Entry("twilio", "SM2", "+12125550100", "x"),
        "and again": Entry("twilio", "SM3", "+12125550100", "x"),
    }
    assert found(people, rows=rows, held=HELD | two).duplicates == 1
    other = {"other": Entry("twilio", "SM2", "+12125550100", "another text")}
    assert found(people, rows=rows, held=HELD | other).duplicates == 1
    elsewhere = {"elsewhere": Entry("twilio", "SM2", "+12125550111", "x")}
    assert found(people, rows=rows, held=HELD | elsewhere).duplicates == 1


def test_a_row_in_doubt_excuses_its_text_though_nobody_else_got_it(people: Path) -> None:
    rows = {"doubt": Row("5", "a", "consumers", "sms", "unknown", "twilio_sms", None)}
    held = {"a": Entry("twilio", "SM2", "+12125550100", "x")}
    findings = found(people, rows=rows, held=held, inboxes={}, verdicts={"a": TOLD["a"]})
    assert (findings.lost, findings.duplicates, findings.covered) == (0, 0, 1)


def test_where_a_message_carries_its_delivery_the_key_decides(people: Path) -> None:
    rows = ROWS | {"doubt": Row("5", "b", "consumers", "email", "unknown", "sendgrid_email", None)}
    own = HELD | {"own": Entry("sendgrid", "M2:5", "b@example.com", "whatever", "5")}
    assert found(people, rows=rows, held=own).duplicates == 0
    again = own | {"again": Entry("sendgrid", "M3:5", "b@example.com", "whatever", "5")}
    assert found(people, rows=rows, held=again).duplicates == 1
    other = HELD | {"other": Entry("sendgrid", "M2:6", "b@example.com", "whatever", "6")}
    assert found(people, rows=rows, held=other).duplicates == 1


def test_a_failed_row_excuses_nothing(people: Path) -> None:
    rows = ROWS | {"a": ROWS["a"]._replace(state="failed", ref=None)}
    assert found(people, rows=rows).duplicates == 1


def test_outbox_lines_become_entries_with_the_ledgers_refs() -> None:
    import orjson

    lines = [
        b'{"provider":"sendgrid","ref":"M1","key":"2","address":"b@x","content_hash":"y"}',
        b'{"provider":"twilio","ref":"SM1","key":null,"address":"+1","content_hash":"x"}',
    ]
    assert list(entries(lines, orjson.loads)) == [
        Entry("sendgrid", "M1:2", "b@x", "y", "2"),
        Entry("twilio", "SM1", "+1", "x"),
    ]

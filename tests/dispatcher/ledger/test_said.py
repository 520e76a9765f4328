"""What an audience was told before: only that of which something left, or may have."""

import pytest

from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.said import Reached, last_said, reached
from tests.dispatcher.ledger.crowded import Said, Some, opened, told


def later(ledger: Ledger, incident: str) -> str:
    """A newer update, which is not released."""
    return told(ledger, incident, Said([], phase="resolved"))


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        ("accepted", True),
        ("delivered", True),
        ("sending", True),
        ("unknown", True),
        ("stopped", False),
        ("pending", False),
        ("failed", False),
        ("superseded", False),
        ("expired", False),
        ("skipped", False),
    ],
)
def test_an_audience_was_told_what_left_or_may_have(
    ledger: Ledger, state: str, counts: bool
) -> None:
    incident = opened(ledger)
    first = told(ledger, incident, Said([Some("consumers", "sms", "accepted", 1, 3)]))
    second = told(
        ledger,
        incident,
        Said(
            [
                Some("consumers", "sms", state, 1, 3),
                # What others were told says nothing of this audience.
                Some("media", "sms", "accepted", 1, 3),
            ],
            phase="identified",
        ),
    )
    with ledger.read() as conn:
        found = last_said(conn, later(ledger, incident), "consumers")
        went = reached(conn, incident, "consumers")
    assert {each.update_id for each in found} == {second if counts else first}
    assert went[second].left is counts
    assert went[first] == Reached(planned=3, told=3, perhaps=0)


def test_what_was_stopped_on_the_way_says_how_many_were_told(ledger: Ledger) -> None:
    incident = opened(ledger)
    stopped = told(
        ledger,
        incident,
        Said(
            [
                Some("consumers", "sms", "accepted", 1, 4),
                Some("consumers", "sms", "unknown", 5, 6),
                Some("consumers", "sms", "stopped", 7, 20),
                Some("consumers", "sms", "skipped", 21, 25, "no_contact"),
            ],
            state="stopped",
        ),
    )
    with ledger.read() as conn:
        (said,) = last_said(conn, later(ledger, incident), "consumers")
        went = reached(conn, incident, "consumers")
    assert (said.stopped, said.told) == (True, 4)
    assert went == {stopped: Reached(planned=20, told=4, perhaps=2)}

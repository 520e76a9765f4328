"""What a provider's words mean for a row: the same in any order, however often they come."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.delivery.evidence import Result, judge
from dispatcher.ledger.counting import State
from dispatcher.ledger.receipts import Row, Waiting

NOON = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
MOVED_BY_NOBODY = (State.PENDING, State.UNKNOWN, State.STOPPED, State.EXPIRED, State.FAILED)


def row(state: State, *, ref: str | None = None, tried: bool = True, at: int | None = None) -> Row:
    return Row("d", "u", 1, state, tried, ref, None if at is None else _at(at))


def word(status: str, at: int = 0, *, id: int = 1, ref: str = "R", reason: str = "ok") -> Waiting:
    return Waiting(id, "twilio_sms", "d", ref, status, reason, _at(at))


def _at(seconds: int) -> datetime:
    return NOON + timedelta(seconds=seconds)


def moved(before: Row, *words: Waiting) -> tuple[Row, tuple[Result | None, ...]]:
    """The row after its events, and what became of each."""
    verdict = judge(before, words)
    if verdict.change is None:
        return before, verdict.results
    change = verdict.change
    after = replace(
        before,
        state=change.state,
        ref=change.fresh or before.ref,
        receipt_at=change.receipt_at,
    )
    assert change.was == before
    assert (change.fresh is not None) == (before.ref is None)
    return after, verdict.results


ACCEPTED = row(State.ACCEPTED, ref="R")

STEPS = {
    "taken says nothing new": (ACCEPTED, "taken", State.ACCEPTED, Result.NOTED),
    "delivered": (ACCEPTED, "delivered", State.DELIVERED, Result.APPLIED),
    "failed": (ACCEPTED, "failed", State.FAILED, Result.APPLIED),
    "doubt ends": (row(State.UNKNOWN), "taken", State.ACCEPTED, Result.APPLIED),
    "doubt ends well": (row(State.UNKNOWN), "delivered", State.DELIVERED, Result.APPLIED),
    "doubt ends badly": (row(State.UNKNOWN), "failed", State.FAILED, Result.APPLIED),
    "it had left before the stop": (
        row(State.STOPPED),
        "delivered",
        State.DELIVERED,
        Result.APPLIED,
    ),
    "what waits to be tried again was taken": (
        row(State.PENDING),
        "taken",
        State.ACCEPTED,
        Result.APPLIED,
    ),
    "what was never tried": (
        row(State.PENDING, tried=False),
        "delivered",
        State.PENDING,
        Result.NOT_TRIED,
    ),
    "on its way": (row(State.SENDING), "delivered", State.SENDING, None),
    "delivered after all": (
        row(State.FAILED, ref="R", at=-1),
        "delivered",
        State.DELIVERED,
        Result.APPLIED,
    ),
    "an old failure": (
        row(State.DELIVERED, ref="R", at=1),
        "failed",
        State.DELIVERED,
        Result.STALE,
    ),
    "a later failure": (
        row(State.DELIVERED, ref="R", at=-1),
        "failed",
        State.FAILED,
        Result.APPLIED,
    ),
    "a person's word has no ref of the provider": (
        row(State.ACCEPTED, ref="settled:d"),
        "delivered",
        State.DELIVERED,
        Result.APPLIED,
    ),
}


@pytest.mark.parametrize("case", STEPS)
def test_each_word_has_its_effect(case: str) -> None:
    before, status, state, result = STEPS[case]
    after, results = moved(before, word(status))
    assert (after.state, results) == (state, (result,))


def test_an_acceptance_that_was_not_known_comes_with_its_ref() -> None:
    change = judge(row(State.UNKNOWN), [word("taken")]).change
    assert change is not None
    assert (change.fresh, change.adapter, change.reason) == ("R", "twilio_sms", "ok")


def test_a_failure_tells_its_reason() -> None:
    words = [word("taken"), word("failed", 3, id=2, reason="unreachable")]
    change = judge(row(State.UNKNOWN), words).change
    assert change is not None
    assert (change.state, change.reason) == (State.FAILED, "unreachable")


def test_another_ref_moves_nothing_and_is_told() -> None:
    after, results = moved(ACCEPTED, word("delivered", ref="OTHER"))
    assert (after, results) == (ACCEPTED, (Result.SECOND_REF,))


words = st.lists(
    st.tuples(st.sampled_from(["taken", "delivered", "failed"]), st.integers(0, 5)), max_size=6
)


@given(said=words, state=st.sampled_from(MOVED_BY_NOBODY), data=st.data())
def test_order_and_repetition_do_not_matter(
    said: list[tuple[str, int]], state: State, data: st.DataObject
) -> None:
    events = [word(status, at, id=n) for n, (status, at) in enumerate(said)]
    at_once, _ = moved(row(state), *events)
    shuffled = data.draw(st.permutations(events + events[:3]))
    one_by_one = row(state)
    for event in shuffled:
        one_by_one, results = moved(one_by_one, event)
        assert results != (Result.SECOND_REF,)
    assert one_by_one.state == at_once.state
    ends = [event for event in events if event.status != "taken"]
    if ends:
        assert one_by_one.receipt_at == at_once.receipt_at == max(event.at for event in ends)
    elif events:
        assert one_by_one.state is State.ACCEPTED

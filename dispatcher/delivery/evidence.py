"""What a provider's later word means for a row. Pure: no I/O, no clock.

The end does not depend on the order in which the words arrive, nor on how often:

    nothing known of an acceptance   any word with a ref proves one; the row is accepted,
                                     delivered or failed by that word, whatever it was before
    accepted                         delivered or failed
    delivered, failed                the word with the later time of the provider stands, and
                                     failed of two at the same time
    sending                          waits until the worker has recorded what it knows

A word under another ref than the one that stands is a second message: it moves nothing and
is for a person to look at.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from channels.contract import Reason, ReceiptStatus
from dispatcher.ledger.counting import State
from dispatcher.ledger.receipts import Change, Row, Waiting

SETTLED_REF = "settled:"
"""How a ref begins that a person's word stands for; the provider's own fits any of them."""

_MEANS = {
    ReceiptStatus.TAKEN: State.ACCEPTED,
    ReceiptStatus.DELIVERED: State.DELIVERED,
    ReceiptStatus.FAILED: State.FAILED,
}


class Result(StrEnum):
    """What became of an event."""

    APPLIED = "applied"
    NOTED = "noted"
    STALE = "stale"
    UNMATCHED = "unmatched"
    SECOND_REF = "second_ref"
    NOT_TRIED = "not_tried"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What events mean for one row: each one's result, None for one that has to wait, and
    the change, if there is any."""

    results: tuple[Result | None, ...]
    change: Change | None


def judge(row: Row, words: Sequence[Waiting]) -> Verdict:
    """All that is waiting for one row, taken in the order of the provider's own times."""
    order = sorted(range(len(words)), key=lambda n: (words[n].at, words[n].id))
    results: list[Result | None] = [None] * len(words)
    standing, last, prover = row, None, ""
    for place in order:
        word = words[place]
        result, after = _step(standing, word)
        results[place] = result
        if after != standing:
            if standing.ref is None:
                prover = word.adapter
            standing, last = after, word
    if last is None:
        return Verdict(tuple(results), None)
    change = Change(
        was=row,
        adapter=prover,
        state=standing.state,
        # The last word that changed anything is the one that stands.
        reason=last.reason if standing.state is State.FAILED else Reason.OK.value,
        receipt_at=standing.receipt_at,
        fresh=standing.ref if row.ref is None else None,
    )
    return Verdict(tuple(results), change)


def _step(row: Row, word: Waiting) -> tuple[Result | None, Row]:
    if row.state is State.SENDING:
        return None, row
    means = _MEANS[ReceiptStatus(word.status)]
    if row.ref is None:
        if not row.tried:
            return Result.NOT_TRIED, row
        if not word.ref:
            return Result.UNMATCHED, row
        return Result.APPLIED, replace(row, state=means, ref=word.ref, receipt_at=word.at)
    if word.ref not in ("", row.ref) and not row.ref.startswith(SETTLED_REF):
        return Result.SECOND_REF, row
    if means is State.ACCEPTED:
        return Result.NOTED, row
    if row.state is State.ACCEPTED:
        return Result.APPLIED, replace(row, state=means, receipt_at=word.at)
    if row.receipt_at is not None and word.at < row.receipt_at:
        return (Result.NOTED if means is row.state else Result.STALE), row
    if means is row.state:
        return Result.NOTED, replace(row, receipt_at=word.at)
    if word.at == row.receipt_at and means is State.DELIVERED:
        return Result.STALE, row
    return Result.APPLIED, replace(row, state=means, receipt_at=word.at)

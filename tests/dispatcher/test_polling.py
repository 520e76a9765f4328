"""Asking about messages whose end nobody told: when, how often, and what an answer does."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from channels.contract import Receipt, ReceiptStatus
from dispatcher.delivery.intake import Intake
from dispatcher.delivery.polling import Polling
from dispatcher.delivery.receipts import Receipts
from dispatcher.ledger.connection import Ledger
from dispatcher.security.sealing import Sealer
from tests.dispatcher.test_engine import Desk, Scripted, accepting, made

AFTER = 300.0


class Asked(Scripted):
    """A provider that can be asked; it knows only `knows`."""

    def __init__(self, *knows: str, status: ReceiptStatus = ReceiptStatus.DELIVERED) -> None:
        super().__init__(accepting)
        self.knows = knows
        self.status = status
        self.asked: list[str] = []
        self.trouble: BaseException | None = None
        self.patience: asyncio.Event | None = None

    async def poll(self, refs: Sequence[str]) -> Mapping[str, Receipt]:
        self.asked += refs
        if self.trouble is not None:
            raise self.trouble
        if self.patience is not None:
            await self.patience.wait()
        return {
            ref: Receipt(f"{ref}:{self.status}", "", ref, self.status)
            for ref in refs
            if not self.knows or ref in self.knows
        }


@pytest.fixture
async def desk(ledger: Ledger, sealer: Sealer) -> Desk:
    """Five people whose messages were accepted just now."""
    found = made(ledger, sealer, people=5)
    await found.sent(Scripted(accepting))
    return found


def older(desk: Desk, minutes: int) -> None:
    """Let that much time pass."""
    for column in ("accepted_at", "polled_at"):
        desk.sql(f"UPDATE delivery SET {column} = {column} - make_interval(mins => %s)", minutes)
    desk.sql(
        "UPDATE batch SET first_accepted_at = first_accepted_at - make_interval(mins => %s),"
        " poll_at = poll_at - make_interval(mins => %s)",
        minutes,
        minutes,
    )


async def run(desk: Desk, adapter: Any, *, patience: float = 15.0) -> int:
    intake = Intake(desk.ledger, desk.sealer, name=lambda: None, monotonic=lambda: 0.0)
    polling = Polling(
        desk.ledger,
        intake,
        adapters={"scripted": adapter},
        after=AFTER,
        name=lambda: None,
        patience=patience,
    )
    return await polling.run()


def work(desk: Desk) -> None:
    Receipts(
        desk.ledger, name=lambda: None, poll=None, poll_every=30.0, monotonic=lambda: 0.0
    ).work()


async def test_nobody_is_asked_before_the_time_nor_about_what_is_told(desk: Desk) -> None:
    adapter = Asked()
    older(desk, 4)
    assert await run(desk, adapter) == 0
    desk.sql("UPDATE delivery SET state = 'delivered' WHERE seq = 0")
    desk.sql("UPDATE batch SET accepted = 4, delivered = 1")
    older(desk, 2)
    assert await run(desk, adapter) == 4
    work(desk)
    assert desk.states() == {("delivered", "ok"): 5}
    assert desk.imbalances() == []
    assert await run(desk, adapter) == 0


async def test_what_is_still_on_its_way_is_asked_ever_more_seldom(desk: Desk) -> None:
    adapter = Asked(status=ReceiptStatus.TAKEN)
    answered = []
    for minutes in (5, 4, 4, 9, 6, 60, 60, 1_440):
        older(desk, minutes)
        answered.append(await run(desk, adapter))
    assert answered == [5, 0, 5, 0, 5, 5, 0, 0]
    work(desk)
    assert desk.states() == {("accepted", "ok"): 5}


async def test_an_answer_that_did_not_come_is_asked_for_again(desk: Desk) -> None:
    older(desk, 6)
    silent = Asked("somebody else's")
    assert await run(desk, silent) == 0
    assert len(silent.asked) == 5
    older(desk, 3)
    assert await run(desk, Asked()) == 5


@pytest.mark.parametrize("trouble", ["bug", "hang"])
async def test_a_provider_in_trouble_costs_a_bounded_time(desk: Desk, trouble: str) -> None:
    older(desk, 6)
    adapter = Asked()
    if trouble == "bug":
        adapter.trouble = ValueError("+12025550001")
    else:
        adapter.patience = asyncio.Event()
    assert await run(desk, adapter, patience=0.05) == 0
    assert desk.states() == {("accepted", "ok"): 5}


async def test_who_cannot_be_asked_is_not(desk: Desk) -> None:
    older(desk, 6)
    assert await run(desk, Scripted(accepting)) == 0
    assert desk.sql("SELECT poll_at FROM batch") == [(None,)]

"""The in-app push adapter on the shared contract, over an inbox in memory."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from channels.contract import (
    Accepted,
    Adapter,
    Envelope,
    InboxItem,
    Message,
    MessageRefused,
    Reason,
    Severity,
    Slot,
    TryLater,
)
from channels.inbox_push import InboxPush
from channels.transport import Transport
from tests.contracts.adapters import AdapterContract, outcomes_of

EXPIRES = datetime(2026, 3, 1, tzinfo=UTC)


class MemoryInbox:
    """Keeps items once per key; `failure` is raised instead when set."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.items: dict[str, InboxItem] = {}
        self.puts: list[int] = []
        self.threads: set[int] = set()
        self.failure = failure

    def put(self, items: Sequence[InboxItem]) -> None:
        self.threads.add(threading.get_ident())
        self.puts.append(len(items))
        if self.failure is not None:
            raise self.failure
        for item in items:
            self.items.setdefault(item.key, item)


def notice(title: str = "Outage in Dallas", body: str = "Calls fail.", **slots: Slot) -> Message:
    return Message(
        id="m",
        channel="push",
        locale="en",
        parts={"title": title, "body": body},
        slots=slots,
        thread="INC-0042",
        expires_at=EXPIRES,
    )


class TestInboxPush(AdapterContract):
    module = "channels.inbox_push"
    message = notice()
    addresses = ("inbox-of-anna", "inbox-of-bert", "inbox-of-cleo")
    at_limit = {"as much as is seen": notice("t" * 65, "b" * 240), "more": notice("t" * 66, "b")}
    over_limit = {"invisible": notice("\u200b", "b")}

    def build(self, url: str, transport: Transport, timeout: float) -> Adapter:
        return InboxPush(InboxPush.Settings(), transport, MemoryInbox())

    def over(self, inbox: MemoryInbox) -> InboxPush:
        return InboxPush(InboxPush.Settings(), NoTransport(), inbox)

    async def test_a_window_is_stored_in_one_put_off_the_loop(self) -> None:
        inbox = MemoryInbox()
        outcomes = await outcomes_of(self.over(inbox), self.message, self.envelopes(3))

        assert inbox.puts == [3]
        assert inbox.threads.isdisjoint({threading.get_ident()})
        assert outcomes == {f"d{i}": Accepted(f"d{i}", f"inbox:d{i}") for i in range(3)}
        assert inbox.items["d1"] == InboxItem(
            key="d1",
            inbox="inbox-of-bert",
            title="Outage in Dallas",
            body="Calls fail.",
            thread="INC-0042",
            expires_at=EXPIRES,
        )

    async def test_the_same_key_twice_is_accepted_and_stored_once(self) -> None:
        inbox = MemoryInbox()
        adapter = self.over(inbox)
        first = await outcomes_of(adapter, self.message, self.envelopes())
        assert await outcomes_of(adapter, self.message, self.envelopes()) == first
        assert len(inbox.items) == 2

    async def test_a_store_that_is_away_is_tried_later(self) -> None:
        adapter = self.over(MemoryInbox(ConnectionError("host db at 10.0.0.1")))
        outcomes = await outcomes_of(adapter, self.message, self.envelopes())
        for outcome in outcomes.values():
            assert isinstance(outcome, TryLater)
            assert outcome.reason is Reason.UNREACHABLE
            self.assert_discreet(repr(outcome))
            assert "10.0.0.1" not in outcome.detail

    async def test_what_nobody_can_explain_is_let_through(self) -> None:
        adapter = self.over(MemoryInbox(RuntimeError("half done?")))
        with pytest.raises(RuntimeError):
            await outcomes_of(adapter, self.message, self.envelopes())

    async def test_a_bad_slot_value_fails_alone(self) -> None:
        inbox = MemoryInbox()
        slotted = notice("Hello [[name]]", "b", name=Slot(5))
        envelopes = [
            Envelope("d0", "inbox-of-anna", {"name": "Anna"}),
            Envelope("d1", "inbox-of-bert", {"name": "Bertram"}),
        ]
        outcomes = await outcomes_of(self.over(inbox), slotted, envelopes)
        assert isinstance(outcomes["d0"], Accepted)
        assert isinstance(outcomes["d1"], MessageRefused)
        assert outcomes["d1"].reason is Reason.SLOT_VALUE
        assert "Bertram" not in repr(outcomes["d1"])
        assert [item.title for item in inbox.items.values()] == ["Hello Anna"]

    async def test_nothing_to_store_asks_nothing_of_the_store(self) -> None:
        inbox = MemoryInbox()
        assert await outcomes_of(self.over(inbox), self.message, []) == {}
        assert inbox.puts == []

    @pytest.mark.parametrize(
        ("title", "body", "long"),
        [
            ("t" * 65, "b" * 240, []),
            ("t" * 66, "b" * 240, ["title"]),
            ("t" * 65, "b" * 241, ["body"]),
            ("t" * 60 + "[[name]]", "b", ["title"]),
        ],
    )
    async def test_what_a_locked_screen_cuts_is_warned_of(
        self, title: str, body: str, long: list[str]
    ) -> None:
        problems = self.over(MemoryInbox()).check(notice(title, body, name=Slot(6)))
        assert [(p.severity, p.part) for p in problems] == [(Severity.WARNING, p) for p in long]


class NoTransport:
    """The inbox is ours: nothing may go over the wire."""

    async def request(self, request: object) -> object:
        raise AssertionError("a request was made")

"""Who was not told and why: counted whole, and looked through a page at a time."""

import pytest

from dispatcher.ledger import shortfalls
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.shortfalls import Figures, Group, People, Untold
from tests.dispatcher.ledger.crowded import Said, Some, opened, told


def counted(ledger: Ledger, update: str) -> Figures:
    with ledger.read() as conn:
        return shortfalls.count(conn, update)


def pages(
    ledger: Ledger, update: str, *, group: Group = Group.UNTOLD, reason: str | None = None
) -> list[list[str]]:
    """Everybody whom the pages show, page by page."""
    found: list[list[str]] = []
    after: tuple[int, int] | None = (0, -1)
    with ledger.read() as conn:
        while after is not None:
            page = shortfalls.untold(conn, update, group=group, reason=reason, after=after)
            found.append([person.recipient for person in page.people])
            after = page.after
    return found


MIXED = Said(
    [
        Some("media", "sms", "accepted", 1, 10),
        Some("media", "sms", "failed", 11, 17, "invalid_address"),
        Some("media", "sms", "failed", 18, 20, "content"),
        Some("media", "email", "skipped", 1, 12, "no_contact"),
        Some("media", "email", "delivered", 13, 14),
        Some("media", "email", "pending", 15, 16),
        Some("media", "email", "unknown", 17, 17, "timeout"),
        Some("partners", "email", "spared", 1, 4, "not_told_before"),
        Some("partners", "email", "stopped", 5, 6, "stopped"),
        Some("partners", "email", "superseded", 7, 7, "newer_update"),
    ],
    batch=3,
)


def test_each_person_stands_in_one_place(ledger: Ledger) -> None:
    update = told(ledger, opened(ledger), MIXED)
    assert counted(ledger, update).people == (
        People("media", 20, told=12, waiting=2, doubt=1, left_out=0, untold=5),
        People("partners", 7, told=0, waiting=0, doubt=0, left_out=5, untold=2),
    )


def test_reasons_are_counted_with_examples(ledger: Ledger) -> None:
    update = told(ledger, opened(ledger), MIXED)
    found = {
        (each.channel, each.state, each.reason): each for each in counted(ledger, update).shortfalls
    }
    assert {key: each.rows for key, each in found.items()} == {
        ("email", "skipped", "no_contact"): 12,
        ("sms", "failed", "invalid_address"): 7,
        ("sms", "failed", "content"): 3,
        ("email", "stopped", "stopped"): 2,
        ("email", "unknown", "timeout"): 1,
    }
    wrong = found["sms", "failed", "invalid_address"]
    assert wrong.audiences == {"media": 7}
    assert len(wrong.examples) == shortfalls.EXAMPLES
    assert {(one.audience, one.hint) for one in wrong.examples} <= {
        ("media", f"+1…{n}") for n in range(11, 18)
    }
    assert {one.recipient for one in wrong.examples} <= {f"media-{n}" for n in range(11, 18)}


def test_who_shares_a_contact_stands_where_it_stands(ledger: Ledger) -> None:
    update = told(
        ledger,
        opened(ledger),
        Said(
            [
                Some("media", "sms", "accepted", 1, 1),
                Some("media", "sms", "pending", 2, 2),
                Some("media", "sms", "failed", 3, 3, "content"),
                Some("media", "sms", "skipped", 4, 6, "shared_contact"),
            ]
        ),
    )
    with ledger.read() as conn:
        conn.execute(
            "UPDATE delivery d SET contact_point_id = NULL, shared_contact_id = ("
            " SELECT contact_point_id FROM delivery o WHERE o.update_id = d.update_id"
            " AND o.seq = d.seq - 3) WHERE d.seq BETWEEN 4 AND 6"
        )
    found = counted(ledger, update)
    assert found.people == (People("media", 6, told=2, waiting=2, doubt=0, left_out=0, untold=2),)
    assert [each.reason for each in found.shortfalls] == ["content"]
    assert pages(ledger, update) == [["media-3", "media-6"]]
    assert pages(ledger, update, group=Group.WAITING) == [["media-2", "media-5"]]


def test_the_pages_show_each_person_of_a_group_once(ledger: Ledger) -> None:
    update = told(ledger, opened(ledger), MIXED)
    for group, expected in {
        Group.UNTOLD: {
            "media-11",
            "media-12",
            "media-18",
            "media-19",
            "media-20",
            "partners-5",
            "partners-6",
        },
        Group.WAITING: {"media-15", "media-16"},
        Group.DOUBT: {"media-17"},
        Group.LEFT_OUT: {"partners-1", "partners-2", "partners-3", "partners-4", "partners-7"},
    }.items():
        found = [person for page in pages(ledger, update, group=group) for person in page]
        assert (sorted(found), len(found)) == (sorted(expected), len(expected)), group


def test_a_page_holds_fifty_and_leads_on(ledger: Ledger) -> None:
    update = told(
        ledger,
        opened(ledger),
        Said(
            [
                Some("media", "sms", "failed", 1, 120, "content"),
                Some("media", "email", "skipped", 1, 120, "no_contact"),
            ],
            batch=7,
        ),
    )
    found = pages(ledger, update)
    assert max(len(page) for page in found) == shortfalls.PAGE
    everybody = [person for page in found for person in page]
    assert sorted(everybody) == sorted(f"media-{n}" for n in range(1, 121))
    by_reason = [p for page in pages(ledger, update, reason="no_contact") for p in page]
    assert sorted(by_reason) == sorted(everybody)
    assert pages(ledger, update, reason="throttled")[-1] == []


def test_a_page_tells_every_way_that_was_tried(ledger: Ledger) -> None:
    update = told(
        ledger,
        opened(ledger),
        Said(
            [
                Some("media", "sms", "failed", 1, 1, "content"),
                Some("media", "email", "skipped", 1, 1, "suppressed"),
            ]
        ),
    )
    with ledger.read() as conn:
        (person,) = shortfalls.untold(conn, update).people
    assert [(way.channel, way.state, way.reason, way.hint) for way in person.ways] == [
        ("email", "skipped", "suppressed", "+1…1"),
        ("sms", "failed", "content", "+1…1"),
    ]


def test_a_page_looks_at_a_bounded_number_of_rows(ledger: Ledger) -> None:
    update = told(
        ledger,
        opened(ledger),
        Said(
            [
                # All but the last were told by mail, so that no SMS of theirs is a shortfall.
                Some("media", "sms", "failed", 1, 5_000, "content"),
                Some("media", "email", "accepted", 1, 4_999),
            ],
            batch=1_000,
        ),
    )
    with ledger.read() as conn:
        first = shortfalls.untold(conn, update)
        assert (first.people, first.looked) == ((), shortfalls.LOOKS * shortfalls.ROWS_AT_ONCE)
        assert first.after is not None
        second = shortfalls.untold(conn, update, after=first.after)
    assert [person.recipient for person in second.people] == ["media-5000"]
    assert second.after is None


@pytest.mark.parametrize("group", [Group.WAITING, Group.DOUBT, Group.LEFT_OUT])
def test_a_group_that_no_row_is_of_is_known_to_be_empty_at_once(
    ledger: Ledger, group: Group
) -> None:
    # Skipped rows may share a contact that waits, but not where none waits at all: more batches
    # than one page looks into need not be looked into.
    many = shortfalls.LOOKS * shortfalls.BATCHES_AT_ONCE + 10
    skipped = Some("media", "sms", "skipped", 1, many, "suppressed")
    update = told(ledger, opened(ledger), Said([skipped], batch=1))
    with ledger.read() as conn:
        assert shortfalls.untold(conn, update, group=group) == Untold((), 0, None)


def test_what_waits_is_told_by_sender_but_not_what_is_halted(ledger: Ledger) -> None:
    update = told(
        ledger,
        opened(ledger),
        Said([Some("media", "sms", "pending", 1, 30), Some("partners", "email", "pending", 1, 5)]),
    )
    with ledger.read() as conn:
        conn.execute("UPDATE message SET units = 3 WHERE channel = 'sms'")
        conn.execute("UPDATE batch SET halted = true WHERE channel = 'email'")
        (waits,) = shortfalls.outstanding(conn, update)
    assert (waits.channel, waits.sender, waits.rows, waits.units) == ("sms", "72345", 30, 90)


def test_a_paused_message_is_told_with_what_waits_for_it(ledger: Ledger) -> None:
    update = told(ledger, opened(ledger), Said([Some("media", "sms", "pending", 1, 30)]))
    with ledger.read() as conn:
        assert shortfalls.paused(conn, update) == ()
        conn.execute("UPDATE message SET paused_at = now()")
        (paused,) = shortfalls.paused(conn, update)
    assert (paused.audience, paused.channel, paused.locale, paused.waiting) == (
        "media",
        "sms",
        "en",
        30,
    )

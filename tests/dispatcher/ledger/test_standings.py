"""Who of a selection is told, spared or missed, each person once, and whom a shared contact tells."""

from dispatcher.ledger import selection
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.selection import Missed, Question, Standing
from tests.dispatcher.ledger.test_selection import (
    Person,
    question,
    rule,
    select,
    store,
    suppress,
    told,
    ways,
)

BULK = rule("bulk", 1, "consumer", lane=2)
URGENT = rule("urgent", 9, "police", lane=0)


def stands(ledger: Ledger, asked: Question) -> tuple[list[Standing], list[Missed]]:
    with ledger.transaction() as work:
        selection.select(work.conn, asked)
        return selection.standings(work.conn), selection.missed(work.conn, asked)


def test_a_shared_contact_is_told_in_the_lane_that_leaves_first(ledger: Ledger) -> None:
    store(
        ledger,
        [
            Person("c", contacts=(("phone", "1"),)),
            Person("p", segment="police", contacts=(("phone", "1"),)),
        ],
    )
    asked = question((BULK, URGENT), (*ways("bulk", "sms"), *ways("urgent", "sms")))
    assert told(select(ledger, asked)) == {
        ("p", "urgent", "sms", ""),
        ("c", "bulk", "sms", "shared_contact"),
    }
    assert stands(ledger, asked)[0] == [
        Standing("bulk", people=1, told=0, shared=1, spared=0, elsewhere=0),
        Standing("urgent", people=1, told=1, shared=0, spared=0, elsewhere=0),
    ]


def test_a_person_counts_once_whatever_rows_they_have(ledger: Ledger) -> None:
    store(
        ledger,
        [
            Person("both", contacts=(("phone", "1"), ("email", "1"))),
            Person("half", contacts=(("phone", "2"), ("email", "2"))),
            Person("none", contacts=()),
            Person("out", contacts=(("phone", "4"), ("email", "4"))),
        ],
    )
    asked = question((rule("all", 1, "consumer"),), ways("all", "sms", "email"))
    with ledger.transaction() as work:
        suppress(work.conn, ("phone", "2"), ("phone", "4"), ("email", "4"))
    standings, missed = stands(ledger, asked)
    assert standings == [Standing("all", people=4, told=2, shared=0, spared=0, elsewhere=0)]
    assert missed == [Missed("all", "no_contact", 1, {}), Missed("all", "suppressed", 1, {})]


def test_who_shares_one_contact_and_is_told_by_another_is_told(ledger: Ledger) -> None:
    store(
        ledger,
        [
            Person("a", contacts=(("phone", "1"),)),
            Person("b", contacts=(("phone", "1"), ("email", "2"))),
        ],
    )
    asked = question((rule("all", 1, "consumer"),), ways("all", "sms", "email"))
    assert stands(ledger, asked)[0] == [
        Standing("all", people=2, told=2, shared=0, spared=0, elsewhere=0)
    ]


def test_a_channel_that_has_no_message_is_none_to_be_reached_by(ledger: Ledger) -> None:
    store(ledger, [Person("a", contacts=(("email", "1"), ("phone", "1")))])
    asked = question((rule("all", 1, "consumer"),), ways("all", "email"), wordings=())
    assert stands(ledger, asked)[1] == [Missed("all", "no_message", 1, {"phone": 1})]


def test_what_they_could_be_reached_by_is_neither_used_nor_suppressed(ledger: Ledger) -> None:
    store(
        ledger,
        [
            Person("has a phone", contacts=(("phone", "1"),)),
            Person("phone is out", contacts=(("phone", "2"), ("fcm_token", "2"))),
            Person("mail is out", contacts=(("email", "3"), ("phone", "3"))),
            Person("two phones", contacts=(("phone", "4"), ("phone", "5"))),
        ],
    )
    with ledger.transaction() as work:
        suppress(work.conn, ("phone", "2"), ("email", "3"))
    asked = question((rule("all", 1, "consumer"),), ways("all", "email"))
    assert stands(ledger, asked)[1] == [
        Missed("all", "no_contact", 3, {"fcm_token": 1, "phone": 2}),
        Missed("all", "suppressed", 1, {"phone": 1}),
    ]


def test_a_kind_that_nothing_serves_is_one_to_set_up(ledger: Ledger) -> None:
    store(ledger, [Person("a", contacts=(("email", "1"), ("phone", "1")))])
    asked = question((rule("all", 1, "consumer"),), ways("all", "email", serving={}))
    assert stands(ledger, asked)[1] == [Missed("all", "no_adapter", 1, {"email": 1, "phone": 1})]


def test_who_belongs_elsewhere_or_is_spared_is_not_missed(ledger: Ledger) -> None:
    store(ledger, [Person("a"), Person("p", segment="police", contacts=(("phone", "2"),))])
    both = rule("all", 5, "consumer", "police")
    steps = (*ways("all", "sms"), *ways("urgent", "sms"))
    asked = question(
        (both, rule("urgent", 1, "police")),
        steps,
        named=("all",),
        due=("all",),
        spare_untold=True,
        earlier=("01980000-0000-7000-8000-000000000000",),
    )
    assert stands(ledger, asked) == (
        [Standing("all", people=1, told=0, shared=0, spared=1, elsewhere=1)],
        [],
    )

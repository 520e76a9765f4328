"""People as stored: the rules of links, doors and admins, on the tables themselves."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from channels.contract import ContactKind
from dispatcher import people as staff
from dispatcher.acts import Conflict, Invalid, NotFound
from dispatcher.ledger import people
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.people import FREE_TRIES, PersonRow
from dispatcher.security.rights import Role
from dispatcher.security.sealing import SealBroken, Sealer
from tests.dispatcher.commands.conftest import until

NOBODY = "018f0000-0000-7000-8000-000000000000"


def joined(ledger: Ledger, login: str, role: Role = Role.AUTHOR) -> PersonRow:
    with ledger.transaction() as work:
        link = staff.invite(work.conn, name=login.title(), role=role, by="test")
        return staff.join(
            work.conn, link.token, login=login, name=login.title(), password_hash=f"hash of {login}"
        )


def session(ledger: Ledger, person: PersonRow, token: str) -> str:
    with ledger.transaction() as work:
        people.start_session(work.conn, person.id, token)
    return token


def whose(ledger: Ledger, token: str) -> str | None:
    with ledger.read() as conn:
        found = people.of_session(conn, token)
    return found.login if found else None


def lasts(ledger: Ledger, token: str) -> bool:
    with ledger.read() as conn:
        return people.lasts(conn, token)


def test_the_fifth_failure_closes_the_door_and_each_after_it_for_twice_as_long(
    ledger: Ledger,
) -> None:
    joined(ledger, "ada")
    closed: list[timedelta | None] = []
    for _ in range(14):
        with ledger.transaction() as work:
            tried = people.try_door(work.conn, "ada")
            row = work.conn.execute("SELECT locked_until - now() FROM person").fetchone()
            assert row is not None
            assert tried is not None
            assert tried.closed == (row[0] is not None)
            closed.append(row[0])
            # Closed means closed, for the right password too.
            assert (people.try_door(work.conn, "ada") is None) == tried.closed
            work.conn.execute("UPDATE person SET locked_until = NULL, failures = %s", [len(closed)])
    open_for = FREE_TRIES - 1
    assert closed[:open_for] == [None] * open_for
    assert [gap and gap.total_seconds() for gap in closed[open_for:]] == [
        *(15, 30, 60, 120, 240, 480),
        *(900, 900, 900, 900),
    ]


def test_the_right_password_forgets_the_failures(ledger: Ledger) -> None:
    joined(ledger, "ada")
    with ledger.transaction() as work:
        people.try_door(work.conn, "ada")
        tried = people.try_door(work.conn, "ada")
        assert tried is not None
        assert people.admit(work.conn, tried, rehashed="hashed anew")
        row = work.conn.execute(
            "SELECT failures, locked_until, password_hash FROM person"
        ).fetchone()
    assert row == (0, None, "hashed anew")


def test_a_password_that_was_changed_or_a_person_disabled_meanwhile_lets_nobody_in(
    ledger: Ledger,
) -> None:
    ada, bob = joined(ledger, "ada"), joined(ledger, "bob")
    with ledger.transaction() as work:
        tried = [people.try_door(work.conn, login) for login in ("ada", "bob")]
    with ledger.transaction() as work:
        work.conn.execute("UPDATE person SET password_hash = 'another' WHERE id = %s", (ada.id,))
        staff.disable(work.conn, bob.id, by="test")
    with ledger.transaction() as work:
        for each in tried:
            assert each is not None
            assert not people.admit(work.conn, each, rehashed=None)


def test_nobody_is_tried_who_cannot_come_in(ledger: Ledger) -> None:
    bob = joined(ledger, "bob")
    with ledger.transaction() as work:
        staff.disable(work.conn, bob.id, by="test")
        staff.invite(work.conn, name="New", role=Role.AUTHOR, by="test")
        for login in ("bob", "eve", ""):
            assert people.try_door(work.conn, login) is None


def test_a_link_that_is_being_used_lets_nobody_else_in(ledger: Ledger) -> None:
    with ledger.transaction() as work:
        link = staff.invite(work.conn, name="Ada", role=Role.AUTHOR, by="test")

    def use(login: str) -> None:
        with ledger.transaction() as work:
            staff.join(work.conn, link.token, login=login, name="A", password_hash="h")

    def waits() -> bool:
        with ledger.read() as conn:
            row = conn.execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND pid IN"
                " (SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
            ).fetchone()
        return row == (1,)

    with ThreadPoolExecutor(1) as other:
        with ledger.transaction() as work:
            staff.join(work.conn, link.token, login="first", name="A", password_hash="h")
            second = other.submit(use, "second")
            until(waits)
        with pytest.raises(staff.LinkSpent):
            second.result(30)
    with ledger.read() as conn:
        assert [each.person.login for each in people.listed(conn)] == ["first"]


@pytest.mark.parametrize("act", ["disable", "role", "password by link", "end"])
def test_sessions_end_with_what_they_were_let_in_for(ledger: Ledger, act: str) -> None:
    ada = joined(ledger, "ada")
    joined(ledger, "root", Role.ADMIN)
    other = session(ledger, joined(ledger, "bob"), "bob's")
    tokens = [session(ledger, ada, "one"), session(ledger, ada, "two")]
    assert {whose(ledger, token) for token in tokens} == {"ada"}
    assert all(lasts(ledger, token) for token in tokens)
    with ledger.transaction() as work:
        match act:
            case "disable":
                staff.disable(work.conn, ada.id, by="test")
            case "role":
                staff.change_role(work.conn, ada.id, Role.APPROVER, by="test")
            case "password by link":
                link = staff.link_again(work.conn, ada.id, by="test")
                staff.join(work.conn, link.token, login="", name="", password_hash="new")
            case _:
                assert staff.end_sessions(work.conn, ada.id, by="test") == 2
    assert [whose(ledger, token) for token in tokens] == [None, None]
    assert not any(lasts(ledger, token) for token in tokens)
    assert whose(ledger, other) == "bob"


def test_the_same_role_again_ends_nothing_and_is_not_told(ledger: Ledger) -> None:
    ada = joined(ledger, "ada")
    token = session(ledger, ada, "one")
    with ledger.transaction() as work:
        staff.change_role(work.conn, ada.id, Role.AUTHOR, by="test")
        told = work.conn.execute("SELECT count(*) FROM audit WHERE act = 'person.role'").fetchone()
    assert (told, whose(ledger, token)) == ((0,), "ada")


def test_the_last_admin_stays_one(ledger: Ledger) -> None:
    root = joined(ledger, "root", Role.ADMIN)
    with ledger.transaction() as work:
        # Invited is not joined: nobody could sign in.
        waiting = staff.invite(work.conn, name="Waits", role=Role.ADMIN, by="test").person
    for act in (
        lambda conn: staff.disable(conn, root.id, by=root.actor_id),
        lambda conn: staff.change_role(conn, root.id, Role.VIEWER, by=root.actor_id),
    ):
        with pytest.raises(Conflict), ledger.transaction() as work:
            act(work.conn)
    with ledger.transaction() as work:
        staff.change_role(work.conn, waiting.id, Role.AUTHOR, by="test")
    second = joined(ledger, "second", Role.ADMIN)
    with ledger.transaction() as work:
        staff.disable(work.conn, root.id, by=second.actor_id)
    with pytest.raises(Conflict), ledger.transaction() as work:
        staff.disable(work.conn, second.id, by=second.actor_id)


def test_two_admins_who_demote_each_other_at_once_leave_one(ledger: Ledger) -> None:
    pair = [joined(ledger, "ada", Role.ADMIN), joined(ledger, "bob", Role.ADMIN)]
    ready = threading.Barrier(2)

    def demote(other: PersonRow) -> bool:
        ready.wait(20)
        try:
            with ledger.transaction() as work:
                staff.change_role(work.conn, other.id, Role.VIEWER, by="test")
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as both:
        assert sorted(both.map(demote, pair)) == [False, True]
    with ledger.read() as conn:
        assert people.anybody(conn)


def test_somebody_who_is_not_there_is_not_found(ledger: Ledger) -> None:
    with ledger.transaction() as work:
        for person in (NOBODY, "x", ""):
            with pytest.raises(NotFound):
                staff.enable(work.conn, person, by="test")
            assert people.listed(work.conn, only=person) == []


def test_a_disabled_person_gets_no_link(ledger: Ledger) -> None:
    ada = joined(ledger, "ada")
    with ledger.transaction() as work:
        staff.disable(work.conn, ada.id, by="test")
        with pytest.raises(Conflict):
            staff.link_again(work.conn, ada.id, by="test")


@pytest.mark.parametrize(
    "written",
    ["Ada", " ADA ", "\uff21\uff24\uff21", "ada"],  # wide letters, as some keyboards type
)
def test_one_login_has_one_spelling(ledger: Ledger, written: str) -> None:
    with ledger.transaction() as work:
        link = staff.invite(work.conn, name="Ada", role=Role.AUTHOR, by="test")
        person = staff.join(work.conn, link.token, login=written, name="Ada", password_hash="h")
    assert person.login == "ada"
    with pytest.raises(Invalid), ledger.transaction() as work:
        link = staff.invite(work.conn, name="Ada", role=Role.AUTHOR, by="test")
        staff.join(work.conn, link.token, login="ada", name="Ada", password_hash="h")


def test_the_list_is_in_pages_and_says_who_is_here(ledger: Ledger) -> None:
    ada, bob = joined(ledger, "ada"), joined(ledger, "bob")
    session(ledger, bob, "one")
    with ledger.transaction() as work:
        staff.disable(work.conn, ada.id, by="test")
        new = staff.invite(work.conn, name="New", role=Role.VIEWER, by="test").person
    with ledger.read() as conn:
        found = people.listed(conn)
        assert [each.person.id for each in found] == [bob.id, new.id, ada.id]
        assert [each.sessions for each in found] == [1, 0, 0]
        assert [each.link_until is not None for each in found] == [False, True, False]
        assert [each.person.id for each in people.listed(conn, beginning=1, limit=1)] == [new.id]
        assert people.listed(conn, only=ada.id) == found[2:]


def test_own_addresses_are_sealed_to_person_and_kind(ledger: Ledger, sealer: Sealer) -> None:
    ada, bob = joined(ledger, "ada"), joined(ledger, "bob")
    own = staff.own_address(
        sealer, ada.id, ContactKind.EMAIL, " Ada@Example.COM ", country="US", live=True
    )
    assert b"ada" not in own.sealed
    assert "ada@" not in own.hint
    with ledger.transaction() as work:
        people.set_own_address(work.conn, ada.id, own)
        kept = people.own_addresses(work.conn, ada.id)
    assert kept == [own]

    def opened(person: PersonRow, kind: str) -> str:
        return people.opened_address(sealer, person.id, kind=kind, sealed=kept[0].sealed)

    assert opened(ada, "email") == "Ada@example.com"
    for person, kind in ((bob, "email"), (ada, "phone")):
        with pytest.raises(SealBroken):
            opened(person, kind)


def test_a_number_for_simulators_is_nobodys_own_in_live_mode(sealer: Sealer) -> None:
    def judged(number: str, *, live: bool) -> str:
        return staff.own_address(
            sealer, NOBODY, ContactKind.PHONE, number, country="US", live=live
        ).hint

    assert judged("(212) 555-2041", live=False) == "+1…41"
    for number, live in (("(212) 555-2041", True), ("12", False), ("", False)):
        with pytest.raises(Invalid) as refused:
            judged(number, live=live)
        assert refused.value.errors[0][0] == "phone"
        assert number not in refused.value.errors[0][1] or not number

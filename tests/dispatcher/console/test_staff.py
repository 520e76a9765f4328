"""The people of the console, one's own account, and that no form of any page is open by mistake."""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from dispatcher.console.app import create_console
from dispatcher.embedded import Addresses
from dispatcher.ledger import people as rows
from dispatcher.security.rights import Role
from tests.dispatcher.console.room import PASSWORD, Browser, Room, opened

OTHER = "seven quiet herons wade"
BEFORE_SIGN_IN = {
    "/sign-in": "is how one signs in; refused if another site's page sent it",
    "/join/{token}": "asks for a one-time link; the same",
}
LOOKING = {
    "/updates/{update}/count": "counts whom it would reach",
    "/templates/{name:path}": "tries a template, which is nowhere stored",
}
OWN = {
    "/sign-out": "everybody may go",
    "/account/self": "one's own",
    "/account/password": "one's own",
    "/account/addresses": "one's own",
    "/account/sessions": "one's own",
}


@pytest.fixture(scope="module")
def building(
    stack: Addresses, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Room]:
    with opened(stack, migrated, tmp_path_factory.mktemp("room")) as room:
        yield room


@pytest.fixture
def room(building: Room) -> Room:
    return building.emptied()


def shown_link(text: str) -> str:
    """The one-time link on a page, below /console."""
    found = re.search(r"http://desk\.test/console(/join/[\w-]{43})<", text)
    assert found is not None
    return found[1]


def invite(browser: Browser, name: str = "Ben", role: str = "approver") -> str:
    """Invites somebody; returns the page that shows the link."""
    sent = browser.form("/people/invite", {"name": name, "role": role}, page="/people")
    assert sent.status_code == 303
    return str(sent.headers["location"])


# People.


def test_an_admin_invites_and_the_link_is_shown_to_them_alone(room: Room) -> None:
    admin = room.signed_in("root", Role.ADMIN)
    page = invite(admin)
    link = shown_link(admin.get(page).text)
    second = room.signed_in("other", Role.ADMIN)
    assert "/join/" not in second.get(page).text
    assert "/join/" not in admin.get(page.partition("?")[0]).text
    token = link.rpartition("/")[2]
    assert not any(token in row[0] for row in room.asked("SELECT i::text FROM idempotency i"))
    fresh = room.browser()
    form = {"name": "Ben", "login": "ben", "password": OTHER, "again": OTHER}
    assert fresh.form(link, form).status_code == 303
    assert room.asked("SELECT role FROM person WHERE login = 'ben'") == [("approver",)]
    # Used, it is not shown any more.
    assert "/join/" not in admin.get(page).text
    assert (f"person:{room.id_of('root')}", "person.invite") in room.acts()


def test_an_invitation_sent_twice_invites_once_and_shows_the_same_link(room: Room) -> None:
    admin = room.signed_in("root", Role.ADMIN)
    text = admin.open("/people").text
    hidden = {n: re.search(rf'name="{n}" value="([^"]*)"', text) for n in ("csrf", "once")}
    once = re.findall(r'name="once" value="([^"]*)"', text)[-1]
    assert hidden["csrf"] is not None
    form = {"name": "Ben", "role": "author", "csrf": hidden["csrf"][1], "once": once}
    sent = [admin.form("/people/invite", form).headers["location"] for _ in range(3)]
    assert len(set(sent)) == 1
    assert room.asked("SELECT count(*) FROM person") == [(2,)]
    shown_link(admin.get(sent[0]).text)


@pytest.mark.parametrize(
    ("name", "role"),
    [("", "author"), ("x" * 81, "author"), ("Ben\u202e", "author"), ("Ben", "god")],
)
def test_a_wrong_invitation_is_shown_again_and_makes_nothing(
    room: Room, name: str, role: str
) -> None:
    admin = room.signed_in("root", Role.ADMIN)
    sent = admin.form("/people/invite", {"name": name, "role": role}, page="/people")
    assert (sent.status_code, 'role="alert"' in sent.text) == (422, True)
    assert room.asked("SELECT count(*) FROM person") == [(1,)]


def test_a_name_is_only_ever_text(room: Room) -> None:
    admin = room.signed_in("root", Role.ADMIN)
    page = admin.get(invite(admin, name='<script>"x"</script>'))
    assert "<script>&#34;x" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "<script>" not in page.text


def test_a_changed_role_counts_at_once_and_asks_to_sign_in_again(room: Room) -> None:
    admin, ada = room.signed_in("root", Role.ADMIN), room.signed_in("ada")
    person = room.id_of("ada")
    path = f"/people/{person}"
    sent = admin.form(f"{path}/role", {"role": "viewer"}, page=path)
    assert sent.headers["location"] == f"/console{path}?said=role"
    assert "have to sign in again" in admin.get(sent.headers["location"]).text
    assert ada.open("/account").status_code == 303
    assert room.asked("SELECT role FROM person WHERE id = %s::uuid", person) == [("viewer",)]
    told = room.asked("SELECT actor, detail FROM audit WHERE act = 'person.role'")
    detail = {"person": person, "from": "author", "to": "viewer"}
    assert told == [(f"person:{room.id_of('root')}", detail)]


def test_a_disabled_persons_session_ends_at_once_and_comes_back_by_password(room: Room) -> None:
    admin, ada = room.signed_in("root", Role.ADMIN), room.signed_in("ada")
    path = f"/people/{room.id_of('ada')}"
    assert admin.form(f"{path}/disable", {}, page=path).status_code == 303
    assert ada.open("/account").status_code == 303
    assert ada.sign_in("ada").status_code == 422
    assert admin.form(f"{path}/enable", {}, page=path).status_code == 303
    assert ada.sign_in("ada").status_code == 303


def test_the_last_admin_can_neither_be_demoted_nor_disabled(room: Room) -> None:
    admin = room.signed_in("root", Role.ADMIN)
    path = f"/people/{room.id_of('root')}"
    for act, form in (("role", {"role": "author"}), ("disable", {})):
        sent = admin.form(f"{path}/{act}", form, page=path)
        assert (sent.status_code, "last admin" in sent.text) == (409, True)
    assert admin.open("/people").status_code == 200
    room.signed_in("second", Role.ADMIN)
    assert admin.form(f"{path}/disable", {}, page=path).status_code == 303
    assert admin.open("/people").status_code == 303


def test_a_new_link_and_ended_sessions(room: Room) -> None:
    admin, ada = room.signed_in("root", Role.ADMIN), room.signed_in("ada")
    path = f"/people/{room.id_of('ada')}"
    sent = admin.form(f"{path}/link", {}, page=path)
    link = shown_link(admin.get(sent.headers["location"]).text)
    # Until it is used, all is as it was.
    assert ada.open("/account").status_code == 200
    assert admin.form(f"{path}/sessions", {}, page=path).status_code == 303
    assert ada.open("/account").status_code == 303
    form = {"password": OTHER, "again": OTHER}
    assert room.browser().form(link, form).status_code == 303
    assert room.browser().sign_in("ada", OTHER).status_code == 303


def test_somebody_who_is_not_there_is_a_page_that_is_not_there(room: Room) -> None:
    admin = room.signed_in("root", Role.ADMIN)
    nobody = "018f0000-0000-7000-8000-000000000000"
    for person in (nobody, "x", "'"):
        assert admin.open(f"/people/{person}").status_code == 404
        own = f"/people/{room.id_of('root')}"
        tokens = admin.open(own).text
        form = {
            name: re.findall(rf'name="{name}" value="([^"]*)"', tokens)[-1]
            for name in ("csrf", "once")
        }
        assert admin.form(f"/people/{person}/disable", form).status_code == 404


def test_a_list_of_many_people_is_short(room: Room) -> None:
    admin = room.signed_in("root", Role.ADMIN)
    with room.services.ledger.transaction() as work:
        work.conn.execute(
            "INSERT INTO person (name, role, created_by, login) SELECT repeat('Name ', 16) || n,"
            " 'author', 'test', 'login' || n FROM generate_series(1, 130) n"
        )
    first = admin.open("/people")
    assert len(first.content) < 100_000
    assert first.text.count('data-label="Login"') == 50
    last = admin.open("/people?beginning=100")
    assert last.text.count('data-label="Login"') == 31
    assert "beginning=50" in last.text
    for odd in ("-5", "999999999999", "x"):
        assert admin.open(f"/people?beginning={odd}").status_code in (200, 404)
    assert len(admin.open("/account").content) < 100_000


# One's own account.


def test_ones_name_and_zone(room: Room) -> None:
    ada = room.signed_in("ada")
    form = {"name": "  Ada   Lovelace ", "own_zone": "Pacific/Auckland"}
    assert ada.form("/account/self", form, page="/account").status_code == 303
    page = ada.open("/account").text
    assert "Ada Lovelace" in page
    assert re.search(r"NZ[DS]T", page)
    for wrong in ({"name": ""}, {"name": "A", "own_zone": "Atlantis/Capital"}):
        assert ada.form("/account/self", wrong, page="/account").status_code == 422
    assert room.asked("SELECT name, zone FROM person") == [("Ada Lovelace", "Pacific/Auckland")]


def test_another_password_ends_every_other_session_and_is_told(room: Room) -> None:
    ada = room.signed_in("ada")
    elsewhere = room.browser()
    elsewhere.sign_in("ada")
    form = {"current": PASSWORD, "password": OTHER, "again": OTHER}
    sent = ada.form("/account/password", form, page="/account")
    assert (sent.status_code, sent.headers["location"]) == (303, "/console/account?said=password")
    assert ada.open("/account").status_code == 200
    assert elsewhere.open("/account").status_code == 303
    assert elsewhere.sign_in("ada").status_code == 422
    assert elsewhere.sign_in("ada", OTHER).status_code == 303
    told = room.asked("SELECT detail FROM audit WHERE act = 'password.change'")
    assert told == [({"person": room.id_of("ada"), "by": "self", "sessions": 1},)]


def test_the_same_form_twice_changes_the_password_once(room: Room) -> None:
    ada = room.signed_in("ada")
    text = ada.open("/account").text
    tokens = {
        name: re.findall(rf'name="{name}" value="([^"]*)"', text)[-1] for name in ("csrf", "once")
    }
    form = {**tokens, "current": PASSWORD, "password": OTHER, "again": OTHER}
    sent = [ada.form("/account/password", form) for _ in range(2)]
    assert {s.headers["location"] for s in sent} == {"/console/account?said=password"}
    assert room.asked("SELECT count(*) FROM audit WHERE act = 'password.change'") == [(1,)]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"current": "not hers at all"}, "present password is not right"),
        ({"password": "short", "again": "short"}, "at least 12 characters"),
        ({"again": "something else"}, "not the same"),
        ({"password": "northvale2026", "again": "northvale2026"}, "tried first"),
    ],
)
def test_a_wrong_password_form_changes_nothing(
    room: Room, wrong: dict[str, str], told: str
) -> None:
    ada = room.signed_in("ada")
    form = {"current": PASSWORD, "password": OTHER, "again": OTHER} | wrong
    sent = ada.form("/account/password", form, page="/account")
    assert (sent.status_code, told in unescape(sent.text)) == (422, True)
    assert OTHER not in sent.text
    assert room.browser().sign_in("ada").status_code == 303


def test_who_has_found_an_open_browser_cannot_try_passwords_there(room: Room) -> None:
    ada = room.signed_in("ada")
    room.asked("UPDATE person SET failures = 30")
    form = {"current": "a guess of theirs", "password": OTHER, "again": OTHER}
    assert ada.form("/account/password", form, page="/account").status_code == 422
    right = ada.form("/account/password", form | {"current": PASSWORD}, page="/account")
    assert right.status_code == 422


def test_own_addresses_are_kept_sealed_and_shown_in_part(room: Room) -> None:
    ada = room.signed_in("ada")
    form = {
        "phone": "(212) 555-2041",
        "email": "ada@example.com",
        "inbox": "ada-1",
        "fcm_token": "t" * 40,
    }
    assert ada.form("/account/addresses", form, page="/account").status_code == 303
    page = ada.open("/account").text
    assert "+1…41" in page
    for address in ("2125552041", "555-2041", "ada@example.com", "t" * 40):
        assert address not in page
    person = room.id_of("ada")
    with room.services.ledger.read() as conn:
        kept = {own.kind: own.sealed for own in rows.own_addresses(conn, person)}
    sealer = room.services.sealer
    assert {
        kind: rows.opened_address(sealer, person, kind=kind, sealed=sealed)
        for kind, sealed in kept.items()
    } == form | {"phone": "+12125552041"}
    # An empty field leaves what is there; a tick takes it away.
    change = {"phone": "", "forget.email": "yes", "forget.inbox": "yes", "inbox": "ada-2"}
    assert ada.form("/account/addresses", change, page="/account").status_code == 303
    left = room.asked("SELECT kind FROM person_contact ORDER BY kind")
    assert left == [("fcm_token",), ("inbox",), ("phone",)]


def test_a_wrong_address_is_not_shown_again_and_keeps_all_from_being_stored(room: Room) -> None:
    ada = room.signed_in("ada")
    form = {"phone": "+1 212 555", "email": "ada@example.com"}
    sent = ada.form("/account/addresses", form, page="/account")
    assert (sent.status_code, "212 555" in sent.text) == (422, False)
    assert "ada@example.com" not in sent.text
    assert room.asked("SELECT count(*) FROM person_contact") == [(0,)]


def test_signing_out_everywhere_else(room: Room) -> None:
    ada = room.signed_in("ada")
    elsewhere = room.browser()
    elsewhere.sign_in("ada")
    assert "Another browser" in ada.open("/account").text
    assert ada.form("/account/sessions", {}, page="/account").status_code == 303
    assert ada.open("/account").status_code == 200
    assert elsewhere.open("/account").status_code == 303


# Every form of every page.


def posts(console: FastAPI) -> list[str]:
    """Paths of the console that take a form, whatever they are grouped in."""

    def leaves(routes: Any) -> Iterator[Any]:
        for route in routes:
            inner = getattr(route, "routes", None) or getattr(
                getattr(route, "original_router", None), "routes", None
            )
            if inner:
                yield from leaves(inner)
            elif getattr(route, "methods", None):
                yield route

    found = [route.path for route in leaves(console.routes) if "POST" in route.methods]
    assert len(found) > 12
    return found


@pytest.fixture
def paths(room: Room) -> list[str]:
    console = create_console(room.services, room.app.state.progress_feed)
    return [path for path in posts(console) if path not in BEFORE_SIGN_IN]


def filled(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "018f0000-0000-7000-8000-000000000000", path)


def written(room: Room) -> list[tuple[Any, ...]]:
    return room.asked("SELECT act FROM audit WHERE act NOT IN ('person.invite', 'person.join')")


def test_every_form_asks_who_sends_it(room: Room, paths: list[str]) -> None:
    browser = room.browser()
    for path in paths:
        sent = browser.form(filled(path), {})
        assert sent.status_code in (303, 401), path
        if sent.status_code == 303:
            assert urlsplit(sent.headers["location"]).path == "/console/sign-in", path
    assert written(room) == []


def test_every_form_needs_its_token(room: Room, paths: list[str]) -> None:
    admin = room.signed_in("root", Role.ADMIN)
    foreign = room.signed_in("other", Role.ADMIN).open("/account").text
    csrf = re.search(r'name="csrf" value="([^"]*)"', foreign)
    assert csrf is not None
    own = re.search(r'name="csrf" value="([^"]*)"', admin.open("/account").text)
    assert own is not None
    for path in paths:
        for token in ({}, {"csrf": ""}, {"csrf": csrf[1]}, {"csrf": "é"}):
            form = {"once": "o" * 24, **token}
            assert admin.form(filled(path), form).status_code == 403, (path, token)
        elsewhere = {"once": "o" * 24, "csrf": own[1]}
        sent = admin.form(filled(path), elsewhere, Sec_Fetch_Site="cross-site")
        assert sent.status_code == 403, path
    assert written(room) == []
    assert admin.open("/account").status_code == 200


def test_every_form_needs_its_right(room: Room, paths: list[str]) -> None:
    viewer = room.signed_in("vic", Role.VIEWER)
    csrf = re.search(r'name="csrf" value="([^"]*)"', viewer.open("/account").text)
    assert csrf is not None
    form = {"csrf": csrf[1], "once": "o" * 24}
    allowed = set()
    for path in paths:
        if path in OWN:
            continue
        sent = viewer.form(filled(path), form)
        if sent.status_code != 403:
            allowed.add(path)
    assert allowed <= set(LOOKING)
    for path in ("/people", f"/people/{room.id_of('vic')}"):
        assert viewer.open(path).status_code == 403
    assert written(room) == []


@pytest.mark.parametrize("role", [Role.AUTHOR, Role.APPROVER])
def test_only_an_admin_sees_and_changes_people(room: Room, role: Role, paths: list[str]) -> None:
    browser = room.signed_in("ada", role)
    csrf = re.search(r'name="csrf" value="([^"]*)"', browser.open("/account").text)
    assert csrf is not None
    assert browser.open("/people").status_code == 403
    concerned = [path for path in paths if path.startswith("/people")]
    assert len(concerned) == 6
    for path in concerned:
        form = {"csrf": csrf[1], "once": "o" * 24, "name": "Eve", "role": "admin"}
        own = path.replace("{person}", room.id_of("ada"))
        assert browser.form(own, form).status_code == 403, path
    assert room.asked("SELECT role FROM person") == [(role.value,)]

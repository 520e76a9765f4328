"""Coming in and going out: who is let in, what is told to whom is not, and what stays shut."""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
import structlog

from dispatcher import people
from dispatcher.console.signing import CROWDED, NOT_LET_IN
from dispatcher.embedded import Addresses
from dispatcher.ledger.people import FREE_TRIES
from dispatcher.security import passwords
from dispatcher.security.rights import Role
from tests.dispatcher.commands.conftest import until
from tests.dispatcher.console.room import PASSWORD, Browser, Room, opened

OTHER = "seven quiet herons wade"


@pytest.fixture(scope="module")
def building(
    stack: Addresses, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Room]:
    with opened(stack, migrated, tmp_path_factory.mktemp("room")) as room:
        yield room


@pytest.fixture
def room(building: Room) -> Room:
    return building.emptied()


def invited(room: Room, name: str = "Ada", role: Role = Role.AUTHOR) -> str:
    """Where somebody's link leads, below /console."""
    with room.services.ledger.transaction() as work:
        link = people.invite(work.conn, name=name, role=role, by="test")
    return link.path.removeprefix("/console")


def joining(login: str = "ada", password: str = OTHER, **more: str) -> dict[str, str]:
    form = {"name": "Ada Lovelace", "login": login, "password": password, "again": password}
    return form | more


def here(browser: Browser) -> bool:
    """Whether somebody is signed in."""
    return browser.open("/account").status_code == 200


def cookies(answer: httpx.Response) -> str:
    return "\n".join(answer.headers.get_list("set-cookie"))


# Signing in.


def test_who_signs_in_gets_where_they_wanted_by_a_new_session(room: Room) -> None:
    room.person("ada")
    browser = room.browser()
    away = browser.open("/account?x=1")
    assert away.status_code == 303
    assert away.headers["location"] == "/console/sign-in?next=%2Fconsole%2Faccount%3Fx%3D1"
    page = browser.get(away.headers["location"]).text
    assert 'name="next" value="/console/account?x=1"' in page
    answer = browser.sign_in("  ADA ", next="/console/account?x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/account?x=1")
    assert here(browser)
    assert room.acts() == [(f"person:{room.id_of('ada')}", "sign_in")]


def test_a_form_sent_too_late_says_so_and_leads_back_to_its_page(room: Room) -> None:
    browser = room.browser()
    for stood, back in (
        (f"{browser.base_url}/console/account?x=1", "%2Fconsole%2Faccount%3Fx%3D1"),
        ("https://elsewhere.example/console//evil", "%2Fconsole%2F"),
    ):
        sent = browser.form("/account/self", {}, referer=stood)
        assert sent.headers["location"] == f"/console/sign-in?next={back}"
        assert "what you just sent was not done" in browser.get(sent.headers["location"]).text


def test_the_cookie_is_for_this_site_and_no_script(room: Room) -> None:
    room.person("ada")
    plain = cookies(room.browser().sign_in("ada"))
    assert re.match(r"desk=[A-Za-z0-9_-]{43};", plain)
    for flag in ("HttpOnly", "SameSite=lax", "Path=/", "Max-Age=43200"):
        assert flag in plain
    assert "Secure" not in plain
    assert "Domain" not in plain
    safe = cookies(room.browser("https://desk.test").sign_in("ada"))
    assert re.match(r"__Host-desk=[A-Za-z0-9_-]{43};", safe)
    assert "Secure" in safe
    assert "HttpOnly" in safe


def test_only_the_hash_of_a_session_is_stored(room: Room) -> None:
    room.person("ada")
    browser = room.browser()
    browser.sign_in("ada")
    token = browser.cookies["desk"]
    stored = room.asked("SELECT hash FROM session")
    assert len(bytes(stored[0][0])) == 32
    everything = room.asked("SELECT s::text FROM session s UNION ALL SELECT a::text FROM audit a")
    assert not any(token in row[0] for row in everything)


def test_a_session_that_was_there_before_is_not_kept(room: Room) -> None:
    """Fixation: whoever planted a token in the browser does not get in by it afterwards."""
    room.person("ada")
    planted = "planted" + "x" * 36
    browser = room.browser()
    browser.cookies.set("desk", planted, domain="desk.test", path="/")
    answer = browser.sign_in("ada")
    assert planted not in cookies(answer)
    assert here(browser)
    thief = room.browser()
    thief.cookies.set("desk", planted)
    assert not here(thief)


def test_signing_in_again_ends_the_session_before(room: Room) -> None:
    room.person("ada")
    browser = room.browser()
    browser.sign_in("ada")
    before = browser.cookies["desk"]
    browser.sign_in("ada")
    assert browser.cookies["desk"] != before
    old = room.browser()
    old.cookies.set("desk", before)
    assert not here(old)
    assert here(browser)


def test_over_https_a_cookie_that_any_neighbour_may_set_is_not_looked_at(room: Room) -> None:
    room.person("ada")
    browser = room.browser()
    browser.sign_in("ada")
    safe = room.browser("https://desk.test")
    safe.cookies.set("desk", browser.cookies["desk"])
    assert not here(safe)


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.test/console/",
        "//evil.test/console/",
        "/\\evil.test/console/",
        "/console//evil.test",
        "/console/\\evil.test",
        "/consoleevil",
        "/v1/incidents",
        "javascript:alert(1)",
        "/console/\tx",
        "/console/\r\nSet-Cookie: a=b",
        "",
    ],
)
def test_afterwards_nobody_is_led_elsewhere(room: Room, wanted: str) -> None:
    room.person("ada")
    browser = room.browser()
    for answer in (
        browser.sign_in("ada", next=wanted),
        browser.ask("GET", "/console/sign-in", params={"next": wanted}),
    ):
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/")


def test_all_who_are_not_let_in_get_one_answer(room: Room) -> None:
    room.person("ada")
    room.person("shut")
    with room.services.ledger.transaction() as work:
        people.disable(work.conn, room.id_of("shut"), by="test")
        people.invite(work.conn, name="Nobody yet", role=Role.AUTHOR, by="test")
    browser = room.browser()
    tries = {
        "wrong": ("ada", "not her password"),
        "unknown": ("eve", PASSWORD),
        "disabled": ("shut", PASSWORD),
        "nothing": ("", ""),
        "long": ("ada", PASSWORD + "x" * 5_000),
        "odd": ("ada\u202e'--", PASSWORD),
    }
    for login, password in tries.values():
        answer = browser.sign_in(login, password)
        assert answer.status_code == 422
        assert NOT_LET_IN in answer.text
        assert "set-cookie" not in answer.headers
        assert password[:12] not in answer.text or not password
    assert room.acts() == []
    assert room.asked("SELECT count(*) FROM session") == [(0,)]


def test_the_door_closes_for_everybody_and_says_nothing_of_it(room: Room) -> None:
    room.person("ada")
    room.asked("UPDATE person SET failures = 30")
    browser = room.browser()
    assert browser.sign_in("ada", "not her password").status_code == 422
    assert room.acts() == [("sign-in", "sign_in.locked")]
    right = browser.sign_in("ada")
    assert (right.status_code, NOT_LET_IN in right.text) == (422, True)
    # While it is closed nothing is counted: who keeps trying does not keep it closed.
    assert room.asked("SELECT failures FROM person") == [(31,)]
    room.asked("UPDATE person SET locked_until = now() - interval '1 second'")
    assert browser.sign_in("ada").status_code == 303
    assert room.asked("SELECT failures, locked_until FROM person") == [(0, None)]


def test_of_tries_at_the_same_moment_the_first_closes_the_door_on_the_others(room: Room) -> None:
    room.person("ada")
    room.asked("UPDATE person SET failures = 30")

    def guess(number: int) -> int:
        return room.browser().sign_in("ada", f"guess number {number}").status_code

    with ThreadPoolExecutor(8) as many:
        assert set(many.map(guess, range(8))) <= {422, 503}
    assert room.asked("SELECT failures, locked_until > now() FROM person") == [(31, True)]


def test_an_unknown_name_is_looked_at_as_thoroughly(room: Room) -> None:
    """By work done and not by the clock: each answer costs one whole check of a password."""
    room.person("ada")
    room.asked("UPDATE person SET locked_until = now() + interval '1 minute'")
    browser = room.browser()
    for login in ("eve", "ada"):
        before = passwords.turn.passed
        assert browser.sign_in(login).status_code == 422
        assert passwords.turn.passed - before == 1


def test_a_flood_is_sent_away_and_holds_nobody_up(room: Room) -> None:
    room.person("ada")
    release = threading.Event()

    def hold() -> None:
        with passwords.turn():
            release.wait(60)

    with ExitStack() as stack:
        full = passwords.AT_ONCE + passwords.IN_LINE
        line = stack.enter_context(ThreadPoolExecutor(full))
        stack.callback(release.set)
        for _ in range(full):
            line.submit(hold)
        until(lambda: passwords.turn.crowd == full)
        answer = room.browser().sign_in("ada")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert CROWDED in answer.text
        joins = room.browser().form(invited(room), joining("bob"))
        assert joins.status_code == 503
    assert room.browser().sign_in("ada").status_code == 303


def test_a_hash_of_older_parameters_is_replaced_at_sign_in(room: Room) -> None:
    from argon2 import PasswordHasher

    room.person("ada")
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    room.asked("UPDATE person SET password_hash = %s", weak)
    assert room.browser().sign_in("ada").status_code == 303
    stored = room.asked("SELECT password_hash FROM person")[0][0]
    assert not passwords.outdated(stored)
    assert passwords.proves(PASSWORD, stored)


# Sessions.


def test_signing_out_ends_the_session(room: Room) -> None:
    browser = room.signed_in("ada")
    token = browser.cookies["desk"]
    answer = browser.form("/sign-out", {}, page="/account")
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")
    assert 'desk=""; ' in cookies(answer)
    thief = room.browser()
    thief.cookies.set("desk", token)
    assert not here(thief)
    assert room.acts() == [(f"person:{room.id_of('ada')}", "sign_out")]


@pytest.mark.parametrize(
    "passed",
    ["expires_at = now()", "seen_at = now() - interval '2 hours'"],
)
def test_a_session_ends_after_twelve_hours_and_after_two_idle(room: Room, passed: str) -> None:
    browser = room.signed_in("ada")
    assert here(browser)
    hours = room.asked("SELECT extract(epoch FROM expires_at - created_at) / 3600 FROM session")
    assert float(hours[0][0]) == pytest.approx(12)
    room.asked(f"UPDATE session SET {passed}")
    assert not here(browser)


def test_being_here_keeps_a_session_from_idling_and_not_from_its_end(room: Room) -> None:
    browser = room.signed_in("ada")
    room.asked("UPDATE session SET seen_at = now() - interval '119 minutes'")
    ends = room.asked("SELECT expires_at FROM session")
    assert here(browser)
    assert room.asked("SELECT now() - seen_at < interval '1 minute' FROM session") == [(True,)]
    assert room.asked("SELECT expires_at FROM session") == ends


# Forged forms.


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.test"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_nobody_is_signed_in_by_another_sites_form(room: Room, headers: dict[str, str]) -> None:
    room.person("ada")
    browser = room.browser()
    form = {"login": "ada", "password": PASSWORD}
    answer = browser.form("/sign-in", form, **headers)
    assert answer.status_code == 403
    assert not here(browser)
    path = invited(room)
    assert browser.form(path, joining("bob"), **headers).status_code == 403
    assert browser.open(path).status_code == 200
    assert room.asked("SELECT failures FROM person WHERE login = 'ada'") == [(0,)]


def test_a_form_that_is_no_form_is_refused(room: Room) -> None:
    browser = room.browser()
    json = browser.post("/console/sign-in", json={"login": "ada", "password": PASSWORD})
    assert json.status_code == 400
    for login in ("x" * 3_000_000, "ada\x00"):
        assert browser.sign_in(login).status_code == 400


# Joining.


def test_a_link_lets_one_join_and_then_leads_nowhere(room: Room) -> None:
    path = invited(room)
    browser = room.browser()
    assert "as <strong>author</strong>" in browser.open(path).text
    assert browser.open(path).status_code == 200  # looking does not use it up
    answer = browser.form(path, joining())
    assert (answer.status_code, answer.headers["location"]) == (303, "/console/")
    assert here(browser)
    assert room.asked("SELECT login, name, role FROM person") == [("ada", "Ada Lovelace", "author")]
    assert browser.open(path).status_code == 410
    late = room.browser().form(path, joining("eve"))
    assert (late.status_code, "set-cookie" in late.headers) == (410, False)
    assert room.browser().sign_in("ada", OTHER).status_code == 303


def test_of_two_who_use_a_link_at_once_one_gets_in(room: Room) -> None:
    path = invited(room)
    ready = threading.Barrier(4)

    def use(login: str) -> int:
        ready.wait(20)
        return room.browser().form(path, joining(login)).status_code

    with ThreadPoolExecutor(4) as many:
        found = sorted(many.map(use, ("ann", "bob", "cas", "dee")))
    assert found == [303, 410, 410, 410]
    assert room.asked("SELECT count(*) FROM person WHERE login IS NOT NULL") == [(1,)]
    assert room.asked("SELECT count(*) FROM session") == [(1,)]


def test_of_two_who_want_one_login_at_once_one_gets_it(room: Room) -> None:
    paths = [invited(room), invited(room)]
    ready = threading.Barrier(2)

    def use(path: str) -> int:
        ready.wait(20)
        return room.browser().form(path, joining("ada")).status_code

    with ThreadPoolExecutor(2) as many:
        assert sorted(many.map(use, paths)) == [303, 422]


def test_links_that_are_old_replaced_wrong_or_of_somebody_disabled_lead_nowhere(
    room: Room,
) -> None:
    expired, replaced, disabled = invited(room, "A"), invited(room, "B"), invited(room, "C")
    ids = {name: str(i) for i, name in room.asked("SELECT id, name FROM person")}
    room.asked("UPDATE invitation SET expires_at = now() WHERE person_id = %s::uuid", ids["A"])
    with room.services.ledger.transaction() as work:
        again = people.link_again(work.conn, ids["B"], by="test")
        people.disable(work.conn, ids["C"], by="test")
    paths = (expired, replaced, disabled, "/join/" + "x" * 43, "/join/short", "/join/%00")
    for path in paths:
        assert room.browser().open(path).status_code == 410, path
        assert room.browser().form(path, joining()).status_code == 410, path
    # Enabled again, they need another link.
    with room.services.ledger.transaction() as work:
        people.enable(work.conn, ids["C"], by="test")
    assert room.browser().open(disabled).status_code == 410
    assert room.browser().open(again.path.removeprefix("/console")).status_code == 200


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"login": "a"}, "2 to 64 small letters"),
        ({"login": "ada lovelace"}, "2 to 64 small letters"),
        ({"login": "аda"}, "2 to 64 small letters"),  # a Cyrillic letter that looks like an a
        ({"login": "TAKEN"}, "is taken by somebody else"),
        ({"name": "  "}, "is empty"),
        ({"name": "Ada\u202ealoL"}, "none of them hidden"),
        ({"password": "short"}, "at least 12 characters"),
        ({"password": "adalovelace99", "again": "adalovelace99"}, "tried first"),
        ({"again": "something else here"}, "not the same"),
    ],
)
def test_what_is_wrong_is_said_and_the_link_still_works(
    room: Room, wrong: dict[str, str], told: str
) -> None:
    room.person("taken")
    path = invited(room)
    browser = room.browser()
    answer = browser.form(path, joining() | wrong)
    assert (answer.status_code, told in answer.text) == (422, True)
    assert OTHER not in answer.text
    assert not here(browser)
    assert browser.form(path, joining()).status_code == 303


def test_a_new_link_gives_a_new_password_and_keeps_who_they_are(room: Room) -> None:
    browser = room.signed_in("ada")
    room.asked("UPDATE person SET failures = 9, locked_until = now() + interval '9 minutes'")
    with room.services.ledger.transaction() as work:
        link = people.link_again(work.conn, room.id_of("ada"), by="test")
    path = link.path.removeprefix("/console")
    fresh = room.browser()
    assert "Choose a new password" in fresh.open(path).text
    answer = fresh.form(path, {"password": OTHER, "again": OTHER, "login": "eve", "name": "Eve"})
    assert answer.status_code == 303
    assert here(fresh)
    assert not here(browser)
    assert room.asked("SELECT login, name, locked_until FROM person") == [("ada", "Ada", None)]
    assert room.browser().sign_in("ada").status_code == 422
    assert room.browser().sign_in("ada", OTHER).status_code == 303
    assert ("person:" + room.id_of("ada"), "password.change") in room.acts()


# What is told to whom.


def test_no_name_login_password_or_token_gets_into_log_or_audit(room: Room) -> None:
    path = invited(room)
    with structlog.testing.capture_logs() as lines:
        browser = room.browser()
        browser.open(path)
        browser.form(path, joining())
        session = browser.cookies["desk"]
        for _ in range(FREE_TRIES):
            room.browser().sign_in("ada", "wrong " + OTHER)
    assert {line["event"] for line in lines} == {"http.request", "sign_in.locked"}
    told = repr(lines) + repr(room.asked("SELECT a::text FROM audit a"))
    for secret in (path.rpartition("/")[2], session, OTHER, "Lovelace", "ada"):
        assert secret not in told


def test_pages_before_sign_in_hold_nothing_back_from_password_managers(room: Room) -> None:
    page = room.browser().open("/sign-in").text
    assert 'autocomplete="username"' in page
    assert 'autocomplete="current-password"' in page
    join = room.browser().open(invited(room)).text
    assert join.count('autocomplete="new-password"') == 2
    for text in (page, join):
        assert "onpaste" not in text
        assert "style=" not in text
        assert "<script>" not in text


def test_pages_are_not_kept_framed_or_told_to_others(room: Room) -> None:
    for path in ("/sign-in", invited(room)):
        headers = room.browser().open(path).headers
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "'unsafe-inline'" not in headers["content-security-policy"]
        assert headers["referrer-policy"] == "same-origin"

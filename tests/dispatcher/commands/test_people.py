"""People as the machine's owner invites and shuts them out, and the first admin's link."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from typer.testing import CliRunner, Result

from dispatcher import people as staff
from dispatcher.cli import app
from dispatcher.commands import people, processes
from dispatcher.commands.places import URL_FILE, announce
from dispatcher.ledger import people as rows
from dispatcher.ledger.connection import Ledger
from dispatcher.security.rights import Role
from dispatcher.settings import Settings, environment
from tests.dispatcher.commands.conftest import Running, until

Dispatcher = Callable[..., Result]
URL = "http://127.0.0.1:8000"


@pytest.fixture
def dispatcher(settings: Settings, database_url: str) -> Dispatcher:
    """Runs `dispatcher ARGUMENTS` in this process."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, arguments, env=environment(settings))

    return run


def joined(ledger: Ledger, link: str, login: str) -> None:
    with ledger.transaction() as work:
        token = urlsplit(link).path.rpartition("/")[2]
        staff.join(work.conn, token, login=login, name="Ada", password_hash="hash")


def acts(ledger: Ledger) -> list[tuple[str, str]]:
    with ledger.read() as conn:
        return conn.execute("SELECT actor, act FROM audit ORDER BY id").fetchall()


def test_somebody_is_invited_listed_and_shut_out(
    dispatcher: Dispatcher, settings: Settings, ledger: Ledger
) -> None:
    announce(settings.data_dir / URL_FILE, URL)
    invited = dispatcher("people", "invite", "--role", "admin", "--name", "Ada Lovelace")
    assert invited.exit_code == 0, invited.output
    link = invited.stdout.strip()
    assert re.fullmatch(rf"{URL}/console/join/[\w-]{{43}}", link)
    assert "invited" in dispatcher("people", "list").stdout
    joined(ledger, link, "ada")
    with ledger.transaction() as work:
        person = rows.by_login(work.conn, "ada")
        assert person is not None
        rows.start_session(work.conn, person.id, "her session")
    listed = dispatcher("people", "list").stdout
    for told in ("ada", "admin", "may sign in"):
        assert told in listed
    # The owner may shut out even the last admin, and is told what to do then.
    shut = dispatcher("people", "disable", "ADA")
    assert (shut.exit_code, "people invite" in shut.stderr) == (0, True)
    with ledger.read() as conn:
        assert rows.of_session(conn, "her session") is None
    assert "disabled" in dispatcher("people", "list").stdout
    assert acts(ledger) == [
        ("owner", "person.invite"),
        (f"person:{person.id}", "person.join"),
        ("owner", "person.disable"),
    ]


def test_what_cannot_be_is_told(dispatcher: Dispatcher, ledger: Ledger) -> None:
    unknown = dispatcher("people", "disable", "eve")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    role = dispatcher("people", "invite", "--role", "owner", "--name", "Ada")
    assert (role.exit_code, "approver" in role.stderr) == (2, True)
    assert dispatcher("people", "invite", "--role", "admin", "--name", " ").exit_code == 2
    assert acts(ledger) == []


def test_without_a_known_api_the_path_is_told(dispatcher: Dispatcher) -> None:
    invited = dispatcher("people", "invite", "--role", "viewer", "--name", "Ada")
    assert invited.stdout.startswith("/console/join/")


def test_each_start_makes_another_first_link_until_an_admin_has_joined(ledger: Ledger) -> None:
    first, second = people.first_link(ledger, URL), people.first_link(ledger, f"{URL}/")
    assert first is not None
    assert second is not None
    assert first != second
    assert second.startswith(f"{URL}/console/join/")
    with pytest.raises(staff.LinkSpent):
        joined(ledger, first, "eve")
    with ledger.read() as conn:
        # One invited person, however often it was started; their link lasts a day.
        lasting = conn.execute(
            "SELECT count(DISTINCT p.id), max(extract(epoch FROM i.expires_at - i.created_at))"
            " FROM person p JOIN invitation i ON i.person_id = p.id"
        ).fetchone()
    assert lasting == (1, 24 * 3600)
    joined(ledger, second, "ada")
    assert people.first_link(ledger, URL) is None


def test_a_first_link_is_made_again_once_no_admin_is_left(ledger: Ledger) -> None:
    link = people.first_link(ledger, URL)
    assert link is not None
    joined(ledger, link, "ada")
    with ledger.transaction() as work:
        person = rows.by_login(work.conn, "ada")
        assert person is not None
        staff.disable(work.conn, person.id, by="test", even_last=True)
        staff.invite(work.conn, name="Not yet here", role=Role.ADMIN, by="test")
    again = people.first_link(ledger, URL)
    assert again is not None
    joined(ledger, again, "bob")


def test_what_is_kept_holds_no_link(settings: Settings, ledger: Ledger) -> None:
    said: list[str] = []
    people.greet(settings, URL, said.append, kept=True)
    assert said == [people.UNTOLD]
    assert acts(ledger) == []
    people.greet(settings, URL, said.append, kept=False)
    assert f"{URL}/console/join/" in said[1]
    joined(ledger, said[1].rpartition(" ")[2], "ada")
    for kept in (True, False):
        people.greet(settings, URL, said.append, kept=kept)
    assert len(said) == 2


def test_a_database_that_is_away_stops_no_start(settings: Settings) -> None:
    away = type(settings.database_url)("postgresql://x@127.0.0.1:9/none")
    said: list[str] = []
    gone = settings.model_copy(update={"database_url": away})
    people.greet(gone, URL, said.append, kept=False)
    assert said == []


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: ours and a process's."""
    ours, theirs = os.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def test_an_api_on_a_terminal_tells_the_link_and_in_a_file_does_not(
    settings: Settings, command: Callable[..., Running], terminal: tuple[int, int]
) -> None:
    processes.migrate(settings, wait=5).ledger.close()
    ours, theirs = terminal
    api = subprocess.Popen(
        [sys.executable, "-P", "-m", "dispatcher.cli", "api"],
        env={name: os.environ[name] for name in ("PATH", "HOME")} | environment(settings),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    )
    try:
        told = b""
        while b"\n" not in told:
            told += os.read(ours, 1_000)
        link = re.search(rf"{people.FIRST}.* (http://\S+/console/join/\S+)", told.decode())
        assert link is not None, told
        assert httpx.get(link[1]).status_code == 200
    finally:
        api.terminate()
        api.wait(20)
    kept = command(settings, "api")
    file = settings.data_dir / URL_FILE
    until(file.exists)
    url = file.read_text().strip()
    until(lambda: httpx.get(f"{url}/healthz").status_code == 200)
    kept.stop()
    written = kept.output()
    assert "/console/join/" not in written
    assert people.UNTOLD in written

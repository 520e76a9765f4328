"""The console in this process, on a database of each test's own, and browsers of people in it.

Planning and sending are only noted: there is no worker behind these tests.
"""

import re
import secrets
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from typing import Any
from urllib.parse import urlencode

import httpx
import psycopg
import pytest
from fastapi import FastAPI

from dispatcher import asgi, wiring
from dispatcher.console import door
from dispatcher.embedded import Addresses
from dispatcher.ledger import people
from dispatcher.ledger.connection import LedgerAway
from dispatcher.ledger.people import PersonRow
from dispatcher.security.rights import Role
from dispatcher.settings import Settings
from dispatcher.wiring import Services
from tests.conftest import MASTER_KEY, database_named
from tests.dispatcher.console.client import Client
from tests.dispatcher.http.conftest import Noted, recording

ORIGIN = "http://desk.test"


@dataclass(frozen=True)
class Browser:
    """Somebody's browser; `token` is of their session, "" if nobody is signed in. Paths are
    below /console, redirects are not followed."""

    client: Client
    token: str = ""

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(f"/console{path}", headers=headers)

    def raw(
        self,
        path: str,
        fields: Sequence[tuple[str, str]],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Post exactly these fields, as a browser does from a page of ours."""
        return self.client.post(
            f"/console{path}",
            content=urlencode(list(fields)),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "Origin": ORIGIN,
                **(headers or {}),
            },
        )

    def form(self, path: str, fields: Mapping[str, str]) -> httpx.Response:
        """Post a form with both tokens."""
        tokens = {"csrf": door.csrf_of(self.token), "once": door.fresh_once()}
        return self.raw(path, list((tokens | dict(fields)).items()))


@dataclass(frozen=True)
class Console:
    """The app of this test, the people in it, and what would have been named to workers."""

    app: FastAPI
    services: Services
    noted: Noted

    def person(self, role: str, name: str = "") -> PersonRow:
        """Somebody with this role, who needs no password here."""
        with self.services.ledger.transaction() as work:
            return people.create(
                work.conn, name=name or role.title(), role=Role(role), created_by="test"
            )

    def browser(self, role: str | None = "author", *, person: PersonRow | None = None) -> Browser:
        """A browser in which `person`, or somebody new with this role, is signed in."""
        client = Client(self.app, ORIGIN)
        if person is None:
            if role is None:
                return Browser(client)
            person = self.person(role)
        token = secrets.token_urlsafe(32)
        with self.services.ledger.transaction() as work:
            people.start_session(work.conn, person.id, token)
        client.cookies.set("desk", token)
        return Browser(client, token)

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database answers."""
        with self.services.ledger.read() as conn:
            return conn.execute(statement, values).fetchall()


def hidden(text: str, name: str) -> str:
    """The value of the first hidden field of this name on a page."""
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)"', text)
    assert found is not None, f"no hidden field {name}"
    return unescape(found[1])


@pytest.fixture(scope="session")
def app_of_session(
    stack: Addresses, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Console]:
    """One app for all tests of the console: it takes a second to make."""
    name = f"console_{uuid.uuid4().hex}"
    with psycopg.connect(stack.database_url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {migrated}")
    settings = Settings.model_validate(
        {
            "database_url": database_named(stack.database_url, name),
            "broker_url": stack.broker_url,
            "master_key": MASTER_KEY,
            "data_dir": tmp_path_factory.mktemp("console"),
        }
    )
    noted = Noted()
    services = recording(wiring.build(settings), noted)
    yield Console(asgi.of(services), services, noted)
    services.reckoning.close()
    services.ledger.close()
    with psycopg.connect(stack.database_url, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def console(app_of_session: Console) -> Console:
    """The console with nobody in it."""
    for left in range(20, -1, -1):
        try:
            _empty(app_of_session.services)
        except LedgerAway:
            # A count that the test before asked for is still being made: one of the two gave way.
            if not left:
                raise
        else:
            break
    app_of_session.noted.planned.clear()
    app_of_session.noted.sent.clear()
    return app_of_session


def _empty(services: Services) -> None:
    with services.ledger.read() as conn:
        tables = conn.execute(
            "SELECT string_agg(quote_ident(c.relname), ', ') FROM pg_class c"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
            " AND NOT c.relispartition AND c.relname NOT IN ('alembic_version', 'installation')"
        ).fetchone()
        assert tables is not None
        conn.execute(f"TRUNCATE {tables[0]} RESTART IDENTITY CASCADE")

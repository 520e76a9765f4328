"""The whole app in this process, and browsers that keep cookies and fill in forms.

with opened(stack, database_url, tmp_path) as room: ...
"""

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import psycopg
from fastapi import FastAPI

from dispatcher import asgi, people, wiring
from dispatcher.embedded import Addresses
from dispatcher.ledger import people as rows
from dispatcher.ledger.people import PersonRow
from dispatcher.security import passwords
from dispatcher.security.rights import Role
from dispatcher.settings import Settings
from dispatcher.wiring import Services
from tests.conftest import MASTER_KEY, database_named
from tests.dispatcher.console.client import Client

PASSWORD = "rain on tin roofs"
"""Everybody's, hashed once: hashing takes a tenth of a second."""
_HASHED: list[str] = []


def hashed() -> str:
    if not _HASHED:
        _HASHED.append(passwords.hashed(PASSWORD))
    return _HASHED[0]


class Browser(Client):
    """Keeps cookies, follows nothing by itself, and sends what a browser sends."""

    def open(self, path: str) -> httpx.Response:
        return self.get(f"/console{path}")

    def form(
        self, path: str, fields: Mapping[str, str], *, page: str | None = None, **headers: str
    ) -> httpx.Response:
        """Post a form to `path`; with the tokens of the form on `page` that leads there."""
        hidden = hidden_of(self.open(page).text, path) if page is not None else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.post(
            f"/console{path}",
            data={**hidden, **fields},
            headers={"Origin": self.base_url, **named},
        )

    def sign_in(self, login: str, password: str = PASSWORD, **form: str) -> httpx.Response:
        return self.form("/sign-in", {"login": login, "password": password, **form})


@dataclass
class Room:
    """The app of this test, and the people in it."""

    app: FastAPI
    services: Services

    def emptied(self) -> "Room":
        """The same room with nobody in it and nothing told."""
        self.asked(
            "TRUNCATE person, person_contact, invitation, session, audit, idempotency CASCADE"
        )
        return self

    def browser(self, base: str = "http://desk.test") -> Browser:
        return Browser(self.app, base)

    def person(self, login: str, role: Role = Role.AUTHOR, name: str = "") -> PersonRow:
        """Somebody who has joined, with everybody's password."""
        with self.services.ledger.transaction() as work:
            link = people.invite(work.conn, name=name or login.title(), role=role, by="test")
            return people.join(
                work.conn,
                link.token,
                login=login,
                name=link.person.name,
                password_hash=hashed(),
            )

    def signed_in(self, login: str, role: Role = Role.AUTHOR) -> Browser:
        """The browser of somebody new who has signed in, by a session as sign-in makes it."""
        person = self.person(login, role)
        browser = self.browser()
        token = f"{login}-{'0123456789' * 4}"[:43]
        with self.services.ledger.transaction() as work:
            rows.start_session(work.conn, person.id, token)
        browser.cookies.set("desk", token)
        return browser

    def id_of(self, login: str) -> str:
        with self.services.ledger.read() as conn:
            person = rows.by_login(conn, login)
        assert person is not None
        return person.id

    def asked(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What the database answers."""
        with self.services.ledger.read() as conn:
            cursor = conn.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def acts(self) -> list[tuple[str, str]]:
        """The audit log: actor and act, in order, without what `person` above has done."""
        return self.asked(
            "SELECT actor, act FROM audit WHERE actor <> 'test' AND act <> 'person.join'"
            " ORDER BY id"
        )


@contextmanager
def opened(stack: Addresses, migrated: str, folder: Path) -> Iterator[Room]:
    """The app on a copy of the migrated database."""
    name = f"room_{uuid.uuid4().hex}"
    with psycopg.connect(stack.database_url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {migrated}")
    settings = Settings.model_validate(
        {
            "database_url": database_named(stack.database_url, name),
            "broker_url": stack.broker_url,
            "master_key": MASTER_KEY,
            "data_dir": folder,
        }
    )
    services = wiring.build(settings)
    try:
        yield Room(asgi.of(services), services)
    finally:
        services.ledger.close()
        with psycopg.connect(stack.database_url, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


def hidden_of(text: str, action: str) -> dict[str, str]:
    """The hidden fields of the form on a page that leads to `action`."""
    for head, inner in re.findall(r"<form\b([^>]*)>(.*?)</form>", text, re.DOTALL):
        if f'action="/console{action}"' in head or f'formaction="/console{action}"' in inner:
            found = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', inner)
            return {name: unescape(value) for name, value in found}
    raise AssertionError(f"no form leads to {action}")

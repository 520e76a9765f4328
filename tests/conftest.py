"""One PostgreSQL and Valkey for the session; a fresh migrated database for each test.

A test names only what it needs: `ledger` for tables, `database_url` for a process of its
own, `stack` for both servers' addresses. Every database is a copy of one that was migrated
once, and is dropped afterwards however the test left its connections.
"""

import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from dispatcher.embedded import Addresses
from dispatcher.ledger import migrations
from dispatcher.ledger.connection import Ledger
from dispatcher.security.sealing import Sealer
from tests.stack import postgres_and_valkey

MASTER_KEY = "5ea1" * 16
"""The tests' master key: fixed, so that hashes and seals can be recomputed by a reader."""


def database_named(url: str, name: str) -> str:
    """The same server's database of another name."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


HOUSES = ("browser", "chaos", "stories")


class ByHouse(LoadScopeScheduling):  # type: ignore[misc]
    """Tests of a folder that keeps a house follow one another on one process; the rest are free.

    xdist's own groups are no more than a suffix of a test's id, which pytest 9.2 no longer takes.
    """

    def _split_scope(self, nodeid: str) -> str:
        folder = nodeid.removeprefix("tests/").partition("/")[0]
        return folder if folder in HOUSES else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByHouse:
    return ByHouse(config, log)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
    """Where PostgreSQL and Valkey answer, for the whole session."""
    with postgres_and_valkey(tmp_path_factory.mktemp("stack")) as addresses:
        yield addresses


@pytest.fixture(scope="session")
def migrated(stack: Addresses) -> str:
    """The name of a database at the newest schema, to be copied and never written to."""
    name = "migrated"
    with psycopg.connect(stack.database_url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name}")
    migrations.upgrade(database_named(stack.database_url, name))
    return name


@pytest.fixture
def database_url(stack: Addresses, migrated: str) -> Iterator[str]:
    """A database of this test's own, migrated and empty."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(stack.database_url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {migrated}")
    yield database_named(stack.database_url, name)
    with psycopg.connect(stack.database_url, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """The engine's way to this test's database."""
    opened = Ledger(database_url, size=6).open()
    yield opened
    opened.close()


@pytest.fixture
def sealer() -> Sealer:
    """Seals with the tests' master key."""
    return Sealer(MASTER_KEY)

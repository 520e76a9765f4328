"""The way to PostgreSQL: a pool, transactions, and what runs after a commit.

Owns connections and nothing of the tables. The database's own words never leave this
module in an exception: they may quote a row. What is told is the kind of error and the
name of the constraint.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolTimeout

from dispatcher.ledger import migrations

Connection = psycopg.Connection[TupleRow]
T = TypeVar("T")

DISK_FULL = "53100"
"""https://www.postgresql.org/docs/18/errcodes-appendix.html"""
FULL_FOR = 10.0
"""Seconds for which a process that was refused for want of room says so."""
ROOM_ROWS = 30_000
"""Rows that the look for room lets spill: a megabyte of temporary file."""
_FULL = "the database has no disk space left"


class LedgerAway(Exception):
    """The database cannot be reached now; nothing was written. Try again shortly."""


class LedgerFull(LedgerAway):
    """The database's disk is full: nothing was written, and a person has to make room."""


class LedgerRefused(Exception):
    """The database refused a statement: a fault of this program, told without the row."""


class SchemaTooOld(Exception):
    """The schema is older than this release: `dispatcher migrate` mends it."""


class WrongInstallation(Exception):
    """The ledger belongs to another mode or another master key."""


@dataclass(slots=True)
class Transaction:
    """One unit of work. `after_commit` callbacks run once the work is durable.

    A callback must not fail the caller: what it starts is also found by the sweep.
    """

    conn: Connection
    _after: list[Callable[[], object]] = field(default_factory=list)

    def after_commit(self, callback: Callable[[], object]) -> None:
        self._after.append(callback)

    def run_after_commit(self) -> None:
        for callback in self._after:
            callback()


class Link(Connection):
    """A connection that can give up on a server that is there and says nothing.

    A frozen server keeps its sockets open, so that no timeout of TCP's is of use. `limit` is in
    seconds; None waits for ever, since a plan of a million people takes its time.
    """

    limit: float | None = None

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        return super().wait(gen, interval, self.limit if timeout is None else timeout)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """What is asked in this block is answered in time, or the connection is lost."""
        self.limit = seconds
        try:
            yield
        finally:
            self.limit = None


class Ledger:
    """PostgreSQL as the engine sees it. `size` bounds the connections of this process.

    `by_key` is for statements that reach few rows by their keys, again and again.
    Raises `LedgerAway` from `transaction` and `read` when the database cannot be
    reached or goes away underway.
    """

    def __init__(
        self, database_url: str, *, size: int = 8, patience: float = 5.0, by_key: bool = False
    ) -> None:
        self.database_url = database_url
        self._full_at: float | None = None
        configure = _configure_by_key if by_key else _configure

        def within_patience(look: Callable[[Link], None]) -> Callable[[Link], None]:
            def looked(conn: Link) -> None:
                with conn.within(patience):
                    look(conn)

            return looked

        self._pool: ConnectionPool[Link] = ConnectionPool(
            database_url,
            connection_class=Link,
            kwargs={"connect_timeout": max(2, round(patience))},
            min_size=1,
            max_size=size,
            timeout=patience,
            open=False,
            reconnect_timeout=600.0,
            check=within_patience(ConnectionPool.check_connection),
            configure=within_patience(configure),
            name="ledger",
        )
        self._open = False

    def open(self) -> "Ledger":
        """Start connecting in the background; the first use waits for a connection."""
        if not self._open:
            self._pool.open(wait=False)
            self._open = True
        return self

    def close(self) -> None:
        if self._open:
            self._pool.close(timeout=5.0)
            self._open = False

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Commit on leaving, roll back on any exception, then run the callbacks."""
        with self._connection() as conn, conn.transaction():
            work = Transaction(conn)
            yield work
        work.run_after_commit()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection outside a transaction, for single statements that read."""
        with self._connection() as conn:
            yield conn

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        self.open()
        try:
            with self._pool.connection() as conn:
                yield conn
        except PoolTimeout:
            told: Exception = LedgerAway("the database cannot be reached")
        except psycopg.Error as error:
            told = _told(error)
        else:
            return
        if isinstance(told, LedgerFull):
            self._full_at = time.monotonic()
        raise told from None

    def check_room(self) -> None:
        """Raise `LedgerFull` if no megabyte is left on the database's disk, or if this process
        was refused for that of late.

        Lets the server write a temporary file, which is gone when it answers, and no row: one
        that was written would find the room that the look before it has left.
        """
        if self._full_at is not None and time.monotonic() - self._full_at < FULL_FOR:
            raise LedgerFull(_FULL)
        with self.transaction() as work:
            work.conn.execute("SET LOCAL work_mem = '64kB'")
            work.conn.execute("SELECT count(*) FROM generate_series(1, %s)", (ROOM_ROWS,))

    def check_schema(self) -> None:
        """Raise `SchemaTooOld` unless the schema is this release's or newer."""
        with self.read() as conn:
            found = conn.execute("SELECT to_regclass('alembic_version')").fetchone()
            revision = None
            if found is not None and found[0] is not None:
                row = conn.execute("SELECT version_num FROM alembic_version").fetchone()
                revision = row[0] if row else None
        if revision is None or (revision != migrations.head() and migrations.known(revision)):
            raise SchemaTooOld(
                f"the database's schema is at {revision or 'nothing'}, this release needs"
                f" {migrations.head()}: run `dispatcher migrate`"
            )

    def record_installation(self, *, mode: str, key_fingerprint: str) -> None:
        """Record mode and master key at first start. Raises `WrongInstallation` on a mismatch."""
        with self.transaction() as work:
            work.conn.execute(
                "INSERT INTO installation (mode, key_fingerprint) VALUES (%s, %s)"
                " ON CONFLICT DO NOTHING",
                (mode, key_fingerprint),
            )
            row = work.conn.execute("SELECT mode, key_fingerprint FROM installation").fetchone()
        assert row is not None
        if row[0] != mode:
            raise WrongInstallation(
                f"this ledger was started in {row[0]} mode and refuses {mode} mode:"
                " use another database for it"
            )
        if row[1] != key_fingerprint:
            raise WrongInstallation(
                "the master key is not the one this ledger's contacts were sealed with"
            )


def _configure_by_key(conn: Connection) -> None:
    """Plans are made once and whatever the tables hold then: planning a window for its values
    costs a third of what its rows do, and a plan made on empty tables would read full ones."""
    _configure(conn)
    with conn.cursor() as cursor:
        cursor.execute("SET plan_cache_mode = 'force_generic_plan'")
        cursor.execute("SET enable_seqscan = off")


def _configure(conn: Connection) -> None:
    conn.autocommit = True
    conn.prepare_threshold = 3
    with conn.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")
        cursor.execute("SET idle_in_transaction_session_timeout = '5min'")
        # A statement ends when its client is gone, not when it is through.
        cursor.execute("SET client_connection_check_interval = '2s'")
        # A selection of a million people lives in temporary tables: in memory, if it fits.
        cursor.execute("SET temp_buffers = '64MB'")


def _told(error: psycopg.Error) -> Exception:
    """The error without the row it is about."""
    state = error.sqlstate
    # Besides a lost connection: a rollback that asks to be tried again (class 40), and a
    # server that has run out of disk, memory or connections (class 53).
    lost = isinstance(error, psycopg.OperationalError) and (
        state is None or state[:2] in ("08", "40", "53", "57")
    )
    if state == DISK_FULL:
        return LedgerFull(_FULL)
    if lost and state != "57014":
        return LedgerAway("the database cannot be reached")
    about = f" by {error.diag.constraint_name}" if error.diag.constraint_name else ""
    return LedgerRefused(f"the database refused{about} (SQLSTATE {state or 'none'})")


def one(row: TupleRow | None) -> Any:
    """The first column of a row that must be there."""
    assert row is not None
    return row[0]

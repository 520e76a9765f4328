"""The directory's rows: locks, public accounts, suppressions, against a real PostgreSQL."""

import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from channels.contract import ContactKind
from dispatcher.contacts import ContactError
from dispatcher.ledger import recipients as directory
from dispatcher.ledger import suppressions
from dispatcher.ledger.connection import Ledger, LedgerAway, LedgerRefused, one
from dispatcher.ledger.recipients import (
    ImportBusy,
    PublicAccount,
    RecipientRow,
    importing,
)
from dispatcher.security.sealing import Sealer


def account(handle: str, name: str = "Us") -> PublicAccount:
    return PublicAccount(ContactKind.X_ACCOUNT, handle, name, "en", "US")


def a_row(ref: str, row_hash: bytes = b"1") -> RecipientRow:
    return RecipientRow(
        ref=ref,
        name=b"sealed",
        locale="en",
        segment="consumer",
        region="US",
        services=(),
        tags=(),
        row_hash=row_hash,
        contacts=(),
    )


def test_a_second_import_is_refused_and_the_lock_is_given_back(ledger: Ledger) -> None:
    with importing(ledger), pytest.raises(ImportBusy), importing(ledger):
        pass
    with pytest.raises(RuntimeError, match="broke"), importing(ledger):
        raise RuntimeError("broke")
    with importing(ledger) as session:
        assert session.note({"a": 2}) == {}
    with importing(ledger) as session:
        assert session.note({"a": 9, "b": 3}) == {}
        assert session.note({"a": 12, "c": 4}) == {"a": 9}


def test_merge_says_what_is_new_and_what_changed(ledger: Ledger) -> None:
    with importing(ledger) as session:
        assert session.merge([a_row("a"), a_row("b")]) == (2, 0)
        assert session.merge([a_row("b", b"2"), a_row("c")]) == (1, 1)
        assert session.hashes(["a", "b", "x"]) == {"a": b"1", "b": b"2"}


Writer = Callable[[Ledger, Sealer], object]


def _merges(ledger: Ledger, sealer: Sealer) -> None:
    with importing(ledger) as session:
        session.merge([a_row("b")])


def _removes(ledger: Ledger, sealer: Sealer) -> None:
    with importing(ledger) as session, session.transaction():
        session.remove_absent()


def _patches(ledger: Ledger, sealer: Sealer) -> None:
    with ledger.transaction() as work:
        directory.patch(work.conn, "b", {"region": "GB"}, {})


def _deletes(ledger: Ledger, sealer: Sealer) -> None:
    with ledger.transaction() as work:
        directory.delete(work.conn, "b")


def _syncs(ledger: Ledger, sealer: Sealer) -> None:
    with ledger.transaction() as work:
        directory.sync_public_accounts(work.conn, sealer, [account("b")])


@pytest.mark.parametrize("writer", [_merges, _removes, _patches, _deletes, _syncs])
def test_every_writer_waits_for_the_one_before_it_touches_a_row(
    ledger: Ledger, sealer: Sealer, writer: Writer
) -> None:
    """So no two can hold rows that the other wants, whatever their order."""
    with ThreadPoolExecutor(1) as pool, ledger.read() as watch:
        with ledger.transaction() as work:
            directory.lock_writes(work.conn)
            second = pool.submit(writer, ledger, sealer)
            waiting = 0
            while not waiting and not second.done():
                waiting = one(
                    watch.execute(
                        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                        " AND database = (SELECT oid FROM pg_database"
                        " WHERE datname = current_database())"
                    ).fetchone()
                )
            assert waiting == 1
        second.result(10)


def test_public_accounts_are_what_is_configured(ledger: Ledger, sealer: Sealer) -> None:
    def sync(*accounts: PublicAccount) -> tuple[int, int]:
        with ledger.transaction() as work:
            return directory.sync_public_accounts(work.conn, sealer, accounts)

    assert sync(account("@TelcoNews"), account("telco_es")) == (2, 0)
    assert sync(account("@telconews"), account("telco_es")) == (0, 0)
    assert sync(account("telconews", name="Telco")) == (1, 1)
    with ledger.read() as conn:
        shown = directory.get(conn, "public:x:telconews")
        assert directory.get(conn, "public:x:telco_es") is None
        assert directory.count(conn) == 1
    assert shown is not None
    assert (shown.segment, shown.locale, shown.region) == ("public", "en", "US")
    assert [contact.kind for contact in shown.contacts] == ["x_account"]


def test_a_public_account_that_is_none_changes_nothing(ledger: Ledger, sealer: Sealer) -> None:
    with pytest.raises(ContactError), ledger.transaction() as work:
        directory.sync_public_accounts(work.conn, sealer, [account("good"), account("not good!")])
    with ledger.read() as conn:
        assert directory.count(conn) == 0


def test_a_column_that_is_none_cannot_be_set(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="not a column"), ledger.transaction() as work:
        directory.patch(work.conn, "a", {"ref = 'x', name": b""}, {})


def test_a_statement_stopped_midway_does_not_quote_its_row(ledger: Ledger) -> None:
    with ledger.transaction() as work:
        work.conn.execute("ALTER TABLE recipient ADD CHECK (segment <> 'consumer')")
    with pytest.raises(LedgerRefused) as refused, importing(ledger) as session:
        session.merge([a_row("canary-ref")])
    told = "".join(traceback.format_exception(refused.value))
    assert "recipient_segment_check" in told
    assert "canary-ref" not in told.replace('a_row("canary-ref")', "")


def test_a_database_that_goes_away_underway_is_told_as_that(
    ledger: Ledger, database_url: str
) -> None:
    with pytest.raises(LedgerAway), importing(ledger) as session:
        session.merge([a_row("a")])
        with psycopg.connect(database_url, autocommit=True) as conn:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        session.note({"b": 2})
    with importing(ledger) as session:
        assert session.hashes(["a"]) == {"a": b"1"}


def test_suppressions_come_in_pages_and_the_first_reason_stays(
    ledger: Ledger, sealer: Sealer
) -> None:
    with ledger.transaction() as work:
        for n in range(5):
            lookup = sealer.lookup("email", f"e{n}@example.com")
            for reason in ("opted_out", "bounced"):
                suppressions.add(
                    work.conn,
                    kind="email",
                    lookup=lookup,
                    hint="e…@e….com",
                    reason=reason,
                    source="test",
                )
    with ledger.read() as conn:
        first = suppressions.page(conn, limit=3)
        rest = suppressions.page(conn, after=first[-1].id, limit=3)
    assert (len(first), len(rest)) == (3, 2)
    assert {found.reason for found in first + rest} == {"opted_out"}
    with ledger.transaction() as work:
        lookup = sealer.lookup("email", "e0@example.com")
        assert suppressions.remove(work.conn, kind="email", lookup=lookup)
        assert not suppressions.remove(work.conn, kind="email", lookup=lookup)
        assert not suppressions.remove(work.conn, kind="phone", lookup=lookup)


def test_stored_contact_points_can_be_suppressed_by_id(ledger: Ledger, sealer: Sealer) -> None:
    with ledger.transaction() as work:
        directory.sync_public_accounts(work.conn, sealer, [account("a"), account("b")])
        ids = [row[0] for row in work.conn.execute("SELECT id FROM contact_point")]
        added = [
            suppressions.add_points(work.conn, ids, reason="unregistered", source="x_social")
            for _ in range(2)
        ]
        shown = directory.get(work.conn, "public:x:a")
    assert added == [2, 0]
    assert shown is not None
    assert shown.contacts[0].suppressed

"""The inbox in PostgreSQL: once per key, in order, opened by a token for a while."""

import threading
import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from channels.contract import ContactKind, InboxItem
from dispatcher.contacts import normalise
from dispatcher.ledger import inbox
from dispatcher.ledger import recipients as directory
from dispatcher.ledger.connection import Ledger, LedgerAway
from dispatcher.ledger.inbox import LedgerInbox, NoInbox
from dispatcher.ledger.recipients import RecipientRow, importing
from dispatcher.security.sealing import Sealer


def item(address: str, body: str = "b", key: str = "", **more: datetime) -> InboxItem:
    return InboxItem(key or str(uuid.uuid4()), address, "t", body, "INC-1", **more)


@pytest.fixture
def person(ledger: Ledger, sealer: Sealer) -> str:
    contacts = [
        directory.sealed_contact(sealer, normalise(kind, address))
        for kind, address in ((ContactKind.INBOX, "app-1"), (ContactKind.PHONE, "+12025550123"))
    ]
    plain = ("en", "consumer", "US", (), ())
    with importing(ledger) as session:
        session.merge([RecipientRow("a", b"n", *plain, b"h", contacts)])
        session.merge([RecipientRow("phone-only", b"n", *plain, b"h", contacts[1:])])
    return "a"


def test_a_message_is_stored_once_per_key(ledger: Ledger, sealer: Sealer) -> None:
    port = LedgerInbox(ledger, sealer)
    first, second = item("app-1", "one"), item("app-1", "two")
    port.put([first, second])
    port.put([second, item("app-1", "other words", key=first.key), item("app-2", "three")])
    with ledger.read() as conn:
        seen = inbox.after(conn, sealer.lookup("inbox", "app-1"))
        counts = inbox.counts(conn)
        copies = inbox.copies(conn)
    assert [(m.key, m.body, m.thread) for m in seen] == [
        (first.key, "one", "INC-1"),
        (second.key, "two", "INC-1"),
    ]
    assert len(counts) == 3
    assert set(counts.values()) == {1}
    assert sorted(c.copies for c in copies) == [1, 1, 1]


def test_the_same_words_under_two_keys_count_as_two_copies(ledger: Ledger, sealer: Sealer) -> None:
    LedgerInbox(ledger, sealer).put([item("app-1"), item("app-1"), item("app-2")])
    with ledger.read() as conn:
        found = {c.inbox: c.copies for c in inbox.copies(conn)}
    assert found == {sealer.lookup("inbox", "app-1"): 2, sealer.lookup("inbox", "app-2"): 1}


def test_reading_goes_on_after_the_last_seen_and_leaves_out_what_expired(
    ledger: Ledger, sealer: Sealer
) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    future = datetime.now(UTC) + timedelta(hours=1)
    LedgerInbox(ledger, sealer).put(
        [item("app-1", str(n), expires_at=past if n == 1 else future) for n in range(5)]
    )
    lookup = sealer.lookup("inbox", "app-1")
    with ledger.read() as conn:
        first = inbox.after(conn, lookup, limit=2)
        rest = inbox.after(conn, lookup, first[-1].seq)
    assert [m.body for m in first + rest] == ["0", "2", "3", "4"]


def test_a_reader_misses_nothing_while_many_write(ledger: Ledger, sealer: Sealer) -> None:
    port = LedgerInbox(ledger, sealer)
    lookup = sealer.lookup("inbox", "app-1")

    def write() -> None:
        for _ in range(20):
            port.put([item("app-1") for _ in range(5)])

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    seen: list[str] = []
    last = 0
    with ledger.read() as conn:
        while True:
            done = not any(writer.is_alive() for writer in writers)
            found = inbox.after(conn, lookup, last, limit=500)
            seen += (m.key for m in found)
            last = found[-1].seq if found else last
            if done and not found:
                break
    assert len(seen) == len(set(seen)) == 400


def test_a_token_opens_one_inbox_until_it_expires(
    ledger: Ledger, sealer: Sealer, person: str
) -> None:
    with ledger.transaction() as work:
        token = inbox.issue_token(work.conn, person, 60)
        other = inbox.issue_token(work.conn, person)
        assert inbox.inbox_of_token(work.conn, token) == sealer.lookup("inbox", "app-1")
        assert inbox.inbox_of_token(work.conn, token + "x") is None
        stored = work.conn.execute("SELECT string_agg(t::text, ' ') FROM inbox_token t").fetchone()
    assert token not in str(stored)
    with ledger.transaction() as work:
        work.conn.execute("UPDATE inbox_token SET expires_at = now() - interval '1 hour'")
    with ledger.transaction() as work:
        assert inbox.inbox_of_token(work.conn, other) is None
        assert inbox.forget_old_tokens(work.conn) == 2


@pytest.mark.parametrize("seconds", [0, -1, 3601])
def test_a_token_lives_at_most_an_hour(ledger: Ledger, person: str, seconds: int) -> None:
    with ledger.transaction() as work, pytest.raises(ValueError, match="3600"):
        inbox.issue_token(work.conn, person, seconds)


@pytest.mark.parametrize("ref", ["phone-only", "nobody"])
def test_who_has_no_inbox_gets_no_token(ledger: Ledger, person: str, ref: str) -> None:
    assert ref != person
    with ledger.transaction() as work, pytest.raises(NoInbox):
        inbox.issue_token(work.conn, ref)


def test_a_store_that_cannot_be_reached_took_nothing(sealer: Sealer) -> None:
    away = Ledger("postgresql://nobody@/none?host=/nonexistent", patience=0.2)
    with pytest.raises(ConnectionError) as refused:
        LedgerInbox(away, sealer).put([item("canary-inbox")])
    away.close()
    assert "canary" not in repr(refused.value)


def test_a_store_lost_while_committing_may_have_taken_them(
    ledger: Ledger, sealer: Sealer, database_url: str
) -> None:
    # A deferred trigger runs inside COMMIT: there the server ends the connection.
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute(
            "CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END'"
        )
        conn.execute(
            "CREATE CONSTRAINT TRIGGER leaving AFTER INSERT ON inbox_message"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION leave()"
        )
    with pytest.raises(LedgerAway):
        LedgerInbox(ledger, sealer).put([item("app-1")])

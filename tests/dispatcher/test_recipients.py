"""Importing and changing recipients, against a real PostgreSQL."""

import io
import logging
import traceback
from collections.abc import Iterator

import pytest

from channels.contract import ContactKind
from dispatcher import recipients
from dispatcher.contacts import NANP_SANDBOX_ONLY
from dispatcher.ledger import recipients as directory
from dispatcher.ledger import suppressions
from dispatcher.ledger.connection import Ledger, LedgerRefused
from dispatcher.recipient_files import COLUMNS, Form
from dispatcher.recipient_rules import KnownValues
from dispatcher.recipients import Changes, ImportResult, Mode, RecipientInvalid, import_stream
from dispatcher.security.sealing import Sealer

KNOWN = KnownValues(
    segments=frozenset({"consumer", "enterprise"}), services=frozenset({"voice", "sms"})
)
CANARIES = ("Canary Person", "2025550123", "canary.person", "canary-inbox", "canary-segment")

Row = dict[str, str]


def row(ref: str, **columns: str) -> Row:
    plain = {"id": ref, "name": f"Person {ref}", "locale": "en", "segment": "consumer"}
    return plain | {"region": "US-TX", "services": "voice;sms"} | columns


def csv_of(*rows: Row) -> bytes:
    lines = [",".join(COLUMNS)]
    lines += (",".join(r.get(column, "") for column in COLUMNS) for r in rows)
    return ("\n".join(lines) + "\n").encode()


class Directory:
    """The functions under test, with what every call needs."""

    def __init__(self, ledger: Ledger, sealer: Sealer) -> None:
        self.ledger = ledger
        self.sealer = sealer

    def take(
        self, *rows: Row, mode: Mode = Mode.MERGE, data: bytes | None = None, live: bool = False
    ) -> ImportResult:
        known = KnownValues(KNOWN.segments, KNOWN.services, live=live)
        stream = io.BytesIO(csv_of(*rows) if data is None else data)
        return import_stream(
            self.ledger,
            self.sealer,
            stream,
            form=Form.CSV,
            mode=mode,
            known=known,
            actor="key:test",
        )

    def refs(self) -> list[str]:
        with self.ledger.read() as conn:
            return [r[0] for r in conn.execute("SELECT ref FROM recipient ORDER BY ref")]

    def name(self, ref: str) -> str:
        with self.ledger.read() as conn:
            found = conn.execute("SELECT name FROM recipient WHERE ref = %s", (ref,)).fetchone()
        assert found is not None
        return self.sealer.open(bytes(found[0]), bound_to=self.sealer.lookup("recipient", ref))

    def addresses(self, ref: str) -> set[tuple[str, str]]:
        with self.ledger.read() as conn:
            found = conn.execute(
                "SELECT p.kind, p.sealed, p.lookup FROM recipient r JOIN recipient_contact l ON"
                " l.recipient_id = r.id JOIN contact_point p ON p.id = l.contact_point_id"
                " WHERE r.ref = %s",
                (ref,),
            ).fetchall()
        return {(kind, self.sealer.open(s, bound_to=lookup)) for kind, s, lookup in found}


@pytest.fixture
def people(ledger: Ledger, sealer: Sealer) -> Directory:
    return Directory(ledger, sealer)


def told(result: ImportResult) -> list[tuple[int, str, str]]:
    return [(error.line, error.column, error.code) for error in result.errors]


def test_a_line_becomes_a_recipient_with_sealed_contacts(people: Directory) -> None:
    result = people.take(
        row(
            "a",
            name="Ann  Lee",
            locale="en_us",
            region="us-tx",
            tags="vip; prepaid",
            phone="(202) 555-0123;+442079460001",
            email="Ann@EXAMPLE.com",
            fcm_token="t" * 24,
            inbox="app-1",
        )
    )
    assert (result.lines, result.added, result.refused) == (1, 1, 0)
    assert people.name("a") == "Ann  Lee"
    assert people.addresses("a") == {
        ("phone", "+12025550123"),
        ("phone", "+442079460001"),
        ("email", "Ann@example.com"),
        ("fcm_token", "t" * 24),
        ("inbox", "app-1"),
    }
    shown = recipients.find(people.ledger, "a")
    assert shown is not None
    assert (shown.locale, shown.region, shown.services) == ("en-US", "US-TX", ["sms", "voice"])
    assert shown.tags == ["prepaid", "vip"]
    assert {c.country for c in shown.contacts if c.kind == "phone"} == {"US", "GB"}
    assert "2025550123" not in repr(shown)


def test_the_same_file_again_changes_nothing(people: Directory) -> None:
    rows = [row(str(n), email=f"p{n}@example.com") for n in range(50)]
    people.take(*rows)
    with people.ledger.read() as conn:
        before = conn.execute("SELECT id, xmin::text FROM recipient ORDER BY id").fetchall()
    again = people.take(*rows)
    assert (again.added, again.changed, again.unchanged) == (0, 0, 50)
    with people.ledger.read() as conn:
        after = conn.execute("SELECT id, xmin::text FROM recipient ORDER BY id").fetchall()
    assert after == before


def test_only_a_changed_line_is_written_and_its_links_replaced(people: Directory) -> None:
    shared = "+12025550123"
    people.take(row("a", phone=shared, email="a@example.com"), row("b", phone=shared))
    result = people.take(row("a", phone="+12025550124", name="New"), row("b", phone=shared))
    assert (result.changed, result.unchanged) == (1, 1)
    assert people.addresses("a") == {("phone", "+12025550124")}
    assert people.addresses("b") == {("phone", shared)}
    assert people.name("a") == "New"


@pytest.mark.parametrize(
    ("columns", "column", "code"),
    [
        ({"phone": "+1202555012"}, "phone", "not_valid"),
        ({"phone": "202-555-0123", "region": "US-TX", "name": "x", "locale": "xx"}, "locale", ""),
        ({"phone": "+12025550123;nonsense"}, "phone", "not_a_number"),
        ({"email": "no-at-sign.example.com"}, "email", "not_an_email"),
        ({"fcm_token": "short"}, "fcm_token", "not_a_token"),
        ({"inbox": "with blank"}, "inbox", "not_an_inbox"),
        ({"locale": "xx"}, "locale", "unknown_locale"),
        ({"locale": "english"}, "locale", "unknown_locale"),
        ({"locale": "en-XQ"}, "locale", "unknown_locale"),
        ({"locale": ""}, "locale", "missing"),
        ({"segment": "nobody"}, "segment", "unknown_segment"),
        ({"segment": ""}, "segment", "missing"),
        ({"region": "Texas"}, "region", "bad_region"),
        ({"region": "QZ-1"}, "region", "bad_region"),
        ({"region": ""}, "region", "missing"),
        ({"services": "voice;fax"}, "services", "unknown_service"),
        ({"tags": "With Blank"}, "tags", "bad_tag"),
        ({"tags": ";".join(f"t{n}" for n in range(33))}, "tags", "too_many"),
        ({"email": ";".join(f"e{n}@example.com" for n in range(33))}, "email", "too_many"),
        ({"name": "Eve\u202e"}, "name", "bad_name"),
        ({"name": "x" * 201}, "name", "bad_name"),
        ({"id": ""}, "id", "missing"),
        ({"id": "a b"}, "id", "bad_id"),
        ({"id": "x" * 129}, "id", "bad_id"),
        ({"id": "public:x:us"}, "id", "reserved_id"),
    ],
)
def test_a_bad_value_refuses_its_line_only(
    people: Directory, columns: Row, column: str, code: str
) -> None:
    result = people.take(row("1"), row("2") | columns, row("3"))
    ((line, named, found),) = told(result)
    assert (line, named) == (3, column)
    assert code in ("", found)
    assert (result.lines, result.added, result.refused) == (3, 2, 1)
    assert people.refs() == ["1", "3"]


def test_a_line_tells_all_that_is_wrong_with_it(people: Directory) -> None:
    result = people.take(row("1", locale="xx", segment="nobody", phone="5", email="x"))
    assert [column for _, column, _ in told(result)] == ["locale", "segment", "phone", "email"]
    assert (result.refused, result.error_count) == (1, 4)


def test_an_id_counts_once_in_a_file_however_far_apart(people: Directory) -> None:
    far = [row(f"r{n}") for n in range(recipients.CHUNK)]
    bad_first = row("z", phone="5")
    result = people.take(bad_first, row("a"), row("a", name="Twin"), *far, row("z"), row("a"))
    last = recipients.CHUNK + 5
    assert told(result) == [
        (2, "phone", "not_a_number"),
        (4, "id", "duplicate_id"),
        (last, "id", "duplicate_id"),
        (last + 1, "id", "duplicate_id"),
    ]
    assert "line 3" in result.errors[3].message
    assert people.name("a") == "Person a"
    assert result.lines == result.added + result.refused == recipients.CHUNK + 5


def test_replace_removes_who_is_absent_but_not_whose_line_was_refused(people: Directory) -> None:
    people.take(row("a"), row("b"), row("c"))
    with people.ledger.transaction() as work:
        account = directory.PublicAccount(ContactKind.X_ACCOUNT, "@Us", "Us", "en", "US")
        directory.sync_public_accounts(work.conn, people.sealer, [account])
    result = people.take(row("a"), row("b", phone="5"), mode=Mode.REPLACE)
    assert (result.removed, result.unchanged, result.refused) == (1, 1, 1)
    assert people.refs() == ["a", "b", "public:x:us"]
    kept = people.take(row("d"))
    assert (kept.added, kept.removed) == (1, 0)
    assert people.refs() == ["a", "b", "d", "public:x:us"]


@pytest.mark.parametrize(
    ("tail", "reason"),
    [(b'"open,x\n', "unreadable_ids"), (b"a b,x\n", "unreadable_ids"), (b"", "no_lines")],
)
def test_replace_removes_nobody_when_it_cannot_know_who_is_absent(
    people: Directory, tail: bytes, reason: str
) -> None:
    people.take(row("a"), row("b"))
    kept = (row("a"),) if tail else ()
    result = people.take(data=csv_of(*kept) + tail, mode=Mode.REPLACE)
    assert (result.removed, result.withheld) == (0, reason)
    assert people.refs() == ["a", "b"]


def test_a_stream_that_breaks_off_keeps_what_it_gave_and_removes_nobody(
    people: Directory, ledger: Ledger, sealer: Sealer
) -> None:
    people.take(row("old"))

    def broken() -> Iterator[bytes]:
        yield csv_of(*(row(f"r{n}") for n in range(recipients.CHUNK)))
        raise ConnectionResetError

    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            import_stream(
                ledger,
                sealer,
                broken(),
                form=Form.CSV,
                mode=Mode.REPLACE,
                known=KNOWN,
                actor="key:test",
            )
    assert len(people.refs()) == recipients.CHUNK + 1


def test_errors_are_capped_and_counted(people: Directory) -> None:
    result = people.take(*(row(str(n), locale="xx") for n in range(recipients.MAX_ERRORS + 50)))
    assert len(result.errors) == recipients.MAX_ERRORS
    assert result.error_count == result.refused == recipients.MAX_ERRORS + 50
    assert [error.line for error in result.errors] == list(range(2, recipients.MAX_ERRORS + 2))


def test_simulator_numbers_are_refused_in_live_mode(people: Directory) -> None:
    number = f"+1202555{NANP_SANDBOX_ONLY[0]:04d}"
    assert told(people.take(row("a", phone=number), live=True)) == [(2, "phone", "sandbox_only")]
    assert people.take(row("a", phone=number)).added == 1


def test_an_import_is_audited_with_counts(people: Directory) -> None:
    people.take(row("a"), row("b", locale="xx"))
    with people.ledger.read() as conn:
        (found,) = conn.execute("SELECT actor, act, detail FROM audit").fetchall()
    assert found[:2] == ("key:test", "recipients.import")
    assert (found[2]["added"], found[2]["refused"], found[2]["mode"]) == (1, 1, "merge")


def test_a_change_by_hand_holds_until_the_line_is_imported_again(people: Directory) -> None:
    people.take(row("a", phone="+12025550123", email="a@example.com"))
    changes = Changes(name="Bea", region="GB", phone=["020 7946 0001"], email=[], tags=["vip"])
    shown = recipients.amend(
        people.ledger, people.sealer, "a", changes, known=KNOWN, actor="key:test"
    )
    assert shown is not None
    assert (shown.region, shown.tags, shown.locale) == ("GB", ["vip"], "en")
    assert people.addresses("a") == {("phone", "+442079460001")}
    assert people.name("a") == "Bea"
    result = people.take(row("a", phone="+12025550123", email="a@example.com"))
    assert result.changed == 1
    assert people.addresses("a") == {("phone", "+12025550123"), ("email", "a@example.com")}


def test_a_wrong_change_changes_nothing(people: Directory) -> None:
    people.take(row("a"))
    changes = Changes(name="Bea", segment="nobody", phone=["Canary Person"])
    with pytest.raises(RecipientInvalid) as refused:
        recipients.amend(people.ledger, people.sealer, "a", changes, known=KNOWN, actor="key:test")
    assert [fault.column for fault in refused.value.faults] == ["segment", "phone"]
    assert "Canary" not in str(refused.value)
    assert people.name("a") == "Person a"


def test_who_is_not_there_cannot_be_changed_or_removed(people: Directory) -> None:
    people.take(row("a"))
    gone = recipients.amend(
        people.ledger, people.sealer, "x", Changes(name="y"), known=KNOWN, actor="k"
    )
    assert gone is None
    assert recipients.find(people.ledger, "x") is None
    assert not recipients.remove(people.ledger, "x", actor="k")
    assert recipients.remove(people.ledger, "a", actor="k")
    assert people.refs() == []


def test_a_suppressed_address_stays_so_through_an_import(people: Directory) -> None:
    def suppress() -> bool:
        return recipients.suppress(
            people.ledger,
            people.sealer,
            ContactKind.PHONE,
            "+1 202 555 0123",
            reason="opted_out",
            actor="key:test",
        )

    assert suppress()
    assert not suppress()
    people.take(row("a", phone="+12025550123"))
    shown = recipients.find(people.ledger, "a")
    assert shown is not None
    assert [c.suppressed for c in shown.contacts] == [True]
    with people.ledger.read() as conn:
        (found,) = suppressions.page(conn)
    assert (found.kind, found.reason, found.source) == ("phone", "opted_out", "key:test")
    assert recipients.unsuppress(
        people.ledger, people.sealer, ContactKind.PHONE, "+12025550123", actor="key:test"
    )
    assert recipients.find(people.ledger, "a") != shown


def test_a_row_the_database_refuses_is_not_told_by_value(
    people: Directory,
    caplog: pytest.LogCaptureFixture,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    caplog.set_level(logging.DEBUG)
    with people.ledger.transaction() as work:
        work.conn.execute("ALTER TABLE recipient ADD CONSTRAINT untagged CHECK (tags <> '{c}')")
        work.conn.execute("ALTER TABLE contact_point ADD CONSTRAINT short CHECK (length(hint) < 9)")
    person = row(
        "c1",
        name="Canary Person",
        phone="+12025550123",
        email="canary.person@example.com",
        inbox="canary-inbox",
    )
    for columns in ({"tags": "c"}, {}):
        with pytest.raises(LedgerRefused) as refused:
            people.take(row("ok"), person | columns)
        _assert_quiet(refused.value)
    assert "short" in str(refused.value)
    result = people.take(person | {"segment": "canary-segment", "phone": "12025550123x"})
    text = repr(result) + caplog.text
    # The session's own server: a house of other tests may have left one beside it.
    (server_log,) = tmp_path_factory.getbasetemp().glob("stack0/**/postgres.log")
    text += (logged := server_log.read_text())
    assert "ready to accept connections" in logged
    assert not [canary for canary in CANARIES if canary in text]
    assert people.refs() == []


def _assert_quiet(error: BaseException) -> None:
    """Nothing planted is in the error, in its chain, or in any frame's line of a traceback."""
    chain: list[BaseException] = []
    seen: BaseException | None = error
    while seen is not None:
        chain.append(seen)
        seen = seen.__cause__ or seen.__context__
    text = "".join(f"{link!r} {link}" for link in chain)
    text += "".join(traceback.format_exception(error))
    assert not [canary for canary in (*CANARIES, "(c1, ", "canary") if canary in text]


def test_what_is_stored_in_the_clear_holds_no_name_or_address(people: Directory) -> None:
    people.take(
        row(
            "c1",
            name="Canary Person",
            phone="+12025550123",
            email="canary.person@example.com",
            inbox="canary-inbox",
        )
    )
    with people.ledger.read() as conn:
        found = conn.execute(
            "SELECT string_agg(t::text, ' ') FROM (SELECT r::text t FROM recipient r"
            " UNION ALL SELECT p::text FROM contact_point p"
            " UNION ALL SELECT a::text FROM audit a) x"
        ).fetchone()
    assert found is not None
    hexed = [c.encode().hex() for c in CANARIES]
    assert not [canary for canary in (*CANARIES, *hexed) if canary in found[0]]

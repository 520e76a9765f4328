"""Recipients and their contact points as rows: set-based import, patch, delete, lookup.

Owns the directory's tables and the order in which they are locked: every writer takes
one lock for its transaction, so that no two can deadlock, and one import runs at a time.
Must not know files, validation or audiences. What PostgreSQL says of a refused row may
quote the row: it is reduced to its code and constraint here, and never chained.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from channels.contract import ContactKind
from dispatcher.contacts import Contact, normalise
from dispatcher.ledger.connection import Connection, Ledger, one
from dispatcher.recipient_rules import PUBLIC_REF
from dispatcher.security.sealing import Sealer

AMENDED = b""
"""The row hash of a recipient changed by hand: the next import of its line applies it again."""

_IMPORT_LOCK = 0x6F75_7463
_WRITE_LOCK = 0x6F75_7464
_MANY = 200


class ImportBusy(Exception):
    """Another import is running; one runs at a time."""


@dataclass(frozen=True, slots=True)
class ContactRow:
    """A contact point as stored."""

    kind: str
    lookup: bytes = field(repr=False)
    sealed: bytes = field(repr=False)
    hint: str = field(repr=False)
    country: str | None


@dataclass(frozen=True, slots=True)
class RecipientRow:
    """A recipient as stored; `name` is sealed, bound to the lookup of ("recipient", ref)."""

    ref: str
    name: bytes = field(repr=False)
    locale: str
    segment: str
    region: str
    services: Sequence[str]
    tags: Sequence[str]
    row_hash: bytes = field(repr=False)
    contacts: Sequence[ContactRow] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PublicAccount:
    """An account of the organisation's own, from its configuration."""

    kind: ContactKind
    address: str
    name: str
    locale: str
    region: str


@dataclass(frozen=True, slots=True)
class ContactShown:
    """A contact point as it may be shown."""

    kind: str
    hint: str
    country: str | None
    suppressed: bool


@dataclass(frozen=True, slots=True)
class RecipientShown:
    """A recipient as it may be shown: no name, and hints for addresses."""

    id: int
    ref: str
    locale: str
    segment: str
    region: str
    services: list[str]
    tags: list[str]
    created_at: datetime
    updated_at: datetime
    contacts: tuple[ContactShown, ...] = ()


def lock_writes(conn: Connection) -> None:
    """Wait for the directory's other writers; held until the transaction ends."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_WRITE_LOCK,))


# Import


class Import:
    """The one running import: what the file held so far, and the rows taken from it.

    `note`, `hashes` and `remove_absent` use the import's own connection, which alone sees
    what was noted; `merge` takes another, so that it can run in a second thread meanwhile.
    """

    def __init__(self, ledger: Ledger, conn: Connection) -> None:
        self._ledger = ledger
        self._conn = conn
        self._merged = 0

    def note(self, refs: Mapping[str, int]) -> dict[str, int]:
        """Remember ids with their lines; returns those met before, with the earlier line."""
        fresh = self._conn.execute(
            "INSERT INTO import_seen (ref, line) SELECT * FROM unnest(%s::text[], %s::bigint[])"
            " ON CONFLICT (ref) DO NOTHING RETURNING ref",
            (list(refs), list(refs.values())),
        ).fetchall()
        repeated = list(refs.keys() - {row[0] for row in fresh})
        if not repeated:
            return {}
        return dict(
            self._conn.execute(
                "SELECT ref, line FROM import_seen WHERE ref = ANY(%s)", (repeated,)
            ).fetchall()
        )

    def hashes(self, refs: Sequence[str]) -> dict[str, bytes]:
        """The row hash of each of `refs` that is in the directory."""
        found = self._conn.execute(
            "SELECT ref, row_hash FROM recipient WHERE ref = ANY(%s)", (list(refs),), prepare=False
        )
        return dict(found.fetchall())

    def merge(self, rows: Sequence[RecipientRow]) -> tuple[int, int]:
        """Store the rows in one transaction; returns (added, changed)."""
        with self._ledger.transaction() as work:
            lock_writes(work.conn)
            done = _merge(work.conn, rows)
        self._merged += len(rows)
        return done

    def settle(self) -> None:
        """After an import of many, measure the directory at once: an incident may come before
        the server's own round, and old statistics make it choose slow plans."""
        if self._merged >= _MANY:
            self._conn.execute("ANALYZE recipient, contact_point, recipient_contact")

    def remove_absent(self) -> int:
        """Delete whom the file did not hold, public accounts apart. Call in a transaction."""
        lock_writes(self._conn)
        self._conn.execute("ANALYZE import_seen")
        return self._conn.execute(
            "DELETE FROM recipient r WHERE NOT starts_with(r.ref, %s)"
            " AND NOT EXISTS (SELECT FROM import_seen s WHERE s.ref = r.ref)",
            (PUBLIC_REF,),
        ).rowcount

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction on the import's own connection."""
        with self._conn.transaction():
            yield self._conn


@contextmanager
def importing(ledger: Ledger) -> Iterator[Import]:
    """Hold the import lock and one connection; merging takes a second. Raises `ImportBusy`, `LedgerAway`."""
    with ledger.read() as conn:
        if not one(conn.execute("SELECT pg_try_advisory_lock(%s)", (_IMPORT_LOCK,)).fetchone()):
            raise ImportBusy("another import of recipients is running: try again when it is done")
        try:
            conn.execute("DROP TABLE IF EXISTS pg_temp.import_seen")
            conn.execute("CREATE TEMP TABLE import_seen (ref text PRIMARY KEY, line bigint)")
            session = Import(ledger, conn)
            yield session
            session.settle()
        finally:
            # On a connection that is lost both are gone with it.
            if not conn.broken:
                conn.execute("DROP TABLE IF EXISTS pg_temp.import_seen")
                conn.execute("SELECT pg_advisory_unlock(%s)", (_IMPORT_LOCK,))


_STAGE = """
CREATE TEMP TABLE IF NOT EXISTS incoming (
    ref text, name bytea, locale text, segment text, region text,
    services text, tags text, row_hash bytea
) ON COMMIT DELETE ROWS;
CREATE TEMP TABLE IF NOT EXISTS incoming_contact (
    ref text, kind text, lookup bytea, sealed bytea, hint text, country text
) ON COMMIT DELETE ROWS;
TRUNCATE incoming, incoming_contact;
"""

# Planned afresh each time: a plan kept from an empty directory would scan a full one.
_CHANGE = """
UPDATE recipient r SET name = i.name, locale = i.locale, segment = i.segment,
    region = i.region, services = string_to_array(i.services, ';'),
    tags = string_to_array(i.tags, ';'), row_hash = i.row_hash, updated_at = now()
FROM incoming i WHERE r.ref = i.ref
"""
_UNLINK = """
DELETE FROM recipient_contact l USING recipient r, incoming i
WHERE r.ref = i.ref AND l.recipient_id = r.id
"""
_ADD = """
INSERT INTO recipient (ref, name, locale, segment, region, services, tags, row_hash)
SELECT ref, name, locale, segment, region,
    string_to_array(services, ';'), string_to_array(tags, ';'), row_hash
FROM incoming i WHERE NOT EXISTS (SELECT FROM recipient r WHERE r.ref = i.ref)
"""
_POINTS = """
INSERT INTO contact_point (kind, sealed, lookup, hint, country)
SELECT DISTINCT ON (kind, lookup) kind, sealed, lookup, hint, country
FROM incoming_contact i WHERE NOT EXISTS
    (SELECT FROM contact_point p WHERE p.kind = i.kind AND p.lookup = i.lookup)
ON CONFLICT (kind, lookup) DO NOTHING
"""
_LINK = """
INSERT INTO recipient_contact (recipient_id, contact_point_id)
SELECT DISTINCT r.id, p.id FROM incoming_contact i JOIN recipient r ON r.ref = i.ref
JOIN contact_point p ON p.kind = i.kind AND p.lookup = i.lookup
"""
_INCOMING_TYPES = ("text", "bytea", "text", "text", "text", "text", "text", "bytea")
_CONTACT_TYPES = ("text", "text", "bytea", "bytea", "text", "text")


def _merge(conn: Connection, rows: Sequence[RecipientRow]) -> tuple[int, int]:
    _stage(conn, rows)
    changed = conn.execute(_CHANGE, prepare=False).rowcount
    if changed:
        conn.execute(_UNLINK, prepare=False)
    added = conn.execute(_ADD, prepare=False).rowcount if changed < len(rows) else 0
    conn.execute(_POINTS, prepare=False)
    conn.execute(_LINK, prepare=False)
    return added, changed


def _stage(conn: Connection, rows: Sequence[RecipientRow]) -> None:
    conn.execute(_STAGE)
    with conn.cursor() as cursor:
        with cursor.copy("COPY incoming FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(_INCOMING_TYPES)
            for row in rows:
                services, tags = ";".join(row.services), ";".join(row.tags)
                fields = (row.ref, row.name, row.locale, row.segment, row.region)
                copy.write_row((*fields, services, tags, row.row_hash))
        with cursor.copy("COPY incoming_contact FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(_CONTACT_TYPES)
            for row in rows:
                for c in row.contacts:
                    copy.write_row((row.ref, c.kind, c.lookup, c.sealed, c.hint, c.country))
    conn.execute("ANALYZE incoming, incoming_contact")


# One recipient


def get(conn: Connection, ref: str) -> RecipientShown | None:
    """The recipient of this id as it may be shown, or None."""
    with conn.cursor(row_factory=class_row(RecipientShown)) as cursor:
        found = cursor.execute(
            "SELECT id, ref, locale, segment, region, services, tags, created_at, updated_at"
            " FROM recipient WHERE ref = %s",
            (ref,),
        ).fetchone()
    if found is None:
        return None
    with conn.cursor(row_factory=class_row(ContactShown)) as cursor:
        contacts = cursor.execute(
            "SELECT p.kind, p.hint, p.country, s.id IS NOT NULL AS suppressed"
            " FROM recipient_contact l JOIN contact_point p ON p.id = l.contact_point_id"
            " LEFT JOIN suppression s ON s.kind = p.kind AND s.lookup = p.lookup"
            " WHERE l.recipient_id = %s ORDER BY p.kind, p.id",
            (found.id,),
        ).fetchall()
    return RecipientShown(
        **{name: getattr(found, name) for name in RecipientShown.__slots__ if name != "contacts"},
        contacts=tuple(contacts),
    )


_PATCHABLE = frozenset({"name", "locale", "segment", "region", "services", "tags"})


def patch(
    conn: Connection,
    ref: str,
    columns: Mapping[str, Any],
    contacts: Mapping[str, Sequence[ContactRow]],
) -> bool:
    """Set columns, and replace the contact points of each kind named; False if there is no such id.

    Call in a transaction. Raises `ValueError` for a column that cannot be set.
    """
    if not columns.keys() <= _PATCHABLE:
        raise ValueError("not a column of a recipient")
    lock_writes(conn)
    assignments = "".join(f", {name} = %({name})s" for name in sorted(columns))
    row = conn.execute(
        f"UPDATE recipient SET updated_at = now(), row_hash = %(row_hash)s{assignments}"
        " WHERE ref = %(ref)s RETURNING id",
        {**columns, "ref": ref, "row_hash": AMENDED},
    ).fetchone()
    if row is None:
        return False
    for kind, points in contacts.items():
        conn.execute(
            "DELETE FROM recipient_contact l USING contact_point p WHERE l.recipient_id = %s"
            " AND p.id = l.contact_point_id AND p.kind = %s",
            (row[0], kind),
        )
        for point in points:
            _link(conn, row[0], point)
    return True


def _link(conn: Connection, recipient_id: int, point: ContactRow) -> None:
    conn.execute(
        "INSERT INTO contact_point (kind, sealed, lookup, hint, country)"
        " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (kind, lookup) DO NOTHING",
        (point.kind, point.sealed, point.lookup, point.hint, point.country),
    )
    conn.execute(
        "INSERT INTO recipient_contact (recipient_id, contact_point_id)"
        " SELECT %s, id FROM contact_point WHERE kind = %s AND lookup = %s"
        " ON CONFLICT DO NOTHING",
        (recipient_id, point.kind, point.lookup),
    )


def delete(conn: Connection, ref: str) -> bool:
    """Remove a recipient; deliveries made to it stay. False if there is none. In a transaction."""
    lock_writes(conn)
    return conn.execute("DELETE FROM recipient WHERE ref = %s", (ref,)).rowcount == 1


def count(conn: Connection) -> int:
    """How many recipients there are, public accounts included."""
    found: int = one(conn.execute("SELECT count(*) FROM recipient").fetchone())
    return found


# Sealing rows


def sealed_name(sealer: Sealer, ref: str, name: str) -> bytes:
    """A recipient's name as stored: it opens only with the same ref."""
    return sealer.seal_text(name, bound_to=sealer.lookup("recipient", ref))


def sealed_contact(sealer: Sealer, contact: Contact) -> ContactRow:
    """A normalised contact point as stored."""
    sealed = sealer.seal(contact.kind, contact.address)
    return ContactRow(contact.kind, sealed.lookup, sealed.sealed, contact.hint, contact.country)


def sync_public_accounts(
    conn: Connection, sealer: Sealer, accounts: Sequence[PublicAccount]
) -> tuple[int, int]:
    """Make the public accounts those given; returns (changed or added, removed).

    Call in a transaction. Raises `ContactError` for an account that is none.
    """
    lock_writes(conn)
    rows = {row.ref: row for row in (_public_row(sealer, account) for account in accounts)}
    stored: dict[str, bytes] = dict(
        conn.execute(
            "SELECT ref, row_hash FROM recipient WHERE starts_with(ref, %s)", (PUBLIC_REF,)
        ).fetchall()
    )
    wanted = [row for row in rows.values() if stored.get(row.ref) != row.row_hash]
    if wanted:
        _merge(conn, wanted)
    gone = list(stored.keys() - rows.keys())
    if gone:
        conn.execute("DELETE FROM recipient WHERE ref = ANY(%s)", (gone,))
    return len(wanted), len(gone)


def _public_row(sealer: Sealer, account: PublicAccount) -> RecipientRow:
    contact = normalise(account.kind, account.address)
    ref = f"{PUBLIC_REF}{account.kind.removesuffix('_account')}:{contact.address}"
    canonical = "\x1f".join(("1", ref, account.name, account.locale, account.region))
    return RecipientRow(
        ref=ref,
        name=sealed_name(sealer, ref, account.name),
        locale=account.locale,
        segment="public",
        region=account.region,
        services=(),
        tags=(),
        row_hash=sealer.lookup("row", canonical),
        contacts=(sealed_contact(sealer, contact),),
    )

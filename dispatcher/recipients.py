"""The directory of recipients: a file of them taken in, one of them changed or removed.

Owns an import's chunks and its result. Must not know HTTP, audiences or tables, nor what
a good value is. Every line stands alone: a wrong one is reported by number and column,
never with its value, and the others are kept.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from channels.contract import ContactKind
from dispatcher.contacts import Contact, normalise
from dispatcher.ledger import audit, suppressions
from dispatcher.ledger import recipients as directory
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.recipients import ContactRow, RecipientRow
from dispatcher.recipient_files import Form, LineError, Record, Unreadable, records
from dispatcher.recipient_rules import (
    CONTACT_COLUMNS,
    PUBLIC_REF,
    Candidate,
    Fault,
    Judge,
    KnownValues,
    known_ref,
)
from dispatcher.security.sealing import Sealer

CHUNK = 5_000
"""Records stored in one transaction."""

CHUNK_CHARS = 4_000_000
"""A chunk's outer bound, for files of very long lines."""

MAX_ERRORS = 1_000
"""Errors told one by one; beyond it they are only counted."""

_BLOCK = 64 * 1024


class Mode(StrEnum):
    """What becomes of recipients that the file does not hold."""

    MERGE = "merge"
    REPLACE = "replace"


class Readable(Protocol):
    """A file opened for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did. lines = added + changed + unchanged + refused.

    `errors` holds the first `MAX_ERRORS` in the file's order; `error_count` counts all.
    `withheld` says why a replacing import removed nobody: `unreadable_ids` (a line's id
    could not be read, so it is not known who is absent) or `no_lines`; else it is empty.
    """

    lines: int
    added: int
    changed: int
    unchanged: int
    removed: int
    refused: int
    errors: tuple[LineError, ...]
    error_count: int
    withheld: str = ""


class RecipientInvalid(ValueError):
    """A change that would make a recipient wrong. `faults` name columns, never values."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(f"{fault.column}: {fault.message}" for fault in faults))
        self.faults = tuple(faults)


def import_stream(
    ledger: Ledger,
    sealer: Sealer,
    stream: Iterable[bytes] | Readable,
    *,
    form: Form,
    mode: Mode,
    known: KnownValues,
    actor: str,
) -> ImportResult:
    """Take in a file of recipients, in constant memory, a chunk per transaction.

    `stream` is an open binary file or any blocks of bytes. If it, or the database, breaks
    off underway, what was stored stays and nobody is removed; the same file again goes on
    where it stopped. Raises `FileRefused` for a wrong header, `ImportBusy`, `LedgerAway`
    and `LedgerRefused`; none of them holds a value of the file.
    """
    with directory.importing(ledger) as session:
        # One chunk is merged by the database while the next is read and sealed here.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="import") as merger:
            run = _Run(session, merger, sealer, Judge(known))
            for record in records(_blocks(stream), form):
                run.take(record)
            run.store()
            run.merged()
        return run.finish(mode=mode, actor=actor)


def _blocks(stream: Iterable[bytes] | Readable) -> Iterator[bytes]:
    # Iterating an open file would give lines, and a line may be the whole file.
    if isinstance(stream, Iterable) and not hasattr(stream, "read"):
        yield from stream
    else:
        while block := stream.read(_BLOCK):
            yield block


@dataclass(slots=True)
class _Run:
    session: directory.Import
    merger: ThreadPoolExecutor
    sealer: Sealer
    judge: Judge
    chunk: list[tuple[Candidate, bytes]] = field(default_factory=list)
    mentioned: dict[str, int] = field(default_factory=dict)
    told: list[LineError] = field(default_factory=list)
    errors: list[LineError] = field(default_factory=list)
    size: int = 0
    chars: int = 0
    lines: int = 0
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: int = 0
    error_count: int = 0
    unreadable_ids: bool = False
    merging: Future[tuple[int, int]] | None = None

    def take(self, record: Record | Unreadable) -> None:
        """Judge one line; store the chunk once it is full."""
        self.lines += 1
        self.size += 1
        if isinstance(record, Unreadable):
            self.refused += 1
            self.told.append(record.error)
            ref = record.ref
        else:
            ref = record.fields[0].strip()
            self.chars += sum(map(len, record.fields))
            self._judge(record, ref)
        if ref and known_ref(ref):
            self.mentioned.setdefault(ref, _line(record))
        else:
            self.unreadable_ids = True
        if self.size >= CHUNK or self.chars >= CHUNK_CHARS:
            self.store()

    def _judge(self, record: Record, ref: str) -> None:
        if ref in self.mentioned:
            self._refuse(record.line, [_duplicate(self.mentioned[ref])])
            return
        judged = self.judge.plain(record)
        if isinstance(judged, Candidate):
            row_hash = self.sealer.lookup("row", judged.canonical())
            self.chunk.append((judged, row_hash))
        else:
            self._refuse(record.line, judged)

    def _refuse(self, line: int, faults: Sequence[Fault]) -> None:
        self.refused += 1
        self.told += (LineError(line, f.column, f.code, f.message) for f in faults)

    def store(self) -> None:
        """Find what repeats or did not change, seal the rest, and start merging it."""
        earlier = self.session.note(self.mentioned)
        stored = self.session.hashes([candidate.ref for candidate, _ in self.chunk])
        rows = []
        for candidate, row_hash in self.chunk:
            if candidate.ref in earlier:
                self._refuse(candidate.line, [_duplicate(earlier[candidate.ref])])
            elif stored.get(candidate.ref) == row_hash:
                self.unchanged += 1
            elif (row := self._row(candidate, row_hash)) is not None:
                rows.append(row)
        self.merged()
        if rows:
            self.merging = self.merger.submit(self.session.merge, rows)
        self._tell()
        self.chunk, self.mentioned, self.size, self.chars = [], {}, 0, 0

    def merged(self) -> None:
        """Wait for the chunk that is being merged and count it."""
        if self.merging is not None:
            added, changed = self.merging.result()
            self.added += added
            self.changed += changed
            self.merging = None

    def _tell(self) -> None:
        self.error_count += len(self.told)
        room = MAX_ERRORS - len(self.errors)
        self.errors += sorted(self.told, key=lambda error: error.line)[:room]
        self.told = []

    def _row(self, candidate: Candidate, row_hash: bytes) -> RecipientRow | None:
        faults: list[Fault] = []
        contacts = self.judge.contacts(candidate.contacts, candidate.region, faults)
        if faults:
            self._refuse(candidate.line, faults)
            return None
        return RecipientRow(
            ref=candidate.ref,
            name=directory.sealed_name(self.sealer, candidate.ref, candidate.name),
            locale=candidate.locale,
            segment=candidate.segment,
            region=candidate.region,
            services=candidate.services,
            tags=candidate.tags,
            row_hash=row_hash,
            contacts=_sealed(self.sealer, contacts),
        )

    def finish(self, *, mode: Mode, actor: str) -> ImportResult:
        """Remove who is absent if that was asked, and audit the whole."""
        withheld = ""
        removed = 0
        if mode is Mode.REPLACE:
            # Nobody is dropped because a line was damaged or an upload came out empty.
            withheld = "unreadable_ids" if self.unreadable_ids else ""
            withheld = withheld if self.lines else "no_lines"
        with self.session.transaction() as conn:
            if mode is Mode.REPLACE and not withheld:
                removed = self.session.remove_absent()
            counts = {
                name: getattr(self, name)
                for name in ("lines", "added", "changed", "unchanged", "refused", "error_count")
            }
            detail = {**counts, "removed": removed, "mode": mode.value, "withheld": withheld}
            audit.record(conn, actor=actor, act="recipients.import", detail=detail)
        return ImportResult(**counts, removed=removed, errors=tuple(self.errors), withheld=withheld)


def _line(record: Record | Unreadable) -> int:
    return record.line if isinstance(record, Record) else record.error.line


def _duplicate(line: int) -> Fault:
    return Fault("id", "duplicate_id", f"the id was used before, on line {line}")


def _sealed(sealer: Sealer, contacts: Iterable[Contact]) -> list[ContactRow]:
    return [directory.sealed_contact(sealer, contact) for contact in contacts]


# One recipient


@dataclass(frozen=True, slots=True)
class Changes:
    """What to change of a recipient: None leaves a column, an empty list empties it."""

    name: str | None = field(default=None, repr=False)
    locale: str | None = None
    segment: str | None = None
    region: str | None = None
    services: Sequence[str] | None = None
    tags: Sequence[str] | None = None
    phone: Sequence[str] | None = field(default=None, repr=False)
    email: Sequence[str] | None = field(default=None, repr=False)
    fcm_token: Sequence[str] | None = field(default=None, repr=False)
    inbox: Sequence[str] | None = field(default=None, repr=False)


_PLAIN = ("name", "locale", "segment", "region", "services", "tags")


def find(ledger: Ledger, ref: str) -> directory.RecipientShown | None:
    """The recipient of this id, with hints for addresses and without a name; or None."""
    with ledger.read() as conn:
        return directory.get(conn, ref)


def amend(
    ledger: Ledger, sealer: Sealer, ref: str, changes: Changes, *, known: KnownValues, actor: str
) -> directory.RecipientShown | None:
    """Change one recipient, and return it as it now is; None if there is no such id.

    A public account is configuration and not found here. The next import of the
    recipient's line applies that line again. Raises `RecipientInvalid`, `LedgerAway`.
    """
    judge = Judge(known)
    with ledger.transaction() as work:
        stands = None if ref.startswith(PUBLIC_REF) else directory.get(work.conn, ref)
        if stands is None:
            return None
        faults: list[Fault] = []
        asked = {column: getattr(changes, column) for column in _PLAIN}
        good = judge.columns({c: v for c, v in asked.items() if v is not None}, faults)
        region = good.get("region", stands.region)
        points = {
            kind: judge.points(column, kind, values, region, faults)
            for column, kind in CONTACT_COLUMNS
            if (values := getattr(changes, column)) is not None
        }
        if faults:
            raise RecipientInvalid(faults)
        columns: dict[str, Any] = {
            c: list(v) if isinstance(v, tuple) else v for c, v in good.items()
        }
        if "name" in columns:
            columns["name"] = directory.sealed_name(sealer, ref, columns["name"])
        contacts = {kind.value: _sealed(sealer, found) for kind, found in points.items()}
        directory.patch(work.conn, ref, columns, contacts)
        detail = {"recipient": ref, "columns": sorted([*columns, *contacts])}
        audit.record(work.conn, actor=actor, act="recipients.amend", detail=detail)
        return directory.get(work.conn, ref)


def remove(ledger: Ledger, ref: str, *, actor: str) -> bool:
    """Delete one recipient; what was sent to it stays in the ledger. False if there is none."""
    with ledger.transaction() as work:
        if ref.startswith(PUBLIC_REF) or not directory.delete(work.conn, ref):
            return False
        detail = {"recipient": ref}
        audit.record(work.conn, actor=actor, act="recipients.delete", detail=detail)
        return True


def suppress(
    ledger: Ledger, sealer: Sealer, kind: ContactKind, address: str, *, reason: str, actor: str
) -> bool:
    """Never send to an address again; False if it was suppressed already. Raises `ContactError`."""
    contact = normalise(kind, address)
    lookup = sealer.lookup(kind, contact.address)
    with ledger.transaction() as work:
        fresh = suppressions.add(
            work.conn,
            kind=kind,
            lookup=lookup,
            hint=contact.hint,
            reason=reason,
            source=actor,
        )
        if fresh:
            detail: Mapping[str, str] = {"kind": kind.value, "reason": reason}
            audit.record(work.conn, actor=actor, act="suppressions.add", detail=detail)
        return fresh


def unsuppress(
    ledger: Ledger, sealer: Sealer, kind: ContactKind, address: str, *, actor: str
) -> bool:
    """Send to an address again; False if it was not suppressed. Raises `ContactError`."""
    lookup = sealer.lookup(kind, normalise(kind, address).address)
    with ledger.transaction() as work:
        gone = suppressions.remove(work.conn, kind=kind, lookup=lookup)
        if gone:
            detail = {"kind": kind.value}
            audit.record(work.conn, actor=actor, act="suppressions.remove", detail=detail)
        return gone

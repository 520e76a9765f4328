"""What a file of recipients says, line by line: records, and errors that name a line.

Owns the two forms (CSV and NDJSON), the columns, line numbers, encoding and bounds, in
constant memory whatever is sent. Pure: no I/O but the blocks it is given. Must not know
what a good locale or phone number is, nor where recipients are kept. No error ever holds
a piece of the file.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter

import orjson

MAX_LINE_BYTES = 64 * 1024
"""A record's outer bound, line ends included. The widest real one, four push tokens of
4 KB among it, stays below a third of it."""

_MAX_LINES_IN_RECORD = 100
_BLOCK = 64 * 1024
_BOM = b"\xef\xbb\xbf"


class Form(StrEnum):
    """How the file is written."""

    CSV = "csv"
    NDJSON = "ndjson"


COLUMNS = (
    "id",
    "name",
    "locale",
    "segment",
    "region",
    "services",
    "tags",
    "phone",
    "email",
    "fcm_token",
    "inbox",
)
LISTS = frozenset({"services", "tags", "phone", "email", "fcm_token", "inbox"})
"""Columns that may hold several values: `;` between them, or an array in NDJSON."""


@dataclass(frozen=True, slots=True)
class LineError:
    """One thing wrong with one line. `line` counts from 1; `column` is empty for the whole line."""

    line: int
    column: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Record:
    """One recipient as written: a text per column, in the order of `COLUMNS`."""

    line: int
    fields: Sequence[str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line that is no record. `ref` is its id, where at least that could be read."""

    error: LineError
    ref: str | None = field(default=None, repr=False)


class FileRefused(Exception):
    """Nothing in the file can be taken: its header is not that of a recipients' file."""

    def __init__(self, errors: Sequence[LineError]) -> None:
        super().__init__("; ".join(f"line {e.line}: {e.message}" for e in errors))
        self.errors = tuple(errors)


def records(blocks: Iterable[bytes], form: Form) -> Iterator[Record | Unreadable]:
    """The file's records in order; blank lines and the header are none.

    `blocks` may be cut anywhere. `line` is where a record starts, line breaks inside
    quotes counted. Raises `FileRefused` before the first record if a CSV header lacks a
    column, has one too many, or is missing.
    """
    lines = _Lines(blocks)
    return _csv(lines) if form is Form.CSV else _ndjson(lines)


class _Lines:
    """Physical lines with their numbers, without their ends; None for one too long to keep."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._source = enumerate(_without_bom(_split(blocks)), start=1)
        self._waiting: deque[tuple[int, bytes | None]] = deque()

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        return self

    def __next__(self) -> tuple[int, bytes | None]:
        return self._waiting.popleft() if self._waiting else next(self._source)

    def put_back(self, lines: Sequence[tuple[int, bytes | None]]) -> None:
        self._waiting.extendleft(reversed(lines))


def _split(blocks: Iterable[bytes]) -> Iterator[bytes | None]:
    rest = b""
    skipping = False
    for block in blocks:
        for start in range(0, len(block), _BLOCK):
            *whole, rest = (rest + block[start : start + _BLOCK]).split(b"\n")
            for line in whole:
                yield None if skipping or len(line) > MAX_LINE_BYTES else line.removesuffix(b"\r")
                skipping = False
            if len(rest) > MAX_LINE_BYTES:
                rest, skipping = b"", True
    if skipping:
        yield None
    elif rest:
        yield rest.removesuffix(b"\r")


def _without_bom(lines: Iterator[bytes | None]) -> Iterator[bytes | None]:
    for first in lines:
        yield None if first is None else first.removeprefix(_BOM)
        break
    yield from lines


def _too_long(line: int) -> Unreadable:
    return Unreadable(
        LineError(line, "", "line_too_long", f"the line is longer than {MAX_LINE_BYTES} bytes")
    )


# CSV (RFC 4180)


def _csv(lines: _Lines) -> Iterator[Record | Unreadable]:
    width = len(COLUMNS)
    order = _header(lines)
    in_order = order == tuple(range(width))
    arrange = itemgetter(*order)
    for number, raw in lines:
        if raw is None:
            yield _too_long(number)
            continue
        text, sound = _decoded(raw)
        fields: list[str] | None
        if '"' in text:
            fields, sound = _quoted(lines, number, raw)
        elif text and not text.isspace():
            fields = text.split(",")
        else:
            continue
        if fields is None or len(fields) != width or not sound:
            yield _not_a_record(number, fields, order)
        else:
            yield Record(number, fields if in_order else arrange(fields))


def _header(lines: _Lines) -> tuple[int, ...]:
    """For each of `COLUMNS`, its place in the file."""
    for number, raw in lines:
        if raw is None:
            raise FileRefused([_too_long(number).error])
        text, sound = _decoded(raw)
        if not sound or "\0" in text:
            raise FileRefused([LineError(number, "", "encoding", "the file is not UTF-8")])
        if text.strip():
            names = [name.strip() for name in _parsed(text) or []]
            errors = _header_errors(number, names)
            if errors:
                raise FileRefused(errors)
            return tuple(names.index(column) for column in COLUMNS)
    raise FileRefused([LineError(1, "", "no_header", "the file is empty: it has no header line")])


def _header_errors(line: int, names: Sequence[str]) -> list[LineError]:
    errors = [
        LineError(line, column, "missing_column", f"the header lacks the column {column}")
        for column in COLUMNS
        if column not in names
    ]
    for place, name in enumerate(names, start=1):
        if name not in COLUMNS:
            # A header may be forgotten: then this is a person's line. It is not repeated.
            told = f"column {place} of the header is not one of a recipients' file"
            errors.append(LineError(line, f"#{place}", "unknown_column", told))
        elif name in names[: place - 1]:
            told = f"the header has the column {name} twice"
            errors.append(LineError(line, name, "repeated_column", told))
    return errors[: 2 * len(COLUMNS)]


def _quoted(lines: _Lines, number: int, raw: bytes) -> tuple[list[str] | None, bool]:
    """The fields of a record with quotes, which may run over the following lines.

    If no end is found, only the line it starts on is given up: the others are read again.
    """
    taken: list[tuple[int, bytes | None]] = []
    text, sound = _decoded(raw)
    fields = _parsed(text)
    size = len(raw)
    # An even number of quotes that does not parse will not parse with more lines either.
    open_quote = fields is None and raw.count(b'"') % 2 == 1
    parts = [raw]
    while open_quote and fields is None and len(taken) < _MAX_LINES_IN_RECORD:
        following = next(lines, None)
        if following is None:
            break
        taken.append(following)
        line = following[1]
        if line is None or size + len(line) + 1 > MAX_LINE_BYTES:
            break
        size += len(line) + 1
        parts.append(line)
        if line.count(b'"') % 2 == 1:
            text, sound = _decoded(b"\n".join(parts))
            fields = _parsed(text)
            open_quote = fields is None and text.count('"') % 2 == 1
            if fields is None and not open_quote:
                break
    if fields is None:
        lines.put_back(taken)
    return fields, sound


def _parsed(text: str) -> list[str] | None:
    try:
        return next(csv.reader([text], strict=True), None)
    except csv.Error:
        return None


def _decoded(raw: bytes) -> tuple[str, bool]:
    """The text, and whether all of it is UTF-8; what is not becomes lone surrogates."""
    try:
        return raw.decode(), True
    except UnicodeDecodeError:
        return raw.decode(errors="surrogateescape"), False


def _broken(text: str) -> bool:
    return any("\udc80" <= c <= "\udcff" for c in text)


def _not_a_record(number: int, fields: list[str] | None, order: Sequence[int]) -> Unreadable:
    if fields is None:
        told = "the line's quotes do not pair up"
        return Unreadable(LineError(number, "", "quotes", told))
    ref = fields[order[0]].strip() if order[0] < len(fields) else ""
    known_ref = ref if ref and not _broken(ref) else None
    if len(fields) != len(order):
        code = "short_line" if len(fields) < len(order) else "long_line"
        told = f"the line has {len(fields)} columns, the header {len(order)}"
        # Where columns are shifted, only a leading id is still where it belongs.
        return Unreadable(LineError(number, "", code, told), known_ref if order[0] == 0 else None)
    column = next(c for c, place in zip(COLUMNS, order, strict=True) if _broken(fields[place]))
    return Unreadable(LineError(number, column, "encoding", "the value is not UTF-8"), known_ref)


# NDJSON


def _ndjson(lines: _Lines) -> Iterator[Record | Unreadable]:
    for number, raw in lines:
        if raw is None:
            yield _too_long(number)
        elif raw and not raw.isspace():
            yield _object(number, raw)


def _object(number: int, raw: bytes) -> Record | Unreadable:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        if not _decoded(raw)[1]:
            return Unreadable(LineError(number, "", "encoding", "the line is not UTF-8"))
        return Unreadable(LineError(number, "", "not_json", "the line is not a JSON object"))
    ref = value.get("id")
    known_ref = ref.strip() if isinstance(ref, str) and ref.strip() else None
    if not value.keys() <= set(COLUMNS):
        told = "the object has a field that a recipient does not have"
        return Unreadable(LineError(number, "", "unknown_column", told), known_ref)
    fields = []
    for column in COLUMNS:
        text = _text(column, value.get(column))
        if text is None:
            wanted = "text or an array of texts" if column in LISTS else "text"
            error = LineError(number, column, "not_text", f"the value must be {wanted}")
            return Unreadable(error, known_ref)
        fields.append(text)
    return Record(number, fields)


def _text(column: str, value: object) -> str | None:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if column in LISTS and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return ";".join(value)
    return None

"""Records and errors of a recipients' file: where lines start, and what is told of bad ones."""

import csv
import io
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.recipient_files import (
    COLUMNS,
    MAX_LINE_BYTES,
    FileRefused,
    Form,
    Record,
    Unreadable,
    records,
)

HEADER = ",".join(COLUMNS).encode() + b"\n"


def line(ref: str, name: str = "Ann") -> bytes:
    return f"{ref},{name},en,consumer,US-TX,voice,,,,,\n".encode()


def read(data: bytes, form: Form = Form.CSV) -> list[Record | Unreadable]:
    return list(records([data], form))


def told(data: bytes, form: Form = Form.CSV) -> list[tuple[int, str, str]]:
    return [
        (r.error.line, r.error.column, r.error.code)
        for r in read(data, form)
        if isinstance(r, Unreadable)
    ]


def good(data: bytes, form: Form = Form.CSV) -> list[tuple[int, str, str]]:
    return [(r.line, r.fields[0], r.fields[1]) for r in read(data, form) if isinstance(r, Record)]


def test_lines_are_counted_where_a_record_starts() -> None:
    data = HEADER + line("1", '"Ann\nof two, or\r\nthree ""lines"""') + b"\n" + line("2")
    assert good(data) == [(2, "1", 'Ann\nof two, or\nthree "lines"'), (6, "2", "Ann")]


def test_bom_crlf_and_a_last_line_without_end() -> None:
    data = b"\xef\xbb\xbf" + (HEADER + line("1") + line("2")).replace(b"\n", b"\r\n")[:-2]
    assert good(data) == [(2, "1", "Ann"), (3, "2", "Ann")]


def test_columns_may_stand_in_another_order() -> None:
    names = list(reversed(COLUMNS))
    data = (",".join(names) + "\n" + ",".join(f"<{n}>" for n in names)).encode()
    (record,) = read(data)
    assert isinstance(record, Record)
    assert list(record.fields) == [f"<{name}>" for name in COLUMNS]


@pytest.mark.parametrize(
    ("raw", "code", "column"),
    [
        (b"2,Ann,en\n", "short_line", ""),
        (line("2")[:-1] + b",x\n", "long_line", ""),
        (b"2,Ren\xe9,en,consumer,US-TX,voice,,,,,\n", "encoding", "name"),
        (b'2,"Ren\xe9",en,consumer,US-TX,voice,,,,,\n', "encoding", "name"),
        (line("2", '"Ann'), "quotes", ""),
        (line("2", '"Ann" x'), "quotes", ""),
        (line("2", "x" * MAX_LINE_BYTES), "line_too_long", ""),
        (line("2", "x" * 5 * MAX_LINE_BYTES), "line_too_long", ""),
    ],
)
def test_a_bad_line_is_told_and_its_neighbours_are_kept(raw: bytes, code: str, column: str) -> None:
    data = HEADER + line("1") + raw + line("3") + line("4")
    assert told(data) == [(3, column, code)]
    assert [ref for _, ref, _ in good(data)] == ["1", "3", "4"]


def test_an_id_is_known_of_a_bad_line_where_it_can_be() -> None:
    data = HEADER + b"2,Ann,en\n" + b"3,Ren\xe9,en,consumer,US-TX,voice,,,,,\n" + line("4", '"A')
    assert [r.ref for r in read(data) if isinstance(r, Unreadable)] == ["2", "3", None]


def test_a_quote_left_open_swallows_only_its_own_line() -> None:
    data = HEADER + line("1", '"Ann') + b"".join(line(str(n)) for n in range(2, 300))
    assert told(data) == [(2, "", "quotes")]
    assert len(good(data)) == 298


@pytest.mark.parametrize(
    ("header", "errors"),
    [
        (b"", [(1, "", "no_header")]),
        (b"\n\n", [(1, "", "no_header")]),
        (HEADER.replace(b",email", b""), [(1, "email", "missing_column")]),
        (HEADER.replace(b"\n", b",mail\n"), [(1, "#12", "unknown_column")]),
        (HEADER.replace(b"\n", b",email\n"), [(1, "email", "repeated_column")]),
        (HEADER.decode().encode("utf-16"), [(1, "", "encoding")]),
    ],
)
def test_a_wrong_header_refuses_the_file(header: bytes, errors: list[tuple[int, str, str]]) -> None:
    with pytest.raises(FileRefused) as refused:
        read(header)
    assert [(e.line, e.column, e.code) for e in refused.value.errors] == errors


def test_a_forgotten_header_does_not_repeat_the_person_in_its_place() -> None:
    with pytest.raises(FileRefused) as refused:
        read(b"7,Canary Person,en,consumer,US-TX,voice,,+12025550123,canary@example.com,,\n")
    assert "anary" not in str(refused.value)
    assert "5550123" not in repr(refused.value.errors)


@pytest.mark.parametrize(
    ("raw", "code", "column"),
    [
        (b"{", "not_json", ""),
        (b"[1]", "not_json", ""),
        (b'{"id":"2","mail":"x"}', "unknown_column", ""),
        (b'{"id":2}', "not_text", "id"),
        (b'{"id":"2","tags":["a",1]}', "not_text", "tags"),
        (b'{"id":"2","name":"Ren\xe9"}', "encoding", ""),
    ],
)
def test_ndjson_errors(raw: bytes, code: str, column: str) -> None:
    data = b'{"id":"1"}\n' + raw + b'\n\n{"id":"3","tags":["a","b"],"email":null}\n'
    assert told(data, Form.NDJSON) == [(2, column, code)]
    assert [(n, ref) for n, ref, _ in good(data, Form.NDJSON)] == [(1, "1"), (4, "3")]


@given(
    rows=st.lists(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=8),
            min_size=len(COLUMNS),
            max_size=len(COLUMNS),
        ),
        max_size=5,
    ),
    cut=st.integers(1, 40),
)
def test_what_a_csv_writer_wrote_is_read_however_it_is_cut(rows: list[list[str]], cut: int) -> None:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    data = out.getvalue().encode()
    blocks = [data[at : at + cut] for at in range(0, len(data), cut)]
    found = list(records(blocks, Form.CSV))
    assert [list(r.fields) for r in found if isinstance(r, Record)] == rows
    assert len(found) == len(rows)


@given(st.binary(max_size=400))
def test_no_bytes_break_it(junk: bytes) -> None:
    for form in Form:
        found = list(records([HEADER if form is Form.CSV else b"", junk], form))
        numbers = [r.line if isinstance(r, Record) else r.error.line for r in found]
        assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("piece", "kilobytes"),
    [
        (line("1") * 100, 3_000),
        (b"x" * 4_000, 20_000),
        # Bad lines are dear: each is an error of its own. Kept, these would be 4 MB.
        (b'"\n' * 2_000, 64),
        (b'"x,y\n' * 800, 64),
        (b'"' + b"x\n" * 99, 64),
    ],
)
def test_memory_stays_the_same_whatever_is_sent(piece: bytes, kilobytes: int) -> None:
    def endless() -> Iterator[bytes]:
        yield HEADER
        for _ in range(kilobytes * 1_000 // len(piece)):
            yield piece

    tracemalloc.start()
    for _ in records(endless(), Form.CSV):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000

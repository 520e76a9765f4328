"""What is odd in a pasted text: found, named, marked, and replaced only where one can know by what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from dispatcher.console.oddities import (
    MOST_SCANNED,
    Kind,
    find,
    findings,
    label,
    mendable,
    pieces,
    plain,
)
from dispatcher.incidents import MAX_SLOT_CHARS, PlainText

CASES = [
    # text, kind, refused, how it is marked, the plain text
    ("It’s back", Kind.COSTLY, False, "U+2019 right single quotation mark", "It's back"),
    ("“yes”", Kind.COSTLY, False, "U+201C left double quotation mark", '"yes"'),
    ("a\u202eb", Kind.DIRECTION, True, "U+202E right-to-left override", "ab"),
    ("a\u2066b", Kind.DIRECTION, True, "U+2066 left-to-right isolate", "ab"),
    ("a\u200fb", Kind.DIRECTION, False, "U+200F right-to-left mark", "a\u200fb"),
    ("a\u200bb", Kind.INVISIBLE, True, "U+200B zero width space", "ab"),
    ("a\ufeffb", Kind.INVISIBLE, True, "U+FEFF byte order mark", "ab"),
    ("a\u200db", Kind.INVISIBLE, False, "U+200D zero width joiner", "a\u200db"),
    ("a\u00adb", Kind.INVISIBLE, False, "U+00AD soft hyphen", "ab"),
    ("a\u00a0b", Kind.SPACE, False, "U+00A0 no-break space", "a b"),
    ("a\tb", Kind.CONTROL, True, "U+0009 tab", "a b"),
    ("a\x00b", Kind.CONTROL, True, "U+0000 null character", "ab"),
    ("a\x9bb", Kind.CONTROL, True, "U+009B control character", "ab"),
    ("a\ue000b", Kind.PRIVATE, True, "U+E000 private-use character", "ab"),
    ("a <b", Kind.MARKUP, True, "the mark <", "a <b"),
    ("{{ x", Kind.MARKUP, True, "the mark {{", "{{ x"),
    ("pаypal", Kind.LOOKALIKE, False, "U+0430 cyrillic small letter a", "paypal"),
    ("сору", Kind.LOOKALIKE, False, "U+0441 cyrillic small letter es", "copy"),
    ("Αthens", Kind.LOOKALIKE, False, "U+0391 greek capital letter alpha", "Athens"),
]


@pytest.mark.parametrize(("text", "kind", "refused", "marked", "mended"), CASES)
def test_each_sort_is_found_and_named(
    text: str, kind: Kind, refused: bool, marked: str, mended: str
) -> None:
    found = find(text)
    assert {(odd.kind, odd.refused) for odd in found} == {(kind, refused)}
    assert label(text, found[0]) == marked
    assert plain(text) == mended
    assert mendable(found) is (mended != text)
    told = findings(text, found)
    assert len(told) == 1
    assert marked in told[0].message
    assert told[0].message.startswith("Cannot be sent" if refused else "Please check")


@pytest.mark.parametrize(
    ("text", "locale"),
    [
        ("Calls fail since 3:45 AM.\nUse Wi-Fi calling.", "en"),
        ("Привет, мир: “связь” восстановлена", "ru"),
        ("الخدمة متوقفة منذ الصباح", "ar"),
        ("Ñandú à la carte", "es"),
        ("", "en"),
    ],
)
def test_ordinary_text_is_not_complained_about(text: str, locale: str) -> None:
    assert find(text, locale=locale) == ()
    assert pieces(text, ()) == ()


def test_a_russian_word_of_shared_shapes_is_odd_only_where_latin_letters_belong() -> None:
    assert find("сор", locale="ru") == ()
    assert {odd.kind for odd in find("сор", locale="en")} == {Kind.LOOKALIKE}


def test_quotes_cost_nothing_where_the_text_is_costly_anyway() -> None:
    assert find("Связь “есть”", locale="ru") == ()


def test_a_hundred_thousand_characters_are_told_at_once() -> None:
    text = "x" * 100_000
    (only,) = find(text)
    assert (only.kind, only.refused) == (Kind.LENGTH, True)
    assert "100,000 characters; at most 1,000" in findings(text, (only,))[0].message
    many = find("\u202e" * 100_000)
    assert len(many) == MOST_SCANNED + 1
    assert plain("\u202e" * 100_000) == ""
    assert sum(len(piece.text) for piece in pieces("\u202e" * 100_000, many)) < 200


def test_internal_text_may_hold_marks_and_tabs_but_nothing_is_hidden() -> None:
    assert find("a <b> {{x}} “q”", public=False) == ()
    (tab,) = find("a\tb", public=False)
    assert not tab.refused
    (bidi,) = find("a\u202eb", public=False)
    assert bidi.kind is Kind.DIRECTION


def test_the_more_dangerous_reading_of_a_place_counts() -> None:
    # A no-break space is both unusual and costly: told once.
    assert [odd.kind for odd in find("a\u00a0b")] == [Kind.SPACE]


texts = st.text(
    st.one_of(
        st.sampled_from("aZ е\u202e\u200b\u00a0\t\r<{[“’\ue000\u200f\x85"),
        st.characters(codec="utf-8"),
    ),
    max_size=120,
)


@given(texts)
def test_what_is_shown_leaves_nothing_out_unsaid(text: str) -> None:
    odd = find(text)
    shown = pieces(text, odd)
    marked = [piece for piece in shown if piece.name]
    assert len(marked) == min(len([o for o in odd if o.end > o.start]), 40)
    if shown:
        assert sum(len(piece.text) + piece.left_out for piece in shown) == len(text)


@given(texts)
def test_mending_leaves_nothing_that_could_be_mended(text: str) -> None:
    mended = plain(plain(plain(text)))
    assert not [o for o in find(mended) if o.refused and o.replacement is not None]


@given(texts)
def test_whatever_the_model_refuses_is_named(text: str) -> None:
    adapter: TypeAdapter[str] = TypeAdapter(PlainText)
    stripped = text.strip()
    if not stripped or len(stripped) > MAX_SLOT_CHARS:
        return
    try:
        adapter.validate_python(text)
    except ValidationError:
        assert any(odd.refused for odd in find(text)), repr(text)

"""A message as its receiver sees it: nothing is changed, and it breaks where it really breaks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.contract import Charset, Message, Problem, Severity, Slot
from channels.text import sms_measure, x_weight
from dispatcher.audiences import load
from dispatcher.console.comparing import changes
from dispatcher.console.segments import Piece, sms
from dispatcher.console.showing import Shown, example, in_scheme, language, show, shown
from dispatcher.console.voicing import duration, voices
from dispatcher.incidents import Phase
from dispatcher.rendering import EXAMPLES, Renderer, Rendering

PACKS = load(Path(__file__).parents[3] / "templates")
RENDERER = Renderer(PACKS, ())

PLAIN = "abc é ñ 7€^{}[~]|\\\n"
TEXTS = st.one_of(
    st.text(alphabet=PLAIN, max_size=400),
    st.text(alphabet=PLAIN + "’жع漢\U0001f4f5", max_size=400),
    st.text(max_size=200),
)


def seen(
    channel: str,
    parts: Mapping[str, str],
    *,
    locale: str = "en",
    slots: Mapping[str, Slot] | None = None,
    problems: tuple[Problem, ...] = (),
) -> Shown:
    message = Message("m", channel, locale, dict(parts), slots=dict(slots or {}))
    return shown(
        Rendering("consumers", message, 1, problems),
        audience=PACKS.audiences["consumers"],
        organisation=PACKS.organisation,
        direction="rtl" if locale == "ar" else "ltr",
    )


@given(TEXTS)
def test_segments_joined_are_the_text_and_as_many_as_are_measured(text: str) -> None:
    found = sms(text)
    measure = sms_measure(text)
    assert "".join(segment.text for segment in found.segments) == text
    assert len(found.segments) == measure.segments
    assert sum(segment.units for segment in found.segments) == measure.units
    assert all(0 < segment.units <= segment.limit == measure.limit for segment in found.segments)
    assert [segment.number for segment in found.segments] == [*range(1, measure.segments + 1)]


@given(TEXTS, st.sampled_from(["sms", "email", "push", "social"]))
def test_the_pieces_of_a_part_are_the_part(text: str, channel: str) -> None:
    names = {"push": ("title", "body"), "email": ("subject", "text")}.get(channel, ("text",))
    found = seen(channel, dict.fromkeys(names, f"{text}[[name]]{text}"), slots={"name": Slot(9)})
    for name in names:
        assert found.part(name).text == f"{text}[[name]]{text}"


@pytest.mark.parametrize(
    ("text", "encoding", "units", "left"),
    [
        ("", "GSM-7", [], 160),
        ("a" * 160, "GSM-7", [160], 0),
        ("a" * 161, "GSM-7", [153, 8], 145),
        ("€" * 80, "GSM-7", [160], 0),
        # A pair is not split: the extension character goes whole into the second segment.
        ("a" * 152 + "€" + "a" * 10, "GSM-7", [152, 12], 141),
        ("ж" * 70, "UCS-2", [70], 0),
        ("ж" * 71, "UCS-2", [67, 4], 63),
        ("ж" * 66 + "\U0001f4f5" + "жжж", "UCS-2", [66, 5], 62),
    ],
)
def test_where_an_sms_breaks(text: str, encoding: str, units: list[int], left: int) -> None:
    found = sms(text)
    assert (found.encoding, [s.units for s in found.segments], found.left) == (
        encoding, units, left,
    )  # fmt: skip


def test_a_costly_character_is_named_counted_and_replaced() -> None:
    found = sms("Don’t call – don’t wait" + "." * 60)
    assert [(c.char, c.code, c.name, c.times, c.replacement) for c in found.costly] == [
        ("’", "U+2019", "right single quotation mark", 2, "'"),
        ("–", "U+2013", "en dash", 1, "-"),
    ]
    assert (len(found.segments), found.plain_segments) == (2, 1)
    marks = [piece for segment in found.segments for piece in segment.pieces if piece.mark]
    assert marks == [Piece(c, "costly", "makes this SMS UCS-2") for c in "’–’"]


def test_in_a_language_that_needs_ucs2_nothing_is_marked_or_promised() -> None:
    found = sms("Связь нарушена")
    assert found.plain_segments is None
    assert [piece.mark for segment in found.segments for piece in segment.pieces] == [""]


def test_a_notification_shows_where_phones_cut_it() -> None:
    found = seen("push", {"title": "t" * 45, "body": "b" * 200})
    assert [(len(p.text), p.mark) for p in found.part("title").pieces] == [(40, ""), (5, "cut")]
    assert [(len(p.text), p.mark) for p in found.part("body").pieces] == [
        (49, ""), (111, "later"), (40, "cut"),
    ]  # fmt: skip
    assert found.push is not None
    assert (found.push.app, found.push.title_cut, found.push.body_cut) == ("Northvale", 5, 40)
    short = seen("push", {"title": "t", "body": "b"})
    assert short.push is not None
    assert (short.push.title_cut, short.push.body_cut) == (0, 0)


def test_a_post_is_weighed_and_says_by_whom() -> None:
    text = "Calls are back: https://northvale.example/status/and/more 漢"
    found = seen("social", {"text": text})
    assert found.post is not None
    assert (found.post.weight, found.post.limit) == (x_weight(text), 280)
    assert found.post.links == ("https://northvale.example/status/and/more",)
    assert (found.post.account, found.post.name) == ("northvalehelp", "Northvale Help")


def test_a_mail_names_its_slots_with_an_example_and_the_longest() -> None:
    found = seen(
        "email",
        {"subject": "For [[name]]", "text": "Dear [[name]], [[other]]", "html": "<p>[[name]]"},
        slots={"name": Slot(80)},
    )
    assert found.mail is not None
    assert [(p.text, p.mark) for p in found.part("text").pieces] == [
        ("Dear ", ""), ("[[name]]", "slot"), (", [[other]]", ""),
    ]  # fmt: skip
    assert found.mail.subject_example == "For Amina O’Connor"
    assert found.mail.subject_longest == len("For ") + 80
    assert [(s.name, s.max_chars) for s in found.mail.slots] == [("name", 80)]
    assert found.sender == "Northvale Wireless <service@northvale.example>"


@pytest.mark.parametrize(
    ("slot", "value"),
    [
        (Slot(80), "Amina O’Connor"),
        (Slot(5), "Amina"),
        (Slot(80, Charset.GSM7), "Amina O&#x27;Connor"),
        (Slot(80, Charset.URL), "https://x.example/7f3a"),
    ],
)
def test_an_example_is_what_the_slot_takes(slot: Slot, value: str) -> None:
    message = Message("m", "email", "en", {"html": "<p>[[name]]</p>"}, slots={"name": slot})
    assert example(message) == {"html": f"<p>{value}</p>"}


def test_a_mail_answers_for_the_scheme_that_is_asked() -> None:
    page = "@media (prefers-color-scheme: dark) {a} @media ( prefers-color-scheme:light ) {b}"
    assert in_scheme(page, "dark") == "@media (min-width: 0px) {a} @media (max-width: 0px) {b}"
    assert in_scheme(page, "light") == "@media (max-width: 0px) {a} @media (min-width: 0px) {b}"
    assert in_scheme("<p>plain", "dark") == "<p>plain"


def test_the_sender_is_that_of_the_home_country_and_others_are_named() -> None:
    found = seen("sms", {"text": "t"})
    assert (found.sender, found.other_senders) == ("72345", ("Northvale",))


def test_problems_come_worst_first_and_languages_have_names() -> None:
    warning = Problem(Severity.WARNING, "w", "", "w")
    error = Problem(Severity.ERROR, "e", "", "e")
    assert seen("sms", {"text": "t"}, problems=(warning, error)).problems == (error, warning)
    assert [language(code) for code in ("ar", "ar-EG", "xx")] == ["Arabic", "Arabic (Egypt)", "xx"]


# --- voice -------------------------------------------------------------------------------


def test_a_voice_says_the_shortest_whole_words_of_each_language() -> None:
    messages = (
        seen("email", {"subject": "S", "text": "Long text."}),
        seen("sms", {"text": "Short text"}),
        seen("email", {"subject": "S", "text": "نص\n- سطر"}, locale="ar"),
    )
    assert [(v.lang, v.direction, v.channel, v.text) for v in voices(messages)] == [
        ("en", "ltr", "sms", "Short text."),
        ("ar", "rtl", "email", "نص. سطر."),
    ]


@pytest.mark.parametrize(
    ("text", "locale", "seconds"),
    [
        ("word " * 150, "en", 60),
        ("word " * 150, "en-GB", 60),
        ("word " * 91, "ar", 60),
        ("", "en", 0),
        # Eleven digits are said one by one.
        ("call 1-800-555-0199 now", "en", 6),
        ("at 04:12", "en", 1),
    ],
)
def test_how_long_it_takes_to_say(text: str, locale: str, seconds: int) -> None:
    assert duration(text, locale) == seconds


# --- what is new -------------------------------------------------------------------------


@given(TEXTS, TEXTS)
def test_differences_hold_both_texts(before: str, after: str) -> None:
    pieces = changes(before, after)
    assert "".join(text for kind, text in pieces if kind != "del") == after
    assert "".join(text for kind, text in pieces if kind != "ins") == before


def test_what_is_new_is_told_by_words() -> None:
    assert changes("Back in two hours.", "Back in three hours.") == (
        ("same", "Back in "), ("del", "two "), ("ins", "three "), ("same", "hours."),
    )  # fmt: skip
    assert changes("same", "same") == (("same", "same"),)
    long = "word " * 3_000
    assert changes(f"{long}\na\n", f"{long}\nb\n") == (
        ("same", f"{long}\n"), ("del", "a\n"), ("ins", "b\n"),
    )  # fmt: skip


# --- the shipped packs -------------------------------------------------------------------


@pytest.mark.parametrize("name", list(EXAMPLES))
@pytest.mark.parametrize("phase", [Phase.INVESTIGATING, Phase.CORRECTION, Phase.RESOLVED])
def test_every_shipped_message_is_shown_as_it_is(name: str, phase: Phase) -> None:
    statement = replace(EXAMPLES[name], phase=phase)
    renderings = RENDERER.render_all(statement, PACKS.audiences)
    for rendering, found in zip(renderings, show(RENDERER, renderings), strict=True):
        message = rendering.message
        assert {part.name: part.text for part in found.parts} == dict(message.parts)
        assert found.direction == ("rtl" if message.locale == "ar" else "ltr")
        kind = {"sms": found.sms, "email": found.mail, "social": found.post, "push": found.push}
        assert [each for each, view in kind.items() if view is not None] == [message.channel]
        if found.mail is not None:
            assert found.mail.has_html
            assert found.mail.has_dark

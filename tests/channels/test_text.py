"""What a text costs at each provider, and what may get into a slot."""

from dataclasses import replace
from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channels.contract import Charset, Envelope, Message, Slot, Unit
from channels.text import (
    GSM7,
    X_LIMIT,
    SlotError,
    fill,
    sms_measure,
    strip_controls,
    units,
    worst_case,
    x_cashtags,
    x_links,
    x_weight,
)

GREETING = Message(
    id="m1",
    channel="email",
    locale="en",
    parts={
        "subject": "For [[name]]",
        "text": "Dear [[name]], see [[link]]. [[not_a_slot]] [x]",
        "html": "<p>Dear [[name]]</p><a href='[[link]]'>[[other]]</a>",
    },
    slots={"name": Slot(20), "link": Slot(60, Charset.URL)},
)
LINK = "https://status.example/i?a=1&b=2"


def with_slots(**slots: str) -> Envelope:
    return Envelope(key="d1", address="somebody", slots=slots)


def sms(text: str, **slots: Slot) -> Message:
    return Message(id="m", channel="sms", locale="en", parts={"text": text}, slots=slots)


# --- slots -------------------------------------------------------------------------------


def test_values_are_escaped_in_html_and_plain_elsewhere():
    parts = fill(GREETING, with_slots(name="<b>Zoë & Co</b>", link=LINK))

    assert parts == {
        "subject": "For <b>Zoë & Co</b>",
        "text": f"Dear <b>Zoë & Co</b>, see {LINK}. [[not_a_slot]] [x]",
        "html": f"<p>Dear &lt;b&gt;Zoë &amp; Co&lt;/b&gt;</p><a href='{escape(LINK)}'>[[other]]</a>",
    }


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        ("Ann\r\nBcc: all@x.org", "Ann Bcc: all@x.org"),
        ("a\u202eb\u200bc\ufeffd\u2066e", "abcde"),
        ("tab\there\x00\x1b", "tab here"),
        ("line\u2028next", "line next"),
        ("Cafe\u0301", "Café"),
        ("keep\u00a0this 💡", "keep\u00a0this 💡"),
        ("\ud800lone", "lone"),
    ],
)
def test_values_lose_what_cannot_be_seen(value: str, arrives: str):
    assert fill(GREETING, with_slots(name=value, link=""))["subject"] == f"For {arrives}"


def test_a_value_is_never_taken_for_a_slot():
    parts = fill(GREETING, with_slots(name="[[link]]", link="secret"))
    assert parts["subject"] == "For [[link]]"


def test_brackets_around_a_slot_stay():
    message = sms("[[[name]]] [[ name ]] [[name]", name=Slot(5))
    assert fill(message, with_slots(name="Bo"))["text"] == "[Bo] [[ name ]] [[name]"


@pytest.mark.parametrize(
    ("slots", "slot"),
    [
        ({"link": ""}, "name"),
        ({"name": "n" * 21, "link": ""}, "name"),
        ({"name": "Bo", "link": "https://x.example/ a"}, "link"),
        ({"name": "Bo", "link": "https://x.example/\u00fc"}, "link"),
        ({"name": "Bo", "link": "javascript:<x>"}, "link"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_without_being_told(slots: dict[str, str], slot: str):
    with pytest.raises(SlotError) as refused:
        fill(GREETING, with_slots(**slots))

    assert refused.value.slot == slot
    assert refused.value.reason
    assert not any(value and value in str(refused.value) for value in slots.values())


def test_a_gsm_slot_refuses_what_would_make_the_text_ucs2():
    message = sms("Dear [[name]]", name=Slot(10, Charset.GSM7))
    assert fill(message, with_slots(name="José"))["text"] == "Dear José"
    with pytest.raises(SlotError, match="GSM-7"):
        fill(message, with_slots(name="Łukasz"))


def test_a_slot_at_its_limit_passes_and_one_over_does_not():
    message = sms("[[name]]", name=Slot(3))
    assert fill(message, with_slots(name="abc"))["text"] == "abc"
    with pytest.raises(SlotError):
        fill(message, with_slots(name="abcd"))


def test_a_slot_that_no_part_uses_needs_no_value():
    assert fill(sms("Hello", name=Slot(3)), with_slots())["text"] == "Hello"


def test_message_is_left_as_it_was():
    before = replace(GREETING, parts=dict(GREETING.parts))
    parts = fill(GREETING, with_slots(name="Bo", link=""))
    parts["text"] = "changed"
    worst_case(GREETING)["text"] = "changed"
    unslotted = sms("Hello")
    fill(unslotted, with_slots())["text"] = "changed"
    assert before == GREETING
    assert unslotted.parts["text"] == "Hello"


VALUE = st.text(st.characters(exclude_characters="[]"), max_size=20)


@given(name=VALUE)
def test_fill_leaves_no_declared_marker(name: str):
    parts = fill(GREETING, with_slots(name=name, link=""))
    assert not any("[[name]]" in text or "[[link]]" in text for text in parts.values())
    assert all(text == strip_controls(text) for text in parts.values())


@given(name=VALUE)
def test_no_value_costs_more_than_the_worst_case(name: str):
    message = sms("Dear [[name]]", name=Slot(20))
    filled, worst = fill(message, with_slots(name=name))["text"], worst_case(message)["text"]
    assert sms_measure(filled).segments <= sms_measure(worst).segments
    assert len(filled.encode()) <= len(worst.encode())
    assert x_weight(filled) <= x_weight(worst) + 23 * len(x_links(filled))


@given(name=st.text(st.sampled_from(sorted(GSM7 - set("[]\f\n\r"))), max_size=30))
def test_the_worst_gsm_value_stays_gsm(name: str):
    message = sms("Dear [[name]]", name=Slot(30, Charset.GSM7))
    worst = sms_measure(worst_case(message)["text"])
    assert worst.encoding == "gsm7"
    assert sms_measure(fill(message, with_slots(name=name))["text"]).units <= worst.units


def test_the_worst_link_is_a_link_and_as_long_as_its_slot():
    message = sms("[[link]]", link=Slot(60, Charset.URL))
    worst = worst_case(message)["text"]
    assert (len(worst), x_weight(worst), sms_measure(worst).units) == (60, 23, 60)


def test_the_worst_html_value_is_the_one_that_escaping_swells_most():
    assert worst_case(GREETING)["html"].count("&quot;") == 20


# --- SMS ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding", "count", "segments", "limit"),
    [
        ("", "gsm7", 0, 0, 160),
        ("a" * 160, "gsm7", 160, 1, 160),
        ("a" * 161, "gsm7", 161, 2, 153),
        ("a" * 306, "gsm7", 306, 2, 153),
        ("a" * 307, "gsm7", 307, 3, 153),
        ("€" * 80, "gsm7", 160, 1, 160),
        ("€" * 81, "gsm7", 162, 2, 153),
        # 152 + a pair that does not fit the rest of the first part
        ("a" * 152 + "€" + "a" * 152, "gsm7", 306, 3, 153),
        ("a" * 151 + "€" + "a" * 153, "gsm7", 306, 2, 153),
        ("ж" * 70, "ucs2", 70, 1, 70),
        ("ж" * 71, "ucs2", 71, 2, 67),
        ("ж" * 134, "ucs2", 134, 2, 67),
        ("ж" * 135, "ucs2", 135, 3, 67),
        ("💡" * 35, "ucs2", 70, 1, 70),
        # 66 + a surrogate pair that does not fit the rest of the first part
        ("ж" * 66 + "💡" + "ж" * 66, "ucs2", 134, 3, 67),
        ("ж" * 65 + "💡" + "ж" * 67, "ucs2", 134, 2, 67),
        # in UCS-2 a bracket is one unit
        ("ж" + "[" * 69, "ucs2", 70, 1, 70),
    ],
)
def test_sms_measure(text: str, encoding: str, count: int, segments: int, limit: int):
    measure = sms_measure(text)
    assert (measure.encoding, measure.units, measure.segments, measure.limit) == (
        encoding,
        count,
        segments,
        limit,
    )


@pytest.mark.parametrize(
    ("char", "like"),
    [
        ("’", "'"),
        ("“", '"'),
        ("–", "-"),
        ("…", "..."),
        ("\u00a0", " "),
        ("\u202f", " "),
        ("\u200b", ""),
        ("á", "a"),
        ("Ł", "L"),
        ("ő", "o"),
        ("™", "TM"),
    ],
)
def test_costly_characters_are_named_with_their_lookalike(char: str, like: str):
    measure = sms_measure(f"It is {char} down{char}")
    assert measure.costly == (char,)
    assert measure.replacements == {char: like}


def test_letters_of_another_script_have_no_lookalike():
    measure = sms_measure("Связи нет")
    assert measure.costly == tuple("Связинет")
    assert not measure.replacements


@given(st.text())
def test_replacing_every_costly_character_makes_it_gsm(text: str):
    measure = sms_measure(text)
    table = str.maketrans({char: measure.replacements.get(char, "?") for char in measure.costly})
    assert sms_measure(text.translate(table)).encoding == "gsm7"


SMS_TEXT = st.one_of(
    st.text(st.sampled_from("ab€[ "), max_size=500), st.text(st.sampled_from("aж💡"), max_size=300)
)


@given(SMS_TEXT, SMS_TEXT)
def test_more_text_never_costs_less(one: str, other: str):
    both, alone = sms_measure(one + other), sms_measure(one)
    assert both.segments >= alone.segments
    # A bracket takes two septets but one UTF-16 unit.
    assert both.encoding != alone.encoding or both.units >= alone.units
    assert both.segments * both.limit >= both.units
    # Packing wastes at most one unit of each part, the last one apart.
    assert both.segments * (both.limit - 1) < both.units + both.limit


@given(st.text(st.characters(max_codepoint=127, exclude_characters="`\t\x00"), max_size=400))
def test_ascii_without_controls_is_gsm(text: str):
    text = "".join(c for c in text if c.isprintable())
    assert sms_measure(text).encoding == "gsm7"
    assert x_weight(text) >= 0


def test_units_charge_segments_only_where_segments_are_counted():
    message = sms("a" * 150 + "[[name]]", name=Slot(10))
    assert units(message, Unit.SEGMENT) == sms_measure("a" * 150 + "💡" * 10).segments == 3
    assert units(message, Unit.MESSAGE) == units(message, Unit.REQUEST) == 1
    assert units(sms(""), Unit.SEGMENT) == 1


# --- X -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("", 0),
        ("Mobile data is down.", 20),
        ("нет связи", 9),
        ("لا توجد خدمة", 12),
        ("日本", 4),
        ("“quoted” – dash", 15),
        ("a…b", 4),  # U+2026 lies outside the cheap ranges
        ("e\u0301", 1),
        ("💡", 2),
        ("👩🏽‍💻", 2),
        ("👨‍👩‍👧‍👦", 2),
        ("🇺🇸🇲🇽", 4),
        ("1️⃣", 2),
        ("❤️", 2),
        ("©", 1),
        ("©️", 2),
        ("🏴󠁧󠁢󠁳󠁣󠁴󠁿", 2),
        ("https://status.example/INC-0042?lang=en", 23),
        ("http://a.io", 23),
        ("See https://status.example/x, or call.", 4 + 23 + 10),
        ("(https://status.example/a_(b))", 25),
        ("status.operator.com", 23),
        ("operator.co.uk/help", 23),
        ("operator.de", 11),
        ("x@operator.com", 14),
        ("e.g. this", 9),
        ("Fixed.We are sorry", 18),
        ("ftp://operator.com", 18),
    ],
)
def test_x_weight(text: str, weight: int):
    assert x_weight(text) == weight


def test_links_and_cashtags_are_found():
    assert x_links("a https://s.example/x. b operator.com") == (
        "https://s.example/x",
        "operator.com",
    )
    assert x_cashtags("$T and $VZ, not $5 or a$b") == ("$T", "$VZ")


@given(st.text(st.sampled_from("abc ñж"), max_size=X_LIMIT), st.text(st.sampled_from("日💡")))
def test_x_weight_of_plain_text_adds_up(cheap: str, dear: str):
    assert x_weight(f"{cheap} {dear}") == len(cheap) + 1 + 2 * len(dear)

"""The renderer: which template is taken, what stands in a message, what is refused."""

import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError

from channels.contract import (
    Channel,
    ContactKind,
    Envelope,
    Limits,
    Message,
    Outcome,
    Problem,
    Severity,
    Unit,
)
from channels.text import sms_measure, x_weight
from dispatcher.audiences import load
from dispatcher.incidents import (
    CauseFact,
    Confidence,
    EmergencyCallsFact,
    EtaFact,
    Fact,
    FactKind,
    NewFact,
    NotCauseFact,
    Phase,
    ScopeFact,
)
from dispatcher.rendering import (
    EXAMPLES,
    Renderer,
    Rendering,
    Statement,
    check_packs,
    content_hash,
)
from dispatcher.rendering.environment import run
from dispatcher.rendering.renderer import Texts, organisation_view
from dispatcher.rendering.speech import Speech

TEMPLATES = Path(__file__).parents[2] / "templates"
NOW = EXAMPLES["typical"].stated_at


class Judge:
    """An adapter that only judges."""

    name = "judge_sms"
    channel = Channel.SMS.value
    accepts = ContactKind.PHONE.value
    parts: tuple[str, ...] = ("text",)
    limits = Limits(unit=Unit.SEGMENT)

    def check(self, message: Message) -> list[Problem]:
        return [Problem(Severity.WARNING, "judged", "text", f"{len(message.parts['text'])} long")]

    async def send(
        self, message: Message, envelopes: Sequence[Envelope]
    ) -> Any:  # pragma: no cover - never sent
        raise AssertionError
        yield Outcome


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(load(TEMPLATES), [])


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[Mapping[str, str]], Renderer]:
    """A renderer of the shipped packs with files changed, added, or (empty) taken away."""

    def change(files: Mapping[str, str]) -> Renderer:
        root = tmp_path / "templates"
        shutil.copytree(TEMPLATES, root)
        for name, text in files.items():
            file = root / name
            if text:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            else:
                file.unlink()
        return Renderer(load(root), [])

    return change


def fact(kind: str, value: object, **claim: Any) -> Fact:
    models: dict[str, type[NewFact]] = {
        "cause": CauseFact, "not_cause": NotCauseFact, "scope": ScopeFact, "eta": EtaFact,
        "emergency_calls": EmergencyCallsFact,
    }  # fmt: skip
    stated = models[kind].model_validate(
        {"kind": kind, "value": value, "source": "noc", "known_at": NOW, **claim}
    )
    return Fact(id=f"fact-{kind}", stated=stated, update_id="update-1")


def saying(*facts: Fact, example: str = "typical", **changes: Any) -> Statement:
    base = EXAMPLES[example]
    held = {**base.facts, **{each.kind: each for each in facts}}
    return replace(base, facts=held, **changes)


def text_of(renderer: Renderer, statement: Statement, where: str = "consumers/email/en") -> str:
    audience, channel, locale = where.split("/")
    parts = renderer.render(statement, audience, channel, locale).message.parts
    return parts["text" if "text" in parts else "body"]


def everything(renderer: Renderer, statement: Statement) -> Iterator[Rendering]:
    yield from renderer.render_all(statement, renderer.packs.audiences)


# --- which template ----------------------------------------------------------------------


def test_locale_outranks_folder_and_audience_outranks_default(
    pack: Callable[[Mapping[str, str]], Renderer],
) -> None:
    renderer = pack(
        {
            "consumers/sms/investigating.en.j2": "English of the audience",
            "consumers/sms/investigating.ar-EG.j2": "Egyptian of the audience",
            "default/sms/investigating.ar-MA.j2": "Moroccan of the default",
        }
    )
    example = EXAMPLES["typical"]

    def text(locale: str) -> str:
        return renderer.render(example, "consumers", "sms", locale).message.parts["text"]

    assert text("en") == "English of the audience"
    assert text("en-GB") == "English of the audience"
    assert text("ar-EG") == "Egyptian of the audience"
    assert text("ar-MA") == "Moroccan of the default"
    assert text("ar-SA").startswith("Northvale: عطل")
    assert text("fr") == "English of the audience"


def test_all_parts_come_from_the_first_place_that_has_them_all(
    pack: Callable[[Mapping[str, str]], Renderer],
) -> None:
    renderer = pack({"consumers/push/investigating.en.title.j2": "A title without a body"})
    parts = renderer.render(EXAMPLES["typical"], "consumers", "push", "en").message.parts
    assert parts["title"] == "Network problem: we are working on it"


@pytest.mark.parametrize(
    ("audience", "wanted", "served"),
    [
        ("consumers", "ar-EG", "ar"),
        ("consumers", "es-MX", "es"),
        ("consumers", "en-US", "en"),
        ("consumers", "de", "en"),
        ("enterprise", "es", "en"),
    ],
)
def test_the_nearest_locale_that_is_served(
    renderer: Renderer, audience: str, wanted: str, served: str
) -> None:
    assert renderer.nearest(audience, "email", wanted) == served


def test_every_audience_channel_and_locale_is_rendered_once(renderer: Renderer) -> None:
    found = [r.message.id for r in everything(renderer, EXAMPLES["typical"])]
    expected = [
        f"update-1/{audience.name}/{step.channel}/{locale}"
        for audience in renderer.packs.audiences.values()
        for step in audience.channels
        for locale in audience.locales
    ]
    assert found == expected and len(set(found)) == len(found)


# --- what a message is -------------------------------------------------------------------


def test_a_message_carries_thread_expiry_hash_and_slots(renderer: Renderer) -> None:
    example = EXAMPLES["typical"]
    mail = renderer.render(example, "consumers", "email", "en").message
    assert set(mail.parts) == {"subject", "text", "html"}
    assert mail.thread == example.incident.id and mail.sender == ""
    assert mail.expires_at == example.expires_at
    assert mail.slots["name"].max_chars == 80
    assert re.fullmatch("[0-9a-f]{64}", mail.hash)
    assert renderer.render(example, "consumers", "sms", "en").message.slots == {}


def test_the_hash_is_of_the_content_alone(renderer: Renderer) -> None:
    example = EXAMPLES["typical"]
    one = renderer.render(example, "consumers", "sms", "en").message
    again = renderer.render(replace(example, update_id="other"), "consumers", "sms", "en").message
    later = saying(next_update_at=NOW + timedelta(hours=1))
    other = renderer.render(later, "consumers", "sms", "en").message
    assert one.hash == again.hash and one.id != again.id
    assert one.hash != other.hash


def test_content_hash_ignores_order_and_sees_every_change(renderer: Renderer) -> None:
    all_of_it = list(everything(renderer, EXAMPLES["typical"]))
    whole = content_hash(all_of_it)
    assert content_hash(reversed(all_of_it)) == whole
    assert content_hash(all_of_it[1:]) != whole
    changed = saying(next_update_at=NOW + timedelta(hours=1))
    assert content_hash(everything(renderer, changed)) != whole


def test_units_are_segments_for_sms_and_one_otherwise(renderer: Renderer) -> None:
    for rendering in everything(renderer, EXAMPLES["typical"]):
        message = rendering.message
        expected = (
            sms_measure(message.parts["text"]).segments if message.channel == Channel.SMS else 1
        )
        assert rendering.units == expected


def test_the_adapters_of_a_channel_judge_its_messages() -> None:
    renderer = Renderer(load(TEMPLATES), [Judge()])
    sms = renderer.render(EXAMPLES["typical"], "consumers", "sms", "en")
    assert [p.code for p in sms.problems] == ["judged"]
    assert renderer.render(EXAMPLES["typical"], "consumers", "push", "en").problems == ()


# --- facts -------------------------------------------------------------------------------


def test_title_and_summary_are_never_rendered(renderer: Renderer) -> None:
    for example in EXAMPLES.values():
        for rendering in everything(renderer, example):
            assert "INTERNAL" not in str(rendering.message)


@pytest.mark.parametrize(
    ("sure", "words"),
    [
        (Confidence.CONFIRMED, "The cause was a cut cable."),
        (Confidence.BELIEVED, "we believe the cause was a cut cable. This is not confirmed"),
        (Confidence.UNDER_REVIEW, "We are reviewing whether the cause was a cut cable."),
        (Confidence.RULED_OUT, "It was not a cut cable: we have ruled that out."),
    ],
)
def test_confidence_is_put_into_words(renderer: Renderer, sure: Confidence, words: str) -> None:
    statement = saying(fact("cause", {"code": "cable_cut"}, confidence=sure))
    assert words in text_of(renderer, statement)


def test_a_fact_for_some_audiences_is_told_to_them_alone(renderer: Renderer) -> None:
    count = fact("scope", {"count": 1_700_000, "basis": "measured"}, audiences=("regulators",))
    statement = saying(count)
    heard = {
        r.audience for r in everything(renderer, statement) if "1,700,000" in str(r.message.parts)
    }
    assert heard == {"regulators"}


def test_times_show_the_incidents_zone_and_the_date_only_when_it_differs(
    renderer: Renderer,
) -> None:
    tomorrow = datetime(2024, 2, 23, 15, 0, tzinfo=UTC)
    text = text_of(renderer, saying(next_update_at=tomorrow))
    assert "since 2:45 AM CST." in text
    assert "Next update: by 9:00 AM CST on Fri, Feb 23." in text
    incident = EXAMPLES["typical"].incident.model_copy(update={"zone": "Asia/Kathmandu"})
    assert "since 2:30 PM UTC+5:45" in text_of(renderer, saying(incident=incident))


def test_emergency_calls_are_never_left_out_while_voice_is_affected(renderer: Renderer) -> None:
    silent = replace(EXAMPLES["typical"], facts={})
    for rendering in renderer.render_all(silent, ("consumers", "public", "care-and-retail")):
        assert any("911" in text for text in rendering.message.parts.values())
        assert [p.code for p in rendering.problems] == ["fact_missing"]
        assert rendering.refused
    data_only = replace(EXAMPLES["minimal"], facts={})
    assert not any(r.problems for r in everything(renderer, data_only))


def test_what_was_withdrawn_is_named_and_called_wrong(renderer: Renderer) -> None:
    wrong = fact("cause", {"code": "customer_malware"}, confidence=Confidence.BELIEVED)
    statement = saying(phase=Phase.CORRECTION, withdrawn=(wrong,))
    for where in ("consumers/email/en", "consumers/sms/en", "media/email/en", "public/social/en"):
        text = text_of(renderer, statement, where)
        assert "malicious software" in text and "wrong" in text
    hidden = fact("cause", {"code": "customer_malware"}, audiences=("regulators",))
    text = text_of(renderer, saying(phase=Phase.CORRECTION, withdrawn=(hidden,)))
    assert "malicious" not in text and "Something we told you earlier was wrong." in text


def test_regulators_read_whether_it_was_malicious(renderer: Renderer) -> None:
    def malicious(*facts: Fact) -> str:
        text = text_of(renderer, saying(*facts), "regulators/email/en")
        return next(line for line in text.splitlines() if line.startswith("- Malicious act:"))

    attack = {"code": "cyberattack"}
    assert malicious().endswith("not known yet")
    believed = fact("not_cause", attack, confidence=Confidence.BELIEVED)
    assert malicious(believed).endswith("no indication so far; under review")
    assert malicious(fact("not_cause", attack)).endswith("ruled out")
    assert malicious(fact("cause", attack)).endswith("confirmed")


def test_an_estimate_is_not_repeated_once_service_is_back(renderer: Renderer) -> None:
    eta = fact("eta", {"at": NOW + timedelta(hours=2)})
    assert "We expect service to be back" in text_of(renderer, saying(eta))
    assert "We expect" not in text_of(renderer, saying(eta, phase=Phase.RESOLVED))


def test_a_drill_says_so_first_on_every_channel(renderer: Renderer) -> None:
    incident = EXAMPLES["typical"].incident.model_copy(update={"drill": True})
    marks = {"en": "EXERCISE", "es": "SOLO SIMULACRO", "ru": "УЧЕБНОЕ", "ar": "رسالة تدريبية"}
    for rendering in everything(renderer, saying(incident=incident)):
        mark = marks[rendering.message.locale]
        first = next(iter(rendering.message.parts.values()))
        assert first.startswith(mark)
        if "html" in rendering.message.parts:
            assert mark in rendering.message.parts["html"]


# --- an update's own words ---------------------------------------------------------------


def test_own_words_arrive_as_they_are_and_escaped_in_html(renderer: Renderer) -> None:
    words = "R&D says:  two  spaces .. and 'quotes'\nand a line"
    statement = saying(texts={"message": dict.fromkeys(("en", "es", "ru", "ar"), words)})
    for rendering in everything(renderer, statement):
        parts = dict(rendering.message.parts)
        if "html" in parts:
            assert "R&amp;D says:  two  spaces .. and &#x27;quotes&#x27;<br>and" in parts["html"]
            assert words in parts["text"]
        else:
            assert any(words in text for text in parts.values())


def test_words_for_some_locales_but_not_for_one_served_are_refused(renderer: Renderer) -> None:
    statement = saying(texts={"message": {"en": "Hello.", "es": "Hola."}})
    refused = {r.message.locale for r in everything(renderer, statement) if r.refused}
    assert refused == {"ru", "ar"}


def test_a_text_slot_that_nobody_shows_is_refused(renderer: Renderer) -> None:
    statement = saying(texts={"mesage": {"en": "Hello."}})
    found = renderer.render(statement, "media", "email", "en")
    assert [p.code for p in found.problems] == ["unknown_text_slot"] and found.refused


# --- room --------------------------------------------------------------------------------


def test_a_long_message_leaves_out_whole_sentences_until_it_fits(renderer: Renderer) -> None:
    full = text_of(renderer, saying(), "public/social/en")
    words = "Our stores are open all night and have landlines for everyone. Please come."
    tight = saying(texts={"message": dict.fromkeys(("en", "es", "ru", "ar"), words)})
    short = text_of(renderer, tight, "public/social/en")
    assert "Meanwhile try Wi-Fi calling." in full
    assert "Meanwhile try" not in short
    assert x_weight(short) <= 280 and words in short and "911 calls may fail" in short


def context(renderer: Renderer) -> dict[str, object]:
    """What a template is given, for sources that are in no pack."""
    organisation = renderer.packs.organisation
    say = Speech(renderer.words["en"], organisation, EXAMPLES["typical"], audience="media")
    return {"say": say, "org": organisation_view(organisation), "texts": Texts({})}


# --- the fence ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "{{ say._statement }}",
        "{{ say.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ say|attr('_words') }}",
        "{{ 'a' * 100000 }}",
        "{{ 2 ** 100000 }}",
        "{{ '%s' % say }}",
        "{% for n in range(10) %}x{% endfor %}",
        "{{ org.update({'name': 'x'}) }}",
        "{{ texts.put('x') }}",
        "{{ 'a'.upper() }}",
        "{{ '{0.__class__}'.format(say) }}",
        "{{ say.title }}",
        "{{ incident.title }}",
        "{% include '../../etc/passwd' %}",
        "{% include '/etc/passwd' %}",
        "{{ cycler }}",
        "{{ self.__init__.__globals__ }}",
        "{{ say.voice_affected.__class__ }}",
    ],
)
def test_a_template_cannot_reach_out(renderer: Renderer, source: str) -> None:
    with pytest.raises((TemplateError, TypeError)):
        run(renderer.fence.from_string(source), context(renderer))


def test_a_template_that_grows_without_bound_is_stopped(renderer: Renderer) -> None:
    loops = "".join(f"{{% for a{n} in say.reference %}}" for n in range(6))
    source = f"{loops}x{'{% endfor %}' * 6}"
    with pytest.raises(TemplateError, match="grows past"):
        run(renderer.fence.from_string(source), context(renderer))


def test_what_fails_while_rendering_is_told_with_file_and_line(
    pack: Callable[[Mapping[str, str]], Renderer],
) -> None:
    source = "To the press\n\n{{ say._facts }}\n"
    problems = check_packs(pack({"media/email/any.en.text.j2": source}).packs, [])
    assert {(p.file.name, p.line) for p in problems} == {("any.en.text.j2", 3)}


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "templates"
    shutil.copytree(TEMPLATES, root)
    (tmp_path / "secret.j2").write_text("secret")
    (root / "media" / "email" / "resolved.en.text.j2").symlink_to(tmp_path / "secret.j2")
    problems = check_packs(load(root), [])
    assert [p.file.name for p in problems] == ["resolved.en.text.j2"]


def test_rendering_reads_no_file_after_start(tmp_path: Path) -> None:
    root = tmp_path / "templates"
    shutil.copytree(TEMPLATES, root)
    renderer = Renderer(load(root), [])
    shutil.rmtree(root)
    assert len(list(everything(renderer, EXAMPLES["nasty"]))) == 33


def test_a_fact_kind_without_value_stays_unsaid(renderer: Renderer) -> None:
    ruled_out = fact("eta", {"at": NOW + timedelta(hours=2)}, confidence=Confidence.RULED_OUT)
    assert FactKind.ETA in saying(ruled_out).facts
    assert "back by" not in text_of(renderer, saying(ruled_out))

"""The shipped packs: complete, free of gaps, within every channel's room, and refused when broken."""

import re
import shutil
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from channels.contract import Channel
from channels.text import sms_measure, x_weight
from dispatcher.audiences import PackError, PackProblem, load
from dispatcher.incidents import AccountClass, CauseCode, NextStepCode, Phase, WorkaroundCode
from dispatcher.rendering import EXAMPLES, Renderer, Rendering, check_packs
from dispatcher.rendering.vocabulary import LINES, WHEN, load_vocabularies

TEMPLATES = Path(__file__).parents[2] / "templates"
LOCALES = ("en", "es", "ru", "ar")
GAPS = re.compile(
    r"None|\{\{|\}\}|\{\w+\}|  |(?<!\.)\.\.(?!\.)| [.,;!?](?:\s|$)|,\.|:\s*$|\(\s*\)|\n{3}|[\ue000-\uf8ff]"
)


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(load(TEMPLATES), [])


def rendered(renderer: Renderer, example: str, phase: Phase) -> Iterator[Rendering]:
    statement = replace(EXAMPLES[example], phase=phase)
    yield from renderer.render_all(statement, renderer.packs.audiences)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("example", EXAMPLES)
def test_no_message_has_a_gap(renderer: Renderer, example: str, phase: Phase) -> None:
    own = dict.fromkeys(LOCALES, "own")
    statement = replace(EXAMPLES[example], phase=phase)
    if statement.texts:
        statement = replace(statement, texts={"message": own, "details": own, "statement": own})
    found = renderer.render_all(statement, renderer.packs.audiences)
    assert len(found) == 33
    for rendering in found:
        for part, text in rendering.message.parts.items():
            where = f"{rendering.message.id} {part}"
            assert text.strip(), where
            if part == "html":
                continue
            for line in text.split("\n"):
                gap = GAPS.search(line.removesuffix(":") if part == "text" else line)
                assert gap is None, f"{where}: {gap and gap[0]!r} in {line!r}"
            if part in ("subject", "title", "body"):
                assert "\n" not in text


@pytest.mark.parametrize("phase", Phase)
def test_usual_facts_fit_every_channel(renderer: Renderer, phase: Phase) -> None:
    for rendering in rendered(renderer, "typical", phase):
        parts = rendering.message.parts
        where = f"{rendering.message.id} {phase}"
        match rendering.message.channel:
            case Channel.SMS:
                measure = sms_measure(parts["text"])
                assert measure.segments <= 2, (where, measure)
                if rendering.message.locale in ("en", "es"):
                    assert measure.costly == (), (where, measure.costly)
            case Channel.SOCIAL:
                assert x_weight(parts["text"]) <= 280, where
            case Channel.PUSH:
                assert len(parts["title"]) <= 50 and len(parts["body"]) <= 180, where


def test_the_first_notice_has_its_elements_in_order(renderer: Renderer) -> None:
    text = next(
        r.message.parts["text"]
        for r in rendered(renderer, "typical", Phase.INVESTIGATING)
        if r.message.id.endswith("consumers/sms/en")
    )
    elements = [
        "Northvale", "calls, mobile data and texts", "United States", "since 2:45 AM CST",
        "our network, not your device", "Wi-Fi calling", "911", "Next update by 3:45 AM CST",
    ]  # fmt: skip
    places = [text.index(element) for element in elements]
    assert places == sorted(places)


def test_a_mail_says_the_same_in_both_parts(renderer: Renderer) -> None:
    for phase in Phase:
        for rendering in rendered(renderer, "nasty", phase):
            parts = rendering.message.parts
            if "html" not in parts:
                continue
            shown = re.sub(r"<(style|title).*?</\1>", "", parts["html"], flags=re.DOTALL)
            shown = re.sub(r"<[^>]+>", " ", shown)
            shown = shown.replace("&#39;", "'").replace("&#x27;", "'").replace("&#34;", '"')
            shown = shown.replace("&quot;", '"').replace("&amp;", "&")
            words = set(re.findall(r"[\w\]\[]+", parts["text"]))
            assert words <= set(re.findall(r"[\w\]\[]+", shown)), rendering.message.id


def test_mails_name_language_and_direction(renderer: Renderer) -> None:
    for rendering in rendered(renderer, "typical", Phase.RESOLVED):
        page = rendering.message.parts.get("html")
        if page is None:
            continue
        locale = rendering.message.locale
        direction = "rtl" if locale == "ar" else "ltr"
        assert f'<html lang="{locale}" dir="{direction}">' in page
        assert "prefers-color-scheme: dark" in page and "max-width:600px" in page
        assert "<table" not in page and "<script" not in page and "<img" not in page


def test_what_each_audience_must_read(renderer: Renderer) -> None:
    texts = {
        r.audience: r.message.parts["text"]
        for r in rendered(renderer, "nasty", Phase.INVESTIGATING)
        if r.message.channel == Channel.EMAIL and r.message.locale == "en"
    }
    for needed, audiences in {
        "INC-0042": tuple(texts),
        "911": tuple(set(texts) - {"investors"}),
        "Card terminals": ("small-business",),
        "account team": ("enterprise",),
        "What not to say": ("care-and-retail",),
        "What you may say": ("employees",),
        "Malicious act": ("regulators",),
        "2024-02-22 08:45 UTC": ("regulators", "emergency-services"),
        "Network operations": ("regulators", "emergency-services", "partners"),
        "What we do not know yet": ("media",),
        "made public": ("investors",),
        "does not cover business accounts": ("consumers", "small-business", "enterprise"),
    }.items():
        for audience in audiences:
            assert needed in texts[audience], (needed, audience)


def test_no_message_blames_or_links(renderer: Renderer) -> None:
    for example in EXAMPLES:
        for phase in Phase:
            for rendering in rendered(renderer, example, phase):
                for part, text in rendering.message.parts.items():
                    if part != "html":
                        assert "http" not in text and "www." not in text


# --- vocabularies ------------------------------------------------------------------------


@pytest.mark.parametrize("locale", LOCALES)
def test_every_code_has_words_in_every_language(locale: str) -> None:
    words = load_vocabularies([TEMPLATES])[locale]
    for table, codes in {
        "causes": CauseCode, "workarounds": WorkaroundCode, "uses": WorkaroundCode,
        "accounts": AccountClass, "next_steps": NextStepCode, "phases": Phase,
        "lines": LINES, "when": WHEN, "services": load(TEMPLATES).organisation.services,
    }.items():  # fmt: skip
        for code in codes:
            assert words.tables[table][code].strip(), (table, code)
    states = set(load_vocabularies([TEMPLATES])["en"].tables["regions"])
    assert set(words.tables["regions"]) == states and len(states) == 52


@pytest.mark.parametrize("locale", LOCALES)
def test_numbers_and_locked_words_survive_translation(renderer: Renderer, locale: str) -> None:
    english = {"911", "INC-0042", "1-800-555-0199", "CST", "Northvale", "northvale.example"}
    message = renderer.render(EXAMPLES["typical"], "consumers", "email", locale).message
    assert all(word in message.parts["text"] for word in english)
    for term in renderer.packs.organisation.glossary[locale]:
        assert term in message.parts["text"], term


def test_the_short_spanish_forms_cost_nothing_extra() -> None:
    with (TEMPLATES / "vocabulary.es.toml").open("rb") as file:
        tables = tomllib.load(file)
    for table in ("short", "services_short", "uses_short", "next_steps_short", "accounts_short"):
        for key, words in tables[table].items():
            if key not in ("took_back", "landline"):
                assert sms_measure(words).costly == (), (table, key)


@pytest.mark.parametrize(
    ("locale", "amount", "words"),
    [
        ("en", "5.00", "$5"),
        ("en", "5.50", "$5.50"),
        ("es", "5.00", "$5"),
        ("ru", "5.00", "5 долларов США"),
        ("ru", "2.00", "2 доллара США"),
        ("ar", "5.00", "5 دولارات أمريكية"),
        ("ar", "20.00", "20 دولارًا أمريكيًا"),
    ],
)
def test_amounts_are_written_as_each_language_does(locale: str, amount: str, words: str) -> None:
    vocabulary = load_vocabularies([TEMPLATES])[locale]
    assert vocabulary.money(Decimal(amount), "USD") == words


# --- refusals ----------------------------------------------------------------------------


def problems_after(tmp_path: Path, changes: dict[str, str | None]) -> list[PackProblem]:
    root = tmp_path / "templates"
    shutil.copytree(TEMPLATES, root)
    for name, text in changes.items():
        file = root / name
        if text is None:
            file.unlink()
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    return check_packs(load(root), [])


def test_the_shipped_packs_have_no_problem() -> None:
    assert check_packs(load(TEMPLATES), []) == []


@pytest.mark.parametrize(
    ("name", "text", "line", "words"),
    [
        ("media/email/any.en.text.j2", "one\n{% if %}\n", 2, "Expected an expression"),
        ("media/email/any.en.text.j2", "one\n{{ say.x | nonsense }}", 2, "nonsense"),
        ("consumers/sms/resolvd.en.j2", "text", 1, "unknown phase resolvd"),
        ("consumers/fax/resolved.en.j2", "text", 1, "unknown channel fax"),
        ("consumers/push/resolved.en.boddy.j2", "text", 1, "unknown part"),
        ("consumers/sms/resolved.en.text.j2", "text", 1, "unknown part"),
        ("consumers/sms/resolved.j2", "text", 1, "is not named"),
        ("nobody.j2", "text", 1, "lies where no message is looked for"),
        ("default/sms/resolved.en.j2", "{{ say.reference }}\n{{ say.nothing }}", 2, "nothing"),
        ("default/sms/resolved.en.j2", "{# nothing #}", 1, "text is empty"),
        ("default/sms/resolved.en.j2", "{% include 'default/_x.j2' %}", 1, "default/_x.j2"),
    ],
)
def test_a_broken_template_is_told_with_file_and_line(
    tmp_path: Path, name: str, text: str, line: int, words: str
) -> None:
    problems = problems_after(tmp_path, {name: text})
    assert problems
    assert {(p.file.relative_to(tmp_path / "templates").as_posix(), p.line) for p in problems} == {
        (name, line)
    }
    assert words in problems[0].message


def test_a_missing_part_is_told_with_phase_and_locale(tmp_path: Path) -> None:
    problems = problems_after(tmp_path, {"default/push/resolved.ru.title.j2": None})
    assert [str(p.file.relative_to(tmp_path)) for p in problems] == ["templates/consumers/push"]
    assert problems[0].message == "resolved.ru: no folder has all parts (title, body)"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('cable_cut = "a cut cable"', "", "causes.cable_cut: is missing"),
        ('cable_cut = "a cut cable"', 'cable_cut = ""', "causes.cable_cut: must be words"),
        ('cable_cut = "a cut cable"', 'cabel_cut = "x"\ncable_cut = "y"', "causes.cabel_cut"),
        ('restored_all = "Service is back for all{hedge}."', 'restored_all = "{percent}"',
         "short.restored_all: has a place {percent}"),
        ('direction = "ltr"', 'direction = "up"', "direction"),
        ('babel = "en_US"', 'babel = "xx_YY"', "babel"),
        ('babel = "en_US"', "babel = en_US", "Invalid value"),
        ('voice = "calls"', "", "services.voice: is missing"),
    ],
)  # fmt: skip
def test_a_gap_in_a_vocabulary_is_told(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = (TEMPLATES / "vocabulary.en.toml").read_text(encoding="utf-8")
    assert old in text
    problems = problems_after(tmp_path, {"vocabulary.en.toml": text.replace(old, new, 1)})
    assert problems and words in problems[0].message
    assert problems[0].file.name == "vocabulary.en.toml"
    with_value = new and "services" not in words
    if with_value:
        assert problems[0].line == text[: text.index(old)].count("\n") + 1


def test_a_vocabulary_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    root = tmp_path / "templates"
    shutil.copytree(TEMPLATES, root)
    (root / "vocabulary.ar.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(PackError, match="is not UTF-8"):
        Renderer(load(root), [])


def test_a_whole_update_is_rendered_in_time(renderer: Renderer) -> None:
    statement = EXAMPLES["nasty"]
    renderer.render_all(statement, renderer.packs.audiences)
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        assert len(renderer.render_all(statement, renderer.packs.audiences)) == 33
        best = min(best, time.perf_counter() - begun)
    assert best < 0.150

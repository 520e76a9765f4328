"""Which facts a message carries: those whose words stand in it, and no others."""

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import TemplateError

from dispatcher.audiences import PRIVATE_USE, PackError, PackProblem, load
from dispatcher.demo import scenario
from dispatcher.incidents import (
    Cause,
    CauseCode,
    CauseFact,
    Confidence,
    Fact,
    FactKind,
    Phase,
    StartedFact,
)
from dispatcher.rendering import EXAMPLES, Renderer, Rendering, Statement, check_packs

TEMPLATES = Path(__file__).parents[2] / "templates"
TYPICAL = EXAMPLES["typical"]
NASTY = EXAMPLES["nasty"]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(load(TEMPLATES), [])


@pytest.fixture
def pack(tmp_path: Path) -> Callable[[Mapping[str, str]], Renderer]:
    """A renderer of the shipped packs with files changed or added."""

    def change(files: Mapping[str, str]) -> Renderer:
        root = tmp_path / "templates"
        shutil.copytree(TEMPLATES, root)
        for name, text in files.items():
            file = root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return Renderer(load(root), [])

    return change


def id_of(kind: FactKind, statement: Statement = NASTY) -> str:
    return statement.facts[kind].id


def carried(renderer: Renderer, statement: Statement, where: str) -> set[str]:
    audience, channel, locale = where.split("/")
    return set(renderer.render(statement, audience, channel, locale).facts)


def with_words(statement: Statement, words: str) -> Statement:
    return replace(statement, texts={"message": dict.fromkeys(("en", "es", "ru", "ar"), words)})


def everything(renderer: Renderer) -> Iterator[tuple[Phase, Rendering]]:
    for example in EXAMPLES.values():
        for phase in Phase:
            statement = replace(example, phase=phase)
            for rendering in renderer.render_all(statement, renderer.packs.audiences):
                yield phase, rendering


def test_a_sentence_left_out_for_room_is_not_carried(renderer: Renderer) -> None:
    emergency, way = (
        id_of(kind, TYPICAL) for kind in (FactKind.EMERGENCY_CALLS, FactKind.WORKAROUND)
    )
    assert carried(renderer, TYPICAL, "public/social/en") == {emergency, way}
    tight = with_words(
        TYPICAL, "Our stores are open all night and have landlines. Please come. " * 2
    )
    assert carried(renderer, tight, "public/social/en") == {emergency}


def test_what_a_template_does_not_show_is_not_carried(renderer: Renderer) -> None:
    mail = carried(renderer, NASTY, "consumers/email/en")
    push = carried(renderer, NASTY, "consumers/push/en")
    assert id_of(FactKind.SCOPE) in mail and id_of(FactKind.SCOPE) not in push
    assert id_of(FactKind.APOLOGY) not in mail


def test_words_of_a_fact_stand_in_a_message_exactly_if_it_is_carried(renderer: Renderer) -> None:
    seen = set[bool]()
    for phase in Phase:
        for rendering in renderer.render_all(replace(NASTY, phase=phase), renderer.packs.audiences):
            tables = renderer.words[rendering.message.locale].tables
            names = [
                tables[table]["open_resolvers"]
                for table in ("causes", "causes_short")
                if "open_resolvers" in tables[table]
            ]
            text = "\n".join(rendering.message.parts.values())
            said = any(name in text for name in names)
            where = (rendering.message.id, phase)
            assert (id_of(FactKind.CAUSE) in rendering.facts) is said, where
            counted = "9999999999" in re.sub(r"(?<=\d)[., ٬](?=\d)", "", text)
            assert (id_of(FactKind.SCOPE) in rendering.facts) is counted, where
            seen |= {said, counted}
    assert seen == {True, False}


def test_a_condition_alone_carries_nothing(
    pack: Callable[[Mapping[str, str]], Renderer],
) -> None:
    source = "{% if say.cause and say.scope | length > 3 %}We know more.{% endif %}"
    renderer = pack({"consumers/sms/correction.en.j2": source})
    found = renderer.render(NASTY, "consumers", "sms", "en")
    assert found.message.parts["text"] == "EXERCISE ONLY. We know more."
    assert found.facts == ()


@pytest.mark.parametrize(
    "source",
    [
        "{{ say.cause | cap }}",
        "{{ say.cause | upper }}",
        "{{ say.cause | e }}",
        "{{ ('Hm: ' ~ say.cause) | may(1) }}",
        "{{ say.known | join(' ') }}",
        "{% for each in say.known %}{{ each }}{% endfor %}",
        "{% set kept %}{{ say.cause }}{% endset %}{{ kept }}",
        "{{ say.short.cause or 'nothing' }}",
    ],
)
def test_words_are_followed_wherever_a_template_takes_them(
    pack: Callable[[Mapping[str, str]], Renderer], source: str
) -> None:
    renderer = pack({"media/email/any.en.text.j2": source, "media/email/any.en.html.j2": "page"})
    found = renderer.render(NASTY, "media", "email", "en")
    assert id_of(FactKind.CAUSE) in found.facts
    assert PRIVATE_USE.search(found.message.parts["text"]) is None


def test_a_fact_that_stands_in_the_html_part_alone_is_carried(
    pack: Callable[[Mapping[str, str]], Renderer],
) -> None:
    renderer = pack(
        {
            "media/email/any.en.text.j2": "text",
            "media/email/any.en.html.j2": "<b>{{ say.ended }}</b>",
        }
    )
    found = renderer.render(NASTY, "media", "email", "en")
    assert found.facts == (id_of(FactKind.ENDED),)
    assert found.message.parts["html"].startswith("<b>Service was restored at")


def test_a_fact_for_some_audiences_is_carried_by_their_messages_alone(renderer: Renderer) -> None:
    hidden = dict(NASTY.facts)
    cause = hidden[FactKind.CAUSE]
    stated = cause.stated.model_copy(update={"audiences": ("regulators", "media")})
    hidden[FactKind.CAUSE] = cause.model_copy(update={"stated": stated})
    found = renderer.render_all(replace(NASTY, facts=hidden), renderer.packs.audiences)
    assert {r.audience for r in found if cause.id in r.facts} == {"regulators", "media"}


def test_a_start_that_is_a_fact_is_carried_with_the_times_made_of_it(renderer: Renderer) -> None:
    incident = replace(TYPICAL, facts={})
    assert carried(renderer, incident, "consumers/sms/en") == set()
    start = StartedFact.model_validate(
        {
            "kind": "started",
            "value": {"at": TYPICAL.incident.started_at},
            "source": "noc",
            "known_at": TYPICAL.stated_at,
        }
    )
    fact = Fact(id="start", stated=start, update_id="update-1")
    stated = replace(TYPICAL, facts={FactKind.STARTED: fact})
    for where in ("consumers/sms/en", "regulators/email/en", "media/email/en"):
        assert carried(renderer, stated, where) == {"start"}
    assert carried(renderer, replace(stated, phase=Phase.RESOLVED), "consumers/sms/en") == set()


def test_what_is_taken_back_is_quoted_and_not_carried(renderer: Renderer) -> None:
    statement = replace(NASTY, texts={})
    (wrong,) = statement.withdrawn
    for rendering in renderer.render_all(statement, renderer.packs.audiences):
        assert wrong.id not in rendering.facts
    alone = replace(statement, facts={})
    found = renderer.render(alone, "public", "social", "en")
    assert "malicious software" in found.message.parts["text"] and found.facts == ()
    # The same words stand again as a fact of their own: that one is carried.
    again = Fact(
        id="again",
        stated=CauseFact.model_validate(
            {**wrong.stated.model_dump(), "value": Cause(code=CauseCode.CUSTOMER_MALWARE)}
        ),
        update_id="update-2",
    )
    assert again.stated.confidence is Confidence.BELIEVED
    said = replace(statement, facts={FactKind.CAUSE: again})
    assert renderer.render(said, "consumers", "email", "en").facts == ("again",)


def test_facts_come_in_the_order_in_which_they_were_stated(renderer: Renderer) -> None:
    ids = [fact.id for fact in NASTY.facts.values()]
    found = renderer.render(NASTY, "enterprise", "email", "en").facts
    assert list(found) == [each for each in ids if each in found] and len(found) > 5


# --- nothing of it is ever seen ------------------------------------------------------------


def test_no_message_holds_a_trace(renderer: Renderer) -> None:
    count = 0
    for phase, rendering in everything(renderer):
        for part, text in rendering.message.parts.items():
            assert PRIVATE_USE.search(text) is None, (rendering.message.id, phase, part)
            count += 1
    assert count > 1_000


def test_a_trace_takes_no_room(pack: Callable[[Mapping[str, str]], Renderer]) -> None:
    # Two segments hold 306 septets: with one more the sentence must go.
    cause = "From what we know, not a cyberattack."
    room = 306 - len("EXERCISE ONLY. ") - len(f" {cause}")
    for filler, fits in ((room, True), (room + 1, False)):
        source = f"{'x' * filler} {{{{ say.short.not_cause | may(1) }}}}"
        renderer = pack({"consumers/sms/correction.en.j2": source})
        found = renderer.render(NASTY, "consumers", "sms", "en")
        assert found.message.parts["text"].endswith(cause) is fits
        assert found.units == 2
        assert (id_of(FactKind.NOT_CAUSE) in found.facts) is fits
        shutil.rmtree(renderer.packs.root)


def test_own_words_cannot_pass_for_a_trace(renderer: Renderer) -> None:
    every = "".join(chr(0xE020 + place) for place in range(len(FactKind)))
    found = renderer.render(
        replace(with_words(TYPICAL, f"Hello{every}\ue0001\ue001"), facts={}),
        "public", "social", "en",
    )  # fmt: skip
    assert found.facts == () and found.refused
    assert "private_character" in {problem.code for problem in found.problems}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("one\n\ue020", "a character of private use"),
        ("one\n{{ '\\ue020' }}", "a character of private use"),
        ("one\n{{ '\\U0010fffd' }}", "a character of private use"),
        ("one\n{{ say.cause[:9] }}", "do not cut sentences"),
        ("one\n{{ say.phase[0] }}", "do not cut sentences"),
        ("one\n{{ say.phase | first }}", "do not cut sentences"),
        ("one\n{{ say.phase | last }}", "do not cut sentences"),
    ],
)
def test_a_template_that_could_forge_or_lose_a_trace_is_refused(
    tmp_path: Path, source: str, words: str
) -> None:
    root = tmp_path / "templates"
    shutil.copytree(TEMPLATES, root)
    file = root / "default/sms/resolved.en.j2"
    file.write_text(source, encoding="utf-8")
    problems: list[PackProblem] = check_packs(load(root), [])
    assert {(problem.file, problem.line) for problem in problems} == {(file, 2)}
    assert words in problems[0].message


def test_lists_may_still_be_taken_apart(pack: Callable[[Mapping[str, str]], Renderer]) -> None:
    source = "{{ say.known | first }} {{ say.credit_pieces[0] }}"
    renderer = pack({"consumers/sms/correction.en.j2": source})
    found = renderer.render(NASTY, "consumers", "sms", "en")
    expected = {id_of(FactKind.RESTORED), id_of(FactKind.COMPENSATION)}
    assert set(found.facts) == expected


@pytest.mark.parametrize("file", ["vocabulary.en.toml", "organisation.toml"])
def test_no_vocabulary_or_organisation_holds_a_character_of_private_use(
    tmp_path: Path, file: str
) -> None:
    root = tmp_path / "templates"
    shutil.copytree(TEMPLATES, root)
    text = (root / file).read_text(encoding="utf-8")
    old = '"a cut cable"' if "vocabulary" in file else '"1-202-555-0111"'
    assert old in text
    (root / file).write_text(text.replace(old, old[:-1] + '\\uE020"'), encoding="utf-8")
    with pytest.raises(PackError, match="holds a character of private use") as caught:
        Renderer(load(root), [])
    line = text[: text.index(old)].count("\n") + 1
    assert [problem.line for problem in caught.value.problems] == [line]


# --- the shipped scenarios, and the first update after a start -----------------------------


@pytest.mark.parametrize("name", scenario.names())
def test_every_message_of_a_scenario_fits_its_channel(name: str) -> None:
    played = scenario.load(name)
    renderer = Renderer(load(TEMPLATES, overlay=played.overlay), [])
    known: dict[str, Fact] = {}
    live: dict[FactKind, Fact] = {}
    for step in played.steps:
        for each in step.facts:
            known[each.ref] = Fact(id=each.ref, stated=each.fact, update_id="update-1")
            live[each.fact.kind] = known[each.ref]
        live = {kind: fact for kind, fact in live.items() if fact.id not in step.withdraws}
        incident = TYPICAL.incident.model_copy(update=dict(played.incident))
        statement = Statement(
            incident=incident,
            update_id="update-1",
            phase=step.phase,
            facts=dict(live),
            withdrawn=tuple(known[ref] for ref in step.withdraws),
            texts=step.texts or {},
            stated_at=step.at,
            next_update_at=step.next_update_at,
        )
        for rendering in renderer.render_all(statement, step.audiences):
            parts, where = rendering.message.parts, (rendering.message.id, step.at)
            assert rendering.problems == (), where
            assert rendering.message.channel != "sms" or rendering.units <= 2, where
            assert len(parts.get("body", "")) <= 180, where
            if rendering.message.locale != "en":
                assert not any("the number on" in text for text in parts.values()), where


_COLD = """
import sys
from pathlib import Path
from dispatcher.audiences import load
from dispatcher.rendering import EXAMPLES, Renderer

renderer = Renderer(load(Path(sys.argv[1])), [])
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
for example in EXAMPLES.values():
    renderer.render_all(example, renderer.packs.audiences)
print("\\n".join(path for path in opened if "zoneinfo" not in path and "tzdata" not in path))
"""


def test_the_first_update_after_a_start_reads_no_file() -> None:
    """Templates and languages are ready when the renderer is: nobody waits for them later."""
    done = subprocess.run(
        [sys.executable, "-c", _COLD, str(TEMPLATES)],
        capture_output=True,
        text=True,
        check=True,
        cwd=TEMPLATES.parent,
    )
    assert done.stdout.split() == []


def test_a_template_that_calls_for_a_filter_it_has_not_is_refused(renderer: Renderer) -> None:
    with pytest.raises(TemplateError):
        renderer.fence.from_string("{{ say.cause | reverse }}")

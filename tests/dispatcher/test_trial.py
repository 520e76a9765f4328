"""Edited templates are tried as production would render them, and hostile ones refused by the line."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from channels.contract import Severity
from dispatcher.audiences import load
from dispatcher.incidents import Phase
from dispatcher.rendering import EXAMPLES, Renderer
from dispatcher.rendering.meter import MAX_SOURCE, MAX_STEPS, Meter, MeteredFence, SpentError
from dispatcher.rendering.proof import at_phase
from dispatcher.rendering.trial import Trial, Tried

TEMPLATES = Path(__file__).parents[2] / "templates"
RENDERER = Renderer(load(TEMPLATES), [])
TRIAL = Trial(RENDERER)

SMS = "default/sms/investigating.en.j2"
MAIL = "default/email/investigating.en.text.j2"
BODY = "default/email/_body.en.j2"
PAGE = "default/email/_page.html.j2"


def tried(source: str, name: str = SMS, sample: str = "typical") -> Tried:
    return TRIAL.try_template(name, source, EXAMPLES[sample])


def complaints(source: str, name: str = SMS, sample: str = "typical") -> list[tuple[int, str]]:
    found = tried(source, name, sample)
    assert found.refused and all(each.severity is Severity.ERROR for each in found.complaints)
    return [(each.line, each.message) for each in found.complaints]


# --- as production renders ---------------------------------------------------------------


def groups() -> Iterator[str]:
    yield from sorted({name.rpartition("/")[0] for name in TRIAL.names})


@pytest.mark.parametrize("folder", list(groups()))
def test_every_shipped_template_says_in_a_trial_what_it_says_in_production(folder: str) -> None:
    samples = ("nasty", "typical", "minimal")
    for place, name in enumerate(TRIAL.names):
        if name.rpartition("/")[0] != folder:
            continue
        statement = TRIAL.samples(name)[samples[place % 3]]
        found = TRIAL.try_template(name, TRIAL.source(name), statement)
        assert found.complaints == () and found.renderings, name
        for each in found.renderings:
            message = each.message
            expected = RENDERER.render(
                at_phase(statement, found.phase), each.audience, message.channel, message.locale
            )
            assert each == expected, name


def test_an_edit_stands_in_every_message_it_belongs_to_and_nowhere_else() -> None:
    found = tried(f"{TRIAL.source(BODY)}\nThe very end.", BODY)
    assert found.complaints == ()
    told = {(each.audience, each.message.channel, each.message.locale) for each in found.renderings}
    assert told == {
        (use.audience, use.channel, use.locale) for use in TRIAL.uses(BODY, Phase.INVESTIGATING)
    }
    assert ("consumers", "email", "en") in told and {locale for *_, locale in told} == {"en"}
    for each in found.renderings:
        assert each.message.parts["text"].endswith("The very end.")
        assert "The very end." in each.message.parts["html"]
    after = RENDERER.render(EXAMPLES["typical"], "consumers", "email", "en")
    assert "The very end." not in str(after.message.parts)


def test_a_template_is_tried_at_a_phase_it_is_used_at() -> None:
    name = "default/sms/resolved.en.j2"
    found = tried("{{ org.prefix }}: {{ phase }}", name)
    assert found.phase is Phase.RESOLVED
    assert {each.message.parts["text"] for each in found.renderings} == {"Northvale: resolved"}
    assert TRIAL.samples(name)["typical"].phase is Phase.RESOLVED
    assert TRIAL.samples(PAGE)["typical"].phase is Phase.INVESTIGATING


def test_the_samples_begin_with_the_real_one_if_there_is_one() -> None:
    real = replace(EXAMPLES["typical"], update_id="mine")
    assert list(TRIAL.samples(SMS, real)) == ["real", "typical", "minimal", "nasty"]
    assert TRIAL.samples(SMS, real)["real"].update_id == "mine"
    assert list(TRIAL.samples(SMS)) == ["typical", "minimal", "nasty"]


def test_a_template_that_is_not_in_the_packs_is_not_tried() -> None:
    for name in ("default/sms/nope.j2", "../organisation.toml", ""):
        with pytest.raises(LookupError):
            TRIAL.try_template(name, "x", EXAMPLES["typical"])


def test_what_the_adapters_say_comes_with_the_message() -> None:
    found = tried("{{ org.prefix }}", sample="typical")
    assert [each.units for each in found.renderings] == [1] * len(found.renderings)
    silent = replace(EXAMPLES["typical"], facts={})
    problems = TRIAL.try_template(SMS, TRIAL.source(SMS), silent).renderings[0].problems
    assert [problem.code for problem in problems] == ["fact_missing"]


# --- refused by the line -----------------------------------------------------------------

LONG = "{{ say.as_of }}"
NESTED = "".join(f"{{% for a{n} in say.as_of %}}" for n in range(7))

HOSTILE = {
    "a macro that calls itself": (3, "x\n{% macro m() %}\nx{{ m() }}{% endmacro %}{{ m() }}"),
    "macros that double": (
        None,
        "{% macro a0() %}x{% endmacro %}"
        + "".join(
            f"{{% macro a{n}() %}}{{{{ a{n - 1}() }}}}{{{{ a{n - 1}() }}}}{{% endmacro %}}"
            for n in range(1, 39)
        )
        + "\n{{ a38() }}",
    ),
    "loops in loops": (2, f"x\n{NESTED}y{'{% endfor %}' * 7}"),
    "loops in loops that say nothing": (2, f"x\n{NESTED}{{% set q = 1 %}}{'{% endfor %}' * 7}"),
    "loops in conditions": (
        2,
        "x\n"
        + "".join(f"{{% for a{n} in say.as_of if a{n} != 'zz' %}}" for n in range(7))
        + "{% endfor %}" * 7,
    ),
    "loops too deep": (2, "x\n" + "{% for a in say.as_of %}" * 25 + "{% endfor %}" * 25),
    "a huge range": (2, "x\n{% for n in range(1000000000) %}x{% endfor %}"),
    "much text in a loop": (
        2,
        "x\n{% for a in say.as_of %}{% for b in say.as_of %}"
        + "y" * 500
        + "{% endfor %}{% endfor %}",
    ),
    "text that doubles": (None, "{% set a = 'xx' %}\n" + "{% set a = a ~ a %}\n" * 60 + "{{ a }}"),
    "lists that double": (None, "{% set a = ['x'] %}\n" + "{% set a = [a, a] %}\n" * 60),
    "tuples that double, as a key": (
        None,
        "{% set a = ('x', 'y') %}\n" + "{% set a = (a, a) %}\n" * 60 + "{% set d = {a: 1} %}",
    ),
    "lists that double, compared": (
        None,
        "{% set a = ['x'] %}{% set b = ['x'] %}\n"
        + "{% set a = [a, a] %}{% set b = [b, b] %}\n" * 60
        + "{{ a == b }}",
    ),
    "a long separator": (
        2,
        "{% set s %}" + "x" * 8_000 + "{% endset %}\n{{ [" + "s," * 600 + "] | join(s) }}",
    ),
    "joins of joins": (
        2,
        "{% set s %}" + "x" * 8_000 + "{% endset %}\n{{ say.as_of | join(s) | join(s) }}",
    ),
    "an include of itself": (2, "x\n{% include 'default/sms/investigating.en.j2' %}"),
    "an import of itself": (1, "{% import 'default/sms/investigating.en.j2' as me %}{{ me }}"),
    "many includes": (
        2,
        "x\n{% for a in say.as_of %}{% for b in say.as_of %}"
        "{% include 'default/email/_close.en.j2' %}{% endfor %}{% endfor %}",
    ),
    "an attribute": (2, "x\n{{ say.__class__ }}"),
    "an attribute in a branch that is not taken": (
        2,
        "x\n{% if say.drill %}{{ say._facts }}{% endif %}",
    ),
    "an attribute by its name": (2, "x\n{{ ''['__class__'] }}"),
    "an attribute put together": (3, "x\n{% set a = '__cla' ~ 'ss__' %}\n{{ say[a] }}"),
    "attr": (2, "x\n{{ say | attr('_words') }}"),
    "a format": (2, "x\n{{ '{0.__class__}'.format(say) }}"),
    "a percent format": (2, "x\n{{ '%s' % say }}"),
    "a method": (2, "x\n{{ org.update({'name': 'x'}) }}"),
    "a file outside": (3, "x\n\n{% include '../../etc/passwd' %}"),
    "a file outside, put together": (3, "x\n\n{% include '/etc/' ~ 'passwd' %}"),
    "a file outside, in a branch": (
        2,
        "x\n{% if say.drill %}{% include '/etc/passwd' %}{% endif %}",
    ),
    "an unknown name": (3, "x\n\n{{ incident.title }}"),
    "an unknown name in a branch": (3, "x\n{% if say.drill %}\n{{ sya.cause }}{% endif %}"),
    "an unknown word": (2, "x\n{{ say.caus }}"),
    "an unknown short word": (2, "x\n{{ say.short.caus }}"),
    "an unknown text slot": (2, "x\n{{ texts.mesage }}"),
    "an unknown detail of ours": (2, "x\n{{ org.fax }}"),
    "a slot outside a mail": (2, "x\nHello [[name]]"),
    "a character of private use": (2, "x\n\ue000"),
    "a private character by an escape": (2, "x\n{{ '\\ue000' }}"),
    "half a character": (2, "x\n\ud800"),
    "a megabyte": (MAX_SOURCE // 2 + 1, "x\n" * 500_000),
    "brackets": (2, "x\n{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}"),
    "lists in lists": (2, "x\n{{ " + "[" * 8_000 + "]" * 8_000 + " }}"),
    "not not not": (2, "x\n{{ " + "not " * 5_000 + "1 }}"),
    "filters on filters": (2, "x\n{{ say.cause" + "|e" * 8_000 + " }}"),
    "and and and": (2, "x\n{{ " + "1 and " * 3_000 + "1 }}"),
    "else else else": (2, "x\n{{ " + "1 if 1 else " * 1_500 + "1 }}"),
    "blocks in blocks": (None, "x\n" + "{% if 1 %}\n" * 1_000 + "{% endif %}" * 1_000),
    "elif elif elif": (None, "x\n{% if 1 %}" + "{% elif 1 %}a" * 1_500 + "{% endif %}"),
    "attributes on attributes": (2, "x\n{{ say" + ".short" * 3_000 + " }}"),
    "a huge number": (2, "x\n{{ " + "9" * 9_000 + " }}"),
    "a power": (2, "x\n{{ 9 ** 9 ** 9 }}"),
    "a product": (2, "x\n{{ 'a' * 1000000 }}"),
    "a division by nothing": (3, "x\n\n{{ 1 // 0 }}"),
    "a tag left open": (2, "x\n{% for"),
    "text left open": (2, "x\n{{ '"),
    "comments left open": (1, "{#" * 5_000),
    "values left open": (1, "{{" * 10_000),
    "nothing at all": (1, ""),
    "an order that is none": (1, "{{ 'a' | may(0) }}"),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.timeout(20)
def test_a_hostile_template_is_refused_with_the_line(what: str) -> None:
    line, source = HOSTILE[what]
    found = complaints(source)
    assert found[0][1] and len(found[0][1]) <= 400
    if line is not None:
        assert found[0][0] == line, found


@pytest.mark.parametrize("name", [MAIL, PAGE, "default/social/investigating.en.j2"])
@pytest.mark.timeout(60)
def test_hostile_templates_are_refused_wherever_they_stand(name: str) -> None:
    for what in ("loops in loops", "text that doubles", "brackets", "a macro that calls itself"):
        assert complaints(HOSTILE[what][1], name)


@pytest.mark.timeout(20)
def test_long_but_harmless_text_is_judged_by_its_adapters_alone() -> None:
    for words in ("a.", "a-", "word ", "😀", "\u202e", "\u200b", "http://a.", "1.", "<b>"):
        found = tried((words * MAX_SOURCE)[:MAX_SOURCE], "default/social/investigating.en.j2")
        assert found.complaints == () and found.renderings


def test_slots_in_a_mail_are_known_by_name() -> None:
    assert complaints("Hello [[name]],\nand\n[[Name]] [[ name ]] {{ [[1]] | length }}", MAIL) == [
        (3, "there is no slot [[ name ]]; there are: [[name]]"),
        (3, "there is no slot [[Name]]; there are: [[name]]"),
    ]
    assert tried("Hello [[name]]", MAIL).complaints == ()


def test_a_piece_may_use_what_those_that_include_it_set() -> None:
    assert tried("{{ lead }} {{ say.known | unsaid(lead) | join(' ') }}", BODY).complaints == ()
    assert [line for line, _ in complaints("\n{{ lede }}", BODY)] == [2]


def test_a_mistake_in_an_included_piece_is_told_by_its_own_name() -> None:
    source = "{% set lead = 1 %}{% include 'default/email/_body.en.j2' %}"
    found = tried(source, MAIL, "nasty")
    assert {each.name for each in found.complaints} == {BODY} and found.refused


def test_what_is_wrong_for_one_sample_only_is_found_by_that_sample() -> None:
    source = "{{ org.prefix }}{{ say.workarounds[0] if say.workarounds else 1 // 0 }}"
    assert not tried(source).refused and tried(source, sample="minimal").refused


def test_many_mistakes_are_told_at_once_in_the_order_of_lines() -> None:
    found = complaints("{{ a }}\n{{ say.b }}\n{{ texts.c }}\n[[d]]")
    assert [line for line, _ in found] == [1, 2, 3, 4]


def test_windows_line_ends_change_nothing() -> None:
    source = "One\nTwo {{ say.as_of }}"
    assert tried(source).renderings == tried(source.replace("\n", "\r\n")).renderings


def test_the_meter_is_charged_for_what_is_said_and_filled_for_every_message() -> None:
    meter = Meter()
    fence = MeteredFence(RENDERER.sources, meter)
    template = fence.from_string("{% for a in 'abc' %}12345{{ a }}{% endfor %}")
    assert template.render() == "12345a12345b12345c"
    assert meter.steps == MAX_STEPS - 4
    assert meter.heaviest() is not None
    meter.fill()
    assert meter.steps == MAX_STEPS and meter.heaviest() is None


@pytest.mark.parametrize(
    ("meter", "words"),
    [
        (Meter(ends_at=float("inf"), steps=100), "multiply"),
        (Meter(ends_at=float("inf"), chars=100), "without bound"),
        (Meter(ends_at=0.0), "too long"),
    ],
    ids=["steps", "characters", "time"],
)
def test_each_thing_that_is_metered_ends_a_template_by_itself(meter: Meter, words: str) -> None:
    loops = "{% for a in 'abcdef' %}{% for b in 'abcdef' %}{% for c in 'abcdef' %}x"
    template = MeteredFence(RENDERER.sources, meter).from_string(loops + "{% endfor %}" * 3)
    with pytest.raises(SpentError, match=words):
        template.render()

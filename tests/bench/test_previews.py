"""What the bench of the console measures is really there: each message, each page, the form."""

import re
from pathlib import Path

import pytest

from bench import pages, renderings
from bench.filled import Filled
from bench.pages import Fields
from dispatcher.incidents import Phase
from dispatcher.rendering import EXAMPLES, Renderer

THERE = Filled(
    incident="INC-0001",
    sent="0190a000-0000-7000-8000-000000000001",
    draft="0190a000-0000-7000-8000-000000000002",
    drill="INC-0002",
    admin="a",
    author="b",
    person="0190a000-0000-7000-8000-000000000003",
    invitation="c",
    templates=("default/sms/any.en.j2",),
)


def test_the_large_update_is_twelve_by_four_by_four(tmp_path: Path) -> None:
    packs = renderings.enlarged(tmp_path / "templates")
    renderer = Renderer(packs, renderings.simulated(tmp_path))
    found = renderer.render_all(EXAMPLES["nasty"], packs.audiences)
    keys = {(r.audience, r.message.channel, r.message.locale) for r in found}
    assert len(found) == len(keys) == 192
    assert {locale for _, _, locale in keys} == set(renderings.LOCALES)
    assert {channel for _, channel, _ in keys} == set(renderings.CHANNELS)


def test_every_phase_of_every_example_is_said() -> None:
    said = list(renderings.statements())
    assert len(said) == len(EXAMPLES) * len(Phase)


def test_every_page_is_found_and_can_be_asked_for() -> None:
    found = list(pages.routes())
    assert {"/", "/incidents/{ref}", "/people", "/sign-in"} <= set(found)
    assert not [route for route in found if route.endswith("/events")]
    for route in found:
        for path in pages._paths(route, THERE):
            assert "{" not in path, path


FORM = """
<form action="/small"><input name="x" value="1"></form>
<form action="/large"><input type="hidden" name="csrf" value="t"><input name="title" value="a &amp; b">
<input type="checkbox" name="yes" value="1" checked><input type="checkbox" name="no" value="1">
<input type="radio" name="how" value="a"><input type="radio" name="how" value="b" checked>
<select name="one"><option value="p">P</option><option value="q" selected>Q</option></select>
<select name="two"><option value="r">R</option><option value="s">S</option></select>
<textarea name="texts.message.en">
Some words</textarea><textarea name="empty"></textarea>
<button name="go" value="1">Go</button><input type="submit" name="sent" value="1">
<input name="gone" value="1" disabled></form>
"""


def test_a_form_is_sent_as_a_browser_sends_it() -> None:
    form = Fields.of(FORM)
    assert form.items == [
        ("csrf", "t"),
        ("title", "a & b"),
        ("yes", "1"),
        ("how", "b"),
        ("one", "q"),
        ("two", "r"),
        ("texts.message.en", "Some words"),
        ("empty", ""),
    ]
    assert form.words == ["texts.message.en", "empty"]


@pytest.mark.timeout(120)
def test_rendering_has_its_figures() -> None:
    """At this size they mean nothing, and are not judged."""
    found = renderings.run(quick=True)
    assert {"one_message_p95_ms", "whole_update_ms"} <= found.keys()
    assert all(value > 0 for value in found.values())
    assert all(re.fullmatch(r"[a-z0-9_]+_ms", name) for name in found)

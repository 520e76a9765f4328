"""The templates' pages: read, tried with every sample, refused by the line, taken away."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from urllib.parse import unquote

import pytest

from dispatcher.incidents import NewIncident, NewUpdate
from dispatcher.rendering.trial import Trial
from dispatcher.security.rights import ROLE_SCOPES, Actor, Role
from tests.dispatcher.console.conftest import Browser, Console

SMS = "/templates/default/sms/investigating.en.j2"
MAIL = "/templates/default/email/investigating.en.text.j2"


def tried(browser: Browser, path: str, source: str, **more: str) -> str:
    """The page after a try; the template is refused exactly if its status says so."""
    answer = browser.form(path, {"source": source, "sample": "typical", "do": "try", **more})
    assert answer.status_code in (200, 422), answer.text
    refused = "cannot be used as it is" in answer.text
    assert (answer.status_code == 422) is refused
    return answer.text


def source_of(page: str) -> str:
    found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    assert found is not None
    return unescape(found[1])


def complaints(page: str) -> list[tuple[int, str]]:
    found = re.findall(r'<li data-line="(\d+)"><strong>[^<]*</strong> ([^<]*)', page)
    return [(int(line), unescape(words)) for line, words in found]


def test_every_template_of_the_packs_is_listed_and_can_be_opened(console: Console) -> None:
    browser = console.browser("viewer")
    page = browser.get("/templates")
    assert page.status_code == 200 and len(page.content) < 100 * 1024
    linked = re.findall(r'href="/console(/templates/[^"]+)"', page.text)
    names = Trial(console.services.renderer).names
    assert sorted(unquote(each) for each in linked) == [f"/templates/{name}" for name in names]
    for path in linked[::17]:
        shown = browser.get(unescape(path))
        assert shown.status_code == 200 and "cannot be used" not in shown.text, path
        assert len(shown.content) < 100 * 1024
        source = Trial(console.services.renderer).source(unquote(path).removeprefix("/templates/"))
        assert source_of(shown.text) == source


def test_an_edit_is_shown_in_its_message_with_the_difference_and_nothing_is_stored(
    console: Console,
) -> None:
    browser = console.browser("viewer")
    before = browser.get(SMS).text
    source = source_of(before)
    assert "data-changes" not in before
    edited = source.replace("We are working on it.", "We <b>work</b> & work.")
    assert edited != source
    page = tried(browser, SMS, edited, sample="minimal")
    shown = unescape(re.sub("<[^>]+>", "", page.split('id="messages"')[1]))
    assert "We <b>work</b> & work." in shown and "<b>work" not in page
    assert re.search(r"<ins>.*&lt;b&gt;work", page) and "<del>" in page
    assert source_of(page) == edited
    assert source_of(browser.get(SMS).text) == source


def test_a_hostile_template_is_refused_with_its_line(console: Console) -> None:
    browser = console.browser("author")
    page = tried(browser, SMS, "Fine.\n\n{{ say.__class__ }}<script>alert(1)</script>")
    assert complaints(page) == [(3, "templates do not reach for __class__")]
    assert "<script>alert" not in page
    page = tried(browser, SMS, "Fine.\n{% for a in range(99) %}x{% endfor %}")
    assert [line for line, _ in complaints(page)] == [2]
    page = tried(browser, MAIL, "Hello [[nmae]],\n\nwe are at it.")
    assert complaints(page) == [(1, "there is no slot [[nmae]]; there are: [[name]]")]


def test_a_file_is_taken_away_as_it_was_typed(console: Console) -> None:
    browser = console.browser("viewer")
    source = "Здравствуйте, [[name]]\n\n{{ broken\n"
    answer = browser.form(MAIL, {"source": source.replace("\n", "\r\n"), "do": "download"})
    assert answer.status_code == 200 and answer.content.decode() == source
    said = answer.headers["content-disposition"]
    assert said == "attachment; filename*=UTF-8''investigating.en.text.j2"
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_mail_comes_as_a_document_that_can_do_nothing(console: Console) -> None:
    browser = console.browser("viewer")
    source = source_of(browser.get(MAIL).text).replace("Hello", "Hail <script>")
    answer = browser.form(MAIL, {"source": source, "sample": "typical", "do": "mail"})
    assert answer.status_code == 200 and "Hail &lt;script&gt;" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "sandbox" in policy and "default-src 'none'" in policy and "script-src" not in policy
    none = browser.form(MAIL, {"source": "{{ broken", "do": "mail"})
    assert none.status_code == 200 and "makes no mail" in none.text


def test_an_open_incidents_own_update_is_a_sample(console: Console) -> None:
    author = console.person(Role.AUTHOR.value)
    actor = Actor(f"person:{author.id}", "Author", ROLE_SCOPES[Role.AUTHOR])
    started = datetime.now(UTC) - timedelta(hours=1)
    incident = NewIncident.model_validate(
        {"title": "x", "severity": "major", "services": ["broadband"], "regions": ["US-TX"],
         "started_at": started}
    )  # fmt: skip
    update = NewUpdate.model_validate(
        {"phase": "identified", "audiences": ["consumers"],
         "texts": {"message": dict.fromkeys(("en", "es", "ru", "ar"), "Our R&D words.")}}
    )  # fmt: skip
    with console.services.ledger.transaction() as work:
        opened = console.services.updates.open(work, incident, update, release="draft", actor=actor)
    browser = console.browser("viewer")
    page = browser.get(SMS).text
    found = re.search(r'<option value="(update:[^"]+)">([^<]+)', page)
    assert found is not None and opened.incident.reference in found[2]
    shown = tried(browser, SMS.replace("investigating", "identified"), "{{ org.prefix }}: "
                  "{{ say.services }} {{ say.places }} {{ texts.message }}", sample=found[1])  # fmt: skip
    assert "broadband internet Texas Our R&amp;D words." in re.sub("<[^>]+>", "", shown)
    assert f'<option value="{found[1]}" selected' in shown


@pytest.mark.parametrize("sample", ["update:nope", "update:", "none", "x" * 70])
def test_a_sample_that_is_not_there_is_the_typical_one(console: Console, sample: str) -> None:
    page = console.browser("viewer").get(f"{SMS}?sample={sample}").text
    assert '<option value="typical" selected' in page


@pytest.mark.parametrize("name", ["nope.j2", "../../etc/passwd", "default/sms", "%00", "a" * 300])
def test_what_is_no_template_is_not_found(console: Console, name: str) -> None:
    assert console.browser("viewer").get(f"/templates/{name}").status_code == 404


def test_nobody_tries_without_signing_in_or_by_anothers_form(console: Console) -> None:
    assert console.browser(None).get("/templates").status_code == 303
    browser = console.browser("viewer")
    answer = browser.raw(SMS, [("source", "x"), ("do", "download"), ("csrf", "no")])
    assert answer.status_code == 403


def test_the_longest_source_a_form_can_hold_is_shown_and_refused(console: Console) -> None:
    page = tried(console.browser("viewer"), SMS, "line\n" * 20_000)
    assert complaints(page)[0][1].startswith("the template is longer than")

"""Writing an incident and its updates through the pages' own forms, on the real ledger."""

import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import httpx
import psycopg
import pytest

from dispatcher import asgi, wiring
from dispatcher.console import drafting, forms
from dispatcher.console.drafting import outlook, shortest_cadence
from dispatcher.console.typed import Typed
from dispatcher.embedded import Addresses
from dispatcher.incidents import FactKind, NewIncident, NewUpdate, Phase, Severity
from dispatcher.reckoning import Reckoning
from dispatcher.rendering.renderer import missing_facts
from dispatcher.settings import Settings
from tests.conftest import MASTER_KEY, database_named
from tests.dispatcher.console.conftest import Browser, Console
from tests.dispatcher.console.filling import Filled, form_of, without
from tests.dispatcher.http.conftest import Noted, recording

STARTED = "2026-01-02T03:45"


@dataclass(frozen=True)
class Asked:
    """Updates whose people were to be counted."""

    updates: list[str]

    def soon(self, update_id: str) -> None:
        self.updates.append(update_id)


def counted(console: Console) -> list[str]:
    return cast(Asked, console.services.reckoning).updates


@pytest.fixture(scope="module")
def built(
    stack: Addresses, migrated: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Console]:
    """One console for this module: compiling every template takes longer than most tests."""
    name = f"writing_{uuid.uuid4().hex}"
    with psycopg.connect(stack.database_url, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE {migrated}")
    settings = Settings.model_validate(
        {
            "database_url": database_named(stack.database_url, name),
            "broker_url": stack.broker_url,
            "master_key": MASTER_KEY,
            "data_dir": Path(tmp_path_factory.mktemp("writing")),
        }
    )
    noted = Noted()
    services = recording(wiring.build(settings), noted)
    # Counting goes on beside a test, and would meet the next one's empty tables: only noted too.
    asked = cast(Reckoning, Asked([]))
    services.reckoning.close()
    services = replace(services, reckoning=asked)
    yield Console(asgi.of(services), services, noted)
    services.ledger.close()
    with psycopg.connect(stack.database_url, autocommit=True) as conn:
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def console(built: Console) -> Console:
    """The console on an empty database."""
    with built.services.ledger.read() as conn:
        tables = conn.execute(
            "SELECT string_agg(quote_ident(c.relname), ', ') FROM pg_class c"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')"
            " AND NOT c.relispartition AND c.relname <> 'alembic_version'"
        ).fetchone()
        assert tables is not None
        conn.execute(f"TRUNCATE {tables[0]} RESTART IDENTITY CASCADE")
    built.noted.planned.clear()
    counted(built).clear()
    return built


@pytest.fixture
def author(console: Console) -> Browser:
    return console.browser("author")


def opened(author: Browser) -> Filled:
    """The form of a new incident, filled in as somebody does at 4 in the morning."""
    page = author.get("/incidents/new")
    assert page.status_code == 200
    return (
        form_of(page.text)
        .put("kind", "real")
        .put("services", "voice", "mobile_data")
        .put("severity", "critical")
        .put("regions", "US-TX")
        .put("typed_zone", "America/Chicago")
        .put("started_at", STARTED)
        .put("title", "Voice lost in Texas")
        .put("source", "NOC bridge")
        .put("emergency_calls.status", "limited")
        .put("emergency_calls.use.0", "wifi_calling")
    )


def save(author: Browser, form: Filled, button: str = "save") -> httpx.Response:
    return author.raw(form.action.removeprefix("/console"), form.press("do", button))


def update_of(answer: httpx.Response) -> str:
    assert answer.status_code == 303, answer.text
    found = re.fullmatch(r"/console/updates/([0-9a-f-]{36})(/preview)?", answer.headers["location"])
    assert found is not None
    return found[1]


def stored(console: Console, table: str) -> int:
    return int(console.rows(f"SELECT count(*) FROM {table}")[0][0])


def released(console: Console, update: str) -> None:
    """As if the update had gone out."""
    with console.services.ledger.transaction() as work:
        work.conn.execute(
            "UPDATE incident_update SET submitted_at = now() WHERE id = %s", (update,)
        )
        work.conn.execute(
            "UPDATE release SET state = 'released', released_at = now() WHERE update_id = %s",
            (update,),
        )


def errors_of(page: httpx.Response) -> list[str]:
    """The error summary, each entry's link checked to lead to a field of the page."""
    found = re.search(r"data-errors>(.*?)</div>", page.text, re.DOTALL)
    assert found is not None, "no error summary"
    entries = re.findall(r'<li><a href="#([^"]+)">(.*?)</a></li>', found[1])
    for anchor, _ in entries:
        assert f'id="{anchor}"' in page.text, f"nothing has the id {anchor}"
    return [unescape(text) for _, text in entries]


def test_a_new_incident_is_stored_as_a_draft(console: Console, author: Browser) -> None:
    update = update_of(save(author, opened(author)))
    ((title, drill, started, services, regions),) = console.rows(
        "SELECT title, drill, started_at, services, regions FROM incident"
    )
    assert (title, drill, services, regions) == (
        "Voice lost in Texas",
        False,
        ["voice", "mobile_data"],
        ["US-TX"],
    )
    assert started == datetime(2026, 1, 2, 9, 45, tzinfo=UTC)
    facts = dict(console.rows("SELECT stated->>'kind', stated->'value' FROM fact"))
    assert facts["emergency_calls"] == {"status": "limited", "use": ["wifi_calling"]}
    assert set(facts) == {"started", "emergency_calls"}
    states = console.rows("SELECT DISTINCT state FROM release WHERE update_id = %s", update)
    assert states == [("draft",)]
    assert console.noted.planned == []
    assert counted(console) == [update]


def test_saving_to_preview_leads_there(author: Browser) -> None:
    answer = save(author, opened(author), "preview")
    assert answer.headers["location"].endswith("/preview")


def test_a_double_click_stores_once(console: Console, author: Browser) -> None:
    form = opened(author)
    first, second = save(author, form), save(author, form)
    assert first.headers["location"] == second.headers["location"]
    assert (stored(console, "incident"), stored(console, "incident_update")) == (1, 1)


def test_what_was_stored_is_in_the_form_again(console: Console, author: Browser) -> None:
    form = opened(author).put("texts.message.ar", "الخدمة متوقفة").put("scope.count", "73,000")
    form.put("scope.basis", "measured").put("cause.code", "software")
    form.put("cause.confidence", "believed").put("next_update", "120")
    update = update_of(save(author, form))
    again = form_of(author.get(f"/updates/{update}/write").text)
    for name in ("title", "severity", "source", "scope.count", "cause.code", "cause.confidence"):
        assert again.one(name) == form.one(name), name
    assert again.one("texts.message.ar") == "الخدمة متوقفة"
    assert again.all("services") == ["voice", "mobile_data"]
    assert again.one("typed_zone") == "America/Chicago"
    assert again.one("started_at") == STARTED
    assert again.one("next_update") == "at"
    before = console.rows("SELECT stated FROM fact ORDER BY seq")
    assert update_of(save(author, again)) == update
    assert console.rows("SELECT stated FROM fact ORDER BY seq") == before
    ((revision,),) = console.rows("SELECT revision FROM incident_update")
    assert revision == 2


HURT: list[tuple[str, str, str]] = [
    ("title", "", "Title: write a few words"),
    ("started_at", "yesterday", "Since when: write date and time like"),
    ("regions_other", "texas!", "Where: TEXAS! is not a region code"),
    ("scope.count", "73k", "How many are affected: write a whole number"),
    ("texts.message.en", "a <b>", "Message in English: must be plain text"),
    ("texts.details.ru", "x" * 100_000, "Details in Russian: 100,000 characters are too many"),
    ("workaround.codes.2", "landline", ""),
]


def test_everything_wrong_is_told_and_nothing_typed_is_lost(
    console: Console, author: Browser
) -> None:
    form = opened(author)
    for name, value, _ in HURT:
        form.put(name, value)
    form.put("summary", "first line\nsecond “line”").put("audiences")
    answer = save(author, form)
    assert answer.status_code == 422
    told = errors_of(answer)
    for _, _, sentence in HURT:
        assert any(entry.startswith(sentence) for entry in told), sentence
    assert "Who is told: choose at least one" in told
    again = form_of(answer.text)
    sent = [(n, v.replace("\r\n", "\n")) for n, v in without(form.fields, "csrf", "once", "seen")]
    back = [(n, v.replace("\r\n", "\n")) for n, v in without(again.fields, "csrf", "once", "seen")]
    assert sorted(back) == sorted(sent)
    assert stored(console, "incident") == 0
    assert "<title>Error: " in answer.text


def test_complaints_of_the_desk_stand_at_the_field(author: Browser) -> None:
    fields = [
        *without(opened(author).press("do", "save"), "services"),
        ("services", "telepathy"),
    ]
    answer = author.raw("/incidents/new", fields)
    assert answer.status_code == 422
    assert any("Which services: unknown service" in entry for entry in errors_of(answer))


def test_a_drill_is_chosen_when_opening_and_stays_one(console: Console, author: Browser) -> None:
    update = update_of(save(author, opened(author).put("kind", "drill")))
    assert console.rows("SELECT drill FROM incident") == [(True,)]
    page = author.get(f"/updates/{update}/write")
    assert "drill-band" in page.text
    forged = [("kind", "real") if n == "kind" else (n, v) for n, v in form_of(page.text).fields]
    update_of(author.raw(f"/updates/{update}/write", forged))
    assert console.rows("SELECT drill FROM incident") == [(True,)]


def test_a_similar_incident_is_asked_about(console: Console, author: Browser) -> None:
    update_of(save(author, opened(author)))
    again = opened(author).put("scope.count", "500").put("scope.basis", "reported")
    answer = save(author, again)
    assert answer.status_code == 409
    assert "Is it the same as INC-0001?" in answer.text
    assert stored(console, "incident") == 1
    # Either it is another one …
    form = form_of(answer.text)
    assert form.one("scope.count") == "500"
    update_of(save(author, form.put("force", "yes")))
    assert stored(console, "incident") == 2
    # … or what was written goes to the one that is open.
    carried = author.raw(
        "/incidents/INC-0001/updates/new", form_of(answer.text).press("do", "carry")
    )
    assert carried.status_code == 200
    assert stored(console, "incident_update") == 2
    moved = form_of(carried.text)
    assert (moved.one("scope.count"), moved.one("started.at")) == ("500", STARTED)
    update_of(save(author, moved))
    ((number, phase),) = console.rows(
        "SELECT i.number, u.phase FROM incident_update u JOIN incident i ON i.id = u.incident_id"
        " ORDER BY u.id DESC LIMIT 1"
    )
    assert (number, phase) == (1, "investigating")


def test_what_somebody_else_stored_is_not_overwritten_unseen(
    console: Console, author: Browser
) -> None:
    update = update_of(save(author, opened(author)))
    path = f"/updates/{update}/write"
    mine = form_of(author.get(path).text)
    other = console.browser("author", person=console.person("author", "Olga Other"))
    theirs = form_of(other.get(path).text)
    update_of(save(other, theirs.put("scope.count", "70000").put("scope.basis", "measured")))
    answer = save(author, mine.put("title", "Mine").put("phase", "identified"))
    assert answer.status_code == 409
    assert "Olga Other" in answer.text
    rows = re.findall(
        r'<tr><th scope="row">(.*?)</th><td class="message">(.*?)</td><td class="message">(.*?)</td>',
        answer.text,
    )
    assert ("How many are affected", "70,000", "–") in rows
    assert ("Title", "Voice lost in Texas", "Mine") in rows
    assert ("Phase", "Investigating", "Identified") in rows
    assert not [row for row in rows if row[0] == "Severity"]
    assert console.rows("SELECT title, revision FROM incident, incident_update") == [
        ("Voice lost in Texas", 2)
    ]
    # Saved again knowingly, mine stands.
    again = form_of(answer.text)
    assert (again.one("title"), again.one("revision")) == ("Mine", "2")
    update_of(save(author, again, "preview"))
    assert console.rows("SELECT title, phase, revision FROM incident, incident_update") == [
        ("Mine", "identified", 3)
    ]


def next_after(console: Console, author: Browser, **changed: str) -> tuple[str, Filled]:
    """An incident whose first update went out, and the form of the next."""
    form = opened(author)
    for name, value in changed.items():
        form.put(name.replace("__", "."), value)
    update = update_of(save(author, form))
    released(console, update)
    page = author.get("/incidents/INC-0001/updates/new")
    assert page.status_code == 200
    return update, form_of(page.text)


def test_the_next_update_begins_at_the_usual_phase(console: Console, author: Browser) -> None:
    first, form = next_after(console, author)
    assert form.one("phase") == "identified"
    assert "title" not in form.choices, "what people were told of stays as it is"
    page = author.get("/incidents/INC-0001/updates/new").text
    assert "Stands: <strong>limited; use wifi calling</strong>" in page
    form.put("source", "NOC").put("cause.code", "network_change")
    update = update_of(save(author, form.put("cause.confidence", "confirmed")))
    assert update != first
    kinds = console.rows("SELECT stated->>'kind' FROM fact WHERE update_id = %s", update)
    assert kinds == [("cause",)]


def test_what_went_out_cannot_be_changed(console: Console, author: Browser) -> None:
    first, _ = next_after(console, author)
    assert author.get(f"/updates/{first}/write").status_code == 409


def test_nothing_new_yet_is_ready_to_save(console: Console, author: Browser) -> None:
    _, _ = next_after(console, author)
    page = author.get("/incidents/INC-0001/updates/new?from=nothing-new")
    form = form_of(page.text)
    assert form.one("phase") == "investigating"
    wait = shortest_cadence(console.services.packs, form.all("audiences"))
    assert form.one("next_update") == str(wait)
    before = datetime.now(UTC)
    update = update_of(save(author, form))
    ((at, facts),) = console.rows(
        "SELECT next_update_at, (SELECT count(*) FROM fact f WHERE f.update_id = u.id)"
        " FROM incident_update u WHERE u.id = %s",
        update,
    )
    assert facts == 0
    assert before + timedelta(minutes=wait - 1) <= at <= before + timedelta(minutes=wait + 10)


def test_a_correction_takes_back_what_was_said(console: Console, author: Browser) -> None:
    first, _ = next_after(
        console, author, cause__code="traffic_flood", cause__confidence="believed"
    )
    ((fact,),) = console.rows("SELECT id::text FROM fact WHERE stated->>'kind' = 'cause'")
    page = author.get(f"/incidents/INC-0001/updates/new?from=correction&withdraws={fact}")
    form = form_of(page.text)
    assert (form.one("phase"), form.all("withdraws")) == ("correction", [fact])
    update = update_of(save(author, form))
    assert console.rows(
        "SELECT phase, withdraws::text[] FROM incident_update WHERE id = %s", update
    ) == [("correction", [fact])]
    # It is still there to be unticked while the correction is only a draft.
    again = form_of(author.get(f"/updates/{update}/write").text)
    assert again.all("withdraws") == [fact]
    assert first != update


def test_a_correction_of_nothing_is_refused(console: Console, author: Browser) -> None:
    next_after(console, author)
    form = form_of(author.get("/incidents/INC-0001/updates/new?from=correction").text)
    assert form.one("phase") == "correction"
    told = errors_of(save(author, form))
    assert told == ["What is taken back: a correction takes back at least one fact: tick it"]


def test_a_time_that_was_twice_is_asked_about(author: Browser) -> None:
    form = opened(author).put("started_at", "2025-11-02T01:30")
    answer = save(author, form)
    assert any("happened twice" in entry for entry in errors_of(answer))
    again = form_of(answer.text).put("started_at.fold", "1")
    update_of(save(author, again))


ODD = "We “know”\u00a0it\u202e"


def test_odd_characters_are_shown_named_and_never_sent_unseen(
    console: Console, author: Browser
) -> None:
    answer = save(author, opened(author).put("texts.message.en", ODD))
    assert answer.status_code == 422
    assert "⟦U+202E right-to-left override⟧" in answer.text
    assert "⟦U+00A0 no-break space⟧" in answer.text
    assert "\u202e" not in re.sub(r"<textarea.*?</textarea>", "", answer.text, flags=re.DOTALL)
    form = form_of(answer.text)
    assert form.one("texts.message.en") == ODD
    mended = save(author, form, "plain:texts.message.en")
    assert mended.status_code == 200
    assert form_of(mended.text).one("texts.message.en") == 'We "know" it'
    assert stored(console, "incident") == 0
    # Mended, there is nothing to look at any more.
    update_of(save(author, form_of(mended.text)))


def test_odd_characters_that_may_be_sent_are_looked_at_first(
    console: Console, author: Browser
) -> None:
    form = opened(author).put("texts.message.en", "It’s us, not you.")
    answer = save(author, form)
    assert answer.status_code == 422
    assert "look at these characters first" in answer.text
    assert "⟦U+2019 right single quotation mark⟧" in answer.text
    assert stored(console, "incident") == 0
    seen = form_of(answer.text)
    other = save(author, seen.put("texts.message.en", "It‘s us, not you."))
    assert other.status_code == 422, "these have not been looked at"
    update_of(save(author, form_of(other.text)))
    assert console.rows("SELECT texts->'message'->>'en' FROM incident_update") == [
        ("It‘s us, not you.",)
    ]


def test_checking_stores_nothing(console: Console, author: Browser) -> None:
    answer = save(author, opened(author).put("title", ""), "check")
    assert answer.status_code == 200
    assert errors_of(answer) == ["Title: write a few words"]
    assert stored(console, "incident") == 0


def test_only_those_who_may_write_see_the_form(console: Console) -> None:
    viewer = console.browser("viewer")
    assert viewer.get("/incidents/new").status_code == 403
    assert viewer.form("/incidents/new", {"title": "x"}).status_code == 403
    assert viewer.form("/live", {"title": "x"}).status_code == 403
    stranger = console.browser(None)
    assert stranger.get("/incidents/new").status_code == 303
    assert stranger.form("/live", {"title": "x"}).status_code in (303, 401, 403)


@pytest.mark.parametrize(
    "path", ["/incidents/INC-9999/updates/new", "/updates/0/write", f"/updates/{'0' * 32}/write"]
)
def test_what_is_not_there_is_not_found(author: Browser, path: str) -> None:
    assert author.get(path).status_code == 404


def test_a_page_stays_small_with_everything_on_it(console: Console, author: Browser) -> None:
    form = opened(author)
    everything(form)
    assert len(author.get("/incidents/new").content) < 100_000
    update = update_of(save(author, form))
    assert len(author.get(f"/updates/{update}/write").content) < 100_000
    released(console, update)
    page = author.get("/incidents/INC-0001/updates/new?from=correction")
    assert len(page.content) < 100_000
    live = author.raw("/live", form.put("look", "consumers").fields)
    assert live.status_code == 200
    assert len(live.content) < 100_000


def everything(form: Filled) -> None:
    """Every kind of fact."""
    for name, value in {
        "scope.count": "73 000",
        "scope.basis": "measured",
        "cause.code": "network_change",
        "cause.confidence": "believed",
        "not_cause.code": "cyberattack",
        "not_cause.confidence": "confirmed",
        "workaround.codes.0": "landline",
        "eta.at": "2099-01-01T10:00",
        "eta.confidence": "believed",
        "restored.percent": "40",
        "ended.at": "2026-01-02T06:00",
        "apology.to": "all",
        "compensation.amount": "5.00",
        "compensation.automatic": "yes",
        "compensation.eligible": "consumer",
        "next_step.code": "publish_cause",
    }.items():
        form.put(name, value)


# --- while it is typed ---------------------------------------------------------------------


def live(author: Browser, form: Filled) -> str:
    answer = author.raw("/live", form.fields, headers={"X-Requested-With": "fetch"})
    assert answer.status_code == 200
    return answer.text


def test_an_empty_form_shows_what_is_still_to_fill_in(author: Browser) -> None:
    shown = live(author, form_of(author.get("/incidents/new").text))
    assert "Still to fill in: Real or drill, Title" in shown
    assert "To put right" not in shown


def test_messages_are_shown_as_they_would_be_rendered(console: Console, author: Browser) -> None:
    form = opened(author).put("look", "consumers").put("texts.message.en", "Stay near a landline.")
    shown = live(author, form)
    assert "As Consumers will see it" in shown
    assert shown.count("Stay near a landline.") >= 2
    assert 'dir="rtl"' in shown
    assert "Wi-Fi calling" in shown
    assert "your own words are in it" in shown
    assert 'data-for="started_at">03:45 CST on Fri 2 Jan, 09:45 UTC' in shown
    assert stored(console, "incident") == 0


def test_what_an_audience_lacks_is_told_before_anything_is_saved(author: Browser) -> None:
    form = opened(author).put("emergency_calls.status", "").put("emergency_calls.use.0", "")
    shown = live(author, form)
    assert "Missing: Emergency calls" in shown
    filled = live(author, opened(author))
    assert "Nothing is missing for this phase." in filled


def test_a_sensitive_claim_is_told_to_need_a_second_person(author: Browser) -> None:
    shown = live(author, opened(author).put("emergency_calls.status", "working"))
    assert "A second person must stand for this" in shown
    assert "All wait for approval." in shown


def test_a_further_update_shows_what_stands(console: Console, author: Browser) -> None:
    _, form = next_after(console, author)
    shown = live(author, form.put("look", "consumers"))
    assert "911 calls may fail" in shown


def test_the_form_of_an_update_that_went_out_says_so(console: Console, author: Browser) -> None:
    update = update_of(save(author, opened(author)))
    form = form_of(author.get(f"/updates/{update}/write").text)
    released(console, update)
    assert "This cannot be changed any more" in live(author, form)


def test_a_mail_is_a_document_that_may_do_nothing(author: Browser) -> None:
    form = opened(author)
    extra = [("mail_audience", "consumers"), ("mail_locale", "ar")]
    answer = author.raw("/live/mail", [*form.fields, *extra])
    assert answer.status_code == 200
    assert 'dir="rtl"' in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script-src" not in policy
    other = [("mail_audience", "nobody"), ("mail_locale", "en")]
    assert author.raw("/live/mail", [*form.fields, *other]).status_code == 404


def test_every_page_keeps_its_policy(author: Browser) -> None:
    page = author.get("/incidents/new")
    assert "style=" not in page.text
    assert "<script>" not in page.text
    assert "unsafe-inline" not in page.headers["content-security-policy"]


# --- what is told beforehand is what submission judges --------------------------------------


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("services", [("voice",), ("broadband",)])
def test_what_is_missing_is_what_submission_misses(
    console: Console, phase: Phase, services: tuple[str, ...]
) -> None:
    renderer = console.services.renderer
    now = datetime(2026, 1, 2, 10, tzinfo=UTC)
    incident = drafting.imagined(
        NewIncident.model_validate(
            {
                "title": "x",
                "severity": "major",
                "services": services,
                "started_at": "2026-01-02T09:00:00Z",
            }
        ),
        now=now,
    )
    fact: Mapping[str, Any] = {
        "kind": "scope",
        "value": {"count": 5, "basis": "measured"},
        "source": "noc",
        "known_at": "2026-01-02T09:00:00Z",
        "audiences": ["media"],
    }
    withdraws = ("11111111-1111-1111-1111-111111111111",) if phase is Phase.CORRECTION else ()
    update = NewUpdate.model_validate(
        {"phase": phase.value, "facts": [fact], "withdraws": withdraws}
    )
    said = drafting.statement(incident, update, (), now=now, previous=None)
    lines, claims = outlook(renderer, said, update, own_words=False)
    assert claims == ()
    assert {line.name for line in lines} == set(renderer.packs.audiences)
    for line in lines:
        audience = renderer.packs.audiences[line.name]
        wanted = missing_facts(said, audience, renderer.packs.organisation)
        told = [
            f"{line.name} must hear of {kind.value} when {phase.value}" for kind in line.missing
        ]
        assert sorted(told) == sorted(problem.message for problem in wanted)
        assert line.at_once is (phase in audience.preapproved)


def test_a_filled_form_names_only_fields_of_the_page(author: Browser) -> None:
    """What `fill` writes, the page has: nothing of a stored update is dropped by its form."""
    page = form_of(author.get("/incidents/new").text)
    known = set(page.choices)
    everything(page)
    utc = ZoneInfo("UTC")
    page.put("started_at", STARTED).put("expires_at", "2099-01-01T10:00").put("source", "NOC")
    typed = Typed(page.fields)
    read = forms.read(typed, zone=utc, now=datetime.now(UTC), opening=True)
    assert read.draft is not None and read.about is None
    assert len(read.draft.facts) == len(FactKind) - 1, "all but emergency calls"
    incident = NewIncident(
        title="x",
        summary="y",
        severity=Severity.MAJOR,
        services=("voice",),
        started_at=datetime(2026, 1, 2, 9, tzinfo=UTC),
        zone="UTC",
        drill=True,
    )
    filled = forms.fill(incident, read.draft, zone=utc, audiences=("media",))
    assert set(filled.names()) <= known


def test_own_words_that_differ_between_languages_are_named_as_one_types(author: Browser) -> None:
    form = opened(author).put("texts.message.en", "Call 555-0199 after 3 p.m.")
    same = form.put("texts.message.es", "Llame al 555-0199 después de las 15:00.")
    assert "differ between languages" not in author.raw("/live", same.fields).text
    other = form.put("texts.message.es", "Llame al 555-0199 después de las 16:00.")
    assert "differ between languages" in author.raw("/live", other.fields).text

"""The preview's page: what is stored is what is shown, and numbers are counted aside."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from dispatcher.console import door
from dispatcher.incidents import NewIncident, NewUpdate
from dispatcher.ledger import people, updates
from dispatcher.ledger.people import OwnAddress, PersonRow
from dispatcher.ledger.recipients import ContactRow, RecipientRow, importing
from dispatcher.security.rights import ROLE_SCOPES, Actor, Scope
from tests.dispatcher.console.conftest import Browser, Console
from tests.dispatcher.ledger.crowded import Some, filled

FETCHED = {"X-Requested-With": "fetch"}


class Parts(HTMLParser):
    """The text of every `data-part` within a `data-message`, as a browser's textContent."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: dict[tuple[str, str], str] = {}
        self._message = ""
        self._part = ""
        self._deep = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if "data-message" in given:
            self._message = given["data-message"] or ""
        if "data-voice" in given:
            self._message = ""
        if self._part:
            self._deep += 1
        elif self._message and given.get("data-part"):
            self._part, self._deep = given["data-part"] or "", 1
            self.found[self._message, self._part] = ""

    def handle_endtag(self, tag: str) -> None:
        if self._part:
            self._deep -= 1
            if not self._deep:
                self._part = ""

    def handle_data(self, data: str) -> None:
        if self._part:
            self.found[self._message, self._part] += data


def fact(kind: str, **value: Any) -> dict[str, Any]:
    known = datetime.now(UTC) - timedelta(minutes=5)
    return {"kind": kind, "value": value, "source": "NOC", "known_at": known}


CALLS = fact("emergency_calls", status="limited", use=["wifi_calling"])
ACTING = Actor(id="person:author", name="", scopes=frozenset(Scope))
OTHER = Actor(id="person:other", name="", scopes=frozenset(Scope))


def drafted(console: Console, *, drill: bool = False, **said: Any) -> str:
    """A draft of a new incident; returns its id."""
    incident = NewIncident(
        title="Voice is down",
        severity="critical",
        services=("voice",),
        regions=("US-TX",),
        started_at=datetime.now(UTC) - timedelta(hours=1),
        drill=drill,
    )
    update = NewUpdate.model_validate({"phase": "investigating", "facts": [CALLS]} | said)
    with console.services.ledger.transaction() as work:
        return console.services.updates.open(
            work, incident, update, release="draft", actor=ACTING, force=True
        ).update_id


def submit(console: Console, update: str) -> str:
    with console.services.ledger.transaction() as work:
        done = console.services.updates.submit(work, update, actor=ACTING)
    assert done.content_hash is not None
    return done.content_hash


def release(console: Console, update: str) -> None:
    content = submit(console, update)
    releases = console.services.releases
    for act in (releases.approve, releases.release):
        with console.services.ledger.transaction() as work:
            act(work, update, content_hash=content, audiences=None, actor=OTHER)


def add(console: Console, update: str, **said: Any) -> str:
    """A draft of a further update to the same incident."""
    with console.services.ledger.transaction() as work:
        row = updates.get(work.conn, update)
        assert row is not None
        return console.services.updates.add(
            work,
            row.incident_id,
            NewUpdate.model_validate({"facts": [CALLS]} | said),
            release="draft",
            actor=ACTING,
        ).update_id


def customers(console: Console, number: int, kind: str = "phone") -> None:
    rows = [
        RecipientRow(
            ref=f"{kind}{place}",
            name=b"",
            locale="en",
            segment="consumer",
            region="US-TX",
            services=("voice",),
            tags=(),
            row_hash=b"",
            contacts=[ContactRow(kind, f"{kind}{place}".encode(), b"", "", "US")],
        )
        for place in range(number)
    ]
    with importing(console.services.ledger) as session:
        session.merge(rows)


def sent(console: Console, update: str, audience: str, *, state: str = "accepted") -> None:
    """As if this update had been planned for an audience and its messages had gone so far."""
    filled(
        console.services.ledger,
        update,
        [Some(audience, "sms" if audience == "consumers" else "email", state, 1, 3)],
        began=datetime.now(UTC),
        took=timedelta(seconds=1),
    )


def shown(page: str) -> str:
    """The page's words, tags and spaces taken out."""
    text = re.sub(r"<[^>]*>", " ", page.partition("<main")[2])
    return re.sub(r"\s+", " ", unescape(text))


@pytest.fixture
def browser(console: Console) -> Browser:
    return console.browser("author")


AUDIENCES = ["consumers", "enterprise", "public", "media"]


@pytest.mark.parametrize("stored", [False, True])
def test_every_part_of_every_message_stands_in_the_page_as_it_is(
    console: Console, browser: Browser, stored: bool
) -> None:
    update = drafted(
        console,
        audiences=AUDIENCES,
        texts={
            "message": dict.fromkeys(
                ("en", "es", "ru", "ar"), 'Don’t & can\'t – "so";\n‘x’ 漢 \u200d'
            )
        },
    )
    submit(console, update)
    with console.services.ledger.transaction() as work:
        messages = updates.messages(work.conn, update)
        if not stored:
            work.conn.execute(
                "UPDATE incident_update SET submitted_at = NULL WHERE id = %s", (update,)
            )
    for audience in AUDIENCES:
        page = browser.get(f"/updates/{update}/preview?audience={audience}")
        assert page.status_code == 200
        want = {
            (f"{audience}/{message['channel']}/{message['locale']}", name): text
            for message in messages
            if message["audience"] == audience
            for name, text in message["parts"].items()
            if name != "html"
        }
        assert Parts(page.text).found == want
        assert len(page.content) < 100_000
        for message in messages:
            if (message["audience"], message["channel"]) == (audience, "email"):
                mail = browser.get(f"/updates/{update}/mail/{audience}/{message['locale']}")
                assert mail.text == message["parts"]["html"]


def test_what_was_submitted_is_shown_as_stored_and_not_as_it_would_be_now(
    console: Console, browser: Browser
) -> None:
    update = drafted(console, audiences=["consumers"])
    submit(console, update)
    with console.services.ledger.transaction() as work:
        work.conn.execute(
            "UPDATE message SET parts = jsonb_set(parts, '{text}', '\"As stored.\"')"
            " WHERE channel = 'sms' AND locale = 'en'"
        )
    found = Parts(browser.get(f"/updates/{update}/preview?audience=consumers").text).found
    assert found["consumers/sms/en", "text"] == "As stored."


def test_a_mail_may_do_nothing_but_be_seen(console: Console, browser: Browser) -> None:
    update = drafted(console, audiences=["enterprise"])
    mail = browser.get(f"/updates/{update}/mail/enterprise/en?scheme=dark&fill=example")
    assert "Amina" in mail.text
    assert "(min-width: 0px)" in mail.text
    policy = mail.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:", "sandbox",
            "frame-ancestors 'self'"} <= set(policy)  # fmt: skip
    assert mail.headers["x-frame-options"] == "SAMEORIGIN"
    for path in ("media/en", "enterprise/xx", "nobody/en"):
        assert browser.get(f"/updates/{update}/mail/{path}").status_code == 404
    assert console.browser(None).get(f"/updates/{update}/mail/enterprise/en").status_code == 303


def test_nobody_signed_in_sees_nothing_and_a_wrong_address_leads_nowhere(
    console: Console, browser: Browser
) -> None:
    update = drafted(console, audiences=["consumers"])
    assert console.browser(None).get(f"/updates/{update}/preview").status_code == 303
    assert console.browser("viewer").get(f"/updates/{update}/preview").status_code == 200
    for path in (
        "/updates/nothing/preview",
        "/updates/01980000-0000-7000-8000-000000000000/preview",
        f"/updates/{update}/preview?audience=media",
        f"/updates/{update}/preview?view=upside-down",
    ):
        assert browser.get(path).status_code == 404


def test_one_channel_or_language_is_shown_alone(console: Console, browser: Browser) -> None:
    update = drafted(console, audiences=["consumers"])
    path = f"/updates/{update}/preview?audience=consumers"
    one = Parts(browser.get(f"{path}&channel=sms&locale=ar").text).found
    assert [*one] == [("consumers/sms/ar", "text")]
    assert 'dir="rtl"' in browser.get(f"{path}&locale=ar").text
    assert "No such message" in browser.get(f"{path}&channel=fax").text


def test_a_page_shows_as_much_as_it_has_room_for(console: Console, browser: Browser) -> None:
    def wordy(letters: str) -> dict[str, dict[str, str]]:
        words = dict.fromkeys(("en", "es", "ru", "ar"), f"{letters} " * 140)
        return {"message": words, "details": words, "statement": words}

    first = drafted(console, audiences=["consumers"], texts=wordy("Слова"))
    page = browser.get(f"/updates/{first}/preview")
    assert {key.split("/")[1] for key, _ in Parts(page.text).found} == {"push", "sms", "email"}
    assert len(page.content) < 100_000
    release(console, first)
    sent(console, first, "consumers")
    second = add(console, first, phase="identified", audiences=["consumers"], texts=wordy("Вести"))
    # What is new and what is gone stands beside each text now.
    for asked, channels, locales in (
        ("", {"push"}, 4),
        ("?channel=sms", {"sms"}, 4),
        ("?channel=email", {"email"}, 1),
        ("?channel=email&locale=ar", {"email"}, 1),
    ):
        page = browser.get(f"/updates/{second}/preview{asked}")
        found = {tuple(key.split("/")[1:]) for key, _ in Parts(page.text).found}
        assert {channel for channel, _ in found} == channels
        assert len({locale for _, locale in found}) == locales
        assert "Вести" in page.text
        assert len(page.content) < 100_000


def test_problems_say_where_they_are_and_come_first(console: Console, browser: Browser) -> None:
    # Nobody has said whether emergency calls work; and one language lacks its own words.
    update = drafted(
        console, facts=[], audiences=["media", "consumers"], texts={"message": {"en": "Ours."}}
    )
    page = browser.get(f"/updates/{update}/preview?audience=media")
    text = shown(page.text)
    assert "consumers must hear of emergency_calls when investigating" in text
    assert "Consumers: SMS in Russian" in text
    lines = re.findall(r'data-audience="([^"]+)"', page.text)
    assert lines == ["consumers", "media"]
    # The worst stands above the messages, and the table of all audiences below them.
    above = text.partition("Media Consumers")[0]
    assert "See them all" in above and "errors : consumers must hear of" in above
    first = page.text.index('data-message="media/')
    assert page.text.index("data-worst") < first < page.text.index('data-audience="')


def test_languages_of_a_channel_stand_together(console: Console, browser: Browser) -> None:
    update = drafted(console, audiences=["consumers"])
    page = browser.get(f"/updates/{update}/preview?audience=consumers").text
    rows = page.split('<div class="messages">')[1:]
    found = [re.findall(r'data-message="consumers/(\w+)/(\w+)"', row) for row in rows]
    channels = [{channel for channel, _ in row} for row in found if row]
    assert [len(row) for row in found if row] == [4, 4, 4]
    assert all(len(each) == 1 for each in channels)


def test_it_says_what_is_new_since_the_audience_was_told_last(
    console: Console, browser: Browser
) -> None:
    first = drafted(console, audiences=["consumers", "media"])
    assert "has not been told anything" in browser.get(f"/updates/{first}/preview").text
    release(console, first)
    sent(console, first, "consumers")
    # What goes out now is not what was said before it.
    assert "has not been told anything" in browser.get(f"/updates/{first}/preview").text
    with console.services.ledger.transaction() as work:
        # A draft and what went to others only are not what this audience was told.
        work.conn.execute("UPDATE incident SET status = 'open'")
    others = add(console, first, phase="identified", audiences=["media"])
    release(console, others)
    sent(console, others, "media")
    # Nor is what was stopped before anything of it left.
    unsaid = add(console, first, phase="monitoring", audiences=["consumers"])
    release(console, unsaid)
    sent(console, unsaid, "consumers", state="stopped")
    add(console, first, phase="monitoring", audiences=["consumers"])
    last = add(
        console, first, phase="identified", facts=[CALLS, fact("cause", code="software")],
        audiences=["consumers"],
    )  # fmt: skip
    page = browser.get(f"/updates/{last}/preview?audience=consumers&channel=sms&locale=en").text
    assert "Compared with what Consumers was told last: investigating" in shown(page)
    assert re.search(r"<ins>.*software", page)
    same = add(console, first, phase="investigating", audiences=["consumers"])
    submit(console, same)
    with console.services.ledger.transaction() as work:
        work.conn.execute(
            "UPDATE message m SET parts = o.parts FROM message o WHERE m.update_id = %s"
            " AND o.update_id = %s AND (m.audience, m.channel, m.locale)"
            " = (o.audience, o.channel, o.locale)",
            (same, first),
        )
    page = browser.get(f"/updates/{same}/preview?audience=consumers").text
    assert page.count("Word for word what was said last") == 12
    assert "<ins>" not in page


def test_what_is_not_told_alike_is_shown(console: Console, browser: Browser) -> None:
    words = dict.fromkeys(("en", "es", "ru", "ar"), "Gate 12 is open.")
    update = drafted(console, audiences=["consumers"], texts={"message": words})
    assert "Not told alike" not in browser.get(f"/updates/{update}/preview").text
    words["es"] = "Gate 13 is open."
    other = drafted(console, audiences=["consumers"], texts={"message": words})
    text = shown(browser.get(f"/updates/{other}/preview").text)
    assert "Not told alike" in text
    assert "not told alike over audiences or languages. Look at" in text
    assert "No problem was found" not in text
    assert "Own words (message) in Spanish Gate 13 is open." in text
    submit(console, other)
    assert "Not told alike" in browser.get(f"/updates/{other}/preview").text


# --- numbers -----------------------------------------------------------------------------


def test_numbers_are_counted_when_asked_for_and_kept(console: Console, browser: Browser) -> None:
    customers(console, 3)
    customers(console, 2, "email")
    customers(console, 1, "x_account")
    update = drafted(console, audiences=["consumers", "media"])
    path = f"/updates/{update}"
    before = browser.get(f"{path}/preview").text
    assert "Nobody has counted yet" in before
    assert "data-wanted" in before
    sent = browser.form(f"{path}/count", {})
    assert (sent.status_code, sent.headers["location"]) == (
        303, f"/console{path}/preview#figures",
    )  # fmt: skip
    # Through by now, unless the machine is slow: then the page would say so.
    console.services.reckoning.soon(update).result(timeout=60)
    after = browser.get(f"{path}/preview?audience=consumers").text
    assert "data-wanted" not in after
    text = shown(after)
    assert "Reached 5 people; 5 messages" in text
    assert "1 person : No address for any channel of this audience" in text
    assert "1 could be reached on X" in text
    assert "in time" in text


def test_a_script_gets_the_table_alone(console: Console, browser: Browser) -> None:
    customers(console, 4)
    update = drafted(console, audiences=["consumers"])
    console.services.reckoning.soon(update).result(timeout=60)
    part = browser.raw(f"/updates/{update}/count", [("csrf", csrf(browser))], headers=FETCHED)
    assert part.status_code == 200
    assert part.text.lstrip().startswith('<section class="section stack" id="figures"')
    assert "Reached 4 people; 4 messages" in shown("<main" + part.text)
    assert "<html" not in part.text


def csrf(browser: Browser) -> str:
    return door.csrf_of(browser.token)


def test_numbers_of_an_older_revision_are_said_to_be_old(
    console: Console, browser: Browser
) -> None:
    update = drafted(console, audiences=["consumers"])
    console.services.reckoning.soon(update).result(timeout=60)
    with console.services.ledger.transaction() as work:
        console.services.updates.revise(
            work,
            update,
            NewUpdate.model_validate(
                {"phase": "identified", "facts": [CALLS], "audiences": ["consumers", "media"]}
            ),
            revision=1,
            actor=ACTING,
        )
    page = browser.get(f"/updates/{update}/preview").text
    assert "these are old numbers" in page
    assert "data-wanted" in page


def test_counting_needs_the_forms_token(console: Console, browser: Browser) -> None:
    update = drafted(console, audiences=["consumers"])
    assert browser.raw(f"/updates/{update}/count", [("csrf", "x")]).status_code == 403
    assert browser.form("/updates/nothing/count", {}).status_code == 404
    gone = "01980000-0000-7000-8000-000000000000"
    assert browser.form(f"/updates/{gone}/count", {}).status_code == 404


def test_too_late_is_said_loudly(console: Console, browser: Browser) -> None:
    update = drafted(console, audiences=["consumers"])
    customers(console, 2)
    console.services.reckoning.soon(update).result(timeout=60)
    with console.services.ledger.transaction() as work:
        work.conn.execute(
            "UPDATE reckoning SET figures = jsonb_set(figures, '{audiences,0,seconds}', '9000')"
        )
    page = browser.get(f"/updates/{update}/preview").text
    assert "2 h 30 min too late promised within 2 h" in shown(page)
    (said,) = re.findall(r"<p data-worst>(.*?)</p>", page)
    assert (
        shown(f"<main>{said}").split(">")[-1].strip() == "Too late for Consumers. See by how much"
    )
    assert page.index("data-worst") < page.index("data-message")


# --- test sends --------------------------------------------------------------------------


@pytest.fixture
def author(console: Console) -> PersonRow:
    """An author with a telephone."""
    person = console.person("author", "Ada Author")
    with console.services.ledger.transaction() as work:
        people.set_own_address(
            work.conn,
            person.id,
            OwnAddress(
                kind="phone",
                sealed=people.sealed_address(
                    console.services.sealer, person.id, kind="phone", address="+12025550123"
                ),
                hint="+1…23",
            ),
        )
    return person


def wish(update: str, **other: str) -> dict[str, str]:
    return {
        "revision": "1",
        "audience": "consumers",
        "channel": "sms",
        "locale": "en",
        "kind": "phone",
        **other,
    }


def test_a_message_is_sent_to_oneself_once_and_its_outcome_is_told(
    console: Console, author: PersonRow
) -> None:
    update = drafted(console, audiences=["consumers"])
    mine = console.browser(person=author)
    page = mine.get(f"/updates/{update}/preview").text
    assert page.count("Send this to me") == 4  # SMS, in each language
    tokens = [("csrf", csrf(mine)), ("once", door.fresh_once())]
    for _ in range(2):
        sent = mine.raw(f"/updates/{update}/trials", [*tokens, *wish(update).items()])
        assert sent.status_code == 303
        assert sent.headers["location"].endswith("#trials")
    rows = console.rows("SELECT channel, locale, hint, state, parts ->> 'text' FROM trial")
    assert [row[:4] for row in rows] == [("sms", "en", "+1…23", "waiting")]
    part = Parts(page).found["consumers/sms/en", "text"]
    assert rows[0][4] == f"TEST: {part}"
    waiting = mine.get(f"/updates/{update}/trials")
    assert "data-open" in waiting.text
    assert "On its way" in waiting.text
    with console.services.ledger.transaction() as work:
        work.conn.execute("UPDATE trial SET state = 'done', outcome = 'accepted', done_at = now()")
    done = mine.get(f"/updates/{update}/trials").text
    assert "data-open" not in done
    assert "Taken by the provider" in done
    # Somebody else sees their own only.
    assert "+1…23" not in console.browser("author").get(f"/updates/{update}/trials").text


@pytest.mark.parametrize(
    ("other", "status"),
    [
        ({"revision": "2"}, 409),
        ({"kind": "email"}, 404),
        ({"locale": "xx"}, 404),
        ({"channel": "email"}, 409),
    ],
)
def test_what_cannot_be_tried_is_refused_with_a_reason(
    console: Console, author: PersonRow, other: dict[str, str], status: int
) -> None:
    update = drafted(console, audiences=["consumers"])
    sent = console.browser(person=author).form(f"/updates/{update}/trials", wish(update, **other))
    assert sent.status_code == status
    assert console.rows("SELECT count(*) FROM trial") == [(0,)]


def test_a_viewer_may_look_and_not_send(console: Console) -> None:
    update = drafted(console, audiences=["consumers"])
    viewer = console.browser("viewer")
    page = viewer.get(f"/updates/{update}/preview").text
    assert "Send this to me" not in page
    assert Scope.INCIDENTS_WRITE not in ROLE_SCOPES["viewer"]  # type: ignore[index]
    assert viewer.form(f"/updates/{update}/trials", wish(update)).status_code == 403

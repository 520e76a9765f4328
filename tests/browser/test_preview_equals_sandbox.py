"""What the preview showed is what the sandbox received: every channel, every language.

The texts are read off the pages, and held against the simulators' own record.
"""

from collections.abc import Mapping, Sequence

import pytest
from playwright.sync_api import Page

from channels.contract import ContactKind
from dispatcher.demo.people import Person
from dispatcher.ledger.recipients import PublicAccount, sync_public_accounts
from dispatcher.security.rights import Role
from tests.browser.acts import Values, ago, approve, complete, submit, write
from tests.browser.conftest import Staff
from tests.browser.desk import Desk, Desks
from tests.stories.everyone import Key, everyone
from tests.stories.house import House

Shown = dict[Key, dict[str, str]]

LANGUAGES = ("en", "es", "ru", "ar")
OWN_WORDS = {
    "texts.message.en": ["Stores are open “late” – and have 3 landlines."],
    "texts.message.es": ["Las tiendas abren hasta tarde y tienen 3 teléfonos fijos."],
    "texts.message.ru": ["Магазины открыты допоздна, там есть 3 стационарных телефона."],
    "texts.message.ar": ["المتاجر مفتوحة حتى وقت متأخر وفيها 3 هواتف أرضية."],
}
INCIDENT = {
    "kind": ["real"],
    "title": ["Calls fail in Texas"],
    "severity": ["critical"],
    "services": ["voice", "mobile_data"],
    "regions_other": ["US-TX"],
    "source": ["Network operations"],
    "emergency_calls.status": ["limited"],
    "emergency_calls.use.0": ["wifi_calling"],
    "workaround.codes.0": ["wifi_calling"],
    "workaround.codes.1": ["landline"],
    "next_update": ["60"],
}


@pytest.fixture
def everybody(house: House) -> Mapping[Key, Sequence[Person]]:
    """Somebody for each audience, channel and language."""
    wanted = everyone(house.services.packs)
    house.people(each for those in wanted.values() for each in those)
    return wanted


def public_speaks(house: House, locale: str) -> None:
    """The sandbox has one account on X: it posts in this language from now on."""
    own = house.services.packs.organisation.public_accounts[0]
    account = PublicAccount(ContactKind(own.kind), own.address, own.name, locale, own.region)
    with house.services.ledger.transaction() as work:
        sync_public_accounts(work.conn, house.services.sealer, [account])


def shown_on(page: Page) -> Shown:
    """Every message on a preview, part by part, character for character."""
    found: list[tuple[str, str, str]] = page.locator("[data-message]").evaluate_all(
        "all => all.flatMap(m => Array.from(m.querySelectorAll('[data-part]'))"
        ".map(p => [m.dataset.message, p.dataset.part, p.textContent]))"
    )
    shown: Shown = {}
    for message, part, text in found:
        audience, channel, locale = message.split("/")
        shown.setdefault((audience, channel, locale), {})[part] = text
    return shown


def previewed(desk: Desk, update: str, audiences: Sequence[str]) -> Shown:
    """All that the preview shows, audience by audience, with the mails' own documents."""
    shown: Shown = {}
    for audience in audiences:
        page = desk.open(f"/updates/{update}/preview?audience={audience}")
        listed = [page.url]
        if page.get_by_role("navigation", name="Channel").count():
            # A page of many words shows one channel at a time.
            links = page.get_by_role("navigation", name="Channel").get_by_role("link").all()
            listed = [str(link.get_attribute("href")) for link in links]
        for address in listed:
            page.goto(address)
            shown |= shown_on(page)
    for (audience, channel, locale), parts in shown.items():
        if channel == "email":
            path = f"/console/updates/{update}/mail/{audience}/{locale}"
            shown_html = desk.page.request.get(path).text()
            # A frame cannot be asked whether it is dark: the preview answers that for the mail.
            parts["html"] = shown_html.replace("(max-width: 0px)", "(prefers-color-scheme: dark)")
    return shown


def test_what_was_shown_is_what_arrived(
    house: House, staff: Staff, desks: Desks, everybody: Mapping[Key, Sequence[Person]]
) -> None:
    """One update with own words in four languages, then three that make the public's post too."""
    author, approver = desks(staff[Role.AUTHOR]), desks(staff[Role.APPROVER])
    names = list(house.services.packs.audiences)
    path, posts = "/incidents/new", dict[str, str]()
    for locale in LANGUAGES:
        public_speaks(house, locale)
        values: Values = {"started_at": [ago(minutes=10)], **INCIDENT} if locale == "en" else {}
        update = write(author, path, {**values, **OWN_WORDS}, odd=True)
        submit(author, update)
        shown = previewed(approver, update, names if locale == "en" else ["public"])
        approve(approver, update)
        complete(approver, update)
        posts[locale] = shown["public", "social", locale]["text"]
        if locale == "en":
            assert_arrived(house, shown, everybody)
            path = f"/incidents/{_reference(author, update)}/updates/new?from=nothing-new"
    sent = [post["content"]["text"] for post in house.sandbox.outbox("x")]
    assert sent == [posts[locale] for locale in LANGUAGES]


def assert_arrived(house: House, shown: Shown, everybody: Mapping[Key, Sequence[Person]]) -> None:
    """Each person holds exactly what was shown for them, with their own name in its place."""
    assert set(shown) >= set(everybody)
    assert {channel for _, channel, _ in shown} == {"sms", "email", "social", "push"}
    held = {e["address"]: e["content"] for e in house.sandbox.outbox() if e["provider"] != "x"}
    for key, those in everybody.items():
        for each in those:
            expected = {n: text.replace("[[name]]", each.name) for n, text in shown[key].items()}
            if each.inbox:
                message = house.inbox(each.id)[0]
                assert {"title": message["title"], "body": message["body"]} == expected, key
            else:
                address = each.phone or each.email or each.fcm_token
                assert held.pop(address) == expected, key
    assert held == {}


def _reference(desk: Desk, update: str) -> str:
    """The incident's spoken name, as the update's page tells it."""
    page = desk.open(f"/updates/{update}")
    return (
        page.get_by_role("navigation", name="Where you are").get_by_role("link").nth(1).inner_text()
    )

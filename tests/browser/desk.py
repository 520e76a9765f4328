"""One person's browser at the console: signing in, opening pages, and what went wrong on them.

Every page that any story opens is watched: no policy of the page may be broken, no script may
fail, no document may weigh more than 100 KB. Must not know what a page is for.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import axe_playwright_python  # type: ignore[import-untyped]
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    Response,
    expect,
)

from dispatcher.ledger import people
from dispatcher.ledger.connection import Transaction
from dispatcher.security.passwords import hashed
from dispatcher.security.rights import Role

MAX_BYTES = 100 * 1024
ZONE = "America/Chicago"
PATIENCE = 40_000.0
"""Milliseconds that a page or a sentence on it may take before a story fails."""
_AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
_WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_AUDIT = """async (wanted) => {
    const found = await axe.run(document, {runOnly: wanted, resultTypes: ["violations"],
        iframes: false});
    return found.violations.map(v => v.id + " (" + v.impact + "): " + v.help + "\\n" + v.nodes
        .slice(0, 4).map(n => "    " + n.target.join(" ") + "\\n      " + n.html.slice(0, 200)
            + "\\n      " + n.any.concat(n.all, n.none).map(c => c.message).join("; ")).join("\\n"));
}"""


@dataclass(frozen=True, slots=True)
class Somebody:
    """A person who may sign in."""

    role: Role
    name: str
    login: str
    password: str


STAFF = {
    Role.VIEWER: Somebody(Role.VIEWER, "Vera Lund", "vera", "grey heron over the weir"),
    Role.AUTHOR: Somebody(Role.AUTHOR, "Amal Idris", "amal", "nine paper boats at dawn"),
    Role.APPROVER: Somebody(Role.APPROVER, "Piotr Zając", "piotr", "slow tram past the mill"),
    Role.ADMIN: Somebody(Role.ADMIN, "Ada Okoro", "ada", "brass key under the fern"),
}
_hashes: dict[str, str] = {}


def employ(work: Transaction, who: Somebody) -> str:
    """Have this person joined, as by a link; returns their id."""
    if who.password not in _hashes:
        _hashes[who.password] = hashed(who.password)
    made = people.create(work.conn, name=who.name, role=who.role, created_by="story")
    token = f"link of {who.login}"
    people.invite(work.conn, made.id, token, created_by="story", lasting=timedelta(hours=1))
    people.join(
        work.conn, token, login=who.login, name=who.name, password_hash=_hashes[who.password]
    )
    return made.id


@dataclass
class Watch:
    """What was wrong on any page since the last look."""

    wrong: list[str] = field(default_factory=list)
    weights: dict[str, int] = field(default_factory=dict)

    def over(self, context: BrowserContext) -> None:
        context.on("console", self._said)
        context.on("weberror", lambda error: self.wrong.append(f"script: {error.error}"))
        context.on("response", self._came)

    def _said(self, message: ConsoleMessage) -> None:
        # A refusal (4xx) is logged by Chromium as a failed resource; it is no fault of the page.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.wrong.append(f"{message.page.url if message.page else ''}: {message.text}")

    def _came(self, response: Response) -> None:
        if response.request.resource_type != "document":
            return
        path = re.sub(r"[0-9a-f-]{36}", "{id}", response.url.partition("?")[0])
        size = int(response.headers.get("content-length", "0"))
        self.weights[path] = max(size, self.weights.get(path, 0))
        # A form that is shown again holds all that was typed, however long.
        typed = len(response.request.post_data or "")
        if size > MAX_BYTES + typed:
            self.wrong.append(f"{response.url} weighs {size:,} bytes")
        if response.status >= 500:
            self.wrong.append(f"{response.url} answered {response.status}")


@dataclass(slots=True)
class Desk:
    """A browser window of somebody's own."""

    context: BrowserContext
    page: Page
    who: Somebody | None = None

    def open(self, path: str, *, status: int = 200) -> Page:
        """A page below `/console`, which is expected to be there."""
        answer = self.page.goto(f"/console{path}")
        assert answer is not None and answer.status == status, f"{path}: {answer and answer.status}"
        return self.page

    def open_kept(self, path: str) -> Page:
        """What is downloaded from this path, opened as a file of one's own."""
        answer = self.page.request.get(f"/console{path}")
        assert answer.status == 200, f"{path}: {answer.status}"
        self.page.goto("about:blank")
        self.page.set_content(answer.text())
        return self.page

    def sign_in(self, who: Somebody) -> "Desk":
        self.who = who
        self.open("/sign-in")
        self.page.get_by_label("Login").fill(who.login)
        self.page.get_by_label("Password").fill(who.password)
        self.press("Sign in")
        expect(self.page).not_to_have_url(re.compile(r"sign-in"))
        return self

    @property
    def path(self) -> str:
        """Where the window is, below `/console` and without the query."""
        return self.page.url.partition("/console")[2].partition("?")[0]

    def button(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("button", name=name, exact=isinstance(name, str))

    def link(self, name: str | re.Pattern[str]) -> Locator:
        return self.page.get_by_role("link", name=name)

    def press(self, name: str | re.Pattern[str]) -> None:
        """Press a button and wait for the page that follows."""
        self.button(name).first.click()

    def sees(self, text: str | re.Pattern[str]) -> None:
        """The page's main part says it, now or in a moment."""
        expect(self.page.get_by_role("main")).to_contain_text(text)

    def sees_not(self, text: str | re.Pattern[str]) -> None:
        expect(self.page.get_by_role("main")).not_to_contain_text(text)

    def update_id(self) -> str:
        """The update whose page this is."""
        found = re.search(r"/updates/([0-9a-f-]{36})", self.page.url)
        assert found is not None, self.page.url
        return found[1]


class Desks:
    """Opens windows at one console; each has cookies of its own."""

    def __init__(self, browser: Browser, url: str, watch: Watch) -> None:
        self._browser, self._url, self._watch = browser, url, watch
        self._open: list[BrowserContext] = []

    def __call__(
        self,
        who: Somebody | None = None,
        *,
        javascript: bool = True,
        scheme: Literal["light", "dark"] = "light",
        width: int = 1280,
        height: int = 900,
    ) -> Desk:
        """A new window, somebody signed in if named."""
        context = self._browser.new_context(
            base_url=self._url,
            java_script_enabled=javascript,
            color_scheme=scheme,
            viewport={"width": width, "height": height},
            locale="en-GB",
            timezone_id=ZONE,
            reduced_motion="reduce",
            accept_downloads=True,
        )
        context.set_default_timeout(PATIENCE)
        self._watch.over(context)
        self._open.append(context)
        desk = Desk(context, context.new_page())
        return desk.sign_in(who) if who is not None else desk

    def close(self) -> None:
        for context in self._open:
            context.close()


def audit(page: Page, rules: Sequence[str] = ()) -> list[str]:
    """What axe-core finds wrong on the page as it is shown, in words, by these rules or by all.

    Frames are not looked into: what is in them has to be opened by itself.
    """
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(_AXE)
    wanted = {"type": "rule", "values": list(rules)} if rules else {"type": "tag", "values": _WCAG}
    found: list[str] = page.evaluate(_AUDIT, wanted)
    return found


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    wider: int = page.evaluate(
        "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return wider


def texts_of(page: Page, selector: str) -> Iterator[tuple[dict[str, str], str]]:
    """The data attributes and the exact text of each element that matches."""
    found: list[Any] = page.locator(selector).evaluate_all(
        "all => all.map(e => [Object.assign({}, e.dataset), e.textContent])"
    )
    yield from found

"""How long the console's pages take, and a keystroke's preview, over HTTP and loopback.

Every GET page there is, found by its route, is asked for as a browser asks; the form of an
update is sent as its script sends it at each pause of typing. Must not know how the ledger
came to be filled.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import httpx
from fastapi.routing import APIRoute

from bench.fanout import percentile
from bench.filled import Filled
from bench.racing import Failed
from dispatcher.console.app import rooms

ROOT = "/console"
STREAMS = "/events"
"""How routes end whose answer does not: a stream is no page."""
EXPORTS = "/report"
"""How routes end that make a document to keep, which waits until its people are counted."""
OUTSIDE = frozenset({"/sign-in", "/join/{token}"})
"""Pages of those who are not signed in."""
LIVE = "/live"
TYPED = "The core network in Dallas is being restarted, and calls come back region by region. "


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was measured: its path, its bytes, and milliseconds: those of the very first
    visit, and the p95 of those after it."""

    path: str
    first: float
    p95: float
    size: int

    @property
    def export(self) -> bool:
        return self.path.endswith(EXPORTS)


def measured(base_url: str, there: Filled, *, times: int) -> list[Page]:
    """Every page, the slowest first. Raises `Failed` for a route that shows nothing."""
    pages, silent = [], []
    with (
        httpx.Client(base_url=base_url, trust_env=False, cookies={"desk": there.admin}) as inside,
        httpx.Client(base_url=base_url, trust_env=False) as outside,
    ):
        for route in routes():
            http = outside if route in OUTSIDE else inside
            asked = {path: _visited(http, path) for path in dict.fromkeys(_paths(route, there))}
            statuses = {answer.status_code for answer, _ in asked.values()}
            if 200 not in statuses or any(status >= 500 for status in statuses):
                silent.append(f"{route} ({', '.join(map(str, sorted(statuses)))})")
            pages += [
                _page(http, path, first=first, times=times)
                for path, (answer, first) in asked.items()
                if answer.status_code == 200
            ]
    if silent:
        raise Failed(f"routes without a page: {'; '.join(silent)}")
    return sorted(pages, key=lambda page: -page.p95)


def routes() -> Iterator[str]:
    """The paths of all GET pages below `/console`."""
    for router in rooms():
        for route in router.routes:
            if not isinstance(route, APIRoute) or "GET" not in (route.methods or ()):
                continue
            if not route.path.endswith(STREAMS):
                yield route.path


def _paths(route: str, there: Filled) -> Iterator[str]:
    """The route's paths to what there is: incident or drill, sent update or draft."""
    for incident in (there.incident, there.drill):
        for update in (there.sent, there.draft):
            values = {
                "ref": incident,
                "reference": incident,
                "update": update,
                "update_id": update,
                "audience": "consumers",
                "channel": "sms",
                "locale": "en",
                "person": there.person,
                "person_id": there.person,
                "token": there.invitation,
            }
            yield from _filled(route, values, there)


def _filled(route: str, values: Mapping[str, str], there: Filled) -> Iterator[str]:
    wanted = re.findall(r"\{(\w+)(?::\w+)?\}", route)
    if unknown := [name for name in wanted if name not in values and name != "name"]:
        raise Failed(f"nothing is known to fill {unknown[0]} of {route} with")
    path = re.sub(r"\{(\w+)(?::\w+)?\}", lambda place: values.get(place[1], "{name}"), route)
    for name in there.templates if "{name}" in path else ("",):
        yield path.replace("{name}", name)


def _visited(http: httpx.Client, path: str) -> tuple[httpx.Response, float]:
    """The answer, and the milliseconds until it was there as a whole."""
    began = time.perf_counter()
    answer = http.get(ROOT + path)
    return answer, (time.perf_counter() - began) * 1_000


def _page(http: httpx.Client, path: str, *, first: float, times: int) -> Page:
    answers, taken = zip(*(_visited(http, path) for _ in range(times)), strict=True)
    if any(answer.status_code != 200 for answer in answers):
        raise Failed(f"{path} does not always answer")
    size = max(len(answer.content) for answer in answers)
    return Page(path, round(first, 1), round(percentile(taken, 95), 1), size)


def keystrokes(base_url: str, there: Filled, *, times: int) -> list[float]:
    """Milliseconds from sending the form as typed so far to the whole answer, `times` times."""
    with httpx.Client(base_url=base_url, trust_env=False, cookies={"desk": there.author}) as http:
        opened = http.get(f"{ROOT}/incidents/{there.incident}/updates/new?phase=identified")
        if opened.status_code != 200:
            raise Failed(f"the form of a new update answers {opened.status_code}")
        form = Fields.of(opened.text)
        slot = next((name for name in form.words if "message" in name), None)
        if slot is None:
            raise Failed("the form has no place for words of one's own")
        return [_keystroke(http, form, slot, number) for number in range(times + 3)][3:]


def _keystroke(http: httpx.Client, form: "Fields", slot: str, number: int) -> float:
    typed = [(name, TYPED[: number + 5] if name == slot else value) for name, value in form.items]
    body = urlencode(typed)
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "X-Requested-With": "fetch",
        "Sec-Fetch-Site": "same-origin",
    }
    began = time.perf_counter()
    answer = http.post(ROOT + LIVE, content=body.encode(), headers=headers)
    took = (time.perf_counter() - began) * 1_000
    if answer.status_code != 200:
        raise Failed(f"{LIVE} answers {answer.status_code}: {answer.text[:200]}")
    if TYPED[: number + 5] not in answer.text:
        raise Failed(f"{LIVE} does not show what was typed")
    return took


class Fields(HTMLParser):
    """The largest form of a page as a browser would send it; `words` are its text areas."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[list[tuple[str, str]]] = []
        self.words: list[str] = []
        self._area: str | None = None
        self._select: str | None = None
        self._chosen = False

    @classmethod
    def of(cls, page: str) -> "Fields":
        found = cls()
        found.feed(page)
        return found

    @property
    def items(self) -> list[tuple[str, str]]:
        return max(self.forms, key=len)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = {name: value or "" for name, value in attrs}
        name = own.get("name", "")
        if tag == "form":
            self.forms.append([])
        elif not self.forms or "disabled" in own:
            return
        elif tag == "input" and name:
            kind = own.get("type", "text")
            if kind in ("submit", "button", "file", "image"):
                return
            if kind not in ("checkbox", "radio") or "checked" in own:
                self.forms[-1].append((name, own.get("value", "on" if kind != "text" else "")))
        elif tag == "textarea" and name:
            self.forms[-1].append((name, ""))
            self.words.append(name)
            self._area = name
        elif tag == "select" and name:
            self._select, self._chosen = name, False
        elif tag == "option" and self._select:
            self._option(own)

    def _option(self, own: Mapping[str, str]) -> None:
        assert self._select is not None
        entry = (self._select, own.get("value", ""))
        if "selected" in own and self._chosen:
            self.forms[-1][-1] = entry
        elif not self._chosen:
            self.forms[-1].append(entry)
        self._chosen = True

    def handle_data(self, data: str) -> None:
        if self._area is not None and data.strip():
            self.forms[-1][-1] = (self._area, data.removeprefix("\n"))

    def handle_endtag(self, tag: str) -> None:
        if tag == "textarea":
            self._area = None
        elif tag == "select":
            self._select = None


def told(found: Sequence[Page], say: Callable[[str], None]) -> dict[str, Any]:
    """The figures of all pages by name; exports have their own."""
    pages = [page for page in found if not page.export]
    for page in pages[:5]:
        say(f"{page.p95:,.0f} ms p95, {page.size / 1_000:,.1f} kB: {page.path}")
    largest = max(pages, key=lambda page: page.size)
    first = max(pages, key=lambda page: page.first)
    return {
        "page_p95_ms": pages[0].p95,
        "slowest_page": pages[0].path,
        "first_visit_max_ms": first.first,
        "slowest_first_visit": first.path,
        "largest_page_kb": round(largest.size / 1_000, 1),
        "largest_page": largest.path,
        "pages": len(pages),
        "export_p95_ms": max((page.p95 for page in found if page.export), default=0.0),
    }

"""Pages as they are written: the environment of the templates, its words for numbers and times.

Owns the headers that every page carries. No page of the console needs anything from elsewhere,
so that it also works where nothing else can be reached.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup
from starlette.responses import HTMLResponse

from dispatcher.console import done
from dispatcher.console.door import ROOT, Visitor, fresh_once
from dispatcher.wiring import Services

HERE = Path(__file__).parent
STATIC = HERE / "static"

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
        " connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

MAIL_HEADERS: Mapping[str, str] = {
    # A mail as it will look: it may style itself, and nothing else.
    **HEADERS,
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox;"
        " form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
    ),
    "X-Frame-Options": "SAMEORIGIN",
}


def count(number: int) -> str:
    """73,000"""
    return f"{number:,}"


def people(number: int) -> str:
    """73,000 people; 1 person; nobody."""
    return "nobody" if number == 0 else f"{number:,} {'person' if number == 1 else 'people'}"


def lasting(seconds: float | None) -> str:
    """A duration by its two largest units: 2 h 5 min; under a second is said so."""
    if seconds is None:
        return "not known"
    if seconds < 1:
        return "under a second"
    whole = round(seconds)
    parts = [
        (whole // 86_400, "d"),
        (whole % 86_400 // 3_600, "h"),
        (whole % 3_600 // 60, "min"),
        (whole % 60, "s"),
    ]
    first = next(place for place, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


def words(code: object) -> str:
    """A stored word as people read it: `follow_up` is follow up."""
    return str(code).replace("_", " ")


def zoned(moment: datetime, zone: str, *, seconds: bool = False, day: bool = False) -> str:
    """04:12 EST, with the date if asked for."""
    form = ("%a %-d %b %Y, " if day else "") + ("%H:%M:%S" if seconds else "%H:%M")
    local = moment.astimezone(ZoneInfo(zone))
    return f"{local.strftime(form)} {local.strftime('%Z')}"


def both(moment: datetime, zone: str, *, seconds: bool = False) -> str:
    """The reader's zone with UTC beside; the date where it is not today there."""
    here = ZoneInfo(zone)
    other_day = moment.astimezone(here).date() != datetime.now(here).date()
    shown = zoned(moment, zone, seconds=seconds, day=other_day)
    if moment.astimezone(here).utcoffset() == UTC.utcoffset(moment):
        return shown
    form = "%H:%M:%S" if seconds else "%H:%M"
    return f"{shown} ({moment.astimezone(UTC).strftime(form)} UTC)"


@pass_context
def at(context: Context, moment: datetime | None, seconds: bool = False) -> Markup:
    """A moment in the reader's zone with UTC beside, as a time element."""
    if moment is None:
        return Markup("–")
    shown = both(moment, context["zone"], seconds=seconds)
    stamp = moment.astimezone(UTC).isoformat(timespec="seconds")
    return Markup('<time datetime="{}">{}</time>').format(stamp, shown)


@pass_context
def clock(context: Context, moment: datetime | None) -> str:
    """04:12 EST, in the reader's zone."""
    return "–" if moment is None else zoned(moment, context["zone"])


@pass_context
def day(context: Context, moment: datetime) -> str:
    """Sun 22 Nov 2026, in the reader's zone."""
    return moment.astimezone(ZoneInfo(context["zone"])).strftime("%a %-d %b %Y")


def ago(moment: datetime, now: datetime | None = None) -> str:
    """2 min ago; in 5 min."""
    gone = ((now or datetime.now(UTC)) - moment).total_seconds()
    if abs(gone) < 1:
        return "now"
    if abs(gone) >= 60:
        gone = gone // 60 * 60 if gone > 0 else -(-gone // 60 * 60)
    return f"in {lasting(-gone)}" if gone < 0 else f"{lasting(gone)} ago"


def money(amount: float, currency: str) -> str:
    """1,204.50 USD"""
    return f"{amount:,.2f} {currency}"


def url(path: str) -> str:
    """A path of the console as a browser asks for it."""
    return f"{ROOT}{path}"


@lru_cache(maxsize=64)
def static(name: str) -> str:
    """A static file's address, another one whenever its content is another."""
    digest = hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]
    return f"{ROOT}/static/{name}?v={digest}"


def environment() -> Environment:
    """The templates' environment: escaped everywhere, nothing undefined."""
    made = Environment(
        loader=FileSystemLoader(HERE / "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name, function in {
        "at": at, "clock": clock, "day": day, "ago": ago, "count": count, "people": people,
        "money": money, "lasting": lasting, "words": words, "url": url, "static": static,
        "once": fresh_once,
    }.items():  # fmt: skip
        made.globals[name] = function
        made.filters[name] = function
    return made


_PAGES = environment()


def warm() -> None:
    """Compile every page now, so that the first who opens it does not wait for that."""
    for name in _PAGES.list_templates():
        _PAGES.get_template(name)


def rendered(request: Request, name: str, visitor: Visitor | None, **values: Any) -> str:
    """A template's text. `values` may set `drill`."""
    services: Services = request.app.state.services
    zone = visitor.zone if visitor is not None else services.packs.organisation.default_zone
    context = {
        "visitor": visitor,
        "csrf": visitor.csrf if visitor is not None else "",
        "mode": services.mode,
        "org": services.packs.organisation,
        "audiences": services.packs.audiences,
        "here": request.url.path,
        "now": datetime.now(UTC),
        "zone": zone,
        "drill": False,
        "done": None,
        **values,
    }
    return _PAGES.get_template(name).render(context)


def page(
    request: Request,
    name: str,
    visitor: Visitor | None,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """A whole page. `drill=True` makes it look like what it is; it says what was just done."""
    said = done.noted(request)
    response = HTMLResponse(
        rendered(request, name, visitor, done=said, **values),
        status_code=status,
        headers={**HEADERS, **(headers or {})},
    )
    if said is not None:
        done.clear(response)
    return response


def fragment(
    request: Request, name: str, visitor: Visitor | None, *, status: int = 200, **values: Any
) -> HTMLResponse:
    """A piece of a page, for a script to put in its place."""
    text = rendered(request, name, visitor, **values)
    return HTMLResponse(text, status_code=status, headers=HEADERS)

"""The preview of an update: what each audience will see, how many it reaches, and test sends.

Owns the page and its parts. What is shown is what is stored, once it was submitted; numbers
come from `reckoning`, which counts aside.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import HTMLResponse, Response

from channels.contract import Channel
from dispatcher.acts import NotFound, Stale, update_id
from dispatcher.console.door import Desk, Known, Post, Visitor, posting, see_other
from dispatcher.console.materials import (
    CHANNELS,
    KINDS,
    Material,
    besides,
    chosen,
    material,
    overview,
    troubles,
    unlike,
    worst,
)
from dispatcher.console.reasons import told
from dispatcher.console.showing import Shown, example, in_scheme, language
from dispatcher.console.views import MAIL_HEADERS, fragment, page, url
from dispatcher.console.voicing import voices
from dispatcher.ledger import people, trials
from dispatcher.ledger.connection import Connection, Transaction
from dispatcher.ledger.people import OwnAddress
from dispatcher.ledger.said import last_said
from dispatcher.planning import KIND_ORDER
from dispatcher.reckoning import Reckoned
from dispatcher.rendering import Rendering
from dispatcher.security.rights import Scope
from dispatcher.trials import TrialMessage
from dispatcher.wiring import Services

router = APIRouter(prefix="/updates/{update}")

Previewer = Annotated[Post, Depends(posting(Scope.PREVIEW))]
Writer = Annotated[Post, Depends(posting(Scope.INCIDENTS_WRITE))]

View = Literal["narrow-light", "narrow-dark", "wide-light", "wide-dark"]
VIEWS: tuple[tuple[View, str], ...] = (
    ("narrow-light", "Phone"),
    ("narrow-dark", "Phone, dark"),
    ("wide-light", "Computer"),
    ("wide-dark", "Computer, dark"),
)

ROOM = 60_000
"""Bytes of plain parts that a page shows at once; what does not fit is chosen by links."""
COUNT_PATIENCE = 20.0
"""Seconds for which a script waits for a count before it asks again."""
FORM_PATIENCE = 8.0
"""The same for a person without a script: then the page says that it is being counted."""

_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a page shows: an audience, perhaps one channel or language of it, in a view."""

    audience: str
    channel: str
    locale: str
    view: View

    def path(self, update: str, **other: str) -> str:
        """The page with something else chosen."""
        asked = {
            "audience": self.audience,
            "channel": self.channel,
            "locale": self.locale,
            "view": self.view,
            **other,
        }
        query = "&".join(f"{name}={value}" for name, value in asked.items() if value)
        return f"/updates/{update}/preview?{query}"


@router.get("/preview")
def preview_page(
    request: Request,
    update: str,
    services: Desk,
    who: Known,
    audience: Annotated[str, Query(max_length=48)] = "",
    channel: Annotated[str, Query(max_length=16)] = "",
    locale: Annotated[str, Query(max_length=16)] = "",
    view: View = "narrow-light",
) -> Response:
    """One audience's messages as they will be seen, beside what concerns all of them."""
    wanted = update_id(update)
    with services.ledger.read() as conn:
        found = material(services, conn, wanted)
        reckoned = services.reckoning.known(conn, wanted)
        own = people.own_addresses(conn, who.person.id)
        tried = trials.of(conn, wanted, who.person.id)
        shown_audience = _audience(found, audience)
        said = last_said(conn, wanted, shown_audience) if shown_audience else []
        numbers = _numbers(services, conn, found, reckoned)
    # A text stands there thrice beside what is new in it and what is gone from it.
    times = 3 if said else 1
    what = _fitting(found, Chosen(shown_audience, channel, locale, view), times=times)
    messages = chosen(services, found, what.audience, channel=what.channel, locale=what.locale)
    figures = reckoned.figures if _current(found, reckoned) and reckoned else None
    return page(
        request,
        "preview.html",
        who,
        drill=found.incident.drill,
        found=found,
        what=what,
        title=services.packs.audiences[what.audience].title if what.audience else "",
        messages=messages,
        voices=voices(messages) if not what.channel or what.channel == Channel.SMS else (),
        besides=besides(messages, figures, said),
        last=said[0] if said else None,
        choices=_choices(found, what, times=times),
        may_write=who.may(Scope.INCIDENTS_WRITE),
        views=VIEWS,
        view=what.view,
        mail_src=_mail_src(found, what.view),
        buttons=_buttons(services, who, found, messages, own),
        own=own,
        trials=tried,
        trials_open=any(row.state != "done" for row in tried),
        CHANNELS=CHANNELS,
        language=language,
        **numbers,
    )


def _audience(found: Material, asked: str) -> str:
    """The audience asked for, else the first; raises `NotFound` for one that is not there."""
    names = list(dict.fromkeys(each.audience for each in found.renderings))
    if asked and asked not in names:
        raise NotFound("this update does not go to that audience")
    return asked or (names[0] if names else "")


def _fitting(found: Material, asked: Chosen, *, times: int) -> Chosen:
    """What was asked, or as much of it as a page has room for: the first channel of several, and
    then its first language. `times` is how often a text stands there."""
    narrowed = asked
    own = found.of(asked.audience)
    if not asked.channel and _weight(own, narrowed) * times > ROOM:
        narrowed = replace(narrowed, channel=own[0].message.channel)
    if not asked.locale and _weight(own, narrowed) * times > ROOM:
        first = next(each for each in own if narrowed.channel in ("", each.message.channel))
        narrowed = replace(narrowed, locale=first.message.locale)
    return narrowed


def _weight(own: Sequence[Rendering], what: Chosen) -> int:
    return sum(
        len(text.encode())
        for each in own
        if what.channel in ("", each.message.channel) and what.locale in ("", each.message.locale)
        for name, text in each.message.parts.items()
        if name != "html"
    )


def _current(found: Material, reckoned: Reckoned | None) -> bool:
    return reckoned is not None and reckoned.revision == found.update.revision


def _choices(
    found: Material, what: Chosen, *, times: int
) -> dict[str, list[tuple[str, str, bool]]]:
    """Links to each channel and language of the chosen audience, and to all that fit a page."""
    update = found.update.id
    channels = dict.fromkeys(each.message.channel for each in found.of(what.audience))
    locales = dict.fromkeys(each.message.locale for each in found.of(what.audience))
    every_channel = _fitting(found, replace(what, channel=""), times=times)
    every_locale = _fitting(found, replace(what, locale=""), times=times)
    return {
        "channels": [
            *(
                [("All", url(what.path(update, channel="")), not what.channel)]
                if not every_channel.channel
                else []
            ),
            *(
                (
                    CHANNELS.get(name, name).capitalize() if name != "sms" else "SMS",
                    url(what.path(update, channel=name)),
                    name == what.channel,
                )
                for name in channels
            ),
        ],
        "locales": [
            *(
                [("All", url(what.path(update, locale="")), not what.locale)]
                if not every_locale.locale
                else []
            ),
            *(
                (language(name), url(what.path(update, locale=name)), name == what.locale)
                for name in locales
            ),
        ],
    }


def _mail_src(found: Material, view: View) -> Callable[[Shown], str]:
    scheme = view.partition("-")[2]
    base = f"/updates/{found.update.id}/mail"

    def src(shown: Shown) -> str:
        return url(f"{base}/{shown.audience}/{shown.locale}?scheme={scheme}&fill=example")

    return src


def _numbers(
    services: Services, conn: Connection, found: Material, reckoned: Reckoned | None
) -> dict[str, Any]:
    """What the figures and the table of them need."""
    current = _current(found, reckoned)
    figures = reckoned.figures if reckoned is not None else None
    lines = overview(services, found, figures)
    problems = troubles(services, found.renderings)
    different = unlike(services, conn, found)
    return {
        "update": found.update,
        "lines": lines,
        "troubles": problems,
        "unlike": different,
        "worst": worst(problems, lines, unlike=len(different)),
        "reckoned": reckoned,
        "current": current,
        "figures": figures,
        "missed": [
            (
                told("skipped", each.reason),
                each.people,
                [(KINDS.get(kind, kind), number) for kind, number in each.otherwise.items()],
            )
            for each in (figures.missed() if figures is not None else ())
        ],
    }


@router.post("/count")
def count(update: str, post: Previewer) -> Response:
    """Count whom the update reaches now. A script gets the table, a form the page again."""
    services = post.services
    wanted = update_id(update)
    counting = services.reckoning.soon(wanted)
    fetched = post.request.headers.get("x-requested-with") == "fetch"
    made = _within(counting, COUNT_PATIENCE if fetched else FORM_PATIENCE)
    if not fetched:
        return see_other(f"/updates/{wanted}/preview#figures")
    with services.ledger.read() as conn:
        found = material(services, conn, wanted)
        reckoned = made or services.reckoning.known(conn, wanted)
        numbers = _numbers(services, conn, found, reckoned)
    return fragment(
        post.request,
        "_counted.html",
        post.visitor,
        status=200 if made is not None else 202,
        **numbers,
    )


def _within(counting: Future[_Made], seconds: float) -> _Made | None:
    """The count, if it is through in time. Raises what the counting raised."""
    try:
        return counting.result(timeout=seconds)
    except NotYet:
        return None


@router.get("/mail/{audience}/{locale}")
def mail(
    update: str,
    audience: str,
    locale: str,
    services: Desk,
    who: Known,
    scheme: Literal["", "light", "dark"] = "",
    fill: Literal["none", "example"] = "none",
) -> Response:
    """A mail's HTML for a frame that may do nothing: as it is, byte for byte, unless a `scheme`
    to answer for or values to `fill` in are asked for."""
    with services.ledger.read() as conn:
        found = material(services, conn, update_id(update), only=audience)
    message = found.one(audience, Channel.EMAIL.value, locale).message
    parts = example(message) if fill == "example" else message.parts
    if "html" not in parts:
        raise NotFound("this mail has no HTML part")
    html = in_scheme(parts["html"], scheme) if scheme else parts["html"]
    return HTMLResponse(html, headers=MAIL_HEADERS)


def _buttons(
    services: Services,
    who: Visitor,
    found: Material,
    messages: tuple[Shown, ...],
    own: list[OwnAddress],
) -> dict[str, list[OwnAddress]]:
    """Per message's key the visitor's own addresses that it can be tried on."""
    if not who.may(Scope.INCIDENTS_WRITE):
        return {}
    return {
        shown.key: [
            address
            for kind in KIND_ORDER.get(shown.channel, ())
            for address in own
            if address.kind == kind
            and not services.trials.refusal(shown.channel, kind, drill=found.incident.drill)
        ]
        for shown in messages
    }


@router.get("/trials")
def trials_part(request: Request, update: str, services: Desk, who: Known) -> Response:
    """What this person has tried of the update, for a script that waits for the outcome."""
    wanted = update_id(update)
    with services.ledger.read() as conn:
        tried = trials.of(conn, wanted, who.person.id)
    return fragment(
        request,
        "_trials.html",
        who,
        trials=tried,
        trials_open=any(row.state != "done" for row in tried),
        CHANNELS=CHANNELS,
        language=language,
    )


@router.post("/trials")
def try_message(update: str, post: Writer) -> Response:
    """Send one message of the update to the person's own address, marked as a test."""
    wanted = update_id(update)
    form = post.form
    what = Chosen(
        form.get("audience"), form.get("only_channel"), form.get("only_locale"), "narrow-light"
    )

    def work(transaction: Transaction) -> str:
        conn = transaction.conn
        found = material(post.services, conn, wanted, only=form.get("audience"))
        if form.get("revision") != str(found.update.revision):
            raise Stale(found.update.revision)
        one = found.one(form.get("audience"), form.get("channel"), form.get("locale"))
        address = _own_address(conn, post.visitor, form.get("kind"))
        post.services.trials.ask(
            transaction,
            person_id=post.visitor.person.id,
            update_id=wanted,
            message=TrialMessage(
                audience=one.audience,
                channel=one.message.channel,
                locale=one.message.locale,
                parts=one.message.parts,
                slots=one.message.slots,
            ),
            kind=address.kind,
            sealed=address.sealed,
            hint=address.hint,
            drill=found.incident.drill,
        )
        return f"{what.path(wanted)}#trials"

    return post.once(work)


def _own_address(conn: Connection, who: Visitor, kind: str) -> OwnAddress:
    for address in people.own_addresses(conn, who.person.id):
        if address.kind == kind:
            return address
    raise NotFound("you have no address of this kind: add it to your account first")

"""The form as it is being typed: what would be said, what is missing, and nothing stored.

Answers a script with pieces of a page within a keystroke's patience: one short read of the
ledger, no count of people.
"""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from jinja2 import TemplateError
from starlette.responses import HTMLResponse, Response

from dispatcher.acts import Conflict, NotFound
from dispatcher.console import drafting, sheets
from dispatcher.console.door import Post, posting
from dispatcher.console.forms import Read
from dispatcher.console.sheets import Sheet
from dispatcher.console.showing import Shown, show
from dispatcher.console.typed import Typed
from dispatcher.console.views import MAIL_HEADERS, fragment
from dispatcher.console.writing import REPLACE, outlook_values
from dispatcher.rendering import Statement
from dispatcher.rendering.parity import Mismatch, compare_texts
from dispatcher.security.rights import Scope
from dispatcher.wiring import Services

router = APIRouter()

Typing = Annotated[Post, Depends(posting(Scope.INCIDENTS_WRITE))]


def ground(services: Services, typed: Typed) -> Sheet:
    """What the form is about, by the ids it carries; a new incident if it carries none.

    Raises `NotFound`, and `Conflict` if its update was released or withdrawn meanwhile.
    """
    update, incident = typed.one("about_update"), typed.one("about_incident")
    if not update and not incident:
        return Sheet()
    with services.ledger.read() as conn:
        return sheets.revising(conn, update) if update else sheets.adding(conn, incident)


def understood(post: Post) -> tuple[Typed, Sheet, Read, datetime]:
    """The form as typed, its ground, and what it says so far."""
    typed = Typed(post.form.items())
    sheet = ground(post.services, typed)
    now = datetime.now(UTC)
    zone = sheet.zone(typed, post.services.packs.organisation, reader=post.visitor.zone)
    return typed, sheet, sheet.read(typed, zone=zone, now=now), now


@router.post("/live")
def live(post: Typing) -> Response:
    """What the form says so far: what is missing for whom, and one audience's messages."""
    try:
        typed, sheet, found, now = understood(post)
    except (NotFound, Conflict) as error:
        return fragment(
            post.request, "_live.html", post.visitor, gone=str(error), messages=(), chosen=""
        )
    services = post.services
    values = outlook_values(services, sheet, found, now=now)
    chosen = _chosen(services, typed, found)
    zone = sheet.zone(typed, services.packs.organisation, reader=post.visitor.zone)
    wrong, empty = drafting.to_put_right(found)
    return fragment(
        post.request,
        "_live.html",
        post.visitor,
        gone="",
        replace=REPLACE,
        wrong=wrong,
        empty=empty,
        readings=drafting.readings(typed, zone=zone, now=now),
        chosen=chosen,
        unlike=_unlike(services, found),
        messages=_messages(services, values["said"], chosen),
        view="narrow-light",
        **values,
    )


def _unlike(services: Services, found: Read) -> list[Mismatch]:
    """Where the update's own words say different things in different languages."""
    if found.draft is None:
        return []
    organisation = services.packs.organisation
    words = services.renderer.words
    return compare_texts(found.draft.texts, words=words, organisation=organisation)


def _chosen(services: Services, typed: Typed, found: Read) -> str:
    """The audience whose messages are shown: the one asked for, else the first that is told."""
    named = (found.draft.audiences if found.draft is not None else None) or ()
    told = [name for name in named if name in services.packs.audiences]
    wanted = typed.one("look")
    return wanted if wanted in told else told[0] if told else ""


def _messages(services: Services, said: Statement | None, audience: str) -> tuple[Shown, ...]:
    if said is None or not audience or not said.incident.services:
        return ()
    return show(services.renderer, services.renderer.render_all(said, [audience]))


@router.post("/live/mail")
def live_mail(post: Typing) -> Response:
    """One mail of the form as typed, as a document of its own for a sandboxed frame."""
    _, sheet, found, now = understood(post)
    said = sheet.statement(found, now=now)
    audience, locale = post.form.get("mail_audience"), post.form.get("mail_locale")
    services = post.services
    if said is None or audience not in services.packs.audiences:
        raise NotFound("there is no such mail yet")
    try:
        rendering = services.renderer.render(said, audience, "email", locale)
    except (LookupError, TemplateError):
        raise NotFound("there is no such mail yet") from None
    html = rendering.message.parts.get("html", "")
    return HTMLResponse(html, headers=dict(MAIL_HEADERS))

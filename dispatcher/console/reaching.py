"""Whom the form that is being typed would reach: counted aside, and remembered for a minute.

Apart from `live`, which never counts: this answers when it can, while typing goes on.
"""

from concurrent.futures import TimeoutError as NotYet

from fastapi import APIRouter
from jinja2 import TemplateError
from starlette.responses import Response

from dispatcher.acts import Conflict, NotFound
from dispatcher.console.door import Post
from dispatcher.console.live import Typing, understood
from dispatcher.console.views import fragment
from dispatcher.figures import Figures
from dispatcher.previews import worded
from dispatcher.reckoning import Typed

router = APIRouter()

PATIENCE = 15.0
"""Seconds for which a script waits; what is counted then is there when it asks again."""


@router.post("/live/reach")
def reach(post: Typing) -> Response:
    """How many people the form's update would reach now, at what cost and how soon."""
    asked = _asked(post)
    figures: Figures | None = None
    if asked is not None:
        try:
            figures = post.services.reckoning.typed(asked).result(timeout=PATIENCE)
        except NotYet:
            return _answer(post, None, counting=True)
    return _answer(post, figures, counting=False)


def _answer(post: Post, figures: Figures | None, *, counting: bool) -> Response:
    packs = post.services.packs.audiences
    return fragment(
        post.request,
        "_reach.html",
        post.visitor,
        status=202 if counting else 200,
        figures=figures,
        counting=counting,
        late=[packs[name].title for name in figures.late] if figures is not None else [],
    )


def _asked(post: Post) -> Typed | None:
    """What is to be counted; None while the form holds too little to know whom it is for."""
    try:
        _, sheet, found, now = understood(post)
    except (NotFound, Conflict):
        return None
    said, update = sheet.statement(found, now=now), found.draft
    if said is None or update is None or not said.incident.services:
        return None
    packs = post.services.packs.audiences
    named = [name for name in update.audiences or packs if name in packs]
    try:
        renderings = post.services.renderer.render_all(said, named)
    except (LookupError, TemplateError):
        return None
    return Typed(
        incident=said.incident,
        incident_id=sheet.incident.id if sheet.incident is not None else None,
        update=update,
        worded=worded(renderings),
    )

"""The console as an app of its own: its rooms, its files, and what it answers when it refuses."""

import re
from collections.abc import Awaitable, Callable

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from dispatcher.acts import Conflict, Invalid, NotFound, Refused, Stale
from dispatcher.console import (
    approving,
    done,
    door,
    handouts,
    home,
    live,
    previewing,
    reaching,
    recounting,
    signing,
    staff,
    tryouts,
    views,
    watching,
    writing,
)
from dispatcher.console.board import Board
from dispatcher.console.door import Repeated, SignInNeeded, Unbelieved, Unreadable
from dispatcher.http.events import ProgressFeed
from dispatcher.ledger.connection import LedgerAway, LedgerFull
from dispatcher.ledger.idempotency import StillRunning
from dispatcher.security.rights import NotAllowed
from dispatcher.wiring import Services

log = structlog.get_logger(__name__)

Handler = Callable[[Request, Exception], Awaitable[Response]]


class Files(StaticFiles):
    """Static files; their addresses change with their content, so they are kept for good."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def rooms() -> tuple[APIRouter, ...]:
    """Every module's routes."""
    return (
        # Before `home`, for which `new` would be an incident.
        writing.router,
        live.router,
        home.router,
        approving.router,
        signing.router,
        staff.router,
        watching.router,
        recounting.router,
        handouts.router,
        previewing.router,
        reaching.router,
        tryouts.router,
    )


def create_console(services: Services, feed: ProgressFeed) -> FastAPI:
    """The console for these services; `feed` is the API's own reading of progress."""
    app = FastAPI(title="Console", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.services = services
    app.state.progress_feed = feed
    app.state.board = Board(services)
    app.mount("/static", Files(directory=views.STATIC), name="static")
    for router in rooms():
        app.include_router(router)
    _install_refusals(app)
    return app


def _install_refusals(app: FastAPI) -> None:
    @app.exception_handler(SignInNeeded)
    async def _sign_in(request: Request, error: SignInNeeded) -> Response:
        if request.headers.get("x-requested-with") == "fetch":
            return Response(status_code=401, headers={"Cache-Control": "no-store"})
        answer = door.see_other(door.sign_in_path(error.back))
        if request.method == "POST":
            done.note(answer, "lost")
        return answer

    @app.exception_handler(Repeated)
    async def _repeated(request: Request, error: Repeated) -> Response:
        return _refusal(
            request,
            409,
            "You have sent this form already",
            "What it did has been done once, and nothing was done now.",
            onward=(error.location, "See what it led to"),
        )

    for kind, (status, title) in _TITLES.items():
        app.add_exception_handler(kind, _teller(status, title))
    app.add_exception_handler(HTTPException, _no_such_page)
    app.add_exception_handler(Exception, _broken)


def _teller(status: int, title: str) -> Handler:
    async def tell(request: Request, error: Exception) -> Response:
        return _refusal(request, status, title, *_reasons(error), onward=_where(request, status))

    return tell


_PLACES = (
    (re.compile(r"/console(/updates/[0-9a-f-]{36})/"), "Back to the update"),
    (re.compile(r"/console(/incidents/INC-[0-9]+)/"), "Back to the incident"),
)


def _where(request: Request, status: int) -> tuple[str, str] | None:
    """What a refused form was about: there it is seen how things stand now."""
    if request.method == "POST" and status != 404:
        for place, words in _PLACES:
            if found := place.match(request.url.path):
                return found[1], words
    return None


_TITLES: dict[type[Exception], tuple[int, str]] = {
    Invalid: (422, "This cannot be right"),
    Refused: (422, "The messages have errors"),
    Conflict: (409, "This cannot be done now"),
    Stale: (409, "Somebody else has changed this"),
    NotFound: (404, "There is no such page"),
    NotAllowed: (403, "You may not do this"),
    Unbelieved: (403, "This form is out of date"),
    Unreadable: (400, "The form cannot be read"),
    StillRunning: (409, "This is being done already"),
    LedgerFull: (503, "The database has no room"),
    LedgerAway: (503, "The database cannot be reached"),
    RequestValidationError: (404, "There is no such page"),
}
"""What a refusal is called; its reasons come from the error itself."""


def _reasons(error: Exception) -> tuple[str, ...]:
    match error:
        case Invalid():
            return tuple(f"{name}: {reason}" for name, reason in error.errors)
        case Refused():
            return tuple(f"{where}: {problem.message}" for where, problem in error.problems[:50])
        case Unbelieved():
            return (
                "It was opened before you signed in, or by another page. Go back, open the page"
                " again and send it anew. Nothing was done.",
            )
        case LedgerAway():
            return ("Nothing was changed. Try again in a moment; what is being sent goes on.",)
        case StillRunning():
            return ("Wait a moment, then look at the page again: it is done once.",)
        case RequestValidationError():
            return ("The address does not lead anywhere.",)
        case _:
            return (_sentence(str(error)),)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _refusal(
    request: Request,
    status: int,
    title: str,
    *reasons: str,
    onward: tuple[str, str] | None = None,
) -> Response:
    """A page that says what was refused and why. Nobody's name is on it: it may be nobody."""
    return views.page(
        request,
        "error.html",
        None,
        status=status,
        title=title,
        reasons=reasons,
        onward=onward,
    )


async def _no_such_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return _refusal(request, status, "There is no such page", "The address does not lead anywhere.")


async def _broken(request: Request, error: Exception) -> Response:
    """What nobody foresaw; the outermost layer logs it."""
    told = "It was logged, and nothing of what you sent was stored. What is being sent goes on."
    return _refusal(request, 500, "Something went wrong on our side", told)

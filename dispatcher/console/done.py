"""What has just been done, said once on the page that follows.

Owns the sentences and the cookie that carries the name of one of them to the next page. It
holds no text of anybody's: a name that is not listed says nothing.
"""

from collections.abc import Mapping

from fastapi import Request
from starlette.responses import Response

COOKIE = "done"
LASTS = 30
"""Seconds within which the next page has to come, or nothing is said."""
_PATH = "/console"

SAID: Mapping[str, tuple[str, str]] = {
    # A kind of notice, and the sentence in it.
    "saved": ("good", "Saved as a draft. Nobody has been told."),
    "submitted": ("good", "Submitted. Nobody has been told yet."),
    "sent": ("good", "Submitted. What needs no approval is released: watch it go out."),
    "returned": ("good", "Returned to its author, with your reason. Nobody was told."),
    "approved": ("good", "Approved. It goes out when somebody releases it."),
    "approved-sent": ("good", "Approved and released: watch it go out."),
    "released": ("good", "Released: watch it go out."),
    "forced": ("warn", "Released without approval. It is on record, with your reason."),
    "withdrawn": ("good", "Withdrawn. What was not released will not be sent."),
    "reopened": ("good", "This incident is open again."),
    "signed-out": ("good", "You are signed out."),
    "lost": (
        "warn",
        "Your session had ended, so what you just sent was not done. Sign in, then do it again.",
    ),
}


def note(response: Response, word: str) -> None:
    """Have the next page say it."""
    assert word in SAID, word
    response.set_cookie(COOKIE, word, max_age=LASTS, path=_PATH, httponly=True, samesite="strict")


def noted(request: Request) -> tuple[str, str] | None:
    """The notice that this page has to show, if something was just done."""
    return SAID.get(request.cookies.get(COOKIE, "")) if request.method == "GET" else None


def clear(response: Response) -> None:
    """Not on another page as well."""
    response.delete_cookie(COOKIE, path=_PATH, httponly=True, samesite="strict")

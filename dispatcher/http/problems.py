"""Every refusal as `application/problem+json` (RFC 9457).

Owns the mapping from the engine's exceptions to status, type and headers. A problem names
fields and reasons and never repeats what was sent: not a value, not a body, not a key.
"""

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from dispatcher.acts import Conflict, Invalid, NotFound, Refused
from dispatcher.contacts import ContactError
from dispatcher.http.reasons import errors_of, invalid_json
from dispatcher.ledger.connection import LedgerAway, LedgerFull
from dispatcher.ledger.idempotency import KeyReused, StillRunning
from dispatcher.ledger.recipients import ImportBusy
from dispatcher.recipient_files import FileRefused
from dispatcher.recipients import RecipientInvalid
from dispatcher.security.rights import NotAllowed

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

KINDS: Mapping[str, tuple[int, str]] = {
    "bad-request": (400, "The request cannot be read"),
    "invalid-json": (400, "The body is not JSON"),
    "not-believed": (403, "The sender cannot be believed"),
    "unauthorised": (401, "A valid key is needed"),
    "not-allowed": (403, "The key may not do this"),
    "not-found": (404, "There is no such thing"),
    "method-not-allowed": (405, "This path has no such method"),
    "conflict": (409, "Not in a state for this"),
    "similar-open": (409, "A similar incident is open"),
    "idempotency-key-reused": (409, "The key was used for another body"),
    "idempotency-still-running": (409, "The first request with this key is still running"),
    "import-running": (409, "Another import is running"),
    "too-large": (413, "The body is too large"),
    "wrong-content-type": (415, "The body has the wrong content type"),
    "invalid": (422, "The request is not valid"),
    "refused": (422, "The messages have errors"),
    "internal": (500, "Something went wrong on our side"),
    "database-away": (503, "The database cannot be reached"),
    "disk-full": (503, "The database has no room"),
    "not-configured": (503, "This is not configured here"),
    "overloaded": (503, "Too much waits at once"),
}
"""Every kind of problem with its status and title. A conflict's own code stands for `conflict`."""


SCHEMA: Mapping[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457. `errors` names each wrong field of a request that is not valid.",
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
    },
}


class HttpProblem(Exception):
    """A refusal that only the HTTP edge knows. `kind` is one of `KINDS`."""

    def __init__(
        self, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members


def answer(
    kind: str,
    detail: str,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """One problem document; `members` are added to the standard ones."""
    usual, title = KINDS.get(kind, KINDS["conflict"])
    document = {
        "type": f"/problems/{kind}",
        "title": title,
        "status": status or usual,
        "detail": detail,
        **members,
    }
    return Response(
        orjson.dumps(document),
        status_code=status or usual,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def invalid(errors: list[dict[str, Any]]) -> Response:
    """A 422 that names each wrong field."""
    fields = ", ".join(dict.fromkeys(error["field"] or "the body" for error in errors))
    return answer("invalid", f"Not valid: {fields}. Nothing was stored.", errors=errors)


def _field_errors(pairs: tuple[tuple[str, str], ...]) -> list[dict[str, Any]]:
    return [{"field": field, "reason": reason} for field, reason in pairs]


# From exceptions to documents


def _http(error: HTTPException) -> Response:
    kind = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}.get(error.status_code)
    if kind is None:
        kind = "bad-request" if error.status_code < 500 else "internal"
    title = HTTPStatus(error.status_code).phrase
    detail = "There is no such path." if error.status_code == 404 else f"{title}."
    return answer(kind, detail, status=error.status_code, headers=error.headers)


def _validation(error: RequestValidationError) -> Response:
    found = error.errors()
    at = invalid_json(found)
    if at is not None:
        return answer("invalid-json", f"The body is not JSON: it breaks at position {at}.")
    return invalid(errors_of(found))


def _field_behind(problem: Mapping[str, str]) -> str:
    """Which field of the update a person would change to mend a message."""
    if problem["code"] in ("text_missing", "unknown_text_slot"):
        return f"update.texts.{problem['part']}"
    return "update.facts" if problem["code"] == "fact_missing" else "update"


def _refused(error: Refused) -> Response:
    problems = [
        {
            "where": where,
            "severity": problem.severity.value,
            "code": problem.code,
            "part": problem.part,
            "message": problem.message,
        }
        for where, problem in error.problems
    ]
    errors = [
        {"field": _field_behind(p), "reason": f"{p['where']}: {p['message']}"} for p in problems
    ]
    detail = f"{len(problems)} messages cannot be sent as they are. Nothing was stored."
    return answer("refused", detail, errors=errors, problems=problems)


def _conflict(error: Conflict) -> Response:
    return answer(error.code, str(error), status=409, conflict=error.detail)


def _file(error: FileRefused) -> Response:
    return invalid(
        [
            {"field": e.column or "body", "reason": e.message, "line": e.line, "code": e.code}
            for e in error.errors
        ]
    )


def _away(error: LedgerAway) -> Response:
    kind, why = "database-away", "cannot be reached now"
    if isinstance(error, LedgerFull):
        log.error("ledger.full")
        kind, why = "disk-full", "has no room left on its disk"
    detail = f"The database {why}. Nothing was stored; try again."
    return answer(kind, detail, headers={"Retry-After": "5"})


def _running(error: StillRunning) -> Response:
    detail = "The first request with this Idempotency-Key has not finished; try again."
    return answer("idempotency-still-running", detail, headers={"Retry-After": "1"})


def _reused(error: KeyReused) -> Response:
    detail = "This Idempotency-Key was used here for another body within 24 hours."
    return answer("idempotency-key-reused", detail)


ANSWERS: Mapping[type[Exception], Callable[[Any], Response]] = {
    HttpProblem: lambda e: answer(e.kind, e.detail, headers=e.headers, **e.members),
    HTTPException: _http,
    ClientDisconnect: lambda _: answer("bad-request", "The body broke off."),
    RequestValidationError: _validation,
    Invalid: lambda e: invalid(_field_errors(e.errors)),
    Refused: _refused,
    Conflict: _conflict,
    NotFound: lambda e: answer("not-found", f"There is {e}."),
    NotAllowed: lambda e: answer("not-allowed", f"{str(e)[:1].upper()}{str(e)[1:]}."),
    LedgerAway: _away,
    KeyReused: _reused,
    StillRunning: _running,
    ContactError: lambda e: invalid([{"field": "address", "reason": str(e)}]),
    RecipientInvalid: lambda e: invalid(
        [{"field": f.column, "reason": f.message} for f in e.faults]
    ),
    FileRefused: _file,
    ImportBusy: lambda e: answer(
        "import-running", "Another import is running.", headers={"Retry-After": "5"}
    ),
}


def _handler(
    told: Callable[[Any], Response],
) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handle(request: Request, error: Exception) -> Response:
        return told(error)

    return handle


def install(app: FastAPI) -> None:
    """Answer each known exception with its document."""
    for kind, told in ANSWERS.items():
        app.add_exception_handler(kind, _handler(told))

"""The import of recipients: a stream of any length, read as it comes, in constant memory.

The import itself runs in a thread and asks for one block after the other, so that a slow
database slows the sender down instead of filling memory.
"""

from collections.abc import Iterator
from typing import Annotated

from anyio import CapacityLimiter, from_thread, to_thread
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from dispatcher.http.desk import Desk, holding
from dispatcher.http.directory import known_values
from dispatcher.http.problems import HttpProblem
from dispatcher.recipient_files import COLUMNS, Form
from dispatcher.recipients import MAX_ERRORS, ImportResult, Mode, import_stream
from dispatcher.security.rights import Actor, Scope

router = APIRouter(prefix="/v1", tags=["recipients"])

FORMS = {
    "text/csv": Form.CSV,
    "application/x-ndjson": Form.NDJSON,
    "application/ndjson": Form.NDJSON,
    "application/jsonl": Form.NDJSON,
}
MAX_IMPORTS = 4
"""Imports under way in one process, the one that runs and those that are being refused."""

_EXAMPLE = ",".join(COLUMNS)


class LineErrorShown(BaseModel):
    """One thing wrong with one line, without the value. `column` is empty for a whole line."""

    model_config = ConfigDict(from_attributes=True)

    line: int
    column: str
    code: str
    message: str


class Imported(BaseModel):
    """What an import did: `lines = added + changed + unchanged + refused`."""

    model_config = ConfigDict(from_attributes=True)

    lines: int
    added: int
    changed: int
    unchanged: int
    removed: int
    refused: int
    error_count: int
    errors: list[LineErrorShown] = Field(description=f"The first {MAX_ERRORS}.")
    withheld: str = Field(description="Why `mode=replace` removed nobody; empty if it was free to.")


@router.post(
    "/recipients/import",
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": f"UTF-8, columns `{_EXAMPLE}`; `;` inside lists.",
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        }
    },
)
async def import_recipients(
    request: Request,
    services: Desk,
    actor: Annotated[Actor, Depends(holding(Scope.RECIPIENTS_WRITE))],
    mode: Annotated[
        Mode, Query(description="`replace` also removes whom the file does not hold.")
    ] = Mode.MERGE,
) -> Imported:
    """Take in a file of recipients. Good lines are kept, wrong ones reported by number.

    The same file again changes nothing. One import runs at a time.
    """
    form = _form(request.headers.get("content-type", ""))
    stream = request.stream().__aiter__()

    async def block() -> bytes:
        return await anext(stream, b"")

    def blocks() -> Iterator[bytes]:
        # Starlette ends a stream with an empty block; one may not occur before.
        while taken := from_thread.run(block):
            yield taken

    def work() -> ImportResult:
        return import_stream(
            services.ledger,
            services.sealer,
            blocks(),
            form=form,
            mode=mode,
            known=known_values(services),
            actor=actor.id,
        )

    limiter: CapacityLimiter = request.app.state.imports
    return Imported.model_validate(await to_thread.run_sync(work, limiter=limiter))


def _form(content_type: str) -> Form:
    media_type, _, parameters = content_type.partition(";")
    form = FORMS.get(media_type.strip().lower())
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if form is None or charset not in ("", "utf-8", "utf8"):
        raise HttpProblem(
            "wrong-content-type", "Send the file as text/csv or application/x-ndjson, in UTF-8."
        )
    return form

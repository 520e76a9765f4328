"""What a JSON call's body may be before anybody looks into it: its size and its type."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from dispatcher.http.problems import HttpProblem

MAX_BODY_BYTES = 1_000_000
"""The largest body of a JSON call; a stream of recipients is not one."""

MAX_DRAINED_BYTES = 16_000_000
"""How much of a body that is too large is read, and dropped, so that its sender, who may
listen only once everything is sent, gets an answer and not a broken connection."""


class JsonRoute(APIRoute):
    """A route whose body, if it has one, is JSON of at most `MAX_BODY_BYTES`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            await _admit(request)
            return await handle(request)

        return guarded


async def _admit(request: Request) -> None:
    blocks: list[bytes] = []
    size = 0
    async for block in request.stream():
        size += len(block)
        if size <= MAX_BODY_BYTES:
            blocks.append(block)
        elif size > MAX_DRAINED_BYTES:
            break
    if size > MAX_BODY_BYTES:
        raise HttpProblem(
            "too-large",
            f"The body may have at most {MAX_BODY_BYTES} bytes.",
            headers={"Connection": "close"},
        )
    # Starlette's own cache: whoever asks this request for its body gets it from here.
    request._body = b"".join(blocks)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if size and media_type != "application/json":
        raise HttpProblem("wrong-content-type", "Send the body as application/json.")

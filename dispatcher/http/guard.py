"""What a JSON call's body may be before anybody looks into it: its size and its type."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from dispatcher.http.problems import HttpProblem

MAX_BODY_BYTES = 1_000_000
"""The largest body of a JSON call; a stream of recipients is not one."""


class JsonRoute(APIRoute):
    """A route whose body, if it has one, is JSON of at most `MAX_BODY_BYTES`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            await _admit(request)
            return await handle(request)

        return guarded


async def _admit(request: Request) -> None:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    blocks: list[bytes] = []
    size = 0
    async for block in request.stream():
        size += len(block)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        blocks.append(block)
    # Starlette's own cache: whoever asks this request for its body gets it from here.
    request._body = b"".join(blocks)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if size and media_type != "application/json":
        raise HttpProblem("wrong-content-type", "Send the body as application/json.")


def _too_large() -> HttpProblem:
    # The rest is not read: the connection cannot be used again.
    return HttpProblem(
        "too-large",
        f"The body may have at most {MAX_BODY_BYTES} bytes.",
        headers={"Connection": "close"},
    )

"""The outermost layer: one log line and one figure a request, and nothing escapes.

A line holds method, route and status, never a path as sent, a query, a header or a body:
ids of recipients stand in paths and tokens in queries. Of an unforeseen exception it logs
type and places; what it says may quote a row.
"""

import time
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dispatcher.http.metrics import Metrics
from dispatcher.http.problems import answer

log = structlog.get_logger(__name__)

_QUIET = frozenset({"/healthz", "/metrics", "/v1/receipts/{adapter}"})
"""Routes without a line of their own: asked all the time, or thousands of times a second."""
_NAMED = ("incident", "update")


class Access:
    """Wraps an app. Streams are logged when they end and are not timed as requests."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._timed: dict[tuple[str, str, int], Histogram] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answered: dict[str, Any] = {"status": 0, "stream": False}

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered["status"] = message["status"]
                headers = dict(message.get("headers", ()))
                answered["stream"] = headers.get(b"content-type", b"").startswith(b"text/event-s")
            await send(message)

        try:
            await self._app(scope, receive, tell)
        except Exception as error:
            # Not `log.exception`: its message may quote a row.
            log.error(  # noqa: TRY400
                "http.failed", route=_route(scope), error=_chain(error), at=_frames(error)
            )
            if not answered["status"]:
                problem = answer("internal", "It was logged. Nothing of it was stored.")
                await problem(scope, receive, tell)
        finally:
            self._note(scope, answered, time.perf_counter() - began)

    def _note(self, scope: Scope, answered: dict[str, Any], seconds: float) -> None:
        route, status = _route(scope), answered["status"]
        if not answered["stream"]:
            named = (_method(scope), route, status)
            timed = self._timed.get(named)
            if timed is None:
                timed = self._timed[named] = self._metrics.requests.labels(*named)
            timed.observe(seconds)
        if route not in _QUIET:
            log.info(
                "http.request",
                method=_method(scope),
                route=route,
                status=status,
                ms=round(seconds * 1000, 1),
                **_named(scope),
            )


def _method(scope: MutableMapping[str, Any]) -> str:
    method: str = scope["method"]
    return method if method in ("GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS") else "other"


def _route(scope: MutableMapping[str, Any]) -> str:
    # The console is mounted: its own routes begin below where it is.
    path: str | None = getattr(scope.get("route"), "path", None)
    return "unmatched" if path is None else f"{scope.get('root_path', '')}{path}"


def _named(scope: MutableMapping[str, Any]) -> dict[str, str]:
    """Which incident or update, if the call named one by something like an id."""
    given: dict[str, Any] = scope.get("path_params", {})
    return {
        name: given[name]
        for name in _NAMED
        if name in given and len(given[name]) <= 36 and given[name].replace("-", "").isalnum()
    }


def _chain(error: BaseException | None) -> str:
    names = []
    while error is not None:
        names.append(type(error).__qualname__)
        error = error.__cause__ or error.__context__
    return " < ".join(names)


def _frames(error: BaseException) -> list[str]:
    return [
        f"{frame.filename}:{frame.lineno} {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__)
    ][-12:]

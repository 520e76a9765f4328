"""`POST /v1/receipts/{adapter}`: providers call back, verified by their own signatures.

Owns how a request is read, judged by size, and answered once it is durable. There are three
for every message, so this route goes past the framework's dependencies, and what arrives
within a few milliseconds is written by one transaction. It must not know what receipts mean.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from channels.contract import (
    Adapter,
    Reading,
    ReceiptReader,
    ReceiptRefused,
    ReceiptRequest,
)
from dispatcher.delivery.intake import Told
from dispatcher.http.problems import answer
from dispatcher.ledger import receipts
from dispatcher.ledger.connection import Ledger, LedgerAway, LedgerRefused

log = structlog.get_logger(__name__)

PATH = "/v1/receipts/{adapter}"
_BEFORE = PATH.rpartition("/")[0]
MAX_BYTES = 5_000_000
"""SendGrid sends up to 768 KB at a time; the rest is room."""
BY_THREAD = 65_536
"""A body beyond this is read in a thread, so that no other request waits for it."""
GATHER = 0.005
"""Seconds in which requests are gathered for one transaction: half of what an answer may take.
A transaction for each costs five times as much as the request itself."""
ENOUGH = 12
"""As many are not kept waiting for others."""
TOGETHER = 500
MOST_WAITING = 20_000
"""Requests held at once; more are told to come back."""

_REFUSALS: Mapping[str, tuple[str, str]] = {
    "forged": ("not-believed", "The signature is not the provider's."),
    "unsigned": ("not-believed", "The request is not signed."),
    "too_old": ("not-believed", "The signature is too old."),
    "unreadable": ("bad-request", "The body cannot be read."),
    "not_configured": ("not-configured", "This adapter cannot verify receipts yet."),
}
_START = {
    "type": "http.response.start",
    "status": 204,
    "headers": [(b"cache-control", b"no-store")],
}
_END = {"type": "http.response.body", "body": b""}


class Overloaded(Exception):
    """More requests wait than may be held."""


class Together:
    """Writes what is told at the same time in one transaction, and tells each when it stands."""

    def __init__(self, write: Callable[[Sequence[Told]], None], *, gather: float = GATHER) -> None:
        self._write = write
        self._gather = gather
        self._waiting: list[tuple[Told, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._gathered: asyncio.Future[None] | None = None

    async def keep(self, told: Told) -> None:
        """Return when it is durable. Raises what writing raised, and `Overloaded`."""
        if len(self._waiting) >= MOST_WAITING:
            raise Overloaded
        stands: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((told, stands))
        if self._writer is None:
            self._writer = asyncio.create_task(self._run())
        elif len(self._waiting) >= ENOUGH:
            self._go()
        await stands

    def _go(self) -> None:
        if self._gathered is not None and not self._gathered.done():
            self._gathered.set_result(None)

    async def _run(self) -> None:
        try:
            while self._waiting:
                if len(self._waiting) < ENOUGH:
                    await self._others()
                group = self._waiting[:TOGETHER]
                del self._waiting[:TOGETHER]
                await self._commit(group)
        finally:
            self._writer = None

    async def _others(self) -> None:
        """Wait for others to share the same commit, not for long."""
        loop = asyncio.get_running_loop()
        self._gathered = loop.create_future()
        latest = loop.call_later(self._gather, self._go)
        try:
            await self._gathered
        finally:
            latest.cancel()
            self._gathered = None

    async def _commit(self, group: Sequence[tuple[Told, asyncio.Future[None]]]) -> None:
        error = await self._try([told for told, _ in group])
        for told, stands in group:
            # What the database will never take must not cost the others their place.
            alone = (
                await self._try([told])
                if isinstance(error, LedgerRefused) and len(group) > 1
                else error
            )
            if stands.done():
                continue
            if alone is None:
                stands.set_result(None)
            else:
                stands.set_exception(alone)

    async def _try(self, group: Sequence[Told]) -> Exception | None:
        try:
            await asyncio.get_running_loop().run_in_executor(None, self._write, group)
        # Handed on to each who waits.
        except Exception as error:
            return error
        return None


class _Called:
    """What the access log and figures call this route."""

    path = PATH


class Receipts:
    """The ASGI app of the route. `public_url` is where providers were told to call."""

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        write: Callable[[Sequence[Told]], None],
        *,
        public_url: str | None,
        registry: CollectorRegistry,
    ) -> None:
        self._readers = {n: a for n, a in adapters.items() if isinstance(a, ReceiptReader)}
        self._public_url = public_url.rstrip("/") if public_url else None
        self._together = Together(write)
        self._requests = Counter(
            "dispatcher_receipt_requests",
            "Providers' requests by what became of them: kept, or why not.",
            ["adapter", "result"],
            registry=registry,
        )
        self._counted: dict[tuple[str, str], Counter] = {}

    def route(self) -> Route:
        """For whatever does not come by `Shortcut`."""
        return Route(PATH, self, methods=["POST"], name="receipts")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = _Called
        name = scope["path_params"]["adapter"]
        reader = self._readers.get(name)
        if reader is None:
            self._count("unknown", "unknown_adapter")
            problem: tuple[str, str] | None = ("not-found", "No such adapter takes receipts.")
        else:
            result, problem = await self._take(name, reader, scope, receive)
            self._count(name, result)
        if problem is None:
            await send(_START)
            await send(_END)
            return
        kind, words = problem
        headers = {"Retry-After": "5"} if kind in ("database-away", "overloaded") else None
        await answer(kind, words, headers=headers)(scope, receive, send)

    async def _take(
        self, name: str, reader: ReceiptReader, scope: Scope, receive: Receive
    ) -> tuple[str, tuple[str, str] | None]:
        """What became of a request in one word, and the problem to answer with, if any."""
        if self._public_url is None:
            words = "DISPATCHER_PUBLIC_URL is not set: no callback was asked for."
            return "not_configured", ("not-configured", words)
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }
        if headers.get("content-encoding", "identity") != "identity":
            return "compressed", ("wrong-content-type", "Send the body uncompressed.")
        try:
            body = await _body(receive)
            if body is None:
                return "too_large", ("too-large", f"The body may have at most {MAX_BYTES} bytes.")
            request = ReceiptRequest(scope["method"], self._url(scope), headers, body)
            reading = await self._read(reader, request)
        except ReceiptRefused as refused:
            kind, words = _REFUSALS.get(refused.code, _REFUSALS["unreadable"])
            return refused.code, (kind, words)
        try:
            await self._together.keep(Told(name, request, reading))
        except LedgerAway:
            words = "The database cannot be reached now. Nothing was stored; try again."
            return "database_away", ("database-away", words)
        except Overloaded:
            return "overloaded", ("overloaded", "Too many requests wait; try again.")
        return "kept", None

    async def _read(self, reader: ReceiptReader, request: ReceiptRequest) -> Reading:
        now = datetime.now(UTC)
        if len(request.body) <= BY_THREAD:
            return reader.read(request, now=now)
        return await asyncio.to_thread(reader.read, request, now=now)

    def _url(self, scope: Scope) -> str:
        query = scope["query_string"]
        path = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        return (
            f"{self._public_url}{path}?{query.decode('latin-1')}"
            if query
            else (f"{self._public_url}{path}")
        )

    def _count(self, adapter: str, result: str) -> None:
        counted = self._counted.get((adapter, result))
        if counted is None:
            counted = self._counted[adapter, result] = self._requests.labels(adapter, result)
        counted.inc()


class Shortcut:
    """Leads providers' requests past the framework and its layers, which cost as much again.

    `called` is the route's app, `otherwise` the framework's.
    """

    def __init__(self, *, called: ASGIApp, otherwise: ASGIApp) -> None:
        self._called = called
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            before, _, adapter = scope["path"].rpartition("/")
            if before == _BEFORE:
                scope["path_params"] = {"adapter": adapter}
                await self._called(scope, receive, send)
                return
        await self._otherwise(scope, receive, send)


async def _body(receive: Receive) -> bytes | None:
    """The body, None if it is too large. Raises `ReceiptRefused` if it breaks off."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ReceiptRefused("unreadable", "the body broke off")
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BYTES:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


class Figures(Collector):
    """Events by result, out of the ledger: the same on whichever process one asks."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> list[Metric]:
        try:
            with self._ledger.read() as conn:
                found = receipts.figures(conn)
        except LedgerAway:
            return []
        events = CounterMetricFamily(
            "dispatcher_receipt_events",
            "Events in receipts by what became of them; second_ref is a duplicate's evidence.",
            labels=["adapter", "result"],
        )
        for (adapter, result), count in found.totals.items():
            events.add_metric([adapter, result], count)
        waiting = GaugeMetricFamily(
            "dispatcher_receipts_waiting", "Events kept and not worked off, up to 10,000."
        )
        waiting.add_metric([], found.waiting)
        oldest = GaugeMetricFamily(
            "dispatcher_receipts_oldest_seconds", "Age of the oldest event not worked off."
        )
        oldest.add_metric([], found.oldest_seconds)
        return [events, waiting, oldest]


DOCUMENT: Mapping[str, Any] = {
    "post": {
        "tags": ["receipts"],
        "summary": "Receive Receipt",
        "description": "A provider's callback, in the provider's own form and verified by its"
        " own signature over the public URL; no key. Answered once it is durable.",
        "operationId": "receive_receipt",
        "parameters": [
            {"name": "adapter", "in": "path", "required": True, "schema": {"type": "string"}}
        ],
        "responses": {
            "204": {"description": "Kept."},
            "default": {
                "description": "A problem document (RFC 9457).",
                "content": {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                },
            },
        },
    }
}
"""What the OpenAPI document says of the route, which the framework does not see."""

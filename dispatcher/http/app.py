"""The HTTP app, made of its calls for given services."""

from typing import Any

from anyio import CapacityLimiter
from fastapi import FastAPI
from starlette.types import Lifespan, Receive, Scope, Send

from dispatcher.http import (
    deliveries,
    directory,
    health,
    imports,
    inbox,
    incidents,
    metrics,
    pages,
    previews,
    problems,
    receipts,
    updates,
)
from dispatcher.http.access import Access
from dispatcher.http.events import ProgressFeed
from dispatcher.http.inbox import InboxFeed
from dispatcher.http.metrics import Metrics
from dispatcher.http.streams import POLL_SECONDS
from dispatcher.http.watching import Known
from dispatcher.wiring import Services

DESCRIPTION = (
    "Tells everybody who has to know when a network breaks. An incident is opened with an"
    " update; each update is rendered once, approved by its content hash, released per"
    " audience, and followed in the ledger until it is complete. Send a key as"
    " `Authorization: Bearer …`. Errors are application/problem+json and name the fields that"
    " are wrong. Calls that change something take an Idempotency-Key."
)
_TAGS = [
    {"name": "incidents", "description": "What broke, and what is said of it."},
    {"name": "updates", "description": "What goes out, and how far it has got."},
    {"name": "recipients", "description": "Who can be told, and who must not be."},
    {"name": "inbox", "description": "In-app messages, as a person's app sees them."},
    {"name": "receipts", "description": "What providers say later."},
    {"name": "health", "description": "Whether it works."},
]
_PROBLEM: dict[int | str, dict[str, Any]] = {
    "default": {
        "description": "A problem document (RFC 9457).",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
}


class Api(FastAPI):
    """The app, whose OpenAPI document also tells what a problem looks like.

    `shortcut` is asked first, once it is there.
    """

    shortcut: receipts.Shortcut | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.shortcut is None:
            await super().__call__(scope, receive, send)
        else:
            await self.shortcut(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        fresh = self.openapi_schema is None
        document = super().openapi()
        if fresh:
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            schemas["Problem"] = problems.SCHEMA
            document["paths"][receipts.PATH] = receipts.DOCUMENT
        return document


def create_app(
    services: Services,
    *,
    poll_seconds: float = POLL_SECONDS,
    lifespan: Lifespan[FastAPI] | None = None,
) -> FastAPI:
    """The app for these services. `poll_seconds`: how often open streams look for news."""
    app = Api(
        title="Outage Dispatcher",
        version="1",
        description=DESCRIPTION,
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        responses=_PROBLEM,
        lifespan=lifespan,
    )
    app.state.services = services
    app.state.metrics = Metrics(services)
    app.state.known_keys = Known()
    app.state.progress_feed = ProgressFeed(services, interval=poll_seconds)
    app.state.inbox_feed = InboxFeed(services.ledger, interval=poll_seconds)
    app.state.imports = CapacityLimiter(imports.MAX_IMPORTS)
    called = receipts.Receipts(
        services.adapters,
        services.intake.write,
        public_url=services.settings.public_url,
        registry=app.state.metrics.registry,
    )
    app.router.routes.insert(0, called.route())
    app.state.metrics.ledger.register(receipts.Figures(services.ledger))
    for part in (
        incidents,
        previews,
        updates,
        deliveries,
        imports,
        directory,
        inbox,
        health,
        metrics,
        pages,
    ):
        app.include_router(part.router)
    problems.install(app)
    app.add_middleware(Access, metrics=app.state.metrics)
    app.shortcut = receipts.Shortcut(
        called=Access(called, metrics=app.state.metrics), otherwise=super(Api, app).__call__
    )
    return app

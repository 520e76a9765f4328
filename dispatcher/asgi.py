"""The ASGI app as a process runs it: `uvicorn --factory dispatcher.asgi:create`.

Reads the settings when it is called, not when it is imported. Open event streams end only
with their watchers, so run it with `--timeout-graceful-shutdown`; access lines are our own,
so run it with `--no-access-log`.
"""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.responses import RedirectResponse

from dispatcher import logs, settings, wiring
from dispatcher.console import views
from dispatcher.console.app import create_console
from dispatcher.console.door import ROOT
from dispatcher.http.app import create_app
from dispatcher.wiring import Services


def create() -> FastAPI:
    """The app for this process's settings. Raises what `settings` and `wiring` raise."""
    given = settings.load()
    logs.configure(given.log_level, given.log_format)
    app = of(wiring.build(given))
    views.warm()
    # What is there by now stays: each look through it takes tens of milliseconds, in which
    # nobody is answered.
    gc.collect()
    gc.freeze()
    return app


def of(services: Services) -> FastAPI:
    """The app for these services, which it prepares at its start and closes at its end."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        wiring.prepare(services)
        yield
        services.ledger.close()

    app = create_app(services, lifespan=lifespan)
    app.mount(ROOT, create_console(services, app.state.progress_feed), name="console")
    app.add_api_route("/", _to_console, include_in_schema=False)
    return app


async def _to_console() -> RedirectResponse:
    """Who comes by browser without a path wants the console."""
    return RedirectResponse(f"{ROOT}/", status_code=303)

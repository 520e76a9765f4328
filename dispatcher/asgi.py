"""The ASGI app as a process runs it: `uvicorn --factory dispatcher.asgi:create`.

Reads the settings when it is called, not when it is imported. Open event streams end only
with their watchers, so run it with `--timeout-graceful-shutdown`; access lines are our own,
so run it with `--no-access-log`.
"""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from dispatcher import logs, settings, wiring
from dispatcher.http.app import create_app
from dispatcher.wiring import Services


def create() -> FastAPI:
    """The app for this process's settings. Raises what `settings` and `wiring` raise."""
    given = settings.load()
    logs.configure(given.log_level, given.log_format)
    app = of(wiring.build(given))
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

    # The console is mounted here, after the API's own paths.
    return create_app(services, lifespan=lifespan)

"""No call of the HTTP interface is open by mistake."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from dispatcher import wiring
from dispatcher.embedded import Addresses
from dispatcher.http.app import create_app
from dispatcher.settings import Settings
from tests.conftest import MASTER_KEY

OPEN = {
    "/healthz": "says that the process lives",
    "/openapi.json": "the interface itself",
    "/docs": "the same in words",
    "/problems/{kind}": "leads to them",
    "/v1/receipts/{adapter}": "verified by the provider's own signature",
    "/inbox": "an empty page: what it shows needs a token",
    "/inbox.js": "the script of that page",
}
METHODS = {"GET", "POST", "PATCH", "PUT", "DELETE"}


@pytest.fixture
def app(stack: Addresses, database_url: str, tmp_path: Path) -> Iterator[Any]:
    services = wiring.build(
        Settings(
            database_url=SecretStr(database_url),
            broker_url=SecretStr(stack.broker_url),
            master_key=SecretStr(MASTER_KEY),
            data_dir=tmp_path,
        )
    )
    yield create_app(services)
    services.ledger.close()


async def test_every_call_asks_for_a_key_or_is_listed(app: Any) -> None:
    calls = [
        (method, route.path)
        for route in _leaves(app.routes)
        for method in sorted((route.methods or set()) & METHODS)
    ]
    assert len(calls) > 25
    unguarded = set()
    inside = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=inside, base_url="http://api") as client:
        for method, path in calls:
            filled = re.sub(r"\{[^}]*\}", "018f0000-0000-7000-8000-000000000000", path)
            # A reader's app has a token instead of a key: here one that nobody gave out.
            answer = await client.request(method, filled, params={"token": "x" * 43})
            if answer.status_code != 401:
                unguarded.add(path)
    assert unguarded == set(OPEN)


def _leaves(routes: Any) -> Iterator[Any]:
    """Routes that answer, whatever they are grouped in."""
    for route in routes:
        inner = getattr(route, "routes", None) or getattr(
            getattr(route, "original_router", None), "routes", None
        )
        if inner:
            yield from _leaves(inner)
        elif getattr(route, "methods", None):
            yield route

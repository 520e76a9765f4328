"""A client that asks an app in this process and waits for the answer, as a browser does."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
from starlette.types import ASGIApp


class Client:
    """Keeps cookies and follows nothing. An error in the app is raised."""

    def __init__(self, app: ASGIApp, base_url: str) -> None:
        self.base_url = base_url
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base_url)

    @property
    def cookies(self) -> httpx.Cookies:
        return self._http.cookies

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._http.request(method, path, **more))

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("POST", path, **more)

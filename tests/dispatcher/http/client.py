"""A plain HTTP client for the tests, and a server that runs an app in a thread."""

import http.client
import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer read whole. Header names in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def fields(self) -> set[str]:
        """Which fields a problem document names."""
        return {error["field"] for error in self.json["errors"]}


class Client:
    """Calls one server, with a key if it was given one."""

    def __init__(self, port: int, key: str | None = None) -> None:
        self.port = port
        self.key = key

    def holding(self, key: str | None) -> "Client":
        return Client(self.port, key)

    def _start(
        self, method: str, path: str, body: bytes | Iterable[bytes] | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        if self.key is not None:
            headers = {"Authorization": f"Bearer {self.key}"} | headers
        link.request(method, path, body=body, headers=headers)
        return link, link.getresponse()

    def send(
        self,
        method: str,
        path: str,
        body: bytes | Iterable[bytes] | None = None,
        **headers: Any,
    ) -> Reply:
        """One call with a body as it is; `Content_Type=` names a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        link, found = self._start(method, path, body, named)
        try:
            sent = {name.lower(): value for name, value in found.getheaders()}
            return Reply(found.status, sent, found.read())
        finally:
            link.close()

    def get(self, path: str, **headers: Any) -> Reply:
        return self.send("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: Any) -> Reply:
        """One call with a JSON body."""
        if body is None:
            return self.send("POST", path, **headers)
        headers = {"Content_Type": "application/json"} | headers
        return self.send("POST", path, json.dumps(body).encode(), **headers)

    @contextmanager
    def stream(self, path: str, **headers: Any) -> Iterator["Events"]:
        """An open event stream."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        link, found = self._start("GET", path, None, named)
        try:
            yield Events(found)
        finally:
            link.close()


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event; a comment has the name "comment"."""

    name: str
    id: str
    data: str

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Events:
    """Server-sent events as they come; `next` waits for one and raises at the end."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.status = response.status
        self.content_type = response.getheader("content-type", "")

    def __iter__(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        for raw in self._response:
            line = raw.decode().rstrip("\n")
            if line.startswith(":"):
                yield Event("comment", "", line[1:].strip())
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                if "data" in fields:
                    yield Event(fields["event"], fields["id"], fields["data"])
                fields = {}


@contextmanager
def serving(app: FastAPI, *, lifespan: Literal["on", "off"] = "off") -> Iterator[int]:
    """The app on a free port, in a thread of its own; open streams are cut at the end."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, access_log=False, lifespan=lifespan
    )
    config.timeout_graceful_shutdown = 1
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="api", daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=20)

"""A receiver of webhooks for the tests: keeps every request, answers what it is told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import orjson


@dataclass(frozen=True, slots=True)
class Got:
    """One request. `url` is what the sender was given."""

    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=True))

    @property
    def events(self) -> list[dict[str, Any]]:
        return orjson.loads(self.body)


class Receiver:
    """Its `url`, what it `got`, and the statuses it answers next (204 when there are none)."""

    def __init__(self) -> None:
        self.url = ""
        self.got: list[Got] = []
        self.statuses: list[int] = []
        self.connections = 0

    @property
    def forms(self) -> list[dict[str, str]]:
        return [each.form for each in self.got]

    def forms_of(self, sid: str) -> list[dict[str, str]]:
        return [form for form in self.forms if form["MessageSid"] == sid]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for each in self.got for event in each.events]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            receiver.connections += 1
            super().setup()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.got.append(Got(f"http://{headers['host']}{self.path}", headers, body))
            status = receiver.statuses.pop(0) if receiver.statuses else 204
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

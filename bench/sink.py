"""A sink that takes every message: one process, cheaper than whatever is measured on it.

It answers as Twilio's Messages resource and SendGrid's Mail Send do, and counts for itself:
how often each address got each text, and when requests arrived (the system-wide monotonic
clock). It must know nothing of the dispatcher, and judges nothing. `serve` is the process,
`Sink` speaks to it, `running` starts one.
"""

import asyncio
import bisect
import json
import os
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus, urlencode

import httpx
import orjson
import uvloop

NAME = "asyncio.Protocol on uvloop, 1 process"

_TWILIO = b"POST /2010-04-01/"
_SENDGRID = b"POST /v3/mail/send"
_SID = b"SM" + b"0" * 32
_ANSWER = json.dumps(
    {
        "account_sid": "AC" + "0" * 32,
        "api_version": "2010-04-01",
        "body": "",
        "date_created": "Thu, 22 Feb 2024 09:30:00 +0000",
        "date_sent": None,
        "date_updated": "Thu, 22 Feb 2024 09:30:00 +0000",
        "direction": "outbound-api",
        "error_code": None,
        "error_message": None,
        "from": None,
        "messaging_service_sid": None,
        "num_media": "0",
        "num_segments": "1",
        "price": None,
        "price_unit": None,
        "sid": _SID.decode(),
        "status": "queued",
        "subresource_uris": {"media": ""},
        "to": "",
        "uri": "",
    }
).encode()
_HEAD, _TAIL = (
    b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: "
    + str(len(_ANSWER)).encode()
    + b"\r\n\r\n"
    + _ANSWER
).split(_SID)


class Counts:
    """What has arrived since the last clearing. `watched` addresses have their moments kept."""

    def __init__(self) -> None:
        self.sids = 0
        self.clear()

    def clear(self) -> None:
        self.texts: dict[bytes, dict[bytes, int]] = {}
        self.arrivals = array("d")
        self.watched: set[bytes] = set()
        self.seen: list[tuple[bytes, float]] = []
        self.sample = b""
        # Who asked to be called back, if that is kept: (number of the sid, address, URL).
        self.callbacks: list[tuple[int, str, str]] | None = None

    def took(self, text: bytes, address: bytes) -> None:
        told = self.texts.get(text)
        if told is None:
            told = self.texts[text] = {}
        told[address] = told.get(address, 0) + 1

    def report(self) -> dict[str, Any]:
        messages = sum(sum(told.values()) for told in self.texts.values())
        pairs = sum(len(told) for told in self.texts.values())
        arrivals = self.arrivals
        return {
            "requests": len(arrivals),
            "messages": messages,
            "duplicates": messages - pairs,
            "texts": len(self.texts),
            "first": arrivals[0] if arrivals else None,
            "last": arrivals[-1] if arrivals else None,
        }


def _field(form: bytes, name: bytes) -> bytes:
    """The raw value of a form's field."""
    start = 0 if form.startswith(name) else form.find(b"&" + name) + 1
    if start == 0 and not form.startswith(name):
        return b""
    start += len(name)
    end = form.find(b"&", start)
    return form[start:] if end < 0 else form[start:end]


class Taker(asyncio.Protocol):
    """One connection."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.held = b""
        self.told_to_continue = False
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.held:
            data = self.held + data
        while data:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                break
            at = data.find(b"ontent-Length:", 0, end)
            if at < 0:
                at = data.find(b"ontent-length:", 0, end)
            whole = end + 4
            if at > 0:
                stop = data.find(b"\r", at)
                whole += int(data[at + 14 : stop])
            if len(data) < whole:
                if not self.told_to_continue and data.find(b"100-continue", 0, end) > 0:
                    self.told_to_continue = True
                    self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                break
            self.told_to_continue = False
            self.take(data[:whole], data[end + 4 : whole])
            data = data[whole:]
        self.held = data

    def take(self, request: bytes, body: bytes) -> None:
        counts = self.counts
        if request.startswith(_TWILIO):
            counts.arrivals.append(time.monotonic())
            address = _field(body, b"To=")
            counts.took(_field(body, b"Body="), address)
            if address in counts.watched:
                counts.seen.append((address, counts.arrivals[-1]))
            if not counts.sample:
                counts.sample = request
            counts.sids += 1
            if counts.callbacks is not None:
                url = unquote_plus(_field(body, b"StatusCallback=").decode())
                counts.callbacks.append((counts.sids, unquote_plus(address.decode()), url))
            self.transport.write(b"%bSM%032x%b" % (_HEAD, counts.sids, _TAIL))
        elif request.startswith(_SENDGRID):
            counts.arrivals.append(time.monotonic())
            mail = orjson.loads(body)
            text = orjson.dumps([mail["subject"], mail["content"]])
            for person in mail["personalizations"]:
                for to in person["to"]:
                    counts.took(text, to["email"].encode())
            counts.sids += 1
            self.transport.write(
                b"HTTP/1.1 202 Accepted\r\nX-Message-Id: m%021x\r\nContent-Length: 0\r\n\r\n"
                % counts.sids
            )
        else:
            self.control(request.split(b" ", 2)[1].decode(), body)

    def control(self, path: str, body: bytes) -> None:
        """The bench's own questions, none of them asked while something is measured."""
        counts = self.counts
        path, _, query = path.partition("?")
        status, answer = b"200 OK", b"{}"
        if path == "/_sink/report":
            answer = orjson.dumps(counts.report())
        elif path == "/_sink/clear":
            counts.clear()
        elif path == "/_sink/after":
            at = bisect.bisect_right(counts.arrivals, float(query))
            answer = orjson.dumps(counts.arrivals[at] if at < len(counts.arrivals) else None)
        elif path == "/_sink/watch":
            counts.watched = {urlencode({"": a})[1:].encode() for a in orjson.loads(body)}
        elif path == "/_sink/watched":
            answer = orjson.dumps([(unquote_plus(a.decode()), t) for a, t in counts.seen])
        elif path == "/_sink/callbacks":
            kept, counts.callbacks = counts.callbacks, []
            answer = orjson.dumps(kept or [])
        elif path == "/_sink/addresses":
            everybody: set[bytes] = set().union(*counts.texts.values())
            answer = unquote_plus(b"\n".join(everybody).decode()).encode()
        elif path == "/_sink/arrivals":
            answer = counts.arrivals.tobytes()
        elif path == "/_sink/sample":
            answer = counts.sample
        else:
            status = b"404 Not Found"
        self.transport.write(
            b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(answer), answer)
        )


def serve(said: Callable[[int], None]) -> None:
    """Take requests on a free loopback port until killed; `said` is told the port."""

    async def main() -> None:
        counts = Counts()
        server = await asyncio.get_running_loop().create_server(
            lambda: Taker(counts), "127.0.0.1", 0, backlog=1024
        )
        said(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(main())


@dataclass(frozen=True, slots=True)
class Sink:
    """A running sink. Moments are `time.monotonic()` of this machine."""

    url: str
    pid: int
    http: httpx.Client

    def clear(self) -> None:
        self.http.post("/_sink/clear").raise_for_status()

    def report(self) -> dict[str, Any]:
        """`requests messages duplicates texts first last`."""
        found: dict[str, Any] = self.http.get("/_sink/report").json()
        return found

    def first_after(self, moment: float) -> float | None:
        """When the first request after a moment arrived."""
        found: float | None = self.http.get(f"/_sink/after?{moment!r}").json()
        return found

    def watch(self, addresses: Sequence[str]) -> None:
        """Keep the moments of these addresses from now on."""
        self.http.post("/_sink/watch", json=list(addresses)).raise_for_status()

    def watched(self) -> list[tuple[str, float]]:
        return [(address, moment) for address, moment in self.http.get("/_sink/watched").json()]

    def keep_callbacks(self) -> None:
        """From now on keep who asks to be called back, for whoever fetches them."""
        self.http.get("/_sink/callbacks").raise_for_status()

    def addresses(self) -> set[str]:
        """Everybody who got anything."""
        return set(self.http.get("/_sink/addresses").text.split("\n")) - {""}

    def arrivals(self) -> "array[float]":
        """When each request arrived, in order."""
        found = array("d")
        found.frombytes(self.http.get("/_sink/arrivals").content)
        return found

    def sample(self) -> bytes:
        """The first request since the last clearing, byte for byte."""
        return self.http.get("/_sink/sample").content


def rate(told: dict[str, Any]) -> float:
    """Messages per second between the first arrival and the last."""
    return float((told["messages"] - 1) / max(told["last"] - told["first"], 1e-9))


@contextmanager
def running() -> Iterator[Sink]:
    """A sink in a process of its own, ended on leaving."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.sink"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        url = f"http://127.0.0.1:{int(process.stdout.readline())}"
        with httpx.Client(base_url=url, timeout=60.0, trust_env=False) as http:
            yield Sink(url, process.pid, http)
    finally:
        process.kill()
        process.communicate()


def _end_with_parent() -> None:
    """End when whoever started us is gone, however it went."""
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    serve(lambda port: print(port, flush=True))

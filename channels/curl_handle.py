"""One request on one libcurl handle: which options, and what its end means.

libcurl repeats a POST by itself when a reused connection closes before the first byte of
the answer. It can do so only if it can rewind the body, so bodies go through READFUNCTION
and there is no seek function: the caller gets an honest `NoAnswer` instead. A request
that changes something and has no body cannot be protected that way and always gets a
connection of its own. HTTP/2 stays off, because a refused stream is repeated as well.
Sockets and time belong to `channels.transport`.
"""

import asyncio
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pycurl

from channels.contract import Reason
from channels.wire import NoAnswer, NotSent, Request, Response, TransportError

SAFE_METHODS = frozenset({"GET", "HEAD"})
STALE_AFTER = 30
"""Seconds after which an idle connection is not reused; many servers close at 60."""


def authorities() -> str:
    """Path of the certificate authorities to trust: the system's, else certifi's.

    libcurl from a wheel carries the path of the machine it was built on.
    """
    places = (
        ssl.get_default_verify_paths().cafile,
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    )
    for place in places:
        if place and Path(place).is_file():
            return place
    import certifi

    return certifi.where()


class CurlHandle:
    """One libcurl handle, which keeps its options, and the request that is on it."""

    __slots__ = (
        "answer",
        "body",
        "curl",
        "fresh",
        "headers",
        "lines",
        "method",
        "overflow",
        "position",
        "received",
        "size",
        "timeout",
        "url",
        "waiter",
        "with_body",
    )

    def __init__(self, *, connect_timeout: float, max_body: int, ca_file: str, proxy: str) -> None:
        self.size = max_body
        self.body = b""
        self.position = self.received = 0
        self.overflow = False
        self.lines: list[bytes] = []
        self.answer: list[bytes] = []
        self.waiter: asyncio.Future[Response] | None = None
        self.method = self.url = ""
        self.headers: Sequence[tuple[str, str]] | None = None
        self.timeout = 0.0
        self.with_body = self.fresh = False
        self.curl: Any = pycurl.Curl()
        for option, value in (
            (pycurl.NOSIGNAL, 1),
            (pycurl.NOPROGRESS, 1),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.NETRC, pycurl.NETRC_IGNORED),
            (pycurl.PROXY, proxy),  # an empty string also switches the environment's off
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.SSL_VERIFYPEER, 1),
            (pycurl.SSL_VERIFYHOST, 2),
            (pycurl.CAINFO, ca_file),
            (pycurl.TCP_KEEPALIVE, 1),
            (pycurl.MAXAGE_CONN, STALE_AFTER),
            (pycurl.CONNECTTIMEOUT_MS, int(connect_timeout * 1000)),
            (pycurl.USERAGENT, "outage-dispatcher"),
            (pycurl.READFUNCTION, self.read),
            (pycurl.WRITEFUNCTION, self.write),
            (pycurl.HEADERFUNCTION, self.lines.append),
        ):
            self.curl.setopt(option, value)

    def read(self, size: int) -> bytes:
        start = self.position
        self.position = start + size
        return (
            self.body if start == 0 and size >= len(self.body) else self.body[start : start + size]
        )

    def write(self, chunk: bytes) -> int | None:
        self.received += len(chunk)
        if self.received > self.size:
            self.overflow = True
            return -1
        self.answer.append(chunk)
        return None

    def load(self, request: Request, seconds: float) -> None:
        """Put a request on the handle, touching only the options that differ."""
        setopt = self.curl.setopt
        body = request.body
        self.body = body
        self.position = self.received = 0
        self.overflow = False
        self.lines.clear()
        self.answer = []
        with_body = bool(body) or request.method not in SAFE_METHODS
        if request.method != self.method or with_body != self.with_body:
            self._load_method(request.method, with_body=with_body)
        if request.url != self.url:
            setopt(pycurl.URL, request.url)
            self.url = request.url
        if request.headers != self.headers:
            setopt(pycurl.HTTPHEADER, header_lines(request.headers))
            self.headers = request.headers
        if with_body:
            setopt(pycurl.POSTFIELDSIZE, len(body))
        fresh = not body and request.method not in SAFE_METHODS
        if fresh != self.fresh:
            setopt(pycurl.FRESH_CONNECT, int(fresh))
            self.fresh = fresh
        if seconds != self.timeout:
            setopt(pycurl.TIMEOUT_MS, max(1, int(seconds * 1000)))
            self.timeout = seconds

    def _load_method(self, method: str, *, with_body: bool) -> None:
        curl = self.curl
        curl.setopt(pycurl.NOBODY, int(method == "HEAD"))
        if with_body:
            curl.setopt(pycurl.POST, 1)
        elif method == "GET":
            curl.setopt(pycurl.HTTPGET, 1)
        if method in ("GET", "HEAD", "POST") and with_body == (method == "POST"):
            curl.unsetopt(pycurl.CUSTOMREQUEST)
        else:
            curl.setopt(pycurl.CUSTOMREQUEST, method)
        self.method, self.with_body = method, with_body

    def response(self) -> Response | NoAnswer:
        """The answer, or `NoAnswer` if it broke off within its headers."""
        if not self.lines or self.lines[-1] not in BLANK:
            return NoAnswer("the answer broke off", Reason.UNREADABLE_ANSWER)
        headers = Headers(tuple(self.lines))
        return Response(self.curl.getinfo(pycurl.RESPONSE_CODE), headers, b"".join(self.answer))

    def failure(self, code: int) -> TransportError:
        """What an error of libcurl means for the caller; in doubt the request has left."""
        if self.overflow:
            return NoAnswer("the answer is too long", Reason.UNREADABLE_ANSWER)
        untouched = self.position == 0 and self.curl.getinfo(pycurl.REQUEST_SIZE) == 0
        if untouched:
            return NotSent(f"nothing was sent (libcurl {code})")
        reason = UNANSWERED.get(code, Reason.CONNECTION_LOST)
        return NoAnswer(f"no answer (libcurl {code})", reason)


UNANSWERED: Mapping[int, Reason] = {
    pycurl.E_OPERATION_TIMEDOUT: Reason.TIMEOUT,
    pycurl.E_UNSUPPORTED_PROTOCOL: Reason.UNREADABLE_ANSWER,  # bytes that are not HTTP/1
    8: Reason.UNREADABLE_ANSWER,
    pycurl.E_PARTIAL_FILE: Reason.UNREADABLE_ANSWER,
    pycurl.E_WRITE_ERROR: Reason.UNREADABLE_ANSWER,
    pycurl.E_BAD_CONTENT_ENCODING: Reason.UNREADABLE_ANSWER,
    100: Reason.UNREADABLE_ANSWER,
}
"""https://curl.se/libcurl/c/libcurl-errors.html; every other code is a lost connection."""


def header_lines(headers: Sequence[tuple[str, str]]) -> list[str]:
    """Header lines for libcurl, with its own additions switched off.

    Raises `ValueError`, without the value, for a line break in a header.
    """
    lines = ["Expect:"]
    named = set()
    for name, value in headers:
        if "\r" in value or "\n" in value or "\r" in name or "\n" in name or ":" in name:
            raise ValueError("line break in a header")
        named.add(name.lower())
        lines.append(f"{name}: {value}" if value else f"{name};")
    lines.extend(f"{name}:" for name in ("Content-Type", "Accept") if name.lower() not in named)
    return lines


BLANK = (b"\r\n", b"\n")
"""The line that ends the headers; libcurl lets an answer pass that lacks it."""


class Headers(Mapping[str, str]):
    """The headers of the last answer in `lines`, read when the first is asked for: most
    answers are judged without. Interim answers such as 100 are dropped."""

    __slots__ = ("_lines", "_read")

    def __init__(self, lines: tuple[bytes, ...]) -> None:
        self._lines = lines
        self._read: dict[str, str] | None = None

    def _parsed(self) -> dict[str, str]:
        if self._read is None:
            self._read = {}
            for line in self._lines:
                name, colon, value = line.decode("latin-1").partition(":")
                if colon:
                    self._read[name.lower()] = value.strip()
                elif name.startswith("HTTP/"):
                    self._read.clear()
        return self._read

    def __getitem__(self, name: str) -> str:
        return self._parsed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parsed())

    def __len__(self) -> int:
        return len(self._parsed())

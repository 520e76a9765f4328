"""The wire and the process: order, limits, start and stop."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests

from channels.sandbox import credentials as c
from channels.sandbox.config import SandboxConfig
from channels.sandbox.server import running

HEALTH = b"GET /_sandbox/health HTTP/1.1\r\nHost: x\r\n\r\n"


def connected(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def received(sock: socket.socket, until: int) -> bytes:
    data = b""
    while data.count(b"HTTP/1.1 ") < until or not data.endswith(b"}"):
        piece = sock.recv(65536)
        if not piece:
            break
        data += piece
    return data


def test_pipelined_requests_are_answered_in_order(sandbox, control):
    control.fault("twilio", delay=0.1, count=1, on="any")
    with connected(sandbox.url) as sock:
        sock.sendall(b"GET /2010-04-01/x HTTP/1.1\r\nHost: x\r\n\r\n" + HEALTH)
        data = received(sock, 2)
    assert data.index(b"HTTP/1.1 401") < data.index(b"HTTP/1.1 200")


def test_nothing_overtakes_a_request_that_hangs(sandbox, control):
    control.fault("twilio", hang="before", on="any")
    with connected(sandbox.url) as sock:
        sock.sendall(b"GET /2010-04-01/x HTTP/1.1\r\nHost: x\r\n\r\n")
        while not control.call("GET", "faults").json()[0]["struck"]:
            pass
        sock.sendall(HEALTH)
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_request_in_single_bytes(sandbox):
    with connected(sandbox.url) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for n in range(len(HEALTH)):
            sock.sendall(HEALTH[n : n + 1])
        assert b'{"status":"ok"}' in received(sock, 1)


def test_client_that_asks_to_close_is_told_and_closed(sandbox):
    with connected(sandbox.url) as sock:
        sock.sendall(HEALTH.replace(b"Host: x", b"Connection: close"))
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    assert b"Connection: close\r\n" in data
    assert data.endswith(b'{"status":"ok"}')


def test_what_is_no_http(sandbox):
    with connected(sandbox.url) as sock:
        sock.sendall(b"\x16\x03\x01\x00\x00 not HTTP\r\n\r\n")
        data = b"".join(iter(lambda: sock.recv(65536), b""))
    assert data.startswith(b"HTTP/1.1 400 ")


def test_expect_continue(sandbox):
    with connected(sandbox.url) as sock:
        sock.sendall(
            b"POST /_sandbox/faults HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        assert sock.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_chunked_request(sandbox):
    def chunks():
        yield b'{"provider": "twilio", '
        yield b'"fault": {"status": 500}}'

    answer = requests.post(f"{sandbox.url}/_sandbox/faults", data=chunks(), timeout=10)
    assert answer.status_code == 201


async def test_in_a_running_loop():
    async with running() as sandbox:
        host, port = sandbox.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(HEALTH)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    # Clients that stay connected are ended with it, not left waiting.
    async with asyncio.timeout(2):
        assert (await reader.read()).endswith(b'{"status":"ok"}')
    writer.close()
    with pytest.raises(OSError):
        await asyncio.open_connection(host, int(port))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_other_than_loopback_has_to_be_asked_for(host):
    with pytest.raises(ValueError, match="loopback"):
        SandboxConfig(host=host)
    assert SandboxConfig(host=host, exposed=True).host == host


def test_no_secret_in_the_source():
    folder = Path(sys.modules[SandboxConfig.__module__].__file__).parent
    assert not any("BEGIN " + "PRIVATE" in file.read_text() for file in folder.glob("*.py"))


def started(tmp_path: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
    announce = tmp_path / "made" / "url"
    command = [sys.executable, "-m", "channels.sandbox", "--port", "0", "--announce", announce]
    process = subprocess.Popen(
        [*command, "--state-dir", tmp_path / "state", *arguments], stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 20
    while not announce.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        os.sched_yield()
    return process, announce.read_text().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_it_at_once(tmp_path, number):
    process, url = started(tmp_path)
    requests.post(
        f"{url}/_sandbox/faults",
        json={"provider": "twilio", "fault": {"hang": "before"}},
        timeout=10,
    )
    path = f"/2010-04-01/Accounts/{c.TWILIO_ACCOUNT_SID}/Messages.json"
    with connected(url) as sock:
        sock.sendall(b"POST %b HTTP/1.1\r\nContent-Length: 0\r\n\r\n" % path.encode())
        assert requests.get(f"{url}/_sandbox/health", timeout=10).json() == {"status": "ok"}
        process.send_signal(number)
        _, errors = process.communicate(timeout=2)
    assert (process.returncode, errors) == (0, b"")


def test_host_as_a_flag(tmp_path):
    process, url = started(tmp_path, "--host", "0.0.0.0")
    assert url.startswith("http://127.0.0.1:")
    assert requests.get(f"{url}/_sandbox/health", timeout=10).status_code == 200
    process.terminate()
    process.communicate(timeout=5)


def test_taken_port_is_an_error_with_words(sandbox):
    port = sandbox.url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "channels.sandbox", "--port", port],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 2
    assert b"cannot listen" in done.stderr
    assert b"Traceback" not in done.stderr

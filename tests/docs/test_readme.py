"""The README's commands, taken from it and executed as they stand."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from dispatcher.embedded import discard
from dispatcher.security.sealing import Sealer
from tests.deployment.composition import raw
from tests.laws.tree import ROOT, read

CURL = Path(__file__).with_name("curl.py")


def blocks(heading: str) -> str:
    """The shell commands below a heading, as one script."""
    _, _, section = read("README.md").partition(f"\n## {heading}\n")
    section = section.partition("\n## ")[0]
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL))


def run(script: str, folder: Path) -> str:
    """What the script prints; fails where one of its commands fails."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def until(true: Callable[[], object], *, within: float = 60.0) -> None:
    pause = threading.Event()  # never set: another process does what is waited for
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        pause.wait(0.1)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder that looks like a prepared clone to the README's commands."""
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    programs = tmp_path / "bin"
    programs.mkdir()
    if shutil.which("curl") is None:  # a machine that has only what `make test` needs
        (programs / "curl").write_text(f'#!/bin/sh\nexec "{sys.executable}" "{CURL}" "$@"\n')
        (programs / "curl").chmod(0o755)
    return tmp_path


@pytest.fixture
def up(clone: Path) -> Iterator[Path]:
    """The same folder with `dispatcher up` running in it."""
    with (clone / "up.log").open("w") as log:
        process = subprocess.Popen(
            [clone / ".venv" / "bin" / "dispatcher", "up"],
            cwd=clone,
            env={name: os.environ[name] for name in ("PATH", "HOME")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: "Ctrl-C" in (clone / "up.log").read_text() or process.poll() is not None)
        assert process.poll() is None, (clone / "up.log").read_text()
        yield clone
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(40)
        discard(clone / ".dispatcher")


def test_the_first_incident_by_curl(up: Path) -> None:
    printed = run(blocks("The first incident, by curl"), up)
    answers = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    imported, opened, approved = answers[:3]
    assert (imported["added"], imported["refused"]) == (4, 0)
    assert opened["reference"] == "INC-0001"
    assert "consumers" in opened["update"]["released"]
    assert "media" in opened["update"]["held"]
    assert approved["released"] == ["media"]
    stopped = next(answer for answer in answers if "stopped" in answer)
    assert {"saved", "left"} <= set(stopped)
    resumed = next(answer for answer in answers if "resumed" in answer)
    assert set(resumed["resumed"]) == set(stopped["stopped"])

    url = (up / ".dispatcher" / "url").read_text().strip()
    key = (up / ".dispatcher" / "operator.key").read_text().strip()
    calls = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    incident = calls.get("/v1/incidents/INC-0001").json()
    assert incident["status"] == "resolved"
    assert [each["phase"] for each in incident["updates"]] == [
        "identified",
        "monitoring",
        "resolved",
    ]

    def numbers(update: Any) -> Any:
        return calls.get(f"/v1/updates/{update['id']}/progress").json()

    until(lambda: all(numbers(update)["settled"] for update in incident["updates"]))
    for update in incident["updates"]:
        assert numbers(update)["complete"], update["phase"]
        assert numbers(update)["by_state"]["unknown"] == 0
        assert numbers(update)["by_state"]["failed"] == 0
    # Four people and the public account heard the first of them, or what replaced it.
    assert numbers(incident["updates"][0])["planned"] >= 5
    shown = re.search(r"^Sandbox\s+(http\S+)/_sandbox", (up / "up.log").read_text(), re.MULTILINE)
    assert shown is not None
    counts = httpx.get(f"{shown[1]}/_sandbox/counts").json()
    accepted = sum(numbers(update)["by_state"]["accepted"] for update in incident["updates"])
    assert sum(provider["messages"] for provider in counts.values()) == accepted


def test_the_secrets_of_the_containers(clone: Path) -> None:
    shutil.copy(ROOT / ".env.example", clone)
    run(blocks("In containers"), clone)
    assert (clone / ".env").exists()
    secrets = clone / "secrets"
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    for secret in raw()["secrets"].values():
        # The containers' user is another one: the folder keeps others out, not the file.
        assert stat.S_IMODE((clone / secret["file"]).stat().st_mode) == 0o444
    assert Sealer((secrets / "master_key").read_text().strip())
    password = (secrets / "database_password").read_text().strip()
    url = (secrets / "database_url").read_text().strip()
    assert url == f"postgresql://dispatcher:{password}@postgres/dispatcher"


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was asked; /refused with a problem."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        told = f"{self.command} {self.path} {self.headers['X-Test']} {body}".encode()
        self.send_response(409 if self.path == "/refused" else 200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.mark.parametrize("program", [[sys.executable, str(CURL)], ["curl"]])
def test_the_stand_in_for_curl_does_what_curl_does(program: list[str], clone: Path) -> None:
    if program == ["curl"] and shutil.which("curl") is None:
        program = [str(clone / "bin" / "curl")]
    (clone / "body.json").write_text("{}")
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"

        def call(*arguments: str, path: str = "/x") -> tuple[int, str]:
            argv = [*program, "-sS", "--fail-with-body", "-w", "\\n", "-H", "X-Test: t"]
            done = subprocess.run(
                [*argv, f"{url}{path}", *arguments],
                input="piped",
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=clone,
            )
            return done.returncode, done.stdout

        assert call() == (0, "GET /x t \n")
        assert call("-X", "POST") == (0, "POST /x t \n")
        assert call("-d", "@body.json") == (0, "POST /x t {}\n")
        assert call("--data-binary", "@-") == (0, "POST /x t piped\n")
        assert call("-d", "a", path="/refused") == (22, "POST /refused t a\n")
        server.shutdown()

"""Every service's own command from docker-compose.yml, as a process on real servers.

Only addresses are rewritten: those of the containers' network to those of this machine.
The health checks are the file's own too.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from redis import Redis

from dispatcher.embedded import Addresses
from tests.conftest import MASTER_KEY
from tests.deployment.composition import ours

PEOPLE = """\
id,name,locale,segment,region,services,tags,phone,email,fcm_token,inbox
ana,Ana Ruiz,es,consumer,US-TX-DAL,voice,,+12145550142,,,
ben,Ben Ward,en,enterprise,US-TX-HOU,voice,,+12145550143,ben@example.com,,
desk,Dallas desk,en,emergency_service,US-TX-DAL,voice,,+12145550144,desk@example.org,,
"""
LONG_RUNNING = ("sandbox", "api", "worker-urgent", "worker-normal", "worker-bulk", "beat")


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


def until(true: Callable[[], object], *, within: float = 40.0) -> None:
    pause = threading.Event()  # never set: another process does what is waited for
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        pause.wait(0.05)


@dataclass
class Installation:
    """docker-compose.yml on this machine."""

    folder: Path
    database_url: str
    broker_url: str
    api_port: int = field(default_factory=free_port)
    sandbox_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def places(self) -> dict[str, str]:
        """What stands for each place of the containers."""
        broker = urlsplit(self.broker_url)
        return {
            "redis://valkey:6379/0": self.broker_url,
            "http://sandbox:8025": f"http://127.0.0.1:{self.sandbox_port}",
            "http://api:8000": self.url,
            "/run/secrets": str(self.folder / "secrets"),
            "/data": str(self.folder / "data"),
            "0.0.0.0": "127.0.0.1",
            "8000": str(self.api_port),
            "8025": str(self.sandbox_port),
            ":18EB ": f":{broker.port:04X} ",
        }

    def here(self, text: str) -> str:
        for there, place in self.places.items():
            if there in text:
                return text.replace(there, place)
        return text

    def environment(self, service: dict[str, Any]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME")}
        return kept | {name: self.here(each) for name, each in service["environment"].items()}

    def start(self, name: str) -> subprocess.Popen[str]:
        service = ours()[name]
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [_dispatcher(), *(self.here(word) for word in service["command"])],
                env=self.environment(service),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=self.folder,
            )
        self.processes[name] = process
        return process

    def healthy(self, name: str) -> bool:
        """Whether the service's own health check passes."""
        test = ours()[name]["healthcheck"]["test"]
        if isinstance(test, str):
            argv = ["/bin/sh", "-c", self.here(test)]
        else:
            kind, *argv = test
            assert kind == "CMD"
            argv = [self.here(word) if word != "python" else sys.executable for word in argv]
        return subprocess.run(argv, check=False, capture_output=True).returncode == 0

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def key(self, *scopes: str) -> str:
        argv = [_dispatcher(), "keys", "create", "--name", "test"]
        for scope in scopes:
            argv += ["--scope", scope]
        made = subprocess.run(
            argv, env=self.environment(ours()["api"]), check=True, capture_output=True, text=True
        )
        return made.stdout.strip()


def _dispatcher() -> str:
    command = Path(sys.executable).with_name("dispatcher")
    assert command.exists()
    return str(command)


@pytest.fixture
def installation(stack: Addresses, database_url: str, tmp_path: Path) -> Iterator[Installation]:
    broker_url = urlsplit(stack.broker_url)._replace(path="/0").geturl()
    Redis.from_url(broker_url).flushdb()
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "database_url").write_text(f"{database_url}\n")
    (secrets / "master_key").write_text(f"{MASTER_KEY}\n")
    made = Installation(tmp_path, database_url, broker_url)
    yield made
    for process in made.processes.values():
        if process.poll() is None:
            process.kill()
        process.wait()
    Redis.from_url(broker_url).flushdb()


def test_each_command_starts_works_and_ends(installation: Installation) -> None:
    assert installation.start("migrate").wait(60) == 0, installation.log("migrate")
    assert not installation.healthy("api")
    assert not installation.healthy("sandbox")
    for name in ("sandbox", "api"):
        installation.start(name)
    for name in ("sandbox", "api"):
        until(partial(installation.healthy, name))

    key = installation.key("read", "incidents:write", "release", "recipients:write")
    calls = httpx.Client(
        base_url=installation.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False
    )
    assert calls.get("/readyz").json() == {
        "ready": True,
        "mode": "sandbox",
        "database": True,
        "schema": True,
        "broker": True,
        "reasons": [],
        "breakers": [],
    }
    update = opened(calls)
    # What the API named to the planners is lost: from here on only beat can set it going.
    Redis.from_url(installation.broker_url).flushdb()
    for name in LONG_RUNNING[2:]:
        installation.start(name)
    for name in LONG_RUNNING:
        until(partial(installation.healthy, name))

    def numbers() -> Any:
        return calls.get(f"/v1/updates/{update}/progress").json()

    until(lambda: numbers()["complete"])
    # Each lane has a worker of its own: nobody else could have sent these.
    assert numbers()["by_audience"]["emergency-services"]["accepted"] == 2
    assert numbers()["by_audience"]["enterprise"]["accepted"] == 2
    assert numbers()["by_audience"]["consumers"]["accepted"] == 1
    counted = httpx.get(f"http://127.0.0.1:{installation.sandbox_port}/_sandbox/counts").json()
    outside = sum(provider["messages"] for provider in counted.values())
    assert outside == numbers()["by_state"]["accepted"]

    for name in ("beat", "worker-bulk", "worker-normal", "worker-urgent", "api", "sandbox"):
        process = installation.processes[name]
        assert process.poll() is None, f"{name} had ended: {installation.log(name)}"
        process.send_signal(signal.SIGTERM)
    for name in LONG_RUNNING:
        process = installation.processes[name]
        assert process.wait(20) == 0, f"{name}: {installation.log(name)}"


def opened(calls: httpx.Client) -> str:
    """An incident for three people in three lanes; the id of its update."""
    taken = calls.post(
        "/v1/recipients/import", content=PEOPLE.encode(), headers={"Content-Type": "text/csv"}
    )
    assert taken.json()["added"] == 3
    now = datetime.now(UTC).isoformat()
    status = {"kind": "emergency_calls", "value": {"status": "limited"}}
    incident = {
        "title": "test",
        "severity": "critical",
        "services": ["voice"],
        "regions": ["US-TX"],
        "started_at": now,
        "release": "now",
        "update": {
            "phase": "investigating",
            "facts": [status | {"source": "test", "known_at": now}],
            "audiences": ["consumers", "enterprise", "emergency-services"],
        },
    }
    answer = calls.post("/v1/incidents", json=incident)
    assert answer.status_code == 201, answer.text
    update: str = answer.json()["update"]["id"]
    return update


def test_a_worker_without_a_broker_is_not_healthy(installation: Installation) -> None:
    nobody = urlsplit(installation.broker_url)._replace(netloc=f"127.0.0.1:{free_port()}")
    installation.broker_url = nobody.geturl()
    assert not installation.healthy("worker-urgent")


def test_the_health_checks_need_nothing_that_the_image_lacks() -> None:
    # Debian's slim image has a shell, grep and our Python; it has no curl and no ps.
    for name in LONG_RUNNING:
        test = ours()[name]["healthcheck"]["test"]
        command = test.split()[0] if isinstance(test, str) else test[1]
        assert command in ("grep", "python")
    assert shutil.which("grep")

"""An installation's settings on real servers, and its commands as processes of their own."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from channels.sandbox.config import SandboxConfig
from channels.sandbox.server import sandbox_thread
from dispatcher.embedded import Addresses
from dispatcher.settings import Settings, environment
from tests.conftest import MASTER_KEY


@dataclass
class Running:
    """A `dispatcher` command as a process."""

    process: subprocess.Popen[str]

    def stop(self, number: int = signal.SIGTERM, *, within: float = 20.0) -> float:
        """Signal it and wait; returns the seconds until it was gone."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(within)
        return time.monotonic() - began

    def output(self) -> str:
        """What it wrote, once it has ended."""
        out, _ = self.process.communicate(timeout=20)
        return out


def until(true: Callable[[], object], *, within: float = 40.0) -> None:
    """Wait for something that another process does; fails after `within` seconds."""
    pause = threading.Event()
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        pause.wait(0.05)


@pytest.fixture
def settings(stack: Addresses, database_url: str, tmp_path: Path) -> Settings:
    """Settings of an installation with a database and a broker of this test's own."""
    number = 1 + hash(database_url) % 15
    broker_url = urlsplit(stack.broker_url)._replace(path=f"/{number}").geturl()
    return Settings(
        database_url=SecretStr(database_url),
        broker_url=SecretStr(broker_url),
        master_key=SecretStr(MASTER_KEY),
        data_dir=tmp_path / "data",
    )


@pytest.fixture
def simulators(tmp_path: Path) -> Iterator[str]:
    """The provider sandbox; its URL."""
    with sandbox_thread(SandboxConfig(state_dir=tmp_path / "data" / "sandbox")) as sandbox:
        yield sandbox.url


@pytest.fixture
def command() -> Iterator[Callable[..., Running]]:
    """Starts `dispatcher ARGUMENTS` with given settings; whatever still runs is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(settings: Settings, *arguments: str, **more: str) -> Running:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "dispatcher.cli", *arguments],
            env={"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]}
            | environment(settings)
            | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return Running(process)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()

"""A sandbox of its own for every test, and small readers of its control calls."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from channels.sandbox.config import SandboxConfig
from channels.sandbox.credentials import service_account
from channels.sandbox.server import Sandbox, sandbox_thread


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the service account lives; its RSA key is made once for all tests."""
    folder = tmp_path_factory.mktemp("sandbox-state")
    service_account(folder)
    return folder


@pytest.fixture
def sandbox(state_dir: Path) -> Iterator[Sandbox]:
    with sandbox_thread(SandboxConfig(state_dir=state_dir)) as running:
        yield running


class Control:
    """The control calls as a test uses them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = requests.Session()
        self.http.trust_env = False

    def call(self, method: str, path: str, **more: Any) -> requests.Response:
        return self.http.request(method, f"{self.url}/_sandbox/{path}", timeout=10, **more)

    def counts(self, provider: str) -> dict[str, int]:
        return self.call("GET", "counts").json()[provider]

    def outbox(self, **query: str | int) -> list[dict[str, Any]]:
        text = self.call("GET", "outbox", params=query).text
        return [json.loads(line) for line in text.splitlines()]

    def options(self, **options: object) -> None:
        response = self.call("PUT", "options", json=options)
        assert response.status_code == 204, response.text

    def rules(self, provider: str, **rules: object) -> None:
        response = self.call("PUT", "events", json={"provider": provider, **rules})
        assert response.status_code == 204, response.text

    def events(self, provider: str) -> dict[str, Any]:
        return self.call("GET", "events").json()[provider]

    def told(self, provider: str) -> dict[str, Any]:
        """The counts once all is said."""
        deadline = time.monotonic() + 20
        while (events := self.events(provider))["pending"]:
            assert time.monotonic() < deadline, events
        return events

    def fault(self, provider: str, **fault: object) -> None:
        order = {"provider": provider, "fault": fault}
        response = self.call("POST", "faults", json=order)
        assert response.status_code == 201, response.text


@pytest.fixture
def control(sandbox: Sandbox) -> Control:
    return Control(sandbox.url)


@pytest.fixture
def at_once(control: Control) -> None:
    """Lists show what was taken without any lag."""
    control.options(twilio_list_lag=0, x_list_lag=0)


@pytest.fixture
def start(state_dir: Path) -> Iterator[Callable[..., tuple[Sandbox, Control]]]:
    """Starts a sandbox with options of the test's choosing."""
    running = []

    def started(**options: Any) -> tuple[Sandbox, Control]:
        block = sandbox_thread(SandboxConfig(**{"state_dir": state_dir, **options}))
        sandbox = block.__enter__()
        running.append(block)
        return sandbox, Control(sandbox.url)

    yield started
    for block in running:
        block.__exit__(None, None, None)

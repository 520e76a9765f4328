"""The demo from an empty folder to its balance, as a person starts it; and with things broken."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from dispatcher.embedded import attach, discard
from dispatcher.supervisor import MARK
from tests.dispatcher.commands.conftest import until

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Start]:
    """Starts `dispatcher demo` on a folder of this test's own; nothing of it is left behind."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-m", "dispatcher.cli", "demo"]
        log = (tmp_path / "stderr").open("w")
        process = subprocess.Popen(
            [*command, "--data-dir", str(tmp_path), "--exit", "--json", *arguments],
            env={name: os.environ[name] for name in ("PATH", "HOME")},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)
    discard(tmp_path / "demo")


def answer(process: subprocess.Popen[str], tmp_path: Path) -> dict:
    out, _ = process.communicate(timeout=400)
    assert out.strip(), (tmp_path / "stderr").read_text()[-3_000:]
    return json.loads(out.splitlines()[-1])


@pytest.mark.timeout(420)
def test_the_demo_tells_everybody_and_balances(demo: Start, tmp_path: Path) -> None:
    process = demo("--recipients", "300")
    told = answer(process, tmp_path)
    assert process.returncode == 0
    assert (told["lost"], told["duplicates"], told["complete"]) == (0, 0, True)
    assert (told["recipients"], told["mode"]) == (300, "sandbox")
    assert set(told["channels"]) == {"sms", "email", "social", "push"}
    assert all(count > 0 for count in told["channels"].values())
    assert len(told["updates"]) == 11
    for update in told["updates"]:
        assert update["complete"], update
        assert update["planned"] == sum(update["by_state"].values())
    accepted = sum(update["by_state"]["accepted"] for update in told["updates"])
    assert accepted == sum(told["channels"].values())
    # Investors are told only what a second person approved.
    assert any("investors" in update["approved"] for update in told["updates"])
    assert not (tmp_path / "url").exists()


@pytest.mark.timeout(420)
def test_the_other_scenario_corrects_whom_it_misled(demo: Start, tmp_path: Path) -> None:
    process = demo("--recipients", "300", "--scenario", "spark-2014")
    told = answer(process, tmp_path)
    assert process.returncode == 0
    assert (told["lost"], told["duplicates"], told["complete"]) == (0, 0, True)
    assert "correction" in [update["phase"] for update in told["updates"]]


def worker_of(folder: Path, lanes: str) -> int | None:
    """The process id of the demo's worker on these lanes."""
    for entry in Path("/proc").iterdir():
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        ours = f"DISPATCHER_DATA_DIR={folder}".encode() in environment
        if ours and lanes.encode() in arguments and MARK.encode() in environment:
            return int(entry.name)
    return None


@pytest.mark.timeout(420)
def test_a_killed_worker_and_a_flushed_broker_lose_and_double_nothing(
    demo: Start, tmp_path: Path
) -> None:
    process = demo("--recipients", "6000")
    stderr = tmp_path / "stderr"
    folder = tmp_path / "demo"
    until(lambda: " 1/11 " in stderr.read_text() or process.poll(), within=180)
    until(lambda: worker_of(folder, "urgent,normal,bulk"), within=60)
    until(lambda: " 5/11 " in stderr.read_text() or process.poll(), within=180)
    addresses = attach(folder)
    assert addresses is not None
    broker = Redis.from_url(addresses.broker_url)
    until(lambda: broker.llen("bulk") > 0 or "6/11" in stderr.read_text(), within=180)
    victim = worker_of(folder, "urgent,normal,bulk")
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    broker.flushall()
    told = answer(process, tmp_path)
    assert (told["lost"], told["duplicates"], told["complete"]) == (0, 0, True)
    assert process.returncode == 0
    for update in told["updates"]:
        assert update["planned"] == sum(update["by_state"].values())
        assert update["by_state"]["pending"] == update["by_state"]["sending"] == 0

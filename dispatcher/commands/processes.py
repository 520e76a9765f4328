"""The processes of an installation: api, worker, beat, sandbox, and the migration before them.

Each runs in the foreground until SIGTERM, whoever keeps it: the embedded supervisor, a
container or a service manager. Knows how a process starts, listens and ends, and nothing
of what it does. Whatever is heavy to import is imported by the process that needs it.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dispatcher.commands.places import SANDBOX_URL_FILE, URL_FILE, announce, withdraw
from dispatcher.settings import Settings

if TYPE_CHECKING:
    from dispatcher.wiring import Services

PORTS_TRIED = 100


def listen(host: str, port: int, *, exact: bool) -> socket.socket:
    """A TCP socket that listens on `port`, or unless `exact` on the next free one (100 are tried).

    Raises `OSError` when none can be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    last = port if exact else min(port + PORTS_TRIED, 65_535)
    refused: OSError | None = None
    for candidate in range(port, last + 1):
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((host, candidate))
            # Two may bind to one port at once; only one of them can listen.
            bound.listen()
        except OSError as error:
            bound.close()
            refused = error
        else:
            return bound
    raise OSError(f"{host}:{port} cannot be listened on: {refused}")


def url_of(bound: socket.socket) -> str:
    """The URL under which this machine reaches a bound socket."""
    host, port = bound.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def api(settings: Settings, *, port: int | None = None) -> None:
    """Serve HTTP until SIGTERM. The URL is written to `<data_dir>/url`.

    While nobody can sign in to the console, a terminal is told a link for the first admin.
    """
    import uvicorn

    from dispatcher import logs
    from dispatcher.commands import people

    logs.configure(settings.log_level, settings.log_format)
    bound = listen(settings.host, port or settings.port, exact=port is not None)
    url = url_of(bound)

    class Server(uvicorn.Server):
        """Tells where it listens once it does, and not before."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            announce(settings.data_dir / URL_FILE, url)
            kept = not sys.stdout.isatty()
            await asyncio.to_thread(people.greet, settings, url, _say, kept=kept)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            withdraw(settings.data_dir / URL_FILE, url)
            await super().shutdown(sockets)

    config = uvicorn.Config(
        "dispatcher.asgi:create",
        factory=True,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_config=None,
        # Open streams are ended after this many seconds, so that a stop is one.
        timeout_graceful_shutdown=5,
    )
    # The server raises the signal that ended it once more, when it is done: a stop is no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with bound:
        Server(config).run(sockets=[bound])


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


SLOTS = 2
"""Tasks that a worker has under way at once: few, since rows in doubt after a crash are theirs."""
SLOTS_WITH_PLANS = 4
"""The same for one that also plans and sweeps, which send nothing."""


def worker(settings: Settings, queues: Sequence[str]) -> None:
    """Work these queues, the first named first, until SIGTERM.

    Then no new window is claimed, the current one is finished and its lease handed back.
    Raises what `wiring.prepare` raises before anything is taken from a queue.
    """
    from dispatcher import tasks

    tasks.worker()
    name = f"{'-'.join(queues)}-{os.getpid()}@{socket.gethostname()}"
    tasks.app.Worker(
        hostname=name,
        queues=list(queues),
        pool_cls="threads",
        concurrency=SLOTS_WITH_PLANS if "plan" in queues else SLOTS,
        quiet=True,
        loglevel=settings.log_level.upper(),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    ).start()


def beat(settings: Settings) -> None:
    """Name the periodic tasks until SIGTERM. Its schedule is in memory: nothing to lock or lose."""
    from dispatcher import broker, logs, wiring

    logs.configure(settings.log_level, settings.log_format)
    # Only the names of tasks are needed to name them: none of their code is loaded.
    broker.build(wiring.broker_url(settings)).Beat(
        scheduler="celery.beat:Scheduler",
        max_interval=1,
        quiet=True,
        loglevel=settings.log_level.upper(),
    ).run()


def sandbox(settings: Settings, *, host: str | None, port: int | None) -> None:
    """Simulate the providers until SIGTERM; the URL goes to `<data_dir>/sandbox.url`.

    Only `host` given explicitly may be another address than loopback. Raises `OSError`
    when it cannot listen.
    """
    from urllib.parse import urlsplit

    from channels.sandbox.config import SandboxConfig
    from channels.sandbox.server import serve

    if port is None:
        port = urlsplit(settings.sandbox_url).port or 8025
    serve(
        SandboxConfig(
            host=host or "127.0.0.1",
            exposed=host is not None,
            port=port,
            announce=settings.data_dir / SANDBOX_URL_FILE,
            state_dir=settings.data_dir / "sandbox",
        )
    )


def migrate(settings: Settings, *, wait: float) -> "Services":
    """Check the packs, bring the schema up to date, and record whose ledger it is.

    Waits up to `wait` seconds for the database. Returns the services it built. Raises
    `PackError`, `LedgerAway`, `WrongInstallation`, `SettingsError`.
    """
    from channels.contract import ContactKind
    from dispatcher import wiring
    from dispatcher.audiences import PackError
    from dispatcher.ledger import migrations
    from dispatcher.ledger.recipients import PublicAccount, sync_public_accounts
    from dispatcher.rendering.proof import check_packs

    services = wiring.build(settings)
    problems = check_packs(services.packs, list(services.adapters.values()))
    if problems:
        raise PackError(problems)
    _await_database(services.ledger.database_url, wait)
    migrations.upgrade(services.ledger.database_url)
    wiring.prepare(services)
    accounts = [
        PublicAccount(ContactKind(a.kind), a.address, a.name, a.locale, a.region)
        for a in services.packs.organisation.public_accounts
    ]
    with services.ledger.transaction() as work:
        sync_public_accounts(work.conn, services.sealer, accounts)
    return services


def _await_database(url: str, wait: float) -> None:
    from dispatcher.ledger.connection import Ledger, LedgerAway

    until = time.monotonic() + wait
    pause = threading.Event()  # never set: the database is another process's
    while True:
        ledger = Ledger(url, size=1, patience=2.0)
        try:
            with contextlib.closing(ledger), ledger.read():
                return
        except LedgerAway:
            if time.monotonic() >= until:
                raise
            pause.wait(0.5)

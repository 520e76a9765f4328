"""The sandbox as a process, as part of another, and as a thread.

Owns building, listening and stopping. It must not know what is simulated beyond the list
of simulators.
"""

import asyncio
import gc
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvloop

from channels.sandbox.accounts import Accounts, bearer_name, twilio_name
from channels.sandbox.answers import Simulator
from channels.sandbox.config import Behaviour, Provider, SandboxConfig
from channels.sandbox.control import Control, Tally
from channels.sandbox.events import Events
from channels.sandbox.exchange import Exchange
from channels.sandbox.faults import Faults
from channels.sandbox.fcm_messages import FcmMessages
from channels.sandbox.orders import Options
from channels.sandbox.outbox import Outbox
from channels.sandbox.sendgrid_events import SendgridEvents
from channels.sandbox.sendgrid_mail import SendgridMail
from channels.sandbox.twilio_messages import TwilioMessages
from channels.sandbox.webhook_keys import SigningKey
from channels.sandbox.wire import Connection
from channels.sandbox.x_posts import XPosts

_BACKLOG = 4096
_LOOPBACK_NAMES = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Sandbox:
    """The simulators of one port. `url` is set while it listens.

    `outbox`, `faults` and `tallies` are what the control calls show; a test in the same
    process may read them directly, from the sandbox's own thread only.
    """

    def __init__(self, config: SandboxConfig, *, clock: Callable[[], float] = time.time) -> None:
        self.config = config
        self.url = ""
        self.outbox = Outbox(clock)
        self.faults = Faults(seed=config.seed, clock=time.monotonic)
        self.tallies = {provider: Tally() for provider in Provider}
        self.behaviour = Behaviour(config)
        self.events = Events(config, self.outbox, clock=clock)
        self._twilio = [self._twilio_account(number, clock) for number in (1, 2)]
        self._sendgrid = [self._sendgrid_account(number, clock) for number in (1, 2)]
        self.events.bind(self._twilio, self._sendgrid)
        self._x = XPosts(config, self.outbox, self.behaviour, clock)
        fcm = FcmMessages(config, self.outbox, clock)
        routes: dict[bytes, Simulator] = {
            b"2010-04-01": Accounts(
                self._twilio, twilio_name, [each.sid.encode() for each in self._twilio]
            ),
            b"v3": Accounts(
                self._sendgrid, bearer_name, [each.authorization for each in self._sendgrid]
            ),
            b"2": self._x,
            b"v1": fcm,
            b"token": fcm,
        }
        control = Control(
            outbox=self.outbox,
            faults=self.faults,
            tallies=self.tallies,
            clear=self.clear,
            events=self.events,
            set_options=self._set_options,
            options=lambda: vars(self.behaviour),
        )
        exchange = Exchange(routes, control, faults=self.faults, tallies=self.tallies)
        self._answer = exchange.answer
        self._connections: set[Connection] = set()

    def _twilio_account(self, number: int, clock: Callable[[], float]) -> TwilioMessages:
        return TwilioMessages(
            self.config,
            self.outbox,
            number=number,
            behaviour=self.behaviour,
            courier=self.events.couriers[Provider.TWILIO],
            regimes=self.events.regimes[Provider.TWILIO],
            clock=clock,
        )

    def _sendgrid_account(self, number: int, clock: Callable[[], float]) -> SendgridMail:
        folder = self.config.state_dir
        events = SendgridEvents(
            number,
            SigningKey.made() if folder is None else SigningKey.kept(folder, number),
            outbox=self.outbox,
            behaviour=self.behaviour,
            courier=self.events.couriers[Provider.SENDGRID],
            regimes=self.events.regimes[Provider.SENDGRID],
            clock=clock,
        )
        return SendgridMail(self.config, self.outbox, number=number, events=events, clock=clock)

    def clear(self) -> None:
        """Forgets every message and count. Faults and rate windows stay."""
        self.outbox.clear()
        self.events.clear()
        for twilio in self._twilio:
            twilio.clear()
        for mail in self._sendgrid:
            mail.clear()
        self._x.clear()
        for tally in self.tallies.values():
            tally.requests = tally.errors = 0

    def _set_options(self, options: Options) -> None:
        for name in options.model_fields_set:
            setattr(self.behaviour, name, getattr(options, name))

    async def listen(self) -> asyncio.Server:
        """Starts to listen; raises OSError when the port is taken."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self._answer, self._connections),
            self.config.host,
            self.config.port,
            backlog=_BACKLOG,
        )
        port = server.sockets[0].getsockname()[1]
        host = _LOOPBACK_NAMES.get(self.config.host, self.config.host)
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        if self.config.announce is not None:
            _announce(self.config.announce, self.url)
        return server

    def hang_up(self) -> None:
        """Ends all connections at once, in the middle of an answer if need be."""
        self.events.close()
        for connection in tuple(self._connections):
            connection.abort()


@asynccontextmanager
async def running(config: SandboxConfig | None = None) -> AsyncIterator[Sandbox]:
    """A sandbox in the running event loop, listening while the block runs."""
    sandbox = Sandbox(config or SandboxConfig())
    server = await sandbox.listen()
    try:
        yield sandbox
    finally:
        server.close()
        sandbox.hang_up()
        await asyncio.sleep(0)  # lets the transports end before the loop does


@contextmanager
def sandbox_thread(config: SandboxConfig | None = None) -> Iterator[Sandbox]:
    """A sandbox with an event loop and a thread of its own, for callers that block."""
    ready = threading.Event()
    started: list[tuple[Sandbox, asyncio.AbstractEventLoop, asyncio.Event]] = []
    failed: list[BaseException] = []

    async def run() -> None:
        stop = asyncio.Event()
        async with running(config) as sandbox:
            started.append((sandbox, asyncio.get_running_loop(), stop))
            ready.set()
            await stop.wait()

    def work() -> None:
        try:
            _run(run())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=work, name="sandbox", daemon=True)
    thread.start()
    ready.wait()
    if failed:
        raise failed[0]
    sandbox, loop, stop = started[0]
    try:
        yield sandbox
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def serve(config: SandboxConfig) -> None:
    """Runs a sandbox until SIGTERM or SIGINT, which end it at once.

    Raises OSError when it cannot listen or write the announcement.
    """

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with running(config):
            # What stands now stays for good: full collections need not look at it.
            gc.freeze()
            gc.set_threshold(50_000, 50, 1000)
            await stop.wait()

    _run(run())


def _run(main: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def _announce(file: Path, url: str) -> None:
    """Written whole or not at all: whoever waits for the file reads a full line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.new")
    temporary.write_text(f"{url}\n", encoding="utf-8")
    temporary.replace(file)

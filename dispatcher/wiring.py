"""The only place that knows everything: settings become services.

Which adapters there are is the matter of `adapters`, how fast senders go that of `senders`.
"""

import os
import socket
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from channels.contract import Adapter, ReceiptReader
from dispatcher import broker as brokers
from dispatcher import embedded
from dispatcher.adapters import (
    accounts_of,
    called_back,
    configured,
    fit_lease,
    sandbox_channels,
)
from dispatcher.audiences import Packs, load
from dispatcher.broker import Broker
from dispatcher.delivery.batches import Batches
from dispatcher.delivery.failover import Account, Failover
from dispatcher.delivery.fallback import Fallback
from dispatcher.delivery.intake import Intake
from dispatcher.delivery.pacing import Pacing
from dispatcher.delivery.polling import Polling
from dispatcher.delivery.receipts import Receipts
from dispatcher.delivery.reconciling import Reconciling, settle_after
from dispatcher.delivery.recovery import Recovery
from dispatcher.delivery.trials import TrialSending, close_cut_off
from dispatcher.ledger import metrics, paces
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.progress import Balances
from dispatcher.planning import Planner, Route
from dispatcher.previews import Previews
from dispatcher.reckoning import Reckoning
from dispatcher.releases import Releases
from dispatcher.rendering import Renderer
from dispatcher.security.sealing import Sealer, new_master_key
from dispatcher.senders import sender_of, sender_price, sender_rate, sender_speed
from dispatcher.settings import Settings, SettingsError
from dispatcher.trials import Trials
from dispatcher.updates import Updates

SHIPPED = Path(__file__).parent / "_templates"
CHECKED_OUT = Path(__file__).parent.parent / "templates"
MASTER_KEY_FILE = "master.key"


@dataclass(frozen=True, slots=True)
class Services:
    """Everything an edge may use. Built once per process by `build`."""

    settings: Settings
    mode: str
    ledger: Ledger
    sealer: Sealer
    packs: Packs
    broker: Broker
    adapters: Mapping[str, Adapter]
    missing_adapters: Mapping[str, str]
    renderer: Renderer
    planner: Planner
    updates: Updates
    releases: Releases
    previews: Previews
    trials: Trials
    reckoning: Reckoning
    recovery: Recovery
    intake: Intake
    receipts: Receipts
    balances: Balances
    drill_adapters: Mapping[str, Adapter]
    rate: Callable[[str, str], float]
    accounts: Sequence[Account]


def templates(settings: Settings) -> Path:
    """The packs: as set, else those of a checkout, else those shipped in the wheel."""
    if settings.templates is not None:
        return settings.templates
    return CHECKED_OUT if CHECKED_OUT.is_dir() else SHIPPED


def database_url(settings: Settings) -> str:
    """The database as set, else the embedded one running on our data folder."""
    url = settings.secret("database_url")
    if url is None:
        running = embedded.attach(settings.data_dir)
        if running is None:
            raise SettingsError(
                [
                    (
                        "DISPATCHER_DATABASE_URL",
                        f"is not set, and no embedded database runs in {settings.data_dir}:"
                        " set it, or start `dispatcher up`",
                    )
                ]
            )
        return running.database_url
    return url


def broker_url(settings: Settings) -> str:
    """The broker as set, else the embedded one running on our data folder."""
    url = settings.secret("broker_url")
    if url is None:
        running = embedded.attach(settings.data_dir)
        if running is None:
            raise SettingsError(
                [("DISPATCHER_BROKER_URL", "is not set, and no embedded broker runs")]
            )
        return running.broker_url
    return url


def master_key(settings: Settings) -> str:
    """The key as set; for embedded use one is made once, readable by its owner only."""
    key = settings.secret("master_key")
    if key is not None:
        return key
    if settings.database_url is not None:
        raise SettingsError(
            [
                (
                    "DISPATCHER_MASTER_KEY_FILE",
                    "is not set: it names the file that holds the key which seals contacts",
                )
            ]
        )
    file = settings.data_dir / MASTER_KEY_FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, stat.S_IRUSR | stat.S_IWUSR)
    except FileExistsError:
        return file.read_text(encoding="ascii").strip()
    fresh = new_master_key()
    with os.fdopen(handle, "w", encoding="ascii") as opened:
        opened.write(fresh + "\n")
    return fresh


def _routes(adapters: Mapping[str, Adapter]) -> list[Route]:
    return [Route(name, a.channel, a.accepts) for name, a in adapters.items()]


def build(settings: Settings) -> Services:
    """Services from settings. Raises `SettingsError`, `PackError`, `ValueError` (master key)."""
    ledger = Ledger(database_url(settings))
    sealer = Sealer(master_key(settings))
    packs = load(templates(settings), overlay=settings.overlay)
    public = [a.address for a in packs.organisation.public_accounts if a.kind == "x_account"]
    simulated = sandbox_channels(settings, public)
    sandbox = settings.mode == "sandbox"
    given: Mapping[str, Mapping[str, Any]] = (
        simulated if sandbox else {"inbox_push": {}, **settings.channels}
    )
    given = called_back(given, settings.public_url)
    adapters, missing = configured(given, ledger=ledger, sealer=sealer)
    fit_lease(adapters, settings.lease)
    accounts = accounts_of(given, adapters)
    # A drill reaches simulators only; an installation that is live has none of its own.
    drill_adapters = adapters if sandbox else {}
    renderer = Renderer(packs, list(adapters.values()))
    broker = Broker(brokers.build(broker_url(settings)), broker_url(settings))
    plan = partial(broker.enqueue, "plan", queue=brokers.PLAN)
    send = partial(broker.enqueue_all, "send")
    ask = partial(broker.enqueue, "reconcile", queue=brokers.NORMAL)
    work_off = partial(broker.enqueue, "receipts", "waiting", queue=brokers.PLAN)
    poll = partial(broker.enqueue, "poll", "due", queue=brokers.PLAN)
    try_out = partial(broker.enqueue, "trial", queue=brokers.URGENT)
    planner = Planner(
        ledger,
        packs,
        routes=_routes(adapters),
        drill_routes=_routes(drill_adapters),
        send=send,
        batch_size=settings.batch_size,
    )
    releases = Releases(planner, plan=plan, send=send)
    rate = partial(sender_rate, packs, sandbox)
    failover = Failover(ledger, accounts)
    fallback = Fallback(
        ledger,
        packs,
        accounts=accounts,
        readers=[name for name, adapter in adapters.items() if isinstance(adapter, ReceiptReader)],
        send=send,
        batch_size=settings.batch_size,
    )
    updates = Updates(packs, renderer, releases)
    price = partial(sender_price, packs)
    previews = Previews(ledger, packs, renderer, planner, rate=rate, price=price)
    return Services(
        settings=settings,
        mode=settings.mode,
        ledger=ledger,
        sealer=sealer,
        packs=packs,
        broker=broker,
        adapters=adapters,
        missing_adapters=missing,
        renderer=renderer,
        planner=planner,
        updates=updates,
        releases=releases,
        previews=previews,
        trials=Trials(routes=_routes(adapters), drill_routes=_routes(drill_adapters), name=try_out),
        reckoning=Reckoning(
            ledger,
            packs,
            renderer,
            previews,
            stating=updates.statement,
            rate=rate,
            granted=partial(sender_rate, packs, False),
            price=price,
        ),
        recovery=Recovery(
            ledger,
            plan=plan,
            send=send,
            depth=broker.depth,
            monotonic=time.monotonic,
            ask=ask,
            settle=settle_after({**drill_adapters, **adapters}),
            chores=[
                failover.run,
                fallback.run,
                partial(close_cut_off, ledger, try_out),
                partial(metrics.mark_sweep, ledger),
            ],
        ),
        intake=Intake(ledger, sealer, name=work_off, monotonic=time.monotonic),
        receipts=Receipts(
            ledger,
            name=work_off,
            poll=poll if settings.public_url else None,
            poll_every=min(30.0, settings.poll_after),
            monotonic=time.monotonic,
        ),
        balances=Balances(),
        drill_adapters=drill_adapters,
        rate=rate,
        accounts=accounts,
    )


def sending(services: Services, *, stopping: Callable[[], bool]) -> tuple[Batches, TrialSending]:
    """The engines of one worker process, which share its pace; their parts bind to the running
    loop on first use."""
    redis: Redis = Redis.from_url(
        broker_url(services.settings),
        socket_timeout=2.0,
        socket_connect_timeout=1.0,
        health_check_interval=30,
        # Away is away: pacing goes on alone at once, and asks again with the next window.
        retry=Retry(NoBackoff(), 0),
    )

    def counted(sender: str, seconds: float) -> int:
        with services.ledger.read() as conn:
            return paces.sent_since(conn, sender, seconds)

    pacing = Pacing(redis, counted=counted, monotonic=time.monotonic)
    speed = partial(
        sender_speed, services.packs, services.mode == "sandbox", accounts=services.accounts
    )
    batches = Batches(
        Ledger(services.ledger.database_url, by_key=True),
        services.sealer,
        pacing,
        adapters=services.adapters,
        drill_adapters=services.drill_adapters,
        speed=speed,
        owner=f"{socket.gethostname()}:{os.getpid()}",
        lease_seconds=services.settings.lease,
        stopping=stopping,
    )
    trials = TrialSending(
        services.ledger,
        services.sealer,
        pacing,
        adapters=services.adapters,
        drill_adapters=services.drill_adapters,
        sender=partial(sender_of, services.packs),
        speed=speed,
    )
    return batches, trials


def reconciling(services: Services) -> Reconciling:
    """Who asks providers about rows in doubt; its adapters bind to the running loop."""
    audiences = services.packs.audiences
    return Reconciling(
        services.ledger,
        services.sealer,
        adapters=services.adapters,
        drill_adapters=services.drill_adapters,
        resend_unknown=lambda name: name in audiences and audiences[name].resend_unknown,
        patience=services.settings.ask_for,
    )


def polling(services: Services) -> Polling:
    """Who asks providers what became of accepted messages; binds to the running loop."""
    return Polling(
        services.ledger,
        services.intake,
        adapters=services.adapters,
        after=services.settings.poll_after,
        name=partial(services.broker.enqueue, "poll", "due", queue=brokers.PLAN),
    )


def prepare(services: Services) -> None:
    """What a process does before it works: the schema fits, and the ledger is ours."""
    services.ledger.check_schema()
    services.ledger.record_installation(
        mode=services.mode, key_fingerprint=services.sealer.fingerprint
    )

"""The only place that knows everything: settings become services.

In sandbox mode every adapter speaks to the provider sandbox with its fixed, public
credentials, and no setting of a real account is used. In live mode an adapter without
complete credentials is not configured, and nothing falls back to a simulator.
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
from urllib.parse import quote

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from channels import registry
from channels.contract import Adapter, ReceiptReader
from channels.sandbox import credentials
from channels.sandbox.webhook_keys import sendgrid_public_key
from channels.transport import CurlTransport
from dispatcher import broker as brokers
from dispatcher import embedded
from dispatcher.audiences import Packs, load
from dispatcher.audiences.values import WINDOWS
from dispatcher.broker import Broker
from dispatcher.delivery.batches import Batches, Speed
from dispatcher.delivery.failover import Account, Failover
from dispatcher.delivery.fallback import Fallback
from dispatcher.delivery.intake import Intake
from dispatcher.delivery.pacing import Budget, Pacing
from dispatcher.delivery.polling import Polling
from dispatcher.delivery.receipts import Receipts
from dispatcher.delivery.reconciling import Reconciling, settle_after
from dispatcher.delivery.recovery import Recovery
from dispatcher.ledger import metrics, paces
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.inbox import LedgerInbox
from dispatcher.ledger.progress import Balances
from dispatcher.planning import Planner, Route
from dispatcher.previews import Previews
from dispatcher.releases import Releases
from dispatcher.rendering import Renderer
from dispatcher.security.sealing import Sealer, new_master_key
from dispatcher.settings import Settings, SettingsError
from dispatcher.updates import Updates

SHIPPED = Path(__file__).parent / "_templates"
CHECKED_OUT = Path(__file__).parent.parent / "templates"
MASTER_KEY_FILE = "master.key"
OWN = ("sender", "rate")
"""Settings of a second account that are not its adapter's."""
SECOND: Mapping[str, Mapping[str, str]] = {
    "twilio_sms": {
        "account_sid": credentials.TWILIO_ACCOUNT_SID_2,
        "auth_token": credentials.TWILIO_AUTH_TOKEN_2,
    },
    "sendgrid_email": {"api_key": credentials.SENDGRID_API_KEY_2},
}
"""Credentials of the simulators' second accounts."""
TUNABLE = ("timeout", "concurrency", "settle_after")
"""Adapter settings that hold in sandbox mode too: they name no account."""


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


def sandbox_channels(settings: Settings, accounts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Adapter settings for the provider sandbox: public constants, never a real account."""
    url = settings.sandbox_url
    simulated: dict[str, dict[str, Any]] = {
        "twilio_sms": {
            "account_sid": credentials.TWILIO_ACCOUNT_SID,
            "auth_token": credentials.TWILIO_AUTH_TOKEN,
            "webhook_secret": credentials.TWILIO_SHARED_KEY,
            "base_url": url,
        },
        "sendgrid_email": {
            "api_key": credentials.SENDGRID_API_KEY,
            "from_email": credentials.SENDGRID_FROM,
            "webhook_public_key": sendgrid_public_key(settings.data_dir / "sandbox"),
            "base_url": url,
        },
        "x_social": {
            "consumer_key": credentials.X_CONSUMER_KEY,
            "consumer_secret": credentials.X_CONSUMER_SECRET,
            "access_token": credentials.X_ACCESS_TOKEN,
            "access_token_secret": credentials.X_ACCESS_TOKEN_SECRET,
            "account": accounts[0] if accounts else credentials.X_USERNAME,
            "base_url": url,
        },
        "fcm_push": {
            "project_id": credentials.FCM_PROJECT,
            "service_account_json": credentials.service_account(settings.data_dir / "sandbox", url),
            "base_url": url,
            "token_uri": f"{url}/token",
        },
        "inbox_push": {},
    }
    for name, fields in settings.channels.items():
        adapter, _, account = name.partition(".")
        if account:
            # The simulators know one account more of each of these.
            if adapter not in SECOND:
                continue
            own = {field: fields[field] for field in OWN if field in fields}
            simulated[name] = {**simulated[adapter], **SECOND[adapter], **own}
        tuned = {field: fields[field] for field in TUNABLE if field in fields}
        simulated.setdefault(name, {}).update(tuned)
    return simulated


def called_back(
    channels: Mapping[str, Mapping[str, Any]], public_url: str | None
) -> dict[str, Mapping[str, Any]]:
    """The same settings, with our address for adapters that tell their provider where to call."""
    if public_url is None:
        return dict(channels)
    told: dict[str, Mapping[str, Any]] = {}
    for name, fields in channels.items():
        kind: Any = registry.load(name.partition(".")[0])
        calls = "status_callback" in kind.Settings.model_fields
        url = f"{public_url.rstrip('/')}/v1/receipts/{quote(name)}"
        told[name] = {"status_callback": url, **fields} if calls else fields
    return told


def configured(
    channels: Mapping[str, Mapping[str, Any]], *, ledger: Ledger, sealer: Sealer
) -> tuple[dict[str, Adapter], dict[str, str]]:
    """Adapters by name, and for each that is not configured the reason, without a value."""
    adapters: dict[str, Adapter] = {}
    missing: dict[str, str] = {}
    transport = CurlTransport()
    for name in (*registry.names(), *(name for name in channels if "." in name)):
        adapter = name.partition(".")[0]
        kind: Any = registry.load(adapter)
        ports = {"inbox": LedgerInbox(ledger, sealer)} if adapter == "inbox_push" else {}
        fields = channels.get(name, {})
        if adapter != name:
            fields = {field: value for field, value in fields.items() if field not in OWN}
        try:
            given = kind.Settings.model_validate(fields)
        except ValidationError as error:
            missing[name] = "; ".join(
                f"{'.'.join(str(part) for part in found['loc']) or name}: {found['msg']}"
                for found in error.errors(include_input=False, include_url=False)
            )
            continue
        adapters[name] = kind(given, transport, **ports)
    return adapters, missing


def accounts_of(
    channels: Mapping[str, Mapping[str, Any]], adapters: Mapping[str, Adapter]
) -> list[Account]:
    """Every configured adapter as an account to fail over from and to.

    Raises `SettingsError` if the rate of a second account is no number above 0.
    """
    found = []
    for name, adapter in adapters.items():
        own = channels.get(name, {}) if "." in name else {}
        try:
            rate = float(own.get("rate", 1.0))
        except ValueError:
            rate = 0.0
        if not 0 < rate <= 1_000_000:
            raise SettingsError([(name, "rate must be a number above 0")])
        found.append(Account(name, adapter.channel, adapter.accepts, own.get("sender"), rate))
    return found


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
        updates=Updates(packs, renderer, releases),
        releases=releases,
        previews=Previews(
            ledger, packs, renderer, planner, rate=rate, price=partial(sender_price, packs)
        ),
        recovery=Recovery(
            ledger,
            plan=plan,
            send=send,
            depth=broker.depth,
            monotonic=time.monotonic,
            ask=ask,
            settle=settle_after({**drill_adapters, **adapters}),
            chores=[failover.run, fallback.run, partial(metrics.mark_sweep, ledger)],
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


def sender_rate(packs: Packs, sandbox: bool, channel: str, sender: str) -> float:
    """Units per second of a sender; one the packs do not know goes at one a second."""
    return sender_speed(packs, sandbox, channel, sender).rate


def sender_speed(
    packs: Packs, sandbox: bool, channel: str, sender: str, *, accounts: Sequence[Account] = ()
) -> Speed:
    """A sender's rate and long windows; simulators have the rate alone."""
    for known in packs.organisation.senders.get(channel, {}).values():
        if known.value == sender:
            windows = () if sandbox else WINDOWS.get(known.kind, ())
            return Speed(
                known.sandbox_rate if sandbox else known.rate,
                tuple(Budget(seconds, units) for seconds, units in windows),
            )
    for account in accounts:
        if account.channel == channel and account.sender == sender:
            return Speed(account.rate)
    return Speed(1.0)


def sender_price(packs: Packs, channel: str, sender: str) -> float:
    """List price of one unit in the organisation's currency, 0 where none is stated."""
    for known in packs.organisation.senders.get(channel, {}).values():
        if known.value == sender:
            return known.price
    return 0.0


def sending(services: Services, *, stopping: Callable[[], bool]) -> Batches:
    """The engine of one worker process; its parts bind to the running loop on first use."""
    redis: Redis = Redis.from_url(
        broker_url(services.settings),
        socket_timeout=2.0,
        socket_connect_timeout=1.0,
        health_check_interval=30,
        # Away is away: pacing goes on alone at once, and asks again with the next window.
        retry=Retry(NoBackoff(), 0),
    )
    ledger = Ledger(services.ledger.database_url, by_key=True)

    def counted(sender: str, seconds: float) -> int:
        with services.ledger.read() as conn:
            return paces.sent_since(conn, sender, seconds)

    return Batches(
        ledger,
        services.sealer,
        Pacing(redis, counted=counted, monotonic=time.monotonic),
        adapters=services.adapters,
        drill_adapters=services.drill_adapters,
        speed=partial(
            sender_speed,
            services.packs,
            services.mode == "sandbox",
            accounts=services.accounts,
        ),
        owner=f"{socket.gethostname()}:{os.getpid()}",
        lease_seconds=services.settings.lease,
        stopping=stopping,
    )


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

"""`dispatcher doctor`: what is set, missing and reachable, and how to mend each.

Looks and never writes. Every check stands alone, so that one thing that is broken does not
hide another. Prints names of variables, never their values.
"""

import difflib
import shutil
import socket
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx

from channels import registry
from channels.contract import Adapter
from dispatcher import adapters, wiring
from dispatcher import broker as brokers
from dispatcher import settings as settings_module
from dispatcher.audiences import PackError, Packs
from dispatcher.audiences import load as load_packs
from dispatcher.commands.places import SANDBOX_URL_FILE, URL_FILE, written
from dispatcher.ledger import installation
from dispatcher.ledger.connection import Ledger, LedgerAway, SchemaTooOld
from dispatcher.rendering.proof import check_packs
from dispatcher.security.sealing import Sealer, new_master_key
from dispatcher.settings import PREFIX, Settings, SettingsError

WARN_BYTES = 2_000_000_000
LEAST_BYTES = 200_000_000
CONNECT_SECONDS = 5.0


class Level(StrEnum):
    """How bad a finding is. Only an error makes `doctor` fail."""

    GOOD = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `mend` says what to do about it, empty if nothing."""

    level: Level
    what: str
    found: str
    mend: str = ""


def good(what: str, found: str) -> Finding:
    return Finding(Level.GOOD, what, found)


def warning(what: str, found: str, mend: str) -> Finding:
    return Finding(Level.WARNING, what, found, mend)


def error(what: str, found: str, mend: str) -> Finding:
    return Finding(Level.ERROR, what, found, mend)


def examine(environ: Mapping[str, str] | None = None, *, online: bool) -> Iterator[Finding]:
    """Every finding, in the order in which one would mend them.

    `environ` stands for the process's own environment. Only `online` connects to the
    providers of live mode; nothing is sent to them.
    """
    try:
        settings = settings_module.load(environ)
    except SettingsError as found:
        for name, reason in found.problems:
            yield error(name, reason, _suggestion(name))
        return
    yield good("settings", f"mode {settings.mode}, data in {settings.data_dir}")
    yield _master_key(settings)
    packs = yield from _packs(settings)
    yield from _database(settings)
    yield _broker(settings)
    if packs is not None:
        yield from _adapters(settings, packs, online=online)
    if settings.mode == "sandbox":
        own = None if settings.database_url else written(settings.data_dir / SANDBOX_URL_FILE)
        yield _answers(
            "provider sandbox",
            f"{own or settings.sandbox_url}/_sandbox/health",
            "start it with `dispatcher sandbox`, or all with `dispatcher up`;"
            " DISPATCHER_SANDBOX_URL names another",
        )
    yield _api(settings)
    yield _disk(settings)


def _suggestion(name: str) -> str:
    """What a mistyped variable probably should be."""
    known = [PREFIX + field.upper() for field in Settings.model_fields if field != "channels"]
    known += [f"{each}_FILE" for each in known]
    if name in known:
        return "correct its value"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else "correct or unset it"


def _master_key(settings: Settings) -> Finding:
    what = "master key"
    if settings.secret("master_key") is None and settings.database_url is None:
        file = settings.data_dir / wiring.MASTER_KEY_FILE
        if not file.exists():
            return good(what, "is made at the first start")
        if file.stat().st_mode & 0o077:
            return warning(what, f"{file} can be read by others", f"chmod 600 {file}")
    try:
        Sealer(_key(settings))
    except SettingsError as found:
        return error(what, found.problems[0][1], "set DISPATCHER_MASTER_KEY_FILE")
    except (ValueError, OSError):
        return error(
            what,
            "is not 64 hexadecimal digits in a file that can be read",
            "restore the key this ledger was started with, or for a new one: openssl rand -hex 32",
        )
    return good(what, "is there")


def _key(settings: Settings) -> str:
    """The key, without making one."""
    file = settings.data_dir / wiring.MASTER_KEY_FILE
    if settings.secret("master_key") is None and settings.database_url is None:
        return file.read_text(encoding="ascii").strip()
    return wiring.master_key(settings)


def _packs(settings: Settings) -> Generator[Finding, None, Packs | None]:
    """Findings on the packs; returns them, None if they cannot be read."""
    what = "packs"
    folder = wiring.templates(settings)
    packs: Packs | None = None
    try:
        packs = load_packs(folder, overlay=settings.overlay)
        adapters, _ = _configured(settings, packs)
        problems = check_packs(packs, list(adapters.values()))
    except PackError as found:
        problems = list(found.problems)
    for problem in problems:
        yield error(what, str(problem), "mend that line; nothing starts before")
    if not problems and packs is not None:
        yield good(what, f"{len(packs.audiences)} audiences in {folder}")
    return packs if not problems else None


def _configured(
    settings: Settings, packs: Packs
) -> tuple[Mapping[str, Adapter], Mapping[str, str]]:
    # Nothing is connected to or sealed here: a ledger that is away must not hide the rest.
    ledger, sealer = Ledger("postgresql://"), Sealer(new_master_key())
    if settings.mode == "live":
        return adapters.configured(
            {"inbox_push": {}, **settings.channels}, ledger=ledger, sealer=sealer
        )
    accounts = [a.address for a in packs.organisation.public_accounts if a.kind == "x_account"]
    with TemporaryDirectory() as folder:
        # The sandbox's own account is made where it is looked for: not in the data folder.
        elsewhere = settings.model_copy(update={"data_dir": Path(folder)})
        given = adapters.sandbox_channels(elsewhere, accounts)
        return adapters.configured(given, ledger=ledger, sealer=sealer)


def _database(settings: Settings) -> Iterator[Finding]:
    what = "database"
    try:
        url = wiring.database_url(settings)
    except SettingsError as found:
        yield error(what, found.problems[0][1], "set it, or start `dispatcher up`")
        return
    ledger = Ledger(url, size=1, patience=CONNECT_SECONDS)
    try:
        ledger.check_schema()
        with ledger.read() as conn:
            recorded = installation.read(conn)
    except LedgerAway:
        yield error(
            what,
            f"cannot be reached at {_place(url)}",
            "start PostgreSQL, or correct DISPATCHER_DATABASE_URL",
        )
        return
    except SchemaTooOld as found:
        yield error("schema", str(found), "dispatcher migrate")
        return
    finally:
        ledger.close()
    yield good(what, f"answers at {_place(url)}, its schema is this release's or newer")
    yield _belongs(settings, recorded)


def _belongs(settings: Settings, recorded: tuple[str, str] | None) -> Finding:
    what = "installation"
    if recorded is None:
        return error(what, "this ledger was never started", "dispatcher migrate")
    mode, fingerprint = recorded
    if mode != settings.mode:
        return error(
            what,
            f"this ledger was started in {mode} mode, DISPATCHER_MODE says {settings.mode}",
            "use another database for the other mode",
        )
    try:
        same = Sealer(_key(settings)).fingerprint == fingerprint
    except (SettingsError, ValueError, OSError):
        return warning(what, f"mode {mode}; the master key cannot be compared", "see above")
    if not same:
        return error(
            what,
            "the master key is not the one this ledger's contacts were sealed with",
            "restore that key: without it no contact can be opened",
        )
    return good(what, f"mode {mode}, sealed with this master key")


def _broker(settings: Settings) -> Finding:
    what = "broker"
    try:
        url = wiring.broker_url(settings)
    except SettingsError as found:
        return error(what, found.problems[0][1], "set it, or start `dispatcher up`")
    depth = brokers.Broker(brokers.build(url), url).depth(brokers.URGENT)
    if depth is None:
        return error(
            what,
            f"cannot be reached at {_place(url)}",
            "start Valkey or Redis, or correct DISPATCHER_BROKER_URL",
        )
    return good(what, f"answers at {_place(url)}")


def _adapters(settings: Settings, packs: Packs, *, online: bool) -> Iterator[Finding]:
    adapters, missing = _configured(settings, packs)
    for name, adapter in adapters.items():
        outside = "the provider sandbox" if settings.mode == "sandbox" else "its provider"
        where = "this ledger" if name == "inbox_push" else outside
        yield good(f"adapter {name}", f"{adapter.channel} to {adapter.accepts}, by {where}")
    needed = {step.channel for audience in packs.audiences.values() for step in audience.channels}
    served = {str(adapter.channel) for adapter in adapters.values()}
    for name, reason in missing.items():
        yield warning(
            f"adapter {name}",
            f"is not configured: {reason}",
            f"set {PREFIX}CHANNELS__{name.upper()}__<FIELD>, if it is to be used",
        )
    for channel in sorted(needed - served):
        yield error(
            f"channel {channel}",
            "no adapter is configured, but an audience uses it",
            "configure one of its adapters",
        )
    if online and settings.mode == "live":
        for name in adapters:
            yield from _provider(name, settings.channels.get(name, {}))


def _provider(name: str, given: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the hosts of an adapter can be connected to; not a byte is sent."""
    fields = registry.load(name).Settings.model_fields  # type: ignore[attr-defined]
    for field in ("base_url", "token_uri"):
        default = fields[field].default if field in fields else None
        url = given.get(field) or (default if isinstance(default, str) else "")
        host, port = urlsplit(url).hostname, urlsplit(url).port or 443
        if host is None:
            continue
        try:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
        except OSError as found:
            yield error(
                f"provider of {name}",
                f"{host}:{port} cannot be connected to ({type(found).__name__})",
                "open this way in the firewall, or mend the name service",
            )
        else:
            yield good(f"provider of {name}", f"{host}:{port} can be connected to")


def _answers(what: str, url: str, mend: str) -> Finding:
    place = _place(url)
    try:
        answer = httpx.get(url, timeout=CONNECT_SECONDS, trust_env=False)
    except httpx.HTTPError as found:
        return error(what, f"does not answer at {place} ({type(found).__name__})", mend)
    if answer.is_success:
        return good(what, f"answers at {place}")
    return error(what, f"answers {answer.status_code} at {place}", mend)


def _api(settings: Settings) -> Finding:
    what = "API"
    url = settings.api_url or written(settings.data_dir / URL_FILE)
    if url is None:
        return warning(
            what,
            "is not running from this data folder",
            "start it with `dispatcher api`, or all with `dispatcher up`",
        )
    return _answers(what, f"{url.rstrip('/')}/healthz", "start it with `dispatcher api`")


def _disk(settings: Settings) -> Finding:
    folder = settings.data_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    left = shutil.disk_usage(folder).free
    found = f"{left / 1e9:.1f} GB free for {settings.data_dir}"
    mend = "free some, or name another folder by DISPATCHER_DATA_DIR"
    if left < LEAST_BYTES:
        return error("disk", found, mend)
    return warning("disk", found, mend) if left < WARN_BYTES else good("disk", found)


def _place(url: str) -> str:
    """Where a URL leads, without user, password or query."""
    parts = urlsplit(url)
    host = parts.hostname or ("a Unix socket" if "host=" in parts.query else "its default host")
    port = f":{parts.port}" if parts.port else ""
    return f"{host}{port}"


def tell(findings: Sequence[Finding], say: Callable[[str], object]) -> bool:
    """Say every finding in a line or two; returns whether there was no error."""
    width = max((len(finding.what) for finding in findings), default=0)
    for finding in findings:
        say(f"{finding.level.value:8} {finding.what:{width}}  {finding.found}")
        if finding.mend and finding.level is not Level.GOOD:
            say(f"{'':8} {'':{width}}  → {finding.mend}")
    errors = sum(finding.level is Level.ERROR for finding in findings)
    warnings = sum(finding.level is Level.WARNING for finding in findings)
    say(f"{errors} errors, {warnings} warnings")
    return errors == 0

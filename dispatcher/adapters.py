"""Adapters from settings: which there are, with which account, and what each lacks.

In sandbox mode every adapter speaks to the provider sandbox with its fixed, public
credentials, and no setting of a real account is used. In live mode an adapter without
complete credentials is not configured, and nothing falls back to a simulator.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from channels import registry
from channels.contract import Adapter
from channels.sandbox import credentials
from channels.sandbox.webhook_keys import sendgrid_public_key
from channels.transport import CurlTransport
from dispatcher.delivery.failover import Account
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.inbox import LedgerInbox
from dispatcher.security.sealing import Sealer
from dispatcher.settings import Settings, SettingsError

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
SHARE_OF_LEASE = 0.6
"""The most of a lease that one request may last: it is renewed after a third, and a request
that could outlast it is not started."""


def sandbox_channels(settings: Settings, accounts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Adapter settings for the provider sandbox: public constants, never a real account."""
    url = settings.sandbox_url
    simulated: dict[str, dict[str, Any]] = {
        "twilio_sms": {
            "account_sid": credentials.TWILIO_ACCOUNT_SID,
            "auth_token": credentials.TWILIO_AUTH_TOKEN,
            "webhook_secret": credentials.TWILIO_SHARED_KEY,
            # The simulator lists what it took after a second.
            "settle_after": 5.0,
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
    for name, fields in simulated.items():
        kind: Any = registry.load(name.partition(".")[0])
        field = kind.Settings.model_fields.get("timeout")
        if field is not None:
            fields.setdefault("timeout", min(field.default, settings.lease / 2))
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


def fit_lease(adapters: Mapping[str, Adapter], lease: float) -> None:
    """Raise `SettingsError` for an adapter whose requests would outlast a lease."""
    problems = []
    for name, adapter in adapters.items():
        timeout = getattr(getattr(adapter, "settings", None), "timeout", 0.0)
        if timeout > lease * SHARE_OF_LEASE:
            words = (
                f"timeout of {timeout:g} s does not fit the lease of {lease:g} s:"
                f" at most {lease * SHARE_OF_LEASE:g} s, or a longer DISPATCHER_LEASE"
            )
            problems.append((name, words))
    if problems:
        raise SettingsError(problems)

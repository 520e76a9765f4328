"""Which adapters there are and where their code is. Importing this loads none of them.

Adding an adapter takes one line of `BUILTIN` and, where it needs a vendor's package, one of
`PACKAGES`. It must not know settings, credentials or the engine.
"""

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec

from channels.contract import Adapter

BUILTIN: Mapping[str, str] = {
    "twilio_sms": "channels.twilio_sms:TwilioSms",
    "sendgrid_email": "channels.sendgrid_email:SendgridEmail",
    "x_social": "channels.x_social:XSocial",
    "inbox_push": "channels.inbox_push:InboxPush",
    "fcm_push": "channels.fcm_push:FcmPush",
}
"""Name → "module:Class"."""

PACKAGES: Mapping[str, tuple[str, str]] = {
    "twilio_sms": ("twilio", "twilio"),
    "sendgrid_email": ("sendgrid", "sendgrid"),
    "x_social": ("tweepy", "tweepy"),
    "fcm_push": ("google.auth", "google-auth"),
}
"""Name → (module of the vendor's SDK, package to install). The SDK itself loads on first use."""


class UnknownAdapter(LookupError):
    """No adapter of that name; the text lists those that exist."""


class MissingPackage(ImportError):
    """The adapter's vendor package is not installed; the text names it."""


def names() -> tuple[str, ...]:
    """Every adapter's name."""
    return tuple(BUILTIN)


def load(name: str) -> type[Adapter]:
    """The adapter's class. Raises `UnknownAdapter`, or `MissingPackage` before first use fails."""
    try:
        module, _, attribute = BUILTIN[name].partition(":")
    except KeyError:
        known = ", ".join(names())
        raise UnknownAdapter(f"no adapter is called {name!r}; there are: {known}") from None
    if name in PACKAGES:
        sdk, package = PACKAGES[name]
        if not installed(sdk):
            raise MissingPackage(f"adapter {name} needs a package: pip install {package}")
    adapter: type[Adapter] = getattr(import_module(module), attribute)
    return adapter


def installed(module: str) -> bool:
    """Whether a module could be imported, without importing it (its parents are)."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def channel_kinds() -> dict[str, tuple[str, ...]]:
    """Each channel and the kinds of contact point that its adapters accept."""
    kinds: dict[str, tuple[str, ...]] = {}
    for name in names():
        adapter = load(name)
        known = kinds.get(adapter.channel, ())
        if adapter.accepts not in known:
            kinds[str(adapter.channel)] = (*known, str(adapter.accepts))
    return kinds

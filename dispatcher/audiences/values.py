"""An audience, the organisation that speaks, and the pure rules of who belongs to whom.

Knows no file format, no incident of the moment, no template text, no SQL, no provider.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import time, timedelta
from enum import StrEnum
from pathlib import Path

from dispatcher.incidents import FactKind, Phase, Severity

PRIVATE_USE = re.compile("[\ue000-\uf8ff\U000f0000-\U0010ffff]")
"""Characters that mean nothing to a reader; the renderer marks places in a text with them."""


class Scope(StrEnum):
    """Whether an incident must touch a recipient before the audience hears of it."""

    AFFECTED = "affected"
    EVERYONE = "everyone"


class Lane(StrEnum):
    """Which queue an audience's deliveries travel in."""

    URGENT = "urgent"
    NORMAL = "normal"
    BULK = "bulk"


class Reach(StrEnum):
    """Every channel a recipient has, or the first that works."""

    ALL = "all"
    FIRST = "first"


class SenderKind(StrEnum):
    """Kinds of sender, each with the pace its provider grants at least."""

    LONG_CODE = "long_code"
    TOLL_FREE = "toll_free"
    SHORT_CODE = "short_code"
    ALPHANUMERIC = "alphanumeric"
    MESSAGING_SERVICE = "messaging_service"
    MAIL = "mail"
    X_ACCOUNT = "x_account"
    APP = "app"


SLOWEST: Mapping[SenderKind, float] = {
    # Units per second when nothing better was granted in writing. SMS figures are the low
    # end per number type: https://support.twilio.com/hc/en-us/articles/115002943027
    SenderKind.LONG_CODE: 1.0,
    SenderKind.TOLL_FREE: 3.0,
    SenderKind.SHORT_CODE: 10.0,
    SenderKind.ALPHANUMERIC: 1.0,
    SenderKind.MESSAGING_SERVICE: 1.0,
    SenderKind.MAIL: 1_000.0,
    # Our own choice: posts are few, and their limit is the longer window below.
    SenderKind.X_ACCOUNT: 1.0,
    # 600,000 a minute per project, half of it: https://firebase.google.com/docs/cloud-messaging
    SenderKind.APP: 5_000.0,
}


WINDOWS: Mapping[SenderKind, tuple[tuple[float, int], ...]] = {
    # (seconds, units). 100 posts per user in 15 minutes, 10,000 per app in a day:
    # https://docs.x.com/x-api/fundamentals/rate-limits
    SenderKind.X_ACCOUNT: ((900.0, 100), (86_400.0, 10_000)),
}
"""Limits over more than a minute, by kind, which hold beside the rate."""


@dataclass(frozen=True, slots=True)
class ChannelStep:
    """One step of an audience's way; `wait` for *delivered* before the next step starts."""

    channel: str
    wait: timedelta | None = None


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Local hours of the recipient in which nothing leaves, unless the severity overrides."""

    start: time
    end: time
    overridden_by: frozenset[Severity] = frozenset()


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a folder of templates speaks to, and the rules of speaking to them.

    A recipient matches if its segment is one of `segments` (none: any) and it carries one of
    `tags` (none: no condition), or if it carries one of `also_tags`, whatever its segment.
    `rank` 1 is the highest. `required` names the fact kinds that must stand at a phase.
    """

    name: str
    title: str
    segments: tuple[str, ...]
    tags: tuple[str, ...]
    rank: int
    scope: Scope
    lane: Lane
    channels: tuple[ChannelStep, ...]
    reach: Reach
    start_by: timedelta | None
    preapproved: frozenset[Phase]
    cadence: timedelta | None
    reach_by: timedelta | None
    quiet_hours: QuietHours | None
    locales: tuple[str, ...]
    required: Mapping[Phase, frozenset[FactKind]]
    resend_unknown: bool = False
    also_tags: tuple[str, ...] = ()

    @property
    def falls(self) -> bool:
        """Whether a recipient whom one step does not reach is told by the next."""
        return self.reach is Reach.FIRST


@dataclass(frozen=True, slots=True)
class Sender:
    """Where a channel's messages come from. Rates are the adapter's own units per second.

    `price` is what one unit costs, in the organisation's currency.
    """

    value: str
    kind: SenderKind
    rate: float
    sandbox_rate: float
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class PublicAccount:
    """An account of our own through which the public is told."""

    kind: str
    address: str
    name: str
    locale: str
    region: str


@dataclass(frozen=True, slots=True)
class Support:
    """Where people turn to; each may be empty."""

    phone: str = ""
    business_phone: str = ""
    operations_phone: str = ""
    operations_email: str = ""
    media_email: str = ""
    investor_email: str = ""
    partner_email: str = ""


@dataclass(frozen=True, slots=True)
class Organisation:
    """Who speaks. `zones` and `region_names` by region code, `emergency` by country code.

    `voice_services` are those that carry emergency calls; `glossary` holds, per locale,
    words that must be written exactly so; `currency` (ISO 4217) is that of all prices.
    """

    name: str
    short_name: str
    site: str
    sms_prefix: str
    support: Support
    default_zone: str
    default_locale: str
    default_country: str
    emergency: Mapping[str, str]
    senders: Mapping[str, Mapping[str, Sender]]
    public_accounts: tuple[PublicAccount, ...]
    zones: Mapping[str, str]
    services: tuple[str, ...]
    voice_services: frozenset[str]
    region_names: Mapping[str, str]
    glossary: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    currency: str = "USD"

    def sender(self, channel: str, country: str | None) -> Sender | None:
        """The country's own sender, else the channel's default, else none."""
        by_country = self.senders.get(channel, {})
        return by_country.get(country or "default") or by_country.get("default")

    def emergency_number(self, regions: Sequence[str]) -> str:
        """The emergency number where an incident is; several countries, several numbers."""
        countries = dict.fromkeys(region.split("-")[0] for region in regions)
        numbers = dict.fromkeys(self.emergency[c] for c in countries if c in self.emergency)
        return "/".join(numbers) or self.emergency.get(self.default_country, "112")

    def zone(self, regions: Sequence[str]) -> str:
        """The zone of the first region or of the nearest one around it that names a zone."""
        code = regions[0] if regions else self.default_country
        while code:
            if code in self.zones:
                return self.zones[code]
            code = code.rpartition("-")[0]
        return self.default_zone


@dataclass(frozen=True, slots=True)
class PackProblem:
    """What is wrong with a pack, and where a person finds it."""

    file: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class PackError(Exception):
    """The packs cannot be used. `problems` holds all that was found."""

    def __init__(self, problems: Sequence[PackProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Packs:
    """Everything read from the templates' folder except the templates. Audiences by rank."""

    root: Path
    organisation: Organisation
    audiences: Mapping[str, Audience]
    overlay: Path | None = None

    def folders(self) -> tuple[Path, ...]:
        """Folders that hold templates; what a later one has stands above the earlier."""
        if self.overlay is not None and self.overlay.is_dir():
            return (self.root, self.overlay)
        return (self.root,)


def matches(audience: Audience, segment: str, tags: Sequence[str]) -> bool:
    """Whether a recipient with this segment and these tags belongs to the audience's match."""
    if any(tag in audience.also_tags for tag in tags):
        return True
    if audience.also_tags and not audience.segments and not audience.tags:
        return False
    if audience.segments and segment not in audience.segments:
        return False
    return not audience.tags or any(tag in audience.tags for tag in tags)


def within(region: str, regions: Sequence[str]) -> bool:
    """Whether `region` lies in one of `regions` (`US` holds `US-TX`); no regions hold all."""
    if not regions:
        return True
    return any(region == outer or region.startswith(f"{outer}-") for outer in regions)

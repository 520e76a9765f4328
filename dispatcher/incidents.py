"""What broke and what may be said of it: incidents, facts and updates as frozen values.

Owns the vocabulary and its validation. No I/O, no SQL, no templates. The same models
judge a request at the edge and are read back from the ledger, so that there is one
definition of a fact. Names of services, regions, causes and workarounds in people's
own languages belong to the packs, not here.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)


class Severity(StrEnum):
    """How much of the service is gone."""

    MINOR = "minor"
    MAJOR = "major"
    CRITICAL = "critical"


class Phase(StrEnum):
    """Where an incident stands when something is said of it."""

    INVESTIGATING = "investigating"
    IDENTIFIED = "identified"
    MONITORING = "monitoring"
    RESOLVED = "resolved"
    FOLLOW_UP = "follow_up"
    CORRECTION = "correction"


class Confidence(StrEnum):
    """How sure the operator is of a fact."""

    CONFIRMED = "confirmed"
    BELIEVED = "believed"
    UNDER_REVIEW = "under_review"
    RULED_OUT = "ruled_out"


class FactKind(StrEnum):
    """What a fact is about. A later fact of the same kind replaces the earlier one."""

    STARTED = "started"
    ENDED = "ended"
    SCOPE = "scope"
    CAUSE = "cause"
    NOT_CAUSE = "not_cause"
    WORKAROUND = "workaround"
    EMERGENCY_CALLS = "emergency_calls"
    ETA = "eta"
    RESTORED = "restored"
    COMPENSATION = "compensation"
    APOLOGY = "apology"
    NEXT_STEP = "next_step"


class CauseCode(StrEnum):
    """Causes that every pack can name in each of its languages."""

    NETWORK_CHANGE = "network_change"
    CONFIGURATION = "configuration"
    SOFTWARE = "software"
    HARDWARE = "hardware"
    POWER = "power"
    CABLE_CUT = "cable_cut"
    OVERLOAD = "overload"
    TRAFFIC_FLOOD = "traffic_flood"
    CUSTOMER_MALWARE = "customer_malware"
    OPEN_RESOLVERS = "open_resolvers"
    CYBERATTACK = "cyberattack"
    WEATHER = "weather"
    SUPPLIER = "supplier"
    PLANNED_WORK = "planned_work"


class WorkaroundCode(StrEnum):
    """Other ways to get service."""

    WIFI_CALLING = "wifi_calling"
    LANDLINE = "landline"
    OTHER_NETWORK = "other_network"
    SATELLITE = "satellite"
    MANUAL_DNS = "manual_dns"
    SMS_AND_CALLS = "sms_and_calls"
    MOBILE_DATA = "mobile_data"
    RESTART_DEVICE = "restart_device"
    OFFLINE_PAYMENTS = "offline_payments"
    VISIT_STORE = "visit_store"
    REPLACE_MODEM = "replace_modem"


class AccountClass(StrEnum):
    """Who is, or is not, eligible for a credit."""

    CONSUMER = "consumer"
    SMALL_BUSINESS = "small_business"
    BUSINESS = "business"
    PREPAID = "prepaid"
    RESELLER = "reseller"


class NextStepCode(StrEnum):
    """What the operator does next."""

    INVESTIGATION = "investigation"
    PUBLISH_CAUSE = "publish_cause"
    PUBLISH_REPORT = "publish_report"
    CREDIT_DETAILS = "credit_details"
    ACCOUNT_CONTACT = "account_contact"
    PREVENTION = "prevention"
    DEVICE_FIX = "device_fix"


MAX_SLOT_CHARS = 1_000
"""A public text slot's outer bound; each channel's own limit is judged at preview."""

_HIDDEN = frozenset(
    # Bidirectional overrides and isolates, and zero-width characters: they make a text
    # read otherwise than it was approved.
    chr(c)
    for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200B, 0x2060, 0xFEFF)
)


def _plain(text: str) -> str:
    """Refuse what would change how an approved text is read or shown."""
    if "<" in text or ">" in text or "[[" in text or "{{" in text or "{%" in text:
        raise ValueError("must be plain text: markup and template marks are not allowed")
    if any((ord(c) < 32 and c not in "\n") or 127 <= ord(c) < 160 for c in text):
        raise ValueError("must not hold control characters")
    if any(c in _HIDDEN for c in text):
        raise ValueError("must not hold hidden or direction-changing characters")
    return text


_ZONES = frozenset(available_timezones())


def _printable(text: str) -> str:
    if any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in text):
        raise ValueError("must not hold control characters")
    return text


def _zone(name: str) -> str:
    if name not in _ZONES:
        raise ValueError("must be a time zone of the tz database, such as Europe/Berlin")
    return name


Printable = AfterValidator(_printable)

PlainText = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_SLOT_CHARS),
    AfterValidator(_plain),
]
Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
AudienceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,47}$")]
RegionCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,8}){0,4}$")]
LocaleTag = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?$")]
TextSlot = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Texts = dict[TextSlot, dict[LocaleTag, PlainText]]


class Frozen(BaseModel):
    """Values that never change after validation and refuse fields they do not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Moment(Frozen):
    """When something began or ended."""

    at: AwareDatetime


class Scope(Frozen):
    """How many are affected, and how that is known."""

    count: Annotated[int, Field(ge=0, le=10_000_000_000)]
    basis: Literal["measured", "estimated", "reported"]


class Cause(Frozen):
    """One cause out of those every pack can name."""

    code: CauseCode


class Workaround(Frozen):
    """Other ways to get service, the most useful first."""

    codes: Annotated[tuple[WorkaroundCode, ...], Field(min_length=1, max_length=4)]


class EmergencyCalls(Frozen):
    """Whether emergency calls work, and what to use if they may not."""

    status: Literal["working", "limited", "not_working", "unknown"]
    use: Annotated[tuple[WorkaroundCode, ...], Field(max_length=4)] = ()


class Eta(Frozen):
    """When service is expected back; `latest` when it is a window."""

    at: AwareDatetime
    latest: AwareDatetime | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "Eta":
        if self.latest is not None and self.latest < self.at:
            raise ValueError("latest must not be before at")
        return self


class Restored(Frozen):
    """How much of the service is back."""

    percent: Annotated[int, Field(ge=0, le=100)]


class Compensation(Frozen):
    """Who gets how much, and who does not."""

    amount: Annotated[Decimal, Field(gt=0, max_digits=9, decimal_places=2)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    per: Literal["account", "line", "day"] = "account"
    automatic: bool
    within_billing_cycles: Annotated[int, Field(ge=1, le=12)] | None = None
    eligible: Annotated[tuple[AccountClass, ...], Field(min_length=1)]
    not_eligible: tuple[AccountClass, ...] = ()

    @model_validator(mode="after")
    def _disjoint(self) -> "Compensation":
        if set(self.eligible) & set(self.not_eligible):
            raise ValueError("an account class cannot be both eligible and not eligible")
        return self


class Apology(Frozen):
    """The operator apologises; `to_all` says that it is for every customer."""

    to_all: bool = True


class NextStep(Frozen):
    """What the operator does next, and by when if promised."""

    code: NextStepCode
    by: AwareDatetime | None = None


FACT_VALUES: Mapping[FactKind, type[Frozen]] = {
    FactKind.STARTED: Moment,
    FactKind.ENDED: Moment,
    FactKind.SCOPE: Scope,
    FactKind.CAUSE: Cause,
    FactKind.NOT_CAUSE: Cause,
    FactKind.WORKAROUND: Workaround,
    FactKind.EMERGENCY_CALLS: EmergencyCalls,
    FactKind.ETA: Eta,
    FactKind.RESTORED: Restored,
    FactKind.COMPENSATION: Compensation,
    FactKind.APOLOGY: Apology,
    FactKind.NEXT_STEP: NextStep,
}


class _Claim(Frozen):
    """What every fact carries beside its value."""

    confidence: Confidence = Confidence.CONFIRMED
    source: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), Printable
    ]
    known_at: AwareDatetime
    audiences: tuple[AudienceName, ...] | None = None


class StartedFact(_Claim):
    kind: Literal[FactKind.STARTED]
    value: Moment


class EndedFact(_Claim):
    kind: Literal[FactKind.ENDED]
    value: Moment


class ScopeFact(_Claim):
    kind: Literal[FactKind.SCOPE]
    value: Scope


class CauseFact(_Claim):
    kind: Literal[FactKind.CAUSE]
    value: Cause


class NotCauseFact(_Claim):
    kind: Literal[FactKind.NOT_CAUSE]
    value: Cause


class WorkaroundFact(_Claim):
    kind: Literal[FactKind.WORKAROUND]
    value: Workaround


class EmergencyCallsFact(_Claim):
    kind: Literal[FactKind.EMERGENCY_CALLS]
    value: EmergencyCalls


class EtaFact(_Claim):
    kind: Literal[FactKind.ETA]
    value: Eta


class RestoredFact(_Claim):
    kind: Literal[FactKind.RESTORED]
    value: Restored


class CompensationFact(_Claim):
    kind: Literal[FactKind.COMPENSATION]
    value: Compensation


class ApologyFact(_Claim):
    kind: Literal[FactKind.APOLOGY]
    value: Apology = Apology()


class NextStepFact(_Claim):
    kind: Literal[FactKind.NEXT_STEP]
    value: NextStep


NewFact = Annotated[
    StartedFact
    | EndedFact
    | ScopeFact
    | CauseFact
    | NotCauseFact
    | WorkaroundFact
    | EmergencyCallsFact
    | EtaFact
    | RestoredFact
    | CompensationFact
    | ApologyFact
    | NextStepFact,
    Field(discriminator="kind"),
]
"""A fact as it is stated: its id is given by the ledger."""


class Fact(Frozen):
    """A fact as the ledger holds it. `withdrawn_by` names the update that took it back."""

    id: str
    stated: NewFact
    update_id: str
    withdrawn_by: str | None = None

    @property
    def kind(self) -> FactKind:
        return self.stated.kind


def live_facts(facts: Iterable[Fact]) -> dict[FactKind, Fact]:
    """The facts that stand: per kind the latest stated one that was not withdrawn.

    `facts` come in the order in which they were stated. Withdrawing the latest does not
    bring an earlier one back: it was replaced because it was no longer the best known.
    """
    latest: dict[FactKind, Fact] = {}
    for fact in facts:
        latest[fact.kind] = fact
    return {kind: fact for kind, fact in latest.items() if fact.withdrawn_by is None}


class NewUpdate(Frozen):
    """One thing to say about an incident: the unit of preview, approval and release."""

    phase: Phase
    facts: Annotated[tuple[NewFact, ...], Field(max_length=24)] = ()
    texts: Texts = {}
    next_update_at: AwareDatetime | None = None
    expires_at: AwareDatetime | None = None
    audiences: Annotated[tuple[AudienceName, ...], Field(min_length=1)] | None = None
    withdraws: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> "NewUpdate":
        kinds = [fact.kind for fact in self.facts]
        for kind in set(kinds):
            if kinds.count(kind) > 1:
                raise ValueError(f"facts: two facts of kind {kind.value} in one update")
        if self.audiences is not None and len(set(self.audiences)) != len(self.audiences):
            raise ValueError("audiences: an audience is named twice")
        if self.phase is Phase.CORRECTION and not self.withdraws:
            raise ValueError("withdraws: a correction must withdraw at least one fact")
        return self


class NewIncident(Frozen):
    """What broke. `title` and `summary` are internal and never rendered."""

    title: Annotated[
        str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200), Printable
    ]
    summary: Annotated[
        str, StringConstraints(strip_whitespace=True, max_length=4_000), Printable
    ] = ""
    severity: Severity
    services: Annotated[tuple[Code, ...], Field(min_length=1, max_length=32)]
    regions: Annotated[tuple[RegionCode, ...], Field(max_length=256)] = ()
    started_at: AwareDatetime
    zone: Annotated[str, StringConstraints(max_length=64), AfterValidator(_zone)] | None = None
    drill: bool = False


class Incident(Frozen):
    """An incident as the ledger holds it; `INC-0042` when spoken."""

    id: str
    number: int
    title: str
    summary: str
    severity: Severity
    services: tuple[str, ...]
    regions: tuple[str, ...]
    started_at: datetime
    zone: str | None
    drill: bool
    status: Literal["open", "resolved"]
    created_at: datetime
    resolved_at: datetime | None = None

    @property
    def reference(self) -> str:
        return f"INC-{self.number:04d}"


def problems_with_times(
    update: NewUpdate, *, now: datetime, started_at: datetime
) -> list[tuple[str, str]]:
    """Times that cannot be true, as (field, reason): judged against the clock, so not in the model."""
    found: list[tuple[str, str]] = []
    if update.next_update_at is not None and update.next_update_at <= now:
        found.append(("next_update_at", "must be in the future"))
    if update.expires_at is not None and update.expires_at <= now:
        found.append(("expires_at", "must be in the future"))
    for index, fact in enumerate(update.facts):
        field = f"facts.{index}"
        if fact.known_at > now:
            found.append((f"{field}.known_at", "must not be in the future"))
        if isinstance(fact, StartedFact) and fact.value.at > now:
            found.append((f"{field}.value.at", "start must not be in the future"))
        if isinstance(fact, EndedFact):
            if fact.value.at > now:
                found.append((f"{field}.value.at", "end must not be in the future"))
            if fact.value.at < started_at:
                found.append((f"{field}.value.at", "end must not be before the start"))
    return found

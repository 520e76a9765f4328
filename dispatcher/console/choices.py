"""What a form offers to choose from, in plain English: services, places, causes, zones.

Pure. Names come from the packs' English words where they have them, so that the form speaks of
things as the messages do. Order is kept: what is chosen already stands first, as chosen, since
a browser sends choices in the order of the page.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dispatcher.audiences import Organisation, Packs
from dispatcher.console.forms import QUICK, language
from dispatcher.console.typed import Typed
from dispatcher.incidents import (
    AccountClass,
    CauseCode,
    Confidence,
    FactKind,
    NextStepCode,
    Phase,
    Severity,
    WorkaroundCode,
)
from dispatcher.rendering import TEXT_SLOTS, Renderer
from dispatcher.rendering.vocabulary import Vocabulary

Option = tuple[str, str] | tuple[str, str, str]
"""Value, words, and perhaps a note."""

PHASES: Sequence[Option] = (
    (Phase.INVESTIGATING, "Investigating", "We know that something is wrong, not yet why."),
    (Phase.IDENTIFIED, "Identified", "We know what it is and are mending it."),
    (Phase.MONITORING, "Monitoring", "It is mended and we are watching whether it holds."),
    (Phase.RESOLVED, "Resolved", "It is over."),
    (Phase.FOLLOW_UP, "Follow-up", "Afterwards: cause, credit, what is done about it."),
    (Phase.CORRECTION, "Correction", "Something that was said is wrong and is taken back."),
)
SEVERITIES: Sequence[Option] = (
    (Severity.CRITICAL, "Critical", "A large part of the service is gone for many."),
    (Severity.MAJOR, "Major", "A part of the service is gone."),
    (Severity.MINOR, "Minor", "It is worse than usual, or few are affected."),
)
CONFIDENCES: Mapping[Confidence, str] = {
    Confidence.CONFIRMED: "Confirmed",
    Confidence.BELIEVED: "Believed",
    Confidence.UNDER_REVIEW: "Under review",
    Confidence.RULED_OUT: "Ruled out",
}
BASES: Sequence[Option] = (
    ("measured", "Measured"),
    ("estimated", "Estimated"),
    ("reported", "Reported to us"),
)
EMERGENCY: Sequence[Option] = (
    ("not_working", "They do not work"),
    ("limited", "Some may fail"),
    ("unknown", "Not known yet, being checked"),
    ("working", "They work", "Needs a second person: tried or measured just now."),
)
PER: Sequence[Option] = (
    ("account", "account"),
    ("line", "line"),
    ("day", "day of the outage"),
)
_NEXT_STEPS: Mapping[NextStepCode, str] = {
    NextStepCode.INVESTIGATION: "A full investigation",
    NextStepCode.PUBLISH_CAUSE: "Publish the cause",
    NextStepCode.PUBLISH_REPORT: "Publish a full report",
    NextStepCode.CREDIT_DETAILS: "Tell people about credits",
    NextStepCode.ACCOUNT_CONTACT: "Account teams call their customers",
    NextStepCode.PREVENTION: "See that it does not happen again",
    NextStepCode.DEVICE_FIX: "Help to mend or replace devices",
}


@dataclass(frozen=True, slots=True)
class Locale:
    """A language in which own words may be written; `audiences` are told in it."""

    tag: str
    language: str
    direction: str
    audiences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choices:
    """All that the form of one incident offers."""

    services: Sequence[Option]
    regions: Sequence[Option]
    audiences: Sequence[Option]
    phases: Sequence[Option]
    severities: Sequence[Option]
    zones: Sequence[Option]
    next_updates: Sequence[Option]
    causes: Sequence[Option]
    ways: Sequence[Option]
    accounts: Sequence[Option]
    next_steps: Sequence[Option]
    bases: Sequence[Option]
    emergency: Sequence[Option]
    per: Sequence[Option]
    slots: Mapping[str, str]
    locales: Sequence[Locale]

    def confidences(self, kind: str, chosen: str) -> Sequence[Option]:
        """How sure one can be; that something is ruled out is said of causes only."""
        return [
            (value, words)
            for value, words in CONFIDENCES.items()
            if value is not Confidence.RULED_OUT or kind == FactKind.CAUSE or chosen == value
        ]


def choices(renderer: Renderer, typed: Typed, *, zone: str) -> Choices:
    """What to offer for these packs and what is typed already. `zone` is the reader's."""
    packs, organisation = renderer.packs, renderer.packs.organisation
    words = renderer.vocabulary("en")
    return Choices(
        services=_first(typed.all("services"), _services(organisation, words)),
        regions=_first(typed.all("regions"), _regions(organisation, words)),
        audiences=_first(
            typed.all("audiences"), [(name, each.title) for name, each in packs.audiences.items()]
        ),
        phases=PHASES,
        severities=SEVERITIES,
        zones=_zones(organisation, zone, typed.one("typed_zone")),
        next_updates=(*QUICK.items(), ("at", "at this time:"), ("none", "no time promised")),
        causes=[(code, _capital(words.name("causes", code))) for code in CauseCode],
        ways=[(code, _capital(words.name("uses", code))) for code in WorkaroundCode],
        accounts=[(code, _capital(words.name("accounts", code))) for code in AccountClass],
        next_steps=list(_NEXT_STEPS.items()),
        bases=BASES,
        emergency=EMERGENCY,
        per=PER,
        slots=TEXT_SLOTS,
        locales=_locales(renderer, packs, typed),
    )


def place_name(code: str, organisation: Organisation, words: Vocabulary) -> str:
    """A region as people call it; its code if nobody knows a name."""
    if words.knows("regions", code):
        return words.name("regions", code)
    return organisation.region_names.get(code) or words.territory(code) or code


def _first(chosen: Sequence[str], options: Sequence[Option]) -> list[Option]:
    """The options, those chosen before the others and in their own order."""
    known = {option[0]: option for option in options}
    head = [known.get(value, (value, value)) for value in dict.fromkeys(chosen)]
    return [*head, *(option for option in options if option[0] not in chosen)]


def _services(organisation: Organisation, words: Vocabulary) -> list[Option]:
    return [
        (code, name, "carries emergency calls")
        if code in organisation.voice_services
        else (code, name)
        for code in organisation.services
        for name in (_capital(words.name("services", code)),)
    ]


def _regions(organisation: Organisation, words: Vocabulary) -> list[Option]:
    """The organisation's own country first, then the widest first, then by name."""
    codes = dict.fromkeys((*organisation.zones, *organisation.region_names))
    home = organisation.default_country
    named = [(code, _capital(place_name(code, organisation, words))) for code in codes]
    return [
        *sorted(
            named,
            key=lambda each: (each[0].split("-")[0] != home, each[0].count("-"), each[1]),
        )
    ]


def _zones(organisation: Organisation, zone: str, chosen: str) -> list[Option]:
    names: Iterable[str] = (
        chosen,
        zone,
        organisation.default_zone,
        *organisation.zones.values(),
        "UTC",
    )
    return [(name, name.replace("_", " ")) for name in dict.fromkeys(names) if name]


def _locales(renderer: Renderer, packs: Packs, typed: Typed) -> list[Locale]:
    """Every language that an audience is served, the organisation's own first, and any typed."""
    told: dict[str, list[str]] = {packs.organisation.default_locale: []}
    for name, audience in packs.audiences.items():
        served = {tag for step in audience.channels for tag in renderer.locales(name, step.channel)}
        for tag in audience.locales:
            if tag in served:
                told.setdefault(tag, []).append(name)
    for name in typed.names():
        if name.startswith("texts.") and typed.one(name):
            told.setdefault(name.split(".")[-1], [])
    return [
        Locale(tag, language(tag), renderer.vocabulary(tag).direction, tuple(audiences))
        for tag, audiences in told.items()
    ]


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]

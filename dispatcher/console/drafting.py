"""What a form that is being written would say: its statement, and what each audience lacks.

Pure: reads packs and values, no ledger. The rules are those of submission itself
(`missing_facts`, pre-approval, `claims`); here they are only told beforehand.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from dispatcher.audiences import Packs
from dispatcher.claims import Claim, sensitive
from dispatcher.console import oddities
from dispatcher.console.fact_forms import TITLES
from dispatcher.console.forms import QUICK, Read, label, language, quick
from dispatcher.console.typed import Typed, moment
from dispatcher.console.views import ago, zoned
from dispatcher.incidents import (
    Fact,
    FactKind,
    Incident,
    NewIncident,
    NewUpdate,
    Phase,
    live_facts,
)
from dispatcher.previews import IMAGINED
from dispatcher.rendering import Renderer, Statement
from dispatcher.rendering.renderer import chain

TIMES = ("started_at", "known_at", "next_update_at", "expires_at")
"""Fields that hold times, beside those of facts."""


@dataclass(frozen=True, slots=True)
class AudienceOutlook:
    """An audience while its update is written: what it lacks, and whether it goes at once."""

    name: str
    title: str
    missing: tuple[FactKind, ...]
    untold: tuple[str, ...]
    at_once: bool
    why: str

    @property
    def lacks(self) -> tuple[str, ...]:
        """What is missing, in words."""
        facts = tuple(TITLES[kind] for kind in self.missing)
        return (*facts, *(f"own words in {language}" for language in self.untold))


@dataclass(frozen=True, slots=True)
class OddText:
    """A text with something odd in it: what, where, and whether a plain form is offered."""

    name: str
    label: str
    findings: tuple[oddities.Finding, ...]
    pieces: tuple[oddities.Piece, ...]
    mendable: bool
    direction: str

    @property
    def refused(self) -> bool:
        return any(finding.refused for finding in self.findings)


def others(facts: Sequence[Fact], editing: str | None) -> list[Fact]:
    """The facts that stand apart from the draft being written: without its own, and without what
    only it takes back. What came after it does not count, as it will not when it is submitted."""
    found = []
    for fact in facts:
        if editing is not None and fact.update_id >= editing:
            continue
        if editing is not None and fact.withdrawn_by == editing:
            fact = fact.model_copy(update={"withdrawn_by": None})
        found.append(fact)
    return found


def imagined(new: NewIncident, *, now: datetime) -> Incident:
    """A new incident as if it were stored."""
    return Incident(id=IMAGINED, number=0, status="open", created_at=now, **new.model_dump())


def statement(
    incident: Incident,
    update: NewUpdate,
    known: Sequence[Fact],
    *,
    now: datetime,
    previous: Phase | None,
) -> Statement:
    """What the draft would say now. `known` are the facts of other updates, in order."""
    stated = [
        Fact(id=f"{IMAGINED}-{place}", stated=fact, update_id=IMAGINED)
        for place, fact in enumerate(update.facts)
    ]
    taken = set(update.withdraws)
    standing = [
        fact.model_copy(update={"withdrawn_by": IMAGINED}) if fact.id in taken else fact
        for fact in known
    ]
    return Statement(
        incident=incident,
        update_id=IMAGINED,
        phase=update.phase,
        facts=live_facts([*standing, *stated]),
        withdrawn=tuple(fact for fact in known if fact.id in taken),
        texts=update.texts,
        next_update_at=update.next_update_at,
        expires_at=update.expires_at,
        stated_at=now,
        previous=previous,
    )


def outlook(
    renderer: Renderer, said: Statement, update: NewUpdate, *, own_words: bool
) -> tuple[tuple[AudienceOutlook, ...], tuple[Claim, ...]]:
    """Each audience of the update, those that lack something first; and the sensitive claims.

    `own_words` is whether anything is typed as public text, also if it cannot be sent as it is.
    """
    packs = renderer.packs
    claims = sensitive(update.facts)
    named = [name for name in update.audiences or packs.audiences if name in packs.audiences]
    found = [
        _outlook(renderer, said, update, name, claims=claims, own_words=own_words) for name in named
    ]
    return tuple(sorted(found, key=lambda each: not each.lacks)), claims


def _outlook(
    renderer: Renderer,
    said: Statement,
    update: NewUpdate,
    name: str,
    *,
    claims: Sequence[Claim],
    own_words: bool,
) -> AudienceOutlook:
    audience = renderer.packs.audiences[name]
    voice = not renderer.packs.organisation.voice_services.isdisjoint(said.incident.services)
    missing = []
    for kind in TITLES:
        if kind not in audience.required.get(said.phase, ()):
            continue
        fact = said.facts.get(kind)
        heard = fact is not None and (
            fact.stated.audiences is None or name in fact.stated.audiences
        )
        if not heard and (voice or kind is not FactKind.EMERGENCY_CALLS):
            missing.append(kind)
    if claims:
        why = "a claim that needs a second person"
    elif own_words:
        why = "your own words are in it"
    elif said.phase not in audience.preapproved:
        why = f"{said.phase.replace('_', ' ')} needs approval here"
    else:
        why = ""
    return AudienceOutlook(
        name=name,
        title=audience.title,
        missing=tuple(missing),
        untold=_untold(renderer, update, name),
        at_once=not why,
        why=why,
    )


def _untold(renderer: Renderer, update: NewUpdate, audience: str) -> tuple[str, ...]:
    """Languages of the audience in which a slot that is used has no words."""
    served: dict[str, None] = {}
    for step in renderer.packs.audiences[audience].channels:
        served |= dict.fromkeys(renderer.locales(audience, step.channel))
    return tuple(
        language(locale)
        for locale in served
        if any(
            not any(each in by_locale for each in chain(locale))
            for by_locale in update.texts.values()
        )
    )


def odd_texts(typed: Typed, renderer: Renderer) -> tuple[OddText, ...]:
    """Every text of the form in which something is odd, those that cannot be sent first."""
    found: list[OddText] = []
    for name in typed.names():
        public = name.startswith("texts.")
        if not public and name not in ("title", "summary", "source"):
            continue
        text = typed.text(name)
        locale = name.split(".")[-1] if public else "en"
        odd = oddities.find(text, locale=locale, public=public)
        if odd:
            found.append(
                OddText(
                    name=name,
                    label=label(name),
                    findings=oddities.findings(text, odd),
                    pieces=oddities.pieces(text, odd),
                    mendable=oddities.mendable(odd),
                    direction=renderer.vocabulary(locale).direction if public else "ltr",
                )
            )
    return tuple(sorted(found, key=lambda each: not each.refused))


def odd_digest(typed: Typed, odd: Sequence[OddText]) -> str:
    """Tells these odd texts from all others; empty if nothing is odd. A form carries the digest
    of those that it has shown."""
    if not odd:
        return ""
    shown = "\0".join(f"{text.name}={typed.text(text.name)}" for text in odd)
    return hashlib.sha256(shown.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def mended(typed: Typed, name: str) -> Typed:
    """The form with plain characters in one text, where it is known which are meant."""
    public = name.startswith("texts.")
    locale = name.split(".")[-1] if public else "en"
    return typed.having(name, oddities.plain(typed.text(name), locale=locale, public=public))


def readings(typed: Typed, *, zone: ZoneInfo, now: datetime) -> Mapping[str, str]:
    """How each time on the form is understood: in its zone, in UTC, and how far away it is."""
    found: dict[str, str] = {}
    for name in typed.names():
        if name in TIMES or name.split(".")[-1] in ("at", "latest", "by", "known_at"):
            text = typed.one(name)
            try:
                at = moment(text, zone=zone, fold=typed.one(f"{name}.fold"))
            except ValueError:
                continue
            found[name] = told(at, zone=zone, now=now)
    choice = typed.one("next_update")
    if choice in QUICK and not typed.one("next_update_at"):
        found["next_update"] = told(quick(choice, now), zone=zone, now=now)
    return found


def told(at: datetime, *, zone: ZoneInfo, now: datetime) -> str:
    """`03:45 CST on Sun 22 Feb, 09:45 UTC, 27 min ago`"""
    local = at.astimezone(zone)
    utc = "" if local.utcoffset() == at.utcoffset() else f", {at:%H:%M} UTC"
    return f"{zoned(at, zone.key)} on {local:%a} {local.day} {local:%b}{utc}, {ago(at, now)}"


def to_put_right(read: Read) -> tuple[list[str], list[str]]:
    """What is wrong with what was typed, and what is still empty: sentences, and fields."""
    wrong, empty = [], []
    for error in read.errors:
        typed = any(
            read.typed.one(name)
            for name in read.typed.names()
            if name == error.name or name.startswith(f"{error.name}.")
        )
        if typed:
            wrong.append(error.sentence)
        else:
            empty.append(error.label)
    return wrong, empty


def shortest_cadence(packs: Packs, audiences: Sequence[str]) -> int:
    """Minutes within which the most impatient of these audiences was promised to hear again."""
    waits = [
        rules.cadence
        for name in audiences
        if (rules := packs.audiences.get(name)) is not None and rules.cadence is not None
    ]
    return round(min(waits).total_seconds() / 60) if waits else 60

"""Proves the packs before anything is sent: every template, three examples, file and line.

Used at start and by `doctor`. A template that fails here can never lose a message later.
"""

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from jinja2 import TemplateError

from channels.contract import Adapter, Channel
from dispatcher.audiences import PackError, PackProblem, Packs
from dispatcher.incidents import (
    AccountClass,
    Apology,
    ApologyFact,
    Cause,
    CauseCode,
    CauseFact,
    Compensation,
    CompensationFact,
    Confidence,
    EmergencyCalls,
    EmergencyCallsFact,
    EndedFact,
    Eta,
    EtaFact,
    Fact,
    FactKind,
    Incident,
    Moment,
    NewFact,
    NextStep,
    NextStepCode,
    NextStepFact,
    NotCauseFact,
    Phase,
    Restored,
    RestoredFact,
    Scope,
    ScopeFact,
    Severity,
    StartedFact,
    Workaround,
    WorkaroundCode,
    WorkaroundFact,
)
from dispatcher.rendering.renderer import ANY_PHASE, Renderer
from dispatcher.rendering.statement import Statement

_START = datetime(2024, 2, 22, 8, 45, tzinfo=UTC)
_NOW = _START + timedelta(minutes=30)
_SOURCE = "network operations"


def _incident(
    *, services: tuple[str, ...], regions: tuple[str, ...], drill: bool = False
) -> Incident:
    return Incident(
        id="0190a000-0000-7000-8000-000000000042",
        number=42,
        title="INTERNAL TITLE",
        summary="INTERNAL SUMMARY",
        severity=Severity.CRITICAL,
        services=services,
        regions=regions,
        started_at=_START,
        zone="America/Chicago" if regions else None,
        drill=drill,
        status="open",
        created_at=_START,
    )


def _held(*stated: NewFact) -> dict[FactKind, Fact]:
    return {
        fact.kind: Fact(id=f"fact-{place}", stated=fact, update_id="update-1")
        for place, fact in enumerate(stated)
    }


def _claim(confidence: Confidence = Confidence.CONFIRMED) -> dict[str, object]:
    return {"confidence": confidence, "source": _SOURCE, "known_at": _NOW}


def _emergency(status: str, *use: WorkaroundCode) -> EmergencyCallsFact:
    value = EmergencyCalls.model_validate({"status": status, "use": use})
    return EmergencyCallsFact.model_validate(
        {"kind": "emergency_calls", "value": value, **_claim()}
    )


def typical() -> Statement:
    return Statement(
        incident=_incident(services=("voice", "mobile_data", "sms"), regions=("US",)),
        update_id="update-1",
        phase=Phase.INVESTIGATING,
        facts=_held(
            _emergency("limited", WorkaroundCode.WIFI_CALLING, WorkaroundCode.LANDLINE),
            WorkaroundFact.model_validate(
                {
                    "kind": "workaround",
                    "value": Workaround(codes=(WorkaroundCode.WIFI_CALLING,)),
                    **_claim(),
                }
            ),
        ),
        stated_at=_NOW,
        next_update_at=_NOW + timedelta(minutes=30),
        expires_at=_NOW + timedelta(hours=6),
    )


def minimal() -> Statement:
    return Statement(
        incident=_incident(services=("broadband",), regions=()),
        update_id="update-1",
        phase=Phase.INVESTIGATING,
        facts={},
        stated_at=_NOW,
    )


def nasty() -> Statement:
    long_words = "Words & signs of our own, 'quoted' and \"doubly\" so; " * 8
    withdrawn = CauseFact.model_validate(
        {
            "kind": "cause",
            "value": Cause(code=CauseCode.CUSTOMER_MALWARE),
            **_claim(Confidence.BELIEVED),
        }
    )
    stated: list[tuple[type[NewFact], str, object, Confidence]] = [
        (StartedFact, "started", Moment(at=_START), Confidence.BELIEVED),
        (EndedFact, "ended", Moment(at=_NOW - timedelta(minutes=1)), Confidence.BELIEVED),
        (
            ScopeFact,
            "scope",
            Scope(count=9_999_999_999, basis="estimated"),
            Confidence.UNDER_REVIEW,
        ),
        (CauseFact, "cause", Cause(code=CauseCode.OPEN_RESOLVERS), Confidence.BELIEVED),
        (NotCauseFact, "not_cause", Cause(code=CauseCode.CYBERATTACK), Confidence.BELIEVED),
        (
            WorkaroundFact,
            "workaround",
            Workaround(codes=tuple(WorkaroundCode)[:4]),
            Confidence.CONFIRMED,
        ),
        (
            EmergencyCallsFact,
            "emergency_calls",
            EmergencyCalls(status="not_working", use=tuple(WorkaroundCode)[:4]),
            Confidence.CONFIRMED,
        ),
        (
            EtaFact,
            "eta",
            Eta(at=_NOW + timedelta(hours=20), latest=_NOW + timedelta(hours=44)),
            Confidence.BELIEVED,
        ),
        (RestoredFact, "restored", Restored(percent=75), Confidence.BELIEVED),
        (
            CompensationFact,
            "compensation",
            Compensation(
                amount=Decimal("1234567.89"),
                currency="USD",
                per="line",
                automatic=True,
                within_billing_cycles=2,
                eligible=(AccountClass.CONSUMER, AccountClass.SMALL_BUSINESS),
                not_eligible=(AccountClass.BUSINESS, AccountClass.PREPAID, AccountClass.RESELLER),
            ),
            Confidence.BELIEVED,
        ),
        (ApologyFact, "apology", Apology(to_all=True), Confidence.CONFIRMED),
        (
            NextStepFact,
            "next_step",
            NextStep(code=NextStepCode.PUBLISH_REPORT, by=_NOW + timedelta(days=150)),
            Confidence.CONFIRMED,
        ),
    ]
    facts = _held(
        *(
            model.model_validate({"kind": kind, "value": value, **_claim(sure)})
            for model, kind, value, sure in stated
        )
    )
    return Statement(
        incident=_incident(
            services=("voice", "mobile_data", "sms", "broadband"),
            regions=tuple(
                f"US-{code}"
                for code in ["TX", "CA", "NY", "FL", "NC", "ND", "SC", "SD", "WV", "NH", "DC"]
            ),
            drill=True,
        ),
        update_id="update-2",
        phase=Phase.CORRECTION,
        facts=facts,
        withdrawn=(Fact(id="fact-x", stated=withdrawn, update_id="update-1"),),
        texts={"message": dict.fromkeys(("en", "es", "ru", "ar"), long_words)},
        stated_at=_NOW,
        next_update_at=_NOW + timedelta(hours=26),
        expires_at=_NOW + timedelta(hours=30),
        previous=Phase.INVESTIGATING,
    )


EXAMPLES: Mapping[str, Statement] = {
    "typical": typical(),
    "minimal": minimal(),
    "nasty": nasty(),
}
"""What every template must survive: usual facts, no facts at all, everything at its longest."""

_FILE = re.compile(r"(?P<phase>[a-z_]+)\.(?P<locale>[A-Za-z-]+)(\.(?P<part>[a-z]+))?\.j2")


def check_packs(packs: Packs, adapters: Sequence[Adapter]) -> list[PackProblem]:
    """Everything wrong with templates and vocabularies, each with its file and line."""
    try:
        renderer = Renderer(packs, adapters)
    except PackError as error:
        return list(error.problems)
    problems = [
        *(PackProblem(file, 1, "cannot be read as UTF-8 within the folder") for file in
          renderer.sources.unreadable),
        *_misnamed(renderer),
        *renderer.broken,
        *_unnamed_services(renderer),
    ]  # fmt: skip
    if not problems:
        problems += _unserved(renderer)
    if not problems:
        problems += _unrenderable(renderer)
    return list(dict.fromkeys(problems))


def _misnamed(renderer: Renderer) -> Iterator[PackProblem]:
    """Files that no lookup would ever find: unknown channel, phase, part or audience."""
    audiences = {*renderer.packs.audiences, "default"}
    for name, file in renderer.sources.files.items():
        *above, leaf = name.split("/")
        if leaf.startswith("_"):
            continue
        if len(above) != 2 or above[0] not in audiences:
            yield PackProblem(file, 1, "lies where no message is looked for")
            continue
        channel = above[1]
        if channel not in set(Channel):
            yield PackProblem(file, 1, f"unknown channel {channel}")
            continue
        parts = renderer.parts(channel)
        found = _FILE.fullmatch(leaf)
        if found is None:
            yield PackProblem(file, 1, "is not named <phase>.<locale>[.<part>].j2")
        elif found["phase"] not in {*Phase, ANY_PHASE}:
            yield PackProblem(file, 1, f"unknown phase {found['phase']}")
        elif (found["part"] not in parts) if len(parts) > 1 else found["part"] is not None:
            yield PackProblem(file, 1, f"unknown part; {channel} has {', '.join(parts)}")


def _unnamed_services(renderer: Renderer) -> Iterator[PackProblem]:
    for locale, words in renderer.words.items():
        for service in renderer.packs.organisation.services:
            if not words.knows("services", service):
                file = renderer.packs.root / f"vocabulary.{locale}.toml"
                yield PackProblem(file, 1, f"services.{service}: is missing")


def _unserved(renderer: Renderer) -> Iterator[PackProblem]:
    """A phase × channel × locale that an audience promises and no place has all parts of."""
    for audience in renderer.packs.audiences.values():
        for step in audience.channels:
            for locale in audience.locales:
                for phase in Phase:
                    place = renderer.place(audience.name, step.channel, phase, locale)
                    if place is not None and place.locale == locale:
                        continue
                    parts = ", ".join(renderer.parts(step.channel))
                    folder = renderer.packs.root / audience.name / step.channel
                    words = f"{phase.value}.{locale}: no folder has all parts ({parts})"
                    yield PackProblem(folder, 1, words)
                if locale.split("-")[0] not in renderer.words:
                    file = renderer.packs.root / f"vocabulary.{locale}.toml"
                    yield PackProblem(file, 1, f"{audience.name} is served {locale}: is missing")


def _unrenderable(renderer: Renderer) -> Iterator[PackProblem]:
    for name, example in EXAMPLES.items():
        for phase in Phase:
            statement = at_phase(example, phase)
            for audience in renderer.packs.audiences.values():
                for step in audience.channels:
                    for locale in audience.locales:
                        place = renderer.place(audience.name, step.channel, phase, locale)
                        assert place is not None  # `_unserved` found none
                        try:
                            rendering = renderer.render(
                                statement, audience.name, step.channel, locale
                            )
                        except (TemplateError, LookupError) as error:
                            first = renderer.sources.files[next(iter(place.names.values()))]
                            file, line = _where(error, first)
                            yield PackProblem(file, line, f"{name} example: {_reason(error)}")
                            continue
                        for part, text in rendering.message.parts.items():
                            if not text:
                                file = renderer.sources.files[place.names[part]]
                                yield PackProblem(file, 1, f"{name} example: {part} is empty")


def at_phase(example: Statement, phase: Phase) -> Statement:
    return Statement(
        incident=example.incident,
        update_id=example.update_id,
        phase=phase,
        facts=example.facts,
        stated_at=example.stated_at,
        withdrawn=example.withdrawn,
        texts=example.texts,
        next_update_at=example.next_update_at,
        expires_at=example.expires_at,
        previous=example.previous,
    )


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _where(error: Exception, otherwise: Path) -> tuple[Path, int]:
    """The innermost template line that the error went through."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.endswith(".j2"):
            return Path(frame.filename), frame.lineno or 1
    return otherwise, 1

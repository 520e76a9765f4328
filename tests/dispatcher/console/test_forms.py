"""The form of an incident and an update: what is typed becomes values, and back, without loss."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatcher.console.forms import Read, fill, placed, quick, read
from dispatcher.console.typed import Typed, amount, folds, moment, whole_number
from dispatcher.incidents import (
    AccountClass,
    Apology,
    Cause,
    CauseCode,
    Compensation,
    Confidence,
    EmergencyCalls,
    Eta,
    FactKind,
    Moment,
    NewIncident,
    NewUpdate,
    NextStep,
    NextStepCode,
    Phase,
    Restored,
    Scope,
    Severity,
    Workaround,
    WorkaroundCode,
)

NOW = datetime(2026, 2, 22, 9, 12, 30, tzinfo=UTC)
CHICAGO = ZoneInfo("America/Chicago")
NEW_YORK = ZoneInfo("America/New_York")
AUDIENCES = ("consumers", "media", "regulators")


def typed(**changed: Any) -> Typed:
    """A good form of a new incident, changed as named (`__` stands for a dot)."""
    values: dict[str, Any] = {
        "kind": "real",
        "title": "Voice down in Texas",
        "severity": "critical",
        "services": ["voice", "mobile_data"],
        "regions": ["US-TX"],
        "started_at": "2026-02-22T02:45",
        "phase": "investigating",
        "audiences": list(AUDIENCES),
        "source": "NOC",
        "started.same": "yes",
        "emergency_calls.status": "limited",
        "emergency_calls.use.0": "wifi_calling",
        "next_update": "30",
    }
    values |= {name.replace("__", "."): value for name, value in changed.items()}
    return Typed.of(
        {n: v if isinstance(v, list) else [v] for n, v in values.items() if v is not None}
    )


def reading(form: Typed, *, zone: ZoneInfo = CHICAGO, opening: bool = True) -> Read:
    started = None if opening else NOW - timedelta(hours=4)
    return read(form, zone=zone, now=NOW, opening=opening, started_at=started)


def wrong(form: Typed, **given: Any) -> dict[str, str]:
    found = reading(form, **given)
    assert found.errors
    assert found.update is None and found.incident is None
    return {error.name: error.sentence for error in found.errors}


def test_a_good_form_becomes_an_incident_with_its_first_update() -> None:
    found = reading(typed())
    assert found.errors == ()
    assert found.incident == NewIncident(
        title="Voice down in Texas",
        severity=Severity.CRITICAL,
        services=("voice", "mobile_data"),
        regions=("US-TX",),
        started_at=datetime(2026, 2, 22, 8, 45, tzinfo=UTC),
    )
    update = found.update
    assert update is not None
    assert update.phase is Phase.INVESTIGATING
    assert update.audiences == AUDIENCES
    assert update.next_update_at == datetime(2026, 2, 22, 9, 45, tzinfo=UTC)
    kinds = {fact.kind: fact for fact in update.facts}
    assert kinds[FactKind.STARTED].value == Moment(at=datetime(2026, 2, 22, 8, 45, tzinfo=UTC))
    assert kinds[FactKind.EMERGENCY_CALLS].value == EmergencyCalls(
        status="limited", use=(WorkaroundCode.WIFI_CALLING,)
    )
    assert {fact.source for fact in update.facts} == {"NOC"}
    assert {fact.known_at for fact in update.facts} == {NOW}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("73000", 73000),
        ("73,000", 73000),
        ("73 000", 73000),
        ("73\u00a0000", 73000),
        ("73\u202f000", 73000),
        ("73'000", 73000),
        ("1,234,567", 1234567),
        ("0", 0),
    ],
)
def test_numbers_as_people_write_them(text: str, number: int) -> None:
    assert whole_number(text) == number


@pytest.mark.parametrize(
    "text",
    ["", "73.000", "7,30", "1,2345", "73k", "about 5", "-3", "1e5", "٧٣", "12 34", "1,000 000"],
)
def test_what_is_no_whole_number_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match="write a whole number"):
        whole_number(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", "5"), ("5.00", "5.00"), ("5.5", "5.5"), ("1,000.50", "1000.50"), (" 12 ", "12")],
)
def test_amounts(text: str, value: str) -> None:
    assert str(amount(text)) == value


@pytest.mark.parametrize("text", ["", "5,00", "5.", ".5", "5.123", "five", "$5"])
def test_what_is_no_amount_is_said_so(text: str) -> None:
    with pytest.raises(ValueError, match="write an amount"):
        amount(text)


def test_a_time_that_never_was_is_refused() -> None:
    said = wrong(typed(started_at="2026-03-08T02:30"))["started_at"]
    assert said.startswith("Since when: 02:30 did not happen on that day in America/Chicago")


def test_a_time_that_was_twice_asks_which_is_meant() -> None:
    text = "2025-11-02T01:30"
    said = wrong(typed(started_at=text))["started_at"]
    assert "say whether you mean CDT or CST" in said
    assert folds(text, zone=CHICAGO) == ("CDT", "CST")
    assert folds("2025-11-02T03:30", zone=CHICAGO) is None
    meant = {
        fold: reading(typed(**{"started_at": text, "started_at.fold": fold})).incident
        for fold in "01"
    }
    assert meant["0"] is not None and meant["1"] is not None
    assert meant["1"].started_at - meant["0"].started_at == timedelta(hours=1)


@pytest.mark.parametrize(
    "text",
    ["tomorrow", "2026-02-30T10:00", "2026-02-22T25:00", "1999-01-01T00:00", "9999-12-31T23:59"],
)
def test_what_is_no_time_is_said_so(text: str) -> None:
    assert "started_at" in wrong(typed(started_at=text))


def test_a_time_may_be_written_with_a_space() -> None:
    assert moment("2026-02-22 03:45", zone=CHICAGO) == datetime(2026, 2, 22, 9, 45, tzinfo=UTC)


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"title": None}, "title", "Title: write a few words"),
    ({"title": "x" * 201}, "title", "Title: string should have at most 200 characters"),
    ({"title": "a\x07b"}, "title", "Title: must not hold control characters"),
    ({"kind": None}, "kind", "Real or drill: choose one"),
    ({"kind": "maybe"}, "kind", "Real or drill: is not one of the choices"),
    ({"severity": "awful"}, "severity", "Severity: is not one of the choices"),
    ({"services": None}, "services", "Which services: choose one"),
    ({"regions": None}, "regions", "Where: choose where, or tick Everywhere"),
    ({"everywhere": "yes"}, "regions", "Where: choose regions or Everywhere, not both"),
    ({"regions_other": "texas!"}, "regions", "Where: TEXAS! is not a region code, such as US-TX"),
    ({"started_at": None}, "started_at", "Since when: say when it began"),
    ({"started_at": "2026-02-22T10:00"}, "started_at", "Since when: must not be in the future"),
    ({"phase": None}, "phase", "Phase: choose one"),
    ({"phase": "lost"}, "phase", "Phase: is not one of the choices"),
    ({"audiences": None}, "audiences", "Who is told: choose at least one"),
    ({"source": None}, "emergency_calls.source", "Emergency calls, how it is known: say how"),
    ({"known_at": "2026-02-22T09:00"}, "emergency_calls.known_at", "must not be in the future"),
    ({"cause__code": "software"}, "cause.confidence", "Cause, how sure you are: choose one"),
    ({"cause__confidence": "believed"}, "cause.code", "Cause: fill this in, or empty"),
    ({"scope__count": "many", "scope__basis": "measured"}, "scope.count", "How many are affected:"),
    ({"scope__count": "5"}, "scope.basis", "How the number is known: choose one"),
    ({"scope__basis": "measured"}, "scope.count", "fill this in"),
    ({"restored__percent": "101"}, "restored.percent", "must be between 0 and 100"),
    ({"restored__percent": "half"}, "restored.percent", "write a whole number"),
    ({"eta__latest": "2026-02-22T09:00"}, "eta.at", "Service expected back: fill this in"),
    (
        {
            "eta__at": "2026-02-22T09:00",
            "eta__latest": "2026-02-22T08:00",
            "eta__confidence": "believed",
        },
        "eta.latest",
        "must not be before",
    ),
    ({"ended__at": "2026-02-22T02:00"}, "ended.at", "end must not be before the start"),
    ({"ended__at": "2026-02-22T05:00"}, "ended.at", "end must not be in the future"),
    ({"next_update_at": "2026-02-22T05:00"}, "next_update", "and wrote a time as well"),
    ({"next_update": "at"}, "next_update_at", "Next update at: write the time"),
    (
        {"next_update": "at", "next_update_at": "2026-02-22T03:00"},
        "next_update_at",
        "Next update at: must be in the future",
    ),
    ({"phase": "correction"}, "withdraws", "a correction takes back at least one fact"),
    ({"texts__message__en": "a <b>"}, "texts.message.en", "Message in English: must be plain text"),
    (
        {"texts__details__ar": "x" * 100_000},
        "texts.details.ar",
        "Details in Arabic: 100,000 characters are too many: at most 1,000",
    ),
    ({"texts__message__en": "a\u202eb"}, "texts.message.en", "must not hold hidden"),
    ({"compensation__amount": "5"}, "compensation.automatic", "how people get it: choose one"),
    (
        {
            "compensation__amount": "5",
            "compensation__currency": "usd",
            "compensation__automatic": "yes",
        },
        "compensation.eligible",
        "Compensation, who gets it: choose at least one",
    ),
    (
        {
            "compensation__amount": "0",
            "compensation__currency": "USD",
            "compensation__automatic": "yes",
            "compensation__eligible": "consumer",
        },
        "compensation.amount",
        "must be more than nothing",
    ),
    ({"apology__to": "me"}, "apology.to", "Apology: is not one of the choices"),
    ({"workaround__codes__0": "magic"}, "workaround.codes", "is not one of the choices"),
]


@pytest.mark.parametrize(("changed", "name", "said"), BAD)
def test_what_is_wrong_is_said_at_its_field(changed: dict[str, Any], name: str, said: str) -> None:
    form = typed(**changed)
    found = wrong(form)
    assert said in found[name]
    assert reading(form).typed == form, "what was typed stays as it was"


def test_a_half_written_form_shows_what_is_understood() -> None:
    found = reading(typed(title=None, phase=None, texts__message__en="a\u202e"))
    assert found.update is None
    assert found.draft is not None and found.about is not None
    assert {fact.kind for fact in found.draft.facts} >= {FactKind.EMERGENCY_CALLS}


def test_errors_are_told_from_the_top_down() -> None:
    found = reading(typed(title=None, phase=None, scope__count="x", audiences=None))
    assert [error.name for error in found.errors][:3] == ["title", "phase", "audiences"]


def test_complaints_of_the_desk_stand_at_their_fields() -> None:
    update = reading(typed(scope__count="5", scope__basis="measured")).update
    assert update is not None
    place = [fact.kind for fact in update.facts].index(FactKind.SCOPE)
    found = placed(
        [
            ("services.0", "unknown service"),
            (f"update.facts.{place}.known_at", "must not be in the future"),
            (f"update.facts.{place}.value.count", "too many"),
            ("update.audiences.1", "unknown audience"),
            ("update.texts.message", "unknown slot"),
            ("update.withdraws", "gone"),
        ],
        update,
    )
    names = [error.name for error in found]
    assert names == [
        "services",
        "scope.known_at",
        "scope.count",
        "audiences",
        "texts.message",
        "withdraws",
    ]


def test_a_quick_choice_promises_full_five_minutes() -> None:
    assert quick("30", NOW) == datetime(2026, 2, 22, 9, 45, tzinfo=UTC)
    assert quick("60", datetime(2026, 2, 22, 9, 0, tzinfo=UTC)) == datetime(
        2026, 2, 22, 10, 0, tzinfo=UTC
    )


def test_other_ways_keep_their_order_and_are_named_once() -> None:
    form = typed(
        **{
            "workaround.codes.0": "satellite",
            "workaround.codes.1": "landline",
            "workaround.codes.3": "satellite",
        }
    )
    update = reading(form).update
    assert update is not None
    found = next(fact for fact in update.facts if fact.kind is FactKind.WORKAROUND)
    assert found.value == Workaround(codes=(WorkaroundCode.SATELLITE, WorkaroundCode.LANDLINE))


def test_line_ends_of_a_browser_are_made_plain() -> None:
    update = reading(typed(texts__message__en="one\r\ntwo\r\n")).update
    assert update is not None
    assert update.texts == {"message": {"en": "one\ntwo"}}


# --- there and back ------------------------------------------------------------------------

instants = st.datetimes(
    min_value=datetime(2001, 1, 1),  # noqa: DTZ001
    max_value=datetime(2026, 2, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
).map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000))
# The hour that happens twice comes by chance too seldom.
around_the_change = st.integers(0, 3 * 3600).map(
    lambda seconds: datetime(2025, 11, 2, 5, 0, tzinfo=UTC) + timedelta(seconds=seconds)
)
moments = st.one_of(instants, around_the_change)
later = st.one_of(
    instants.map(lambda at: at + timedelta(days=365 * 26)),
    st.integers(0, 3 * 3600).map(
        lambda seconds: datetime(2026, 11, 1, 5, 0, tzinfo=UTC) + timedelta(seconds=seconds)
    ),
)
words = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"), exclude_characters="<>[{"),
    min_size=1,
    max_size=40,
).filter(lambda text: bool(text.strip()) and text == text.strip())
ways = st.lists(st.sampled_from(WorkaroundCode), max_size=4, unique=True).map(tuple)
accounts = st.permutations(list(AccountClass))


@st.composite
def compensations(draw: st.DrawFn) -> Compensation:
    split = draw(st.integers(1, 5))
    order = draw(accounts)
    rest = draw(st.integers(0, 5 - split))
    return Compensation(
        amount=Decimal(draw(st.integers(1, 9_999_999))) / 100,
        currency=draw(st.sampled_from(["USD", "NZD", "EUR"])),
        per=draw(st.sampled_from(["account", "line", "day"])),
        automatic=draw(st.booleans()),
        within_billing_cycles=draw(st.none() | st.integers(1, 12)),
        eligible=tuple(order[:split]),
        not_eligible=tuple(order[split : split + rest]),
    )


VALUES: dict[FactKind, st.SearchStrategy[Any]] = {
    FactKind.STARTED: moments.map(lambda at: Moment(at=at)),
    FactKind.SCOPE: st.builds(
        Scope,
        count=st.integers(0, 10_000_000_000),
        basis=st.sampled_from(["measured", "estimated", "reported"]),
    ),
    FactKind.CAUSE: st.sampled_from(CauseCode).map(lambda code: Cause(code=code)),
    FactKind.NOT_CAUSE: st.sampled_from(CauseCode).map(lambda code: Cause(code=code)),
    FactKind.WORKAROUND: ways.filter(bool).map(lambda codes: Workaround(codes=codes)),
    FactKind.EMERGENCY_CALLS: st.builds(
        EmergencyCalls,
        status=st.sampled_from(["working", "limited", "not_working", "unknown"]),
        use=ways,
    ),
    FactKind.ETA: st.tuples(later, st.none() | st.integers(0, 86_400)).map(
        lambda found: Eta(
            at=found[0],
            latest=None if found[1] is None else found[0] + timedelta(seconds=found[1]),
        )
    ),
    FactKind.RESTORED: st.integers(0, 100).map(lambda percent: Restored(percent=percent)),
    FactKind.COMPENSATION: compensations(),
    FactKind.APOLOGY: st.booleans().map(lambda to_all: Apology(to_all=to_all)),
    FactKind.NEXT_STEP: st.builds(
        NextStep, code=st.sampled_from(NextStepCode), by=st.none() | later
    ),
}


@st.composite
def updates(draw: st.DrawFn) -> NewUpdate:
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=11))
    same = draw(st.booleans())
    source, known = draw(words), draw(moments)
    facts = [
        {
            "kind": kind.value,
            "value": draw(VALUES[kind]).model_dump(),
            "confidence": draw(st.sampled_from(Confidence)).value,
            "source": source if same else draw(words),
            "known_at": known if same else draw(moments),
            "audiences": draw(st.none() | st.just(("media", "consumers"))),
        }
        for kind in kinds
    ]
    withdraws = draw(st.lists(st.uuids().map(str), max_size=2, unique=True))
    phases = list(Phase) if withdraws else [p for p in Phase if p is not Phase.CORRECTION]
    return NewUpdate.model_validate(
        {
            "phase": draw(st.sampled_from(phases)).value,
            "facts": facts,
            "texts": draw(
                st.dictionaries(
                    st.sampled_from(["message", "details", "statement"]),
                    st.dictionaries(
                        st.sampled_from(["en", "es", "ar", "zh-Hant-TW"]), words, min_size=1
                    ),
                )
            ),
            "next_update_at": draw(st.none() | later),
            "expires_at": draw(st.none() | later),
            "audiences": draw(st.permutations(AUDIENCES).map(tuple)),
            "withdraws": withdraws,
        }
    )


incidents = st.builds(
    NewIncident,
    title=words,
    summary=words,
    severity=st.sampled_from(Severity),
    services=st.permutations(["voice", "sms", "landline"]).map(tuple),
    regions=st.sampled_from([(), ("US",), ("US-TX", "NZ"), ("NZ", "US-CA-LAX")]),
    started_at=moments,
    zone=st.none() | st.just("Pacific/Auckland"),
    drill=st.booleans(),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.none() | incidents,
    updates(),
    st.sampled_from([CHICAGO, NEW_YORK, ZoneInfo("Pacific/Auckland"), ZoneInfo("UTC")]),
)
def test_a_filled_form_reads_as_what_filled_it(
    incident: NewIncident | None, update: NewUpdate, zone: ZoneInfo
) -> None:
    form = fill(incident, update, zone=zone, audiences=AUDIENCES)
    sent = Typed(over_the_wire(form))
    found = read(
        sent,
        zone=zone,
        now=NOW,
        opening=incident is not None,
        started_at=None if incident else datetime(2000, 1, 1, tzinfo=UTC),
    )
    assert found.errors == ()
    assert found.incident == incident
    assert found.update is not None
    assert by_kind(found.update) == by_kind(update)
    whole = {"facts": ()}
    assert found.update.model_copy(update=whole) == update.model_copy(update=whole)


def test_the_start_of_the_incident_is_written_once() -> None:
    first = reading(typed())
    assert first.incident is not None and first.update is not None
    form = fill(first.incident, first.update, zone=CHICAGO, audiences=AUDIENCES)
    assert form.one("started.same") == "yes"
    assert form.one("started.at") == ""
    again = reading(form)
    assert again.update is not None
    assert by_kind(again.update) == by_kind(first.update)


def by_kind(update: NewUpdate) -> dict[FactKind, Any]:
    return {fact.kind: fact for fact in update.facts}


def over_the_wire(form: Typed) -> Iterator[tuple[str, str]]:
    """As a browser sends it: line ends doubled."""
    for name, value in form.items():
        yield name, value.replace("\n", "\r\n")

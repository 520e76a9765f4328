"""The two real incidents as data: nothing said before it was known, and movable in time."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from dispatcher.audiences import load as load_packs
from dispatcher.demo.scenario import SCENARIOS, ScenarioError, load, names, read, rebase, told_at
from dispatcher.incidents import (
    AccountClass,
    CauseCode,
    Confidence,
    FactKind,
    NewUpdate,
    Phase,
    problems_with_times,
)

PACKS = {
    *("consumers", "small-business", "enterprise", "employees", "care-and-retail", "regulators"),
    *("emergency-services", "media", "investors", "partners", "public"),
}
TEMPLATES = Path(__file__).parents[3] / "templates"
NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


@pytest.fixture(params=["att-2024", "spark-2014"])
def scenario(request):
    return load(request.param)


@pytest.fixture
def att():
    return load("att-2024")


@pytest.fixture
def spark():
    return load("spark-2014")


def stated(scenario, ref):
    return next(s.fact for step in scenario.steps for s in step.facts if s.ref == ref)


def step_of(scenario, ref):
    return next(step for step in scenario.steps if any(s.ref == ref for s in step.facts))


def test_both_scenarios_are_there():
    assert names() == ("att-2024", "spark-2014")
    with pytest.raises(ScenarioError, match="att-2024, spark-2014"):
        load("../people")


def test_every_step_is_an_update_that_the_api_takes(scenario):
    for step in scenario.steps:
        body = step.update().model_dump(mode="json")
        assert NewUpdate.model_validate(body) == step.update()


def test_times_are_ordered_and_no_fact_is_known_later_than_its_step(scenario):
    before = scenario.incident.started_at
    for step in scenario.steps:
        assert step.at > before
        before = step.at
        for one in step.facts:
            assert one.fact.known_at <= step.at
            assert one.fact.known_at >= scenario.incident.started_at
        assert step.next_update_at is None or step.next_update_at > step.at


def test_a_promised_update_comes_in_time_to_everyone_it_was_promised_to(scenario):
    for number, step in enumerate(scenario.steps):
        if step.next_update_at is None:
            continue
        kept = {
            audience
            for later in scenario.steps[number + 1 :]
            if later.at <= step.next_update_at
            for audience in later.audiences
        }
        assert set(step.audiences) <= kept


def test_audiences_are_packs_or_the_scenarios_own(scenario):
    packs = load_packs(TEMPLATES, overlay=scenario.overlay)
    assert set(packs.audiences) >= PACKS
    for step in scenario.steps:
        assert set(step.audiences) <= set(packs.audiences)
    assert set(scenario.services) <= set(packs.organisation.services)
    assert packs.organisation.default_country == scenario.country


def test_the_first_notice_says_what_to_do_in_an_emergency(scenario):
    first = {one.fact.kind for one in scenario.steps[0].facts}
    assert {FactKind.STARTED, FactKind.EMERGENCY_CALLS, FactKind.WORKAROUND} <= first
    assert scenario.steps[0].phase is Phase.INVESTIGATING
    assert scenario.steps[0].next_update_at is not None
    assert scenario.steps[0].at - scenario.incident.started_at <= timedelta(minutes=30)


def test_no_audience_hears_of_the_end_before_the_outage(scenario):
    # Who was never told of an outage gets no bare "resolved", so the timeline must not rely on it.
    heard: set[str] = set()
    for step in scenario.steps:
        if step.phase is Phase.RESOLVED:
            assert set(step.audiences) <= heard
        heard |= set(step.audiences)


def test_att_tells_the_public_within_a_quarter_hour_and_emergency_centres_within_30_minutes(att):
    start = att.incident.started_at
    assert start == datetime(2024, 2, 22, 8, 45, tzinfo=UTC)
    public = next(step for step in att.steps if "public" in step.audiences)
    assert public.at - start <= timedelta(minutes=15)
    assert {"consumers", "small-business", "employees", "care-and-retail"} <= set(public.audiences)
    centres = next(step for step in att.steps if "emergency-services" in step.audiences)
    assert centres.at - start <= timedelta(minutes=30)
    packet = next(step for step in att.steps if "regulators" in step.audiences)
    assert packet.at - start <= timedelta(minutes=120)
    assert packet.audiences == ("regulators",)


def test_att_knows_no_cause_before_the_evening_and_then_only_believes_it(att):
    cause = step_of(att, "cause")
    assert cause.at == datetime(2024, 2, 23, 0, 46, tzinfo=UTC)
    assert stated(att, "cause").confidence is Confidence.BELIEVED
    assert stated(att, "not-attack").confidence is Confidence.BELIEVED
    for step in att.steps:
        if step.at < cause.at:
            assert all(one.fact.kind is not FactKind.CAUSE for one in step.facts)
            for one in step.facts:
                if one.fact.kind is FactKind.NOT_CAUSE:
                    assert one.fact.confidence is Confidence.UNDER_REVIEW


def test_att_says_nothing_that_only_the_final_report_established(att):
    text = (SCENARIOS / "att-2024.toml").read_text(encoding="utf-8")
    for later in ("125", "92 M", "25,000", "25000", "misconfigur"):
        assert later not in text.partition("[incident]")[2]
    # Crowd reports are named as such and never told to those who might take them for a count.
    crowd = stated(att, "crowd-reports")
    assert (crowd.value.count, crowd.value.basis) == (73_000, "reported")
    assert not {"consumers", "public"} & set(crowd.audiences)


def test_att_credit_says_who_is_not_eligible_and_small_business_not_before_the_letter(att):
    credit = stated(att, "credit")
    assert (credit.value.amount, credit.value.currency) == (Decimal("5.00"), "USD")
    assert credit.value.automatic
    assert credit.value.within_billing_cycles == 2
    assert set(credit.value.not_eligible) == {
        AccountClass.BUSINESS,
        AccountClass.PREPAID,
        AccountClass.RESELLER,
    }
    assert "small-business" not in credit.audiences
    assert step_of(att, "credit").at.date().isoformat() == "2024-02-24"
    letter = stated(att, "credit-with-small-business")
    assert AccountClass.SMALL_BUSINESS in letter.value.eligible
    assert set(step_of(att, "letter-apology").audiences) == PACKS


def test_spark_takes_back_its_first_cause_and_corrects_all_who_heard_it(spark):
    correction = next(step for step in spark.steps if step.phase is Phase.CORRECTION)
    assert correction.withdraws == ("cause-malware",)
    first = stated(spark, "cause-malware")
    assert first.confidence is Confidence.BELIEVED
    assert first.value.code is CauseCode.CUSTOMER_MALWARE
    told = step_of(spark, "cause-malware")
    assert told.at < correction.at
    carriers = [step for step in spark.steps if told.at <= step.at < correction.at]
    assert set(correction.audiences) == {a for step in carriers for a in step.audiences}
    assert stated(spark, "cause-resolvers").value.code is CauseCode.OPEN_RESOLVERS
    assert all("resolver" not in one.ref for step in spark.steps[:4] for one in step.facts)


def test_spark_speaks_to_the_owners_of_the_modems_by_themselves(spark):
    owners = next(step for step in spark.steps if "public" not in step.audiences)
    assert owners.audiences == ("device-owners",)
    kinds = {one.fact.kind for one in owners.facts}
    assert {FactKind.WORKAROUND, FactKind.NEXT_STEP} <= kinds
    assert "not your fault" in owners.update().texts["message"]["en"]
    packs = load_packs(TEMPLATES, overlay=spark.overlay)
    assert packs.audiences["device-owners"].tags == ("open_resolver",)
    # It must outrank the audiences that the same people would belong to otherwise.
    for name in ("consumers", "small-business"):
        assert packs.audiences["device-owners"].rank < packs.audiences[name].rank


def test_withdrawn_refs_become_the_ledgers_ids(spark):
    correction = next(step for step in spark.steps if step.withdraws)
    assert correction.update({"cause-malware": "f-1"}).withdraws == ("f-1",)
    with pytest.raises(KeyError):
        correction.update({})


def test_rebase_keeps_every_distance(scenario):
    moved = rebase(scenario, NOW)
    by = NOW - scenario.steps[0].at
    assert moved.steps[0].at == NOW
    assert moved.incident.started_at == scenario.incident.started_at + by
    for before, after in zip(scenario.steps, moved.steps, strict=True):
        assert after.at - before.at == by
        if before.next_update_at is not None:
            assert after.next_update_at == before.next_update_at + by
        for old, new in zip(before.facts, after.facts, strict=True):
            assert new.fact.known_at == old.fact.known_at + by
    start = stated(moved, next(s.ref for s in moved.steps[0].facts if s.fact.kind == "started"))
    assert start.value.at == moved.incident.started_at
    with pytest.raises(ValueError, match="aware"):
        rebase(scenario, NOW.replace(tzinfo=None))


@pytest.mark.parametrize("wait", [timedelta(0), timedelta(seconds=20), timedelta(days=1)])
def test_a_step_told_early_or_late_has_no_time_that_cannot_be(scenario, wait):
    moved = rebase(scenario, NOW)
    for number, step in enumerate(moved.steps):
        now = NOW + wait * number
        told = told_at(moved, step, now)
        assert told.at == now
        found = problems_with_times(told.update(), now=now, started_at=moved.incident.started_at)
        assert found == []
        for one in told.facts:
            if one.fact.kind is FactKind.STARTED:
                assert one.fact.value.at == moved.incident.started_at


BROKEN = [
    ('phase = "resolved"', 'phase = "solved"', "step 8"),
    ("2024-02-22T18:40:00-06:00", "2024-02-22T18:50:00-06:00", "must not be in the future"),
    ("at = 2024-02-22T03:10:00-06:00", "at = 2024-02-22T02:59:00-06:00", "not after the step"),
    ("at = 2024-02-22T03:00:00-06:00", "at = 2024-02-22T03:00:00", "step 1"),
    ('ref = "cause"', 'ref = "credit"', "used twice"),
    ("percent = 75", "percent = 175", "step 4"),
    ('event = "The promised', 'evnet = "The promised', "step 5: unknown keys"),
    ('severity = "critical"', 'severity = "huge"', "incident"),
    ('country = "US"', "", "'country' is missing"),
    ("[incident]", "[incident", "line"),
    (
        'audiences = ["enterprise"]',
        'audiences = ["device-owners"]',
        "for nobody who is told here",
    ),
    (
        'phase = "resolved"',
        'phase = "correction"\nwithdraws = ["cause"]',
        "withdraws 'cause', which no earlier step states",
    ),
]


@pytest.mark.parametrize(("old", "new", "reason"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_file_is_refused_with_its_place(tmp_path, old, new, reason):
    text = (SCENARIOS / "att-2024.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "broken.toml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ScenarioError, match=reason) as refusal:
        read(path)
    assert str(refusal.value).startswith("broken.toml: ")

"""The independent witness: each rule of who hears what, one recipient each."""

import csv
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dispatcher.audiences import load as load_packs
from dispatcher.audiences import matches
from dispatcher.demo.census import AudienceRule, Verdict, expected
from dispatcher.demo.people import write_csv
from dispatcher.demo.scenario import load

TEMPLATES = Path(__file__).parents[3] / "templates"
HEADER = "id,name,locale,segment,region,services,tags,phone,email,fcm_token,inbox\n"
RULES = {
    "responders": AudienceRule(
        segments=frozenset({"emergency_service"}), also_tags=frozenset({"firstnet"}), rank=1
    ),
    "media": AudienceRule(
        segments=frozenset({"media"}), rank=20, scope="everyone", kinds=frozenset({"email"})
    ),
    "owners": AudienceRule(
        segments=frozenset({"consumer"}), tags=frozenset({"open_resolver"}), rank=30
    ),
    "consumers": AudienceRule(segments=frozenset({"consumer"}), rank=90),
}


@dataclass
class Said:
    audiences: tuple[str, ...]
    facts: tuple[tuple[str, str, tuple[str, ...] | None], ...] = ()
    withdraws: tuple[str, ...] = ()

    def states(self) -> tuple[tuple[str, str, tuple[str, ...] | None], ...]:
        return self.facts


@dataclass
class Told:
    steps: list[Said]
    services: tuple[str, ...] = ("voice",)
    regions: tuple[str, ...] = ("US-TX", "US-OK-TUL")
    sources: tuple[str, ...] = field(default=())


def person(
    name: str,
    *,
    segment: str = "consumer",
    region: str = "US-TX",
    services: str = "voice;sms",
    tags: str = "",
    phone: str = "+12125550100",
    email: str = "",
) -> str:
    return f"{name},A B,en,{segment},{region},{services},{tags},{phone},{email},,\n"


@pytest.fixture
def census(tmp_path: Path):
    def run(people: list[str], *steps: Said, **incident: tuple[str, ...]):
        path = tmp_path / "people.csv"
        path.write_text(HEADER + "".join(people), encoding="utf-8")
        return expected(path, Told(list(steps), **incident), RULES)

    return run


EVERYBODY = Said(tuple(RULES))


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (person("a"), Verdict("consumers")),
        (person("a", region="US-TX-DAL"), Verdict("consumers")),
        (person("a", region="US-OK-TUL"), Verdict("consumers")),
        (person("a", region="US-OK"), Verdict(reason="not_affected")),
        (person("a", region="US"), Verdict(reason="not_affected")),
        (person("a", region="US-TXA"), Verdict(reason="not_affected")),
        (person("a", services="broadband"), Verdict(reason="not_affected")),
        (person("a", services=""), Verdict(reason="not_affected")),
        (person("a", tags="open_resolver;priority"), Verdict("owners")),
        (person("a", tags="firstnet;open_resolver"), Verdict("responders")),
        (person("a", segment="emergency_service"), Verdict("responders")),
        (person("a", segment="media", region="NZ", email="a@example.com"), Verdict("media")),
        (person("a", segment="media"), Verdict(reason="no_contact")),
        (person("a", segment="public"), Verdict(reason="no_audience")),
        (person("a", phone=""), Verdict(reason="no_contact")),
    ],
)
def test_each_recipient_has_one_audience_or_one_reason(census, row, verdict):
    assert census([row], EVERYBODY) == [{"a": verdict}]


def test_no_regions_mean_all(census):
    people = [person("a", region="NZ-AUK")]
    assert census(people, EVERYBODY, regions=()) == [{"a": Verdict("consumers")}]


def test_the_audience_is_the_highest_of_all_even_if_the_update_names_a_lower_one(census):
    people = [person("a", tags="open_resolver"), person("b")]
    (result,) = census(people, Said(("consumers",)))
    assert result == {"a": Verdict(reason="other_audience"), "b": Verdict("consumers")}


def test_a_correction_goes_to_those_whose_messages_could_carry_the_fact(census):
    people = [
        person("all"),
        person("owner", tags="open_resolver"),
        person("responder", segment="emergency_service"),
        person("press", segment="media", email="p@example.com"),
    ]
    steps = [
        Said(("consumers", "media"), (("theory", "cause", ("consumers",)),)),
        Said(("owners",)),
        Said(("consumers", "owners", "responders", "media"), (), ("theory",)),
    ]
    corrected = census(people, *steps)[2]
    assert corrected["all"] == Verdict("consumers")
    assert corrected["owner"] == Verdict(reason="not_told")
    assert corrected["responder"] == Verdict(reason="not_told")
    assert corrected["press"] == Verdict(reason="not_told")


def test_a_replaced_fact_is_not_carried_by_later_updates(census):
    steps = [
        Said(("responders",), (("theory", "cause", None),)),
        Said(("consumers",), (("better", "cause", None),)),
        Said(("consumers", "responders"), (), ("theory",)),
    ]
    assert census([person("a")], *steps)[2] == {"a": Verdict(reason="not_told")}


def test_the_whole_of_a_real_scenario(tmp_path):
    path = tmp_path / "people.csv"
    write_csv(path, 2_000)
    scenario = load("att-2024")
    packs = load_packs(TEMPLATES)
    rules = {
        name: AudienceRule(
            segments=frozenset(audience.segments),
            tags=frozenset(audience.tags),
            also_tags=frozenset(audience.also_tags),
            rank=audience.rank,
            scope=audience.scope.value,
        )
        for name, audience in packs.audiences.items()
    }
    results = expected(path, scenario, rules)
    assert len(results) == len(scenario.steps)
    assert {len(result) for result in results} == {2_000}
    for step, result in zip(scenario.steps, results, strict=True):
        assert {verdict.audience for verdict in result.values()} - {""} == (
            set(step.audiences) - {"public"}
        )
    first = results[0]
    with path.open(encoding="utf-8", newline="") as file:
        people = {row["id"]: row for row in csv.DictReader(file)}
    # The packs' own matching, asked one by one, agrees.
    for name, verdict in first.items():
        row = people[name]
        best = next(
            audience.name
            for audience in packs.audiences.values()
            if matches(audience, row["segment"], row["tags"].split(";"))
        )
        assert verdict.audience in ("", best)
        assert (verdict.reason == "other_audience") == (best not in scenario.steps[0].audiences)


def test_a_fact_that_was_withdrawn_is_not_carried_by_later_updates(census):
    steps = [
        Said(("responders",), (("theory", "cause", None),)),
        Said(("responders",), (), ("theory",)),
        Said(("consumers",)),
        Said(("consumers",), (), ("theory",)),
    ]
    assert census([person("a")], *steps)[3] == {"a": Verdict(reason="not_told")}

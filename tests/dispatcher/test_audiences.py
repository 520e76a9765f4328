"""Audiences and the organisation: what the shipped files say, and every complaint with its line."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.audiences import (
    SLOWEST,
    Audience,
    Lane,
    PackError,
    Packs,
    Reach,
    Scope,
    SenderKind,
    line_of,
    load,
    matches,
    within,
)
from dispatcher.incidents import FactKind, Phase, Severity

TEMPLATES = Path(__file__).parents[2] / "templates"


@pytest.fixture(scope="module")
def packs() -> Packs:
    return load(TEMPLATES)


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[str, str, str], PackError]:
    """Replace text in one file of a copy; what loading then says."""

    def change(file: str, old: str, new: str) -> PackError:
        root = tmp_path / "templates"
        if not root.exists():
            shutil.copytree(TEMPLATES, root)
        path = root / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(PackError) as caught:
            load(root)
        return caught.value

    return change


def line_with(file: str, words: str) -> int:
    lines = (TEMPLATES / file).read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if words in line)


def test_the_shipped_audiences_come_in_order_of_rank(packs: Packs) -> None:
    assert list(packs.audiences) == [
        "emergency-services", "regulators", "care-and-retail", "employees", "enterprise",
        "partners", "media", "investors", "small-business", "consumers", "public",
    ]  # fmt: skip
    ranks = [audience.rank for audience in packs.audiences.values()]
    assert ranks == sorted(ranks) and ranks[0] == 1


def test_consumers_hear_on_the_first_channel_that_works(packs: Packs) -> None:
    consumers = packs.audiences["consumers"]
    assert [step.channel for step in consumers.channels] == ["push", "sms", "email"]
    assert consumers.channels[0].wait == timedelta(minutes=2)
    assert (consumers.reach, consumers.lane) == (Reach.FIRST, Lane.BULK)
    assert consumers.scope is Scope.AFFECTED
    assert consumers.locales == ("en", "es", "ru", "ar")
    assert FactKind.EMERGENCY_CALLS in consumers.required[Phase.INVESTIGATING]
    assert consumers.quiet_hours is not None
    assert Severity.CRITICAL in consumers.quiet_hours.overridden_by


def test_corrections_follow_ups_and_investors_always_wait_for_a_person(packs: Packs) -> None:
    for audience in packs.audiences.values():
        assert not audience.preapproved & {Phase.CORRECTION, Phase.FOLLOW_UP}
    assert packs.audiences["investors"].preapproved == frozenset()


@pytest.mark.parametrize(
    ("segment", "tags", "expected"),
    [
        ("consumer", (), "consumers"),
        ("consumer", ("prepaid",), "consumers"),
        ("consumer", ("prepaid", "firstnet"), "emergency-services"),
        ("enterprise", ("firstnet",), "emergency-services"),
        ("emergency_service", ("psap",), "emergency-services"),
        ("small_business", ("business",), "small-business"),
        ("care_retail", (), "care-and-retail"),
        ("regulator", (), "regulators"),
        ("unheard_of", (), None),
    ],
)
def test_whom_an_audience_matches(
    packs: Packs, segment: str, tags: tuple[str, ...], expected: str | None
) -> None:
    found = [a.name for a in packs.audiences.values() if matches(a, segment, tags)]
    assert (found[0] if found else None) == expected


def audience(
    segments: tuple[str, ...] = (), tags: tuple[str, ...] = (), also: tuple[str, ...] = ()
) -> Audience:
    return Audience(
        name="a", title="A", segments=segments, tags=tags, also_tags=also, rank=1,
        scope=Scope.AFFECTED, lane=Lane.BULK, channels=(), reach=Reach.ALL, start_by=None,
        preapproved=frozenset(), cadence=None, reach_by=None, quiet_hours=None,
        locales=("en",), required={},
    )  # fmt: skip


def test_segment_and_tags_are_both_asked_and_also_tags_outweigh_them() -> None:
    both = audience(segments=("consumer",), tags=("prepaid",))
    assert matches(both, "consumer", ("prepaid",))
    assert not matches(both, "consumer", ())
    assert not matches(both, "enterprise", ("prepaid",))
    assert matches(audience(), "anything", ())
    assert matches(audience(tags=("x",)), "anything", ("x",))
    only = audience(also=("owner",))
    assert matches(only, "consumer", ("owner",)) and not matches(only, "consumer", ())


@pytest.mark.parametrize(
    ("region", "regions", "inside"),
    [
        ("US-TX", ("US",), True),
        ("US-TX-DAL", ("US-TX",), True),
        ("US-TX", ("US-TX",), True),
        ("US", ("US-TX",), False),
        ("US-TXX", ("US-TX",), False),
        ("NZ-AUK", ("US", "NZ"), True),
        ("anywhere", (), True),
    ],
)
def test_regions_are_hierarchical(region: str, regions: tuple[str, ...], inside: bool) -> None:
    assert within(region, regions) is inside


@given(
    st.lists(st.sampled_from(["US", "TX", "DAL", "N"]), min_size=1, max_size=4), st.integers(1, 4)
)
def test_a_region_lies_within_each_of_its_own_prefixes(parts: list[str], depth: int) -> None:
    assert within("-".join(parts), ["-".join(parts[:depth])])


def test_the_organisation_knows_numbers_zones_and_senders(packs: Packs) -> None:
    organisation = packs.organisation
    assert organisation.emergency_number(("US-TX", "US")) == "911"
    assert organisation.emergency_number(("US", "NZ")) == "911/111"
    assert organisation.emergency_number(()) == "911"
    assert organisation.zone(("US-TX-DAL",)) == "America/Chicago"
    assert organisation.zone(()) == "America/New_York"
    assert organisation.zone(("ZZ",)) == organisation.default_zone
    american = organisation.sender("sms", "US")
    abroad = organisation.sender("sms", "FR")
    assert american is not None and american.kind is SenderKind.SHORT_CODE
    assert abroad is not None and abroad.kind is SenderKind.ALPHANUMERIC
    assert organisation.sender("voice", "US") is None


def test_a_sender_without_a_granted_rate_goes_at_the_slowest_of_its_kind(packs: Packs) -> None:
    for senders in packs.organisation.senders.values():
        for sender in senders.values():
            assert sender.rate == SLOWEST[sender.kind]
            assert sender.sandbox_rate > sender.rate
    assert set(SLOWEST) == set(SenderKind)


def test_bad_toml_is_told_with_its_line(broken: Callable[[str, str, str], PackError]) -> None:
    error = broken("consumers/audience.toml", 'lane = "bulk"', "lane = bulk")
    assert [(p.file.parent.name, p.line) for p in error.problems] == [
        ("consumers", line_with("consumers/audience.toml", "lane ="))
    ]


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("consumers/audience.toml", 'channel = "sms"', 'channel = "fax"', "channels.1.channel"),
        ("consumers/audience.toml", 'wait = "2m"', 'wait = "soon"', "channels.0.wait"),
        ("consumers/audience.toml", "rank = 60", "rank = 0", "rank"),
        ("consumers/audience.toml", 'lane = "bulk"', 'lane = "slow"', "lane"),
        ("media/audience.toml", 'preapproved = ["investigating", "monitoring", "resolved"]',
         'preapproved = ["resolvd"]', "preapproved"),
        ("consumers/audience.toml", 'investigating = ["emergency_calls"]',
         'investigating = ["weather"]', "required.investigating"),
        ("media/audience.toml", 'cadence = "1h"', 'cadance = "1h"', "cadance"),
        ("organisation.toml", 'kind = "short_code"', 'kind = "pigeon"', "senders.sms.US.kind"),
        ("organisation.toml", 'NZ = "Pacific/Auckland"', 'NZ = "Pacific/Aukland"', "zones.NZ"),
        ("organisation.toml", "[senders.email.default]", "[senders.telex.default]",
         "senders.telex"),
        ("partners/audience.toml", 'preapproved = ["investigating"',
         'preapproved = ["correction"', "preapproved"),
    ],
)  # fmt: skip
def test_a_bad_value_is_told_with_its_line(
    broken: Callable[[str, str, str], PackError], file: str, old: str, new: str, words: str
) -> None:
    error = broken(file, old, new)
    assert len(error.problems) == 1, error
    problem = error.problems[0]
    assert problem.file.as_posix().endswith(file)
    assert problem.line == line_with(file, old)
    assert problem.message.startswith(words)


def test_a_missing_value_is_told(broken: Callable[[str, str, str], PackError]) -> None:
    error = broken("media/audience.toml", "rank = 40\n", "")
    assert [p.message for p in error.problems] == ["rank: Field required"]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    root = tmp_path / "templates"
    shutil.copytree(TEMPLATES, root)
    (root / "media" / "audience.toml").unlink()
    (root / "investors" / "audience.toml").write_text("rank = 1\nrank = 2\n")
    (root / "Bad Name").mkdir()
    (root / "organisation.toml").write_text('name = "x"\n')
    with pytest.raises(PackError) as caught:
        load(root)
    files = {problem.file.relative_to(root).as_posix() for problem in caught.value.problems}
    assert files == {
        "media/audience.toml", "investors/audience.toml", "Bad Name", "organisation.toml",
    }  # fmt: skip


def test_a_channel_named_twice_is_told(broken: Callable[[str, str, str], PackError]) -> None:
    error = broken("consumers/audience.toml", 'channel = "email"', 'channel = "sms"')
    assert "sms is named twice" in error.problems[0].message


def test_an_overlay_replaces_tables_and_brings_audiences(tmp_path: Path) -> None:
    overlay = tmp_path / "scenario"
    (overlay / "device-owners").mkdir(parents=True)
    (overlay / "organisation.toml").write_text('name = "Other"\nshort_name = "Other"\n')
    own = (TEMPLATES / "consumers" / "audience.toml").read_text(encoding="utf-8")
    (overlay / "device-owners" / "audience.toml").write_text(
        own.replace("rank = 60", "rank = 45").replace(
            'segments = ["consumer"]', 'also_tags = ["o"]'
        )
    )
    packs = load(TEMPLATES, overlay=overlay)
    assert packs.organisation.name == "Other"
    assert packs.organisation.site == "northvale.example"
    assert list(packs.audiences).index("device-owners") == 8
    assert packs.folders() == (TEMPLATES, overlay)
    only_file = load(TEMPLATES, overlay=overlay / "organisation.toml")
    assert only_file.organisation.name == "Other" and "device-owners" not in only_file.audiences
    (overlay / "organisation.toml").write_text('default_zone = "Moon/Base"\n')
    with pytest.raises(PackError) as caught:
        load(TEMPLATES, overlay=overlay)
    assert caught.value.problems[0].file == overlay / "organisation.toml"
    assert caught.value.problems[0].line == 1


def test_a_line_is_found_for_nested_and_repeated_tables() -> None:
    text = 'a = 1\n[b]\nc = 2\n[[d]]\ne = 3\n[[d]]\ne = 4\n[f.g]\n"h" = 5\n'
    assert line_of(text, ("a",)) == 1
    assert line_of(text, ("b", "c")) == 3
    assert line_of(text, ("b", "absent")) == 2
    assert line_of(text, ("d", 1, "e")) == 7
    assert line_of(text, ("f", "g", "h")) == 9
    assert line_of(text, ("nowhere",)) == 1


def test_senders_have_list_prices_in_the_currency_of_the_organisation(packs: Packs) -> None:
    organisation = packs.organisation
    assert organisation.currency == "USD"
    prices = {
        channel: {sender.price for sender in by_country.values()}
        for channel, by_country in organisation.senders.items()
    }
    assert prices == {"sms": {0.0083}, "email": {0.0004}, "social": {0.015}, "push": {0.0}}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("price = 0.0004", "price = -1", "greater than or equal to 0"),
        ("price = 0.0004", "price = nan", "finite number"),
        ("price = 0.0004", 'price = "cheap"', "valid number"),
        ('currency = "USD"', 'currency = "dollars"', "match pattern"),
    ],
)
def test_a_price_that_is_none_is_refused_with_its_line(
    broken: Callable[[str, str, str], PackError], old: str, new: str, words: str
) -> None:
    (problem,) = broken("organisation.toml", old, new).problems
    assert problem.line == line_with("organisation.toml", old)
    assert words in problem.message

"""The synthetic directory: always the same, plausible in its mix, and nobody's."""

import csv
import itertools
from collections import Counter
from collections.abc import Sequence

import pytest

from channels.contract import ContactKind
from dispatcher.contacts import is_fiction, is_sandbox_only, normalise
from dispatcher.demo import numbers
from dispatcher.demo.people import COLUMNS, Person, _Directory, people, spark_people, write_csv
from dispatcher.demo.places import UNITED_STATES

COUNT = 12_000
SEGMENTS = {
    *("consumer", "small_business", "enterprise", "employee", "care_retail", "regulator"),
    *("emergency_service", "media", "investor", "partner"),
}


@pytest.fixture(scope="module", params=[people, spark_people], ids=["people", "spark_people"])
def directory(request: pytest.FixtureRequest) -> Sequence[Person]:
    return list(request.param(COUNT))


@pytest.fixture(scope="module")
def americans() -> Sequence[Person]:
    return list(people(COUNT))


def contacts(person: Person) -> list[tuple[ContactKind, str]]:
    values = [
        (ContactKind.PHONE, person.phone),
        (ContactKind.EMAIL, person.email),
        (ContactKind.FCM_TOKEN, person.fcm_token),
        (ContactKind.INBOX, person.inbox),
    ]
    return [(kind, value) for kind, value in values if value]


def share(directory: Sequence[Person], condition) -> float:
    return sum(1 for person in directory if condition(person)) / len(directory)


def test_the_same_seed_gives_the_same_people(americans):
    assert list(people(COUNT)) == americans
    assert list(people(50)) == americans[:50]
    assert list(people(50, seed=1)) != americans[:50]


def test_nothing_is_given_twice(directory):
    assert len({person.id for person in directory}) == COUNT
    given = [contact for person in directory for contact in contacts(person)]
    assert len(set(given)) == len(given)


def test_every_contact_is_valid_and_already_in_its_only_spelling(directory):
    for person in directory:
        for kind, value in contacts(person):
            assert normalise(kind, value).address == value


def test_no_number_or_address_can_be_a_real_persons(directory):
    for person in directory:
        assert not person.phone or is_fiction(person.phone)
        domain = person.email.rpartition("@")[2]
        assert not domain or domain.endswith((".example.com", ".example.org", ".example.net"))
        assert person.email.isascii()


def test_beyond_fiction_come_sandbox_only_numbers_and_never_the_same_one():
    home, mixed = numbers.for_americans()
    given = [*itertools.islice(home, 30_000), *mixed]
    assert len(set(given)) == len(given)
    fictional = 35_900 + 14_000 + 50_000 + 80_000 + 5_000
    assert all(is_fiction(phone) for phone in given[:fictional:20])
    assert is_fiction(given[fictional - 1])
    assert is_sandbox_only(given[fictional])
    assert all(is_sandbox_only(phone) for phone in given[fictional::20])
    for phone in given[:: len(given) // 500]:
        assert normalise(ContactKind.PHONE, phone).address == phone


def test_new_zealand_numbers_are_never_used(directory):
    # New Zealand has set none aside for fiction, so any of them may be somebody's.
    assert not any(person.phone.startswith("+64") for person in directory)


def test_running_out_of_numbers_is_said():
    few = iter(["+12015550100"])
    with pytest.raises(ValueError, match="no reserved telephone numbers"):
        list(_Directory(UNITED_STATES, 1, home=few, mixed=few).fill(50))


def test_the_mix_of_consumers(directory):
    consumers = [person for person in directory if person.segment == "consumer"]
    assert 0.92 < len(consumers) / COUNT < 0.94
    assert 0.73 < share(consumers, lambda p: p.phone) < 0.77
    assert 0.58 < share(consumers, lambda p: p.email) < 0.62
    assert 0.40 < share(consumers, lambda p: p.inbox) < 0.44
    with_app = [person for person in consumers if person.inbox]
    assert 0.30 < share(with_app, lambda p: p.fcm_token) < 0.37
    assert 0.002 < share(consumers, lambda p: not contacts(p)) < 0.007
    assert 0.10 < share(consumers, lambda p: "prepaid" in p.tags) < 0.14
    assert 0.003 < share(consumers, lambda p: "priority" in p.tags) < 0.008
    mobile = [person for person in consumers if "voice" in person.services]
    assert all({"mobile_data", "sms"} <= set(person.services) for person in mobile)
    assert 0.17 < share(mobile, lambda p: "broadband" in p.services) < 0.23


def test_the_mix_of_languages_and_places(americans):
    languages = Counter(person.locale[:2] for person in americans)
    assert set(languages) == {"en", "es", "ru", "ar"}
    assert 0.76 < languages["en"] / COUNT < 0.81
    assert 0.14 < languages["es"] / COUNT < 0.19
    assert 0.015 < languages["ru"] / COUNT < 0.035
    assert 0.015 < languages["ar"] / COUNT < 0.035
    assert {"en-US", "es-MX", "ar-EG"} <= {person.locale for person in americans}
    states = {person.region.split("-")[1] for person in americans if "-" in person.region}
    assert len(states) == 51
    assert any(person.region == "US-TX-DAL" for person in americans)


def test_names_are_written_in_their_own_script(americans):
    for person in americans:
        if person.segment == "consumer" and person.locale[:2] in ("ru", "ar"):
            assert not person.name.isascii()


def test_every_segment_is_there_even_in_a_small_directory(directory):
    assert {person.segment for person in directory} == SEGMENTS
    assert {person.segment for person in directory[:20]} == SEGMENTS


def test_institutions_can_be_written_to(directory):
    for person in directory:
        if person.segment not in ("consumer", "small_business", "employee", "care_retail"):
            assert person.email
        if person.segment == "emergency_service":
            assert person.phone
            assert set(person.tags) & {"firstnet", "first_responder", "psap"}


@pytest.mark.parametrize("count", [1_000, COUNT, 73_000])
def test_exactly_138_owners_of_open_resolvers(count):
    owners = [person for person in spark_people(count) if "open_resolver" in person.tags]
    assert len(owners) == 138
    assert all("broadband" in owner.services for owner in owners)
    assert all(contacts(owner) for owner in owners)
    # Responders are an audience of their own, wherever there is a network for them.
    assert not any("firstnet" in owner.tags for owner in owners)


def test_the_file_has_the_columns_of_an_import(tmp_path, americans):
    path = tmp_path / "people.csv"
    size = write_csv(path, 300)
    assert size == path.stat().st_size
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert ",".join(rows[0]) == (
        "id,name,locale,segment,region,services,tags,phone,email,fcm_token,inbox"
    )
    assert tuple(rows[0]) == COLUMNS
    assert [tuple(row) for row in rows[1:]] == [person.row() for person in americans[:300]]
    write_csv(path, 3, source=spark_people)
    assert "\nnz-000000," in path.read_text(encoding="utf-8")

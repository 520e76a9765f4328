"""Synthetic recipients: the same people each time, none of whom can be a real one.

Owns who is in the demonstration's directory. A pure generator: no I/O but `write_csv`.
Must not know audiences or the engine; the columns are those of a recipients' import.
Public accounts are configuration of the organisation and therefore no rows here.
"""

import csv
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from dispatcher.demo import names
from dispatcher.demo.numbers import for_americans, for_new_zealanders
from dispatcher.demo.places import NEW_ZEALAND, UNITED_STATES, Country

COLUMNS = (
    *("id", "name", "locale", "segment", "region", "services", "tags"),
    *("phone", "email", "fcm_token", "inbox"),
)
OPEN_RESOLVERS = 138
"""Modems that answered DNS for anyone in September 2014, as the operator counted them."""

_MOBILE = ("voice", "mobile_data", "sms")
_ALL = (*_MOBILE, "broadband")
_DOMAINS = (
    *("mail.example.com", "post.example.org", "home.example.net", "letters.example.com"),
    *("inbox.example.org", "box.example.net"),
)
# So that a directory of twenty holds somebody of each segment.
_OPENING = {
    1: "small_business",
    3: "enterprise",
    5: "employee",
    7: "care_retail",
    9: "regulator",
    11: "emergency_service",
    13: "media",
    15: "investor",
    17: "partner",
}
_PER_THOUSAND = {
    "small_business": 38,
    "enterprise": 8,
    "employee": 12,
    "care_retail": 6,
    "emergency_service": 3,
    "media": 1,
    "investor": 1,
    "partner": 1,
}


@dataclass(frozen=True, slots=True)
class Person:
    """One row of the recipients' file; an empty string is no contact point of that kind."""

    id: str
    name: str
    locale: str
    segment: str
    region: str
    services: tuple[str, ...]
    tags: tuple[str, ...] = ()
    phone: str = ""
    email: str = ""
    fcm_token: str = ""
    inbox: str = ""

    def row(self) -> tuple[str, ...]:
        """The values in the order of `COLUMNS`, lists joined by `;`."""
        return (
            *(self.id, self.name, self.locale, self.segment, self.region),
            *(";".join(self.services), ";".join(self.tags)),
            *(self.phone, self.email, self.fcm_token, self.inbox),
        )


@dataclass(frozen=True, slots=True)
class _Reach:
    """How many of a segment have which contact points, as shares of one."""

    phone: float
    email: float
    inbox: float = 0.0
    fcm_of_inbox: float = 0.0


# A consumer with neither app nor mail is given a phone (see `_Directory.contacts`), which
# lifts 0.68 to three in four.
_REACH = {
    "consumer": _Reach(0.68, 0.60, 0.42, 1 / 3),
    "small_business": _Reach(0.90, 0.95, 0.35, 1 / 3),
    "enterprise": _Reach(0.85, 1.0),
    "employee": _Reach(0.95, 1.0, 0.80, 0.5),
    "care_retail": _Reach(0.80, 1.0, 0.90, 0.5),
    "emergency_service": _Reach(1.0, 1.0),
    "regulator": _Reach(0.0, 1.0),
    "media": _Reach(0.0, 1.0),
    "investor": _Reach(0.0, 1.0),
    "partner": _Reach(0.0, 1.0),
}
_UNREACHABLE = 0.004


def people(count: int, *, seed: int = 20240222) -> Iterator[Person]:
    """The directory of a United States operator: `count` recipients, the same for a seed.

    A longer directory begins with the shorter one. Up to about 73,000 every phone number
    comes from a range set aside for fiction, then from sandbox-only ones; raises
    `ValueError` beyond about 1.2 million, when those are used up too.
    """
    home, mixed = for_americans()
    return _Directory(UNITED_STATES, seed, home=home, mixed=mixed).fill(count)


def spark_people(count: int, *, seed: int = 20140905) -> Iterator[Person]:
    """The directory of a New Zealand operator.

    Exactly 138 recipients with broadband carry the tag `open_resolver`, spread over the
    directory (a third of it where `count` is below 414).
    """
    home, mixed = for_new_zealanders()
    directory = _Directory(NEW_ZEALAND, seed, home=home, mixed=mixed)
    owners = min(OPEN_RESOLVERS, count // 3)
    given = 0
    for index, person in enumerate(directory.fill(count)):
        due = owners * (index + 1) // count > given or (count - index) <= owners - given
        if due and person.segment in ("consumer", "small_business") and _is_reachable(person):
            given += 1
            services = tuple(dict.fromkeys((*person.services, "broadband")))
            person = replace(person, services=services, tags=(*person.tags, "open_resolver"))
        yield person


def write_csv(path: Path, count: int, *, source: Callable[[int], Iterator[Person]] = people) -> int:
    """Write `count` rows of `source` as UTF-8 CSV with a header; returns the size in bytes."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(person.row() for person in source(count))
    return path.stat().st_size


def _is_reachable(person: Person) -> bool:
    return bool(person.phone or person.email or person.inbox)


def _pattern() -> list[str]:
    """The segments of a thousand consecutive recipients, each spread evenly."""
    slots = ["consumer"] * 1000
    for offset, (segment, share) in enumerate(_PER_THOUSAND.items()):
        for turn in range(share):
            position = 20 + offset + turn * 980 // share
            while slots[position % 1000] != "consumer":
                position += 1
            slots[position % 1000] = segment
    return slots


class _Directory:
    """One run of the generator: its dice, its number pools and what is already given away."""

    def __init__(
        self, country: Country, seed: int, *, home: Iterator[str], mixed: Iterator[str]
    ) -> None:
        self._country = country
        self._dice = Random(seed)
        self._home = home
        self._mixed = mixed
        self._bodies = iter(country.bodies)
        self._whole = country.code

    def fill(self, count: int) -> Iterator[Person]:
        pattern = _pattern()
        for index in range(count):
            segment = _OPENING.get(index, pattern[index % 1000])
            # A regulator takes the place of one consumer in each thousand while there are any.
            if index % 1000 == 500:
                segment = "regulator"
            if segment == "regulator":
                body = next(self._bodies, None)
                if body is not None:
                    yield self._body(index, segment, *body)
                    continue
                segment = "consumer"
            if segment in ("consumer", "small_business", "employee", "care_retail"):
                yield self._private(index, segment)
            else:
                yield self._body(index, segment, *self._institution(segment))

    def _private(self, index: int, segment: str) -> Person:
        roll = self._dice.random
        country = self._country
        locale = country.locales.pick(roll())
        if segment not in ("consumer", "small_business") and roll() < 0.8:
            locale = "en"
        culture = country.cultures[locale[:2]].pick(roll())
        given, given_ascii = culture.given[int(roll() * len(culture.given))]
        family, family_ascii = culture.family[int(roll() * len(culture.family))]
        name = f"{given} {family}"
        if segment == "small_business":
            name = f"{family} {names.TRADES[int(roll() * len(names.TRADES))]}"
        services, tags = self._subscription(segment)
        local = f"{given_ascii}.{family_ascii}.{index}"
        phone, email, fcm_token, inbox = self._contacts(index, segment, local)
        return Person(
            id=f"{country.code.lower()}-{index:06d}",
            name=name,
            locale=locale,
            segment=segment,
            region=country.regions.pick(roll()),
            services=services,
            tags=tags,
            phone=phone,
            email=email,
            fcm_token=fcm_token,
            inbox=inbox,
        )

    def _body(self, index: int, segment: str, name: str, region: str) -> Person:
        local = f"desk.{segment.replace('_', '-')}.{index}"
        phone, email, fcm_token, inbox = self._contacts(index, segment, local)
        tags: tuple[str, ...] = ()
        if segment == "enterprise":
            tags = ("business",)
        elif segment == "emergency_service":
            answers_calls = "Call" in name or "Dispatch" in name
            tags = ("psap",) if answers_calls else ("first_responder",)
            if not answers_calls and self._country.responder_tag:
                tags = (self._country.responder_tag,)
        return Person(
            id=f"{self._country.code.lower()}-{index:06d}",
            name=name,
            locale="en",
            segment=segment,
            region=region,
            services=_ALL,
            tags=tags,
            phone=phone,
            email=email,
            fcm_token=fcm_token,
            inbox=inbox,
        )

    def _institution(self, segment: str) -> tuple[str, str]:
        roll = self._dice.random
        region = self._country.regions.pick(roll())
        place = names.PLACES[int(roll() * len(names.PLACES))]
        choice = roll()
        match segment:
            case "enterprise":
                industry = names.INDUSTRIES[int(choice * len(names.INDUSTRIES))]
                form = names.FORMS[int(roll() * len(names.FORMS))]
                return f"{place} {industry} {form}", region
            case "emergency_service":
                return f"{place} {names.CENTRES[int(choice * len(names.CENTRES))]}", region
            case "media":
                return f"{place} {names.PAPERS[int(choice * len(names.PAPERS))]}", self._whole
            case "investor":
                return f"{place} {names.FUNDS[int(choice * len(names.FUNDS))]}", self._whole
            case _:
                return f"{place} {names.ALLIES[int(choice * len(names.ALLIES))]}", self._whole

    def _subscription(self, segment: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        roll = self._dice.random
        kind = roll()
        if segment == "small_business":
            return (_ALL if kind < 0.6 else _MOBILE), ("business",)
        if segment != "consumer":
            return _ALL, ()
        services = ("broadband",) if kind < 0.05 else (_ALL if kind < 0.24 else _MOBILE)
        tags: list[str] = []
        if roll() < 0.005:
            tags.append("priority")
        if len(services) > 1:
            account = roll()
            if account < 0.12 / 0.95:
                tags.append("prepaid")
            elif account > 0.996 and self._country.responder_tag:
                tags.append(self._country.responder_tag)
        return services, tuple(tags)

    def _contacts(self, index: int, segment: str, local: str) -> tuple[str, str, str, str]:
        roll = self._dice.random
        reach = _REACH[segment]
        if segment == "consumer" and roll() < _UNREACHABLE:
            return "", "", "", ""
        has_inbox = roll() < reach.inbox
        has_email = roll() < reach.email
        has_phone = roll() < reach.phone or not (has_inbox or has_email)
        phone = email = fcm_token = inbox = ""
        if has_phone:
            private = segment in ("consumer", "small_business")
            phone = next(self._mixed if private else self._home, "")
            if not phone:
                raise ValueError("no reserved telephone numbers are left for so many recipients")
        if has_email:
            email = f"{local}@{_DOMAINS[index % len(_DOMAINS)]}"
        if has_inbox:
            inbox = f"app-{index:x}-{self._dice.getrandbits(40):010x}"
            if roll() < reach.fcm_of_inbox:
                fcm_token = self._token(index)
        return phone, email, fcm_token, inbox

    def _token(self, index: int) -> str:
        """A token of the length and alphabet that Firebase gives out, unique by its index."""
        noise = self._dice.getrandbits(8 * 105).to_bytes(105, "big")
        body = urlsafe_b64encode(index.to_bytes(6, "big") + noise).decode()
        return f"{body[:22]}:APA91b{body[22:]}"

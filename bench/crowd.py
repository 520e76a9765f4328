"""People to tell: by the thousand through the real import, by the million through the ledger.

Telephone numbers are those that no person has; the million's lie in 555, which is no area
code. Each has one contact point and lives where its kind does, so that an incident in one
region reaches one kind. Must not know what is measured.
"""

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from channels.contract import ContactKind
from dispatcher.contacts import Contact
from dispatcher.demo.numbers import american, sandbox_only
from dispatcher.demo.people import COLUMNS, Person
from dispatcher.ledger import recipients
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.recipients import RecipientRow
from dispatcher.security.sealing import Sealer

SERVICES = ("voice", "mobile_data")
CHUNK = 50_000


@dataclass(frozen=True, slots=True)
class Crowd:
    """People of one segment in one region. `addresses` are all their contact points."""

    name: str
    audience: str
    segment: str
    region: str
    kind: ContactKind
    addresses: Sequence[str]

    def people(self) -> Iterator[Person]:
        for number, address in enumerate(self.addresses):
            yield Person(
                id=f"{self.name}-{number}",
                name=f"Ada Bench {number}",
                locale="en",
                segment=self.segment,
                region=self.region,
                services=SERVICES,
                phone=address if self.kind is ContactKind.PHONE else "",
                email=address if self.kind is ContactKind.EMAIL else "",
            )

    def csv(self) -> bytes:
        """The crowd as a file for the import."""
        written = io.StringIO()
        writer = csv.writer(written)
        writer.writerow(COLUMNS)
        writer.writerows(person.row() for person in self.people())
        return written.getvalue().encode()


def _numbers(count: int, *, skip: int = 0) -> list[str]:
    return list(itertools.islice(itertools.chain(american(), sandbox_only()), skip, skip + count))


def by_phone(count: int) -> Crowd:
    """Consumers in Texas with a telephone only, told in the bulk lane."""
    found = _numbers(count, skip=100)
    return Crowd("phone", "consumers", "consumer", "US-TX", ContactKind.PHONE, found)


def by_mail(count: int) -> Crowd:
    """Consumers in California with a mail address only, told in the bulk lane."""
    found = [f"ada.{number}@mail.example.com" for number in range(count)]
    return Crowd("mail", "consumers", "consumer", "US-CA", ContactKind.EMAIL, found)


def few(count: int = 10) -> Crowd:
    """Consumers in Wyoming with a telephone only."""
    return Crowd("few", "consumers", "consumer", "US-WY", ContactKind.PHONE, _numbers(count))


def responder() -> Crowd:
    """One emergency call centre in Oregon, told in the urgent lane."""
    found = _numbers(1, skip=50)
    return Crowd(
        "responder", "emergency-services", "emergency_service", "US-OR", ContactKind.PHONE, found
    )


def million(count: int) -> Crowd:
    """`by_phone` for more people than there are reserved numbers."""
    found = [f"+1555{number:07d}" for number in range(count)]
    return Crowd("million", "consumers", "consumer", "US-TX", ContactKind.PHONE, found)


def fill(
    ledger: Ledger, sealer: Sealer, crowd: Crowd, *, say: Callable[[str], None] = lambda _: None
) -> None:
    """Store a crowd through the ledger's own import, past the judging of each value."""
    with recipients.importing(ledger) as session:
        rows = (_row(sealer, crowd, person) for person in crowd.people())
        stored = 0
        while chunk := list(itertools.islice(rows, CHUNK)):
            session.merge(chunk)
            stored += len(chunk)
            say(f"{stored:,} recipients stored")


def _row(sealer: Sealer, crowd: Crowd, person: Person) -> RecipientRow:
    address = person.phone or person.email
    country = "US" if crowd.kind is ContactKind.PHONE else None
    contact = Contact(crowd.kind, address, country, f"…{address[-2:]}")
    return RecipientRow(
        ref=person.id,
        name=recipients.sealed_name(sealer, person.id, person.name),
        locale=person.locale,
        segment=person.segment,
        region=person.region,
        services=person.services,
        tags=person.tags,
        row_hash=sealer.lookup("row", person.id),
        contacts=(recipients.sealed_contact(sealer, contact),),
    )

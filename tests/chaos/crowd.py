"""Who is told in a run, and at which simulator's address: one contact point each.

The judge's own knowledge of who has to hold a message; it must not ask the ledger.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from dispatcher.demo.people import Person
from tests.stories.house import person, phone

MOST = 20_000
PUBLIC_ACCOUNT = "northvalehelp"
"""The one public account of the shipped `organisation.toml`."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where one message has to arrive: a simulator and an address of it."""

    provider: str
    address: str


def crowd(size: int) -> list[Person]:
    """Consumers with a single way to reach them: of twenty, fifteen by SMS, three by e-mail
    and two by push."""
    return [_consumer(number) for number in range(size)]


def places(size: int) -> Iterator[Place]:
    """Where the messages of a run for `crowd(size)` and the public have to arrive."""
    for each in crowd(size):
        if each.phone:
            yield Place("twilio", each.phone)
        elif each.email:
            yield Place("sendgrid", each.email)
        else:
            yield Place("fcm", each.fcm_token)
    yield Place("x", PUBLIC_ACCOUNT)


def _consumer(number: int) -> Person:
    if number % 20 < 15:
        return person(number, phone=phone(number))
    if number % 20 < 18:
        return person(number, email=f"r{number}@mail.example.com")
    return person(number, fcm_token=f"{number:022d}:APA91b" + "chaos" * 25)

"""A directory in which each audience is heard on each of its channels in each locale."""

from collections.abc import Mapping, Sequence

from dispatcher.audiences import Packs
from dispatcher.demo.people import Person
from tests.stories.house import person, phone

Key = tuple[str, str, str]
KINDS = {"phone": "sms", "email": "email", "fcm_token": "push", "inbox": "push"}


def everyone(packs: Packs) -> Mapping[Key, Sequence[Person]]:
    """Somebody with one address of each kind, by audience, channel and locale.

    The public is left out: its accounts are configuration.
    """
    wanted: dict[Key, list[Person]] = {}
    number = 0
    for audience in packs.audiences.values():
        for segment in sorted(audience.segments)[:1]:
            channels = {step.channel for step in audience.channels}
            for locale in audience.locales:
                for kind, channel in KINDS.items():
                    if channel not in channels or segment == "public":
                        continue
                    number += 1
                    one = person(number, segment, locale=locale, **{kind: _address(kind, number)})
                    wanted.setdefault((audience.name, channel, locale), []).append(one)
    return wanted


def _address(kind: str, number: int) -> str:
    token = f"{number:022d}:APA91b" + "x" * 134
    ways = {"phone": phone(number), "email": f"r{number}@mail.example.com", "fcm_token": token}
    return ways.get(kind, f"app-{number}")

"""What is asked of the directory: who is due for an update, and by which rules.

Values only. How it is answered is `selection`'s matter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dispatcher.ledger.voices import Sending, Step, Wording


@dataclass(frozen=True, slots=True)
class Rule:
    """An audience as the selection needs it. Every audience of the packs is given, since a
    person belongs to the highest-ranking match among all. Of a contact point that people of
    several audiences share, the one in the lowest `lane` is told."""

    name: str
    rank: int
    segments: tuple[str, ...]
    tags: tuple[str, ...]
    also_tags: tuple[str, ...]
    everyone: bool
    first: bool
    lane: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the directory: people with ids from `first` to `last`, both included."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be selected.

    `due` are the audiences to plan now, `named` all those the update is for, `earlier`
    the incident's earlier updates, `withdrawn` the facts a correction takes back. `among`
    keeps to a part of the directory, `beyond` to all of it but a part. Where more than
    `at_most` people are found the selection is not made.
    """

    incident_id: str | None
    update_id: str | None
    services: tuple[str, ...]
    regions: tuple[str, ...]
    named: tuple[str, ...]
    due: tuple[str, ...]
    earlier: tuple[str, ...]
    withdrawn: tuple[str, ...]
    spare_untold: bool
    default_locale: str
    rules: tuple[Rule, ...]
    steps: tuple[Step, ...]
    senders: tuple[Sending, ...]
    wordings: tuple[Wording, ...]
    among: Span | None = None
    beyond: Span | None = None
    at_most: int | None = None


def names(rules: Sequence[Rule]) -> list[str]:
    """The audiences by rank: an audience's number is its place in here, from 1."""
    return [rule.name for rule in sorted(rules, key=lambda rule: rule.rank)]

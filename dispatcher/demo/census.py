"""Who should have been told, counted by a plain pass over the recipients' file.

An independent witness for the audit: it applies the written rules of who hears what with
loops and sets, and shares no code with the selection that it judges. Must not import the
audiences, the ledger or planning.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

CONTACT_COLUMNS = ("phone", "email", "fcm_token", "inbox")


@dataclass(frozen=True, slots=True)
class AudienceRule:
    """What decides whom an audience holds.

    A recipient matches by segment (none named: any) and one of `tags` (none named: no
    condition), or by one of `also_tags` whatever its segment. `rank` 1 is the highest.
    `kinds` are the contact columns that the audience's channels can use (none named: any).
    """

    segments: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    rank: int = 100
    scope: Literal["affected", "everyone"] = "affected"
    also_tags: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()


class Verdict(NamedTuple):
    """An audience that should tell this recipient, or the reason why none should.

    Reasons: `no_audience` matches; `other_audience`, its own is not named by the update;
    `not_affected`; `no_contact`, selected but without an address that its audience uses;
    `not_told`, a correction of something that this recipient was never told.
    """

    audience: str = ""
    reason: str = ""


class Step(Protocol):
    """What the census needs of an update."""

    @property
    def audiences(self) -> Sequence[str]: ...
    @property
    def withdraws(self) -> Sequence[str]: ...
    def states(self) -> Sequence[tuple[str, str, Sequence[str] | None]]:
        """Each fact stated: its ref, its kind, the audiences it is for (None: all)."""
        ...


class Timeline(Protocol):
    """What the census needs of a scenario."""

    @property
    def services(self) -> Sequence[str]: ...
    @property
    def regions(self) -> Sequence[str]: ...
    @property
    def steps(self) -> Sequence[Step]: ...


def expected(
    csv_path: Path, scenario: Timeline, audiences: Mapping[str, AudienceRule]
) -> list[dict[str, Verdict]]:
    """For each step of the scenario, what should become of every recipient in the file.

    Every recipient of the file is a key of every step's mapping; one with an audience must
    have a delivery to it. Memory is one small reference per recipient and step.
    """
    results: list[dict[str, Verdict]] = [{} for _ in scenario.steps]
    known: dict[_Traits, tuple[Verdict, ...]] = {}
    for row in _rows(csv_path):
        traits = _Traits(
            row["segment"],
            row["tags"],
            affected=_affected(row, scenario.services, scenario.regions),
            contacts=tuple(kind for kind in CONTACT_COLUMNS if row[kind]),
        )
        # Equal traits, equal verdicts: a directory has few combinations of them.
        verdicts = known.get(traits)
        if verdicts is None:
            verdicts = known[traits] = tuple(_verdicts(traits, scenario.steps, audiences))
        for result, verdict in zip(results, verdicts, strict=True):
            result[row["id"]] = verdict
    return results


class _Traits(NamedTuple):
    segment: str
    tags: str
    affected: bool
    contacts: tuple[str, ...]


def _rows(csv_path: Path) -> Iterator[dict[str, str]]:
    with csv_path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _affected(row: Mapping[str, str], services: Sequence[str], regions: Sequence[str]) -> bool:
    if not set(row["services"].split(";")) & set(services):
        return False
    if not regions:
        return True
    # "US-TX-DAL" lies in itself, in "US-TX" and in "US".
    parts = row["region"].split("-")
    around = {"-".join(parts[: depth + 1]) for depth in range(len(parts))}
    return bool(around & set(regions))


def _home(traits: _Traits, audiences: Mapping[str, AudienceRule]) -> str:
    """The highest-ranking audience that matches, whether or not an update names it."""
    tags = set(traits.tags.split(";")) - {""}
    best, best_rank = "", 0
    for name in sorted(audiences):
        rule = audiences[name]
        by_segment = traits.segment in rule.segments if rule.segments else True
        by_tag = bool(tags & rule.tags) if rule.tags else True
        has_condition = bool(rule.segments or rule.tags or not rule.also_tags)
        if not (tags & rule.also_tags or (by_segment and by_tag and has_condition)):
            continue
        if not best or rule.rank < best_rank:
            best, best_rank = name, rule.rank
    return best


def _verdicts(
    traits: _Traits, steps: Sequence[Step], audiences: Mapping[str, AudienceRule]
) -> Iterator[Verdict]:
    home = _home(traits, audiences)
    standing: dict[str, tuple[str, Sequence[str] | None]] = {}
    heard: set[str] = set()
    for step in steps:
        verdict = _verdict(traits, home, step, audiences)
        if step.withdraws and verdict.audience and not heard & set(step.withdraws):
            verdict = Verdict(reason="not_told")
        # A fact stands until a later one of its kind replaces it or it is withdrawn.
        standing = {k: fact for k, fact in standing.items() if fact[0] not in step.withdraws}
        standing |= {kind: (ref, only) for ref, kind, only in step.states()}
        if verdict.audience:
            heard |= {ref for ref, only in standing.values() if only is None or home in only}
        yield verdict


def _verdict(
    traits: _Traits, home: str, step: Step, audiences: Mapping[str, AudienceRule]
) -> Verdict:
    if not home:
        return Verdict(reason="no_audience")
    if home not in step.audiences:
        return Verdict(reason="other_audience")
    rule = audiences[home]
    if rule.scope == "affected" and not traits.affected:
        return Verdict(reason="not_affected")
    usable = set(traits.contacts) & rule.kinds if rule.kinds else set(traits.contacts)
    return Verdict(audience=home) if usable else Verdict(reason="no_contact")

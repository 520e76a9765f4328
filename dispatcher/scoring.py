"""How well an incident was told: curves of who was told when, and the score of a drill.

Pure. Owns the rules of the score, each of which says how it was computed. Knows no page.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from dispatcher.audiences import Audience
from dispatcher.ledger.accounts import Stretch
from dispatcher.recount import Promise, Said, Story, minutes, promises, said

IN_TIME, REACHED, KEPT = 40, 30, 30
"""What each part of a score is worth. A part that no rule asks for is left out of the whole."""


# --- curves -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Curve:
    """How many messages had been accepted by each of some moments, evenly apart."""

    name: str
    total: int
    points: tuple[int, ...]


def told_by(stretches: Iterable[Stretch], moment: datetime) -> float:
    """How many messages were accepted by a moment, a stretch taken as even."""
    total = 0.0
    for each in stretches:
        if each.last_at <= moment:
            total += each.told
        elif each.first_at < moment:
            gone = (moment - each.first_at) / (each.last_at - each.first_at)
            total += each.told * gone
    return total


def curves(
    stretches: Sequence[Stretch], *, by: str, start: datetime, end: datetime, steps: int = 60
) -> tuple[Curve, ...]:
    """What was told over time, one curve per audience or channel (`by`), largest first."""
    groups: dict[str, list[Stretch]] = {}
    for each in stretches:
        groups.setdefault(each.audience if by == "audience" else each.channel, []).append(each)
    width = (end - start) / steps if end > start else timedelta(seconds=1)
    found = []
    for name, rows in groups.items():
        begun = [0.0] * (steps + 2)
        for row in rows:
            _spread(begun, row, start=start, width=width, steps=steps)
        points, total = [], 0.0
        for place in range(steps + 1):
            total += begun[place]
            points.append(round(total))
        found.append(Curve(name, sum(row.told for row in rows), tuple(points)))
    return tuple(sorted(found, key=lambda curve: (-curve.total, curve.name)))


def _spread(
    bins: list[float], row: Stretch, *, start: datetime, width: timedelta, steps: int
) -> None:
    """Add a stretch to the moments it falls before: bin n is what came up to moment n."""
    first = (row.first_at - start) / width
    last = (row.last_at - start) / width
    low, high = max(0, int(first)), min(steps, int(last) + (last > int(last)))
    if last <= first or high <= low:
        bins[min(max(high, 0), steps)] += row.told
        return
    done = 0.0
    for place in range(low + 1, high + 1):
        share = min(1.0, (place - first) / (last - first))
        bins[place] += row.told * (share - done)
        done = share
    bins[high] += row.told * (1.0 - done)


# --- the score --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Headcount:
    """People of one audience over all updates: told, left out on purpose, and of how many."""

    people: int
    told: int
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """One clock: what was wanted, what it took, and whether it was kept. None: cannot be said."""

    name: str
    wanted: str
    took: str
    kept: bool | None


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a score: points earned of those possible, and why in words."""

    name: str
    earned: float
    possible: int
    why: str


@dataclass(frozen=True, slots=True)
class AudienceScore:
    """How one audience was told. `total` is of 100; None if it has no rule and nobody in it."""

    audience: str
    first_word: timedelta | None
    checks: tuple[Check, ...]
    parts: tuple[Part, ...]

    @property
    def total(self) -> int | None:
        possible = sum(part.possible for part in self.parts)
        if not possible:
            return None
        return round(100 * sum(part.earned for part in self.parts) / possible)

    @property
    def missed(self) -> int:
        return sum(check.kept is False for check in self.checks)


@dataclass(frozen=True, slots=True)
class Wait:
    """How long an update waited for the second person, for one audience."""

    update_id: str
    audience: str
    took: timedelta
    forced: bool


def score(
    story: Story,
    rules: Mapping[str, Audience],
    stretches: Sequence[Stretch],
    people: Mapping[str, Headcount],
    *,
    now: datetime,
) -> tuple[AudienceScore, ...]:
    """The score of each audience that any update was for, in the order of `rules`.

    `people` are counts of people, where they are known yet.
    """
    meant = {audience for update in story.updates for audience in update.audiences}
    heard = said(story.told)
    kept = promises(story, now=now)
    return tuple(
        _audience(
            story,
            rule,
            [each for each in heard if each.audience == name],
            [each for each in stretches if each.audience == name],
            [each for each in kept if each.audience == name],
            Headcount(0, 0) if _nobody(story, name) else people.get(name),
            now,
        )
        for name, rule in rules.items()
        if name in meant
    )


def _nobody(story: Story, audience: str) -> bool:
    """Whether the audience was planned and nobody was found in it."""
    planned = [
        row.planned_at is not None
        for rows in story.releases.values()
        for row in rows
        if row.audience == audience and row.released_at is not None
    ]
    return bool(planned) and all(planned) and all(row.audience != audience for row in story.told)


def _audience(
    story: Story,
    rule: Audience,
    heard: Sequence[Said],
    stretches: Sequence[Stretch],
    promised: Sequence[Promise],
    people: Headcount | None,
    now: datetime,
) -> AudienceScore:
    opened = story.incident.created_at
    first = heard[0] if heard else None
    nobody = people is not None and people.people == 0
    checks = [] if nobody else [*_clocks(story, rule, heard, now=now), *_promised(promised)]
    parts = []
    if rule.reach_by is not None and not nobody:
        parts.append(_in_time(rule.reach_by, first, stretches, opened=opened))
    if people is not None and people.people > people.left_out:
        due = people.people - people.left_out
        why = f"told {people.told:,} of {due:,} times, each person once per update"
        parts.append(Part("People reached", REACHED * people.told / due, REACHED, why))
    clocks = [check for check in checks if check.kept is not None and check.name != _REACH_BY]
    if clocks:
        good = sum(check.kept is True for check in clocks)
        why = f"{good} of {len(clocks)} clocks and promises were kept"
        parts.append(Part("Clocks and promises", KEPT * good / len(clocks), KEPT, why))
    return AudienceScore(
        rule.name, None if first is None else first.first_at - opened, tuple(checks), tuple(parts)
    )


_REACH_BY = "Everybody told"


def _in_time(
    wanted: timedelta, first: Said | None, stretches: Sequence[Stretch], *, opened: datetime
) -> Part:
    if first is None or not first.told:
        return Part("Told in time", 0.0, IN_TIME, f"nobody was told within {minutes(wanted)}")
    of_first = [each for each in stretches if each.update_id == first.update_id]
    share = min(1.0, told_by(of_first, opened + wanted) / first.told)
    why = f"{share:.0%} of the first update's messages left within {minutes(wanted)} of the opening"
    return Part("Told in time", IN_TIME * share, IN_TIME, why)


def _clocks(
    story: Story, rule: Audience, heard: Sequence[Said], *, now: datetime
) -> Iterable[Check]:
    opened, first = story.incident.created_at, heard[0] if heard else None
    if rule.reach_by is not None:
        yield _clock(_REACH_BY, rule.reach_by, opened, first.last_at if first else None, now)
    if rule.start_by is not None:
        released = _released(story, rule.name)
        if released is not None:
            yield _clock(
                "First word after release",
                rule.start_by,
                released,
                first.first_at if first else None,
                now,
            )
    if rule.cadence is not None and first is not None:
        yield from _cadence(story, rule.cadence, heard, now=now)


def _clock(
    name: str, wanted: timedelta, since: datetime, until: datetime | None, now: datetime
) -> Check:
    if until is None:
        late = now - since > wanted
        return Check(name, f"within {minutes(wanted)}", "not yet", False if late else None)
    took = until - since
    return Check(name, f"within {minutes(wanted)}", minutes(took), took <= wanted)


def _released(story: Story, audience: str) -> datetime | None:
    times = [
        row.released_at
        for rows in story.releases.values()
        for row in rows
        if row.audience == audience and row.released_at is not None
    ]
    return min(times, default=None)


def _cadence(
    story: Story, wanted: timedelta, heard: Sequence[Said], *, now: datetime
) -> Iterable[Check]:
    """Each gap between two words while the incident was open, and the last up to its end."""
    over = story.incident.resolved_at if story.incident.status == "resolved" else None
    words = [each.first_at for each in heard if over is None or each.first_at <= over]
    for number, (before, after) in enumerate(pairwise(words), 2):
        gap = after - before
        name = f"Word {number} after the one before"
        yield Check(name, f"within {minutes(wanted)}", minutes(gap), gap <= wanted)
    ends = over or now
    if words and ends - words[-1] > wanted:
        silence = minutes(ends - words[-1])
        yield Check("Silence at the end", f"at most {minutes(wanted)}", silence, False)


def _promised(promised: Sequence[Promise]) -> Iterable[Check]:
    for number, each in enumerate(promised, 1):
        if each.late is not None:
            took = f"{minutes(each.late)} late"
        else:
            took = {True: "in time", False: "still missing", None: "not due yet"}[each.kept]
        yield Check(f"Promised next update {number}", "by the time promised", took, each.kept)


def waits(story: Story) -> tuple[Wait, ...]:
    """How long updates waited for the second person, where one was needed."""
    submitted = {update.id: update.submitted_at for update in story.updates}
    found = []
    for update_id, rows in story.releases.items():
        at = submitted.get(update_id)
        for row in rows:
            until = row.approved_at or (None if row.preapproved else row.released_at)
            if at is not None and until is not None:
                forced = row.approved_at is None
                found.append(Wait(update_id, row.audience, until - at, forced))
    return tuple(found)

"""What an update would reach, cost and take: the figures of one count, audience by audience.

Pure: numbers from the rows of a selection, and from what each message costs. Knows neither
SQL nor who asked.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dispatcher.audiences import Packs
from dispatcher.ledger.selection import Missed, Reach, Standing
from dispatcher.planning import LANE_ORDER


@dataclass(frozen=True, slots=True)
class Worded:
    """A message that exists, by what one envelope of it costs in the provider's unit."""

    audience: str
    channel: str
    locale: str
    units: int


@dataclass(frozen=True, slots=True)
class Counted:
    """A selection's answer: its rows in cells, its people, and who is missed."""

    rows: tuple[Reach, ...]
    standings: tuple[Standing, ...]
    missed: tuple[Missed, ...]


@dataclass(frozen=True, slots=True)
class MissedFigures:
    """People who should hear and cannot be reached, for one reason.

    `otherwise` counts those who have a contact point of another kind, by kind.
    """

    reason: str
    people: int
    otherwise: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MessageFigures:
    """How many get one message, at what cost, and when the last of them has it."""

    audience: str
    channel: str
    locale: str
    recipients: int
    cost: float
    seconds: float


@dataclass(frozen=True, slots=True)
class AudienceFigures:
    """One audience: its `people` in this incident, and how many of them are told.

    `seconds` is the time from the release until the last has left at the rate that the
    providers granted; `here_seconds` the same at this installation's own, which in a sandbox
    is another. `reach_by` is in seconds, None where the audience has no such rule.
    """

    audience: str
    people: int
    told: int
    shared: int
    spared: int
    by_channel: Mapping[str, int]
    cost: float
    seconds: float
    here_seconds: float
    reach_by: float | None
    missed: tuple[MissedFigures, ...]

    @property
    def not_reachable(self) -> int:
        return sum(each.people for each in self.missed)

    @property
    def in_time(self) -> bool | None:
        """Whether the last one has it by `reach_by`; None without a rule, or with nobody to tell."""
        if self.reach_by is None or not self.told:
            return None
        return self.seconds <= self.reach_by


@dataclass(frozen=True, slots=True)
class Figures:
    """One count of a whole update. A person told on two channels is one person and two `rows`."""

    audiences: tuple[AudienceFigures, ...]
    messages: tuple[MessageFigures, ...]
    rows: int
    seconds: float
    here_seconds: float

    @property
    def people(self) -> int:
        """Who will be told, also through the contact point of somebody else."""
        return sum(each.told + each.shared for each in self.audiences)

    @property
    def cost(self) -> float:
        return round(sum(each.cost for each in self.audiences), 2)

    @property
    def not_reachable(self) -> int:
        return sum(each.not_reachable for each in self.audiences)

    @property
    def late(self) -> tuple[str, ...]:
        """Audiences whose last one has it too late."""
        return tuple(each.audience for each in self.audiences if each.in_time is False)

    def of(self, audience: str) -> AudienceFigures | None:
        return next((each for each in self.audiences if each.audience == audience), None)

    def missed(self) -> tuple[MissedFigures, ...]:
        """Who cannot be reached, over all audiences, the most first."""
        people: defaultdict[str, int] = defaultdict(int)
        otherwise: dict[str, defaultdict[str, int]] = {}
        for each in (missed for audience in self.audiences for missed in audience.missed):
            people[each.reason] += each.people
            for kind, number in each.otherwise.items():
                otherwise.setdefault(each.reason, defaultdict(int))[kind] += number
        return tuple(
            MissedFigures(reason, number, dict(otherwise.get(reason, {})))
            for reason, number in sorted(people.items(), key=lambda item: -item[1])
        )


Rate = Callable[[str, str], float]


class Clock:
    """When the last row of each audience has left: a sender sends lane after lane, one pace.

    `rate` gives a sender's units per second.
    """

    def __init__(
        self,
        rows: Iterable[Reach],
        *,
        units: Mapping[tuple[str, str, str], int],
        lanes: Mapping[str, int],
        rate: Rate,
    ) -> None:
        self._lanes = lanes
        self._rate = rate
        self._load: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        for row in rows:
            if row.reason == "":
                cost = units.get((row.audience, row.channel, row.locale), 1)
                self._load[row.channel, row.sender, lanes[row.audience]] += row.rows * cost

    def seconds(self, row: Reach) -> float:
        """Until all of this row's lane and those before it have left its sender."""
        lane = self._lanes[row.audience]
        before = sum(self._load[row.channel, row.sender, each] for each in range(lane + 1))
        return round(before / self._rate(row.channel, row.sender), 1)


def lanes_of(packs: Packs) -> dict[str, int]:
    """Each audience's lane as a number: the lowest leaves first."""
    return {name: LANE_ORDER.index(each.lane.value) for name, each in packs.audiences.items()}


def figures(
    counted: Counted,
    worded: Sequence[Worded],
    named: Sequence[str],
    packs: Packs,
    *,
    price: Rate,
    granted: Rate,
    rate: Rate,
) -> Figures:
    """The figures of a count for the audiences named. `price` is that of one unit; `granted` is
    a sender's rate at its provider, `rate` that of this installation, both in units per second."""
    units = {(each.audience, each.channel, each.locale): each.units for each in worded}
    lanes = lanes_of(packs)
    sent = [row for row in counted.rows if row.reason == ""]
    provider = Clock(sent, units=units, lanes=lanes, rate=granted)
    here = Clock(sent, units=units, lanes=lanes, rate=rate)

    def cost(rows: Iterable[Reach]) -> float:
        return round(
            sum(
                row.rows
                * units.get((row.audience, row.channel, row.locale), 1)
                * price(row.channel, row.sender)
                for row in rows
            ),
            4,
        )

    def audience(name: str) -> AudienceFigures:
        own = [row for row in sent if row.audience == name]
        stands = next((each for each in counted.standings if each.audience == name), None)
        by_channel: defaultdict[str, int] = defaultdict(int)
        for row in own:
            by_channel[row.channel] += row.rows
        reach_by = packs.audiences[name].reach_by
        return AudienceFigures(
            audience=name,
            people=stands.people if stands else 0,
            told=stands.told if stands else 0,
            shared=stands.shared if stands else 0,
            spared=stands.spared if stands else 0,
            by_channel=dict(by_channel),
            cost=cost(own),
            seconds=max((provider.seconds(row) for row in own), default=0.0),
            here_seconds=max((here.seconds(row) for row in own), default=0.0),
            reach_by=reach_by.total_seconds() if reach_by else None,
            missed=tuple(
                MissedFigures(each.reason, each.people, dict(each.otherwise))
                for each in counted.missed
                if each.audience == name
            ),
        )

    def message(each: Worded) -> MessageFigures:
        key = (each.audience, each.channel, each.locale)
        own = [row for row in sent if (row.audience, row.channel, row.locale) == key]
        return MessageFigures(
            *key,
            recipients=sum(row.rows for row in own),
            cost=cost(own),
            seconds=max((provider.seconds(row) for row in own), default=0.0),
        )

    return Figures(
        audiences=tuple(audience(name) for name in named if name in packs.audiences),
        messages=tuple(message(each) for each in worded),
        rows=sum(row.rows for row in sent),
        seconds=max((provider.seconds(row) for row in sent), default=0.0),
        here_seconds=max((here.seconds(row) for row in sent), default=0.0),
    )

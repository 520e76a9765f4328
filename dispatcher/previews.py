"""What would be sent, to how many, at what price and by when, before anything is stored.

Renders with the one renderer and counts with planning's own selection, which is built in
a transaction's temporary tables and never inserted.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from channels.contract import Problem
from dispatcher.acts import NotFound
from dispatcher.audiences import Packs
from dispatcher.figures import Clock, Counted, Worded, lanes_of
from dispatcher.incidents import Fact, Incident, NewIncident, NewUpdate, Phase, live_facts
from dispatcher.ledger import incidents, plans, selection
from dispatcher.ledger.connection import Connection, Ledger
from dispatcher.planning import Aim, Planner
from dispatcher.rendering import Renderer, Rendering, Statement, content_hash
from dispatcher.security.rights import Actor, Scope


@dataclass(frozen=True, slots=True)
class PreviewMessage:
    """One message as its receivers would get it. `size` in the provider's unit per envelope;
    `eta_seconds` until the last of them has left at the sender's own rate."""

    audience: str
    channel: str
    locale: str
    parts: Mapping[str, str]
    problems: tuple[Problem, ...]
    size: int
    recipients: int
    cost: float
    eta_seconds: float


@dataclass(frozen=True, slots=True)
class AudienceReach:
    """How many people an audience has in this incident, and how they are reached."""

    people: int
    reached: int
    by_channel: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Preview:
    """Every message, who is reached, and how many are not, by reason."""

    messages: tuple[PreviewMessage, ...]
    reach: Mapping[str, AudienceReach]
    not_reachable: Mapping[str, int]
    content_hash: str


def _now() -> datetime:
    return datetime.now(UTC)


class Previews:
    """`rate` gives a sender's units per second, `price` its price of one unit."""

    def __init__(
        self,
        ledger: Ledger,
        packs: Packs,
        renderer: Renderer,
        planner: Planner,
        *,
        rate: Callable[[str, str], float],
        price: Callable[[str, str], float],
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._ledger = ledger
        self._packs = packs
        self._renderer = renderer
        self._planner = planner
        self._rate = rate
        self._price = price
        self._clock = clock

    def preview(
        self,
        incident: NewIncident | None,
        incident_id: str | None,
        update: NewUpdate,
        *,
        actor: Actor,
    ) -> Preview:
        """Preview a first update of a new incident, or a further one of `incident_id`.

        Raises `NotFound`, `NotAllowed`. Problems of any severity are shown, not raised.
        """
        actor.require(Scope.PREVIEW)
        with self._ledger.transaction() as work:
            conn = work.conn
            known: list[Fact] = []
            earlier: tuple[str, ...] = ()
            if incident is not None:
                number = incidents.next_number(conn)
                about = _imagined(incident, number=number, now=self._clock())
            else:
                found = incidents.get(conn, incident_id or "")
                if found is None:
                    raise NotFound("no such incident")
                about = found
                known = incidents.standing(conn, found.id)
                earlier = tuple(plans.earlier_updates(conn, found.id, _LAST_ID))
            named = update.audiences or tuple(self._packs.audiences)
            renderings = self._renderer.render_all(self._statement(about, update, known), named)
            self._select(
                conn,
                about,
                phase=update.phase,
                aim=Aim(
                    named=tuple(named),
                    due=tuple(named),
                    earlier=earlier,
                    withdrawn=update.withdraws if update.phase is Phase.CORRECTION else (),
                ),
                worded=worded(renderings),
            )
            rows = selection.reach(conn)
            people = selection.people(conn)
        clock = Clock(
            rows,
            units={(w.audience, w.channel, w.locale): w.units for w in worded(renderings)},
            lanes=lanes_of(self._packs),
            rate=self._rate,
        )
        return Preview(
            messages=tuple(self._message(rendering, rows, clock) for rendering in renderings),
            reach={
                name: AudienceReach(
                    people=people.get(name, (0, 0))[1],
                    reached=people.get(name, (0, 0))[0],
                    by_channel=_by_channel(rows, name),
                )
                for name in named
            },
            not_reachable=_not_reachable(rows),
            content_hash=content_hash(renderings),
        )

    def _statement(self, incident: Incident, update: NewUpdate, known: Sequence[Fact]) -> Statement:
        stated = [
            Fact(id=f"preview-{number}", stated=fact, update_id="preview")
            for number, fact in enumerate(update.facts)
        ]
        standing = [fact for fact in known if fact.id not in update.withdraws]
        return Statement(
            incident=incident,
            update_id="preview",
            phase=update.phase,
            facts=live_facts([*standing, *stated]),
            withdrawn=tuple(fact for fact in known if fact.id in update.withdraws),
            texts=update.texts,
            next_update_at=update.next_update_at,
            expires_at=update.expires_at,
            stated_at=self._clock(),
            previous=None,
        )

    def count(
        self,
        conn: Connection,
        incident: Incident | NewIncident,
        *,
        phase: Phase,
        aim: Aim,
        worded: Sequence[Worded],
    ) -> Counted:
        """Whom planning would select for these messages, counted. `conn` is in a transaction,
        which keeps nothing of it."""
        about = (
            incident
            if isinstance(incident, Incident)
            else _imagined(incident, number=0, now=self._clock())
        )
        question = self._select(conn, about, phase=phase, aim=aim, worded=worded)
        return Counted(
            rows=tuple(selection.reach(conn)),
            standings=tuple(selection.standings(conn)),
            missed=tuple(selection.missed(conn, question)),
        )

    def _select(
        self,
        conn: Connection,
        incident: Incident,
        *,
        phase: Phase,
        aim: Aim,
        worded: Sequence[Worded],
    ) -> selection.Question:
        question = self._planner.question(
            incident,
            incident_id=None if incident.id == IMAGINED else incident.id,
            update_id=None,
            phase=phase,
            aim=aim,
            wordings=(
                selection.Wording(each.audience, each.channel, each.locale, number)
                for number, each in enumerate(worded, 1)
            ),
        )
        selection.select(conn, question)
        return question

    def _message(
        self, rendering: Rendering, rows: Sequence[selection.Reach], clock: Clock
    ) -> PreviewMessage:
        message = rendering.message
        own = [
            row
            for row in rows
            if (row.audience, row.channel, row.locale, row.reason)
            == (rendering.audience, message.channel, message.locale, "")
        ]
        return PreviewMessage(
            audience=rendering.audience,
            channel=message.channel,
            locale=message.locale,
            parts=message.parts,
            problems=rendering.problems,
            size=rendering.units,
            recipients=sum(row.rows for row in own),
            cost=round(
                sum(
                    row.rows * rendering.units * self._price(row.channel, row.sender) for row in own
                ),
                2,
            ),
            eta_seconds=max((clock.seconds(row) for row in own), default=0.0),
        )


IMAGINED = "preview"
"""The id of an incident that is not stored: it is told from all that are."""
_LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


def worded(renderings: Iterable[Rendering]) -> tuple[Worded, ...]:
    """What there is to say, and what one envelope of it costs."""
    return tuple(
        Worded(each.audience, each.message.channel, each.message.locale, each.units)
        for each in renderings
    )


def _imagined(new: NewIncident, *, number: int, now: datetime) -> Incident:
    return Incident(
        id=IMAGINED,
        number=number,
        status="open",
        created_at=now,
        **new.model_dump(),
    )


def _by_channel(rows: Sequence[selection.Reach], audience: str) -> dict[str, int]:
    found: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        if row.audience == audience and row.reason == "":
            found[row.channel] += row.rows
    return dict(found)


def _not_reachable(rows: Sequence[selection.Reach]) -> dict[str, int]:
    found: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        if row.reason not in ("", "shared_contact"):
            found[row.reason] += row.people
    return dict(found)

"""What would be sent, to how many, at what price and by when, before anything is stored.

Renders with the one renderer and counts with planning's own selection, which is built in
a transaction's temporary tables and never inserted.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from channels.contract import Problem
from dispatcher.acts import NotFound
from dispatcher.audiences import Packs
from dispatcher.incidents import Fact, Incident, NewIncident, NewUpdate, Phase, live_facts
from dispatcher.ledger import incidents, plans, selection
from dispatcher.ledger.connection import Connection, Ledger
from dispatcher.planning import LANE_ORDER, Aim, Planner
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
                known = incidents.facts(conn, found.id)
                earlier = tuple(plans.earlier_updates(conn, found.id, _LAST_ID))
            named = update.audiences or tuple(self._packs.audiences)
            renderings = self._renderer.render_all(self._statement(about, update, known), named)
            rows = self._reach(
                conn, about, update, named=named, earlier=earlier, renderings=renderings
            )
            people = selection.people(conn)
        return Preview(
            messages=tuple(self._message(rendering, rows) for rendering in renderings),
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

    def _reach(
        self,
        conn: Connection,
        incident: Incident,
        update: NewUpdate,
        *,
        named: Sequence[str],
        earlier: tuple[str, ...],
        renderings: Sequence[Rendering],
    ) -> Sequence[selection.Reach]:
        question = self._planner.question(
            incident,
            incident_id=None if incident.id == _IMAGINED else incident.id,
            update_id=None,
            phase=update.phase,
            aim=Aim(
                named=tuple(named),
                due=tuple(named),
                earlier=earlier,
                withdrawn=update.withdraws if update.phase is Phase.CORRECTION else (),
            ),
            wordings=(
                selection.Wording(
                    rendering.audience,
                    rendering.message.channel,
                    rendering.message.locale,
                    number,
                )
                for number, rendering in enumerate(renderings, 1)
            ),
        )
        selection.select(conn, question)
        return selection.reach(conn)

    def _message(self, rendering: Rendering, rows: Sequence[selection.Reach]) -> PreviewMessage:
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
            eta_seconds=max((self._eta(rendering, row.sender, rows) for row in own), default=0.0),
        )

    def _eta(self, rendering: Rendering, sender: str, rows: Sequence[selection.Reach]) -> float:
        """Seconds until all of this lane and those before it have left this sender."""
        lane = self._lane(rendering.audience)
        channel = rendering.message.channel
        before = sum(
            row.rows * rendering.units
            for row in rows
            if row.reason == ""
            and (row.channel, row.sender) == (channel, sender)
            and self._lane(row.audience) <= lane
        )
        return round(before / self._rate(channel, sender), 1)

    def _lane(self, audience: str) -> int:
        return LANE_ORDER.index(self._packs.audiences[audience].lane.value)


_IMAGINED = "preview"
_LAST_ID = "ffffffff-ffff-ffff-ffff-ffffffffffff"


def _imagined(new: NewIncident, *, number: int, now: datetime) -> Incident:
    return Incident(
        id=_IMAGINED,
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

"""A released update becomes deliveries: who, by which contact point, with which message.

Owns the question that is put to the ledger; the answer is set-based SQL there. A plan is
re-runnable: a lane's audiences are planned once, and urgent lanes leave while bulk is still
being planned. Of many people a few go ahead, and then more, each part in a transaction of
its own: the first have the message while the last are still being looked for, and the
workers are busy meanwhile.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

import structlog

from channels.contract import ContactKind
from dispatcher.audiences import Lane, Organisation, Packs, Reach, Scope
from dispatcher.incidents import Incident, Phase
from dispatcher.ledger import incidents, plans, selection, stops, updates
from dispatcher.ledger.connection import Connection, Ledger
from dispatcher.ledger.selection import Span

log = structlog.get_logger(__name__)

LANE_ORDER = (Lane.URGENT.value, Lane.NORMAL.value, Lane.BULK.value)

# A token reaches a locked phone, a stored inbox only an open app: the first that a
# recipient has is used.
KIND_ORDER: Mapping[str, tuple[str, ...]] = {
    "sms": (ContactKind.PHONE.value,),
    "email": (ContactKind.EMAIL.value,),
    "social": (ContactKind.X_ACCOUNT.value,),
    "push": (ContactKind.FCM_TOKEN.value, ContactKind.INBOX.value),
}


@dataclass(frozen=True, slots=True)
class Route:
    """A configured adapter: what it is called, which channel and kind it serves."""

    adapter: str
    channel: str
    kind: str


@dataclass(frozen=True, slots=True)
class Aim:
    """For one update: the audiences it names, those to plan now, and what came before."""

    named: tuple[str, ...]
    due: tuple[str, ...]
    earlier: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()


def rules(packs: Packs) -> tuple[selection.Rule, ...]:
    """Every audience as a rule of the selection."""
    return tuple(
        selection.Rule(
            name=audience.name,
            rank=audience.rank,
            segments=audience.segments,
            tags=audience.tags,
            also_tags=audience.also_tags,
            everyone=audience.scope is Scope.EVERYONE,
            first=audience.reach is Reach.FIRST,
            lane=LANE_ORDER.index(audience.lane.value),
        )
        for audience in packs.audiences.values()
    )


def steps(packs: Packs, routes: Iterable[Route]) -> tuple[selection.Step, ...]:
    """Every way of every audience; a kind that nothing serves has no adapter."""
    serving: dict[tuple[str, str], str] = {}
    for route in routes:
        serving.setdefault((route.channel, route.kind), route.adapter)
    return tuple(
        selection.Step(
            audience=audience.name,
            step=number,
            channel=step.channel,
            kind_order=order,
            kind=kind,
            adapter=serving.get((step.channel, kind), ""),
        )
        for audience in packs.audiences.values()
        for number, step in enumerate(audience.channels)
        for order, kind in enumerate(KIND_ORDER[step.channel])
    )


def senders(organisation: Organisation) -> tuple[selection.Sending, ...]:
    """Each channel's senders by country; the default one has none."""
    return tuple(
        selection.Sending(
            channel=channel,
            country="" if country == "default" else country,
            sender=sender.value,
        )
        for channel, by_country in organisation.senders.items()
        for country, sender in by_country.items()
    )


@dataclass(frozen=True, slots=True)
class Parts:
    """In which parts many people are planned: a `vanguard` first, then up to a sixteenth and up
    to a quarter of the directory if they are at least `least` people, then the rest: each is
    planned while the one before is sent. `few` are planned at once."""

    vanguard: int = 256
    few: int = 2_000
    least: int = 2_048

    def after(self, done: Span | None, directory: Span | None, *, start: int) -> Span | None:
        """Whom to plan after those of `done`, who lie beside them; None for all that are left.

        The vanguard begins anywhere, by `start`: it is others for each incident.
        """
        if directory is None or directory.size < 20 * self.vanguard:
            return None
        if done is None:
            first = directory.first + start % (directory.size - self.vanguard)
            return Span(first, first + self.vanguard - 1)
        ends = (directory.size // 16, directory.size // 4)
        more = next((end - done.size for end in ends if end > done.size), 0)
        if more < self.least:
            return None
        if done.last + more <= directory.last:
            return Span(done.last + 1, done.last + more)
        return Span(done.first - more, done.first - 1)


def together(done: Span | None, part: Span) -> Span:
    """Two parts that lie side by side."""
    if done is None:
        return part
    return Span(min(done.first, part.first), max(done.last, part.last))


class Planner:
    """Plans released updates. `send` names batches (id, lane) to the workers after each commit."""

    def __init__(
        self,
        ledger: Ledger,
        packs: Packs,
        *,
        routes: Sequence[Route],
        drill_routes: Sequence[Route],
        send: Callable[[Sequence[tuple[int, str]]], object],
        batch_size: int = 1_000,
        parts: Parts | None = None,
    ) -> None:
        self._ledger = ledger
        self._packs = packs
        self._routes = routes
        self._drill_routes = drill_routes
        self._send = send
        self._batch_size = batch_size
        self._parts = parts or Parts()

    def question(
        self,
        incident: Incident,
        *,
        incident_id: str | None,
        update_id: str | None,
        phase: Phase,
        aim: Aim,
        wordings: Iterable[selection.Wording],
    ) -> selection.Question:
        """What to ask the ledger for one update, planned or previewed."""
        return selection.Question(
            incident_id=incident_id,
            update_id=update_id,
            services=incident.services,
            regions=incident.regions,
            named=aim.named,
            due=aim.due,
            earlier=aim.earlier,
            withdrawn=aim.withdrawn,
            spare_untold=phase is Phase.RESOLVED and bool(aim.earlier),
            default_locale=self._packs.organisation.default_locale,
            rules=rules(self._packs),
            steps=steps(self._packs, self._drill_routes if incident.drill else self._routes),
            senders=senders(self._packs.organisation),
            wordings=tuple(wordings),
        )

    def plan(self, update_id: str) -> int:
        """Plan what is released and not yet planned; returns the batches made."""
        with self._ledger.read() as conn:
            lanes = {due.lane for due in plans.due(conn, update_id)}
        made = 0
        for lane in (lane for lane in LANE_ORDER if lane in lanes):
            more = True
            while more:
                with self._ledger.transaction() as work:
                    more, queued = self._plan_some(work.conn, update_id, lane)
                    if queued:
                        named = [(batch.batch_id, batch.lane) for batch in queued]
                        work.after_commit(partial(self._send, named))
                        made += len(queued)
        return made

    def _plan_some(
        self, conn: Connection, update_id: str, lane: str
    ) -> tuple[bool, list[plans.Queued]]:
        """Plan one part of a lane: whether more of it may be due, and the batches made."""
        update = updates.get(conn, update_id)
        if update is None or not any(due.lane == lane for due in plans.due(conn, update_id)):
            return False, []
        if not plans.try_lock(conn, update.incident_id):
            return False, []
        # Asked again under the lock: another planner may have been faster.
        due = [d for d in plans.due(conn, update_id) if d.lane == lane]
        if not due:
            return False, []
        # Audiences of which other parts are planned follow one after the other.
        done = due[0].done
        audiences = tuple(d.audience for d in due if d.done == done)
        incident = incidents.get(conn, update.incident_id)
        assert incident is not None
        correction = update.phase == Phase.CORRECTION
        question = self.question(
            incident,
            incident_id=incident.id,
            update_id=update_id,
            phase=Phase(update.phase),
            aim=Aim(
                named=tuple(update.audiences),
                due=audiences,
                earlier=tuple(plans.earlier_updates(conn, incident.id, update_id)),
                withdrawn=tuple(update.withdraws) if correction else (),
            ),
            wordings=plans.wordings(conn, update_id, audiences),
        )
        found, part = self._select(conn, question, done, in_parts=not correction)
        queued = self._insert(conn, question, lane, few=found.few)
        if part is None:
            packs = self._packs.audiences
            falling = [name for name in audiences if name in packs and packs[name].falls]
            plans.mark_planned(conn, update_id, audiences, falling=falling)
        else:
            plans.mark_part(conn, update_id, audiences, together(done, part))
        stops.halt_stopped(conn, update_id, [batch.batch_id for batch in queued])
        return True, queued

    def _select(
        self, conn: Connection, question: selection.Question, done: Span | None, *, in_parts: bool
    ) -> tuple[selection.Selected, Span | None]:
        """Select the next part, and which it is; None if nobody is left then."""
        assert question.incident_id is not None
        # Its last bits are random.
        start = UUID(question.incident_id).int & 0xFFFF_FFFF
        part = None
        if in_parts:
            part = self._parts.after(done, plans.directory(conn), start=start)
        if part is not None and done is None:
            found = selection.select(conn, replace(question, at_most=self._parts.few))
            if found is not None:
                return found, None
        found = selection.select(
            conn, replace(question, among=part, beyond=done if part is None else None)
        )
        assert found is not None
        return found, part

    def _insert(
        self, conn: Connection, question: selection.Question, lane: str, *, few: bool
    ) -> list[plans.Queued]:
        """This transaction's selection as rows; what it supersedes is taken back."""
        assert question.incident_id is not None
        assert question.update_id is not None
        queued = plans.insert(
            conn,
            incident_id=question.incident_id,
            update_id=question.update_id,
            lane=lane,
            rules=question.rules,
            batch_size=self._batch_size,
        )
        superseded = plans.supersede(conn, earlier=question.earlier, few=few)
        gave_way = plans.give_way(
            conn,
            incident_id=question.incident_id,
            update_id=question.update_id,
            batches=[batch.batch_id for batch in queued],
        )
        log.info(
            "planned",
            update=question.update_id,
            lane=lane,
            audiences=list(question.due),
            batches=len(queued),
            superseded=superseded,
            gave_way=gave_way,
        )
        return queued

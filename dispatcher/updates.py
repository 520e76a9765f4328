"""What is said: an incident opens, an update is added and submitted.

Owns the judging of a request against the packs and the clock, and the submission:
rendering every message once and storing it. Every method works inside the caller's
transaction, so that an answer kept for repeated requests is stored with its work.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Literal

from dispatcher.acts import (
    Conflict,
    Invalid,
    Outcome,
    Stale,
    find_incident,
    find_update,
    problems_of,
    refuse,
)
from dispatcher.audiences import Packs
from dispatcher.incidents import (
    Incident,
    NewIncident,
    NewUpdate,
    Phase,
    live_facts,
    problems_with_times,
)
from dispatcher.ledger import audit, incidents, updates
from dispatcher.ledger.connection import Connection, Transaction
from dispatcher.releases import Releases
from dispatcher.rendering import TEXT_SLOTS, Renderer, Statement, content_hash
from dispatcher.security.rights import Actor, Scope

ReleaseMode = Literal["now", "on_approval", "draft"]


def _now() -> datetime:
    return datetime.now(UTC)


class Updates:
    """The desk's way of saying something. `clock` tells what lies in the future."""

    def __init__(
        self,
        packs: Packs,
        renderer: Renderer,
        releases: Releases,
        *,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._packs = packs
        self._renderer = renderer
        self._releases = releases
        self._clock = clock

    def open(
        self,
        work: Transaction,
        incident: NewIncident,
        update: NewUpdate,
        *,
        release: ReleaseMode,
        actor: Actor,
        force: bool = False,
    ) -> Outcome:
        """Open an incident with its first update. Raises `Invalid`, `Conflict` (similar-open),
        `Refused`, `NotAllowed`."""
        actor.require(Scope.INCIDENTS_WRITE)
        self.judge(incident, update)
        if update.withdraws:
            raise Invalid([("update.withdraws", "a new incident has no facts to withdraw")])
        if not force:
            similar = incidents.similar_open(work.conn, incident)
            if similar is not None:
                raise Conflict(
                    "similar-open",
                    f"{similar.reference} is open for the same services and region;"
                    " update it, or repeat with force",
                    detail={"id": similar.id, "reference": similar.reference},
                )
        stored = incidents.insert(work.conn, incident, created_by=actor.id)
        audit.record(
            work.conn,
            actor=actor.id,
            act="incident.open",
            incident_id=stored.id,
            detail={"reference": stored.reference, "drill": stored.drill},
        )
        return self._add(work, stored, update, release=release, actor=actor)

    def add(
        self,
        work: Transaction,
        incident_id: str,
        update: NewUpdate,
        *,
        release: ReleaseMode,
        actor: Actor,
    ) -> Outcome:
        """Add an update to an open incident, or a follow-up or correction to any."""
        actor.require(Scope.INCIDENTS_WRITE)
        incident = find_incident(work.conn, incident_id, lock=True)
        if incident.status != "open" and update.phase not in (Phase.FOLLOW_UP, Phase.CORRECTION):
            raise Conflict("resolved", f"{incident.reference} is resolved; reopen it first")
        self.judge(incident, update)
        _judge_withdrawn(work.conn, incident, update)
        return self._add(work, incident, update, release=release, actor=actor)

    def revise(
        self,
        work: Transaction,
        update_id: str,
        update: NewUpdate,
        *,
        revision: int,
        actor: Actor,
        incident: NewIncident | None = None,
    ) -> Outcome:
        """Put other words in place of an update's own, as long as none of it was released.

        `revision` is the one that was looked at; `incident` amends the incident too, as long as
        nobody was told of it. The update is a draft again. Raises `Stale`, `Conflict`, `Invalid`.
        """
        actor.require(Scope.INCIDENTS_WRITE)
        row, found = find_update(work.conn, update_id)
        if row.revision != revision:
            raise Stale(row.revision)
        _judge_revisable(work.conn, row)
        if incident is not None:
            found = self._amend(work, found, incident, actor=actor)
        self.judge(found, update)
        _judge_withdrawn(work.conn, found, update, update_id=row.id)
        named = update.audiences or tuple(self._packs.audiences)
        updates.revise(work.conn, row.id, update, audiences=named, editor=actor.id)
        incidents.forget_facts(work.conn, row.id)
        self._state(work.conn, found, row.id, update, named=named)
        audit.record(
            work.conn,
            actor=actor.id,
            act="update.revise",
            incident_id=found.id,
            update_id=row.id,
            detail={"phase": update.phase.value, "revision": row.revision + 1},
        )
        return Outcome(found, row.id, None, (), tuple(named))

    def _amend(
        self, work: Transaction, found: Incident, new: NewIncident, *, actor: Actor
    ) -> Incident:
        """The incident with other particulars; itself, if they are the same."""
        amended = found.model_copy(update=new.model_dump(exclude={"drill"}))
        if amended == found:
            return found
        for row in updates.of_incident(work.conn, found.id):
            if any(each.released_at for each in updates.releases(work.conn, row.id)):
                raise Conflict(
                    "told", f"people were told of {found.reference}: its particulars stay"
                )
        incidents.amend(work.conn, found.id, new)
        audit.record(work.conn, actor=actor.id, act="incident.amend", incident_id=found.id)
        return amended

    def reopen(self, work: Transaction, incident_id: str, *, actor: Actor) -> Incident:
        """Take a resolved incident back to open."""
        actor.require(Scope.INCIDENTS_WRITE)
        incident = find_incident(work.conn, incident_id, lock=True)
        if incident.status == "open":
            raise Conflict("open", f"{incident.reference} is open already")
        incidents.set_status(work.conn, incident.id, "open")
        audit.record(work.conn, actor=actor.id, act="incident.reopen", incident_id=incident.id)
        return find_incident(work.conn, incident.id)

    def _add(
        self,
        work: Transaction,
        incident: Incident,
        update: NewUpdate,
        *,
        release: ReleaseMode,
        actor: Actor,
    ) -> Outcome:
        named = update.audiences or tuple(self._packs.audiences)
        if release == "now":
            actor.require(Scope.RELEASE)
        update_id = updates.insert(
            work.conn,
            update,
            incident_id=incident.id,
            audiences=named,
            author=actor.id,
            release_on_approval=release != "draft",
        )
        self._state(work.conn, incident, update_id, update, named=named)
        audit.record(
            work.conn,
            actor=actor.id,
            act="update.create",
            incident_id=incident.id,
            update_id=update_id,
            detail={"phase": update.phase.value, "audiences": list(named)},
        )
        if release == "draft":
            return Outcome(incident, update_id, None, (), tuple(named))
        return self.submit(work, update_id, actor=actor, release=release)

    def _state(
        self,
        conn: Connection,
        incident: Incident,
        update_id: str,
        update: NewUpdate,
        *,
        named: Sequence[str],
    ) -> None:
        """What an update states and takes back, and a draft's row for each of its audiences."""
        incidents.add_facts(conn, update.facts, incident_id=incident.id, update_id=update_id)
        incidents.withdraw_facts(
            conn, update.withdraws, incident_id=incident.id, update_id=update_id
        )
        updates.create_releases(
            conn,
            update_id,
            {
                name: (
                    self._packs.audiences[name].lane.value,
                    update.phase in self._packs.audiences[name].preapproved and not update.texts,
                )
                for name in named
            },
        )

    def judge(self, incident: NewIncident | Incident, update: NewUpdate) -> None:
        """All that the models cannot know: the packs' words and the clock."""
        errors: list[tuple[str, str]] = []
        organisation = self._packs.organisation
        errors += [
            (f"services.{i}", f"unknown service; known: {', '.join(organisation.services)}")
            for i, service in enumerate(incident.services)
            if service not in organisation.services
        ]
        now = self._clock()
        if incident.started_at > now:
            errors.append(("started_at", "must not be in the future"))
        for i, name in enumerate(update.audiences or ()):
            if name not in self._packs.audiences:
                known = ", ".join(self._packs.audiences)
                errors.append((f"update.audiences.{i}", f"unknown audience; known: {known}"))
        for i, fact in enumerate(update.facts):
            for name in fact.audiences or ():
                if name not in self._packs.audiences:
                    errors.append((f"update.facts.{i}.audiences", "unknown audience"))
        errors += [
            (f"update.{name}", reason)
            for name, reason in problems_with_times(update, now=now, started_at=incident.started_at)
        ]
        errors += [
            (f"update.texts.{slot}", f"unknown slot; known: {', '.join(TEXT_SLOTS)}")
            for slot in update.texts
            if slot not in TEXT_SLOTS
        ]
        if errors:
            raise Invalid(errors)

    def submit(
        self,
        work: Transaction,
        update_id: str,
        *,
        actor: Actor,
        release: ReleaseMode | None = None,
        revision: int | None = None,
    ) -> Outcome:
        """Render and store every message. Any earlier approval of this update is void.

        `release` says anew when it goes out; `now` releases what its rule pre-approves.
        `revision` is the one that was looked at. Raises `Stale`, and `Refused` if a problem of
        severity error is found; nothing is stored then.
        """
        actor.require(Scope.INCIDENTS_WRITE)
        if release == "now":
            actor.require(Scope.RELEASE)
        update, incident = find_update(work.conn, update_id)
        if revision is not None and update.revision != revision:
            raise Stale(update.revision)
        _judge_revisable(work.conn, update)
        if release is not None:
            updates.set_release_on_approval(work.conn, update.id, wanted=release != "draft")
        statement = self.statement(work.conn, incident, update)
        renderings = self._renderer.render_all(statement, update.audiences)
        refuse(renderings)
        whole = content_hash(renderings)
        updates.replace_messages(
            work.conn,
            update.id,
            (
                updates.StoredMessage(
                    audience=rendering.audience,
                    message=rendering.message,
                    units=rendering.units,
                    problems=[
                        {
                            "severity": problem.severity.value,
                            "code": problem.code,
                            "part": problem.part,
                            "message": problem.message,
                        }
                        for problem in rendering.problems
                    ],
                    facts=list(rendering.facts),
                )
                for rendering in renderings
            ),
        )
        updates.mark_submitted(work.conn, update.id, content_hash=whole)
        updates.move_releases(
            work.conn,
            update.id,
            audiences=update.audiences,
            states=("draft", "submitted", "returned", "approved"),
            to="submitted",
            actor=actor.id,
        )
        audit.record(
            work.conn,
            actor=actor.id,
            act="update.submit",
            incident_id=incident.id,
            update_id=update.id,
            detail={"content_hash": whole, "messages": len(renderings)},
        )
        warnings = tuple(problems_of(renderings))
        released = self._let_go(work, incident, update.id, actor) if release == "now" else ()
        held = tuple(name for name in update.audiences if name not in released)
        return Outcome(incident, update.id, whole, released, held, warnings)

    def _let_go(
        self, work: Transaction, incident: Incident, update_id: str, actor: Actor
    ) -> tuple[str, ...]:
        """Release the audiences whose rule pre-approves this update."""
        free = [row.audience for row in updates.releases(work.conn, update_id) if row.preapproved]
        released = self._releases.let_go(
            work, incident, update_id, free, states=("submitted",), actor=actor
        )
        return tuple(released)

    def statement(
        self, conn: Connection, incident: Incident, update: updates.UpdateRow
    ) -> Statement:
        """What an update says: the facts that stood when it was made, and what it takes back."""
        facts = incidents.standing(conn, incident.id, update_id=update.id)
        earlier = [row for row in updates.of_incident(conn, incident.id) if row.id < update.id]
        known = [
            fact.model_copy(update={"withdrawn_by": update.id})
            if fact.id in update.withdraws
            else fact
            for fact in facts
            if fact.update_id <= update.id
        ]
        return Statement(
            incident=incident,
            update_id=update.id,
            phase=Phase(update.phase),
            facts=live_facts(known),
            withdrawn=tuple(fact for fact in known if fact.id in update.withdraws),
            texts=update.texts,
            next_update_at=update.next_update_at,
            expires_at=update.expires_at,
            stated_at=update.stated_at,
            previous=Phase(earlier[-1].phase) if earlier else None,
        )


def _judge_revisable(conn: Connection, update: updates.UpdateRow) -> None:
    """Raise `Conflict` for what was released or withdrawn."""
    if any(row.released_at is not None for row in updates.releases(conn, update.id)):
        raise Conflict("released", "part of this update is released; add a new update")
    if update.withdrawn_at is not None:
        raise Conflict("withdrawn", "this update is withdrawn; add a new one")


def _judge_withdrawn(
    conn: Connection, incident: Incident, update: NewUpdate, *, update_id: str | None = None
) -> None:
    """Raise `Invalid` unless the update takes back facts that stand."""
    known = {fact.id: fact for fact in incidents.standing(conn, incident.id, update_id=update_id)}
    for fact_id in update.withdraws:
        if fact_id not in known or known[fact_id].withdrawn_by not in (None, update_id):
            told = "names a fact that this incident does not have or has withdrawn"
            raise Invalid([("update.withdraws", told)])

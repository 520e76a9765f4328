"""What goes out: approval, return, release, withdrawal, stop and resume.

Owns who may let an update go, in which state, and the audit row of each act. Every method
works inside the caller's transaction; planning starts after its commit.
"""

from collections.abc import Callable, Sequence

from dispatcher.acts import (
    Conflict,
    Outcome,
    chosen_audiences,
    find_update,
    same_content,
)
from dispatcher.incidents import Incident, Phase
from dispatcher.ledger import audit, incidents, selection, stops, updates
from dispatcher.ledger.connection import Connection, Transaction
from dispatcher.planning import Aim, Planner
from dispatcher.security.rights import Actor, NotAllowed, Scope


class Releases:
    """The desk's hand on what goes out. `plan` names an update to the planners, `send`
    names batches (id, lane) to the workers."""

    def __init__(
        self,
        planner: Planner,
        *,
        plan: Callable[[str], object],
        send: Callable[[Sequence[tuple[int, str]]], object],
    ) -> None:
        self._planner = planner
        self._plan = plan
        self._send = send

    def approve(
        self,
        work: Transaction,
        update_id: str,
        *,
        content_hash: str,
        audiences: Sequence[str] | None,
        actor: Actor,
    ) -> Outcome:
        """Approve exactly this content, by another key than its author's.

        What was written to go out on approval goes out with it; a draft waits for `release`.
        """
        actor.require(Scope.APPROVE)
        update, incident = find_update(work.conn, update_id)
        same_content(update, content_hash)
        if actor.id in (update.author, *update.editors):
            raise NotAllowed("the author of an update cannot approve it: another key must")
        chosen = chosen_audiences(update, audiences)
        approved = updates.move_releases(
            work.conn,
            update.id,
            audiences=chosen,
            states=("submitted",),
            to="approved",
            actor=actor.id,
        )
        if not approved:
            raise Conflict("nothing-to-approve", "no audience of this update waits for approval")
        audit.record(
            work.conn,
            actor=actor.id,
            act="update.approve",
            incident_id=incident.id,
            update_id=update.id,
            detail={"content_hash": content_hash, "audiences": approved},
        )
        if not update.release_on_approval:
            return Outcome(incident, update.id, content_hash, (), tuple(approved))
        released = self.let_go(
            work, incident, update.id, approved, states=("approved",), actor=actor
        )
        return Outcome(incident, update.id, content_hash, tuple(released), ())

    def release(
        self,
        work: Transaction,
        update_id: str,
        *,
        content_hash: str,
        audiences: Sequence[str] | None,
        actor: Actor,
    ) -> Outcome:
        """Release what is approved or needs no approval; with `release:any` also the rest, loudly."""
        update, incident = find_update(work.conn, update_id)
        same_content(update, content_hash)
        chosen = chosen_audiences(update, audiences)
        rows = [row for row in updates.releases(work.conn, update.id) if row.audience in chosen]
        ready = [
            row.audience
            for row in rows
            if row.state == "approved" or (row.state == "submitted" and row.preapproved)
        ]
        forced = [row.audience for row in rows if row.state == "submitted" and not row.preapproved]
        breaking = bool(forced) and actor.may(Scope.RELEASE_ANY)
        if not breaking:
            actor.require(Scope.RELEASE)
        if not ready and not breaking:
            if forced:
                raise Conflict("not-approved", "these audiences wait for approval by another key")
            raise Conflict("nothing-to-release", "no audience of this update can be released")
        if breaking:
            audit.record(
                work.conn,
                actor=actor.id,
                act="release.break_glass",
                incident_id=incident.id,
                update_id=update.id,
                detail={"audiences": forced},
            )
            ready += forced
        released = self.let_go(
            work, incident, update.id, ready, states=("approved", "submitted"), actor=actor
        )
        held = [row.audience for row in rows if row.audience not in released]
        return Outcome(incident, update.id, content_hash, tuple(released), tuple(held))

    def let_go(
        self,
        work: Transaction,
        incident: Incident,
        update_id: str,
        audiences: Sequence[str],
        *,
        states: Sequence[str],
        actor: Actor,
    ) -> list[str]:
        if not audiences:
            return []
        if actor.reach_limit is not None:
            people = self._people(work.conn, incident, update_id, audiences)
            if people > actor.reach_limit:
                raise NotAllowed(
                    f"this release reaches {people} people; this key may reach {actor.reach_limit}"
                )
        released = updates.move_releases(
            work.conn,
            update_id,
            audiences=audiences,
            states=states,
            to="released",
            actor=actor.id,
        )
        audit.record(
            work.conn,
            actor=actor.id,
            act="update.release",
            incident_id=incident.id,
            update_id=update_id,
            detail={"audiences": released},
        )
        update = updates.get(work.conn, update_id)
        assert update is not None
        incidents.withdraw_facts(
            work.conn, update.withdraws, incident_id=incident.id, update_id=update_id
        )
        if update.phase == Phase.RESOLVED and incident.status == "open":
            incidents.set_status(work.conn, incident.id, "resolved")
        work.after_commit(lambda: self._plan(update_id))
        return released

    def _people(
        self, conn: Connection, incident: Incident, update_id: str, audiences: Sequence[str]
    ) -> int:
        update = updates.get(conn, update_id)
        assert update is not None
        question = self._planner.question(
            incident,
            incident_id=incident.id,
            update_id=update_id,
            phase=Phase(update.phase),
            aim=Aim(named=tuple(update.audiences), due=tuple(audiences)),
            wordings=(
                selection.Wording(row["audience"], row["channel"], row["locale"], row["id"])
                for row in updates.messages(conn, update_id)
            ),
        )
        selection.select(conn, question)
        return sum(reached for reached, _ in selection.people(conn).values())

    def hand_back(
        self,
        work: Transaction,
        update_id: str,
        *,
        content_hash: str,
        audiences: Sequence[str] | None,
        reason: str,
        actor: Actor,
    ) -> Outcome:
        """Return exactly this content to its author with a reason, before it goes out."""
        actor.require(Scope.APPROVE)
        update, incident = find_update(work.conn, update_id)
        same_content(update, content_hash)
        returned = updates.move_releases(
            work.conn,
            update.id,
            audiences=chosen_audiences(update, audiences),
            states=("submitted", "approved"),
            to="returned",
            actor=actor.id,
            reason=reason,
        )
        if not returned:
            raise Conflict("nothing-to-return", "no audience of this update waits for approval")
        states = {row.state for row in updates.releases(work.conn, update.id)}
        if states <= {"returned", "withdrawn"}:
            updates.mark_returned(work.conn, update.id)
        audit.record(
            work.conn,
            actor=actor.id,
            act="update.return",
            incident_id=incident.id,
            update_id=update.id,
            detail={"content_hash": content_hash, "audiences": returned, "reason": reason},
        )
        return Outcome(incident, update.id, content_hash, (), tuple(returned))

    def withdraw(
        self,
        work: Transaction,
        update_id: str,
        *,
        actor: Actor,
        audiences: Sequence[str] | None = None,
    ) -> Outcome:
        """Take back an update, or those audiences of it, of which nothing was released.

        Once nothing of it is left, its facts go with it.
        """
        actor.require(Scope.INCIDENTS_WRITE)
        update, incident = find_update(work.conn, update_id)
        chosen = chosen_audiences(update, audiences)
        rows = updates.releases(work.conn, update.id)
        if any(row.released_at for row in rows if row.audience in chosen):
            raise Conflict("released", "part of this update is released; stop or correct it")
        if update.withdrawn_at is not None:
            raise Conflict("withdrawn", "this update is withdrawn already")
        moved = updates.move_releases(
            work.conn,
            update.id,
            audiences=chosen,
            states=("draft", "submitted", "returned", "approved"),
            to="withdrawn",
            actor=actor.id,
        )
        if not moved:
            raise Conflict("withdrawn", "these audiences are withdrawn already")
        if {row.state for row in updates.releases(work.conn, update.id)} == {"withdrawn"}:
            updates.mark_withdrawn(work.conn, update.id)
        audit.record(
            work.conn,
            actor=actor.id,
            act="update.withdraw",
            incident_id=incident.id,
            update_id=update.id,
            detail={"audiences": moved},
        )
        return Outcome(incident, update.id, update.content_hash, (), tuple(moved))

    def stop(
        self,
        work: Transaction,
        update_id: str,
        *,
        audiences: Sequence[str] | None,
        actor: Actor,
    ) -> tuple[tuple[str, ...], stops.Stopped]:
        """Stop what is unsent; says which audiences, how many were saved and had left."""
        actor.require(Scope.RELEASE)
        update, incident = find_update(work.conn, update_id)
        chosen = chosen_audiences(update, audiences)
        stopped = updates.move_releases(
            work.conn,
            update.id,
            audiences=chosen,
            states=("released",),
            to="stopped",
            actor=actor.id,
        )
        if not stopped:
            raise Conflict("nothing-to-stop", "no audience of this update is being sent")
        effect = stops.stop(work.conn, update.id, stopped)
        audit.record(
            work.conn,
            actor=actor.id,
            act="update.stop",
            incident_id=incident.id,
            update_id=update.id,
            detail={"audiences": stopped, "saved": effect.saved, "left": effect.left},
        )
        return tuple(stopped), effect

    def resume(
        self,
        work: Transaction,
        update_id: str,
        *,
        audiences: Sequence[str] | None,
        actor: Actor,
    ) -> tuple[str, ...]:
        """Continue the same ledger where a stop, or a paused message, left it."""
        actor.require(Scope.RELEASE)
        update, incident = find_update(work.conn, update_id)
        chosen = chosen_audiences(update, audiences)
        resumed = updates.resume_releases(work.conn, update.id, audiences=chosen)
        paused = updates.paused_audiences(work.conn, update.id, audiences=chosen)
        if not resumed and not paused:
            raise Conflict("nothing-to-resume", "no audience of this update is stopped or paused")
        both = sorted({*resumed, *paused})
        batches = stops.resume(work.conn, update.id, both)
        audit.record(
            work.conn,
            actor=actor.id,
            act="update.resume",
            incident_id=incident.id,
            update_id=update.id,
            detail={"audiences": both},
        )
        work.after_commit(lambda: self._plan(update.id))
        work.after_commit(lambda: self._send(batches))
        return tuple(both)

"""Fallback: whom the first step of an audience does not reach is told by the next.

Only for audiences with `reach = "first"`. A step's way is a channel and a kind of contact
point. The next one starts at once when the earlier failed; when *delivered* is not reached
within the step's `wait` of acceptance, where its adapter gives receipts; or when nothing was
accepted by release + `start_by`. If receipts of an adapter have stopped arriving, *accepted*
counts, and an alarm says so. A row in doubt is settled first. Done by the sweep.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import NamedTuple

import structlog

from dispatcher import planning
from dispatcher.audiences import Audience, Packs
from dispatcher.delivery.failover import Account
from dispatcher.ledger import fallback, plans, selection
from dispatcher.ledger.connection import Connection, Ledger
from dispatcher.ledger.fallback import Candidate, Look, Rule
from dispatcher.planning import KIND_ORDER, Route

log = structlog.get_logger(__name__)

RECEIPTS_SILENT = 600.0
"""Seconds without any receipt of an adapter after which *accepted* counts."""


class Place(NamedTuple):
    """Where a way stands in its audience: the number of the step, then of the kind."""

    step: int
    kind: int


class Fallback:
    """Starts next steps. `accounts` say which kind an adapter reaches, `readers` which of them
    give receipts; `send` names batches (id, lane) to the workers after each commit."""

    def __init__(
        self,
        ledger: Ledger,
        packs: Packs,
        *,
        accounts: Sequence[Account],
        readers: Collection[str],
        send: Callable[[Sequence[tuple[int, str]]], object],
        batch_size: int = 1_000,
    ) -> None:
        self._ledger = ledger
        self._packs = packs
        self._kinds = {account.adapter: account.kind for account in accounts}
        self._readers = frozenset(readers)
        self._send = send
        self._batch_size = batch_size
        self._rules = [rule for audience in packs.audiences.values() for rule in _rules(audience)]
        self._steps = planning.steps(packs, [Route(a.adapter, a.channel, a.kind) for a in accounts])

    def run(self) -> int:
        """One look at what has changed; returns how many batches of next steps it made."""
        with self._ledger.read() as conn:
            found = fallback.candidates(conn, self._rules)
        made = 0
        for (update_id, audience), group in groupby(found, lambda c: (c.update_id, c.audience)):
            made += self._audience(update_id, audience, list(group))
        return made

    def _audience(self, update_id: str, name: str, found: Sequence[Candidate]) -> int:
        audience = self._packs.audiences.get(name)
        with self._ledger.read() as conn:
            batches = fallback.batches_of(conn, update_id, name)
        places = {b.id: self._place(audience, b.channel, b.adapter) for b in batches}
        shared = frozenset(batch.id for batch in batches if batch.skipped)
        made = 0
        for place in sorted({at for c in found if (at := places.get(c.batch_id)) is not None}):
            these = [c for c in found if places.get(c.batch_id) == place]
            assert audience is not None
            made += self._look(audience, place, these, places=places, shared=shared)
        # What speaks for nobody, or by an adapter that is gone, has no next step.
        rest = [c.batch_id for c in found if places.get(c.batch_id) is None]
        if rest:
            with self._ledger.transaction() as work:
                fallback.lock(work.conn, rest)
                fallback.mark(work.conn, rest, waited=None)
        return made

    def _place(self, audience: Audience | None, channel: str, adapter: str) -> Place | None:
        kind = self._kinds.get(adapter)
        if audience is None or kind not in KIND_ORDER.get(channel, ()):
            return None
        for number, step in enumerate(audience.channels):
            if step.channel == channel:
                return Place(number, KIND_ORDER[channel].index(kind))
        return None

    def _look(
        self,
        audience: Audience,
        place: Place,
        found: Sequence[Candidate],
        *,
        places: Mapping[int, Place | None],
        shared: Collection[int],
    ) -> int:
        """Look at one way's batches; in one transaction, under the incident's plan lock."""
        one = found[0]
        these = tuple(c.batch_id for c in found)
        same = tuple(batch for batch, at in places.items() if at == place)
        steps = tuple(
            step
            for step in self._steps
            if step.audience == audience.name and (step.step, step.kind_order) > place
        )
        with self._ledger.transaction() as work:
            if not plans.try_lock(work.conn, one.incident_id):
                return 0
            fallback.lock(work.conn, same)
            wait = self._wait(work.conn, audience, place, found)
            look = Look(
                update_id=one.update_id,
                incident_id=one.incident_id,
                these=(*these, *(batch for batch in same if batch in shared)),
                same=same,
                later=tuple(b for b, at in places.items() if at is not None and at > place),
                wait=wait,
                late=any(c.late for c in found),
            )
            queued = self._fall(work.conn, look, steps, lane=one.lane) if steps else []
            waited = audience.channels[place.step].wait
            fallback.mark(
                work.conn,
                these,
                waited=waited.total_seconds()
                if waited is not None and any(c.waited for c in found)
                else None,
            )
            if queued:
                named = [(batch.batch_id, batch.lane) for batch in queued]
                work.after_commit(partial(self._send, named))
                log.info(
                    "fallback", update=one.update_id, audience=audience.name, batches=len(queued)
                )
        return len(queued)

    def _wait(
        self, conn: Connection, audience: Audience, place: Place, found: Sequence[Candidate]
    ) -> float | None:
        """Seconds to wait for *delivered*, None where *accepted* is all there is to know."""
        wait = audience.channels[place.step].wait
        adapters = {c.adapter for c in found if c.waited}
        if wait is None or not adapters or not adapters <= self._readers:
            return None
        for adapter in adapters:
            flow = fallback.receipts_flow(conn, adapter, seconds=RECEIPTS_SILENT)
            if flow is False:
                log.error("receipts.stopped", adapter=adapter, audience=audience.name)
            if not flow:
                return None
        return wait.total_seconds()

    def _fall(
        self,
        conn: Connection,
        look: Look,
        steps: Sequence[selection.Step],
        *,
        lane: str,
    ) -> list[plans.Queued]:
        name = steps[0].audience
        wordings = tuple(plans.wordings(conn, look.update_id, [name]))
        spoken = {wording.channel for wording in wordings}
        question = selection.Question(
            incident_id=look.incident_id,
            update_id=look.update_id,
            services=(),
            regions=(),
            named=(name,),
            due=(name,),
            earlier=tuple(plans.earlier_updates(conn, look.incident_id, look.update_id)),
            withdrawn=(),
            spare_untold=False,
            default_locale=self._packs.organisation.default_locale,
            rules=planning.rules(self._packs),
            steps=tuple(step for step in steps if step.adapter and step.channel in spoken),
            senders=planning.senders(self._packs.organisation),
            wordings=wordings,
        )
        return fallback.fall(conn, look, question, lane=lane, batch_size=self._batch_size)


def _rules(audience: Audience) -> list[Rule]:
    """What is waited for at each step; after the last there is nothing to wait for."""
    if not audience.falls:
        return []
    start_by = audience.start_by.total_seconds() if audience.start_by is not None else None
    rules = []
    for number, step in enumerate(audience.channels):
        last = number == len(audience.channels) - 1 and len(KIND_ORDER[step.channel]) == 1
        wait = step.wait.total_seconds() if step.wait is not None else None
        rules.append(
            Rule(
                audience.name,
                step.channel,
                wait=None if last else wait,
                start_by=None if last else start_by,
            )
        )
    return rules

"""How many an update will reach, at what cost and how soon: counted aside, kept with its revision.

A count asks planning's own question and takes seconds where there are a million people, so no
page makes one: it is made by one thread of this process, one at a time, and whoever asks for
the same meanwhile waits for the same. Must not know pages.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime

import structlog
from pydantic import TypeAdapter

from dispatcher.acts import NotFound, find_incident
from dispatcher.audiences import Packs
from dispatcher.figures import Counted, Figures, Rate, Worded, figures
from dispatcher.incidents import Incident, NewIncident, NewUpdate, Phase
from dispatcher.ledger import plans, reckonings, updates
from dispatcher.ledger.connection import Connection, Ledger
from dispatcher.ledger.updates import UpdateRow
from dispatcher.planning import Aim
from dispatcher.previews import Previews, worded
from dispatcher.rendering import Renderer, Statement

log = structlog.get_logger(__name__)

FRESH_SECONDS = 60.0
"""For which the answer to what is typed serves again: the directory moves little meanwhile."""
REMEMBERED = 64
"""Answers of that kind that are kept."""
_NEWEST = "ffffffff-ffff-ffff-ffff-ffffffffffff"
_FIGURES = TypeAdapter(Figures)

Stating = Callable[[Connection, Incident, UpdateRow], Statement]


@dataclass(frozen=True, slots=True)
class Reckoned:
    """A count, of which revision of the update, and when it was made."""

    figures: Figures
    revision: int
    counted_at: datetime


@dataclass(frozen=True, slots=True)
class Typed:
    """What a form asks as it stands: its incident, which one it belongs to, and its messages."""

    incident: Incident | NewIncident
    incident_id: str | None
    update: NewUpdate
    worded: tuple[Worded, ...]

    @property
    def named(self) -> tuple[str, ...]:
        """The audiences that it has messages for."""
        return tuple(dict.fromkeys(each.audience for each in self.worded))

    @property
    def key(self) -> tuple[object, ...]:
        """All that the people depend on; what is said to them is none of it."""
        about = self.incident
        return (
            self.incident_id,
            about.services,
            about.regions,
            about.drill,
            self.named,
            self.update.phase,
            self.update.withdraws,
        )


@dataclass(slots=True)
class _Job:
    """A count asked for. `revision` is there once it is known which one is counted."""

    future: Future[Reckoned]
    begun: bool = False
    revision: int | None = None

    def serves(self, revision: int | None) -> bool:
        """Whether it will be of this revision or a later one; of any that stands, if None."""
        if not self.begun:
            return True
        return self.revision is not None and (revision is None or self.revision >= revision)


class Reckoning:
    """Counts updates. `stating` makes an update's statement; `rate`, `granted` and `price` are
    a sender's, as `figures` has them."""

    def __init__(
        self,
        ledger: Ledger,
        packs: Packs,
        renderer: Renderer,
        previews: Previews,
        *,
        stating: Stating,
        rate: Rate,
        granted: Rate,
        price: Rate,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._packs = packs
        self._renderer = renderer
        self._previews = previews
        self._stating = stating
        self._rate = rate
        self._granted = granted
        self._price = price
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._answers: dict[tuple[object, ...], tuple[float, Future[Counted]]] = {}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reckoning")

    def known(self, conn: Connection, update_id: str) -> Reckoned | None:
        """The last count of an update, perhaps of an older revision; None if there is none."""
        return _read(reckonings.get(conn, update_id))

    def soon(self, update_id: str, revision: int | None = None) -> Future[Reckoned]:
        """Count an update; the same count, if it waits or is being made, is joined.

        `revision` is the oldest that will do, None for the one that stands now or a count of it
        that is under way. The future may hold `NotFound` and what a ledger raises; nobody has
        to ask it.
        """
        with self._lock:
            job = self._jobs.get(update_id)
            if job is None or not job.serves(revision):
                job = _Job(Future())
                self._jobs[update_id] = job
                self._pool.submit(self._work, update_id, job)
        return job.future

    def typed(self, asked: Typed) -> Future[Figures]:
        """The figures of what is being typed; people counted a moment ago are not counted again."""
        now = self._monotonic()
        with self._lock:
            for key, (at, _) in list(self._answers.items()):
                if now - at >= FRESH_SECONDS or len(self._answers) > REMEMBERED:
                    del self._answers[key]
            found = self._answers.get(asked.key)
            if found is None or (found[1].done() and found[1].exception() is not None):
                found = (now, self._pool.submit(self._count_typed, asked))
                self._answers[asked.key] = found
        return _then(found[1], lambda counted: self._figures(counted, asked.worded, asked.named))

    def close(self) -> None:
        """Let the count under way end; none that waits begins."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _work(self, update_id: str, job: _Job) -> None:
        job.begun = True
        try:
            counted = self._count(update_id, job)
        except Exception as error:
            log.warning("reckoning.failed", error=type(error).__name__)
            self._done(update_id, job)
            job.future.set_exception(error)
        else:
            self._done(update_id, job)
            job.future.set_result(counted)

    def _done(self, update_id: str, job: _Job) -> None:
        with self._lock:
            if self._jobs.get(update_id) is job:
                del self._jobs[update_id]

    def _count(self, update_id: str, job: _Job) -> Reckoned:
        with self._ledger.transaction() as work:
            conn = work.conn
            update = updates.get(conn, update_id)
            if update is None:
                raise NotFound("no such update")
            job.revision = update.revision
            incident = find_incident(conn, update.incident_id)
            said = self._worded(conn, incident, update)
            counted = self._previews.count(
                conn,
                incident,
                phase=Phase(update.phase),
                aim=Aim(
                    named=tuple(update.audiences),
                    due=tuple(update.audiences),
                    earlier=tuple(plans.earlier_updates(conn, incident.id, update.id)),
                    withdrawn=tuple(update.withdraws) if update.phase == Phase.CORRECTION else (),
                ),
                worded=said,
            )
            found = self._figures(counted, said, tuple(update.audiences))
            reckonings.put(conn, update.id, update.revision, asdict(found))
            kept = _read(reckonings.get(conn, update.id))
        assert kept is not None
        return kept

    def _worded(
        self, conn: Connection, incident: Incident, update: UpdateRow
    ) -> tuple[Worded, ...]:
        """The stored messages of what was submitted, those of a draft as they would be."""
        if update.submitted_at is not None:
            return tuple(
                Worded(row["audience"], row["channel"], row["locale"], row["units"])
                for row in updates.messages(conn, update.id)
            )
        statement = self._stating(conn, incident, update)
        return worded(self._renderer.render_all(statement, update.audiences))

    def _count_typed(self, asked: Typed) -> Counted:
        update = asked.update
        with self._ledger.transaction() as work:
            earlier = (
                plans.earlier_updates(work.conn, asked.incident_id, _NEWEST)
                if asked.incident_id
                else ()
            )
            return self._previews.count(
                work.conn,
                asked.incident,
                phase=update.phase,
                aim=Aim(
                    named=asked.named,
                    due=asked.named,
                    earlier=tuple(earlier),
                    withdrawn=update.withdraws if update.phase is Phase.CORRECTION else (),
                ),
                worded=asked.worded,
            )

    def _figures(self, counted: Counted, said: Sequence[Worded], named: Sequence[str]) -> Figures:
        return figures(
            counted,
            said,
            named,
            self._packs,
            price=self._price,
            granted=self._granted,
            rate=self._rate,
        )


def _read(row: reckonings.Reckoned | None) -> Reckoned | None:
    if row is None:
        return None
    return Reckoned(_FIGURES.validate_python(row.figures), row.revision, row.counted_at)


def _then(first: Future[Counted], work: Callable[[Counted], Figures]) -> Future[Figures]:
    """A future of what `work` makes of another's result; its failure is passed on."""
    made: Future[Figures] = Future()

    def finish(done: Future[Counted]) -> None:
        try:
            made.set_result(work(done.result()))
        except BaseException as error:
            made.set_exception(error)

    first.add_done_callback(finish)
    return made

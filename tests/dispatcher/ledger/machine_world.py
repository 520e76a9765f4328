"""The world around the ledger for its stateful test: people, workers, a provider that knows the
truth, and what must hold whatever happened.

Acts go through the ledger's own functions. Nothing waits: a lease ends when the world says so.
The provider decides on a request at the moment it leaves, so that what it knows is always
known here, and a request leaves only while its worker's lease has not ended.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from typing import NamedTuple

from dispatcher.audiences import Lane, Packs, load
from dispatcher.delivery.receipts import Receipts
from dispatcher.incidents import NewIncident
from dispatcher.ledger import batches, doubts, due, incidents, progress, receipts, stops, updates
from dispatcher.ledger.batches import Lease, Record
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.counting import State
from dispatcher.ledger.doubts import Act, Verdict
from tests.dispatcher.test_planning import TEMPLATES, House, audience

ADAPTER = "twilio_sms"
LEASE = 3_600.0
AUDIENCES = (audience("police", 1, Lane.URGENT, "sms"), audience("consumer", 3, Lane.BULK, "sms"))
PEOPLE = {"police": 2, "consumer": 5}

MAY_BECOME = {
    "pending": {"sending", "stopped", "superseded"},
    "sending": {"pending", "accepted", "failed", "unknown", "stopped", "superseded"},
    "unknown": {"pending", "accepted", "delivered", "failed", "stopped", "superseded"},
    "accepted": {"delivered", "failed"},
    "delivered": {"failed"},
    "failed": {"delivered"},
    "stopped": {"pending", "superseded"},
    "superseded": set(),
}
"""Every way that one act may take a row. A settled row is in none that leads to *sending*."""
TAKEN = {"sending", "unknown", "accepted", "delivered", "failed"}
"""Where a row may stand whose message the provider has."""


class Row(NamedTuple):
    """A delivery as it stands."""

    update: str
    batch: int
    state: str
    epoch: int
    attempts: int
    ref: str | None
    person: int


@dataclass
class Worker:
    """A turn on a batch. `hands` are its claimed rows: None unsent, else what it has to tell."""

    lease: Lease
    permit: bool = True
    hands: dict[str, Record | None] = field(default_factory=dict)

    def known(self) -> list[Record]:
        return [record for record in self.hands.values() if record is not None]


def packs() -> Packs:
    """Two audiences that all are told by SMS."""
    found = load(TEMPLATES)
    organisation = replace(found.organisation, default_locale="en")
    return replace(found, organisation=organisation, audiences={a.name: a for a in AUDIENCES})


def people(house: House) -> None:
    """Everybody has a phone of their own."""
    for segment, many in PEOPLE.items():
        for n in range(many):
            house.person(f"{segment}-{n}", segment, f"{segment}-{n}")


def house_on(ledger: Ledger, known: Packs) -> House:
    """A new incident."""
    new = NewIncident.model_validate(
        {
            "title": "t",
            "severity": "major",
            "services": ["voice"],
            "started_at": datetime(2024, 2, 22, tzinfo=UTC),
        }
    )
    with ledger.transaction() as work:
        return House(ledger, known, incidents.insert(work.conn, new, created_by="t"))


class World:
    """One incident from its first update to its last row at rest."""

    def __init__(self, ledger: Ledger, known: Packs) -> None:
        self.ledger = ledger
        self.house = house_on(ledger, known)
        self.updates: list[str] = []
        self.workers: list[Worker] = []
        self.verdicts: list[list[Verdict]] = []
        self.taken: dict[str, str] = {}
        self.rows: dict[str, Row] = {}
        self.stopped: set[tuple[str, str]] = set()
        self.moves: Counter[str] = Counter()
        self._numbers = count(1)

    # -- the desk --------------------------------------------------------------------

    def release(self, *names: str) -> None:
        self.updates.append(self.house.release(*names))

    def plan(self, update: str) -> None:
        self.house.planner(batch_size=3).plan(update)

    def stop(self, update: str, name: str) -> None:
        with self.ledger.transaction() as work:
            stopped = updates.move_releases(
                work.conn, update, audiences=[name], states=("released",), to="stopped", actor="t"
            )
            stops.stop(work.conn, update, stopped)
        self.stopped |= {(update, name) for name in stopped}

    def resume(self, update: str, name: str) -> None:
        with self.ledger.transaction() as work:
            resumed = updates.resume_releases(work.conn, update, audiences=[name])
            stops.resume(work.conn, update, resumed)
        self.stopped -= {(update, name)}

    # -- workers ---------------------------------------------------------------------

    def batches(self) -> list[int]:
        return sorted({row.batch for row in self.rows.values()})

    def lease(self, batch: int) -> None:
        """A task names a batch; twice is none too often."""
        with self.ledger.transaction() as work:
            held = batches.lease(work.conn, batch, owner="w", seconds=LEASE)
        if held is not None:
            assert not any(w.permit for w in self.workers if w.lease.batch_id == batch)
            self.workers.append(Worker(held))

    def claim(self, worker: Worker, *, limit: int, lost: bool) -> None:
        """Record what is known and claim; if `lost`, the worker never sees the answer."""
        with self.ledger.read() as conn:
            claims = batches.window(conn, worker.lease, worker.known(), limit=limit, seconds=LEASE)
        for claim in claims:
            assert self.rows[claim.id].state == "pending"
            live = [w for w in self.workers if w.permit and claim.id in w.hands]
            assert [w for w in live if w.hands[claim.id] is None] == []
        if not lost:
            self._forget_known(worker)
            worker.hands |= {claim.id: None for claim in claims}

    def report(self, worker: Worker, *, lost: bool) -> None:
        if worker.known() and not worker.permit:
            self.moves["told late"] += 1
        with self.ledger.read() as conn:
            batches.report(conn, worker.lease, worker.known(), seconds=LEASE)
        if not lost:
            self._forget_known(worker)

    @staticmethod
    def _forget_known(worker: Worker) -> None:
        worker.hands = {id: record for id, record in worker.hands.items() if record is None}

    def send(self, worker: Worker, id: str, fate: str) -> None:
        """One claimed row: its request leaves if the lease allows, and meets its fate."""
        if fate == "untried" or not worker.permit:
            worker.hands[id] = Record(id, State.PENDING, "untried", "", tried=False)
            return
        if fate in ("taken", "answer_lost"):
            assert id not in self.taken, "the provider takes a delivery twice"
            self.taken[id] = f"ref-{next(self._numbers)}"
        worker.hands[id] = {
            "taken": Record(id, State.ACCEPTED, "accepted", "ok", ref=self.taken.get(id)),
            "answer_lost": Record(id, State.UNKNOWN, "unknown", "timeout"),
            "never_arrived": Record(id, State.UNKNOWN, "unknown", "timeout"),
            "later": Record(id, State.PENDING, "try_later", "throttled"),
            "refused": Record(id, State.FAILED, "recipient_refused", "opted_out"),
        }[fate]

    def hand_back(self, worker: Worker) -> None:
        """At the end of a turn, with everything told and nothing on the way."""
        self.report(worker, lost=False)
        with self.ledger.transaction() as work:
            batches.hand_back(work.conn, worker.lease)
        self.workers.remove(worker)

    def kill(self, worker: Worker) -> None:
        self.workers.remove(worker)

    # -- time, the sweep, the provider -------------------------------------------------

    def end_lease(self, batch: int) -> None:
        """Time passes until nobody holds this batch; those who did may not know it yet."""
        with self.ledger.read() as conn:
            conn.execute(
                "UPDATE batch SET lease_until = now() - interval '1 second'"
                " WHERE id = %s AND lease_until > now()",
                (batch,),
            )
        for worker in self.workers:
            if worker.lease.batch_id == batch:
                worker.permit = False

    def sweep(self) -> None:
        with self.ledger.read() as conn:
            dead = due.dead_leases(conn)
            unplanned = updates.unplanned(conn)
        for lease in dead:
            with self.ledger.transaction() as work:
                if due.bury(work.conn, lease.batch_id):
                    batches.abandon(work.conn, lease.batch_id, update_id=lease.update_id)
        for update in sorted(unplanned):
            self.plan(update)
            self.check()
        with self.ledger.transaction() as work:
            stops.align(work.conn)

    def ask(self, answers: Sequence[str]) -> None:
        """Somebody takes doubts and asks; what follows is decided later, or never."""
        with self.ledger.transaction() as work:
            taken = doubts.take(work.conn, ADAPTER, settle=0.0, hold=0.0, limit=2)
        verdicts = []
        for doubt, answer in zip(taken, [*answers, *answers], strict=False):
            ref = self.taken.get(doubt.claim.id)
            if answer != "truth":
                verdicts.append(Verdict(doubt, Act(answer)))
            elif ref is None:
                verdicts.append(Verdict(doubt, Act.RESEND, reason="not_taken"))
            else:
                verdicts.append(Verdict(doubt, Act.FOUND, ref=ref))
        if verdicts:
            self.verdicts.append(verdicts)

    def decide(self, verdicts: list[Verdict]) -> None:
        self.verdicts.remove(verdicts)
        with self.ledger.transaction() as work:
            doubts.decide(work.conn, verdicts)

    def receipt(self, id: str, status: str, *, repeat: bool) -> None:
        """The provider calls back, in any order and maybe twice."""
        number = next(self._numbers)
        event = receipts.Event(
            f"event-{number}", id, self.taken[id], status, "ok", "", datetime.now(UTC)
        )
        for _ in range(1 + repeat):
            with self.ledger.transaction() as work:
                receipts.keep(work.conn, ADAPTER, [event], sealed=b"", requests=1)
        self.work_receipts()

    def work_receipts(self) -> None:
        with self.ledger.read() as conn:
            conn.execute("UPDATE receipt_event SET work_at = now() WHERE result IS NULL")
        Receipts(
            self.ledger, name=lambda: None, poll=None, poll_every=1.0, monotonic=lambda: 0.0
        ).work()

    # -- what must hold ----------------------------------------------------------------

    def check(self) -> None:
        """After every act."""
        with self.ledger.read() as conn:
            found = {
                row[0]: Row(*row[1:])
                for row in conn.execute(
                    "SELECT id::text, update_id::text, batch_id, state, epoch, attempts, ref,"
                    " recipient_id FROM delivery WHERE update_id = ANY(%s::uuid[])",
                    (self.updates,),
                )
            }
            for update in self.updates:
                assert progress.imbalances(conn, update) == []
            numbers = conn.execute(
                "SELECT delivery_id::text, array_agg(DISTINCT number ORDER BY number) FROM attempt"
                " WHERE update_id = ANY(%s::uuid[]) AND number > 0 AND outcome <> 'not_taken'"
                " GROUP BY 1",
                (self.updates,),
            ).fetchall()
        assert found.keys() >= self.rows.keys(), "a row is lost"
        for id, now in found.items():
            was = self.rows.get(id)
            self._check_move(was, now)
            if was is not None and was.state != now.state:
                self.moves[f"{was.state} to {now.state}"] += 1
            self._check_truth(id, now)
        for id, tries in numbers:
            under_way = found[id].state == "sending"
            assert tries == [*range(1, found[id].attempts + 1 - under_way)], "a try is not told"
        self.rows = found

    def _check_move(self, was: Row | None, now: Row) -> None:
        if was is None:
            # Planned after a newer update, which tells this person: it gives way at once.
            newest = now.update == self.updates[-1]
            assert now.state in ("pending", "skipped", *([] if newest else ["superseded"]))
            assert now.attempts == 0
        elif was.state != now.state:
            assert now.state in MAY_BECOME[was.state], f"{was.state} became {now.state}"
        if was is not None and now.state == "sending" != was.state:
            assert now.attempts == was.attempts + 1
            assert now.epoch >= was.epoch

    def _check_truth(self, id: str, now: Row) -> None:
        if id in self.taken:
            assert now.state in TAKEN, f"the provider has it, and the ledger says {now.state}"
        if now.state in ("accepted", "delivered"):
            assert now.ref == self.taken.get(id)

    # -- the end -----------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """Everybody is killed, and what is left is done by those who come after them."""
        self.workers.clear()
        self.verdicts.clear()
        for _ in range(len(self.rows) + 6):
            for batch in self.batches():
                self.end_lease(batch)
            self.sweep()
            self.check()
            for batch in self.batches():
                self._work(batch)
            self.ask(["truth"])
            for verdicts in list(self.verdicts):
                self.decide(verdicts)
            self.work_receipts()
            self.check()
        states = Counter(row.state for row in self.rows.values())
        assert states["pending"] == states["sending"] == 0, f"not settled: {states}"
        with self.ledger.read() as conn:
            for update in {row.update for row in self.rows.values()}:
                assert progress.read(conn, update, progress.Balances()).settled

    def _work(self, batch: int) -> None:
        self.lease(batch)
        for worker in list(self.workers):
            self.check()
            self.claim(worker, limit=100, lost=False)
            self.check()
            for id in worker.hands:
                self.send(worker, id, "taken")
            self.hand_back(worker)
            self.check()

    def unknown(self) -> bool:
        return any(row.state == "unknown" for row in self.rows.values())

    def unsent(self) -> Iterator[tuple[Worker, str]]:
        for worker in self.workers:
            yield from ((worker, id) for id, record in worker.hands.items() if record is None)

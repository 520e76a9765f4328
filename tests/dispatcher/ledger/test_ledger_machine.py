"""Any order of what can happen to the ledger: it stays balanced, loses nothing, and never sends
what is settled.

The acts and what must hold are in `machine_world`; here is only their order. Each example ends
with every worker dead and the world coming to rest by itself.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dispatcher.ledger.connection import Ledger
from tests.dispatcher.ledger.machine_world import AUDIENCES, World, house_on, packs, people

T = TypeVar("T")
PICK = st.integers(0, 11)
NAMES = st.sampled_from([audience.name for audience in AUDIENCES])
FATES = st.sampled_from(
    ["never_arrived", "taken", "answer_lost", "later", "never_arrived", "refused", "untried"]
)
ANSWERS = st.lists(
    st.sampled_from(["truth", "truth", "truth", "truth", "again", "keep"]), min_size=1, max_size=2
)

MUST_HAPPEN = {
    "pending to sending",
    "sending to accepted",
    "sending to pending",
    "sending to unknown",
    "pending to stopped",
    "stopped to pending",
    "pending to superseded",
}


def one(of: Sequence[T], pick: int) -> T:
    return of[pick % len(of)]


class Machine(RuleBasedStateMachine):
    """Rules by number: `pick` chooses among what there is."""

    make: "staticmethod[[], World]"
    seen: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.world = self.make()

    @initialize()
    def begin(self) -> None:
        self.world.release()
        self.world.plan(self.world.updates[0])
        self.world.check()

    @rule(pick=PICK, limit=st.integers(1, 3), fates=st.lists(FATES, min_size=1, max_size=3))
    def begin_a_turn(self, pick: int, limit: int, fates: list[str]) -> None:
        """Lease, claim and send at once: left to chance alone, hardly any request would leave."""
        self.world.lease(one(self.world.batches(), pick))
        self.world.check()
        if self.world.workers:
            self.world.claim(self.world.workers[-1], limit=limit, lost=False)
            for (worker, delivery), fate in zip(list(self.world.unsent()), fates, strict=False):
                self.world.send(worker, delivery, fate)

    @precondition(lambda self: len(self.world.updates) < 3)
    @rule(names=st.lists(NAMES, max_size=1))
    def another_update(self, names: list[str]) -> None:
        self.world.release(*names)

    @precondition(lambda self: len(self.world.updates) > 1)
    @rule(pick=PICK)
    def plan(self, pick: int) -> None:
        self.world.plan(one(self.world.updates, pick))

    @precondition(lambda self: not self.world.stopped)
    @rule(pick=PICK, name=NAMES)
    def stop(self, pick: int, name: str) -> None:
        self.world.stop(one(self.world.updates, pick), name)

    @precondition(lambda self: self.world.stopped)
    @rule(pick=PICK)
    def resume(self, pick: int) -> None:
        self.world.resume(*one(sorted(self.world.stopped), pick))

    @precondition(lambda self: self.world.workers)
    @rule(pick=PICK)
    def lease(self, pick: int) -> None:
        self.world.lease(one(self.world.batches(), pick))

    @precondition(lambda self: self.world.workers)
    @rule(pick=PICK, limit=st.integers(1, 3), lost=st.booleans())
    def claim(self, pick: int, limit: int, lost: bool) -> None:
        self.world.claim(one(self.world.workers, pick), limit=limit, lost=lost)

    @precondition(lambda self: any(self.world.unsent()))
    @rule(pick=PICK, fates=st.lists(FATES, min_size=1, max_size=3))
    def send(self, pick: int, fates: list[str]) -> None:
        waiting = list(self.world.unsent())
        for n, fate in enumerate(fates[: len(waiting)]):
            self.world.send(*waiting[(pick + n) % len(waiting)], fate)

    @precondition(lambda self: any(worker.known() for worker in self.world.workers))
    @rule(pick=PICK, lost=st.booleans())
    def report(self, pick: int, lost: bool) -> None:
        knowing = [worker for worker in self.world.workers if worker.known()]
        self.world.report(one(knowing, pick), lost=lost)

    @precondition(lambda self: self.world.workers)
    @rule(pick=PICK)
    def hand_back(self, pick: int) -> None:
        worker = one(self.world.workers, pick)
        if None not in worker.hands.values():
            self.world.hand_back(worker)

    @precondition(lambda self: self.world.workers)
    @rule(pick=PICK)
    def kill(self, pick: int) -> None:
        self.world.kill(one(self.world.workers, pick))

    @precondition(lambda self: any(worker.permit for worker in self.world.workers))
    @rule(pick=PICK, swept=st.booleans(), told=st.booleans())
    def time_passes(self, pick: int, swept: bool, told: bool) -> None:
        """A worker is frozen past its lease, which is buried or not; it may wake and tell."""
        worker = one([worker for worker in self.world.workers if worker.permit], pick)
        self.world.end_lease(worker.lease.batch_id)
        if swept:
            self.world.sweep()
            self.world.check()
        if told:
            self.world.report(worker, lost=False)

    @precondition(lambda self: self.world.workers or len(self.world.updates) > 1)
    @rule()
    def sweep(self) -> None:
        self.world.sweep()

    @precondition(lambda self: self.world.unknown())
    @rule(answers=ANSWERS, at_once=st.booleans())
    def ask(self, answers: list[str], at_once: bool) -> None:
        before = len(self.world.verdicts)
        self.world.ask(answers)
        if at_once and len(self.world.verdicts) > before:
            self.world.decide(self.world.verdicts[-1])

    @precondition(lambda self: self.world.verdicts)
    @rule(pick=PICK)
    def decide(self, pick: int) -> None:
        self.world.decide(one(self.world.verdicts, pick))

    @precondition(lambda self: self.world.taken)
    @rule(
        pick=PICK,
        status=st.sampled_from(["taken", "delivered", "delivered", "failed"]),
        repeat=st.booleans(),
    )
    def receipt(self, pick: int, status: str, repeat: bool) -> None:
        self.world.receipt(one(sorted(self.world.taken), pick), status, repeat=repeat)

    @invariant()
    def holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        self.seen.update(self.world.moves)
        self.world.come_to_rest()


@contextmanager
def emptied(ledger: Ledger) -> Iterator[None]:
    """What an example that failed leaves behind must not meet the next."""
    with ledger.read() as conn:
        conn.execute("TRUNCATE incident, batch, delivery, attempt, doubt, receipt_event CASCADE")
    yield


@pytest.fixture
def world(ledger: Ledger) -> World:
    """One update, planned, and nobody at work yet."""
    known = packs()
    people(house_on(ledger, known))
    made = World(ledger, known)
    made.release("police")
    made.plan(made.updates[0])
    made.check()
    return made


def one_try(world: World, fate: str) -> str:
    """A whole turn with one request; returns its delivery."""
    (batch,) = world.batches()
    world.lease(batch)
    (worker,) = world.workers
    world.claim(worker, limit=1, lost=False)
    world.check()
    (delivery,) = worker.hands
    world.send(worker, delivery, fate)
    world.hand_back(worker)
    world.check()
    return delivery


def test_a_finding_of_an_earlier_doubt_decides_nothing(world: World) -> None:
    """The shortest way of the model's `findings_fenced`: who asked about one try wakes up when
    another is in doubt, and would send a third."""
    first = one_try(world, "never_arrived")
    world.ask(["truth"])
    world.ask(["truth"])
    stale, fresh = world.verdicts
    world.decide(fresh)
    world.check()
    assert one_try(world, "answer_lost") == first
    world.ask(["truth"])
    world.decide(stale)
    world.check()
    assert world.rows[first].state == "unknown"
    world.come_to_rest()
    assert world.rows[first].state == "accepted"


def test_a_row_put_off_after_a_stop_whose_worker_dies_is_stopped(world: World) -> None:
    """The shortest way of the model's `leftovers_stopped`."""
    (batch,) = world.batches()
    world.lease(batch)
    (worker,) = world.workers
    world.claim(worker, limit=1, lost=False)
    world.check()
    (delivery,) = worker.hands
    world.send(worker, delivery, "later")
    world.stop(world.updates[0], "police")
    world.report(worker, lost=False)
    world.kill(worker)
    world.check()
    assert world.rows[delivery].state == "pending"
    world.end_lease(batch)
    world.sweep()
    world.check()
    assert world.rows[delivery].state == "stopped"


def test_an_outcome_of_an_older_epoch_moves_nothing(world: World) -> None:
    """The shortest way of the model's `outcomes_fenced`: told again by who was overtaken."""
    (batch,) = world.batches()
    world.lease(batch)
    (old,) = world.workers
    world.claim(old, limit=1, lost=False)
    world.check()
    (delivery,) = old.hands
    world.send(old, delivery, "later")
    world.report(old, lost=True)
    world.end_lease(batch)
    world.check()
    world.lease(batch)
    new = world.workers[-1]
    world.claim(new, limit=1, lost=False)
    world.check()
    assert list(new.hands) == [delivery]
    world.report(old, lost=False)
    world.check()
    assert world.rows[delivery].state == "sending"
    world.send(new, delivery, "taken")
    world.hand_back(new)
    world.check()
    assert world.rows[delivery].state == "accepted"


def test_who_has_lost_its_lease_claims_nothing(world: World) -> None:
    """Neither when the lease is over, nor when somebody else has the next."""
    (batch,) = world.batches()
    world.lease(batch)
    (old,) = world.workers
    world.end_lease(batch)
    world.claim(old, limit=1, lost=False)
    assert old.hands == {}
    world.lease(batch)
    assert len(world.workers) == 2
    world.claim(old, limit=1, lost=False)
    assert old.hands == {}
    world.check()


def test_what_a_lost_answer_claimed_is_handed_back_untried(world: World) -> None:
    (batch,) = world.batches()
    world.lease(batch)
    (worker,) = world.workers
    world.claim(worker, limit=1, lost=True)
    world.check()
    assert "sending" in {row.state for row in world.rows.values()}
    world.hand_back(worker)
    world.check()
    assert {(r.state, r.attempts) for r in world.rows.values() if r.state != "skipped"} == {
        ("pending", 0)
    }


@pytest.mark.timeout(110)
def test_any_order_of_acts_keeps_the_ledger(ledger: Ledger) -> None:
    known = packs()
    people(house_on(ledger, known))

    def make() -> World:
        with emptied(ledger):
            return World(ledger, known)

    class OnThisLedger(Machine):
        """The machine on this test's database."""

    OnThisLedger.make = staticmethod(make)
    OnThisLedger.seen = Counter()
    run_state_machine_as_test(
        OnThisLedger,
        settings=settings(
            max_examples=24,
            stateful_step_count=35,
            # Making a failure shorter takes minutes: whoever looks into one adds Phase.shrink.
            phases=[Phase.generate],
            derandomize=True,
            database=None,
            deadline=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
    # Chance must have led there before the end, or the run has proven nothing.
    assert set(OnThisLedger.seen) >= MUST_HAPPEN, OnThisLedger.seen

"""The protocol of lease, claim and recovery as a small world.

Workers, one batch, its rows, the provider, the sweep, those who reconcile, and a hand on
stop. Each move is one that the code makes in one step: a statement that commits, a request
that leaves, an answer that comes. Whoever can move may also not move for any time: that is
what a freeze is, so it needs no move of its own. docs/protocol.md names the code of each.

Time is counted in ticks of half a lease. `left` and `clock` go 2 (requests may start),
1 (the last stretch, as long as a request's timeout: none may start), 0 (over). The provider
has decided on a request, and lists what it took, before the second tick after it left; the
clock does not tick while it has not. A row in doubt is asked about after `SETTLE` ticks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

from tests.model.explorer import Move

FREE, OVER, LAST, FRESH = -1, 0, 1, 2
SETTLE = 2
NOTHING, YOUNG, OLD, LISTED = 0, 1, 2, 3
"""How long a request is on the wire, or how far a taken message is from being listed."""

HAND = ("", "claimed", "out", "yes", "later", "silence", "untried")
"""What a worker has of a row: nothing; claimed and not sent; a request under way; the
provider's yes; its "later"; no answer; given back unsent because the lease is nearly over."""
KNOWN = frozenset(("yes", "later", "silence", "untried"))
MOVABLE = frozenset(("sending", "unknown", "given_up"))
"""States that an outcome of the row's own epoch may still move."""
SETTLED = frozenset(("accepted", "given_up", "stopped"))


class Row(NamedTuple):
    """One delivery: what the ledger says, then what the provider knows.

    `ask_in` counts ticks until the provider may be asked. `doubt` says that a request has left
    of which neither an answer nor a finding is in the ledger. `findings` are answers of the
    provider in the hands of those who asked, with whether the row has changed since.
    """

    state: str = "pending"
    epoch: int = 0
    ask_in: int = 0
    doubt: bool = False
    findings: tuple[tuple[str, bool], ...] = ()
    wire: int = NOTHING
    taken: int = NOTHING
    fault: str = ""


class Worker(NamedTuple):
    """Epoch 0 is idle. `clock` is what remains of the lease by its own clock, `hands` what it has
    of each row. `unread` if the answer of its last statement has not been looked at."""

    epoch: int = 0
    clock: int = 0
    hands: tuple[str, ...] = ()
    unread: bool = False


class World(NamedTuple):
    """Everything at one moment."""

    epoch: int
    left: int
    released: bool
    rows: tuple[Row, ...]
    workers: tuple[Worker, ...]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How large the world is, and which of its rules hold; each that is False is a way to be
    wrong that must be found."""

    rows: int = 1
    workers: int = 2
    askers: int = 2
    stops: bool = True
    """Whether anybody stops and resumes."""
    renews: bool = True
    """Whether a lease is renewed without anything to record."""
    doubts_taken_over: bool = True
    """Rows of a lost lease become unknown; else pending."""
    clock_checked: bool = True
    """No request starts in the last stretch of a lease."""
    counted_from_question: bool = True
    """A worker counts its lease from when it asked; else from when it read the answer."""
    outcomes_fenced: bool = True
    """An outcome moves a row of its own epoch only."""
    settles_first: bool = True
    """The provider is asked only when it must know."""
    findings_fenced: bool = True
    """A finding moves the row only if it has not changed since the provider was asked."""
    leftovers_stopped: bool = True
    """The sweep stops what came back to pending after a stop and lost its worker."""

    # -- the world -----------------------------------------------------------------

    def start(self) -> World:
        idle = Worker(hands=("",) * self.rows)
        return World(0, FREE, True, (Row(),) * self.rows, (idle,) * self.workers)

    def moves(self, world: World) -> Iterator[Move[World]]:
        """All that may happen next, in a world named in one way only."""
        fenced = self.outcomes_fenced and self.findings_fenced
        for name, after, fair in self._moves(world):
            yield Move(name, canonical(after, fenced=fenced), fair)

    def _moves(self, world: World) -> Iterator[tuple[str, World, bool]]:
        for number, worker in enumerate(world.workers):
            yield from self._worker(world, number, worker)
        for number, row in enumerate(world.rows):
            yield from self._provider(world, number, row)
            yield from self._asker(world, number, row)
        yield from self._sweep(world)
        if self.stops:
            yield from self._desk(world)
        later = self._tick(world)
        if later is not None:
            yield "a tick", later, True

    def at_rest(self, world: World) -> bool:
        return all(
            row.state in SETTLED and (row.state != "stopped" or not world.released)
            for row in world.rows
        )

    def broken(self, world: World) -> str:
        for row in world.rows:
            if row.fault:
                return row.fault
            if row.state == "accepted" and not row.taken:
                return "the ledger says accepted, and the provider never took it"
            if row.state in ("pending", "stopped") and row.taken:
                return "the ledger says unsent, and the provider has it"
        for worker in world.workers:
            believes = self.counted_from_question and worker.epoch and worker.clock > OVER
            if believes and (worker.epoch != world.epoch or worker.clock > world.left):
                return "a worker believes in a lease that is no longer its own"
        return ""

    # -- workers -------------------------------------------------------------------

    def _worker(self, world: World, n: int, me: Worker) -> Iterator[tuple[str, World, bool]]:
        if not me.epoch:
            if (
                world.left <= OVER
                and world.released
                and any(row.state in ("pending", "sending") for row in world.rows)
            ):
                epoch = world.epoch + 1
                leased = self._abandoned(world)._replace(epoch=epoch, left=FRESH)
                mine = me._replace(epoch=epoch, clock=FRESH, unread=self._must_read)
                yield "lease", _with(leased, n, mine), True
            return
        idle = Worker(hands=("",) * self.rows)
        yield "kill", _with(world, n, idle), False
        if me.unread:
            yield "read the answer", _with(world, n, me._replace(clock=FRESH, unread=False)), True
            return
        for number, hand in enumerate(me.hands):
            if hand == "claimed":
                yield self._request(world, n, me, number)
            elif hand == "out":
                # The client's own timeout; the request may still be on the wire.
                yield "no answer in time", _with(world, n, _hand(me, number, "silence")), True
        yield from self._statements(world, n, me)
        if not any(me.hands):
            yield "hand back", _with(self._handed_back(world, me), n, idle), True

    def _request(self, world: World, n: int, me: Worker, number: int) -> tuple[str, World, bool]:
        """Look at the clock and start the request, or give the row back untried."""
        if self.clock_checked and me.clock < FRESH:
            return "too late to send", _with(world, n, _hand(me, number, "untried")), True
        row = world.rows[number]
        if row.doubt:
            sent = row._replace(fault="a second request, and nobody asked about the first")
        elif row.wire:
            sent = row._replace(fault="two requests on the wire")
        else:
            sent = row._replace(doubt=True, wire=YOUNG)
        return "send", _with(_row(world, number, sent), n, _hand(me, number, "out")), True

    def _statements(self, world: World, n: int, me: Worker) -> Iterator[tuple[str, World, bool]]:
        """Record what is known, claim a row with it or not; the commit's answer may get lost."""
        known = any(hand in KNOWN for hand in me.hands)
        recorded = self._recorded(world, me)
        ours = world.epoch == me.epoch
        empty = me._replace(hands=tuple("" if h in KNOWN else h for h in me.hands))
        told = empty._replace(clock=FRESH, unread=self._must_read)
        if known:
            moved = recorded.rows != world.rows
            after = recorded._replace(left=FRESH) if moved and ours else recorded
            yield "report", _with(after, n, told if moved and ours else empty), True
            yield "report, answer lost", after, False
        if ours and world.left > OVER:
            if self.renews and (world.left < FRESH or me.clock < FRESH):
                renewed = world._replace(left=FRESH)
                mine = me._replace(clock=FRESH, unread=self._must_read)
                yield "renew", _with(renewed, n, mine), True
            if world.released:
                for number, row in enumerate(world.rows):  # as they were before the statement
                    if row.state == "pending" and recorded.rows[number].state == "pending":
                        taken = _changed(recorded.rows[number], state="sending", epoch=me.epoch)
                        after = _row(recorded, number, taken)._replace(left=FRESH)
                        yield "claim", _with(after, n, _hand(told, number, "claimed")), True
                        yield "claim, answer lost", after, False

    def _recorded(self, world: World, me: Worker) -> World:
        rows = list(world.rows)
        for number, hand in enumerate(me.hands):
            row = rows[number]
            if hand not in KNOWN or (self.outcomes_fenced and row.epoch != me.epoch):
                continue
            in_doubt = row.state in ("unknown", "given_up")
            if row.state == "sending" or (in_doubt and hand == "yes"):
                rows[number] = _outcome(row, hand)
        return world._replace(rows=tuple(rows))

    def _handed_back(self, world: World, me: Worker) -> World:
        if world.epoch != me.epoch:
            return world
        rows = list(world.rows)
        for number, row in enumerate(rows):
            if row.state == "sending":  # claimed by a statement whose answer got lost
                row = _changed(row, state="pending")
            if row.state == "pending" and not world.released:
                row = _changed(row, state="stopped")
            rows[number] = row
        return world._replace(left=FREE, rows=tuple(rows))

    @property
    def _must_read(self) -> bool:
        return not self.counted_from_question

    def _abandoned(self, world: World) -> World:
        """What a dead lease leaves behind."""
        into = "unknown" if self.doubts_taken_over else "pending"
        return world._replace(
            rows=tuple(
                _changed(row, state=into, ask_in=SETTLE) if row.state == "sending" else row
                for row in world.rows
            )
        )

    # -- the provider --------------------------------------------------------------

    def _provider(self, world: World, n: int, row: Row) -> Iterator[tuple[str, World, bool]]:
        if row.taken in (YOUNG, OLD):
            yield "the provider lists it", _row(world, n, row._replace(taken=LISTED)), True
        if row.taken and row.state in ("unknown", "given_up"):
            yield "a receipt", _row(world, n, _changed(row, state="accepted")), False
        if not row.wire:
            return
        takes = row._replace(wire=NOTHING, taken=row.wire)
        if row.taken:
            takes = takes._replace(fault="the provider took it twice")
        gone = row._replace(wire=NOTHING)
        # An answer that gets lost is one that nobody waits for any more.
        for name, after, hand in (
            ("the provider takes it", takes, "yes"),
            ("the provider refuses for now", gone, "later"),
            ("the request is lost", gone, "silence"),
        ):
            yield name, _answered(_row(world, n, after), n, hand), True

    # -- those who ask the provider --------------------------------------------------

    def _asker(self, world: World, n: int, row: Row) -> Iterator[tuple[str, World, bool]]:
        due = row.ask_in == 0 or not self.settles_first
        if row.state == "unknown" and due and len(row.findings) < self.askers:
            truth = "found" if row.taken == LISTED else "not taken"
            for finding in (truth, "cannot tell"):
                findings = tuple(sorted((*row.findings, (finding, False))))
                yield f"ask: {finding}", _row(world, n, row._replace(findings=findings)), True
        for finding, stale in dict.fromkeys(row.findings):
            rest = list(row.findings)
            rest.remove((finding, stale))
            settled = row._replace(findings=tuple(rest))
            if row.state == "unknown" and not (stale and self.findings_fenced):
                settled = _found(settled, finding, released=world.released)
            yield f"settle: {finding}", _row(world, n, settled), True

    # -- the sweep, the desk, the clock ----------------------------------------------

    def _sweep(self, world: World) -> Iterator[tuple[str, World, bool]]:
        if world.left == OVER and any(row.state == "sending" for row in world.rows):
            buried = self._abandoned(world)
            yield "bury", buried._replace(epoch=world.epoch + 1, left=FREE), True
        leftover = not world.released and any(row.state == "pending" for row in world.rows)
        if self.leftovers_stopped and leftover and world.left <= OVER:
            yield "stop what came back", _all(world, "pending", "stopped"), True

    def _desk(self, world: World) -> Iterator[tuple[str, World, bool]]:
        if world.released:
            yield "stop", _all(world, "pending", "stopped")._replace(released=False), False
        else:
            yield "resume", _all(world, "stopped", "pending")._replace(released=True), False

    def _tick(self, world: World) -> World | None:
        if any(OLD in (row.wire, row.taken) for row in world.rows):
            return None
        later = world._replace(
            left=max(world.left - 1, min(world.left, OVER)),
            rows=tuple(
                row._replace(
                    ask_in=max(row.ask_in - 1, 0),
                    wire=OLD if row.wire else NOTHING,
                    taken=OLD if row.taken == YOUNG else row.taken,
                )
                for row in world.rows
            ),
            workers=tuple(w._replace(clock=max(w.clock - 1, OVER)) for w in world.workers),
        )
        return None if later == world else later


def _changed(row: Row, **what: object) -> Row:
    """A row that the ledger moves: findings of before are stale."""
    findings = tuple(sorted((finding, True) for finding, _ in row.findings))
    return row._replace(**{"ask_in": 0, **what, "findings": findings})  # type: ignore[arg-type]


def _outcome(row: Row, hand: str) -> Row:
    if hand == "yes":
        return _changed(row, state="accepted", doubt=False)
    if hand == "silence":
        return _changed(row, state="unknown", ask_in=SETTLE)
    return _changed(row, state="pending", doubt=row.doubt and hand == "untried")


def _found(row: Row, finding: str, *, released: bool) -> Row:
    if finding == "found":
        return _changed(row, state="accepted", doubt=False)
    if finding == "not taken":
        return _changed(row, state="pending" if released else "stopped", doubt=False)
    return _changed(row, state="given_up")


def _with(world: World, n: int, worker: Worker) -> World:
    workers = list(world.workers)
    workers[n] = worker
    return world._replace(workers=tuple(workers))


def _row(world: World, n: int, row: Row) -> World:
    rows = list(world.rows)
    rows[n] = row
    return world._replace(rows=tuple(rows))


def _all(world: World, was: str, now: str) -> World:
    return world._replace(
        rows=tuple(_changed(r, state=now) if r.state == was else r for r in world.rows)
    )


def _hand(worker: Worker, n: int, hand: str) -> Worker:
    hands = list(worker.hands)
    hands[n] = hand
    return worker._replace(hands=tuple(hands))


def _answered(world: World, n: int, hand: str) -> World:
    """Whoever waits for this request's answer gets it."""
    return world._replace(
        workers=tuple(_hand(w, n, hand) if w.hands[n] == "out" else w for w in world.workers)
    )


def canonical(world: World, *, fenced: bool = True) -> World:
    """The same world, named in one way only: what can make no difference any more is left out.

    Epochs are only compared, so only their order counts, and a row's own only while an
    outcome may still move it. Workers are alike, and rows are alike. `fenced` if what is of
    an older epoch, or found before the row changed, moves nothing.
    """
    if fenced:
        world = _forgotten(world)
    rows, workers = world.rows, world.workers
    held = {worker.epoch for worker in workers if worker.epoch}
    names = {epoch: rank for rank, epoch in enumerate(sorted(held | {world.epoch}), 1)}
    if any(row.epoch and names.get(row.epoch) != row.epoch for row in rows):
        rows = tuple(r._replace(epoch=names[r.epoch] if r.epoch in held else 0) for r in rows)
    if any(worker.epoch and names[worker.epoch] != worker.epoch for worker in workers):
        workers = tuple(w._replace(epoch=names[w.epoch]) if w.epoch else w for w in workers)
    named = (names[world.epoch], world.left, world.released)
    orders = sorted(permutations(range(len(rows))), key=lambda order: [rows[n] for n in order])
    least = [rows[n] for n in orders[0]]
    return min(
        World(*named, tuple(least), _turned(workers, order))
        for order in orders
        if [rows[n] for n in order] == least
    )


def _turned(workers: Sequence[Worker], order: Sequence[int]) -> tuple[Worker, ...]:
    return tuple(
        sorted(
            Worker(w.epoch, w.clock, tuple([w.hands[n] for n in order]), w.unread) for w in workers
        )
    )


def _forgotten(world: World) -> World:
    """Without stale findings, without outcomes that move nothing, and without the turns of
    workers that hold neither lease nor row."""
    rows = tuple(_row_forgotten(row) for row in world.rows)
    workers = []
    for worker in world.workers:
        epoch, hands = worker.epoch, worker.hands
        for number, hand in enumerate(hands):
            if hand in KNOWN and rows[number].epoch != epoch:
                worker = _hand(worker, number, "")
        if epoch and epoch != world.epoch and not any(worker.hands):
            worker = Worker(hands=worker.hands)
        workers.append(worker)
    return World(world.epoch, world.left, world.released, rows, tuple(workers))


def _row_forgotten(row: Row) -> Row:
    if row.state == "accepted" and row.taken and not row.wire and not row.fault:
        return TOLD
    epoch = row.epoch if row.state in MOVABLE else 0
    findings = row.findings
    if findings:
        findings = tuple(finding for finding in findings if not finding[1])
    if epoch == row.epoch and findings == row.findings:
        return row
    return row._replace(epoch=epoch, findings=findings)


TOLD = Row(state="accepted", taken=LISTED)

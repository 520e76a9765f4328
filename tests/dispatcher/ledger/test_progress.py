"""Progress is of one moment, whatever moves while it is read."""

import threading

from dispatcher.ledger import progress
from dispatcher.ledger.connection import Connection, Ledger
from dispatcher.ledger.progress import Balances
from dispatcher.security.sealing import Sealer
from tests.dispatcher.test_engine import made


class Meanwhile(Balances):
    """While the balance is checked, another planner counts five people more."""

    def __init__(self, ledger: Ledger, update: str) -> None:
        super().__init__()
        self._ledger = ledger
        self._update = update
        self.seen: list[int] = []

    def check(self, conn: Connection, update_id: str, counts: tuple[int, ...]) -> bool:
        other = threading.Thread(target=self._plan)
        other.start()
        other.join()
        row = conn.execute("SELECT sum(rows) FROM planned").fetchone()
        assert row is not None
        self.seen.append(int(row[0]))
        return super().check(conn, update_id, counts)

    def _plan(self) -> None:
        with self._ledger.read() as conn:
            conn.execute("UPDATE planned SET rows = 10 WHERE update_id = %s", (self._update,))


def test_a_plan_that_comes_between_two_questions_is_seen_whole_or_not_at_all(
    ledger: Ledger, sealer: Sealer
) -> None:
    desk = made(ledger, sealer, people=5)
    desk.sql("UPDATE delivery SET state = 'skipped'")
    desk.sql("UPDATE batch SET pending = 0, skipped = 5, open = false")
    balances = Meanwhile(ledger, desk.update)
    with ledger.read() as conn:
        before = progress.read(conn, desk.update, balances)
    assert balances.seen == [5]
    assert (before.planned, before.complete) == (5, True)
    with ledger.read() as conn:
        after = progress.read(conn, desk.update, Balances())
    assert (after.planned, after.complete) == (10, False)

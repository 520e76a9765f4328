"""Failover: while a breaker is open, another account of the same kind sends, and then no more.

An account is an adapter of the registry, or a second one of it under a name of its own
(`twilio_sms.backup`). Failover stays within one channel and one kind of contact point. Done
by the sweep, so that batches move once a second at most; what is on the wire never moves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog

from dispatcher.ledger import failover
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.failover import Way

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """A configured adapter. `sender` is its own, None if it sends from any that it is told;
    `rate` is that sender's, in units a second."""

    adapter: str
    channel: str
    kind: str
    sender: str | None = None
    rate: float = 1.0


def ways(accounts: Iterable[Account]) -> list[Way]:
    """Who may send for whom, in the order in which the accounts are given."""
    known = list(accounts)
    return [
        Way(one.adapter, other.adapter, other.sender)
        for one in known
        for other in known
        if other.adapter != one.adapter and (other.channel, other.kind) == (one.channel, one.kind)
    ]


class Failover:
    """Moves batches between accounts as breakers open and close."""

    def __init__(self, ledger: Ledger, accounts: Sequence[Account]) -> None:
        self._ledger = ledger
        self._ways = ways(accounts)
        self._adapters = [account.adapter for account in accounts]

    def run(self) -> int:
        """Move what is to move now; returns how many batches moved."""
        if not self._ways:
            return 0
        with self._ledger.read() as conn:
            if not failover.wanted(conn):
                return 0
        with self._ledger.transaction() as work:
            away = failover.move_away(work.conn, self._ways)
            home = failover.move_home(work.conn, self._adapters)
        if away or home:
            log.warning("failover", away=away, home=home)
        return away + home

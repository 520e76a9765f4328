"""What a window's outcomes mean beyond their own rows.

A broken adapter opens its breaker, an address that can never receive is suppressed, and
content that three people's provider refused waits for a person.
"""

from collections.abc import Mapping, Sequence

import structlog

from channels.contract import (
    Accepted,
    AdapterBroken,
    MessageRefused,
    Outcome,
    Reason,
    RecipientRefused,
)
from dispatcher.delivery.patience import until_back
from dispatcher.ledger import breakers, refusals, suppressions
from dispatcher.ledger.batches import Claim, Lease
from dispatcher.ledger.connection import Ledger

log = structlog.get_logger(__name__)

PROBE_AFTER = 60.0
"""Seconds until a broken adapter is tried again."""
BUGS_TO_PAUSE = 3
REFUSALS_TO_PAUSE = 3


class Notices:
    """Acts on outcomes, window by window."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._bugs: dict[str, int] = {}

    async def saw(
        self,
        held: Lease,
        claims: Sequence[Claim],
        outcomes: Mapping[str, Outcome],
        *,
        bug: bool,
    ) -> None:
        """One window's outcomes by delivery; `bug` if an exception escaped the adapter."""
        broken = next((o for o in outcomes.values() if isinstance(o, AdapterBroken)), None)
        if broken is not None:
            log.error("adapter.broken", adapter=held.adapter, reason=broken.reason.value)
            await until_back(self._open_breaker, held, broken.reason.value, broken.detail[:200])
        if held.probing and any(isinstance(outcome, Accepted) for outcome in outcomes.values()):
            log.info("breaker.closed", adapter=held.adapter)
            await until_back(self._close_breaker, held)
        self._bugs[held.adapter] = self._bugs.get(held.adapter, 0) + 1 if bug else 0
        if self._bugs[held.adapter] >= BUGS_TO_PAUSE:
            await until_back(
                self._open_breaker, held, Reason.BUG.value, "the adapter failed three times"
            )
        gone = {o.key: o.reason.value for o in outcomes.values() if isinstance(o, RecipientRefused)}
        for reason in set(gone.values()):
            contacts = [(c.kind, c.lookup) for c in claims if gone.get(c.id) == reason]
            await until_back(self._suppress, contacts, reason, held.adapter)
        if any(isinstance(outcome, MessageRefused) for outcome in outcomes.values()):
            await until_back(self._pause_if_refused, held, outcomes)

    # -- ledger calls, each run in a thread ------------------------------------------

    def _open_breaker(self, held: Lease, reason: str, detail: str) -> None:
        with self._ledger.read() as conn:
            breakers.open_breaker(
                conn,
                adapter=held.adapter,
                sender=held.sender,
                reason=reason,
                detail=detail,
                seconds=PROBE_AFTER,
            )

    def _close_breaker(self, held: Lease) -> bool:
        with self._ledger.read() as conn:
            return breakers.close_breaker(conn, adapter=held.adapter, sender=held.sender)

    def _suppress(self, contacts: Sequence[tuple[str, bytes]], reason: str, source: str) -> None:
        with self._ledger.transaction() as work:
            suppressions.suppress(work.conn, contacts, reason=reason, source=source)

    def _pause_if_refused(self, held: Lease, outcomes: Mapping[str, Outcome]) -> None:
        """Three distinct people refused: the rest of this message waits for a person."""
        now = sum(isinstance(outcome, MessageRefused) for outcome in outcomes.values())
        message = int(held.message.id)
        with self._ledger.transaction() as work:
            if now + refusals.refused_recipients(work.conn, message) >= REFUSALS_TO_PAUSE:
                refusals.pause_message(work.conn, message, paused=True)
                log.error("message.paused", message=message, update=held.update_id)

"""What a window's outcomes mean beyond their own rows.

A broken adapter, or one that mostly fails, opens its breaker and a probe closes it; an address that can never receive is suppressed, and
content that three people's provider refused waits for a person.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import structlog

from channels.contract import (
    AdapterBroken,
    MessageRefused,
    Outcome,
    Reason,
    RecipientRefused,
)
from dispatcher.delivery.breaker import BreakerPolicy, Rate, Verdict, failed, probed
from dispatcher.delivery.patience import until_back
from dispatcher.ledger import breakers, refusals, suppressions
from dispatcher.ledger.batches import Claim, Lease
from dispatcher.ledger.connection import Ledger

log = structlog.get_logger(__name__)

PROBE_AFTER = 60.0
"""Seconds until a batch whose adapter is not there is looked at again."""
BROKEN_AGAIN = 1.0
"""Seconds until a row that a broken account refused may go another way; the breaker holds
back what can go by that account only."""
BUGS_TO_PAUSE = 3
REFUSALS_TO_PAUSE = 3


class Notices:
    """Acts on outcomes, window by window."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        policy: BreakerPolicy | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._policy = policy or BreakerPolicy()
        self._monotonic = monotonic
        self._bugs: dict[str, int] = {}
        self._rates: dict[tuple[str, str], Rate] = {}

    async def saw(
        self,
        held: Lease,
        claims: Sequence[Claim],
        outcomes: Mapping[str, Outcome],
        *,
        bug: bool,
    ) -> None:
        """One window's outcomes by delivery; `bug` if an exception escaped the adapter."""
        await self._judge(held, list(outcomes.values()), bug=bug)
        gone = {o.key: o.reason.value for o in outcomes.values() if isinstance(o, RecipientRefused)}
        for reason in set(gone.values()):
            contacts = [(c.kind, c.lookup) for c in claims if gone.get(c.id) == reason]
            await until_back(self._suppress, contacts, reason, held.adapter)
        if any(isinstance(outcome, MessageRefused) for outcome in outcomes.values()):
            await until_back(self._pause_if_refused, held, outcomes)

    async def _judge(self, held: Lease, outcomes: Sequence[Outcome], *, bug: bool) -> None:
        """Open, close or leave the breaker of this adapter and sender."""
        policy = self._policy
        rate = self._rates.setdefault((held.adapter, held.sender), Rate(policy))
        self._bugs[held.adapter] = self._bugs.get(held.adapter, 0) + 1 if bug else 0
        broken = next((o for o in outcomes if isinstance(o, AdapterBroken)), None)
        if broken is not None:
            await self._open(held, broken.reason, broken.detail, policy.broken)
        elif self._bugs[held.adapter] >= BUGS_TO_PAUSE:
            words = "the adapter failed three times"
            await self._open(held, Reason.BUG, words, policy.broken)
        elif held.probing:
            await self._probed(held, Verdict.FAILS if bug else probed(outcomes), outcomes)
        elif rate.saw(outcomes, now=self._monotonic()):
            words = f"half or more failed in {policy.window:.0f} s"
            await self._open(held, _commonest(outcomes), words, policy.first)

    async def _probed(self, held: Lease, verdict: Verdict, outcomes: Sequence[Outcome]) -> None:
        if verdict is Verdict.WORKS:
            self._rates[held.adapter, held.sender].forget()
            await until_back(self._close_breaker, held)
        elif verdict is Verdict.FAILS:
            await self._open(held, _commonest(outcomes), "the probe failed", self._policy.first)
        else:
            await until_back(self._probe_again, held)

    async def _open(self, held: Lease, reason: Reason, detail: str, seconds: float) -> None:
        longest = max(seconds, self._policy.longest)
        await until_back(self._open_breaker, held, reason.value, detail, seconds, longest)

    # -- ledger calls, each run in a thread ------------------------------------------

    def _open_breaker(
        self, held: Lease, reason: str, detail: str, seconds: float, longest: float
    ) -> None:
        with self._ledger.transaction() as work:
            fresh = breakers.open_breaker(
                work.conn,
                adapter=held.adapter,
                sender=held.sender,
                reason=reason,
                detail=detail[:200],
                seconds=seconds,
                longest=longest,
                probed=held.probing,
            )
        told = log.error if fresh else log.info
        told("breaker.opened", adapter=held.adapter, reason=reason, probed=held.probing)

    def _close_breaker(self, held: Lease) -> None:
        with self._ledger.transaction() as work:
            closed = breakers.close_breaker(work.conn, adapter=held.adapter, sender=held.sender)
        if closed:
            log.info("breaker.closed", adapter=held.adapter)

    def _probe_again(self, held: Lease) -> None:
        with self._ledger.transaction() as work:
            breakers.probe_again(
                work.conn, adapter=held.adapter, sender=held.sender, seconds=self._policy.first
            )

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


def _commonest(outcomes: Sequence[Outcome]) -> Reason:
    """Why most of those that failed did."""
    reasons = Counter(outcome.reason for outcome in outcomes if failed(outcome))
    return reasons.most_common(1)[0][0] if reasons else Reason.BUG

"""Asking providers what became of rows in doubt, before anything is sent again.

The rules: nothing is asked before the request must have ended and the provider has listed it
(`limits.settle_after` seconds in doubt, which begins when the worker recorded its own end, or
when its lease was over); `find` runs outside any transaction; what it says is applied by
compare-and-set. Found is *accepted*; not taken is *pending* again; who cannot tell is asked
again, for `patience` seconds. Then the row stays *unknown*: a social post is never repeated,
others only where their audience says `resend_unknown`. Where a provider shows a key once,
however often it is sent, there is nothing to ask: it is sent again.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import structlog

from channels.contract import Adapter, CannotTell, Channel, Finding, Found, NotTaken, Reconciler
from dispatcher.delivery.envelopes import Envelopes
from dispatcher.delivery.errors import where
from dispatcher.delivery.patience import until_back
from dispatcher.ledger import doubts
from dispatcher.ledger.batches import Lease
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.doubts import Act, Doubt, Known, Verdict
from dispatcher.security.sealing import Sealer

log = structlog.get_logger(__name__)

MOST = 200
"""Rows asked about in one run: the next sweep names the rest."""
HOLD = 60.0
"""Seconds for which a run has its rows to itself."""
FIND_SECONDS = 25.0
"""The longest that one `find` may take; nothing is decided of what it did not answer."""
FIRST_WAIT = 5.0
LONGEST_WAIT = 600.0
PATIENCE = 3_600.0
MARGIN = 1.0
"""Seconds added to a provider's own: two processes' clocks and the way of a packet."""


def settle_after(adapters: Mapping[str, Adapter]) -> dict[str, float]:
    """By adapter, the seconds in doubt before it may be asked."""
    return {
        name: 0.0 if adapter.limits.repeatable else adapter.limits.settle_after + MARGIN
        for name, adapter in adapters.items()
    }


class Reconciling:
    """Settles rows in doubt. `resend_unknown` says of an audience whether its people would
    rather be told twice than not at all."""

    def __init__(
        self,
        ledger: Ledger,
        sealer: Sealer,
        *,
        adapters: Mapping[str, Adapter],
        drill_adapters: Mapping[str, Adapter],
        resend_unknown: Callable[[str], bool],
        patience: float = PATIENCE,
    ) -> None:
        self._ledger = ledger
        self._envelopes = Envelopes(ledger, sealer)
        self._adapters = adapters
        self._drill_adapters = drill_adapters
        self._resend_unknown = resend_unknown
        self._patience = patience

    async def run(self, adapter: str) -> int:
        """Ask one adapter about its rows that are due; returns how many are in doubt no more."""
        taken = await until_back(self._take, adapter)
        if not taken:
            return 0
        known = await until_back(self._known, taken)
        findings: dict[str, Finding | None] = {}
        end = asyncio.get_running_loop().time() + HOLD - FIND_SECONDS
        for group in _groups(taken):
            if asyncio.get_running_loop().time() < end:
                findings |= await self._ask(group, known)
        # What there was no time to ask about is taken again when the hold is over.
        verdicts = [
            self._verdict(doubt, findings[doubt.claim.id])
            for doubt in taken
            if doubt.claim.id in findings
        ]
        moved = await until_back(self._decide, verdicts)
        log.info("reconciled", adapter=adapter, **{act.value: n for act, n in moved.items()})
        return sum(many for act, many in moved.items() if act is not Act.AGAIN)

    def _adapter(self, doubt: Doubt) -> Adapter | None:
        return (self._drill_adapters if doubt.drill else self._adapters).get(doubt.adapter)

    async def _ask(
        self, group: Sequence[Doubt], known: Mapping[int, Known]
    ) -> dict[str, Finding | None]:
        """A finding by delivery; None where nothing could be asked that would tell."""
        adapter = self._adapter(group[0])
        if adapter is None or not isinstance(adapter, Reconciler):
            return {doubt.claim.id: None for doubt in group}
        found: dict[str, Finding | None] = {doubt.claim.id: CannotTell() for doubt in group}
        nothing = Known(frozenset(), busy=False)
        asked = {d.claim.id: d for d in group if not known.get(d.contact_point_id, nothing).busy}
        if not asked:
            return found
        opened, _ = await self._envelopes.open(
            _as_lease(group[0]), [doubt.claim for doubt in asked.values()]
        )
        envelopes = [
            replace(
                envelope,
                tried_at=asked[envelope.key].claimed_at,
                known_refs=known.get(asked[envelope.key].contact_point_id, nothing).refs,
            )
            for envelope in opened
        ]
        try:
            async with asyncio.timeout(FIND_SECONDS):
                answers = await adapter.find(group[0].message, envelopes)
        # Whatever goes wrong in an adapter is no answer, and no answer moves no row.
        except Exception as error:
            log.error(  # noqa: TRY400 - its own words may name an address
                "reconciling.failed", adapter=group[0].adapter, errors=where(error)
            )
            return found
        return found | {key: answers[key] for key in found if key in answers}

    def _verdict(self, doubt: Doubt, finding: Finding | None) -> Verdict:
        adapter = self._adapter(doubt)
        if adapter is not None and adapter.limits.repeatable:
            return Verdict(doubt, Act.RESEND, reason="repeatable")
        if isinstance(finding, Found):
            return Verdict(doubt, Act.FOUND, ref=finding.ref)
        if isinstance(finding, NotTaken):
            return Verdict(doubt, Act.RESEND, reason="not_taken")
        resend = doubt.message.channel != Channel.SOCIAL and self._resend_unknown(doubt.audience)
        # Where nobody can be asked, waiting is for a receipt, and only if a resend hangs on it.
        wait = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(doubt.asked - 1, 20))
        if (finding is not None or resend) and doubt.age + wait <= self._patience:
            return Verdict(doubt, Act.AGAIN, delay=wait)
        if resend:
            return Verdict(doubt, Act.RESEND, reason="resent_in_doubt")
        return Verdict(doubt, Act.KEEP)

    # -- ledger calls, each run in a thread ------------------------------------------

    def _take(self, adapter: str) -> list[Doubt]:
        settle = settle_after({**self._drill_adapters, **self._adapters}).get(adapter, 0.0)
        with self._ledger.transaction() as work:
            return doubts.take(work.conn, adapter, settle=settle, hold=HOLD, limit=MOST)

    def _known(self, taken: Sequence[Doubt]) -> dict[int, Known]:
        with self._ledger.read() as conn:
            return doubts.known(conn, taken)

    def _decide(self, verdicts: Sequence[Verdict]) -> dict[Act, int]:
        with self._ledger.transaction() as work:
            return doubts.decide(work.conn, verdicts)


def _groups(taken: Sequence[Doubt]) -> Iterator[list[Doubt]]:
    """Doubts that can be asked about at once: one message, one sender, one installation."""
    groups: dict[tuple[str, str, str, bool], list[Doubt]] = {}
    for doubt in taken:
        at = (doubt.update_id, doubt.message.id, doubt.sender, doubt.drill)
        groups.setdefault(at, []).append(doubt)
    yield from groups.values()


def _as_lease(doubt: Doubt) -> Lease:
    """What opening envelopes wants to know of a batch; nothing is leased."""
    return Lease(
        batch_id=doubt.batch_id,
        update_id=doubt.update_id,
        epoch=0,
        lane="",
        adapter=doubt.adapter,
        sender=doubt.sender,
        drill=doubt.drill,
        units=1,
        message=doubt.message,
        pending=0,
    )

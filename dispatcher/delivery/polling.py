"""Asking providers about accepted messages whose end they have not told.

Callbacks get lost. What is answered goes the way of any receipt. A run is bounded, in
questions and in time, since the worker that asks sends nothing meanwhile.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import structlog

from channels.contract import Adapter, Receipt, StatusPoller
from dispatcher.delivery.errors import where
from dispatcher.delivery.intake import Intake
from dispatcher.delivery.patience import until_back
from dispatcher.ledger import polls
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.polls import Question

log = structlog.get_logger(__name__)

MOST = 1_000
"""Questions of one run."""
TOGETHER = 100
"""Questions handed to an adapter at once."""
PATIENCE = 15.0
"""Seconds that these may take."""


class Polling:
    """Asks about what was accepted `after` seconds ago. `name` names the next run, if this one
    left something."""

    def __init__(
        self,
        ledger: Ledger,
        intake: Intake,
        *,
        adapters: Mapping[str, Adapter],
        after: float,
        name: Callable[[], object],
        patience: float = PATIENCE,
    ) -> None:
        self._ledger = ledger
        self._intake = intake
        self._pollers = {n: a for n, a in adapters.items() if isinstance(a, StatusPoller)}
        self._after = after
        self._name = name
        self._patience = patience

    async def run(self) -> int:
        """One run; returns how many questions were answered."""
        found = await until_back(self._questions)
        answered = 0
        for name in sorted({question.adapter for question in found}):
            answered += await self._ask(name, [q for q in found if q.adapter == name])
        if len(found) == MOST and answered:
            self._name()
        if found:
            log.info("poll", asked=len(found), answered=answered)
        return answered

    async def _ask(self, name: str, found: Sequence[Question]) -> int:
        answered = 0
        for first in range(0, len(found), TOGETHER):
            part = {question.ref: question for question in found[first : first + TOGETHER]}
            try:
                async with asyncio.timeout(self._patience):
                    answers = await self._pollers[name].poll(list(part))
            except TimeoutError:
                log.warning("poll.slow", adapter=name)
                break
            # Whatever escapes an adapter costs an answer, and not the worker.
            except Exception as error:
                log.error("poll.failed", adapter=name, errors=where(error))  # noqa: TRY400
                break
            told = {ref: receipt for ref, receipt in answers.items() if ref in part}
            await until_back(self._keep, name, part, told)
            answered += len(told)
            if not told:
                break
        return answered

    # -- ledger calls, each run in a thread ------------------------------------------

    def _questions(self) -> list[Question]:
        with self._ledger.transaction() as work:
            return polls.questions(work.conn, list(self._pollers), after=self._after, limit=MOST)

    def _keep(self, name: str, part: Mapping[str, Question], told: Mapping[str, Receipt]) -> None:
        keyed = [replace(r, key=part[ref].delivery_id, ref=ref) for ref, r in told.items()]
        self._intake.polled(name, keyed)
        with self._ledger.transaction() as work:
            polls.asked(work.conn, [part[ref] for ref in told])

"""Asking the ledger from the event loop, again until it answers."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import structlog

from dispatcher.ledger.connection import LedgerAway, LedgerFull

log = structlog.get_logger(__name__)
T = TypeVar("T")

DATABASE_RETRY = 0.5
"""Seconds between two tries while the database is away."""


async def until_back(call: Callable[..., T], *args: object) -> T:
    """Run one ledger call off the loop, again until the database is back."""
    while True:
        try:
            return await asyncio.to_thread(call, *args)
        except LedgerAway as away:
            alarm = log.error if isinstance(away, LedgerFull) else log.warning
            alarm("ledger.full" if isinstance(away, LedgerFull) else "ledger.away")
            await asyncio.sleep(DATABASE_RETRY)

"""Claimed rows become envelopes: the one place where a sealed contact is opened."""

import asyncio
from collections.abc import Mapping, Sequence

from channels.contract import Channel, Envelope
from dispatcher.delivery.patience import until_back
from dispatcher.ledger import batches
from dispatcher.ledger.batches import Claim, Lease, Record
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.counting import State
from dispatcher.security.sealing import SealBroken, Sealer

AT_ONCE = 200
"""Contacts opened before the loop's other work has a turn: moments of others pass meanwhile."""


class Envelopes:
    """Opens what was claimed, for the adapter and nobody else."""

    def __init__(self, ledger: Ledger, sealer: Sealer) -> None:
        self._ledger = ledger
        self._sealer = sealer

    async def open(
        self, held: Lease, claims: Sequence[Claim]
    ) -> tuple[list[Envelope], list[Record]]:
        """Envelopes in the claims' order, and records of the rows that cannot be sent."""
        envelopes: list[Envelope] = []
        records: list[Record] = []
        threads: Mapping[bytes, str] = {}
        if held.message.channel == Channel.SOCIAL:
            threads = await until_back(self._threads, held, [claim.lookup for claim in claims])
        for number, claim in enumerate(claims, 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            if claim.suppressed:
                records.append(
                    Record(claim.id, State.SKIPPED, "skipped", "suppressed", tried=False)
                )
                continue
            try:
                address = self._sealer.open(claim.sealed, bound_to=claim.lookup)
                slots = {"name": self._name(claim)} if "name" in held.message.slots else {}
            except SealBroken:
                records.append(Record(claim.id, State.FAILED, "failed", "seal_broken", tried=False))
                continue
            envelopes.append(
                Envelope(
                    key=claim.id,
                    address=address,
                    slots=slots,
                    reply_to=threads.get(claim.lookup),
                    attempt=claim.attempts,
                )
            )
        return envelopes, records

    def _name(self, claim: Claim) -> str:
        if claim.name is None or claim.ref is None:
            return ""
        return self._sealer.open(claim.name, bound_to=self._sealer.lookup("recipient", claim.ref))

    def _threads(self, held: Lease, lookups: Sequence[bytes]) -> Mapping[bytes, str]:
        with self._ledger.read() as conn:
            return batches.thread_refs(conn, held, lookups)

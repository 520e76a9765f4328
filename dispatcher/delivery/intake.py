"""Providers' requests into the ledger: believed ones, many in one transaction.

Owns how a request is kept (as it came, several sealed together) and what an address in a
consent is called here. What the events mean is worked off later; a wish to hear nothing
more counts from this very transaction on.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import orjson
import structlog

from channels.contract import Consent, ContactKind, Reading, Receipt, ReceiptRequest
from dispatcher.contacts import ContactError, normalise
from dispatcher.ledger import receipts
from dispatcher.ledger.connection import Connection, Ledger
from dispatcher.ledger.receipts import Event, Wish
from dispatcher.security.sealing import Sealer

log = structlog.get_logger(__name__)

MAX_EVENT_CHARS = 200
"""A longer name of an event is kept as its hash: an index entry has bounds."""
MAX_REF_CHARS = 500
MAX_DETAIL_CHARS = 200
NAME_AGAIN = 1.0
"""Seconds between two times that work is named for what was kept."""


@dataclass(frozen=True, slots=True)
class Told:
    """A request that its adapter believed, and what it said."""

    adapter: str
    request: ReceiptRequest = field(repr=False)
    reading: Reading = field(repr=False)


class Intake:
    """Writes what providers told. `name` says that there are events to work off."""

    def __init__(
        self,
        ledger: Ledger,
        sealer: Sealer,
        *,
        name: Callable[[], object],
        monotonic: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._sealer = sealer
        self._name = name
        self._monotonic = monotonic
        self._named: float | None = None

    def write(self, told: Sequence[Told]) -> None:
        """Keep requests with all they say, all or none. Raises `LedgerAway`, `LedgerRefused`."""
        by_adapter: dict[str, list[Told]] = {}
        for each in told:
            by_adapter.setdefault(each.adapter, []).append(each)
        wishes = [
            (each.adapter, wish)
            for each in told
            if each.reading.consents
            for wish in self._wishes(each.reading)
        ]
        if len(by_adapter) == 1 and not wishes:
            # Nearly always: one statement, which is its own transaction.
            with self._ledger.read() as conn:
                fresh = self._keep(conn, told[0].adapter, told)
        else:
            fresh = 0
            with self._ledger.transaction() as work:
                for adapter in sorted(by_adapter):
                    fresh += self._keep(work.conn, adapter, by_adapter[adapter])
                # In one order of addresses, whoever else writes at the same time.
                for adapter, wish in sorted(wishes, key=lambda w: (w[1].kind, w[1].lookup)):
                    receipts.consent(work.conn, adapter, wish)
        if fresh:
            self._tell()

    def _keep(self, conn: Connection, adapter: str, told: Sequence[Told]) -> int:
        return receipts.keep(
            conn,
            adapter,
            _events(receipt for each in told for receipt in each.reading.receipts),
            sealed=_sealed(self._sealer, adapter, told),
            requests=len(told),
        )

    def polled(self, adapter: str, found: Sequence[Receipt]) -> None:
        """Keep what a provider answered when it was asked. Raises `LedgerAway`."""
        with self._ledger.transaction() as work:
            fresh = receipts.keep(work.conn, adapter, _events(found), sealed=None, requests=0)
        if fresh:
            self._tell()

    def _tell(self) -> None:
        now = self._monotonic()
        if self._named is None or now - self._named >= NAME_AGAIN:
            self._named = now
            self._name()

    def _wishes(self, reading: Reading) -> Iterable[Wish]:
        keys = {r.event: _delivery(r.key) for r in reading.receipts} if reading.consents else {}
        for consent in reading.consents:
            try:
                contact = normalise(ContactKind(consent.kind), consent.address)
            except (ContactError, ValueError):
                log.warning("consent.unusable", kind=consent.kind, wanted=consent.wanted)
                continue
            yield Wish(
                event=_name(consent.event),
                kind=contact.kind.value,
                lookup=self._sealer.lookup(contact.kind, contact.address),
                hint=contact.hint,
                wanted=consent.wanted,
                reason=consent.reason.value,
                at=_moment(consent),
                delivery_id=keys.get(consent.event),
            )


def _events(found: Iterable[Receipt]) -> list[Event]:
    return [
        Event(
            event=_name(receipt.event),
            delivery_id=_delivery(receipt.key),
            ref=_plain(receipt.ref, MAX_REF_CHARS),
            status=receipt.status.value,
            reason=receipt.reason.value,
            detail=_plain(receipt.detail, MAX_DETAIL_CHARS),
            at=_moment(receipt),
        )
        for receipt in found
    ]


def _delivery(key: str) -> str | None:
    try:
        return str(UUID(key)) if len(key) == 36 else None
    except ValueError:
        return None


def _name(event: str) -> str:
    if len(event) <= MAX_EVENT_CHARS and event.isascii() and event.isprintable():
        return event
    return hashlib.sha256(event.encode("utf-8", "replace")).hexdigest()


def _plain(text: str, most: int) -> str:
    """What any text column takes."""
    if len(text) <= most and text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text[:most])


def _moment(told: Receipt | Consent) -> datetime | None:
    # A time without its zone proves no order.
    return told.at if told.at is not None and told.at.tzinfo is not None else None


def _bound(adapter: str) -> bytes:
    return f"receipt:{adapter}".encode()


def _sealed(sealer: Sealer, adapter: str, told: Sequence[Told]) -> bytes:
    requests = [
        [
            each.request.method,
            each.request.public_url,
            dict(each.request.headers),
            each.request.body.decode("latin-1"),
        ]
        for each in told
    ]
    return sealer.seal_bytes(zlib.compress(orjson.dumps(requests), 1), bound_to=_bound(adapter))


def as_it_came(sealer: Sealer, adapter: str, sealed: bytes) -> list[ReceiptRequest]:
    """The requests that were sealed together, to look at or to read again.

    Raises `SealBroken`.
    """
    requests = orjson.loads(zlib.decompress(sealer.open_bytes(sealed, bound_to=_bound(adapter))))
    return [
        ReceiptRequest(method, public_url, headers, body.encode("latin-1"))
        for method, public_url, headers, body in requests
    ]

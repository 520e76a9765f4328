"""Progress of an update as a stream: each change once, in an order of its own ids.

An event's id is a digest of the numbers themselves, so that a watcher may resume at any
process of the API. Owns no numbers: they are `standing`'s.
"""

import hashlib
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from dispatcher.acts import NotFound
from dispatcher.http import standing
from dispatcher.http.streams import POLL_SECONDS, Feed, event
from dispatcher.wiring import Services


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An update's progress at a moment; equal if nothing that is shown differs."""

    id: str
    body: bytes
    complete: bool


class ProgressFeed:
    """Progress for any number of watchers, read once a second for all of them."""

    def __init__(self, services: Services, *, interval: float = POLL_SECONDS) -> None:
        self._services = services
        self.feed: Feed[str, Snapshot] = Feed(self._read, interval=interval)

    def now(self, update_id: str) -> Snapshot:
        """The present state. Blocks. Raises `NotFound`, `LedgerAway`."""
        with self._services.ledger.read() as conn:
            shown = standing.read(self._services, conn, update_id)
        body = shown.model_dump_json().encode()
        return Snapshot(hashlib.sha256(body).hexdigest()[:24], body, shown.complete)

    def _read(self, known: Mapping[str, Snapshot]) -> Mapping[str, Snapshot]:
        found: dict[str, Snapshot] = {}
        for update_id in known:
            try:
                found[update_id] = self.now(update_id)
            except NotFound:
                continue
        return found

    async def follow(
        self, update_id: str, first: Snapshot, *, last_event_id: str | None
    ) -> AsyncGenerator[bytes, None]:
        """Events from `first` on, without the one that was seen last; ends with `complete`."""
        if first.id != last_event_id:
            yield event("progress", first.body, id=first.id)
        if first.complete:
            yield event("complete", first.body, id=first.id)
            return
        async with aclosing(self.feed.watch(update_id, first)) as states:
            async for state in states:
                yield event("progress", state.body, id=state.id)
                if state.complete:
                    yield event("complete", state.body, id=state.id)
                    return

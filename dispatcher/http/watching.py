"""Who may look at readiness and figures, also while the database that knows keys is away.

Owns what this process remembers of keys: a hash of each that was good, for a while.
"""

import hashlib
import time
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials

from dispatcher.http.desk import Desk, bearer, holding
from dispatcher.ledger.connection import LedgerAway
from dispatcher.security.rights import Scope

REMEMBERED = 3_600.0
"""Seconds for which a key that was good may still look while the database is away."""
MOST = 100
"""Keys remembered at once."""

_reader = holding(Scope.READ)


class Known:
    """Keys that could look, by their hashes."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}

    def remember(self, token: str) -> None:
        if len(self._until) >= MOST:
            self._until.clear()
        self._until[_digest(token)] = time.monotonic() + REMEMBERED

    def forget(self, token: str) -> None:
        self._until.pop(_digest(token), None)

    def knows(self, token: str) -> bool:
        return self._until.get(_digest(token), 0.0) > time.monotonic()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def watching(
    request: Request,
    services: Desk,
    found: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> LedgerAway | None:
    """A dependency: may look. Returns why the ledger cannot be asked, None if it can.

    Raises what `holding` raises, and `LedgerAway` for a key that is not remembered.
    """
    known: Known = request.app.state.known_keys
    token = found.credentials if found is not None else ""
    try:
        _reader(services, found)
    except LedgerAway as away:
        if not known.knows(token):
            raise
        return away
    except Exception:
        known.forget(token)
        raise
    known.remember(token)
    return None


Watcher = Annotated[LedgerAway | None, Depends(watching)]

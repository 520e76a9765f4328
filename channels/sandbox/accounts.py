"""Two accounts at one provider, told apart by what a request names.

Owns the choice. It must not know what an account does.
"""

from collections.abc import Callable, Mapping, Sequence

from channels.sandbox.answers import Request, Simulator
from channels.sandbox.config import Provider


class Accounts:
    """One simulator an account behind the same paths; what names no account meets the first."""

    def __init__(
        self,
        simulators: Sequence[Simulator],
        name_of: Callable[[Request], bytes | None],
        names: Sequence[bytes],
    ) -> None:
        self.provider: Provider = simulators[0].provider
        self._first = simulators[0]
        self._name_of = name_of
        self._by_name: Mapping[bytes | None, Simulator] = dict(zip(names, simulators, strict=True))
        self.is_send = self._first.is_send
        self.addresses = self._first.addresses
        self.refusal = self._first.refusal
        self.halved = self._first.halved

    def answer(self, request: Request) -> bytes:
        return self._by_name.get(self._name_of(request), self._first).answer(request)

    def account(self, request: Request) -> int:
        return self._by_name.get(self._name_of(request), self._first).account(request)


def twilio_name(request: Request) -> bytes:
    """The SID in /2010-04-01/Accounts/{sid}..."""
    return request.path[21:55]


def bearer_name(request: Request) -> bytes | None:
    """The whole Authorization header."""
    return request.headers.get(b"authorization")

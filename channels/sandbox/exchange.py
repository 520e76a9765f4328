"""One request in, one answer out: which simulator, which fault, which count.

Owns the routing by path, the faults' effect and the tallies. It must not know sockets or
any provider's words.
"""

import logging
import traceback

from channels.sandbox.answers import (
    Answer,
    Cut,
    Dribble,
    Late,
    Request,
    Simulator,
    is_refusal,
    reply,
    with_header,
    with_status,
)
from channels.sandbox.config import Provider
from channels.sandbox.control import Control, Tally
from channels.sandbox.faults import Fault, Faults

log = logging.getLogger(__name__)

GARBAGE_BODY = reply(200, b"<html>\x00\xff{{ not what anybody expected", b"text/html")
GARBAGE_WIRE = b"\x16\x03\x01 this is not HTTP \xff\xfe\r\n\r\n"


class Exchange:
    """Answers every request of the one port that all providers share."""

    def __init__(
        self,
        routes: dict[bytes, Simulator],
        control: Control,
        *,
        faults: Faults,
        tallies: dict[Provider, Tally],
    ) -> None:
        self._routes = routes
        self._control = control
        self._faults = faults
        self._tallies = tallies

    def answer(self, request: Request) -> Answer:
        """The answer; an exception in a simulator becomes a 500 and a line in the log."""
        first = request.path.split(b"/", 2)[1] if request.path.startswith(b"/") else b""
        try:
            simulator = self._routes.get(first)
            if simulator is not None:
                return self._provider_answer(simulator, request)
            return self._control.answer(request)
        except Exception as error:
            # The border of a server: one bad request must not end the others. Neither the
            # request nor the error's own words go into the log: both may hold addresses.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s on /%s\n%s", type(error).__name__, first.decode("latin-1"), where)  # noqa: TRY400
            return reply(500, b'{"error":"the sandbox itself failed; see its log"}')

    def _provider_answer(self, simulator: Simulator, request: Request) -> Answer:
        is_send = simulator.is_send(request)
        fault = None
        if self._faults.active:
            fault = self._faults.next(
                simulator.provider,
                is_send=is_send,
                addresses=lambda: simulator.addresses(request),
                account=lambda: simulator.account(request),
            )
        if fault is None:
            data = simulator.answer(request)
            if is_send:
                tally = self._tallies[simulator.provider]
                tally.requests += 1
                tally.errors += is_refusal(data)
            return data
        taken = simulator.answer(request) if fault.takes else None
        if fault.half and (rest := simulator.halved(request)) is not None:
            simulator.answer(rest)
        answer = _struck(simulator, fault, taken)
        if is_send:
            tally = self._tallies[simulator.provider]
            tally.requests += 1
            late_success = isinstance(answer, Late | Dribble) and answer.data == taken is not None
            tally.errors += not late_success or is_refusal(taken or GARBAGE_BODY)
        return answer


def _struck(simulator: Simulator, fault: Fault, taken: bytes | None) -> Answer:
    """What the client gets for a request that a fault strikes; `taken` is the true answer."""
    if fault.reset is not None or fault.half:
        return Cut(fault.delay)
    if fault.hang is not None:
        return Cut(fault.delay) if fault.delay else Late(0.0, None)
    if fault.garbage is not None:
        data = GARBAGE_BODY if fault.garbage == "body" else GARBAGE_WIRE
    elif fault.status is not None or fault.rate is not None:
        data = simulator.refusal(fault.status or 429, fault.code)
        if fault.as_status is not None:
            data = with_status(data, fault.as_status)
        if fault.retry_after is not None:
            data = with_header(data, b"Retry-After: %d" % round(fault.retry_after))
    else:
        data = taken or GARBAGE_BODY
    if fault.slow:
        return Dribble(data, fault.slow, fault.delay)
    return Late(fault.delay, data) if fault.delay else data

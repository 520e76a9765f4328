"""How far a Twilio message has come: its turn in the sender's queue, its status, its end.

Owns the clockwork between taking a message and its final status; nothing moves by itself,
everything is worked out from the time when somebody looks. It must not know requests or
how a status is told. https://www.twilio.com/docs/messaging/guides/outbound-message-status-in-status-callbacks
"""

from collections.abc import Callable
from typing import NamedTuple

from channels.sandbox.config import Behaviour
from channels.sandbox.event_rules import Regimes, chance
from channels.sandbox.outbox import Outbox
from channels.sandbox.twilio_errors import Refused

ENDS = ("failed", "undelivered")
_UNDELIVERED_CODES = (30003, 30005, 30006, 30007)
_FAILED_CODE = 30008
_EXPIRED_CODE = 30036


class Status(NamedTuple):
    """What a message shows at one moment. `sent` is when it left, `code` why it did not."""

    word: bytes
    sent: float | None = None
    updated: float | None = None
    code: int | None = None


_QUEUED, _ACCEPTED = Status(b"queued"), Status(b"accepted")


class Step(NamedTuple):
    """A change of status that is told to a callback."""

    word: str
    at: float
    code: int | None = None


class Progress:
    """The messages of one account on their way."""

    def __init__(
        self, outbox: Outbox, behaviour: Behaviour, regimes: Regimes, clock: Callable[[], float]
    ) -> None:
        self._outbox = outbox
        self._behaviour = behaviour
        self._regimes = regimes
        self._clock = clock
        self.clear()

    def clear(self) -> None:
        """Empties the senders' queues and forgets what is kept beside the outbox."""
        self._starts: dict[int, float] = {}
        self._scheduled: set[int] = set()
        self._expired: dict[int, float] = {}
        self._canceled: dict[int, float] = {}
        self._free_at: dict[str, float] = {}

    # --- taking --------------------------------------------------------------------------

    def turn(self, sender: str, segments: int) -> float | None:
        """When a message's turn comes, None for now; it is in the queue then.

        The queue is a virtual clock per sender. Raises Refused(21611) when it is full:
        https://www.twilio.com/docs/api/errors/21611.
        """
        rates = self._behaviour.twilio_sender_rates
        rate = rates.get(sender, rates.get("*"))
        if rate is None:
            return None
        now = self._clock()
        start = max(now, self._free_at.get(sender, now))
        if start - now > self._behaviour.twilio_queue_limit:
            raise Refused(21611)
        self._free_at[sender] = start + max(1, segments) / rate
        return start

    def begin(
        self, seq: int, start: float, *, validity: int | None = None, scheduled: bool = False
    ) -> None:
        """A message leaves at `start` only; with a validity that ends before, never."""
        self._starts[seq] = start
        if scheduled:
            self._scheduled.add(seq)
        taken = self._outbox.at(seq)
        if validity is not None and not scheduled and start - taken > validity:
            self._expired[seq] = taken + validity

    def cancel(self, seq: int) -> None:
        """Cancels a scheduled message; any other is refused (30409)."""
        now = self._clock()
        if self.status(seq, now).word != b"scheduled":
            raise Refused(30409)
        self._canceled[seq] = now

    # --- looking -------------------------------------------------------------------------

    def begins(self, seq: int) -> float:
        """When it leaves, or fails for having waited too long."""
        return self._expired.get(seq) or self._starts.get(seq) or self._outbox.at(seq)

    def status(self, seq: int, now: float) -> Status:
        """What the message shows at `now`."""
        taken = self._outbox.at(seq)
        start = self._starts.get(seq, taken) if self._starts else taken
        if now - taken < 1e-3 and start == taken and self._behaviour.twilio_sent_after > 2e-3:
            return self._first(seq)  # the answer to a create call, which has to be fast
        if seq in self._canceled:
            return Status(b"canceled", updated=self._canceled[seq])
        if now < start:
            if seq in self._scheduled:
                return Status(b"scheduled")
            expired = self._expired.get(seq)
            if expired is not None and now >= expired:
                return Status(b"failed", updated=expired, code=_EXPIRED_CODE)
            return self._first(seq)
        if seq in self._expired:
            return Status(b"failed", updated=self._expired[seq], code=_EXPIRED_CODE)
        behaviour = self._behaviour
        sent = start + behaviour.twilio_sent_after
        if now < sent:
            under_way = now >= (start + sent) / 2
            return Status(self._second(seq)) if under_way else self._first(seq)
        end, code = self._end(seq)
        if end == "failed":
            return Status(b"failed", updated=sent, code=code)
        final = start + behaviour.twilio_delivered_after
        if now < final:
            return Status(b"sent", sent, sent)
        return Status(end.encode(), sent, final, code)

    def fate(self, seq: int) -> str:
        """The final status."""
        return "canceled" if seq in self._canceled else self._end(seq)[0]

    def steps(self, seq: int) -> list[Step]:
        """What a callback is told in the end, in order; nothing of the initial status."""
        if seq in self._canceled:
            return []
        end, code = self._end(seq)
        if seq in self._expired:
            return [Step(end, self._expired[seq], code)]
        behaviour = self._behaviour
        start = self._starts.get(seq) or self._outbox.at(seq)
        sent = start + behaviour.twilio_sent_after
        steps = [Step(self._second(seq).decode(), (start + sent) / 2)]
        if end == "failed":
            return [*steps, Step(end, sent, code)]
        final = max(sent, start + behaviour.twilio_delivered_after)
        return [*steps, Step("sent", sent), Step(end, final, code)]

    def _end(self, seq: int) -> tuple[str, int | None]:
        if seq in self._expired:
            return "failed", _EXPIRED_CODE
        end = self._regimes.end(seq, "delivered", ENDS)
        if end == "delivered":
            return end, None
        if end == "failed":
            return end, _FAILED_CODE
        rules = self._regimes.of(seq)
        drawn = chance(self._regimes.seed(rules), seq, 1)
        return end, _UNDELIVERED_CODES[int(drawn * len(_UNDELIVERED_CODES))]

    def _first(self, seq: int) -> Status:
        return _ACCEPTED if self._outbox.sender(seq).startswith("MG") else _QUEUED

    def _second(self, seq: int) -> bytes:
        return b"queued" if self._outbox.sender(seq).startswith("MG") else b"sending"

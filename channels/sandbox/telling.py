"""When and how often each event of a message is told.

Owns delay, order, loss and repetition of events under the rules in force. It must not know
what an event says: the provider's own module makes it.
"""

from collections.abc import Callable, Sequence

from channels.sandbox.courier import Courier
from channels.sandbox.event_rules import EventRules, Regimes, chance

_DELAY, _ORDER, _LOSS, _FORGED, _REPEAT, _AGAIN = (n << 8 for n in range(1, 7))


class Telling:
    """Plans the events of messages onto a provider's courier."""

    def __init__(self, courier: Courier, regimes: Regimes, clock: Callable[[], float]) -> None:
        self.courier = courier
        self.regimes = regimes
        self._clock = clock

    def plan(self, seq: int, times: Sequence[float], say: Callable[[int], None]) -> None:
        """Has `say` called with the index of each event when it is due and not lost.

        Counts the events as pending; `say` posts parcels that weigh one each, or settles.
        """
        rules = self.regimes.of(seq)
        seed = self.regimes.seed(rules)
        courier = self.courier
        courier.pending += len(times)
        order = range(len(times))
        if rules.shuffle:
            order_of = {n: chance(seed, seq, _ORDER + n) for n in order}
            shuffled = sorted(order, key=order_of.__getitem__)
        else:
            shuffled = list(order)
        earliest = max(times, default=0.0) if rules.shuffle else 0.0
        low, high = rules.delay
        for n in shuffled:
            late = low + (high - low) * chance(seed, seq, _DELAY + n) if high > 0 else 0.0
            due = max(times[n], earliest) + late
            if not rules.shuffle:
                earliest = due  # what comes next is never told before
            courier.at(due, self._job(seq, n, rules, seed, say))

    def _job(
        self, seq: int, n: int, rules: EventRules, seed: int, say: Callable[[int], None]
    ) -> Callable[[], None]:
        if rules.loss and chance(seed, seq, _LOSS + n) < rules.loss:
            return self._lose
        if not rules.repeat or chance(seed, seq, _REPEAT + n) >= rules.repeat:
            return lambda: say(n)

        def twice() -> None:
            counts = self.courier.counts
            counts.repeated += 1
            self.courier.pending += 1
            later = rules.delay[1] * chance(seed, seq, _AGAIN + n)
            say(n)
            self.courier.at(self._clock() + later, lambda: say(n))

        return twice

    def _lose(self) -> None:
        self.courier.counts.lost += 1
        self.courier.pending -= 1

    def is_forged(self, seq: int, n: int) -> bool:
        """Whether a lie goes with this event."""
        rules = self.regimes.of(seq)
        if not rules.forged:
            return False
        return chance(self.regimes.seed(rules), seq, _FORGED + n) < rules.forged

    def bar(self, events: int = 1) -> None:
        """Events that may not be posted there."""
        self.courier.counts.barred += events
        self.courier.pending -= events

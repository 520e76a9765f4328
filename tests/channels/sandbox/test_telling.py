"""When events are due: in order though late, or after the end in any order."""

import pytest

from channels.sandbox.courier import Courier
from channels.sandbox.event_rules import EventRules, Regimes
from channels.sandbox.telling import Telling


class Planned(Courier):
    """Keeps what is planned instead of running it."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: 0.0, exposed=False, retry=lambda *_: None)
        self.jobs: list[tuple[float, object]] = []

    def at(self, due: float, job: object) -> None:
        self.jobs.append((due, job))


def order_of(rules: EventRules, seq: int) -> tuple[list[int], list[float]]:
    """(indexes in the order told, their times) of three events at 1, 2 and 3."""
    courier, regimes, told = Planned(), Regimes(1), []
    regimes.change(rules, from_seq=0)
    Telling(courier, regimes, lambda: 0.0).plan(seq, [1.0, 2.0, 3.0], told.append)
    assert courier.pending == 3
    jobs = sorted(courier.jobs, key=lambda job: job[0])
    for _, job in jobs:
        job()
    return told, [due for due, _ in jobs]


@pytest.mark.parametrize("seq", range(20))
def test_late_events_keep_their_order(seq):
    told, times = order_of(EventRules(delay=(0.5, 10.0)), seq)
    assert told == [0, 1, 2]
    assert times[0] >= 1.5
    assert times[-1] <= 3.0 + 3 * 10.0


def test_shuffled_events_come_after_the_end_in_any_order():
    orders = {tuple(order_of(EventRules(shuffle=True), seq)[0]) for seq in range(100)}
    assert len(orders) == 6
    assert {min(order_of(EventRules(shuffle=True), seq)[1]) for seq in range(10)} == {3.0}


def test_delays_differ_by_message_and_by_seed():
    rules = [EventRules(delay=(0.0, 5.0), seed=seed) for seed in (1, 1, 2)]
    first, same, other = (order_of(each, 7)[1] for each in rules)
    assert first == same != other
    assert first != order_of(rules[0], 8)[1]

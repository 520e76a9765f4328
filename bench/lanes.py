"""How long an urgent update takes while a million bulk deliveries are under way.

One emergency call centre is told again and again, first while bulk goes as fast as it can,
then with both on one sender of 100 a second. The sink says when each arrived.
"""

from collections.abc import Callable
from typing import Any

from bench import crowd, house, sink
from bench.crowd import Crowd
from bench.fanout import percentile
from bench.house import House
from bench.waiting import pause, until

SHARED_RATE = 100.0
EVERY = 0.2
"""Seconds between one urgent arrival and the next incident."""


def run(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures by name. Raises `TooSlow`."""
    people, probes, shared = (20_000, 5, 3) if quick else (1_000_000, 100, 60)
    many, centre = crowd.million(people), crowd.responder()
    with sink.running() as taking, house.folder() as place:
        with house.living(place, taking) as living:
            say(f"storing {people:,} recipients")
            crowd.fill(living.services.ledger, living.services.sealer, many)
            living.take_in(centre)
            say("planning all of them")
            update = living.open(many).update
            _flowing(living, update, rows=people)
            say(f"{probes} urgent incidents while bulk runs")
            found, rate = _probe(living, centre, probes)
            counted = living.counted(update)
            say(f"p99 {percentile(found, 99):,.0f} ms, bulk at {rate:,.0f} a second")
            if not quick:
                assert counted["pending"], "bulk ended before the urgent incidents did"
        with house.living(place, taking, rate=SHARED_RATE) as living:
            say(f"{shared} urgent incidents on one sender of {SHARED_RATE:.0f}/s")
            if living.counted(update)["pending"] == 0:  # a quick run's bulk is through
                update = living.open(many).update
            _flowing(living, update, rows=people)
            same, slow = _probe(living, centre, shared)
            assert living.counted(update)["pending"], "bulk ended too early"
    return {
        "urgent_p99_ms": percentile(found, 99),
        "urgent_median_ms": percentile(found, 50),
        "bulk_messages_per_second": rate,
        "pending_at_end": counted["pending"],
        "same_sender_urgent_p99_ms": percentile(same, 99),
        "same_sender_urgent_median_ms": percentile(same, 50),
        "same_sender_messages_per_second": slow,
        "messages": people,
    }


def _flowing(living: House, update: str, *, rows: int) -> None:
    """Wait until all rows are there and bulk arrives at the sink."""
    until(
        lambda: sum(living.counted(update).values()) >= rows,
        within=60 + rows / 5_000,
        what="planning",
        every=0.5,
    )
    before = living.sink.report()["requests"]
    until(lambda: living.sink.report()["requests"] > before, within=30, what="bulk's start")


def _probe(living: House, centre: Crowd, times: int) -> tuple[list[float], float]:
    """Milliseconds from each posting to its arrival, and bulk's messages per second meanwhile."""
    living.sink.watch(centre.addresses)
    known = len(living.sink.watched())
    before = living.sink.report()
    found = []
    for number in range(1, times + 1):
        opened = living.open(centre)

        def arrived(wanted: int = known + number) -> list[tuple[str, float]] | None:
            seen = living.sink.watched()
            return seen if len(seen) >= wanted else None

        seen = until(arrived, within=60, what="an urgent message", every=0.02)
        found.append(round((seen[-1][1] - opened.at) * 1_000, 1))
        pause(EVERY)
    after = living.sink.report()
    sent = after["requests"] - before["requests"] - times
    return found, round(sent / (after["last"] - before["last"]), 1)

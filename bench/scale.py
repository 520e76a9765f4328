"""What one recipient costs when there are a million, beside what it costs among 10,000.

Cost is the CPU of all workers and of PostgreSQL from posting to the last acceptance:
planning and sending. One installation is measured small, filled up, and measured again, so
that the large run also carries the small one's history.
"""

import time
from collections.abc import Callable
from typing import Any

from bench import crowd, house, sink
from bench.crowd import Crowd
from bench.house import House


def run(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures by name. Raises `TooSlow`."""
    small, large, rounds = (1_000, 5_000, 1) if quick else (10_000, 1_000_000, 10)
    with sink.running() as taking, house.folder() as place, house.living(place, taking) as living:
        ledger, sealer = living.services.ledger, living.services.sealer
        say(f"storing {small:,} recipients")
        crowd.fill(ledger, sealer, crowd.million(small))
        _cost(living, crowd.million(small), 1)  # SDKs imported, caches warm: not measured
        say(f"{rounds} × {small:,} SMS")
        few = _cost(living, crowd.million(small), rounds)
        memory = living.peak_worker_rss_mb()
        say(f"storing {large:,} recipients")
        crowd.fill(ledger, sealer, crowd.million(large))
        say(f"{large:,} SMS")
        many = _cost(living, crowd.million(large), 1)
        return {
            "cost_ratio": round(many["cpu"] / few["cpu"], 3),
            "time_ratio": round(many["time"] / few["time"], 3),
            "cpu_us_per_recipient": round(many["cpu"] * 1e6, 1),
            "messages_per_second": round(1 / many["time"], 1),
            "progress_ms": many["progress_ms"],
            "peak_worker_rss_mb": round(living.peak_worker_rss_mb(), 1),
            "peak_worker_rss_mb_small": round(memory, 1),
            "small": small,
            "large": large,
        }


def _cost(living: House, told: Crowd, rounds: int) -> dict[str, float]:
    """CPU and wall seconds per recipient, and the milliseconds that asking for progress takes."""
    people = len(told.addresses)
    living.sink.clear()
    cpu, spent = living.worker_cpu_seconds(), 0.0
    for _ in range(rounds):
        began = time.monotonic()
        update = living.open(told).update
        living.settled(update, rows=people, within=60 + people / 1_000)
        spent += time.monotonic() - began
    cpu = living.worker_cpu_seconds() - cpu
    assert living.progress(update)["complete"]
    assert living.sink.report()["messages"] == people * rounds
    asked = time.monotonic()
    living.progress(update)
    took = time.monotonic() - asked
    each = people * rounds
    return {"cpu": cpu / each, "time": spent / each, "progress_ms": round(took * 1_000, 1)}

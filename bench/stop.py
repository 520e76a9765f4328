"""How soon it is quiet after a stop under full load, and whether the count is right.

The sink's last arrival after the stop was asked is the moment of quiet; of several rounds
the slowest is told.
"""

import time
from collections.abc import Callable
from typing import Any

from bench import crowd, house, sink
from bench.crowd import Crowd
from bench.house import House
from bench.waiting import until

QUIET = 3.0
"""Seconds without an arrival, and without a row in flight, that count as quiet."""


def run(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures by name. Raises `TooSlow`."""
    people, rounds = (10_000, 1) if quick else (73_000, 3)
    told = crowd.by_phone(people)
    with sink.running() as taking, house.folder() as place, house.living(place, taking) as living:
        say(f"storing {people:,} recipients")
        crowd.fill(living.services.ledger, living.services.sealer, told)
        found = []
        for number in range(rounds):
            say(f"stop {number + 1} of {rounds}")
            found.append(_once(living, told))
    return max(found, key=lambda each: each["seconds_to_quiet"]) | {"rounds": rounds}


def _once(living: House, told: Crowd) -> dict[str, Any]:
    people = len(told.addresses)
    living.sink.clear()
    update = living.open(told).update
    # All of them planned: the answer counts those that are.
    until(
        lambda: (
            sum(living.counted(update).values()) == people
            and living.sink.report()["requests"] > people / 10
        ),
        within=60,
        what="full load",
    )
    asked = time.monotonic()
    effect = living.call(f"/v1/updates/{update}/stop")
    answered = time.monotonic()

    def quiet() -> bool:
        moving = living.counted(update)
        return (
            moving["pending"] + moving["sending"] == 0
            and time.monotonic() - max(asked, living.sink.report()["last"]) > QUIET
        )

    until(quiet, within=90, what="quiet after the stop", every=0.25)
    report, progress = living.sink.report(), living.progress(update)
    states = progress["by_state"]
    assert report["messages"] == states["accepted"] and report["duplicates"] == 0, (report, states)
    return {
        "seconds_to_quiet": round(max(0.0, report["last"] - asked), 3),
        "seconds_to_answer": round(answered - asked, 3),
        "saved": effect["saved"],
        "left": effect["left"],
        "planned": progress["planned"],
        "complete": progress["complete"],
        "accepted": states["accepted"],
        "stopped": states["stopped"],
    }

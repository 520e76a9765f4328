"""What three callbacks for each message cost a fan-out that is under way.

The same fan-out without callbacks, with callbacks at a provider's pace, and with callbacks
as fast as they are answered. The process that posts them shares the machine's cores. At the
end the ledger must say *delivered* of everybody.
"""

import json
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench import crowd, house, sink
from bench.callbacks import STATUSES
from bench.crowd import Crowd
from bench.house import House
from bench.racing import ROOT
from bench.waiting import until

PACE = 300.0
"""Callbacks a second: three for each of 100 messages, which is what Twilio lets a short code
send, https://help.twilio.com/articles/115002943027."""
PUBLIC_URL = "https://callbacks.example"
"""What is signed; the calls themselves go to the API's loopback port."""


@dataclass(slots=True)
class Calling:
    """A process that calls back, and what it has told so far."""

    process: "subprocess.Popen[str]"
    posted: int = 0
    refused: int = 0
    _reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.posted, self.refused = json.loads(line)


@contextmanager
def calling(living: House, messages: int, rate: float | None) -> Iterator[Calling]:
    """Call back for so many messages from now on; ended on leaving."""
    job = {
        "sink": living.sink.url,
        "api": str(living.http.base_url),
        "rate": rate,
        "messages": messages,
    }
    living.sink.keep_callbacks()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.callbacks"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        yield Calling(process)
    finally:
        process.kill()
        process.wait()


def run(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures by name. Raises `TooSlow`."""
    people, rounds = (2_000, 1) if quick else (73_000, 3)
    told = crowd.by_phone(people)
    with (
        sink.running() as taking,
        house.folder() as place,
        house.living(place, taking, public_url=PUBLIC_URL) as living,
    ):
        say(f"storing {people:,} recipients")
        crowd.fill(living.services.ledger, living.services.sealer, told)
        _sent(living, told)  # SDKs imported, caches warm: not measured
        plain, paced = [], []
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}: without callbacks, then {PACE:.0f} a second")
            plain.append(_sent(living, told)[0])
            taking.clear()
            with calling(living, people, PACE):
                paced.append(_sent(living, told)[0])
        say("callbacks as fast as they are answered")
        taking.clear()
        with calling(living, people, None) as caller:
            flooded, update = _sent(living, told)
            meanwhile = caller.posted
            say("waiting for the last of them, and for the ledger")
            delivered = _delivered(living, update, people)
            until(lambda: caller.posted >= people * len(STATUSES), within=30, what="callbacks")
            refused = caller.refused
    without = statistics.median(plain)
    return {
        "slowdown_ratio": round(statistics.median(paced) / without, 3),
        "callbacks_per_second": PACE,
        "seconds_without": plain,
        "seconds_with": paced,
        "flood_slowdown_ratio": round(flooded / without, 3),
        "flood_callbacks_per_second": round(meanwhile / flooded, 1),
        "flood_callbacks_while_sending": meanwhile,
        "refused": refused,
        "delivered": delivered,
        "messages": people,
    }


def _sent(living: House, told: Crowd) -> tuple[float, str]:
    """One fan-out: seconds from release to the last acceptance."""
    people = len(told.addresses)
    update = living.open(told).update
    living.settled(update, rows=people, within=60 + people / 500)
    return round(living.span(update), 3), update


def _delivered(living: House, update: str, people: int) -> int:
    until(
        lambda: living.counted(update)["delivered"] >= people,
        within=60 + people / 300,
        what="the last receipt",
        every=0.5,
    )
    progress = living.progress(update)
    assert progress["complete"], progress
    return int(progress["by_state"]["delivered"])

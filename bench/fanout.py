"""73,000 SMS from release to the last acceptance, beside what else one could do.

The dispatcher with its full ledger, the bare wire, the textbook design and Apprise post to
one sink in one run. Each figure is the median of its rounds. Lost and double messages are
counted by the sink, against the people who were imported.
"""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from bench import apprise_peer, crowd, house, sink, textbook, wire
from bench.crowd import Crowd
from bench.house import House, Opened
from bench.sink import Sink
from dispatcher.embedded import launch

SENDER = "72345"


class Void(Exception):
    """A peer was slower than it can be: the machine was busy, and nothing may be compared."""


def run(*, quick: bool, say: Callable[[str], None], peers: bool = True) -> dict[str, Any]:
    """The figures by name; without `peers` only our own rate. Raises `Void`, `TooSlow`."""
    people, rounds, idle = (1_000, 1, 3) if quick else (73_000, 3, 100)
    told, mailed = crowd.by_phone(people), crowd.by_mail(people)
    with sink.running() as taking, house.folder() as place:
        with house.living(place, taking) as living:
            say(f"importing {people:,} recipients over HTTP")
            living.take_in(told)
            found: dict[str, Any] = {}
            if peers:
                living.take_in(crowd.few())
                living.rested()
                say(f"{idle} idle incidents to 10 people")
                found |= _first(living, crowd.few(), idle)
            say(f"{rounds} × {people:,} SMS")
            fast, sample = _texts(living, told, rounds)
            found |= fast
            if not peers:
                return found | {"peak_worker_rss_mb": round(living.peak_worker_rss_mb(), 1)}
            living.take_in(mailed)
            say(f"{rounds} × {people:,} emails")
            found["email_seconds"] = statistics.median(
                _once(living, mailed)[0] for _ in range(rounds)
            )
            found["peak_worker_rss_mb"] = round(living.peak_worker_rss_mb(), 1)
        with launch(place) as stack:
            broker = stack.addresses.broker_url
            found |= _peers(taking, told, sample, broker=broker, quick=quick, say=say)
    ours = found["messages_per_second"]
    for peer in ("wire", "textbook", "apprise"):
        found[f"ratio_to_{peer}"] = round(ours / found[f"{peer}_per_second"], 3)
    return found | {"sink": sink.NAME, "messages": people, "rounds": rounds}


def _once(living: House, told: Crowd) -> tuple[float, Opened, set[str], int]:
    """One fan-out: seconds from release to last acceptance, lost and duplicates."""
    people = len(told.addresses)
    living.sink.clear()
    opened = living.open(told)
    living.settled(opened.update, rows=people, within=60 + people / 500)
    progress = living.progress(opened.update)
    assert progress["complete"], progress
    report = living.sink.report()
    lost = set(told.addresses) - living.sink.addresses()
    return round(living.span(opened.update), 3), opened, lost, report["duplicates"]


def _texts(living: House, told: Crowd, rounds: int) -> tuple[dict[str, Any], bytes]:
    """Our own figures, and one request as a worker posted it."""
    seconds: list[float] = []
    firsts: list[float] = []
    lost = duplicates = 0
    for _ in range(rounds):
        took, opened, missing, twice = _once(living, told)
        first = living.sink.first_after(opened.at)
        assert first is not None
        seconds.append(took)
        firsts.append((first - opened.at) * 1_000)
        lost += len(missing)
        duplicates += twice
    found = {
        "messages_per_second": round(len(told.addresses) / statistics.median(seconds), 1),
        "seconds": seconds,
        "lost": lost,
        "duplicates": duplicates,
        "first_bulk_send_ms": round(max(firsts), 1),
    }
    return found, living.sink.sample()


def _first(living: House, some: Crowd, times: int) -> dict[str, float]:
    """Milliseconds from posting an incident to its first request, nothing else on."""
    found = []
    for _ in range(times):
        opened = living.open(some)
        living.settled(opened.update, rows=len(some.addresses), within=60)
        first = living.sink.first_after(opened.at)
        assert first is not None
        found.append((first - opened.at) * 1_000)
    return {
        "first_send_ms": round(percentile(found, 99), 1),
        "first_send_median_ms": round(percentile(found, 50), 1),
    }


def percentile(values: Sequence[float], rank: int) -> float:
    """The nearest-rank percentile: one of the values."""
    ordered = sorted(values)
    return ordered[max(0, -(-rank * len(ordered) // 100) - 1)]


def _peers(
    taking: Sink,
    told: Crowd,
    sample: bytes,
    *,
    broker: str,
    quick: bool,
    say: Callable[[str], None],
) -> dict[str, float]:
    """What the others do on the same sink, each in the same number of processes."""
    some = told.addresses[: 100 if quick else 5_000]
    text = (
        "Northvale: We have had a problem with calls and mobile data in Texas since 11:23 AM CST."
    )
    say("the bare wire")
    bare = statistics.median(wire.run(taking, sample, told.addresses) for _ in range(3))
    say("the textbook design")
    usual = textbook.run(taking, broker, some, sender=SENDER, text=text)
    say("Apprise")
    common = apprise_peer.run(taking, some, sender=SENDER, text=text)
    # A quick run shows that the machinery works, on machines that are busy with other things.
    if not quick and (bare < wire.LEAST or usual < textbook.LEAST):
        raise Void(f"void: the bare wire did {bare:,.0f}/s, the textbook design {usual:,.0f}/s")
    return {
        "wire_per_second": round(bare, 1),
        "textbook_per_second": round(usual, 1),
        "apprise_per_second": round(common, 1),
    }

"""The kinds of fault, and how each is made: on processes, servers, providers, tasks and clocks.

A fault is struck at once and may leave an undoing and the seconds after which it is due.
Everything that can be drawn (target, strength) comes from the blow, so from the seed.
"""

import random
import signal
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.chaos.plan import Blow
from tests.chaos.site import LEASE, SETTLE_AFTER, TIMEOUT, Site


@dataclass(frozen=True, slots=True)
class Undo:
    """What ends a fault, and the seconds until then."""

    after: float
    end: Callable[[], object]


Strike = Callable[[Site, Blow], Undo | None]


def _between(low: float, high: float, blow: Blow) -> float:
    return low + (high - low) * blow.force


# -- our own processes -------------------------------------------------------------------


def _worker_killed(site: Site, blow: Blow) -> None:
    site.kill(site.worker(blow.aim))


def _all_workers_killed(site: Site, blow: Blow) -> None:
    for third in (0.0, 0.4, 0.9):
        site.kill(site.worker(third))


def _worker_told_to_stop(site: Site, blow: Blow) -> None:
    site.kill(site.worker(blow.aim), signal.SIGTERM)


def _worker_stalled(site: Site, blow: Blow) -> Undo:
    return Undo(_between(0.3, LEASE / 2, blow), site.freeze(site.worker(blow.aim)))


def _worker_frozen(site: Site, blow: Blow) -> Undo:
    """Longer than its lease, and than it takes until its rows are asked about and sent again."""
    seconds = LEASE + SETTLE_AFTER + _between(4.0, 12.0, blow)
    return Undo(seconds, site.freeze(site.worker(blow.aim)))


def _beat_killed(site: Site, blow: Blow) -> None:
    site.kill("beat")


def _beat_frozen(site: Site, blow: Blow) -> Undo:
    return Undo(_between(2.0, 12.0, blow), site.freeze("beat"))


def _api_killed(site: Site, blow: Blow) -> None:
    site.kill("api")


def _api_frozen(site: Site, blow: Blow) -> Undo:
    return Undo(_between(1.0, 4.0, blow), site.freeze("api"))


# -- the two servers ---------------------------------------------------------------------


def _broker_flushed(site: Site, blow: Blow) -> None:
    site.flush()


def _broker_killed(site: Site, blow: Blow) -> None:
    site.kill("valkey")


def _broker_frozen(site: Site, blow: Blow) -> Undo:
    return Undo(_between(1.0, 6.0, blow), site.freeze("valkey"))


def _database_restarted(site: Site, blow: Blow) -> None:
    site.kill("postgres", signal.SIGINT)


def _database_killed(site: Site, blow: Blow) -> None:
    site.kill("postgres")


def _database_frozen(site: Site, blow: Blow) -> Undo:
    return Undo(_between(1.0, 5.0, blow), site.freeze("postgres"))


def _database_away(site: Site, blow: Blow) -> Undo:
    return Undo(_between(2.0, 5.0, blow), site.without_database())


def _database_away_long(site: Site, blow: Blow) -> Undo:
    return Undo(30.0, site.without_database())


# -- the providers -----------------------------------------------------------------------


_STRUCK = (*("twilio",) * 6, *("sendgrid",) * 2, "fcm", "x")
"""Providers as often as faults fall on them: mostly on the one with the most messages."""


def _struck(site: Site, blow: Blow) -> str:
    """A provider that has messages to come."""
    waiting = site.waiting()
    providers = [each for each in _STRUCK if each in waiting] or _STRUCK
    return providers[min(int(blow.aim * len(providers)), len(providers) - 1)]


def _at_a_provider(seconds: tuple[float, float], **fault: object) -> Strike:
    """A fault of one provider's answers."""

    def strike(site: Site, blow: Blow) -> Undo:
        return Undo(_between(*seconds, blow), site.provider_fault(_struck(site, blow), **fault))

    return strike


def _half_of_a_bulk(site: Site, blow: Blow) -> Undo:
    return Undo(_between(2.0, 5.0, blow), site.provider_fault("sendgrid", half=True, count=2))


# -- tasks -------------------------------------------------------------------------------


def _task_twice(site: Site, blow: Blow) -> None:
    """Each open batch is named several times over, also while a worker has it."""
    site.enqueue("send", site.batches("open") * 3)


def _task_late(site: Site, blow: Blow) -> None:
    """What was named an hour ago: batches that are done, updates that are planned."""
    site.enqueue("send", site.batches("NOT open"))
    site.enqueue("plan", [(update, "plan") for update in site.updates[-5:]])


def _task_forged(site: Site, blow: Blow) -> None:
    rng = random.Random(blow.aim)
    strangers: list[int | str] = [rng.randrange(10**6, 10**9), -1, "no number", 2**80]
    site.enqueue("send", [(stranger, "bulk") for stranger in strangers])
    unknown = str(uuid.UUID(int=rng.getrandbits(128)))
    site.enqueue("plan", [(unknown, "plan"), ("no update", "plan")])


# -- clocks ------------------------------------------------------------------------------


def _clock(ahead: int) -> Strike:
    def strike(site: Site, blow: Blow) -> Undo:
        assert site.clock is not None
        site.clock.set(ahead)
        clock = site.clock
        return Undo(_between(2.0, 6.0, blow), lambda: clock.set(0))

    return strike


CLOCKS: Mapping[str, Strike] = {
    "clock_an_hour_ahead": _clock(3_600),
    "clock_an_hour_behind": _clock(-3_600),
}
KINDS: Mapping[str, Strike] = {
    "worker_killed": _worker_killed,
    "all_workers_killed": _all_workers_killed,
    "worker_told_to_stop": _worker_told_to_stop,
    "worker_stalled": _worker_stalled,
    "worker_frozen_past_its_lease": _worker_frozen,
    "beat_killed": _beat_killed,
    "beat_frozen": _beat_frozen,
    "api_killed": _api_killed,
    "api_frozen": _api_frozen,
    "broker_flushed": _broker_flushed,
    "broker_killed": _broker_killed,
    "broker_frozen": _broker_frozen,
    "database_restarted": _database_restarted,
    "database_killed": _database_killed,
    "database_frozen": _database_frozen,
    "database_away": _database_away,
    "provider_hangs_before": _at_a_provider((2.0, 5.0), hang="before", probability=0.3, count=60),
    "provider_hangs_after": _at_a_provider((2.0, 5.0), hang="after", probability=0.3, count=60),
    "reset_before": _at_a_provider((1.0, 4.0), reset="before", probability=0.3, count=150),
    "reset_after": _at_a_provider((1.0, 4.0), reset="after", probability=0.3, count=150),
    "garbage_body": _at_a_provider((1.0, 4.0), garbage="body", probability=0.3, count=100),
    "garbage_wire": _at_a_provider((1.0, 4.0), garbage="wire", probability=0.3, count=100),
    "throttled": _at_a_provider((1.0, 5.0), status=429, retry_after=1),
    "provider_down": _at_a_provider((1.0, 3.0), status=503, probability=0.5, count=200),
    "error_after_taking": _at_a_provider(
        (1.0, 4.0), status=500, accept=True, probability=0.3, count=100
    ),
    "slower_than_the_timeout": _at_a_provider(
        (2.0, 5.0), delay=TIMEOUT * 1.25, probability=0.3, count=100
    ),
    "task_twice": _task_twice,
    "task_an_hour_late": _task_late,
    "task_forged": _task_forged,
}
SOME_SANDBOXES: Mapping[str, Strike] = {
    "half_of_a_bulk": _half_of_a_bulk,
    "error_in_a_200": _at_a_provider(
        (1.0, 4.0), status=500, as_status=200, probability=0.3, count=100
    ),
}
RARE: Mapping[str, Strike] = {"database_away_30_s": _database_away_long}
EVERY: Mapping[str, Strike] = {**KINDS, **SOME_SANDBOXES, **CLOCKS, **RARE}


def dealt(*, clocks: bool) -> tuple[str, ...]:
    """The kinds of an ordinary run; those of clocks only where one can be made to jump."""
    return (*KINDS, *SOME_SANDBOXES, *(CLOCKS if clocks else ()))


def strike(site: Site, blow: Blow) -> Undo | None:
    """Let one fault fall. Raises `NotNow` if it has to wait."""
    return EVERY[blow.kind](site, blow)

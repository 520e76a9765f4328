"""Celery's tasks: ids in, engine called, nothing decided here.

A worker process has one event loop, on which everything it sends is under way at once, and
a few threads, each of which waits for one task: a batch whose sender is slow holds a thread
and no more. Processes, not threads, add speed.
"""

import asyncio
import gc
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import structlog
import uvloop
from celery import signals
from celery.worker import state

from dispatcher import broker, logs, settings, wiring
from dispatcher.delivery.errors import where
from dispatcher.delivery.reconciling import MOST
from dispatcher.ledger.connection import LedgerAway, LedgerFull

_settings = settings.load()
app = broker.build(wiring.broker_url(_settings))
log = structlog.get_logger(__name__)
T = TypeVar("T")

GC_EVERY = 50_000
"""Objects made between two looks at the young ones: some hundred messages' worth."""
PILED_UP = 0.3
"""Seconds within which a second sweep finds nothing new."""


@signals.setup_logging.connect
def _configure_logs(**_: object) -> None:
    logs.configure(_settings.log_level, _settings.log_format)


class Worker:
    """What one process keeps between tasks: services, and the loop its adapters live on."""

    def __init__(self) -> None:
        self.swept = float("-inf")
        self.services = wiring.build(_settings)
        wiring.prepare(self.services)
        self.batches, self.trials = wiring.sending(self.services, stopping=stopping)
        self.reconciling = wiring.reconciling(self.services)
        self.polling = wiring.polling(self.services)
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="sending", daemon=True).start()
        self.run(self.batches.prime())
        # What is loaded by now stays: collecting garbage need not look at it each time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_EVERY, 20, 100)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns, done on the loop of this process's adapters."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def stopping() -> bool:
    """Whether this worker was told to stop: no new window then."""
    return state.should_stop is not None or state.should_terminate is not None


@cache
def worker() -> Worker:
    """This process's own; made before the first task, so that no two threads make it."""
    return Worker()


@contextmanager
def told(task: str) -> Iterator[None]:
    """Tell how a task failed by kind and place: an error's own words may quote a person.

    Nothing is raised again. What was not done stands in the ledger, where the sweep finds it.
    """
    try:
        yield
    except LedgerFull:
        log.error("ledger.full", task=task)  # noqa: TRY400
    except LedgerAway:
        log.warning("ledger.away", task=task)
    except Exception as error:
        log.error("task.failed", task=task, errors=where(error))  # noqa: TRY400


@app.task(name="dispatcher.plan")
def plan(update_id: str) -> None:
    """Plan an update's released audiences."""
    with told("plan"):
        worker().services.planner.plan(update_id)


@app.task(name="dispatcher.send")
def send(batch_id: int) -> None:
    """Give a batch a turn, and name it again if it is due at once."""
    with told("send"):
        _send(worker(), batch_id)


def _send(own: Worker, batch_id: int) -> None:
    began = time.monotonic()
    turn = own.run(own.batches.send(batch_id))
    if turn.result == "worked":
        log.info(
            "turn",
            batch=batch_id,
            sent=turn.sent,
            seconds=round(time.monotonic() - began, 3),
            again=turn.again,
        )
    if turn.again is not None and turn.again <= 0.0:
        own.services.recovery.name_again(batch_id)


@app.task(name="dispatcher.trial")
def trial(trial_id: str) -> None:
    """Send a test to whoever asked for it."""
    with told("trial"):
        own = worker()
        own.run(own.trials.try_out(trial_id))


@app.task(name="dispatcher.reconcile")
def reconcile(adapter: str) -> None:
    """Ask an adapter's provider about its rows in doubt."""
    with told("reconcile"):
        own = worker()
        # A full round means that more rows wait, and they need not wait for the sweep.
        while own.run(own.reconciling.run(adapter)) >= MOST and not stopping():
            pass


@app.task(name="dispatcher.receipts")
def receipts(_: str) -> None:
    """Work off what providers said."""
    with told("receipts"):
        worker().services.receipts.work()


@app.task(name="dispatcher.poll")
def poll(_: str) -> None:
    """Ask providers about messages whose end they have not told."""
    with told("poll"):
        own = worker()
        own.run(own.polling.run())


@app.task(name="dispatcher.sweep")
def sweep() -> None:
    """One pass over the ledger for what was lost on the way.

    Those that piled up while no worker was there are one.
    """
    own = worker()
    if time.monotonic() - own.swept < PILED_UP:
        return
    own.swept = time.monotonic()
    with told("sweep"):
        own.services.recovery.sweep()
    with told("sweep"):
        own.services.receipts.remind()

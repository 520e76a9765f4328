"""Celery's tasks: ids in, engine called, nothing decided here.

A worker process runs one task at a time on one event loop of its own (the solo pool);
more processes, not more threads, add speed.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import structlog
import uvloop
from celery import signals
from celery.worker import state

from dispatcher import broker, logs, settings, wiring
from dispatcher.delivery.errors import where
from dispatcher.ledger.connection import LedgerAway

_settings = settings.load()
app = broker.build(wiring.broker_url(_settings))
log = structlog.get_logger(__name__)


@signals.setup_logging.connect
def _configure_logs(**_: object) -> None:
    logs.configure(_settings.log_level, _settings.log_format)


class Worker:
    """What one process keeps between tasks: services, and the loop its adapters live on."""

    def __init__(self) -> None:
        self.services = wiring.build(_settings)
        wiring.prepare(self.services)
        self.loop = uvloop.new_event_loop()
        self.batches = wiring.sending(self.services, stopping=stopping)


def stopping() -> bool:
    """Whether this worker was told to stop: no new window then."""
    return state.should_stop is not None or state.should_terminate is not None


@cache
def worker() -> Worker:
    return Worker()


@contextmanager
def told(task: str) -> Iterator[None]:
    """Tell how a task failed by kind and place: an error's own words may quote a person.

    Nothing is raised again. What was not done stands in the ledger, where the sweep finds it.
    """
    try:
        yield
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
    asyncio.set_event_loop(own.loop)
    began = time.monotonic()
    turn = own.loop.run_until_complete(own.batches.send(batch_id))
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


@app.task(name="dispatcher.sweep")
def sweep() -> None:
    """One pass over the ledger for what was lost on the way."""
    with told("sweep"):
        worker().services.recovery.sweep()

"""The Celery app, its queues, and `enqueue`. Knows no task's body.

Celery carries ids only, and PostgreSQL is the truth: a message lost here is found again
by the sweep, a message forged here can start nothing that the ledger has not released.
So there is no result backend, no countdown, and a task is acknowledged when it starts.
"""

from collections.abc import Sequence
from typing import Final

import structlog
from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import OperationalError
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

log = structlog.get_logger(__name__)

PLAN: Final = "plan"
SWEEP: Final = "sweep"
URGENT: Final = "urgent"
NORMAL: Final = "normal"
BULK: Final = "bulk"
QUEUES: Final = (PLAN, SWEEP, URGENT, NORMAL, BULK)
LANES: Final = (URGENT, NORMAL, BULK)

SWEEP_SECONDS: Final = 1.0


def build(broker_url: str) -> Celery:
    """The Celery app for workers, beat and those who enqueue."""
    app = Celery("dispatcher", broker=broker_url)
    app.conf.update(
        task_queues=[Queue(name, routing_key=name) for name in QUEUES],
        task_default_queue=NORMAL,
        task_create_missing_queues=False,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=False,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            # The earliest named queue with a message is served first.
            "queue_order_strategy": "priority",
            "socket_timeout": 10,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "retry_on_timeout": False,
            # Nothing is redelivered by time: tasks are acknowledged as they start.
            "visibility_timeout": 3600,
        },
        beat_schedule={
            "sweep": {
                "task": "dispatcher.sweep",
                "schedule": SWEEP_SECONDS,
                # No expiry: it would be judged by the worker's clock against beat's.
                "options": {"queue": SWEEP},
            },
        },
        timezone="UTC",
        enable_utc=True,
    )
    return app


class Broker:
    """Names work to workers. A broker that is away is only a delay: the sweep names it again."""

    def __init__(self, app: Celery, broker_url: str) -> None:
        self.app = app
        # Asked apart from Celery, whose own connections try again for seconds.
        self._redis: Redis = Redis.from_url(
            broker_url,
            socket_timeout=1.0,
            socket_connect_timeout=0.5,
            retry=Retry(NoBackoff(), 0),
        )

    def enqueue(self, task: str, id: str | int, *, queue: str) -> bool:
        """Name one id for `dispatcher.<task>`; False if the broker could not be told."""
        return self.enqueue_all(task, [(id, queue)]) == 1

    def enqueue_all(self, task: str, work: Sequence[tuple[str | int, str]]) -> int:
        """Name several (id, queue) over one connection; returns how many were told."""
        told = 0
        try:
            with self.app.producer_pool.acquire(block=True, timeout=3) as producer:
                for id, queue in work:
                    self.app.send_task(
                        f"dispatcher.{task}", args=[id], queue=queue, producer=producer
                    )
                    told += 1
        except (OperationalError, RedisError, OSError) as error:
            log.warning("broker.away", task=task, told=told, error=type(error).__name__)
        return told

    def depth(self, queue: str) -> int | None:
        """Messages waiting in a queue, None if the broker is away."""
        try:
            waiting = self._redis.llen(queue)
        except (RedisError, OSError):
            return None
        return waiting if isinstance(waiting, int) else None

"""The textbook design: one Celery task per recipient, the vendor's own client, a counter.

What the documentation of Celery and of Twilio lead to: two prefork processes, each with one
client that it keeps, no result backend. All tasks stand in the queue before the workers
start, so that enqueueing costs it nothing. Nothing is recorded but the count.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

from celery import Celery
from redis import Redis

from bench.racing import LOOPBACK_ONLY, ROOT
from bench.sink import Sink, rate
from bench.waiting import until
from channels.sandbox import credentials

PROCESSES = 2
LEAST = 250.0
"""Messages per second below which a run is void."""
BROKER, SINK = "BENCH_BROKER", "BENCH_SINK"
QUEUE = "textbook"

app = Celery("textbook", broker=os.environ.get(BROKER, "memory://"))
app.conf.update(task_ignore_result=True, task_default_queue=QUEUE)


@cache
def client() -> Any:
    """The vendor's client, one per process."""
    from twilio.rest import Client  # type: ignore[import-untyped]

    made = Client(credentials.TWILIO_ACCOUNT_SID, credentials.TWILIO_AUTH_TOKEN)
    made.api.base_url = os.environ[SINK]
    return made


@cache
def counter() -> Redis:
    return Redis.from_url(os.environ[BROKER])


@app.task(name="bench.textbook.send")  # type: ignore[untyped-decorator]
def send(to: str, sender: str, text: str) -> None:
    """Send one SMS and count it."""
    client().messages.create(to=to, from_=sender, body=text)
    counter().incr("bench.textbook.sent")


def run(sink: Sink, broker_url: str, addresses: Sequence[str], *, sender: str, text: str) -> float:
    """Messages per second, from the first arrival to the last."""
    sink.clear()
    enqueue = Celery("textbook", broker=broker_url)
    with enqueue.producer_pool.acquire(block=True) as producer:
        for to in addresses:
            enqueue.send_task(
                "bench.textbook.send", args=[to, sender, text], queue=QUEUE, producer=producer
            )
    environment = os.environ | {BROKER: broker_url, SINK: sink.url, "PYTHONPATH": str(ROOT)}
    environment |= LOOPBACK_ONLY
    command = ["-A", "bench.textbook", "worker", "-P", "prefork", "-c", str(PROCESSES)]
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", *command, "--loglevel=ERROR", "--without-gossip"],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(
            lambda: sink.report()["messages"] >= len(addresses),
            within=len(addresses) / LEAST + 90,
            what="the textbook run",
            every=0.25,
        )
    finally:
        _end(worker)
    told = sink.report()
    assert told["messages"] == len(addresses)
    return rate(told)


def _end(worker: "subprocess.Popen[bytes]") -> None:
    """Stop the worker and its children; they are a process group of their own."""
    worker.terminate()
    try:
        worker.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()

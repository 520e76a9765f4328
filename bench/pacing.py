"""`bench pacing`: does a sender keep exactly to its rate, over several workers?

Four worker processes, each with its own event loop, pacing and connections, share one
Valkey and one sender. Nobody asks what they believe: the sink's arrival times are judged,
in 1-s windows at 20 random phases, and in the fullest second wherever it begins.
"""

import argparse
import asyncio
import json as json_module
import multiprocessing
import random
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, cast

import uvloop
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from channels.transport import CurlTransport, Request
from dispatcher.delivery.pacing import Pace, Pacing
from dispatcher.delivery.starting import Starting
from dispatcher.embedded import discard, launch

LIMITS = (10, 100, 1_000)
WORKERS = 4
PHASES = 20
SECONDS = 9.0
"""Of each run, of which the first is not judged: it belongs to the start."""
WINDOW = 200
"""Envelopes a worker asks for at once, as the engine does."""

_ANSWER = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


class _Sink(asyncio.Protocol):
    """Takes everything and notes when it came. One small request is one read on loopback."""

    def __init__(self, arrivals: list[float]) -> None:
        self._arrivals = arrivals
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._arrivals.extend([time.monotonic()] * data.count(b"POST / "))
        assert self._transport is not None
        self._transport.write(_ANSWER * data.count(b"POST / "))


def _serve(pipe: Connection) -> None:
    """The sink's process: tells its port, then, when asked, what came since it was last asked."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        arrivals: list[float] = []
        server = await loop.create_server(lambda: _Sink(arrivals), "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        while await asyncio.to_thread(pipe.recv):
            pipe.send(list(arrivals))
            arrivals.clear()
        server.close()

    uvloop.run(serve())


def _work(url: str, broker_url: str, pace: Pace, together: Barrier) -> None:
    """One worker's process: windows one after another, answers while they leave."""

    async def work() -> None:
        transport = CurlTransport(concurrency=64)
        redis: Redis = Redis.from_url(broker_url, retry=Retry(NoBackoff(), 0))
        pacing = Pacing(redis)
        starting: Starting[int] = Starting(pacing)
        await pacing.prime()
        # A process takes a while to start, longer on a busy machine: the clock runs from here.
        together.wait(60.0)
        until = time.monotonic() + SECONDS

        async def send(part: Sequence[int]) -> None:
            posts = [Request("POST", url, (), b"To=x", timeout=5.0) for _ in part]
            await asyncio.gather(*(transport.request(post) for post in posts))

        def in_time() -> bool:
            return time.monotonic() < until

        async with asyncio.TaskGroup() as group:
            while in_time():
                grant = await pacing.take(pace, WINDOW, patience=1.0)
                envelopes = range(grant.count)
                await starting.start(group, pace, grant, envelopes, send, may_start=in_time)
        await transport.aclose()
        await redis.aclose()

    uvloop.run(work())


def judged(arrivals: Sequence[float], limit: float, *, rng: random.Random) -> dict[str, float]:
    """Arrival times in seconds against `limit` a second; the first second is left out."""
    times = sorted(arrivals)
    begin, end = times[0] + 1.0, times[-1]
    counts = []
    for _ in range(PHASES):
        at = begin + rng.random()
        while at + 1.0 <= end:
            counts.append(bisect_left(times, at + 1.0) - bisect_left(times, at))
            at += 1.0
    judged_ones = times[bisect_left(times, begin) :]
    fullest = max(bisect_left(times, at + 1.0) - n for n, at in enumerate(times))
    return {
        "limit_per_second": limit,
        "used_ratio": round((len(judged_ones) - 1) / (limit * (end - judged_ones[0])), 4),
        "max_window_ratio": round(max(counts) / limit, 4),
        "fullest_second_ratio": round(fullest / limit, 4),
        "arrivals": len(times),
    }


def _measure(
    spawn: SpawnContext, sink: Connection, url: str, broker_url: str, limit: int
) -> list[float]:
    pace = Pace(f"bench:{limit}", float(limit))
    args = (url, broker_url, pace, spawn.Barrier(WORKERS))
    workers = [spawn.Process(target=_work, args=args) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(SECONDS + 80.0)
        if worker.exitcode != 0:
            worker.kill()
            raise RuntimeError(f"a worker ended with {worker.exitcode}")
    sink.send(True)
    arrivals: list[float] = sink.recv()
    return arrivals


def run(limits: Sequence[int] = LIMITS) -> dict[str, Any]:
    """Each limit once: `{workers, seconds, runs[{limit_per_second used_ratio max_window_ratio}]}`."""
    spawn = multiprocessing.get_context("spawn")
    rng = random.Random()
    ours, theirs = spawn.Pipe()
    sink = spawn.Process(target=_serve, args=(theirs,), daemon=True)
    with tempfile.TemporaryDirectory() as folder:
        servers = Path(folder) / "servers"
        try:
            with launch(servers) as stack:
                sink.start()
                url = f"http://127.0.0.1:{ours.recv()}/"
                broker = stack.addresses.broker_url
                runs = [
                    judged(_measure(spawn, ours, url, broker, limit), limit, rng=rng)
                    for limit in limits
                ]
                ours.send(False)
                sink.join(5.0)
        finally:
            if sink.is_alive():
                sink.kill()
            discard(servers)
    return {"workers": WORKERS, "seconds": SECONDS, "runs": runs}


def main(json: bool) -> dict[str, Any]:
    """Run and print: a table, or with `json` one object on the last line."""
    result = run()
    out = sys.stdout.write
    if json:
        out(json_module.dumps(result) + "\n")
        return result
    out(f"{'limit/s':>8} {'used':>7} {'fullest window':>15} {'fullest second':>15}\n")
    for each in result["runs"]:
        out(
            f"{each['limit_per_second']:>8} {each['used_ratio']:>7.3f}"
            f" {each['max_window_ratio']:>15.3f} {each['fullest_second_ratio']:>15.3f}\n"
        )
    return result


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="bench.pacing")
    arguments.add_argument("--json", action="store_true")
    main(arguments.parse_args().json)

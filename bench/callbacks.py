"""A provider that calls back: three status callbacks for each message that the sink took.

A process of its own, on the same cores as everything else. It asks the sink who wants to be
called, signs as Twilio does, and posts over kept connections, at a pace or as fast as it is
answered. It ends when it has been told how many there will be and has posted them all.
"""

import asyncio
import json
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import uvloop

from channels.sandbox import credentials
from channels.twilio_signature import signature

STATUSES = ("queued", "sent", "delivered")
CONNECTIONS = 16
LOOK = 0.1
"""Seconds between two questions to the sink."""


class Caller:
    """Posts what it is given, `rate` a second, None for as fast as it is answered."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.sink_url, self.api_url = job["sink"], job["api"]
        self.rate: float | None = job["rate"]
        self.wanted: int = job["messages"] * len(STATUSES)
        self.waiting: deque[bytes] = deque()
        self.posted = self.refused = 0
        self.began = time.monotonic()

    def allowed(self) -> int:
        if self.rate is None:
            return self.wanted
        return int((time.monotonic() - self.began) * self.rate)

    async def look(self) -> None:
        """Make requests of the sink's new messages, until there are no more to come."""
        found = 0
        async with httpx.AsyncClient(trust_env=False) as http:
            while found < self.wanted:
                answer = await http.get(f"{self.sink_url}/_sink/callbacks")
                for sid, address, url in answer.json():
                    self.waiting.extend(_requests(sid, address, url))
                    found += len(STATUSES)
                await asyncio.sleep(LOOK)

    async def post(self, taken: list[int]) -> None:
        """One connection."""
        place = urlsplit(self.api_url)
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        while taken[0] < self.wanted:
            if not self.waiting or taken[0] >= self.allowed():
                await asyncio.sleep(0.005)
                continue
            taken[0] += 1
            writer.write(self.waiting.popleft())
            head = await reader.readuntil(b"\r\n\r\n")
            at = head.lower().find(b"content-length:")
            if at >= 0:
                await reader.readexactly(int(head[at + 15 : head.index(b"\r", at)]))
            self.posted += 1
            self.refused += not head.startswith(b"HTTP/1.1 2")
        writer.close()


def _requests(sid: int, address: str, url: str) -> Iterator[bytes]:
    place = urlsplit(url)
    target = f"{place.path}?{place.query}" if place.query else place.path
    for status in STATUSES:
        fields = {
            "SmsSid": f"SM{sid:032x}",
            "SmsStatus": status,
            "MessageStatus": status,
            "To": address,
            "MessageSid": f"SM{sid:032x}",
            "AccountSid": credentials.TWILIO_ACCOUNT_SID,
            "From": "72345",
            "ApiVersion": "2010-04-01",
        }
        body = urlencode(fields).encode()
        signed = signature(url, list(fields.items()), credentials.TWILIO_AUTH_TOKEN)
        yield (
            b"POST %b HTTP/1.1\r\nHost: %b\r\nX-Twilio-Signature: %b\r\nContent-Length: %d\r\n"
            b"Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n\r\n%b"
            % (target.encode(), place.netloc.encode(), signed, len(body), body)
        )


async def _main(job: dict[str, Any]) -> None:
    caller = Caller(job)
    taken = [0]

    async def tell() -> None:
        while True:
            await asyncio.sleep(0.2)
            print(json.dumps([caller.posted, caller.refused]), flush=True)

    telling = asyncio.create_task(tell())
    async with asyncio.TaskGroup() as group:
        group.create_task(caller.look())
        for _ in range(CONNECTIONS):
            group.create_task(caller.post(taken))
    telling.cancel()
    print(json.dumps([caller.posted, caller.refused]), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(json.loads(sys.stdin.readline())))

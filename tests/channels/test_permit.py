"""Nothing starts that could outlast the right to send, however long a process stood still."""

import asyncio
import os
import signal
import sys
import time

import pytest

from channels.transport import CurlTransport, NotSent, Request
from channels.wire import Permit, permit
from tests.contracts.server import Reply, serving


async def test_a_request_that_could_outlast_its_permit_is_not_sent() -> None:
    transport = CurlTransport()
    async with serving(lambda _: Reply(200)) as server:
        request = Request("POST", server.url, body=b"x", timeout=10.0)
        held = Permit(time.monotonic() + 5.0)
        permit.set(held)
        with pytest.raises(NotSent, match="right to send ended"):
            await transport.request(request)
        assert server.requests == []
        held.ends += 60.0
        assert (await transport.request(request)).status == 200
        assert len(server.requests) == 1
    await transport.aclose()


FROZEN = """
import asyncio, sys, time
import uvloop
from channels.transport import CurlTransport, NotSent, Request, TransportError
from channels.wire import Permit, permit

async def main():
    transport = CurlTransport()
    permit.set(Permit(time.monotonic() + 3.0))
    request = Request("POST", sys.argv[1], body=b"x", timeout=2.0)
    try:
        await transport.request(request)
    except TransportError:
        pass
    try:
        await transport.request(request)
    except NotSent:
        print("not sent", flush=True)

uvloop.install()
asyncio.run(main())
"""


async def test_what_a_frozen_process_was_about_to_send_does_not_leave_when_it_wakes() -> None:
    """It is stopped between two requests until its permit has ended."""
    arrived = asyncio.Event()

    def answer(_: object) -> Reply:
        arrived.set()
        return Reply(200, delay=0.5)

    async with serving(answer) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", FROZEN, server.url), stdout=asyncio.subprocess.PIPE
        )
        await arrived.wait()
        os.kill(process.pid, signal.SIGSTOP)
        await asyncio.sleep(2.5)  # the permit ends meanwhile
        os.kill(process.pid, signal.SIGCONT)
        told, _ = await process.communicate()
        assert told == b"not sent\n"
        assert len(server.requests) == 1

"""The transport against a raw socket server: what was sent, what was not, and never twice."""

import asyncio
import logging
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from channels.contract import Reason
from channels.transport import (
    CurlTransport,
    NoAnswer,
    NotSent,
    Request,
    Response,
    TransportError,
)
from tests.contracts.server import (
    HANG,
    RESET,
    Answer,
    Raw,
    Received,
    Reply,
    ScriptedServer,
    refused_url,
    serving,
)

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
Story = Callable[[CurlTransport], Awaitable[None]]


@pytest.fixture(params=list(LOOPS))
def play(request: pytest.FixtureRequest) -> Callable[[Story], None]:
    """Runs a story with a transport on each kind of loop, and no callback may fail there."""

    def play_on(story: Story, **options: object) -> None:
        async def whole() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: complaints.append(context)
            )
            transport = CurlTransport(**options)
            try:
                await story(transport)
            finally:
                await transport.aclose()

        complaints: list[object] = []
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(whole())
        assert complaints == []

    return play_on


def post(url: str, body: bytes = b"hello", **more) -> Request:
    return Request("POST", url, (("Content-Type", "text/plain"),), body, **more)


async def ending(transport: CurlTransport, request: Request) -> Response | TransportError:
    try:
        return await transport.request(request)
    except TransportError as error:
        return error


def ok(_: Received) -> Answer:
    return Reply(200, b"fine", {"X-Seen": "yes"})


def test_a_post_and_its_answer(play) -> None:
    async def story(transport: CurlTransport) -> None:
        async with serving(ok) as server:
            headers = [("Content-Type", "text/plain"), ("X-Empty", ""), ("X-Odd", "a: b;c")]
            request = Request("POST", server.url + "/p?q=1", headers, b"hello")
            response = await transport.request(request)
        assert (response.status, response.body) == (200, b"fine")
        assert response.headers["x-seen"] == "yes"
        (received,) = server.requests
        assert (received.method, received.target, received.body) == ("POST", "/p?q=1", b"hello")
        sent = {name: v for name, v in received.headers.items() if name != "host"}
        assert sent == {
            "content-type": "text/plain",
            "content-length": "5",
            "user-agent": "outage-dispatcher",
            "x-empty": "",
            "x-odd": "a: b;c",
        }

    play(story)


def test_resets_after_accepting_are_neither_repeated_nor_hidden(play) -> None:
    """Of 2,000 requests over kept-alive connections every hundredth is reset after accepting."""

    async def story(transport: CurlTransport) -> None:
        resets = 0

        def script(received: Received) -> Answer:
            nonlocal resets
            if int(received.path[1:]) % 100 or received.nth_on_connection == 1:
                return Reply(201)
            resets += 1
            return RESET

        async def lane(numbers: range) -> None:
            for number in numbers:
                end = await ending(transport, post(f"{server.url}/{number}"))
                endings[number] = end

        endings: dict[int, Response | TransportError] = {}
        async with serving(script) as server:
            await asyncio.gather(*(lane(range(n, 2000, 8)) for n in range(8)))
        seen = Counter(received.path for received in server.requests)
        assert len(endings) == 2000
        assert set(seen.values()) == {1}
        assert len(seen) == 2000
        assert resets >= 15
        lost = [e for e in endings.values() if isinstance(e, TransportError)]
        assert len(lost) == resets
        assert all(isinstance(e, NoAnswer) and e.reason is Reason.CONNECTION_LOST for e in lost)
        assert server.connections < 100

    play(story)


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_a_change_without_a_body_is_not_repeated_either(play, method: str) -> None:
    async def story(transport: CurlTransport) -> None:
        def script(received: Received) -> Answer:
            return RESET if received.method == method else Reply(200)

        async with serving(script) as server:
            await transport.request(Request("GET", server.url))
            end = await ending(transport, Request(method, server.url))
        assert isinstance(end, NoAnswer)
        assert [r.method for r in server.requests] == ["GET", method]

    play(story)


@pytest.mark.parametrize("status", [302, 307, 401, 408, 417, 421, 425, 429, 503])
def test_no_status_makes_a_second_request(play, status: int) -> None:
    async def story(transport: CurlTransport) -> None:
        headers = {"Location": "/again", "WWW-Authenticate": "Basic", "Retry-After": "0"}
        async with serving(lambda r: Reply(status, b"", headers)) as server:
            for _ in range(2):
                response = await transport.request(post(server.url))
                assert response.status == status
        assert len(server.requests) == 2

    play(story)


def test_refused_is_not_sent(play) -> None:
    async def story(transport: CurlTransport) -> None:
        with pytest.raises(NotSent):
            await transport.request(post(refused_url()))

    play(story)


def test_refused_after_a_success_on_the_same_handle_is_not_sent(play) -> None:
    async def story(transport: CurlTransport) -> None:
        async with serving(ok) as server:
            await transport.request(post(server.url))
        with pytest.raises(NotSent):
            await transport.request(post(refused_url()))

    play(story, concurrency=1)


def test_a_connection_that_is_not_taken_up_is_not_sent(play) -> None:
    """A listener whose queue is full lets further connections wait for ever."""

    async def story(transport: CurlTransport) -> None:
        with socket.socket() as listener, ExitStack() as waiting:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(4):
                filler = waiting.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            end = await ending(transport, post(url))
        assert isinstance(end, NotSent)

    play(story, connect_timeout=0.2)


def test_unknown_host_is_not_sent(play) -> None:
    async def story(transport: CurlTransport) -> None:
        with pytest.raises(NotSent):
            await transport.request(post("http://nowhere.invalid/"))

    play(story)


def test_failed_tls_is_not_sent(play) -> None:
    """The server does not speak TLS; no part of the request reaches it."""

    async def story(transport: CurlTransport) -> None:
        async with serving(ok) as server:
            end = await ending(transport, post(server.url.replace("http:", "https:"), timeout=0.3))
        assert isinstance(end, NotSent)
        assert server.requests == []

    play(story)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for "localhost", with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return file


@pytest.mark.parametrize(
    ("host", "trusted", "passes"),
    [("localhost", True, True), ("localhost", False, False), ("127.0.0.1", True, False)],
    ids=["trusted", "unknown issuer", "wrong name"],
)
def test_tls_is_verified(play, certificate: Path, host: str, trusted: bool, passes: bool) -> None:
    async def story(transport: CurlTransport) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        async with serving(ok, context) as server:
            end = await ending(transport, post(server.url.replace("127.0.0.1", host)))
        assert isinstance(end, Response if passes else NotSent)
        assert len(server.requests) == int(passes)

    play(story, ca_file=str(certificate) if trusted else "")


def test_a_hang_ends_in_time_and_may_have_arrived(play) -> None:
    async def story(transport: CurlTransport) -> None:
        loop = asyncio.get_running_loop()
        async with serving(lambda r: HANG) as server:
            started = loop.time()
            end = await ending(transport, post(server.url, timeout=0.3))
            took = loop.time() - started
        assert isinstance(end, NoAnswer)
        assert end.reason is Reason.TIMEOUT
        assert 0.25 < took < 3.0

    play(story)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"garbage garbage\r\n\r\n", Reason.UNREADABLE_ANSWER),
        (b"\0" * 100, Reason.UNREADABLE_ANSWER),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc", Reason.UNREADABLE_ANSWER),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc", Reason.UNREADABLE_ANSWER),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", None),
        (b"HTTP/1.1 200 OK\r\nX: y", Reason.UNREADABLE_ANSWER),
        (b"", Reason.CONNECTION_LOST),
    ],
)
def test_a_broken_answer_is_no_answer(play, raw: bytes, reason: Reason | None) -> None:
    async def story(transport: CurlTransport) -> None:
        async with serving(lambda r: Raw(raw)) as server:
            end = await ending(transport, post(server.url))
        assert isinstance(end, NoAnswer)
        assert reason is None or end.reason is reason
        assert len(server.requests) == 1

    play(story)


def test_an_answer_over_the_limit_is_no_answer(play) -> None:
    async def story(transport: CurlTransport) -> None:
        async with serving(lambda r: Reply(200, b"x" * int(r.path[1:]))) as server:
            fits = await transport.request(post(server.url + "/5000"))
            over = await ending(transport, post(server.url + "/5001"))
            again = await transport.request(post(server.url + "/1"))
        assert len(fits.body) == 5000
        assert isinstance(over, NoAnswer)
        assert over.reason is Reason.UNREADABLE_ANSWER
        assert again.body == b"x"

    play(story, max_body=5000)


def test_chunked_and_interim_answers_are_read(play) -> None:
    async def story(transport: CurlTransport) -> None:
        raw = (
            b"HTTP/1.1 103 Early Hints\r\nLink: </early>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        async with serving(lambda r: Raw(raw, keep=True)) as server:
            for _ in range(3):
                response = await transport.request(post(server.url))
                assert (response.status, response.body) == (200, b"abcde")
                assert "link" not in response.headers
        assert server.connections == 1

    play(story)


def test_no_content(play) -> None:
    async def story(transport: CurlTransport) -> None:
        async with serving(lambda r: Reply(204)) as server:
            response = await transport.request(post(server.url))
        assert (response.status, response.body) == (204, b"")

    play(story)


def test_a_large_body_arrives_whole_and_at_once(play) -> None:
    async def story(transport: CurlTransport) -> None:
        body = bytes(range(256)) * 6000
        async with serving(ok) as server:
            await transport.request(post(server.url, body))
        (received,) = server.requests
        assert received.body == body
        assert "expect" not in received.headers

    play(story)


def test_handles_carry_different_requests_in_turn(play) -> None:
    async def story(transport: CurlTransport) -> None:
        turns = [
            ("GET", b""),
            ("POST", b"one"),
            ("GET", b""),
            ("PUT", b"two"),
            ("POST", b""),
            ("HEAD", b""),
            ("PATCH", b"three"),
            ("DELETE", b""),
            ("POST", b"four"),
        ]
        async with serving(lambda r: Reply(200, b"" if r.method == "HEAD" else b"x")) as server:
            for number, (method, body) in enumerate(turns):
                headers = [("X-Number", str(number))]
                await transport.request(Request(method, server.url, headers, body))
        seen = [(r.method, r.body, r.headers["x-number"]) for r in server.requests]
        assert seen == [(m, b, str(n)) for n, (m, b) in enumerate(turns)]

    play(story)


def test_never_more_at_once_than_allowed(play) -> None:
    async def story(transport: CurlTransport) -> None:
        async with serving(lambda r: Reply(200, delay=0.002)) as server:
            requests = (transport.request(post(server.url)) for _ in range(200))
            responses = await asyncio.gather(*requests)
        assert len(responses) == 200
        assert server.peak == 5
        assert server.connections == 5

    play(story, concurrency=5)


def test_no_free_place_in_time_is_not_sent(play) -> None:
    async def story(transport: CurlTransport) -> None:
        async with serving(lambda r: HANG) as server:
            held = asyncio.create_task(ending(transport, post(server.url, timeout=1.0)))
            while not server.requests:
                await asyncio.sleep(0.01)
            end = await ending(transport, post(server.url, timeout=0.1))
            held.cancel()
            await asyncio.wait([held])
        assert isinstance(end, NotSent)
        assert len(server.requests) == 1

    play(story, concurrency=1)


def test_cancelling_frees_the_place_and_drops_the_connection(play) -> None:
    async def story(transport: CurlTransport) -> None:
        def script(received: Received) -> Answer:
            return HANG if received.path == "/hang" else Reply(200, b"late")

        async with serving(script) as server:
            for _ in range(3):
                task = asyncio.create_task(transport.request(post(server.url + "/hang")))
                before = len(server.requests)
                while len(server.requests) == before:
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                response = await transport.request(post(server.url, timeout=2.0))
                assert response.body == b"late"
            await closed(server, down_to=1)

    play(story, concurrency=1)


async def closed(server: ScriptedServer, down_to: int) -> None:
    async with asyncio.timeout(2):
        while len(server.open) > down_to:
            await asyncio.sleep(0.01)


def test_closing_fails_what_is_under_way(play) -> None:
    async def story(transport: CurlTransport) -> None:
        async with serving(lambda r: HANG) as server:
            task = asyncio.create_task(ending(transport, post(server.url)))
            while not server.requests:
                await asyncio.sleep(0.01)
            await transport.aclose()
            assert isinstance(await task, NoAnswer)
            await closed(server, down_to=0)

    play(story)


def test_one_transport_serves_one_loop_after_another() -> None:
    transport = CurlTransport()

    async def once() -> int:
        async with serving(ok) as server:
            return (await transport.request(post(server.url))).status

    assert [asyncio.run(once()) for _ in range(3)] == [200] * 3
    asyncio.run(transport.aclose())


async def test_two_running_loops_cannot_share_a_transport() -> None:
    transport = CurlTransport()
    async with serving(ok) as server:
        await transport.request(post(server.url))

        def elsewhere() -> None:
            asyncio.run(transport.request(post(server.url)))

        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(elsewhere)
    await transport.aclose()


async def test_requests_that_are_malformed_are_refused_without_their_secret() -> None:
    transport = CurlTransport()
    async with serving(ok) as server:
        for bad in (
            Request("POST", "file:///etc/hosts", (), b"x"),
            Request("POST", server.url, (("X", "secret\r\nY: z"),), b"x"),
            Request("POST", server.url, (("X\nY", "secret"),), b"x"),
        ):
            with pytest.raises(ValueError, match=r"only http|line break") as caught:
                await transport.request(bad)
            assert "secret" not in str(caught.value)
        assert (await transport.request(post(server.url))).status == 200
    assert len(server.requests) == 1
    await transport.aclose()


async def test_nothing_of_a_request_shows(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    transport = CurlTransport()
    request = Request("POST", refused_url() + "/?token=hush", (("X", "hush"),), b"hush")
    with pytest.raises(NotSent) as caught:
        await transport.request(request)
    answer = Response(200, {"x": "hush"}, b"hush")
    assert "hush" not in str(caught.value) + repr(caught.value) + repr(request) + repr(answer)
    assert "hush" not in caplog.text
    await transport.aclose()


def test_proxies_of_the_environment_are_ignored() -> None:
    code = (
        "import asyncio\n"
        "from channels.transport import CurlTransport, Request\n"
        "from tests.contracts.server import Reply, serving\n"
        "async def main():\n"
        "    async with serving(lambda r: Reply(200)) as server:\n"
        "        print((await CurlTransport().request(Request('GET', server.url))).status)\n"
        "asyncio.run(main())"
    )
    dead = refused_url()
    environment = {"http_proxy": dead, "HTTP_PROXY": dead, "ALL_PROXY": dead, "all_proxy": dead}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=environment
    )
    assert done.stdout == b"200\n"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert Response(429, {"retry-after": value}, b"").retry_after() == seconds


def test_retry_after_as_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert Response(429, {"retry-after": date}, b"").retry_after() == pytest.approx(60, abs=2)

"""What every adapter owes, as test classes to inherit.

`AdapterContract` suits any adapter. `HttpContract` adds what an adapter over the transport
owes when a provider answers, fails to answer, or cannot be reached. A subclass says what is
its own in class attributes and in `build`; it is collected when its name starts with `Test`:

    class TestTwilioSms(HttpContract):
        module = "channels.twilio_sms"
        sdk = ("twilio",)
        message = Message(...)
        addresses = ("+15550100", ...)
        secrets = ("the token",)
        accepted = Reply(201, b'{"sid": "SM..."}')
        statuses = {"opted out": Case(Reply(400, ...), RecipientRefused, Reason.OPTED_OUT)}
        at_limit = {...}; over_limit = {...}

        def build(self, url, transport, timeout): ...
"""

import copy
import logging
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, ClassVar

import pytest

from channels.contract import (
    Accepted,
    Adapter,
    Envelope,
    Limits,
    Message,
    Outcome,
    Reason,
    Severity,
    TryLater,
    Unknown,
)
from channels.transport import CurlTransport, Transport
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


@dataclass(frozen=True, slots=True)
class Case:
    """An answer of the provider and the exact outcome that every envelope must get.

    `retry_after` is in seconds, compared within 2 s if given; `requests` is how many requests
    the provider may see for the one envelope.
    """

    answer: Answer
    outcome: type
    reason: Reason
    retry_after: float | None = None
    requests: int = 1


async def outcomes_of(
    adapter: Adapter, message: Message, envelopes: Sequence[Envelope]
) -> dict[str, Outcome]:
    """Send and collect; fails unless each envelope gets exactly one outcome."""
    outcomes = [outcome async for outcome in adapter.send(message, envelopes)]
    keys = [outcome.key for outcome in outcomes]
    assert sorted(keys) == sorted(envelope.key for envelope in envelopes)
    return {outcome.key: outcome for outcome in outcomes}


class AdapterContract:
    """Promises that do not depend on a wire."""

    module: ClassVar[str]
    sdk: ClassVar[tuple[str, ...]] = ()
    """Top-level packages that importing the module must not import."""
    message: ClassVar[Message]
    addresses: ClassVar[tuple[str, ...]]
    """At least two; none may ever be seen in an outcome, a log line or a repr."""
    secrets: ClassVar[tuple[str, ...]] = ()
    at_limit: ClassVar[Mapping[str, Message]] = {}
    """Messages in which `check` finds no error."""
    over_limit: ClassVar[Mapping[str, Message]] = {}
    """Messages in which `check` finds an error."""

    def build(self, url: str, transport: Transport, timeout: float) -> Adapter:
        """The adapter, pointed at `url`, each request allowed `timeout` seconds."""
        raise NotImplementedError

    def envelopes(self, count: int = 2) -> list[Envelope]:
        """The first `count` addresses, each under a key of its own."""
        chosen = self.addresses[:count]
        assert len(chosen) == count
        return [Envelope(key=f"d{i}", address=a) for i, a in enumerate(chosen)]

    @asynccontextmanager
    async def reached(self, url: str = "", timeout: float = 5.0) -> AsyncIterator[Adapter]:
        """The adapter over a transport of its own, which is closed at the end."""
        transport = CurlTransport(connect_timeout=2.0)
        try:
            yield self.build(url or refused_url(), transport, timeout)
        finally:
            await transport.aclose()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """`case`, `fitting` and `oversized` come from the subclass's own tables."""
        tables = {"case": "statuses", "fitting": "at_limit", "oversized": "over_limit"}
        for argument, table in tables.items():
            if argument in metafunc.fixturenames:
                rows = getattr(self, table)
                metafunc.parametrize(argument, list(rows.values()), ids=list(rows))

    async def test_says_what_it_is(self) -> None:
        async with self.reached() as adapter:
            assert re.fullmatch(r"[a-z]+(_[a-z]+)*", adapter.name)
            assert self.module.endswith(adapter.name)
            assert adapter.channel
            assert adapter.accepts
            assert set(adapter.parts) == set(self.message.parts)
            assert isinstance(adapter.limits, Limits)
            assert adapter.limits.envelopes_per_request >= 1
            assert adapter.limits.concurrency >= 1

    def test_import_needs_no_sdk(self) -> None:
        code = (
            f"import sys, {self.module}\n"
            f"loaded = [name for name in {self.sdk!r} if name in sys.modules]\n"
            "sys.exit(str(loaded) if loaded else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    async def test_repr_tells_no_secret(self) -> None:
        async with self.reached() as adapter:
            settings = getattr(adapter, "settings", None)
            self.assert_discreet(repr(adapter), str(adapter), repr(settings), str(settings))

    async def test_check_passes_the_plain_message(self) -> None:
        async with self.reached() as adapter:
            before = copy.deepcopy(self.message)
            problems = adapter.check(self.message)
            assert [p for p in problems if p.severity is Severity.ERROR] == []
            assert self.message == before

    async def test_check_finds_empty_parts(self) -> None:
        async with self.reached() as adapter:
            for part in adapter.parts:
                parts = dict(self.message.parts) | {part: "  "}
                problems = adapter.check(_with_parts(self.message, parts))
                assert [p.part for p in problems if p.severity is Severity.ERROR] == [part]

    async def test_check_takes_what_just_fits(self, fitting: Message) -> None:
        async with self.reached() as adapter:
            problems = adapter.check(fitting)
            assert [p for p in problems if p.severity is Severity.ERROR] == []

    async def test_check_refuses_one_over(self, oversized: Message) -> None:
        async with self.reached() as adapter:
            problems = adapter.check(oversized)
            assert any(p.severity is Severity.ERROR for p in problems)

    def assert_discreet(self, *texts: str) -> None:
        """None of the texts may hold a secret or an address."""
        for text in texts:
            for private in (*self.secrets, *self.addresses):
                assert private not in text


class HttpContract(AdapterContract):
    """Promises of an adapter whose provider is reached over the transport."""

    accepted: ClassVar[Reply]
    """The provider's answer to a good request. Override `accept` where it must differ."""
    statuses: ClassVar[Mapping[str, Case]]
    timeout: ClassVar[float] = 0.4
    retry_after_headers: ClassVar[bool] = True
    """Whether the provider may send Retry-After with a 429."""
    throttled: ClassVar[Reply] = Reply(429, b"{}")
    """The provider's 429 without any header."""

    def accept(self, received: Received) -> Answer:
        """The provider's answer to a good request."""
        return self.accepted

    def prelude(self, received: Received) -> Answer | None:
        """The answer to a request that carries no message, such as one for a token."""
        return None

    @asynccontextmanager
    async def provider(self, answer: Answer | None = None) -> AsyncIterator[ScriptedServer]:
        """A server that gives `answer` to each message, the good one unless told otherwise.

        Its `requests` hold only those that carried a message.
        """

        def script(received: Received) -> Answer:
            early = self.prelude(received)
            if early is not None:
                server.requests.remove(received)
                return early
            return self.accept(received) if answer is None else answer

        async with serving(script) as server:
            yield server

    async def outcomes_for(
        self, answer: Answer | None, envelopes: Sequence[Envelope], timeout: float = 5.0
    ) -> tuple[dict[str, Outcome], list[Received]]:
        """The outcomes and the requests that arrived when the provider gives `answer`."""
        async with self.provider(answer) as server, self.reached(server.url, timeout) as adapter:
            outcomes = await outcomes_of(adapter, self.message, envelopes)
            return outcomes, list(server.requests)

    def requests_for(self, adapter_limits: Limits, envelopes: int) -> int:
        """How many requests that many envelopes with different addresses take."""
        return -(-envelopes // adapter_limits.envelopes_per_request)

    async def test_accepted_with_a_ref_for_each(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        before = copy.deepcopy(self.message)
        envelopes = self.envelopes()
        async with self.provider() as server, self.reached(server.url) as adapter:
            outcomes = await outcomes_of(adapter, self.message, envelopes)
            expected = self.requests_for(adapter.limits, len(envelopes))
            assert len(server.requests) == expected
        assert all(isinstance(o, Accepted) and o.ref for o in outcomes.values())
        assert len({o.ref for o in outcomes.values() if isinstance(o, Accepted)}) == len(outcomes)
        assert self.message == before
        self.assert_discreet(caplog.text, *(repr(o) for o in outcomes.values()))

    async def test_nothing_to_send_sends_nothing(self) -> None:
        outcomes, requests = await self.outcomes_for(None, [])
        assert outcomes == {}
        assert requests == []

    async def test_each_status_has_its_outcome(
        self, case: Case, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        outcomes, requests = await self.outcomes_for(case.answer, self.envelopes(1))
        (outcome,) = outcomes.values()
        assert (type(outcome), outcome.reason) == (case.outcome, case.reason)
        assert len(outcome.detail) <= 200
        if isinstance(outcome, TryLater) and case.retry_after is not None:
            assert outcome.retry_after == pytest.approx(case.retry_after, abs=2.0)
        assert len(requests) == case.requests
        self.assert_discreet(caplog.text, repr(outcome))

    async def test_retry_after_in_seconds_and_as_a_date(self) -> None:
        if not self.retry_after_headers:
            return
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
        for value, seconds in (("7", 7.0), (date, 90.0), ("soon", None), ("-5", None)):
            answer = Reply(self.throttled.status, self.throttled.body, {"Retry-After": value})
            outcomes, _ = await self.outcomes_for(answer, self.envelopes(1))
            (outcome,) = outcomes.values()
            assert isinstance(outcome, TryLater)
            assert outcome.reason is Reason.THROTTLED
            if seconds is not None:
                assert outcome.retry_after == pytest.approx(seconds, abs=2.0)
            else:  # unreadable: none, or the adapter's own wish
                assert outcome.retry_after is None or outcome.retry_after >= 0

    async def test_refused_connection_is_tried_later(self) -> None:
        async with self.reached(refused_url()) as adapter:
            outcomes = await outcomes_of(adapter, self.message, self.envelopes())
        for outcome in outcomes.values():
            assert isinstance(outcome, TryLater)
            assert outcome.reason is Reason.UNREACHABLE
            self.assert_discreet(repr(outcome))

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            pytest.param(HANG, Reason.TIMEOUT, id="timeout"),
            pytest.param(RESET, Reason.CONNECTION_LOST, id="reset after accepting"),
            pytest.param(Raw(b"\0\1\2 not http\r\n\r\n"), Reason.UNREADABLE_ANSWER, id="not http"),
        ],
    )
    async def test_a_lost_answer_is_unknown_and_asked_once(
        self, fault: Answer, reason: Reason, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        seconds = self.timeout if fault is HANG else 5.0
        outcomes, requests = await self.outcomes_for(fault, self.envelopes(1), seconds)
        (outcome,) = outcomes.values()
        assert (type(outcome), outcome.reason) == (Unknown, reason)
        assert len(requests) == 1
        self.assert_discreet(caplog.text, repr(outcome))

    async def test_a_reset_on_a_used_connection_is_not_repeated(self) -> None:
        """The trap: libraries silently repeat a POST on a connection that was used before."""
        seen = 0

        def script(received: Received) -> Answer:
            nonlocal seen
            early = self.prelude(received)
            if early is not None:
                return early
            seen += 1
            return RESET if seen == 2 else self.accept(received)

        first, second = self.envelopes(2)
        async with serving(script) as server, self.reached(server.url) as adapter:
            await outcomes_of(adapter, self.message, [first])
            outcomes = await outcomes_of(adapter, self.message, [second])
        (outcome,) = outcomes.values()
        assert isinstance(outcome, Unknown)
        assert seen == 2

    async def test_a_closed_generator_leaves_nothing_behind(self) -> None:
        """Closing `send` early cancels what is under way, and the adapter still works."""
        envelopes = self.envelopes(2)
        async with self.provider() as server, self.reached(server.url) as adapter:
            sending: Any = adapter.send(self.message, envelopes)
            await anext(sending)
            await sending.aclose()
            again = await outcomes_of(adapter, self.message, envelopes)
        assert all(isinstance(o, Accepted) for o in again.values())


def _with_parts(message: Message, parts: Mapping[str, str]) -> Message:
    return Message(
        id=message.id,
        channel=message.channel,
        locale=message.locale,
        parts=parts,
        slots=message.slots,
        thread=message.thread,
        sender=message.sender,
        expires_at=message.expires_at,
        hash=message.hash,
    )

"""What every adapter owes whose provider calls back, as a test class to inherit.

A subclass builds its reader and makes requests as its provider would; `stories` say what a
request must be read as:

    class TestTwilioReceipts(ReceiptContract):
        private = ("+15550100001", "the token")
        stories = {"delivered": Story(b"MessageStatus=delivered...", Reading(receipts=(...)))}

        def build(self, configured=True): ...
        def signed(self, body, now): ...
"""

import base64
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.contract import Reading, ReceiptReader, ReceiptRefused, ReceiptRequest

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
CODES = {"forged", "unsigned", "too_old", "unreadable", "not_configured"}
JUNK = (
    st.binary(max_size=200)
    | st.sampled_from([b"", b"{}", b"[]", b"[null]", b"null", b"=&=&", b"%00=%ff", b"[[]]"])
    | st.text(max_size=80).map(str.encode)
)


@dataclass(frozen=True, slots=True)
class Story:
    """A body as the provider posts it and the reading that it must have."""

    body: bytes
    reading: Reading


class ReceiptContract:
    """Promises of `read`: believes its provider only, and never fails in another way."""

    stories: ClassVar[Mapping[str, Story]]
    private: ClassVar[tuple[str, ...]]
    """Secrets and addresses that no refusal and no log line may hold."""
    signature_header: ClassVar[str]

    def build(self, configured: bool = True) -> ReceiptReader:
        """The adapter, with or without what it verifies with."""
        raise NotImplementedError

    def signed(self, body: bytes, now: datetime = NOW) -> ReceiptRequest:
        """A request with this body as the provider would sign it at `now`."""
        raise NotImplementedError

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """`story` comes from the subclass's own table."""
        if "story" in metafunc.fixturenames:
            rows = list(self.stories.values())
            metafunc.parametrize("story", rows, ids=list(self.stories))

    def refusal(self, request: ReceiptRequest, *, now: datetime = NOW) -> str:
        """The code with which a request must be refused."""
        with pytest.raises(ReceiptRefused) as caught:
            self.build().read(request, now=now)
        assert caught.value.code in CODES
        for private in self.private:
            assert private not in str(caught.value)
        return caught.value.code

    def outcome(self, request: ReceiptRequest) -> Reading | None:
        """The reading, None if refused; any other exception fails the test."""
        try:
            return self.build().read(request, now=NOW)
        except ReceiptRefused as refused:
            assert refused.code in CODES
            return None

    def one(self) -> Story:
        """The first story, which should have a receipt."""
        return next(iter(self.stories.values()))

    def test_is_a_reader(self) -> None:
        assert isinstance(self.build(), ReceiptReader)

    def test_each_story_is_read(self, story: Story, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        reading = self.build().read(self.signed(story.body), now=NOW)
        assert reading == story.reading
        for event in [*(r.event for r in reading.receipts), *(c.event for c in reading.consents)]:
            assert event
            assert "\0" not in event
        for private in self.private:
            assert private not in caplog.text + repr(reading) + repr(self.signed(story.body))
        for receipt in reading.receipts:
            assert len(receipt.detail) <= 200

    def test_a_repeat_has_the_same_events(self, story: Story) -> None:
        first = self.build().read(self.signed(story.body), now=NOW)
        assert self.build().read(self.signed(story.body), now=NOW) == first

    def test_unsigned_is_refused(self) -> None:
        request = self.signed(self.one().body)
        headers = {k: v for k, v in request.headers.items() if k != self.signature_header}
        assert self.refusal(replace(request, headers=headers)) == "unsigned"

    def test_without_a_secret_nothing_is_believed(self) -> None:
        with pytest.raises(ReceiptRefused) as caught:
            self.build(configured=False).read(self.signed(self.one().body), now=NOW)
        assert caught.value.code == "not_configured"

    def test_another_body_under_the_same_signature_is_forged(self) -> None:
        bodies = [story.body for story in self.stories.values()]
        request = self.signed(bodies[0])
        for body in bodies[1:]:
            if body != bodies[0]:
                assert self.refusal(replace(request, body=body)) == "forged"

    def test_no_bytes_break_it(self) -> None:
        request = self.signed(self.one().body)

        @settings(max_examples=150, deadline=None, database=None, derandomize=True)
        @given(JUNK, st.text(max_size=40), st.text(max_size=40))
        def junk(body: bytes, text: str, url: str) -> None:
            self.outcome(replace(request, body=body))
            headers = dict.fromkeys((*request.headers, "content-type"), text)
            assert self.outcome(replace(request, headers=headers)) is None
            self.outcome(replace(request, public_url=url))
            self.outcome(replace(request, public_url=request.public_url + url))
            self.outcome(ReceiptRequest(text, url, {}, body))

        junk()

    def test_no_signed_bytes_break_it(self) -> None:
        @settings(max_examples=150, deadline=None, database=None, derandomize=True)
        @given(JUNK)
        def junk(body: bytes) -> None:
            self.outcome(self.signed(body))

        junk()

    def test_a_changed_bit_is_refused_or_changes_nothing(self) -> None:
        """`%2B` and `%2b` are the same plus; what reads the same is no forgery."""
        request = self.signed(self.one().body)
        honest = self.outcome(request)
        assert honest is not None
        given_signature = request.headers[self.signature_header]

        def check(changed: ReceiptRequest) -> None:
            read = self.outcome(changed)
            assert read is None or read == honest

        for place in range(len(request.body) * 8):
            check(replace(request, body=flipped(request.body, place)))
        for place in range(len(request.public_url) * 8):
            url = flipped(request.public_url.encode(), place).decode("latin-1")
            check(replace(request, public_url=url))
        for place in range(len(given_signature) * 8):
            changed = flipped(given_signature.encode(), place).decode("latin-1")
            headers = {**request.headers, self.signature_header: changed}
            assert self.outcome(replace(request, headers=headers)) is None
        der = base64.b64decode(given_signature)
        for place in range(len(der) * 8):
            changed = base64.b64encode(flipped(der, place)).decode()
            headers = {**request.headers, self.signature_header: changed}
            assert self.outcome(replace(request, headers=headers)) is None


def flipped(data: bytes, place: int) -> bytes:
    """The bytes with one bit changed."""
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)

"""The peers: each posts every message once, and nobody leaves this machine."""

import pytest

from bench import apprise_peer, crowd, racing, wire
from bench.sink import Sink

REQUEST = (
    b"POST /2010-04-01/Accounts/AC1/Messages.json HTTP/1.1\r\nContent-Length: 42\r\n\r\n"
    b"To=%2B12025550111&From=72345&Body=Hello%21"
)


def test_the_wire_posts_the_bytes_it_was_given(taking: Sink) -> None:
    addresses = crowd.by_phone(300).addresses
    assert wire.run(taking, REQUEST, addresses) > 0
    assert taking.addresses() == set(addresses)
    assert taking.report()["texts"] == 1
    assert len(taking.sample()) == len(REQUEST)


def test_a_frame_differs_in_the_address_only() -> None:
    cut = wire.frame(REQUEST)
    assert cut.request("+12025550111") == REQUEST
    assert cut.request("+12025550112") == REQUEST.replace(b"0111", b"0112")


def test_apprise_tells_everybody_at_the_sink(taking: Sink) -> None:
    addresses = crowd.by_phone(10).addresses
    assert apprise_peer.run(taking, addresses, sender="72345", text="Hello") > 0
    assert taking.addresses() == set(addresses)


def test_a_race_that_fails_is_no_result() -> None:
    with pytest.raises(racing.Failed):
        racing.race("bench.wire", [{}], within=30)

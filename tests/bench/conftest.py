"""A sink in a process of its own, as the benches start it."""

from collections.abc import Iterator

import pytest

from bench import sink
from bench.sink import Sink


@pytest.fixture(scope="module")
def _running() -> Iterator[Sink]:
    with sink.running() as taking:
        yield taking


@pytest.fixture
def taking(_running: Sink) -> Sink:
    """A sink that has taken nothing yet."""
    _running.clear()
    return _running

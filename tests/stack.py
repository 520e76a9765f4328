"""A private PostgreSQL and Valkey for tests.

In a conftest, once for each test process (with pytest-xdist each worker gets its own):

    @pytest.fixture(scope="session")
    def addresses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Addresses]:
        with postgres_and_valkey(tmp_path_factory.mktemp("stack")) as addresses:
            yield addresses
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dispatcher.embedded import Addresses, discard, launch


@contextmanager
def postgres_and_valkey(tmp: Path) -> Iterator[Addresses]:
    """Both servers, empty, on a folder inside `tmp`; stopped and deleted at the end (1 s to start)."""
    folder = tmp / "servers"
    try:
        with launch(folder) as stack:
            yield stack.addresses
    finally:
        discard(folder)

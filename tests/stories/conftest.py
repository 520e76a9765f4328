"""One house for all stories, found empty by each; they follow one another on one test process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stories.house import House, living

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("stories"))


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The house, for the whole session."""
    with living(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def house(running: House) -> House:
    """The house with nobody in its directory and nothing ever sent."""
    running.empty()
    return running

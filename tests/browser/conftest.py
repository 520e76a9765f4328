"""One house and one Chromium for all browser tests; each test finds both empty.

Both end with the last browser test: Playwright keeps an event loop of its own in this thread,
in which asynchronous tests of other folders could not run.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from dispatcher.security.rights import Role
from tests.browser import chromium
from tests.browser.desk import PATIENCE, STAFF, Desks, Somebody, Watch, employ
from tests.stories.house import House, living

Staff = Mapping[Role, Somebody]

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(400))


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium, headless."""
    found = chromium.find()
    assert found is not None, chromium.NEEDED.format(python="python")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=list(chromium.FLAGS))
        expect.set_options(timeout=PATIENCE)
        yield opened
        opened.close()


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The installation, its console included."""
    with living(tmp_path_factory.mktemp("house")) as house:
        yield house


@pytest.fixture
def house(running: House) -> House:
    """The house with nobody in its directory, nothing ever said and nobody who may sign in."""
    running.empty()
    return running


@pytest.fixture
def staff(house: House) -> Mapping[Role, Somebody]:
    """One person of each role, who may sign in at this house."""
    with house.services.ledger.transaction() as work:
        for who in STAFF.values():
            employ(work, who)
    return STAFF


@pytest.fixture
def watch() -> Iterator[Watch]:
    """What goes wrong on the pages of this test; anything does fail it."""
    seen = Watch()
    yield seen
    assert seen.wrong == []


@pytest.fixture
def desks(house: House, browser: Browser, watch: Watch) -> Iterator[Desks]:
    """Opens browser windows: `desks(STAFF[role])` signs somebody in."""
    opened = Desks(browser, str(house.operator.http.base_url), watch)
    yield opened
    opened.close()

"""No page keeps anybody out: by axe-core, in light and dark, with Arabic on it, down to 320 px."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, ViewportSize
from starlette.routing import Route

from dispatcher.console.app import rooms as routers
from dispatcher.security.rights import Role
from tests.browser.desk import STAFF, Desk, Desks, Watch, audit, overflow
from tests.browser.scene import NOWHERE, Scene, rooms, set_scene
from tests.stories.house import House

NARROW = ViewportSize(width=320, height=640)
WIDE = ViewportSize(width=1280, height=900)


@pytest.fixture(scope="module")
def scene(running: House) -> Scene:
    """A house with something on every page; these tests only look at it."""
    running.empty()
    return set_scene(running)


@pytest.fixture
def looking(running: House, browser: Browser, watch: Watch) -> Iterator[Desks]:
    """Windows at the house as it is."""
    opened = Desks(browser, str(running.operator.http.base_url), watch)
    yield opened
    opened.close()


def wrong_on(desk: Desk, path: str) -> list[str]:
    """Everything wrong on one page, each line with its path."""
    if path.endswith("/report"):
        page = desk.open_kept(path)
    else:
        page = desk.open(path, status=404 if path == NOWHERE else 200)
    found = audit(page)
    page.emulate_media(color_scheme="dark")
    found += [f"in the dark, {line}" for line in audit(page, ["color-contrast"])]
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(NARROW)
    # As high as the page: what sticks to the window's edge then covers nothing.
    whole: int = page.evaluate("() => document.documentElement.scrollHeight")
    page.set_viewport_size({"width": 320, "height": whole})
    found += [f"in the narrow, {line}" for line in audit(page, ["target-size"])]
    if over := overflow(page):
        found.append(f"{over} px wider than a window of 320")
    page.set_viewport_size(WIDE)
    return [f"{path}: {line}" for line in found]


def test_no_page_keeps_anybody_out(scene: Scene, looking: Desks) -> None:
    """Each page of the list is looked at as the one who may see all of it."""
    stranger = looking()
    wrong = wrong_on(stranger, "/sign-in") + wrong_on(stranger, f"/join/{scene.invitation}")
    desk = looking(STAFF[Role.ADMIN])
    for path in (*rooms(scene).values(), f"/incidents/{scene.incident}/report"):
        wrong += wrong_on(desk, path)
    assert not wrong, "\n".join(wrong)


def test_the_list_of_pages_is_whole(scene: Scene) -> None:
    """A page that somebody adds is looked at too."""
    listed = [*rooms(scene).values(), "/sign-in", f"/join/{scene.invitation}"]
    paths = [path.partition("?")[0] for path in listed]
    routes = [r for router in routers() for r in router.routes if isinstance(r, Route)]
    missed = {
        route.path
        for route in routes
        if "GET" in (route.methods or ())
        and not any(route.path_regex.match(path) for path in paths)
    }
    # Streams, pieces of pages and what stands in a frame are no pages of their own.
    assert missed <= {
        *("/updates/{update}/events", "/updates/{update}/progress"),
        *("/updates/{update}/shortfalls", "/updates/{update}/mail/{audience}/{locale}"),
        *("/updates/{update}/trials", "/incidents/{ref}/report"),
    }

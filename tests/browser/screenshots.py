"""Pictures of every page, for the documents and for looking at: `python -m tests.browser.screenshots`.

Made from the same scene as the tests: three widths in light, one in dark. Nothing is compared
with them; they are there to be looked at.
"""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from dispatcher.security.rights import Role
from tests.browser import chromium
from tests.browser.desk import STAFF, Desk, Desks, Watch
from tests.browser.scene import NOWHERE, Scene, rooms, set_scene
from tests.stories.house import living

FOLDER = Path(__file__).parents[2] / "docs" / "console"
WIDTHS = (320, 768, 1440)
TALLEST = 2_400
"""Pixels of height that a picture shows at most: the rest of a long list says nothing new."""
DARK = {"home", "update-waiting", "watch", "preview", "write", "drill"}


def shoot(page: Page, file: Path, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    whole: int = page.evaluate("() => document.documentElement.scrollHeight")
    page.screenshot(
        path=file,
        clip={"x": 0, "y": 0, "width": width, "height": min(whole, TALLEST)},
        full_page=True,
        scale="css",
        caret="initial",
        animations="allow",
    )


def take(desk: Desk, name: str, path: str, folder: Path) -> None:
    page = desk.open(path, status=404 if path == NOWHERE else 200)
    for width in WIDTHS:
        shoot(page, folder / f"{name}-{width}.png", width)
    if name in DARK:
        page.emulate_media(color_scheme="dark")
        shoot(page, folder / f"{name}-dark.png", 768)
        page.emulate_media(color_scheme="light")


def take_all(desks: Desks, scene: Scene, folder: Path, only: set[str]) -> None:
    stranger, admin = desks(), desks(STAFF[Role.ADMIN])
    strange = {"sign-in": "/sign-in", "join": f"/join/{scene.invitation}"}
    for desk, pages in ((stranger, strange), (admin, rooms(scene))):
        for name, path in pages.items():
            if not only or name in only:
                take(desk, name, path, folder)


def main(arguments: list[str]) -> int:
    """Arguments: a folder other than `docs/console`, then names of pages (none: all)."""
    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    found = chromium.provide()
    if found is None:
        print(chromium.NEEDED.format(python=sys.executable), file=sys.stderr)
        return 1
    watch = Watch()
    with (
        living(Path(tempfile.mkdtemp()) / "house") as house,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=found, args=list(chromium.FLAGS)) as browser,
    ):
        house.empty()
        scene = set_scene(house)
        desks = Desks(browser, str(house.operator.http.base_url), watch)
        take_all(desks, scene, folder, set(arguments[1:]))
        desks.close()
    for line in watch.wrong:
        print(line)
    for path, size in sorted(watch.weights.items(), key=lambda each: -each[1])[:12]:
        print(f"{size:>8,} bytes  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

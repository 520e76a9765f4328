"""Pictures of every page, for the documents and for looking at: `python -m tests.browser.screenshots`.

Made from the same scene as the tests: three widths in light, some in dark. Nothing is compared
with them; they are there to be looked at.
"""

import argparse
import base64
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from dispatcher.security.rights import Role
from tests.browser import chromium
from tests.browser.desk import STAFF, Desk, Desks, Watch
from tests.browser.scene import NOWHERE, Scene, rooms, set_scene
from tests.stories.house import living

FOLDER = Path(__file__).parents[2] / "docs" / "console"
WIDTHS = (320, 768, 1440)
TALLEST = 2_000
"""Pixels of height that a picture shows at most: the rest of a long list says nothing new."""
QUALITY = 45
DARK = {"home", "update-waiting", "watch", "preview", "write", "drill"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where pictures go, of what kind, and of which pages (none named: of all)."""

    folder: Path
    kind: str
    only: frozenset[str]


def shoot(page: Page, file: Path, width: int) -> None:
    """The page at this width, from its top; WebP weighs a quarter of PNG."""
    page.set_viewport_size({"width": width, "height": 900})
    whole: int = page.evaluate("() => document.documentElement.scrollHeight")
    # As high as the picture, so that what sticks to the window's edges stands at the picture's.
    page.set_viewport_size({"width": width, "height": min(whole, TALLEST)})
    chosen = {"format": "webp", "quality": QUALITY} if file.suffix == ".webp" else {"format": "png"}
    clip = {"x": 0, "y": 0, "width": width, "height": min(whole, TALLEST), "scale": 1}
    browser = page.context.new_cdp_session(page)
    taken = browser.send(
        "Page.captureScreenshot", {**chosen, "clip": clip, "captureBeyondViewport": True}
    )
    browser.detach()
    file.write_bytes(base64.b64decode(taken["data"]))


def take(desk: Desk, name: str, path: str, wanted: Wanted) -> None:
    """One page at every width."""
    if path.endswith("/report"):
        page = desk.open_kept(path)
    else:
        page = desk.open(path, status=404 if path == NOWHERE else 200)
    page.wait_for_load_state("load")
    for width in WIDTHS:
        shoot(page, wanted.folder / f"{name}-{width}.{wanted.kind}", width)
    if name in DARK:
        page.emulate_media(color_scheme="dark")
        shoot(page, wanted.folder / f"{name}-dark.{wanted.kind}", 768)
        page.emulate_media(color_scheme="light")


def take_all(desks: Desks, scene: Scene, wanted: Wanted) -> list[str]:
    """Every page that is wanted; their names."""
    stranger, admin = desks(), desks(STAFF[Role.ADMIN])
    strange = {"sign-in": "/sign-in", "join": f"/join/{scene.invitation}"}
    own = {**rooms(scene), "report": f"/incidents/{scene.incident}/report"}
    taken: list[str] = []
    for desk, pages in ((stranger, strange), (admin, own)):
        for name, path in pages.items():
            if not wanted.only or name in wanted.only:
                take(desk, name, path, wanted)
                taken.append(name)
    return taken


def listed(names: list[str]) -> str:
    """The page of the pictures."""
    lines = [
        "# The console in pictures",
        "",
        "Made by `python -m tests.browser.screenshots` from the scene that the browser tests look",
        "at: an invented operator, invented people. Each page at 320, 768 and 1440 pixels.",
    ]
    for name in names:
        widths = [*(str(width) for width in WIDTHS), *(["dark"] if name in DARK else [])]
        links = " · ".join(f"[{each}]({name}-{each}.webp)" for each in widths)
        lines += ["", f"**{name.replace('-', ' ').capitalize()}**: {links}"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Take what the command line asks for."""
    reader = argparse.ArgumentParser(prog="screenshots")
    reader.add_argument("--folder", type=Path, default=FOLDER)
    reader.add_argument("--kind", choices=("webp", "png"), default="webp")
    reader.add_argument("pages", nargs="*", help="names of pages; none: all, and their list")
    asked = reader.parse_args()
    wanted = Wanted(asked.folder, asked.kind, frozenset(asked.pages))
    found = chromium.provide()
    if found is None:
        print(chromium.NEEDED.format(python=sys.executable), file=sys.stderr)
        return 1
    wanted.folder.mkdir(parents=True, exist_ok=True)
    watch = Watch()
    with (
        living(Path(tempfile.mkdtemp()) / "house") as house,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=found, args=list(chromium.FLAGS)) as browser,
    ):
        house.empty()
        scene = set_scene(house)
        desks = Desks(browser, str(house.operator.http.base_url), watch)
        names = take_all(desks, scene, wanted)
        desks.close()
    if not wanted.only and wanted.kind == "webp":
        (wanted.folder / "README.md").write_text(listed(names), encoding="utf-8")
    for line in watch.wrong:
        print(line, file=sys.stderr)
    return 1 if watch.wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""The Chromium that the browser tests start: where one is, and how to come by one.

`python -m tests.browser.chromium` makes one available and is quick where there is one. It knows
nothing of the console.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import playwright

FLAGS = (
    "--no-sandbox",  # the tests run as root in containers; every page is our own
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
ON_THE_PATH = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
NEEDED = """\
The browser tests need Chromium, and there is none that starts. Any of these will do:
  {python} -m playwright install --with-deps chromium
  apt-get install chromium fonts-noto-core      (Debian)
  Google Chrome or Chromium on the PATH"""
_APT = ("apt-get", "-qq", "-y", "-o", "DPkg::Lock::Timeout=300")
_PACKAGES = ("chromium", "fonts-noto-core")
_DOWNLOAD = 600.0
_START = 20.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What a search sees of the machine it is made on; a test gives one of its own."""

    env: Mapping[str, str] = field(default_factory=lambda: os.environ)
    home: Path = field(default_factory=Path.home)
    platform: str = sys.platform
    root: bool = field(default_factory=lambda: hasattr(os, "geteuid") and os.geteuid() == 0)
    run: Callable[[Sequence[str], Mapping[str, str], float], bool] = field(
        default=lambda words, env, limit: _ran(words, env, limit)
    )
    revision: Callable[[], str] = field(default=lambda: _revision())

    def which(self, name: str) -> Path | None:
        found = shutil.which(name, path=self.env.get("PATH"))
        return Path(found) if found else None

    def own(self) -> Path:
        """The folder in which Playwright keeps its headless Chromium of this version."""
        told = self.env.get("PLAYWRIGHT_BROWSERS_PATH")
        if told:
            kept = Path(told)
        elif self.platform == "darwin":
            kept = self.home / "Library" / "Caches" / "ms-playwright"
        else:
            kept = Path(self.env.get("XDG_CACHE_HOME") or self.home / ".cache") / "ms-playwright"
        return kept / f"chromium_headless_shell-{self.revision()}"


def find(machine: Machine | None = None) -> Path | None:
    """The browser to start: Playwright's own, else one on the PATH that starts; None if none does."""
    machine = machine or Machine()
    return next((path for path in _candidates(machine) if _starts(machine, path)), None)


def provide(machine: Machine | None = None) -> Path | None:
    """A browser that starts, brought onto this machine if there is none (minutes at most)."""
    machine = machine or Machine()
    found = find(machine)
    for bring in (_by_playwright, _by_apt):
        if found is None:
            bring(machine)
            found = find(machine)
    return found


def _candidates(machine: Machine) -> Iterator[Path]:
    for name in ("chrome-headless-shell", "headless_shell"):
        yield from sorted(machine.own().glob(f"*/{name}"))
    for name in ON_THE_PATH:
        if (path := machine.which(name)) is not None:
            yield path


def _starts(machine: Machine, path: Path) -> bool:
    """Whether it runs at all: a stub of a package not installed and a lack of libraries do not."""
    return machine.run((str(path), "--version"), machine.env, _START)


def _by_playwright(machine: Machine) -> None:
    words = (sys.executable, "-m", "playwright", "install", "--only-shell", "chromium")
    machine.run(words, machine.env, _DOWNLOAD)


def _by_apt(machine: Machine) -> None:
    if not machine.root or machine.which("apt-get") is None:
        return
    env = {**machine.env, "DEBIAN_FRONTEND": "noninteractive"}
    machine.run((*_APT, "update"), env, _DOWNLOAD)
    machine.run((*_APT, "install", "--no-install-recommends", *_PACKAGES), env, _DOWNLOAD)


def _ran(words: Sequence[str], env: Mapping[str, str], limit: float) -> bool:
    """Whether the program ended well within the limit, in seconds; its words are kept back."""
    try:
        done = subprocess.run(
            words,
            env=dict(env),
            timeout=limit,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _revision() -> str:
    """Which build of Chromium this Playwright starts by itself, by its own list."""
    listed = Path(playwright.__file__).parent / "driver" / "package" / "browsers.json"
    browsers = json.loads(listed.read_text(encoding="utf-8"))["browsers"]
    return str(next(b["revision"] for b in browsers if b["name"] == "chromium-headless-shell"))


def main() -> int:
    if provide() is not None:
        return 0
    print(NEEDED.format(python=sys.executable), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

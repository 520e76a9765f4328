"""A browser is found where there is one, and brought where there is none."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.browser.chromium import Machine, find, provide


class Runs:
    """Stands for starting programs: remembers each, and does what the test says it does."""

    def __init__(self, bin: Path, *, brings: Mapping[str, Path]) -> None:
        self.bin = bin
        self.brings = brings
        self.broken: set[Path] = set()
        self.asked: list[str] = []

    def __call__(self, words: Sequence[str], env: Mapping[str, str], limit: float) -> bool:
        assert limit < 3_600
        if words[1] == "--version":
            return Path(words[0]) not in self.broken
        said = " ".join(words)
        self.asked.append(said)
        for part, path in self.brings.items():
            if part in said:
                program(path)
        return True


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bin(tmp_path: Path) -> Path:
    """The only folder on the machine's path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def machine(tmp_path: Path, runs: Runs, *, root: bool = True, platform: str = "linux") -> Machine:
    return Machine(
        env={"PATH": str(runs.bin)},
        home=tmp_path / "home",
        platform=platform,
        root=root,
        run=runs,
        revision=lambda: "7",
    )


def own(tmp_path: Path) -> Path:
    kept = tmp_path / "home/.cache/ms-playwright/chromium_headless_shell-7"
    return kept / "chrome-headless-shell-linux64" / "chrome-headless-shell"


def test_playwrights_own_comes_first_and_nothing_is_fetched(tmp_path: Path, bin: Path) -> None:
    runs = Runs(bin, brings={})
    on_path = program(bin / "chromium")
    assert provide(machine(tmp_path, runs)) == on_path
    mine = program(own(tmp_path))
    assert provide(machine(tmp_path, runs)) == mine
    assert runs.asked == []


def test_what_does_not_start_is_passed_over(tmp_path: Path, bin: Path) -> None:
    runs = Runs(bin, brings={})
    runs.broken = {program(own(tmp_path)), program(bin / "chromium-browser")}
    good = program(bin / "google-chrome")
    assert find(machine(tmp_path, runs)) == good


def test_playwright_is_asked_before_the_system(tmp_path: Path, bin: Path) -> None:
    runs = Runs(bin, brings={"playwright install": own(tmp_path)})
    program(bin / "apt-get")
    assert provide(machine(tmp_path, runs)) == own(tmp_path)
    assert len(runs.asked) == 1


def test_root_on_debian_gets_the_systems_with_fonts(tmp_path: Path, bin: Path) -> None:
    runs = Runs(bin, brings={"install --no-install-recommends chromium": bin / "chromium"})
    program(bin / "apt-get")
    assert provide(machine(tmp_path, runs)) == bin / "chromium"
    assert [said.split()[0] for said in runs.asked[1:]] == ["apt-get", "apt-get"]
    assert "fonts-noto-core" in runs.asked[-1]


def test_nobody_elses_system_is_changed(tmp_path: Path, bin: Path) -> None:
    runs = Runs(bin, brings={"chromium": bin / "nothing"})
    program(bin / "apt-get")
    assert provide(machine(tmp_path, runs, root=False)) is None
    assert not any("apt-get" in said for said in runs.asked)


def test_a_mac_keeps_it_elsewhere(tmp_path: Path, bin: Path) -> None:
    runs = Runs(bin, brings={})
    kept = tmp_path / "home/Library/Caches/ms-playwright/chromium_headless_shell-7"
    mine = program(kept / "chrome-headless-shell-mac-arm64" / "chrome-headless-shell")
    assert find(machine(tmp_path, runs, platform="darwin")) == mine

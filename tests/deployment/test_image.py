"""The Dockerfile and what its builder is given, read line by line."""

import re
import shlex
import tomllib
from fnmatch import fnmatch

import pytest

from tests.deployment.composition import ROOT

TEXT = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTRUCTIONS = [
    line.split(None, 1)
    for line in re.sub(r"\\\n\s*", "", TEXT).splitlines()
    if line and not line.startswith("#")
]


def said(word: str) -> list[str]:
    return [rest for instruction, rest in INSTRUCTIONS if instruction == word]


def copied() -> list[str]:
    """The paths of the tree that go into the image."""
    lines = [shlex.split(line) for line in said("COPY") if "--from" not in line]
    return [source for line in lines for source in line[:-1]]


def test_it_runs_as_nobody_in_particular() -> None:
    assert said("USER") == ["10001"]
    last = [instruction for instruction, _ in INSTRUCTIONS[-6:]]
    assert "USER" in last
    assert "RUN" not in last[last.index("USER") :]


def test_what_is_copied_is_there_and_nothing_else_is_given_to_the_builder() -> None:
    assert not said("ADD")
    for source in copied():
        assert (ROOT / source).exists(), source
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in ignore if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied())


@pytest.mark.parametrize("name", [".env", "secrets", ".dispatcher", ".git", "master.key"])
def test_nothing_private_is_given_to_the_builder(name: str) -> None:
    assert not any(fnmatch(name, source) for source in copied())


def test_it_is_locked_and_small() -> None:
    syncs = [line for line in said("RUN") if "uv sync" in line]
    assert len(syncs) == 2
    for line in syncs:
        assert "--locked" in line
        assert "--no-dev" in line
        assert "extra" not in line
    stages = said("FROM")
    assert len(stages) == 2
    for stage in stages:
        assert re.fullmatch(r"python:3\.1[1-9]-slim-bookworm( AS build)?", stage)
    # The second stage begins anew: no compiler, no package manager's cache, no sources.
    assert [line.split()[0] for line in said("COPY")][-1] == "--from=build"


def test_uv_is_the_one_that_the_makefile_pins() -> None:
    pinned = re.search(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f"uv=={pinned[1]}" in TEXT


def test_it_starts_our_command() -> None:
    assert said("ENTRYPOINT") == ['["dispatcher"]']
    assert "dispatcher" in PROJECT["project"]["scripts"]


def test_it_holds_no_secret_and_no_health_check() -> None:
    for line in [*said("ENV"), *said("ARG")]:
        assert not re.search("KEY|TOKEN|SECRET|PASSWORD", line)
    assert not said("HEALTHCHECK")


def test_the_packs_are_in_the_package() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"templates": "dispatcher/_templates"}
    assert "templates" in copied()

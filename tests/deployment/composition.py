"""docker-compose.yml as Compose would read it: variables filled, anchors merged, checked."""

import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compose_spec import PyCompose

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "docker-compose.yml"
# It carries no types, and no package of ours needs them.
_yaml: Any = importlib.import_module("yaml")

_VARIABLE = re.compile(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")


def parsed(text: str, environ: Mapping[str, str] | None = None) -> PyCompose:
    """The specification's own model of a file. Raises `ValueError` where it breaks the rules."""
    given = environ or {}
    filled = _VARIABLE.sub(lambda found: given.get(found["name"], found["default"]), text)
    if "${" in filled:
        raise ValueError("a variable has no default: a fresh clone has no .env")
    # Anchors are resolved here; the model knows nothing of them.
    composition = PyCompose.from_json(json.dumps(_yaml.safe_load(filled)))
    composition.validate()
    return composition


def raw() -> dict[str, Any]:
    """The file as it is written, anchors merged."""
    found: dict[str, Any] = _yaml.safe_load(FILE.read_text())
    return found


def services() -> dict[str, dict[str, Any]]:
    """Each service's settings, by name."""
    found: dict[str, dict[str, Any]] = parsed(FILE.read_text()).to_dict()["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    """The services that run our own image."""
    return {name: each for name, each in services().items() if "build" in each}


def lanes(command: list[str]) -> list[str]:
    """The queues that a worker's command names."""
    return command[command.index("--lanes") + 1].split(",")

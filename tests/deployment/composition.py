"""docker-compose.yml as Compose would read it: variables filled, anchors merged, checked."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).parent.parent.parent
FILE = ROOT / "docker-compose.yml"
_VARIABLE = re.compile(r"\$\{(?P<name>\w+):-(?P<default>[^}]*)\}")


def parsed(text: str, environ: Mapping[str, str] | None = None) -> PyCompose:
    """The specification's own model of a file. Raises `ValueError` where it breaks the rules."""
    given = environ or {}
    filled = _VARIABLE.sub(lambda found: given.get(found["name"], found["default"]), text)
    if "${" in filled:
        raise ValueError("a variable has no default: a fresh clone has no .env")
    # Anchors are resolved here; the model knows nothing of them.
    composition = PyCompose.from_json(json.dumps(yaml.safe_load(filled)))
    composition.validate()
    return composition


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

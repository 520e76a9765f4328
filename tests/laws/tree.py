"""The repository's own Python, parsed."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Module:
    """One file. `path` is relative to the repository."""

    path: str
    lines: int
    tree: ast.Module

    def calls(self) -> Iterator[ast.Call]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))

    def classes(self) -> Iterator[str]:
        return (node.name for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef))

    def mentions(self, module: str, *names: str) -> bool:
        """Whether `module.name`, or `from module import name`, stands in it."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Attribute) and node.attr in names:
                if isinstance(node.value, ast.Name) and node.value.id == module:
                    return True
            elif (
                isinstance(node, ast.ImportFrom)
                and node.module == module
                and any(alias.name in names for alias in node.names)
            ):
                return True
        return False


@cache
def modules(*folders: str) -> tuple[Module, ...]:
    """Every module below these folders."""
    found = []
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            path = file.relative_to(ROOT).as_posix()
            found.append(Module(path, text.count("\n"), ast.parse(text)))
    assert found
    return tuple(found)


def product() -> tuple[Module, ...]:
    return modules("dispatcher", "channels")


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")

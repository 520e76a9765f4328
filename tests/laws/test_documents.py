"""README.md and docs/architecture.md tell what is there."""

import pydoc
import re

from dispatcher.audiences import Reach, Scope, load
from dispatcher.incidents import Phase
from tests.laws.tree import ROOT, read


def test_links_of_the_documents_lead_somewhere() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for document in documents:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def audiences() -> str:
    """The architecture's table of audiences as the packs tell it."""
    rows = [
        "| audience | who | lane | told | channels | held for approval |",
        "|---|---|---|---|---|---|",
    ]
    packs = load(ROOT / "templates")
    for audience in sorted(packs.audiences.values(), key=lambda each: each.rank):
        told = "if affected" if audience.scope is Scope.AFFECTED else "always"
        channels = [step.channel for step in audience.channels]
        joined = " or ".join(channels) if audience.reach is Reach.FIRST else ", ".join(channels)
        held = [phase.value for phase in Phase if phase not in audience.preapproved]
        rows.append(
            f"| `{audience.name}` | {audience.title} | {audience.lane.value} | {told}"
            f" | {joined} | {', '.join(held)} |"
        )
    return "\n".join(rows) + "\n"


def test_every_audience_is_described() -> None:
    assert audiences() in read("docs/architecture.md")


def known(name: str) -> bool:
    """Whether a dotted name is something of ours."""
    try:
        return pydoc.locate(name) is not None
    except pydoc.ErrorDuringImport:  # a process's own module, which reads settings
        module, _, function = name.rpartition(".")
        return f"\ndef {function}(" in read(f"{module.replace('.', '/')}.py")


def test_names_in_the_architecture_exist() -> None:
    text = read("docs/architecture.md")
    dotted = set(re.findall(r"`((?:[a-z_]+\.)+[A-Za-z_]+(?:\.[A-Za-z_]+)*)`", text))
    names = {name for name in dotted if not name.endswith((".py", ".md", ".toml", ".yml"))}
    assert len(names) > 20
    unknown = {name for name in names if not (known(f"dispatcher.{name}") or known(name))}
    assert unknown == set()


def test_paths_in_the_documents_exist() -> None:
    for name in ("README.md", "docs/architecture.md"):
        paths = set(re.findall(r"`((?:dispatcher|channels|templates|tests)/[\w/.]*)`", read(name)))
        assert {path for path in paths if not (ROOT / path).exists()} <= {"dispatcher/sources/"}

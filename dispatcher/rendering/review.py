"""What can be seen of a template's mistakes without running it, each with its line.

A branch that no sample takes would keep its mistake until the night it is needed. Knows the
names that a template is given, and no statement.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from jinja2 import meta, nodes

from channels.contract import Channel, Severity
from dispatcher.rendering.environment import Fence, Sources
from dispatcher.rendering.meter import names_in
from dispatcher.rendering.renderer import SLOTS
from dispatcher.rendering.statement import TEXT_SLOTS

GIVEN = frozenset({"say", "org", "texts", "phase", "previous", "severity", "lang", "dir", "colour"})
"""What every template is given by name."""

IN_HTML = frozenset({"subject", "blocks"})
"""What the HTML part of a mail is given besides."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with a tried template. `line` counts from 1 in the template `name`."""

    severity: Severity
    name: str
    line: int
    message: str


@dataclass(frozen=True, slots=True)
class Reviewer:
    """Reads one template beside those it belongs to.

    `organisation` names what `org` has, `said` what `say` and `say.short` have.
    """

    fence: Fence
    sources: Sources
    organisation: frozenset[str]
    said: frozenset[str]

    def review(self, name: str, source: str, *, known: frozenset[str]) -> list[Complaint]:
        """Everything wrong with `source`, line by line; `known` are names set elsewhere.

        Raises `jinja2.TemplateSyntaxError` if it cannot be parsed.
        """
        parsed = self.fence.parse(source, name)
        found = [
            *self._unknown_names(name, parsed, known),
            *self._attributes(name, parsed),
            *self._filters(name, parsed),
            *self._absent(name, parsed),
            *self._slots(name, source),
        ]
        return sorted(set(found), key=lambda each: (each.line, each.message))

    def names_set(self, name: str) -> frozenset[str]:
        """The names that a template of the packs sets itself."""
        return frozenset(names_in(self._parsed(name)))

    def referenced(self, name: str) -> frozenset[str]:
        """The templates that a template of the packs includes, itself among them, transitively."""
        found: set[str] = set()
        waiting = [name]
        while waiting:
            each = waiting.pop()
            if each in found or each not in self.sources.files:
                continue
            found.add(each)
            waiting += filter(None, meta.find_referenced_templates(self._parsed(each)))
        return frozenset(found)

    def _parsed(self, name: str) -> nodes.Template:
        return self.fence.parse(self.sources.get_source(self.fence, name)[0], name)

    def _unknown_names(
        self, name: str, parsed: nodes.Template, known: frozenset[str]
    ) -> Iterator[Complaint]:
        given = GIVEN | known | (IN_HTML if name.endswith(".html.j2") else frozenset())
        unknown = meta.find_undeclared_variables(parsed) - given
        for node in parsed.find_all(nodes.Name):
            if node.ctx == "load" and node.name in unknown:
                there = ", ".join(sorted(given))
                words = f"nothing here is called {node.name}; there are: {there}"
                yield _error(name, node.lineno, words)

    def _attributes(self, name: str, parsed: nodes.Template) -> Iterator[Complaint]:
        own = set(names_in(parsed))
        for node in _both(parsed, nodes.Getattr, nodes.Getitem):
            asked = _asked(node)
            of = _owner(node.node)
            if asked is None:
                continue
            if asked.startswith("_"):
                yield _error(name, node.lineno, f"templates do not reach for {asked[:40]}")
            elif of not in own and (words := self._missing(of, asked)):
                yield _error(name, node.lineno, words)

    def _missing(self, of: str, asked: str) -> str:
        if of == "texts" and asked not in TEXT_SLOTS:
            return f"there is no text slot {asked}; there are: {', '.join(TEXT_SLOTS)}"
        if of == "org" and asked not in self.organisation:
            return f"org has no {asked}; it has: {', '.join(sorted(self.organisation))}"
        if of == "say" and asked not in self.said:
            return f"say has no {asked}"
        return ""

    def _filters(self, name: str, parsed: nodes.Template) -> Iterator[Complaint]:
        for node in _both(parsed, nodes.Filter, nodes.Test):
            there = self.fence.filters if isinstance(node, nodes.Filter) else self.fence.tests
            kind = "filter" if isinstance(node, nodes.Filter) else "test"
            if node.name not in there:
                words = f"there is no {kind} {node.name}; there are: {', '.join(sorted(there))}"
                yield _error(name, node.lineno, words)

    def _absent(self, name: str, parsed: nodes.Template) -> Iterator[Complaint]:
        for node in (
            *_both(parsed, nodes.Include, nodes.Import),
            *_both(parsed, nodes.FromImport, nodes.Extends),
        ):
            wanted = node.template
            if isinstance(wanted, nodes.Const) and wanted.value not in self.sources.files:
                words = f"the packs hold no template {str(wanted.value)[:80]}"
                yield _error(name, node.lineno, words)

    def _slots(self, name: str, source: str) -> Iterator[Complaint]:
        """`[[name]]` outside of code: known, written exactly so, and in e-mail only."""
        mail = f"/{Channel.EMAIL}/" in f"/{name}"
        for line, token, value in self.fence.lexer.tokeniter(source, name):
            if token != "data":
                continue
            for found in _SLOT.finditer(value):
                at = line + value.count("\n", 0, found.start())
                slot = found[1]
                if not mail:
                    yield _error(name, at, f"[[{slot}]] is filled in e-mail only")
                elif slot not in SLOTS:
                    there = ", ".join(f"[[{each}]]" for each in SLOTS)
                    yield _error(name, at, f"there is no slot [[{slot}]]; there are: {there}")


_SLOT = re.compile(r"\[\[([^\[\]\n]{0,80})\]\]")


def _error(name: str, line: int, words: str) -> Complaint:
    return Complaint(Severity.ERROR, name, line, words)


A = TypeVar("A", bound=nodes.Node)
B = TypeVar("B", bound=nodes.Node)


def _both(parsed: nodes.Template, one: type[A], other: type[B]) -> Iterator[A | B]:
    yield from parsed.find_all(one)
    yield from parsed.find_all(other)


def _owner(node: nodes.Node) -> str:
    """The name that an attribute is asked of; `say.short` answers for `say`."""
    if isinstance(node, nodes.Getattr) and node.attr == "short":
        node = node.node
    return node.name if isinstance(node, nodes.Name) else ""


def _asked(node: nodes.Getattr | nodes.Getitem) -> str | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    key = node.arg
    return key.value if isinstance(key, nodes.Const) and isinstance(key.value, str) else None

"""The fence that templates run in: what they may call, load and grow to.

Knows no incident and no audience. Jinja's own sandbox is not a full protection
(https://jinja.palletsprojects.com/en/stable/sandbox/), so what a template gets is little
and finished: no globals, few filters, no growing by multiplication, a bound on its output.
"""

import re
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from jinja2 import (
    BaseLoader,
    StrictUndefined,
    Template,
    TemplateNotFound,
    TemplateRuntimeError,
    TemplateSyntaxError,
    nodes,
)
from jinja2.exceptions import SecurityError
from jinja2.runtime import BlockReference, Context, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from dispatcher.audiences import PRIVATE_USE
from dispatcher.rendering.fitting import may
from dispatcher.rendering.paragraphs import Block
from dispatcher.rendering.speech import Speech
from dispatcher.rendering.traces import untraced

MAX_OUTPUT = 64 * 1024
"""Characters that one part of a message may grow to."""

_FILTERS = frozenset({"e", "escape", "first", "join", "last", "length", "lower", "trim", "upper"})
_TESTS = frozenset({"defined", "eq", "ne", "in", "equalto"})


class Sources(BaseLoader):
    """Template sources read once. Nothing outside the folders exists for a template."""

    def __init__(self, folders: tuple[Path, ...]) -> None:
        self.files: dict[str, Path] = {}
        self._texts: dict[str, str] = {}
        self.unreadable: list[Path] = []
        for folder in folders:
            home = folder.resolve()
            for file in sorted(folder.rglob("*.j2")):
                if not file.resolve().is_relative_to(home):
                    self.unreadable.append(file)
                    continue
                name = file.relative_to(folder).as_posix()
                try:
                    self._texts[name] = file.read_text(encoding="utf-8")
                    self.files[name] = file
                except (OSError, UnicodeDecodeError):
                    self.unreadable.append(file)

    def get_source(self, environment: Any, template: str) -> tuple[str, str, Any]:
        if template not in self._texts:
            raise TemplateNotFound(template)
        return self._texts[template], str(self.files[template]), lambda: True

    def list_templates(self) -> list[str]:
        return sorted(self._texts)


class Fence(ImmutableSandboxedEnvironment):
    """Jinja with nothing to reach for."""

    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self, sources: Sources) -> None:
        super().__init__(
            loader=sources,
            undefined=StrictUndefined,
            autoescape=_is_html,
            auto_reload=False,
            cache_size=-1,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.globals.clear()
        self.filters = {name: self.filters[name] for name in _FILTERS}
        self.tests = {name: self.tests[name] for name in _TESTS}
        self.filters["cap"] = _cap
        self.filters["unsaid"] = _unsaid
        self.filters["may"] = may
        self.filters["length"] = _length
        for name in ("first", "last"):
            self.filters[name] = _whole(self.filters[name])

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        parsed = super()._parse(source, name, filename)
        if found := PRIVATE_USE.search(source):
            line = source.count("\n", 0, found.start()) + 1
            raise TemplateSyntaxError("holds a character of private use", line, name, filename)
        # Only an escape can write such a character otherwise, and only a bracket a slice.
        for node in parsed.find_all((nodes.Const, nodes.Slice)) if _SUSPECT(source) else ():
            if isinstance(node, nodes.Slice):
                raise TemplateSyntaxError(_CUT, node.lineno, name, filename)
            if isinstance(node, nodes.Const) and PRIVATE_USE.search(str(node.value)):
                words = "writes a character of private use"
                raise TemplateSyntaxError(words, node.lineno, name, filename)
        return parsed

    def getattr(self, obj: Any, attribute: str) -> Any:
        # What is asked most is safe by its make, and costs a third of Jinja's own way.
        kind = type(obj)
        if (kind is Speech or kind is Block) and attribute[0] != "_" and hasattr(kind, attribute):
            return getattr(obj, attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, str):
            raise SecurityError(_CUT)
        return super().getitem(obj, argument)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and isinstance(left, tuple) and isinstance(right, tuple):
            return left + right
        raise SecurityError(f"templates do not use {operator!r}")

    def call(self, *args: Any, **kwargs: Any) -> Any:
        # Only macros of the packs themselves are callable; Python's methods are not.
        called = args[1]
        if not isinstance(called, Macro | BlockReference | Undefined):
            raise SecurityError("templates call nothing but their own macros")
        return super().call(*args, **kwargs)


_CUT = "templates do not cut sentences"
_SUSPECT = re.compile(r"[\[\\]").search


def _whole(pick: Callable[..., Any]) -> Callable[..., Any]:
    """The filter for lists alone: a piece of a sentence would be without its trace."""

    @wraps(pick)
    def guarded(environment: Any, value: Any) -> Any:
        if isinstance(value, str):
            raise SecurityError(_CUT)
        return pick(environment, value)

    return guarded


def _length(value: Any) -> int:
    return len(untraced(value) if isinstance(value, str) else value)


def _is_html(name: str | None) -> bool:
    return name is not None and name.endswith(".html.j2")


def _cap(text: str) -> str:
    """The text with a capital first letter, whatever follows."""
    return text[:1].upper() + text[1:]


def _unsaid(sentences: tuple[str, ...], text: str) -> tuple[str, ...]:
    """Those of the sentences that the text does not hold already."""
    return tuple(sentence for sentence in sentences if sentence not in text)


def run(template: Template, context: Mapping[str, object]) -> str:
    """The template's output. Raises `TemplateRuntimeError` once it grows past the bound."""
    size, chunks = 0, list[str]()
    for chunk in template.generate(context):
        size += len(chunk)
        if size > MAX_OUTPUT:
            raise TemplateRuntimeError(f"the output grows past {MAX_OUTPUT} characters")
        chunks.append(chunk)
    return "".join(chunks)


_SPACES = re.compile(r"[ \t\u00a0]+")
_BEFORE_MARK = re.compile(r" +(?=[.,;!?،؛؟](?:\s|$))")
_DOUBLE_STOP = re.compile(r"(?<!\.)\.{2}(?!\.)")
_TRAILING = re.compile(r" *\n *")
_BLANK_LINES = re.compile(r"\n{3,}")


def tidy(text: str, *, one_line: bool) -> str:
    """Closes the gaps that absent facts leave: spaces, blank lines, stranded marks."""
    if one_line:
        text = " ".join(text.split())
    text = _SPACES.sub(" ", text)
    text = _TRAILING.sub("\n", text)
    text = _BEFORE_MARK.sub("", text)
    text = _DOUBLE_STOP.sub(".", text)
    return _BLANK_LINES.sub("\n\n", text).strip()

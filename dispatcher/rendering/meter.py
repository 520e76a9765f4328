"""A fence that counts: what templates of unknown making are compiled with.

Jinja has no fuel of its own. Every body, call, include and value that a template handles is
charged to a meter here, in steps, characters and processor time, so that whatever would
grow without bound stops early and with its line. What a template says is not changed.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, cast

from jinja2 import (
    Template,
    TemplateRuntimeError,
    TemplateSyntaxError,
    Undefined,
    nodes,
    pass_context,
)
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from dispatcher.rendering.environment import Fence, Sources

MAX_SOURCE = 24 * 1024
"""Characters of one template that are tried; the longest that is shipped has some 2,500."""

MAX_STEPS = 20_000
MAX_CHARS = 400_000
MAX_SECONDS = 0.6
"""Processor time of this thread, so that a busy machine refuses no good template."""

_MAX_NODES = 2_000
_MAX_DEPTH = 40
_MAX_BLOCKS = 8
_MAX_CALLS_DEEP = 40
_MAX_INCLUDES = 200

_SPEND, _WEIGH = "spend!", "weigh!"
"""Names that no template can write."""

_BLOCKS = (nodes.For, nodes.If, nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.With,
           nodes.AssignBlock, nodes.Block)  # fmt: skip


class SpentError(TemplateRuntimeError):
    """The template has used up what it was given."""


@dataclass(slots=True)
class Meter:
    """What is left to spend, and where it went. `fill` before every message."""

    ends_at: float = field(default_factory=lambda: time.thread_time() + MAX_SECONDS)
    steps: int = MAX_STEPS
    chars: int = MAX_CHARS
    includes: int = _MAX_INCLUDES
    deep: int = 0
    place: tuple[str, int] | None = None
    heavy: Counter[tuple[str, int]] = field(default_factory=Counter)

    def fill(self) -> None:
        """A new message begins; the time goes on."""
        self.steps, self.chars, self.includes, self.deep = MAX_STEPS, MAX_CHARS, _MAX_INCLUDES, 0
        self.place = None
        self.heavy.clear()

    def step(self) -> None:
        self.steps -= 1
        if self.steps < 0:
            raise SpentError("its loops and calls never come to an end, or multiply")
        if time.thread_time() > self.ends_at:
            raise SpentError("it takes too long")

    def body(self, place: tuple[str, int], size: int) -> None:
        """One run of a body that holds `size` characters of plain text."""
        self.place = place
        self.step()
        self._pay(place, size)

    def weigh(self, place: tuple[str, int], value: object) -> None:
        """A value is about to be printed, joined, compared or kept."""
        self.place = place
        if isinstance(value, str):
            self._pay(place, len(value) + 1)
        elif type(value) in _CONTAINERS:
            self._unfold(place, value)

    def _unfold(self, place: tuple[str, int], value: object) -> None:
        # Walked as the tree that printing or comparing it would walk, shared branches and all.
        waiting = [value]
        while waiting:
            each = waiting.pop()
            self._pay(place, len(each) + 1 if isinstance(each, str) else 1)
            if isinstance(each, dict):
                waiting += [*each.keys(), *each.values()]
            elif type(each) in _CONTAINERS:
                waiting += each  # type: ignore[arg-type]

    def _pay(self, place: tuple[str, int], size: int) -> None:
        self.chars -= size
        self.heavy[place] += size
        if self.chars < 0:
            raise SpentError("it grows without bound")

    def heaviest(self) -> tuple[str, int] | None:
        """The template and line that most characters came from."""
        return max(self.heavy, key=self.heavy.__getitem__) if self.heavy else None


_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})


class MeteredFence(Fence):
    """The fence, with every body, call, include and value charged to `meter`."""

    def __init__(self, sources: Sources, meter: Meter) -> None:
        super().__init__(sources)
        self.meter = meter
        for name, function in list(self.filters.items()):
            self.filters[name] = self._charged(function)
        self.filters[_SPEND] = self._spend
        self.filters[_WEIGH] = self._weigh

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SOURCE:
            line = source.count("\n", 0, MAX_SOURCE) + 1
            words = f"the template is longer than {MAX_SOURCE:,} characters"
            raise TemplateSyntaxError(words, line, name, filename)
        parsed = super()._parse(source, name, filename)
        check_shape(parsed, name, filename)
        metered: nodes.Template = _Metering().visit(parsed)
        metered.set_environment(self)
        return metered

    # Jinja computes at compile time what needs no context; these must wait for the meter.
    @staticmethod
    @pass_context
    def _spend(context: Context, size: int, line: int) -> str:
        environment: Any = context.environment
        environment.meter.body((context.name or "", line), size)
        return ""

    @staticmethod
    @pass_context
    def _weigh(context: Context, value: Any, line: int) -> Any:
        environment: Any = context.environment
        environment.meter.weigh((context.name or "", line), value)
        return value

    def _charged(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter whose values are charged before it works on them, and its answer after."""
        wants = getattr(function, "jinja_pass_arg", None)

        @pass_context
        @wraps(function, updated=())
        def charged(context: Context, *args: Any, **kwargs: Any) -> Any:
            meter = self.meter
            place = meter.place or (context.name or "", 1)
            for value in (*args, *kwargs.values()):
                if not isinstance(value, Undefined):
                    meter.weigh(place, value)
            _weigh_join(meter, place, function, args)
            first = {"environment": self, "eval_context": context.eval_ctx}.get(
                wants.name if wants else ""
            )
            given = args if first is None else (first, *args)
            answer = function(*given, **kwargs)
            meter.weigh(place, answer)
            return answer

        return charged

    def call(self, *args: Any, **kwargs: Any) -> Any:
        meter = self.meter
        meter.step()
        meter.deep += 1
        if meter.deep > _MAX_CALLS_DEEP:
            raise SpentError("its macros call one another without end")
        try:
            answer = super().call(*args, **kwargs)
        finally:
            meter.deep -= 1
        if meter.place is not None:
            meter.weigh(meter.place, answer)
        return answer

    def get_template(self, name: Any, parent: str | None = None, globals: Any = None) -> Template:
        self.meter.includes -= 1
        if self.meter.includes < 0:
            raise SpentError("it includes other templates without end")
        return super().get_template(name, parent, globals)


def _weigh_join(
    meter: Meter, place: tuple[str, int], function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """A separator counts as often as it will stand in the joined text."""
    if getattr(function, "__name__", "") not in ("do_join", "sync_do_join"):
        return
    if len(args) > 1 and isinstance(args[1], str) and hasattr(args[0], "__len__"):
        times = len(args[0])
        meter.weigh(place, "")
        meter._pay(place, times * len(args[1]))


class _Metering(NodeTransformer):
    """Puts the counting into a parsed template; its line numbers stay."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        node = super().generic_visit(node, *args, **kwargs)
        for name in ("body", "else_"):
            body = getattr(node, name, None)
            if isinstance(body, list) and not isinstance(node, nodes.If):
                setattr(node, name, [_spending(node, body), *body] if body else body)
        match node:
            case nodes.Output():
                node.nodes = [
                    each if isinstance(each, nodes.TemplateData) else _weighed(each)
                    for each in node.nodes
                ]
            case nodes.Concat():
                node.nodes = [_weighed(each) for each in node.nodes]
            case nodes.Compare():
                node.expr = _weighed(node.expr)
                for operand in node.ops:
                    operand.expr = _weighed(operand.expr)
            case nodes.For():
                node.iter = _weighed(cast(nodes.Expr, node.iter))
            case nodes.Expr() if _kept(node):
                return _weighed(node)
        return node


def _kept(node: nodes.Expr) -> bool:
    """Whether it makes a collection, which could hold itself many times over."""
    made = isinstance(node, nodes.List | nodes.Dict)
    return made or (isinstance(node, nodes.Tuple) and node.ctx == "load")


def _spending(node: nodes.Node, body: list[nodes.Node]) -> nodes.Node:
    size = sum(
        len(text.data)
        for output in body
        if isinstance(output, nodes.Output)
        for text in output.nodes
        if isinstance(text, nodes.TemplateData)
    )
    line = next((each.lineno for each in body), node.lineno)
    return nodes.ExprStmt(_filter(_SPEND, nodes.Const(size), line), lineno=line)


def _weighed(node: nodes.Expr) -> nodes.Expr:
    if isinstance(node, nodes.Const) or (isinstance(node, nodes.Filter) and node.name == _WEIGH):
        return node
    return _filter(_WEIGH, node, node.lineno)


def _filter(name: str, value: nodes.Expr, line: int) -> nodes.Filter:
    given: list[nodes.Expr] = [nodes.Const(line, lineno=line)]
    return nodes.Filter(value, name, given, [], None, None, lineno=line)


def check_shape(parsed: nodes.Template, name: str | None, filename: str | None) -> None:
    """Refuse what is nested too deep or holds too much to be compiled in no time.

    Raises `TemplateSyntaxError` with the line at which it goes too far.
    """

    def refused(words: str, line: int) -> TemplateSyntaxError:
        return TemplateSyntaxError(words, line, name, filename)

    count = 0
    waiting: list[tuple[nodes.Node, int, int]] = [(parsed, 0, 0)]
    while waiting:
        node, deep, blocks = waiting.pop()
        count += 1
        blocks += isinstance(node, _BLOCKS)
        if blocks > _MAX_BLOCKS:
            raise refused(f"blocks are nested more than {_MAX_BLOCKS} deep", node.lineno)
        if deep > _MAX_DEPTH:
            raise refused("expressions are nested too deep", node.lineno)
        if count > _MAX_NODES:
            raise refused("the template holds too many expressions", node.lineno)
        children = [(child, deep + 1, blocks) for child in node.iter_child_nodes()]
        waiting += reversed(children)


def names_in(parsed: nodes.Template) -> Iterator[str]:
    """The names that a template sets, which what it includes can use."""
    for node in parsed.find_all((nodes.Assign, nodes.AssignBlock)):
        target: Any = node
        for each in (target.target, *target.target.find_all(nodes.Name)):
            if isinstance(each, nodes.Name):
                yield each.name

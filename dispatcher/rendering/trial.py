"""Tries an edited template of the packs without storing it.

The messages that the template belongs to are rendered as production renders them, with this
one source replaced, behind a metered fence. Knows no web and no file to write to: what is
tried lives as long as the call.
"""

import re
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from types import FrameType
from typing import Any

from jinja2 import Template, TemplateError, TemplateRuntimeError, TemplateSyntaxError, nodes
from jinja2.parser import Parser

from channels.contract import Severity
from dispatcher.incidents import Phase
from dispatcher.rendering.environment import Fence, Sources
from dispatcher.rendering.meter import MAX_SOURCE, Meter, MeteredFence, SpentError, check_shape
from dispatcher.rendering.proof import EXAMPLES, at_phase
from dispatcher.rendering.renderer import ANY_PHASE, Renderer, organisation_view
from dispatcher.rendering.review import Complaint, Reviewer
from dispatcher.rendering.speech import Speech
from dispatcher.rendering.statement import Rendering, Statement

_MOST_COMPLAINTS = 20
_LONE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of an edited template: the messages it belongs to, and what is wrong with it.

    `renderings` hold what could be rendered, one for each audience and locale that the
    template speaks to; `phase` is the one they were rendered at.
    """

    name: str
    phase: Phase
    renderings: tuple[Rendering, ...]
    complaints: tuple[Complaint, ...]

    @property
    def refused(self) -> bool:
        """Whether the template could not be used as it is."""
        return any(each.severity is Severity.ERROR for each in self.complaints)


@dataclass(frozen=True, slots=True)
class Use:
    """One message that a template is part of."""

    audience: str
    channel: str
    locale: str


class Trial:
    """Tries templates of the renderer's packs. Holds nothing between two tries."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._referenced: dict[str, frozenset[str]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Every template of the packs: `audience/channel/phase.locale[.part].j2`."""
        return tuple(sorted(self._renderer.sources.files))

    def source(self, name: str) -> str:
        """The template as its file has it. Raises `LookupError` for an unknown name."""
        if name not in self._renderer.sources.files:
            raise LookupError(f"the packs hold no template {name}")
        return self._renderer.sources.get_source(self._renderer.fence, name)[0]

    def samples(self, name: str, real: Statement | None = None) -> Mapping[str, Statement]:
        """What a template is tried with: `real` if there is one, typical, minimal, nasty.

        Each at a phase at which the template is used.
        """
        found = {"real": real} if real is not None else {}
        found |= EXAMPLES
        return {key: at_phase(each, self.phase(name, each)) for key, each in found.items()}

    def phase(self, name: str, statement: Statement) -> Phase:
        """The statement's own phase if the template is used there, else the first that is."""
        phases: tuple[Phase, ...] = (statement.phase, *Phase)
        for phase in phases:
            if any(True for _ in self.uses(name, phase)):
                return phase
        return statement.phase

    def uses(self, name: str, phase: Phase) -> Iterator[Use]:
        """The messages of a phase that the template is part of, included ones too."""
        renderer = self._renderer
        for audience in renderer.packs.audiences.values():
            for step in audience.channels:
                for locale in audience.locales:
                    place = renderer.place(audience.name, step.channel, phase, locale)
                    if place is not None and any(
                        name in self._reached(each) for each in place.names.values()
                    ):
                        yield Use(audience.name, step.channel, locale)

    def unedited(self, name: str, statement: Statement, *, most: int) -> Tried:
        """The first `most` messages of the template as its file has it, from the renderer itself.

        Raises `LookupError` for a template that the packs do not have.
        """
        self.source(name)
        phase = self.phase(name, statement)
        statement = at_phase(statement, phase)
        render = self._renderer.render
        renderings = tuple(
            render(statement, use.audience, use.channel, use.locale)
            for use in islice(self.uses(name, phase), most)
        )
        return Tried(name, phase, renderings, () if renderings else (_unused(name),))

    def try_template(self, name: str, source: str, statement: Statement) -> Tried:
        """The messages with `source` in the template's place, and every complaint.

        Raises `LookupError` for a template that the packs do not have. Nothing that a source
        holds raises, runs longer than about a second, or outlives the call.
        """
        self.source(name)
        source = source.replace("\r\n", "\n")
        phase = self.phase(name, statement)
        meter = Meter()
        edited = _Edited(self._renderer, name, source, meter)
        complaints = self._reviewed(name, source)
        renderings: list[Rendering] = []
        if not complaints:
            statement = at_phase(statement, phase)
            uses = list(self.uses(name, phase))
            if not uses:
                complaints = [_unused(name)]
                uses = []
            for use in uses:
                meter.fill()
                try:
                    rendering = edited.render(statement, use.audience, use.channel, use.locale)
                # Whatever a template of unknown making raises is its own fault, by its line.
                except Exception as error:
                    complaints.append(self._complaint(name, error, meter))
                    if isinstance(error, SpentError | RecursionError | MemoryError):
                        break
                    continue
                renderings.append(rendering)
                complaints += _empty(name, rendering, edited.place_of(use, phase))
        kept = tuple(dict.fromkeys(complaints))[:_MOST_COMPLAINTS]
        return Tried(name, phase, tuple(renderings), kept)

    def _reviewed(self, name: str, source: str) -> list[Complaint]:
        """What is wrong with the source before it is run."""
        if len(source) > MAX_SOURCE:
            line = source.count("\n", 0, MAX_SOURCE) + 1
            words = f"the template is longer than {MAX_SOURCE:,} characters"
            return [Complaint(Severity.ERROR, name, line, words)]
        if found := _LONE.search(source):
            line = source.count("\n", 0, found.start()) + 1
            words = "holds half a character, which no text can hold"
            return [Complaint(Severity.ERROR, name, line, words)]
        try:
            check_shape(self._renderer.fence.parse(source, name), name, None)
            return self._reviewer.review(name, source, known=self._known(name))
        except Exception as error:
            return [self._complaint(name, error, None)]

    @cached_property
    def _reviewer(self) -> Reviewer:
        renderer = self._renderer
        words = next(iter(renderer.words.values()))
        organisation = renderer.packs.organisation
        say = Speech(words, organisation, EXAMPLES["typical"], audience="")
        return Reviewer(
            Fence(renderer.sources),
            renderer.sources,
            frozenset(organisation_view(organisation)),
            frozenset(each for each in dir(say) if not each.startswith("_")),
        )

    def _known(self, name: str) -> frozenset[str]:
        """The names that templates which include this one set for it."""
        found: set[str] = set()
        for other in self._renderer.sources.files:
            if other != name and name in self._reached(other):
                found |= self._reviewer.names_set(other)
        return frozenset(found)

    def _reached(self, name: str) -> frozenset[str]:
        if name not in self._referenced:
            self._referenced[name] = self._reviewer.referenced(name)
        return self._referenced[name]

    def _complaint(self, name: str, error: Exception, meter: Meter | None) -> Complaint:
        file, line = self._where(name, error, meter)
        return Complaint(Severity.ERROR, file, line, _reason(error))

    def _where(self, name: str, error: Exception, meter: Meter | None) -> tuple[str, int]:
        if isinstance(error, TemplateSyntaxError):
            known = error.name in self._renderer.sources.files
            return (error.name or name) if known else name, error.lineno
        files = {str(file): each for each, file in self._renderer.sources.files.items()}
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in files:
                return files[frame.filename], frame.lineno or 1
        if meter is not None and (found := meter.heaviest() or meter.place):
            return found
        return name, _line_at(error)


class _Edited(Renderer):
    """The renderer with one template replaced, compiled as they are asked for."""

    def __init__(self, renderer: Renderer, name: str, source: str, meter: Meter) -> None:
        self.__dict__.update(renderer.__dict__)
        self.sources = _Replaced(renderer.sources, name, source)
        self.fence = MeteredFence(self.sources, meter)
        self._templates = _Compiled(self.fence.get_template)

    def place_of(self, use: Use, phase: Phase) -> Mapping[str, str]:
        place = self.place(use.audience, use.channel, phase, use.locale)
        return place.names if place is not None else {}


class _Replaced(Sources):
    """The packs' sources with one of them in an edited form."""

    def __init__(self, sources: Sources, name: str, source: str) -> None:
        self.__dict__.update(sources.__dict__)
        self._sources, self._name, self._source = sources, name, source

    def get_source(self, environment: Any, template: str) -> tuple[str, str, Any]:
        text, file, fresh = self._sources.get_source(environment, template)
        return (self._source if template == self._name else text), file, fresh


class _Compiled(dict[str, Template]):
    """Templates by name, compiled when first asked for."""

    def __init__(self, compile_one: Callable[[str], Template]) -> None:
        super().__init__()
        self._compile = compile_one

    def __missing__(self, name: str) -> Template:
        self[name] = self._compile(name)
        return self[name]


def _empty(name: str, rendering: Rendering, names: Mapping[str, str]) -> Iterator[Complaint]:
    for part, text in rendering.message.parts.items():
        if not text:
            words = f"the {part} is empty for {rendering.audience} in {rendering.message.locale}"
            yield Complaint(Severity.ERROR, names.get(part, name), 1, words)


def _unused(name: str) -> Complaint:
    leaf = name.rpartition("/")[2]
    words = "no message uses this template"
    if not leaf.startswith((f"{ANY_PHASE}.", "_")):
        words += ": another one stands above it"
    return Complaint(Severity.WARNING, name, 1, words)


_REASONS: Mapping[type[Exception], str] = {
    RecursionError: "it is nested too deep, or calls itself without end",
    MemoryError: "it grows without bound",
    SyntaxError: "it cannot be compiled: blocks or expressions are nested too deep",
}


def _reason(error: Exception) -> str:
    if type(error) in _REASONS:
        return _REASONS[type(error)]
    if isinstance(error, TemplateSyntaxError):
        return (error.message or "syntax error")[:300]
    if isinstance(error, TemplateRuntimeError | TemplateError):
        return str(error)[:300]
    return f"{type(error).__name__}: {error}"[:300]


def _line_at(error: Exception) -> int:
    """The line at which the parser or compiler was when it gave up."""
    line, trace = 1, error.__traceback__
    while trace is not None:
        line = _line_of(trace.tb_frame) or line
        trace = trace.tb_next
    return line


def _line_of(frame: FrameType) -> int:
    if isinstance(parser := frame.f_locals.get("self"), Parser):
        return parser.stream.current.lineno
    node = frame.f_locals.get("node")
    return node.lineno or 0 if isinstance(node, nodes.Node) else 0

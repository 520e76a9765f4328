"""(statement, audience, channel, locale) -> message: the only renderer.

Reads templates and vocabularies once, compiles every template, and does no I/O after that,
so that the first update is rendered as fast as any.
What is absent from the facts is absent from the text, without a gap.
"""

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError

from channels.contract import Adapter, Channel, Message, Problem, Severity, Slot, Unit
from channels.text import units
from dispatcher.audiences import PRIVATE_USE, Audience, Organisation, PackProblem, Packs
from dispatcher.incidents import FactKind, Phase
from dispatcher.rendering.environment import Fence, Sources, run, tidy
from dispatcher.rendering.fitting import fitted, room
from dispatcher.rendering.paragraphs import blocks
from dispatcher.rendering.speech import Speech
from dispatcher.rendering.statement import TEXT_SLOTS, Rendering, Statement, hashed
from dispatcher.rendering.traces import traces, untraced
from dispatcher.rendering.vocabulary import Vocabulary, load_vocabularies

PARTS: Mapping[str, tuple[str, ...]] = {
    Channel.SMS.value: ("text",),
    Channel.EMAIL.value: ("subject", "text", "html"),
    Channel.PUSH.value: ("title", "body"),
    Channel.SOCIAL.value: ("text",),
}
"""The parts of a channel's message while no adapter is there to name its own."""

SLOTS: Mapping[str, Slot] = {"name": Slot(max_chars=80)}
"""The places that a recipient's own values may take, offered in e-mail only."""

ANY_PHASE = "any"
_MARKED_FOR_DRILL = frozenset({"text", "subject", "title"})
_STATUS_COLOURS = {
    Phase.INVESTIGATING: "#b54708",
    Phase.IDENTIFIED: "#b54708",
    Phase.MONITORING: "#175cd3",
    Phase.RESOLVED: "#067647",
    Phase.FOLLOW_UP: "#344054",
    Phase.CORRECTION: "#b42318",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where all parts of one message were found: part to template name."""

    locale: str
    names: Mapping[str, str]


class Texts(dict[str, str]):
    """An update's own words, seen by templates as marks that stand in for them.

    A mark is put in place of the words while the template's output is tidied, so that the
    words themselves arrive as they were approved.
    """

    def __init__(self, words: Mapping[str, str]) -> None:
        self.words = {_mark(place): text for place, text in enumerate(words.values())}
        marks = dict(zip(words, self.words, strict=True))
        super().__init__({slot: marks.get(slot, "") for slot in TEXT_SLOTS})

    def put(self, text: str, *, markup: bool = False) -> str:
        def words(mark: re.Match[str]) -> str:
            own = self.words.get(mark[0], "")
            return html.escape(own).replace("\n", "<br>") if markup else own

        return _MARK.sub(words, text) if self.words else text


def _mark(place: int) -> str:
    # Private-use characters: `PlainText` cannot be told from them by a template, and no
    # pack has a reason to write them.
    return f"\ue000{place}\ue001"


_MARK = re.compile("\ue000\\d+\ue001")


class Renderer:
    """Renders from packs that were read at start. `adapters` judge what they would send."""

    def __init__(self, packs: Packs, adapters: Sequence[Adapter]) -> None:
        self.packs = packs
        self.sources = Sources(packs.folders())
        self.fence = Fence(self.sources)
        self.words: Mapping[str, Vocabulary] = load_vocabularies(packs.folders())
        self._adapters: dict[str, tuple[Adapter, ...]] = {}
        for adapter in adapters:
            known = self._adapters.get(adapter.channel, ())
            self._adapters[adapter.channel] = (*known, adapter)
        self._organisation = organisation_view(packs.organisation)
        self._places: dict[tuple[str, str, Phase, str], Place | None] = {}
        self._templates: dict[str, Template] = {}
        self.broken = tuple(self._compiled())
        for words in self.words.values():
            words.warm()

    def _compiled(self) -> Iterator[PackProblem]:
        """Compile every template once; what cannot be compiled is a problem with its line."""
        for name, file in self.sources.files.items():
            try:
                self._templates[name] = self.fence.get_template(name)
            except TemplateSyntaxError as error:
                yield PackProblem(file, error.lineno, error.message or "syntax error")
            except TemplateError as error:
                yield PackProblem(file, 1, str(error))

    def locales(self, audience: str, channel: str) -> tuple[str, ...]:
        """The locales that the audience is promised and the channel has words for."""
        rules = self.packs.audiences[audience]
        return tuple(
            locale
            for locale in rules.locales
            if (place := self.place(audience, channel, Phase.INVESTIGATING, locale)) is not None
            and place.locale == locale
        )

    def nearest(self, audience: str, channel: str, wanted_locale: str) -> str:
        """The served locale nearest to a recipient's: `ar-EG`, `ar`, then the default."""
        served = self.locales(audience, channel)
        for locale in chain(wanted_locale):
            if locale in served:
                return locale
        default = self.packs.organisation.default_locale
        return default if default in served or not served else served[0]

    def parts(self, channel: str) -> tuple[str, ...]:
        """The parts that a message on the channel has, in the order they are rendered."""
        named = [part for adapter in self._adapters.get(channel, ()) for part in adapter.parts]
        return tuple(dict.fromkeys(named)) or PARTS[channel]

    def place(self, audience: str, channel: str, phase: Phase, locale: str) -> Place | None:
        """The first place that has all parts: locale outranks folder, audience outranks default."""
        key = (audience, channel, phase, locale)
        if key not in self._places:
            self._places[key] = self._find(audience, channel, phase=phase, locale=locale)
        return self._places[key]

    def _find(self, audience: str, channel: str, *, phase: Phase, locale: str) -> Place | None:
        parts = self.parts(channel)
        for wanted in dict.fromkeys((*chain(locale), self.packs.organisation.default_locale)):
            for folder in (audience, "default"):
                names: dict[str, str] = {}
                for part in parts:
                    suffix = f".{part}.j2" if len(parts) > 1 else ".j2"
                    for stem in (phase.value, ANY_PHASE):
                        name = f"{folder}/{channel}/{stem}.{wanted}{suffix}"
                        if name in self.sources.files:
                            names[part] = name
                            break
                if len(names) == len(parts):
                    return Place(wanted, names)
        return None

    def render(self, statement: Statement, audience: str, channel: str, locale: str) -> Rendering:
        """One message with what is wrong with it.

        Raises `KeyError` for an audience or channel that the packs do not have,
        `LookupError` if no place has all parts, and `jinja2.TemplateError` for a template
        that fails: `check_packs` finds both before anything is sent.
        """
        return self._render(statement, self.packs.audiences[audience], channel, locale, cache={})

    def render_all(self, statement: Statement, audiences: Iterable[str]) -> list[Rendering]:
        """Every audience on each of its channels in each of its locales."""
        cache: dict[tuple[str, str], Speech] = {}
        return [
            self._render(statement, self.packs.audiences[name], step.channel, locale, cache=cache)
            for name in audiences
            for step in self.packs.audiences[name].channels
            for locale in self.locales(name, step.channel)
        ]

    def _render(
        self,
        statement: Statement,
        audience: Audience,
        channel: str,
        locale: str,
        *,
        cache: dict[tuple[str, str], Speech],
    ) -> Rendering:
        place = self.place(audience.name, channel, statement.phase, locale)
        if place is None:
            raise LookupError(f"{audience.name}/{channel}/{statement.phase}.{locale}: no template")
        words = self.vocabulary(place.locale)
        key = (_listener(statement, audience), place.locale)
        if key not in cache:
            organisation = self.packs.organisation
            cache[key] = Speech(words, organisation, statement, audience=audience.name)
        say = cache[key]
        texts = Texts(own_words(statement, place.locale))
        parts, kinds = self._rendered_parts(
            statement, place, channel=channel, say=say, texts=texts, words=words
        )
        message = hashed(
            Message(
                id=f"{statement.update_id}/{audience.name}/{channel}/{locale}",
                channel=channel,
                locale=locale,
                parts=parts,
                slots=_slots(channel, parts),
                thread=statement.incident.id,
                expires_at=statement.expires_at,
            )
        )
        problems = (
            *missing_facts(statement, audience, self.packs.organisation),
            *self._wording(statement, place.locale, words),
            *self._judged(message),
        )
        facts = tuple(fact.id for kind, fact in statement.facts.items() if kind in kinds)
        return Rendering(audience.name, message, self._units(message), problems, facts)

    def vocabulary(self, locale: str) -> Vocabulary:
        """The words of a locale or of its language."""
        for wanted in (*chain(locale), self.packs.organisation.default_locale):
            if wanted in self.words:
                return self.words[wanted]
        raise LookupError(f"no vocabulary for {locale}")

    def _rendered_parts(
        self,
        statement: Statement,
        place: Place,
        *,
        channel: str,
        say: Speech,
        texts: Texts,
        words: Vocabulary,
    ) -> tuple[dict[str, str], set[FactKind]]:
        """The parts, and the kinds of facts whose words stand in any of them."""
        context: dict[str, Any] = {
            "say": say,
            "org": self._organisation,
            "texts": texts,
            "phase": statement.phase.value,
            "previous": statement.previous.value if statement.previous else "",
            "severity": statement.incident.severity.value,
            "lang": place.locale,
            "dir": words.direction,
            "colour": _STATUS_COLOURS[statement.phase],
        }
        raw: dict[str, str] = {}
        kinds: set[FactKind] = set()
        for part, name in place.names.items():
            if part == "html":
                context |= {
                    "subject": raw.get("subject", ""),
                    "blocks": blocks(raw.get("text", "")),
                }
            text = run(self._templates[name], context)
            if part == "html":
                kinds |= traces(text)
                text = untraced(text)
            else:
                finish = Finish(
                    one_line=part != "text" or "html" not in place.names,
                    drill=say.drill if part in _MARKED_FOR_DRILL else "",
                )
                found = fitted(text, room=room(channel, part), finish=finish, shown=texts.put)
                kinds |= found.kinds
                text = found.text
            raw[part] = text.strip()
        final = {part: texts.put(text, markup=part == "html") for part, text in raw.items()}
        return final, kinds

    def _units(self, message: Message) -> int:
        adapters = self._adapters.get(message.channel, ())
        default = Unit.SEGMENT if message.channel == Channel.SMS else Unit.MESSAGE
        counted = {adapter.limits.unit for adapter in adapters} or {default}
        return max(units(message, unit) for unit in counted)

    def _judged(self, message: Message) -> list[Problem]:
        """What the channel's adapters say of it, each complaint once."""
        found: dict[tuple[str, str], Problem] = {}
        for adapter in self._adapters.get(message.channel, ()):
            for problem in adapter.check(message):
                key = (problem.code, problem.part)
                if key not in found or problem.severity is Severity.ERROR:
                    found[key] = problem
        return list(found.values())

    def _wording(self, statement: Statement, locale: str, words: Vocabulary) -> Iterable[Problem]:
        for slot, by_locale in statement.texts.items():
            if slot not in TEXT_SLOTS:
                known = ", ".join(TEXT_SLOTS)
                yield Problem(
                    Severity.ERROR,
                    "unknown_text_slot",
                    slot,
                    f"no template shows the text slot {slot}; there are: {known}",
                )
            elif nearest_text(by_locale, locale) is None:
                yield Problem(
                    Severity.ERROR,
                    "text_missing",
                    slot,
                    f"the text slot {slot} has no words in {locale}, which this audience is served",
                )
            elif any(PRIVATE_USE.search(text) for text in by_locale.values()):
                yield Problem(
                    Severity.ERROR,
                    "private_character",
                    slot,
                    f"the text slot {slot} holds a character of private use, which shows as a box",
                )
        for service in statement.incident.services:
            if not words.knows("services", service):
                yield Problem(
                    Severity.WARNING, "unnamed_service", "", f"{locale} has no name for {service}"
                )
        for region in statement.incident.regions:
            named = words.knows("regions", region) or words.territory(region)
            if not named and region not in self.packs.organisation.region_names:
                yield Problem(
                    Severity.WARNING, "unnamed_region", "", f"{locale} has no name for {region}"
                )


@dataclass(frozen=True, slots=True)
class Finish:
    """Makes a template's output final: tidied, and marked if it is only a drill."""

    one_line: bool
    drill: str

    def __call__(self, text: str) -> str:
        return f"{self.drill} {tidy(text, one_line=self.one_line)}".strip()


def chain(locale: str) -> tuple[str, ...]:
    """`ar-EG`, `ar`: a locale and what it falls back to."""
    steps = [locale]
    while "-" in locale:
        locale = locale.rpartition("-")[0]
        steps.append(locale)
    return tuple(steps)


def nearest_text(by_locale: Mapping[str, str], locale: str) -> str | None:
    """The words for a locale, or for its language; none otherwise."""
    return next((by_locale[each] for each in chain(locale) if each in by_locale), None)


def _listener(statement: Statement, audience: Audience) -> str:
    """Who hears what this audience does: all the same, unless a fact is meant for some only."""
    told = (*statement.facts.values(), *statement.withdrawn)
    return audience.name if any(fact.stated.audiences is not None for fact in told) else ""


def own_words(statement: Statement, locale: str) -> dict[str, str]:
    """The update's own words in a locale, by slot."""
    found = {slot: nearest_text(words, locale) for slot, words in statement.texts.items()}
    return {slot: text for slot, text in found.items() if text is not None and slot in TEXT_SLOTS}


def missing_facts(
    statement: Statement, audience: Audience, organisation: Organisation
) -> list[Problem]:
    """Facts that this audience must hear at this phase and that nobody has stated.

    Emergency calls count only while a service that carries them is affected.
    """
    found: list[Problem] = []
    voice = not organisation.voice_services.isdisjoint(statement.incident.services)
    for kind in sorted(audience.required.get(statement.phase, ())):
        if kind is FactKind.EMERGENCY_CALLS and not voice:
            continue
        fact = statement.facts.get(kind)
        if fact is None or not (
            fact.stated.audiences is None or audience.name in fact.stated.audiences
        ):
            found.append(
                Problem(
                    Severity.ERROR,
                    "fact_missing",
                    "",
                    f"{audience.name} must hear of {kind.value} when {statement.phase.value}",
                )
            )
    return found


def organisation_view(organisation: Organisation) -> Mapping[str, str]:
    """What templates may say of the organisation."""
    return {
        "name": organisation.name,
        "short": organisation.short_name,
        "site": organisation.site,
        "prefix": organisation.sms_prefix,
        **asdict(organisation.support),
    }


def _slots(channel: str, parts: Mapping[str, str]) -> dict[str, Slot]:
    if channel != Channel.EMAIL:
        return {}
    return {
        name: slot
        for name, slot in SLOTS.items()
        if any(f"[[{name}]]" in text for text in parts.values())
    }

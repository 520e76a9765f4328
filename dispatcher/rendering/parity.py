"""Whether all audiences are told the same in every language: values compared, never style.

Pure: knows texts and the facts they were made from, no template and no SQL. What it finds are
warnings for a person's eye. Nobody is warned of a message that only says less where room is
short; an update's own words, which people translate by hand at night, are compared strictly.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from channels.contract import Channel, Severity
from dispatcher.audiences import Organisation
from dispatcher.incidents import (
    CompensationFact,
    Confidence,
    EmergencyCallsFact,
    Fact,
    RestoredFact,
    ScopeFact,
)
from dispatcher.rendering.gleaning import Sort, Value, glean, readable
from dispatcher.rendering.names import Names
from dispatcher.rendering.negation import denials, opposed
from dispatcher.rendering.renderer import chain, nearest_text
from dispatcher.rendering.statement import Rendering
from dispatcher.rendering.tongues import tongue
from dispatcher.rendering.vocabulary import Vocabulary

_AROUND = 40
"""Characters that an excerpt shows on either side of what it is about."""

_CONTRADICTED = frozenset({Sort.YEAR, Sort.WEEKDAY, Sort.DAY, Sort.ZONE, Sort.REGION})
"""Sorts of which one language may say less; only two that differ are a mismatch."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Two texts that should say the same and do not.

    `said` is the excerpt of the text that is compared with (`against_locale`, or
    `against_audience` in the same locale), `other` that of the one in question. Audience and
    channel are empty for an update's own words, which are named by `slot`, and for the
    packs' vocabularies.
    """

    sort: Sort
    message: str
    locale: str
    against_locale: str
    said: str = ""
    other: str = ""
    audience: str = ""
    channel: str = ""
    slot: str = ""
    against_audience: str = ""
    severity: Severity = Severity.WARNING


@dataclass(frozen=True, slots=True)
class Side:
    """One text of a comparison with what it claims."""

    locale: str
    text: str
    values: tuple[Value, ...]

    @property
    def language(self) -> str:
        return self.locale.split("-")[0]


@dataclass(frozen=True, slots=True)
class Read:
    """A message with its parts read, without the update's own words."""

    rendering: Rendering
    parts: Mapping[str, Side]


class Parity:
    """Compares in the words of the packs that it is given."""

    def __init__(self, words: Mapping[str, Vocabulary], organisation: Organisation) -> None:
        self._words = words
        self._default = organisation.default_locale
        self._names = Names(words, organisation)

    def side(self, locale: str, text: str) -> Side:
        """A text with its values."""
        language = locale.split("-")[0]
        return Side(locale, text, glean(text, tongue(language), twelve=self._twelve(locale)))

    def _named(self, side: Side, *, places: bool) -> Side:
        """With the names that it mentions."""
        names = self._names.found(readable(side.text), side.language, places=places)
        return Side(side.locale, side.text, (*side.values, *names))

    def _twelve(self, locale: str) -> bool:
        vocabulary = next(
            (self._words[each] for each in chain(locale) if each in self._words), None
        )
        return vocabulary is None or "a" in vocabulary.tables["formats"]["time"]

    def first(self, locales: Iterable[str]) -> str:
        """The locale that the others are compared with."""
        known = list(locales)
        return self._default if self._default in known else known[0]

    # --- an update's own words -----------------------------------------------------------

    def own_words(self, texts: Mapping[str, Mapping[str, str]]) -> Iterator[Mismatch]:
        """The words of each slot, every locale against the first."""
        for slot, by_locale in texts.items():
            written = {locale: text for locale, text in by_locale.items() if text.strip()}
            if len(written) < 2:
                continue
            sides = {
                locale: self._named(self.side(locale, text), places=True)
                for locale, text in written.items()
            }
            first = sides[self.first(written)]
            for side in sides.values():
                if side.text != first.text:
                    yield from self._strictly(first, side, slot)

    def _strictly(self, one: Side, other: Side, slot: str) -> Iterator[Mismatch]:
        for mine, theirs in differences(one.values, other.values, spoken=_spoken(one, other)):
            sort = (mine or theirs or _NOTHING).sort
            if sort in _CONTRADICTED and not (mine and theirs):
                continue
            yield _mismatch(one, other, mine, theirs, slot=slot)
        for name, wrong in self._names.misspelt(one.text, other.text):
            if not any(name in value.text or wrong in value.text for value in one.values):
                words = f"{one.locale} names {name}, {other.locale} {wrong}"
                at, there = readable(one.text).find(name), readable(other.text).find(wrong)
                yield Mismatch(
                    Sort.NAME, words, other.locale, one.locale,
                    excerpt(one.text, at, len(name)), excerpt(other.text, there, len(wrong)),
                    slot=slot,
                )  # fmt: skip
        for said, less in denials(one.text, one.language, other.text, other.language):
            locale, against = other.locale, one.locale
            denier = against if said.denies else locale
            silent = locale if said.denies else against
            words = f"{denier} says “not” here, {silent} does not"
            yield Mismatch(
                Sort.NEGATION, words, locale, against, cut(said.text), cut(less.text), slot=slot
            )

    # --- whole messages ------------------------------------------------------------------

    def messages(self, read: Mapping[int, "Read"]) -> Iterator[Mismatch]:
        """Every message against the same audience's and channel's in the first locale."""
        said: dict[str, list[Value]] = {}
        grouped: dict[tuple[str, str], dict[str, Read]] = {}
        for each in read.values():
            message = each.rendering.message
            for part in each.parts.values():
                said.setdefault(message.locale, []).extend(part.values)
            by_locale = grouped.setdefault((each.rendering.audience, message.channel), {})
            by_locale[message.locale] = each
        universe = {locale: _Said(values) for locale, values in said.items()}
        for by_locale in grouped.values():
            first = by_locale[self.first(by_locale)]
            for other in by_locale.values():
                if other is not first:
                    yield from self._message(first, other, universe)

    def _message(
        self, first: "Read", other: "Read", universe: Mapping[str, "_Said"]
    ) -> Iterator[Mismatch]:
        rendering = other.rendering
        whole = _whole(rendering) and set(first.rendering.facts) == set(rendering.facts)
        for part, one in first.parts.items():
            two = other.parts.get(part)
            if two is None:
                continue
            mine, theirs = one, two
            if whole:
                mine, theirs = (self._named(each, places=False) for each in (one, two))
            pairs = differences(mine.values, theirs.values, spoken=_spoken(mine, theirs))
            kept = (
                pairs if whole else _unsaid(pairs, universe[mine.locale], universe[theirs.locale])
            )
            for said, other_said in kept:
                value = said or other_said
                if value and (value.sort not in _CONTRADICTED or (said and other_said)):
                    yield _mismatch(
                        mine, theirs, said, other_said,
                        audience=rendering.audience, channel=rendering.message.channel,
                    )  # fmt: skip

    def read(self, rendering: Rendering, texts: Mapping[str, Mapping[str, str]]) -> "Read":
        """The parts without the update's own words; HTML says the same words as the text."""
        message = rendering.message
        own = [nearest_text(by_locale, message.locale) for by_locale in texts.values()]
        parts = {}
        for name, text in message.parts.items():
            if name == "html" and "text" in message.parts:
                continue
            for words in own:
                if words and words.strip():
                    text = text.replace(words, " ").replace(words.strip(), " ")
            parts[name] = self.side(message.locale, text)
        return Read(rendering, parts)

    # --- the same fact, told to several ---------------------------------------------------

    def facts(self, read: Mapping[int, "Read"], facts: Mapping[str, Fact]) -> Iterator[Mismatch]:
        """A fact's figure that one audience is told and another, told of the fact too, is not."""
        for fact in facts.values():
            wanted = _figure(fact)
            if wanted is None:
                continue
            shown: dict[str, tuple[Rendering, Side, Value]] = {}
            silent: list[Rendering] = []
            for each in read.values():
                rendering = each.rendering
                if fact.id not in rendering.facts or not _whole(rendering):
                    continue
                sides = each.parts.values()
                hits = ((side, v) for side in sides for v in side.values if v.same(wanted))
                if (hit := next(hits, None)) is None:
                    silent.append(rendering)
                else:
                    shown.setdefault(rendering.message.locale, (rendering, *hit))
            for mute in silent:
                if (found := shown.get(mute.message.locale)) is None:
                    continue
                by, side, value = found
                words = f"{by.audience} reads {value.text}, {mute.audience} does not"
                yield Mismatch(
                    value.sort, words, mute.message.locale, mute.message.locale,
                    _shown(side, value), "", mute.audience, mute.message.channel, "",
                    by.audience,
                )  # fmt: skip

    def vocabularies(self, locales: Sequence[str], facts: Iterable[Fact]) -> Iterator[Mismatch]:
        """Sentences of the packs of which one language denies what another states."""
        if not locales:
            return
        first = self.first(locales)
        for locale in locales:
            one, two = (self._vocabulary(each) for each in (first, locale))
            if locale == first or one is None or two is None:
                continue
            for key in dict.fromkeys(filter(None, map(_denial_key, facts))):
                for table in ("lines", "short"):
                    mine, theirs = (each.tables[table].get(key) for each in (one, two))
                    if mine and theirs and opposed(mine, one.locale, theirs, two.locale):
                        words = f"only one of {first} and {locale} says “not” in {table}.{key}"
                        yield Mismatch(Sort.NEGATION, words, locale, first, cut(mine), cut(theirs))

    def _vocabulary(self, locale: str) -> Vocabulary | None:
        return next((self._words[each] for each in chain(locale) if each in self._words), None)


def compare(
    renderings: Sequence[Rendering],
    *,
    words: Mapping[str, Vocabulary],
    organisation: Organisation,
    texts: Mapping[str, Mapping[str, str]],
    facts: Iterable[Fact] = (),
) -> list[Mismatch]:
    """Everything in which an update's messages do not say the same.

    `words` are the packs' vocabularies (`Renderer.words`), `texts` the update's own words by
    slot and locale, `facts` those that stand, if they are known: with them a figure that
    one audience reads and another does not is found too. Own words come first.
    """
    parity = Parity(words, organisation)
    held = {fact.id: fact for fact in facts}
    locales = list(dict.fromkeys(each.message.locale for each in renderings))
    read = {place: parity.read(each, texts) for place, each in enumerate(renderings)}
    found = [
        *parity.own_words(texts),
        *parity.vocabularies(locales, held.values()),
        *parity.messages(read),
        *parity.facts(read, held),
    ]
    return list(dict.fromkeys(found))


def compare_texts(
    texts: Mapping[str, Mapping[str, str]],
    *,
    words: Mapping[str, Vocabulary],
    organisation: Organisation,
) -> list[Mismatch]:
    """The update's own words alone, as they are typed."""
    return list(Parity(words, organisation).own_words(texts))


class _Said:
    """All that is said in a locale, to be asked quickly."""

    def __init__(self, values: Iterable[Value]) -> None:
        self._by_sort: dict[Sort, set[Value]] = {}
        for value in values:
            self._by_sort.setdefault(value.sort, set()).add(value)
        self._keys = {
            sort: frozenset().union(*(value.keys for value in held))
            for sort, held in self._by_sort.items()
        }

    def holds(self, value: Value) -> bool:
        return not value.keys.isdisjoint(self._keys.get(value.sort, frozenset()))


Pair = tuple[Value | None, Value | None]


def _unsaid(pairs: Iterable[Pair], one: _Said, other: _Said) -> Iterator[Pair]:
    """Of a short message's differences, those that no other message accounts for."""
    for mine, theirs in pairs:
        if theirs is not None and not one.holds(theirs):
            yield mine if mine is not None and not other.holds(mine) else None, theirs
        elif theirs is not None and mine is not None and not other.holds(mine):
            yield mine, theirs


def differences(
    one: Sequence[Value], other: Sequence[Value], *, spoken: frozenset[str] = frozenset({"1"})
) -> list[Pair]:
    """What one says and the other does not, paired by sort where both have something left.

    What is only said more often than by the other is no difference, unless the other says
    something else in its place. `spoken` are numbers that words say without a figure: an
    article is one, an Arabic dual two.
    """

    def missed(values: list[Value], by: Sequence[Value]) -> list[Value]:
        return [
            value
            for value in values
            if not value.soft
            and not (value.sort is Sort.NUMBER and value.loose in spoken)
            and not any(value.same(each) for each in by)
        ]

    ones, others = list(one), list(other)
    # First equals of one sort, then the same number in another manner of saying it.
    for fits in (lambda a, b: a.sort is b.sort and a.same(b), lambda a, b: a.same(b)):
        ones, others = _unmatched(ones, others, fits)
    pairs: list[Pair] = []
    for sort in dict.fromkeys(value.sort for value in (*ones, *others)):
        left = [value for value in ones if value.sort is sort]
        right = [value for value in others if value.sort is sort]
        if not right:
            left = missed(left, other)
        if not left:
            right = missed(right, one)
        if left and right and all(value.soft for value in (*left, *right)):
            left, right = left[:1], right[:1]
        for place in range(max(len(left), len(right))):
            pairs.append((_at(left, place), _at(right, place)))
    return pairs


def _unmatched(
    ones: list[Value], others: list[Value], fits: Callable[[Value, Value], bool]
) -> tuple[list[Value], list[Value]]:
    rest, left = list(others), []
    for value in ones:
        for place, each in enumerate(rest):
            if fits(value, each):
                del rest[place]
                break
        else:
            left.append(value)
    return left, rest


def _spoken(one: Side, other: Side) -> frozenset[str]:
    return frozenset({"1", "2"} if "ar" in (one.language, other.language) else {"1"})


def _at(values: Sequence[Value], place: int) -> Value | None:
    return values[place] if place < len(values) else None


_NOTHING = Value(Sort.NUMBER, frozenset(), "", 0)


def _mismatch(
    one: Side, other: Side, mine: Value | None, theirs: Value | None, **where: str
) -> Mismatch:
    sort = (mine or theirs or _NOTHING).sort
    if mine and theirs:
        words = f"{one.locale} says {mine.text}, {other.locale} {theirs.text}"
    elif mine:
        words = f"{one.locale} says {mine.text}, {other.locale} does not"
    else:
        words = f"{other.locale} says {theirs.text if theirs else ''}, {one.locale} does not"
    return Mismatch(
        sort, words, other.locale, one.locale,
        _shown(one, mine), _shown(other, theirs),
        audience=where.get("audience", ""), channel=where.get("channel", ""),
        slot=where.get("slot", ""),
    )  # fmt: skip


def _shown(side: Side, value: Value | None) -> str:
    if value is None:
        return cut(side.text)
    return excerpt(side.text, value.at, len(value.text))


def excerpt(text: str, at: int, length: int) -> str:
    """What stands around the place `at` of the readable text."""
    plain = readable(text)
    start, end = max(0, at - _AROUND), min(len(plain), at + length + _AROUND)
    words = " ".join(plain[start:end].split())
    return f"{'…' if start else ''}{words}{'…' if end < len(plain) else ''}"


def cut(text: str) -> str:
    """The beginning of a text on one line."""
    words = " ".join(readable(text[:400]).split())
    return words if len(words) <= 3 * _AROUND else f"{words[: 3 * _AROUND]}…"


def _whole(rendering: Rendering) -> bool:
    """Whether the channel has room to say everything."""
    return rendering.message.channel == Channel.EMAIL


def _figure(fact: Fact) -> Value | None:
    """What every full telling of the fact must show."""
    stated = fact.stated
    if stated.confidence is Confidence.RULED_OUT:
        return None
    match stated:
        case ScopeFact():
            return _value(Sort.NUMBER, str(stated.value.count))
        case RestoredFact() if stated.value.percent < 100:
            return _value(Sort.PERCENT, str(stated.value.percent))
        case CompensationFact():
            amount = f"{stated.value.amount.normalize():f}"
            return Value(Sort.NUMBER, frozenset({amount}), amount, 0, loose=amount)
    return None


def _value(sort: Sort, number: str) -> Value:
    return Value(sort, frozenset({number}), number, 0, loose=number)


_DENIED = {
    ("cause", "ruled_out"): "cause_ruled_out",
    ("not_cause", "confirmed"): "not_cause_confirmed",
    ("not_cause", "ruled_out"): "not_cause_confirmed",
    ("not_cause", "believed"): "not_cause_believed",
}


def _denial_key(fact: Fact) -> str | None:
    """The sentence of a fact in which a "not" more or less changes everything."""
    stated = fact.stated
    if isinstance(stated, EmergencyCallsFact):
        status: str = stated.value.status
        return f"emergency_{status}" if status in ("working", "not_working") else None
    return _DENIED.get((stated.kind, stated.confidence.value))

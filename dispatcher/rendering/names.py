"""The names that a text mentions: the organisation's own, its glossary's, and places.

Knows one text at a time, and two only to tell a misspelt name from another word.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher

from dispatcher.audiences import Organisation
from dispatcher.rendering.gleaning import Sort, Value, readable
from dispatcher.rendering.vocabulary import Vocabulary

_DECLINED: Mapping[str, int] = {"ru": 2}
"""Letters at a name's end that a language changes by case."""


class Names:
    """What is called by a name, by language. `found` is quick: one pattern per language."""

    def __init__(self, words: Mapping[str, Vocabulary], organisation: Organisation) -> None:
        self._organisation = organisation
        self._words = words
        self._patterns: dict[
            tuple[str, bool], tuple[re.Pattern[str], dict[str, tuple[Sort, str]]]
        ] = {}

    def found(self, text: str, language: str, *, places: bool) -> Iterator[Value]:
        """Every name in the text (already made readable) with what it stands for.

        `places`: those of regions too, which takes some ten times as long.
        """
        pattern, meanings = self._pattern(language, places=places)
        for hit in pattern.finditer(text):
            sort, key = meanings[hit[0].casefold()]
            yield Value(sort, frozenset({key}), hit[0], hit.start())

    def _pattern(
        self, language: str, *, places: bool
    ) -> tuple[re.Pattern[str], dict[str, tuple[Sort, str]]]:
        if (language, places) not in self._patterns:
            meanings = self._own(language)
            if places:
                meanings = self._places(language) | meanings
            longest = sorted(meanings, key=len, reverse=True)
            before = "" if language == "ar" else r"(?<!\w)"
            words = "|".join(re.escape(word) for word in longest)
            self._patterns[language, places] = (
                re.compile(f"{before}(?:{words or '(?!)'})", re.IGNORECASE),
                meanings,
            )
        return self._patterns[language, places]

    def _places(self, language: str) -> dict[str, tuple[Sort, str]]:
        found: dict[str, tuple[Sort, str]] = {}
        for code, name in self._organisation.region_names.items():
            found[name.casefold()] = (Sort.REGION, code)
        vocabulary = self._words.get(language)
        for code, name in (vocabulary.tables["regions"] if vocabulary else {}).items():
            stem = name[: -_DECLINED[language]] if _declines(language, name) else name
            found[stem.casefold()] = (Sort.REGION, code)
        return found

    def _own(self, language: str) -> dict[str, tuple[Sort, str]]:
        organisation = self._organisation
        found: dict[str, tuple[Sort, str]] = {}
        for word in (organisation.short_name, organisation.sms_prefix):
            found[word.casefold()] = (Sort.NAME, word.casefold())
        for place, term in enumerate(organisation.glossary.get(language, ())):
            found[term.casefold()] = (Sort.NAME, self._term(place, term))
        return {word: meaning for word, meaning in found.items() if word}

    def _term(self, place: int, term: str) -> str:
        """The glossary's term as the default locale has it: lists of one length go in step."""
        glossary = self._organisation.glossary
        first = glossary.get(self._organisation.default_locale, ())
        if term in first or any(len(each) != len(first) for each in glossary.values()):
            return term.casefold()
        return first[place].casefold()

    def misspelt(self, one: str, other: str) -> Iterator[tuple[str, str]]:
        """Pairs of names that are nearly alike, or that stand untranslated in another script."""
        mine, theirs = _proper(readable(one)), _proper(readable(other))
        left = [word for word in mine if word.casefold() not in _small(theirs)]
        right = [word for word in theirs if word.casefold() not in _small(mine)]
        foreign = _foreign(readable(other))
        for word in right:
            near = max(left, key=lambda each: _likeness(each, word), default=None)
            if near is None:
                continue
            if _likeness(near, word) >= (0.0 if foreign else 0.8):
                left.remove(near)
                yield near, word


_CAPITAL = re.compile(r"(?<![\w.@/-])[A-Z][a-z]+(?:[A-Z][a-z]+)*(?![\w@])")
_OPENS = re.compile(r"(?:^|[.!?:;\n«\"“(>-])\s*$")


def _proper(text: str) -> list[str]:
    """Latin names, as far as they show by a capital inside a sentence or in another script."""
    foreign = _foreign(text)
    return list(
        dict.fromkeys(
            hit[0]
            for hit in _CAPITAL.finditer(text)
            if len(hit[0]) > 3 and (foreign or not _OPENS.search(text[max(0, hit.start() - 4) : hit.start()]))
        )
    )  # fmt: skip


def _foreign(text: str) -> bool:
    """Whether the text is written in another script than the Latin one."""
    letters = sum(char.isalpha() for char in text)
    return sum(char.isalpha() and char > "\u024f" for char in text) * 2 > letters


def _small(words: list[str]) -> set[str]:
    return {word.casefold() for word in words}


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one.casefold(), other.casefold()).ratio()


def _declines(language: str, name: str) -> bool:
    return language in _DECLINED and len(name) > 5 and name[-1].isalpha()

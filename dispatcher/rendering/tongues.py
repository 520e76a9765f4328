"""What a language's words mean where they stand for numbers, times, units, or say "not".

Only for reading texts back; nothing here is ever sent. Months and weekdays come from Babel.
Words that decline are given by their stem, marked with a trailing `*`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from babel import Locale, UnknownLocaleError

T = TypeVar("T")

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400

_UNITS: Mapping[str, Mapping[int, str]] = {
    "en": {1: "second seconds sec secs", _MINUTE: "minute minutes min mins",
           _HOUR: "hour hours hr hrs h", _DAY: "day days", 7 * _DAY: "week weeks",
           30 * _DAY: "month months"},
    "es": {1: "segundo segundos seg", _MINUTE: "minuto minutos min", _HOUR: "hora horas h hs",
           _DAY: "día días dia dias", 7 * _DAY: "semana semanas", 30 * _DAY: "mes meses"},
    "ru": {1: "секунд* сек", _MINUTE: "минут* мин", _HOUR: "час часа часов часам часах ч",
           _DAY: "день дня дней дню сутки суток", 7 * _DAY: "недел*", 30 * _DAY: "месяц*"},
    "ar": {1: "ثانية ثوان ثواني", _MINUTE: "دقيقة دقائق د", _HOUR: "ساعة ساعات س",
           _DAY: "يوم يوما أيام ايام", 7 * _DAY: "أسبوع أسبوعا أسابيع اسابيع",
           30 * _DAY: "شهر شهرا أشهر شهور اشهر"},
}  # fmt: skip

_TIMES: Mapping[str, Mapping[int, str]] = {
    "en": {1_000: "thousand k", 10**6: "million millions mn", 10**9: "billion billions bn"},
    "es": {1_000: "mil k", 10**6: "millón millones millon", 10**9: "millardo millardos"},
    "ru": {1_000: "тысяч* тыс", 10**6: "миллион* млн", 10**9: "миллиард* млрд"},
    "ar": {1_000: "ألف ألفا آلاف الف الاف", 10**6: "مليون مليونا ملايين",
           10**9: "مليار مليارا مليارات"},
}  # fmt: skip

_SPELLED: Mapping[str, Mapping[int, str]] = {
    "en": {2: "two both twice", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven",
           8: "eight", 9: "nine", 10: "ten", 11: "eleven", 12: "twelve", 15: "fifteen",
           20: "twenty", 30: "thirty", 40: "forty", 50: "fifty", 60: "sixty", 90: "ninety",
           100: "hundred"},
    "es": {2: "dos ambos ambas", 3: "tres", 4: "cuatro", 5: "cinco", 6: "seis", 7: "siete",
           8: "ocho", 9: "nueve", 10: "diez", 11: "once", 12: "doce", 15: "quince",
           20: "veinte", 30: "treinta", 40: "cuarenta", 50: "cincuenta", 60: "sesenta",
           90: "noventa", 100: "cien ciento"},
    "ru": {2: "два две двух двумя двум оба обе обоих", 3: "три трёх трех тремя", 4: "четыр*",
           5: "пять пяти", 6: "шесть шести", 7: "семь семи", 8: "восемь восьми",
           9: "девять девяти", 10: "десять десяти", 11: "одиннадцат*", 12: "двенадцат*",
           15: "пятнадцат*", 20: "двадцат*", 30: "тридцат*", 40: "сорок сорока",
           50: "пятьдесят пятидесяти", 60: "шестьдесят", 90: "девяносто", 100: "сто ста"},
    "ar": {2: "اثنان اثنين اثنتان اثنتين ساعتين ساعتان دقيقتين دقيقتان يومين يومان مرتين",
           3: "ثلاث ثلاثة", 4: "أربع أربعة", 5: "خمس خمسة", 6: "ست ستة", 7: "سبع سبعة",
           8: "ثماني ثمانية ثمان", 9: "تسع تسعة", 10: "عشر عشرة", 12: "اثنا اثني",
           20: "عشرون عشرين", 30: "ثلاثون ثلاثين", 40: "أربعون أربعين", 50: "خمسون خمسين",
           60: "ستون ستين", 90: "تسعون تسعين", 100: "مئة مائة"},
}  # fmt: skip

_DAYS: Mapping[str, Mapping[str, str]] = {
    "en": {"today": "today tonight", "tomorrow": "tomorrow", "yesterday": "yesterday"},
    "es": {"today": "hoy", "tomorrow": "mañana", "yesterday": "ayer"},
    "ru": {"today": "сегодня", "tomorrow": "завтра", "yesterday": "вчера"},
    "ar": {"tomorrow": "غدا", "yesterday": "أمس"},
}

_NOT: Mapping[str, str] = {
    # Words that turn a sentence round.
    "en": "not no never none nobody nothing cannot neither nor",
    "es": "no nunca ningún ninguna ninguno nadie nada tampoco jamás ni",
    "ru": "не нет ни никогда никто никого никому ничего ничто нельзя никак никакой",
    "ar": "لا لم لن ليس ليست ليسوا",
}
_NOT_BEFORE: Mapping[str, str] = {
    # Words that hold a "not" of their own and turn a sentence round all the same.
    "en": r"un(?:available|able|affected|safe|related|necessary|likely|confirmed)|impossible",
    "es": r"indisponible\w*|imposible\w*|inseguro\w*",
    "ru": r"недоступ\w+|невозмож\w+|неисправ\w+|небезопас\w+",
    "ar": r"غير",
}
_NOT_WITHIN: Mapping[str, str] = {
    # Words that are enough where another language has to say "not".
    "en": r"un(?:known|usable|safe|true)|improbable|in(?:correct|valid|accurate|active|operative"
    r"|tact)|fail(?:s|ed|ing)?|avoid|false|wrong|exclud\w+|stop(?:s|ped)?|lacks?|refus\w+"
    r"|den(?:y|ies|ied)|free|without|down|out|offline|lost|lose|cut|interrupted|suspended|still",
    "es": r"in(?:correct|válid|activ|operativ|tact)\w*|improbable|fall(?:a|an|ar|e|en|ó|ado)"
    r"|evit\w+|fals[oa]s?|descart\w+|exclu\w+|imped\w+|desconoc\w+|deja\w*|carece\w*|niega\w*"
    r"|excepto|salvo|sin|caíd\w+|cortad\w+|interrump\w+|suspend\w+|fuera|perd\w+|ajen\w+|a salvo",
    "ru": r"не(?:извест|вер|правиль|рабо|коррект|действ|вероят|нуж)\w*|отсутств\w+|исключ\w+"
    r"|избега\w+|прекра\w+|отказ\w*|ложн\w+|откло\w+|кроме|вряд|без|прерван\w*|отключ\w+"
    r"|потер\w+|наруш\w+|сбо\w+|нет",
    "ar": r"\w?تعذر\w*|يتعذر|تعطل\w*|معطل\w*|فشل\w*|استبعد\w*|مستبعد\w*|خاطئ\w*|خطأ|مستحيل\w*"
    r"|تجنب\w*|\w*انقط\w+|مقطوع\w*|ينفي|نفى|باستثناء|سوى|\w*توقف\w*|امتنع\w*|مجهول\w*|كاذب\w*"
    r"|\w?دون|\w?بدون|\w?عدم|فقد\w*|خارج",
}

_PREFIXES: Mapping[str, str] = {"ar": "وفبلك"}
"""Letters that a language writes onto the word that follows."""

_ARTICLES: Mapping[str, str] = {"ar": "ال"}

_ALIKE = str.maketrans({"أ": "ا", "إ": "ا", "آ": "ا", "ى": "ي"})
_DIALECTS: Mapping[str, tuple[str, ...]] = {"ar": ("ar", "ar_LB", "ar_DZ", "en")}


def folded(word: str) -> str:
    """A word as it is looked up: small, and without what people leave out in haste."""
    return word.casefold().translate(_ALIKE)


class Lexicon(Generic[T]):
    """Words to what they mean, those that decline by their stem."""

    def __init__(self, tables: Iterable[Mapping[T, str]], *, language: str) -> None:
        self._exact: dict[str, T] = {}
        self._stems: list[tuple[str, T]] = []
        self._before = _PREFIXES.get(language, "")
        self._article = _ARTICLES.get(language, "")
        for table in tables:
            for meaning, words in table.items():
                for word in words.split():
                    if word.endswith("*"):
                        self._stems.append((folded(word[:-1]), meaning))
                    else:
                        self._exact[folded(word)] = meaning

    def get(self, word: str) -> T | None:
        """What a folded word means; none if it is no word of this lexicon."""
        found = self._exact.get(word)
        if found is not None:
            return found
        for stem, meaning in self._stems:
            if word.startswith(stem):
                return meaning
        if self._before and len(word) > 2:
            shorter = word[1:] if word[0] in self._before else word
            shorter = shorter.removeprefix(self._article)
            return self._exact.get(shorter) if shorter != word else None
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Tongue:
    """One language, ready to be read. `unit` is in seconds, `days` are today and its like."""

    language: str
    unit: Lexicon[int]
    times: Lexicon[int]
    spelled: Lexicon[int]
    days: Lexicon[str]
    months: Lexicon[int]
    weekdays: Lexicon[int]
    negations: Lexicon[str]
    negated_before: re.Pattern[str] | None
    negated_within: re.Pattern[str] | None

    @property
    def knows_not(self) -> bool:
        """Whether it can be told when this language says "not"."""
        return self.negated_within is not None

    def denies(self, text: str) -> bool:
        """Whether the text says "not", or a word that means the same."""
        before = self.negated_before
        return any(
            self.negations.get(word)
            or (self.language == "en" and _SHORT_NOT.search(word))
            or (before is not None and before.fullmatch(word))
            for word in words_of(text)
        )

    def denies_within(self, text: str) -> bool:
        """Whether a word of the text comes near a "not"."""
        within = self.negated_within
        return within is not None and any(within.fullmatch(word) for word in words_of(text))


_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SHORT_NOT = re.compile(r"n['’]t$")


def words_of(text: str) -> list[str]:
    """The folded words of a text in order."""
    return _WORD.findall(folded(text))


@lru_cache(maxsize=64)
def tongue(language: str) -> Tongue:
    """What is known of a language; little for one that is not known here."""
    # English stands beside every language: people leave its words in.
    spoken = (language,) if language == "en" else ("en", language)

    def lexicon(tables: Mapping[str, Mapping[int, str]]) -> Lexicon[int]:
        return Lexicon([tables.get(each, {}) for each in spoken], language=language)

    before, within = _NOT_BEFORE.get(language), _NOT_WITHIN.get(language)
    return Tongue(
        language=language,
        unit=lexicon(_UNITS),
        times=lexicon(_TIMES),
        spelled=Lexicon([_SPELLED.get(language, {})], language=language),
        days=Lexicon([_DAYS.get(language, {})], language=language),
        months=_calendar(language, "months"),
        weekdays=_calendar(language, "days"),
        negations=Lexicon([{"not": _NOT.get(language, "")}], language=language),
        negated_before=re.compile(folded(before)) if before else None,
        negated_within=re.compile(folded(within)) if within else None,
    )


def _calendar(language: str, what: str) -> Lexicon[int]:
    table: dict[int, str] = {}
    for name in _DIALECTS.get(language, ("en", language)):
        try:
            names = getattr(Locale.parse(name), what)
        except (UnknownLocaleError, ValueError):
            continue
        for form in ("format", "stand-alone"):
            for width in ("wide", "abbreviated"):
                for number, word in names.get(form, {}).get(width, {}).items():
                    single = word.rstrip(".").replace(".", "")
                    if " " not in single and not single.isdigit():
                        table[number] = f"{table.get(number, '')} {single}"
    return Lexicon([table], language=language)

"""The same facts in every language: no alarm where all is well, and none missed where it is not."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import Phase as HypothesisPhase
from hypothesis import given, settings
from hypothesis import strategies as st

from channels.contract import Severity
from dispatcher.audiences import load
from dispatcher.incidents import Fact, FactKind, Phase
from dispatcher.rendering import EXAMPLES, Renderer, Rendering, Statement
from dispatcher.rendering.gleaning import Sort, glean
from dispatcher.rendering.negation import aligned
from dispatcher.rendering.parity import Mismatch, compare, compare_texts
from dispatcher.rendering.proof import at_phase
from dispatcher.rendering.tongues import tongue

TEMPLATES = Path(__file__).parents[2] / "templates"
RENDERER = Renderer(load(TEMPLATES), [])
LOCALES = ("en", "es", "ru", "ar")


def compared(renderings: Iterable[Rendering], statement: Statement) -> list[Mismatch]:
    return compare(
        list(renderings),
        words=RENDERER.words,
        organisation=RENDERER.packs.organisation,
        texts=statement.texts,
        facts=statement.facts.values(),
    )


def own(**texts: str) -> list[Mismatch]:
    organisation = RENDERER.packs.organisation
    return compare_texts({"message": texts}, words=RENDERER.words, organisation=organisation)


def everything(statement: Statement) -> list[Rendering]:
    return RENDERER.render_all(statement, RENDERER.packs.audiences)


# --- no false alarm ----------------------------------------------------------------------


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("example", EXAMPLES)
def test_the_shipped_packs_say_the_same_everywhere(example: str, phase: Phase) -> None:
    statement = at_phase(EXAMPLES[example], phase)
    assert compared(everything(statement), statement) == []


KINDS = sorted(EXAMPLES["nasty"].facts, key=lambda kind: kind.value)


@settings(max_examples=20, deadline=None, derandomize=True, phases=[HypothesisPhase.generate])
@given(
    st.sampled_from(Phase),
    st.frozensets(st.sampled_from(KINDS)),
    st.integers(0, 3_000),
    st.integers(0, 3_000),
    st.sampled_from(("typical", "nasty")),
)
def test_whatever_facts_stand_and_whenever(
    phase: Phase, kinds: frozenset[FactKind], started: int, until: int, example: str
) -> None:
    base = at_phase(EXAMPLES[example], phase)
    held = {kind: EXAMPLES["nasty"].facts[kind] for kind in kinds}
    start = base.stated_at - timedelta(minutes=started)
    statement = replace(
        base,
        facts=held,
        texts={},
        incident=base.incident.model_copy(update={"started_at": start}),
        next_update_at=base.stated_at + timedelta(minutes=until),
    )
    assert compared(everything(statement), statement) == []


SAME: Mapping[str, Mapping[str, str]] = {
    "times and figures": {
        "en": "At 2:45 AM CST on Feb 22, 1,700,000 customers (75%) lost service. Call 1-800-555-0199"
        " or 911. Do not restart your phone before 9 AM.",
        "es": "A las 02:45 CST del 22 de febrero, 1.700.000 clientes (75 %) se quedaron sin servicio."
        " Llame al 1-800-555-0199 o al 911. No reinicie su teléfono antes de las 9 de la mañana.",
        "ru": "В 02:45 CST 22 февраля 1 700 000 клиентов (75 %) остались без связи. Звоните по номеру"
        " 1-800-555-0199 или 911. Не перезагружайте телефон до 9 утра.",
        "ar": "عند الساعة ٢:٤٥ ص CST يوم ٢٢ فبراير فقد ١٬٧٠٠٬٠٠٠ عميل (٧٥٪) الخدمة. اتصل بالرقم"
        " 1-800-555-0199 أو ٩١١. لا تُعِد تشغيل هاتفك قبل الساعة 9 صباحًا.",
    },
    "afternoon": {
        "en": "Northvale stores stay open until 9 p.m. and lend landlines for 30 minutes.",
        "es": "Las tiendas de Northvale abren hasta las 21:00 y prestan teléfonos fijos 30 minutos.",
        "ru": "Магазины Northvale открыты до 21:00 и дают городской телефон на 30 минут.",
        "ar": "متاجر Northvale مفتوحة حتى الساعة 9 مساءً وتعير هواتف أرضية لمدة 30 دقيقة.",
    },
    "money": {
        "en": "We credit $5 per account, $12.50 for business lines, within two hours.",
        "es": "Abonamos 5 $ por cuenta, 12,50 $ por línea de empresa, en dos horas.",
        "ru": "Мы начислим 5 долларов на счёт и 12,50 доллара на линию бизнеса за два часа.",
        "ar": "نعوض ٥ دولارات لكل حساب و١٢٫٥٠ دولارًا لكل خط أعمال خلال ساعتين.",
    },
    "millions": {
        "en": "About 1.7 million people, 73k of them in Texas, use 5G. Reference INC-0042.",
        "es": "Cerca de 1,7 millones de personas, 73 mil en Texas, usan 5G. Referencia INC-0042.",
        "ru": "Около 1,7 млн человек, из них 73 тыс. в Техасе, пользуются 5G. Номер INC-0042.",
        "ar": "نحو 1.7 مليون شخص، منهم 73 ألفًا في تكساس، يستخدمون 5G. المرجع INC-0042.",
    },
    "not": {
        "en": "This was not a cyberattack. Your data is safe. We will never ask for a password.",
        "es": "No fue un ciberataque. Sus datos están a salvo. Nunca le pediremos una contraseña.",
        "ru": "Это не кибератака. Ваши данные в безопасности. Мы никогда не спросим пароль.",
        "ar": "لم يكن هذا هجومًا إلكترونيًا. بياناتك في أمان. لن نطلب منك كلمة مرور أبدًا.",
    },
    "not within a word": {
        "en": "Calls are unavailable in Dallas. Text messages work.",
        "es": "Las llamadas no están disponibles en Dallas. Los mensajes de texto funcionan.",
        "ru": "Звонки в Dallas недоступны. Сообщения работают.",
        "ar": "المكالمات غير متاحة في Dallas. الرسائل النصية تعمل.",
    },
    "sentences joined": {
        "en": "We are sorry. The network is back. You need not do anything. Thank you for waiting.",
        "es": "Lo sentimos y la red ha vuelto. No tiene que hacer nada. Gracias por esperar.",
        "ru": "Приносим извинения, сеть работает. Делать ничего не нужно. Спасибо за ожидание.",
        "ar": "نعتذر إليك. عادت الشبكة. لا يلزمك أي إجراء. شكرًا لانتظارك.",
    },
    "one, an and two": {
        "en": "Wait an hour, then turn Wi-Fi on in 2 days. See northvale.example/help.",
        "es": "Espere 1 hora y active el Wi-Fi en 2 días. Vea northvale.example/help.",
        "ru": "Подождите 1 час, затем включите Wi-Fi через 2 дня. См. northvale.example/help.",
        "ar": "انتظر ساعة واحدة ثم شغّل Wi-Fi بعد يومين. راجع northvale.example/help.",
    },
    "weekday": {
        "en": "Our next notice comes on Thursday, February 22, 2024, at 10:30 in the morning.",
        "es": "El próximo aviso llega el jueves 22 de febrero de 2024 a las 10:30 de la mañana.",
        "ru": "Следующее сообщение выйдет в четверг, 22 февраля 2024 года, в 10:30 утра.",
        "ar": "يصدر إشعارنا التالي يوم الخميس 22 فبراير 2024 الساعة 10:30 صباحًا.",
    },
}


@pytest.mark.parametrize("name", SAME)
def test_own_words_that_say_the_same(name: str) -> None:
    assert own(**SAME[name]) == []


def test_the_same_words_in_every_language_and_a_single_language_are_left_alone() -> None:
    words = "We do not know more than 12 things, not even at 9 AM."
    assert own(**dict.fromkeys(LOCALES, words)) == [] and own(en=words) == []
    assert own(en=words, es="  ") == []


def test_a_language_that_is_not_known_here_is_compared_by_its_figures_alone() -> None:
    assert own(en="We are not back before 14:30.", fr="Retour après 14:30.") == []
    assert [m.sort for m in own(en="Back by 14:30.", fr="Retour à 15:30.")] == [Sort.TIME]


# --- nothing missed ----------------------------------------------------------------------

MUTATIONS = [
    ("times and figures", "es", "1.700.000", "1.070.000", Sort.NUMBER),
    ("times and figures", "ru", "1 700 000", "1 700 00", Sort.NUMBER),
    ("times and figures", "ar", "١٬٧٠٠٬٠٠٠", "١٬٧٠٠", Sort.NUMBER),
    ("times and figures", "es", "911", "912", Sort.NUMBER),
    ("times and figures", "ru", " или 911", "", Sort.NUMBER),
    ("times and figures", "es", "75 %", "57 %", Sort.PERCENT),
    ("times and figures", "ar", "٧٥٪", "٧٠٪", Sort.PERCENT),
    ("times and figures", "es", "02:45", "14:45", Sort.TIME),
    ("times and figures", "ru", "02:45", "03:45", Sort.TIME),
    ("times and figures", "ar", "٢:٤٥ ص", "٢:٤٥ م", Sort.TIME),
    ("times and figures", "ru", "9 утра", "9 вечера", Sort.TIME),
    ("times and figures", "ar", "9 صباحًا", "9 مساءً", Sort.TIME),
    ("times and figures", "es", "9 de la mañana", "9 de la noche", Sort.TIME),
    ("times and figures", "ru", "22 февраля", "22 марта", Sort.DATE),
    ("times and figures", "es", "22 de febrero", "23 de febrero", Sort.DATE),
    ("times and figures", "ar", "٢٢ فبراير", "٢١ فبراير", Sort.DATE),
    ("times and figures", "es", "555-0199", "555-0198", Sort.PHONE),
    ("times and figures", "ru", "1-800", "1-888", Sort.PHONE),
    ("times and figures", "es", "No reinicie", "Reinicie", Sort.NEGATION),
    ("times and figures", "ru", "Не перезагружайте", "Перезагружайте", Sort.NEGATION),
    ("times and figures", "ar", "لا تُعِد", "أعد", Sort.NEGATION),
    ("times and figures", "es", "CST", "EST", Sort.ZONE),
    ("times and figures", "en", "Do not restart", "Restart", Sort.NEGATION),
    ("times and figures", "en", "911", "811", Sort.NUMBER),
    ("afternoon", "es", "21:00", "09:00", Sort.TIME),
    ("afternoon", "ru", "Northvale", "Northdale", Sort.NAME),
    ("afternoon", "es", "Northvale", "Southvale", Sort.NAME),
    ("afternoon", "ar", "Northvale", "نورثفيل", Sort.NAME),
    ("afternoon", "es", "30 minutos", "30 horas", Sort.NUMBER),
    ("afternoon", "ru", "30 минут", "30 часов", Sort.NUMBER),
    ("afternoon", "ar", "30 دقيقة", "40 دقيقة", Sort.NUMBER),
    ("money", "es", "5 $", "50 $", Sort.MONEY),
    ("money", "ru", "5 долларов", "5 евро", Sort.MONEY),
    ("money", "ar", "٥ دولارات", "٦ دولارات", Sort.MONEY),
    ("money", "es", "dos horas", "tres horas", Sort.NUMBER),
    ("money", "ru", "два часа", "два дня", Sort.NUMBER),
    ("money", "ar", "١٢٫٥٠", "١٢٫٠٥", Sort.MONEY),
    ("millions", "es", "1,7 millones", "17 millones", Sort.NUMBER),
    ("millions", "ru", "1,7 млн", "1,7 тыс.", Sort.NUMBER),
    ("millions", "ar", "73 ألفًا", "37 ألفًا", Sort.NUMBER),
    ("millions", "es", "Texas", "Ohio", Sort.REGION),
    ("millions", "ru", "Техасе", "Огайо", Sort.REGION),
    ("millions", "es", "5G", "4G", Sort.CODE),
    ("millions", "ar", "INC-0042", "INC-0024", Sort.CODE),
    ("not", "es", "No fue", "Fue", Sort.NEGATION),
    ("not", "ru", "Это не кибератака", "Это кибератака", Sort.NEGATION),
    ("not", "ar", "لم يكن هذا هجومًا", "كان هذا هجومًا", Sort.NEGATION),
    ("not", "en", "was not", "was", Sort.NEGATION),
    ("not", "es", "Nunca le pediremos", "Le pediremos", Sort.NEGATION),
    ("not", "ar", "لن نطلب", "سنطلب", Sort.NEGATION),
    ("not within a word", "es", "no están disponibles", "están disponibles", Sort.NEGATION),
    ("not within a word", "ru", "недоступны", "доступны", Sort.NEGATION),
    ("not within a word", "es", "Dallas", "Houston", Sort.REGION),
    ("sentences joined", "es", "No tiene que hacer nada", "Tiene que llamar", Sort.NEGATION),
    ("sentences joined", "ru", "Делать ничего не нужно", "Нужно позвонить", Sort.NEGATION),
    ("one, an and two", "es", "2 días", "3 días", Sort.NUMBER),
    ("one, an and two", "ar", "يومين", "3 أيام", Sort.NUMBER),
    ("one, an and two", "es", "Wi-Fi", "Bluetooth", Sort.NAME),
    ("one, an and two", "ru", "northvale.example/help", "northvale.exmple/help", Sort.ADDRESS),
    ("weekday", "es", "jueves", "viernes", Sort.WEEKDAY),
    ("weekday", "ru", "2024", "2025", Sort.YEAR),
    ("weekday", "ar", "10:30", "11:30", Sort.TIME),
]


@pytest.mark.parametrize(("name", "locale", "right", "wrong", "sort"), MUTATIONS)
def test_a_mistake_in_one_languages_own_words_is_found(
    name: str, locale: str, right: str, wrong: str, sort: Sort
) -> None:
    texts = dict(SAME[name])
    assert right in texts[locale]
    texts[locale] = texts[locale].replace(right, wrong)
    found = own(**texts)
    assert sort in {mismatch.sort for mismatch in found}
    told = [mismatch for mismatch in found if mismatch.sort is sort]
    against = LOCALES[1:] if locale == "en" else (locale,)
    assert {mismatch.locale for mismatch in told} == set(against)
    for mismatch in told:
        assert mismatch.against_locale == "en" and mismatch.slot == "message"
        assert mismatch.severity is Severity.WARNING
        assert mismatch.said and mismatch.other and mismatch.message


def test_a_figure_that_takes_anothers_place_is_found_though_both_stand_elsewhere() -> None:
    found = own(en="12 of 10 and again 12 lines.", es="12 de 10 y otra vez 10 líneas.")
    assert [(m.sort, m.message) for m in found] == [(Sort.NUMBER, "en says 12, es 10")]
    assert own(en="Call 911. Yes, 911.", es="Llame al 911.") == []


def test_the_excerpt_stands_around_the_place_itself() -> None:
    words = "x " * 200
    found = own(en=f"{words} 12 lines {words}", es=f"{words} 13 lineas {words}")[0]
    assert " 12 lines " in found.said and " 13 lineas " in found.other
    assert len(found.said) < 120 and found.said[0] == found.said[-1] == "…"


def test_own_words_are_compared_once_and_not_again_in_every_message() -> None:
    base = EXAMPLES["typical"]
    texts = dict(SAME["money"])
    texts["ru"] = texts["ru"].replace("5 долларов", "7 долларов")
    statement = replace(base, texts={"message": texts})
    found = compared(everything(statement), statement)
    assert [(m.sort, m.locale, m.slot, m.channel) for m in found] == [
        (Sort.MONEY, "ru", "message", "")
    ]


# --- the packs themselves ----------------------------------------------------------------


def mutated(
    audience: str, channel: str, locale: str, right: str, wrong: str, example: str = "nasty"
) -> list[Mismatch]:
    """An update with one message's text changed, as by an edited template."""
    statement = replace(at_phase(EXAMPLES[example], Phase.INVESTIGATING), texts={})
    renderings = []
    for each in everything(statement):
        message = each.message
        if (each.audience, message.channel, message.locale) == (audience, channel, locale):
            assert any(right in text for text in message.parts.values()), message.parts
            parts = {name: text.replace(right, wrong) for name, text in message.parts.items()}
            each = replace(each, message=replace(message, parts=parts))
        renderings.append(each)
    return compared(renderings, statement)


@pytest.mark.parametrize(
    ("where", "right", "wrong", "sort"),
    [
        ("consumers/email/es", "1,234,567.89", "1,234,567.98", Sort.MONEY),
        ("consumers/email/ru", "02:45", "02:54", Sort.TIME),
        ("consumers/email/ar", "75", "57", Sort.PERCENT),
        ("consumers/email/es", "Northvale", "Northdale", Sort.NAME),
        ("consumers/sms/ru", "911", "912", Sort.NUMBER),
        ("public/social/ru", "911", "112", Sort.NUMBER),
    ],
)
def test_a_mistake_in_a_languages_template_is_found(
    where: str, right: str, wrong: str, sort: Sort
) -> None:
    audience, channel, locale = where.split("/")
    found = mutated(audience, channel, locale, right, wrong)
    assert {(m.audience, m.channel, m.locale) for m in found if m.sort is sort} == {
        (audience, channel, locale)
    }


def test_a_figure_that_one_audience_is_told_otherwise_is_found() -> None:
    found = mutated("media", "email", "en", "9,999,999,999", "9,999,999")
    assert [(m.audience, m.channel, m.locale, m.against_locale) for m in found] == [
        ("media", "email", "en", "en")
    ]
    assert found[0].against_audience and "9,999,999,999" in found[0].said


def test_a_vocabulary_that_lost_its_not_is_found() -> None:
    spanish = RENDERER.words["es"]
    lines = {**spanish.tables["lines"], "not_cause_believed": "Por ahora, fue {cause}."}
    words = {**RENDERER.words, "es": replace(spanish, tables={**spanish.tables, "lines": lines})}
    statement = EXAMPLES["nasty"]
    found = compare(
        everything(statement),
        words=words,
        organisation=RENDERER.packs.organisation,
        texts={},
        facts=list[Fact](statement.facts.values()),
    )
    assert [(m.sort, m.locale) for m in found] == [(Sort.NEGATION, "es")]
    assert "not_cause_believed" in found[0].message


# --- reading -----------------------------------------------------------------------------


@given(st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_any_text_can_be_read_and_agrees_with_itself(text: str) -> None:
    for language in (*LOCALES, "fr", "xx"):
        values = glean(text, tongue(language), twelve=True)
        assert all(value.keys for value in values)
    assert own(en=text, es=text, ru=text) == []


def test_a_hundred_thousand_characters_are_read_in_their_own_time() -> None:
    for words in ("12:30 ", "a.", "not ", "1-", "no. ", "+1 ("):
        text = (words * 100_000)[:100_000]
        assert {m.slot for m in own(en=text, es=f"{text} 7")} <= {"message"}


def test_sentences_are_laid_side_by_side_by_their_length() -> None:
    one = ["A short one.", "A second that is a good deal longer than the first.", "Third."]
    other = ["Uno corto.", "Un segundo", "que es bastante mas largo que el primero.", "Tercero."]
    assert aligned(one, other) == [
        (one[:1], other[:1]),
        (one[1:2], other[1:3]),
        (one[2:], other[3:]),
    ]

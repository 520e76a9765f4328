"""Who hears what by which contact point: each rule alone, and all of them against plain Python."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

import pytest

from dispatcher.ledger import selection
from dispatcher.ledger.connection import Connection, Ledger
from dispatcher.ledger.recipients import ContactRow, RecipientRow, importing
from dispatcher.ledger.selection import Question, Rule, Sending, Step, Wording

KINDS = {"sms": ("phone",), "email": ("email",), "push": ("fcm_token", "inbox")}
SERVING = {"phone": "twilio_sms", "email": "sendgrid_email", "fcm_token": "fcm_push"}


@dataclass(frozen=True)
class Person:
    """A recipient in plain words. Contacts are (kind, address); `us:` addresses are in the US."""

    ref: str
    segment: str = "consumer"
    tags: tuple[str, ...] = ()
    region: str = "US-TX"
    services: tuple[str, ...] = ("voice",)
    locale: str = "en"
    contacts: tuple[tuple[str, str], ...] = (("phone", "us:1"),)


@dataclass(frozen=True)
class Row:
    """One row of a selection in plain words; `shared` is the contact that somebody else holds."""

    ref: str
    audience: str
    channel: str
    contact: str | None
    shared: str | None
    message: int | None
    adapter: str
    sender: str
    reason: str


def rule(name: str, rank: int, *segments: str, everyone: bool = False, **more: object) -> Rule:
    plain = Rule(name, rank, segments, (), (), everyone, first=False)
    return replace(plain, **more)  # type: ignore[arg-type]


def ways(audience: str, *channels: str, serving: Mapping[str, str] = SERVING) -> tuple[Step, ...]:
    return tuple(
        Step(audience, number, channel, order, kind, serving.get(kind, ""))
        for number, channel in enumerate(channels)
        for order, kind in enumerate(KINDS[channel])
    )


def question(rules: Sequence[Rule], steps: Sequence[Step], **more: object) -> Question:
    """Everything named and due, a message in English for each audience and channel."""
    names = tuple(r.name for r in rules)
    pairs = dict.fromkeys((step.audience, step.channel) for step in steps)
    plain = Question(
        incident_id=None,
        update_id=None,
        services=("voice",),
        regions=(),
        named=names,
        due=names,
        earlier=(),
        withdrawn=(),
        spare_untold=False,
        default_locale="en",
        rules=tuple(rules),
        steps=tuple(steps),
        senders=(Sending("sms", "", "+1"), Sending("sms", "GB", "+44"), Sending("email", "", "@")),
        wordings=tuple(Wording(*pair, "en", number) for number, pair in enumerate(pairs, 1)),
    )
    return replace(plain, **more)  # type: ignore[arg-type]


def country(address: str) -> str | None:
    return address[:2].upper() if ":" in address else None


def store(ledger: Ledger, people: Sequence[Person]) -> None:
    rows = [
        RecipientRow(
            ref=p.ref,
            name=b"",
            locale=p.locale,
            segment=p.segment,
            region=p.region,
            services=p.services,
            tags=p.tags,
            row_hash=b"",
            contacts=[ContactRow(k, a.encode(), b"", "", country(a)) for k, a in p.contacts],
        )
        for p in people
    ]
    with importing(ledger) as session:
        session.merge(rows)


def suppress(conn: Connection, *contacts: tuple[str, str]) -> None:
    for kind, address in contacts:
        conn.execute(
            "INSERT INTO suppression (kind, lookup, hint, reason, source)"
            " VALUES (%s, %s, '', 'stop', 'test')",
            (kind, address.encode()),
        )


def chosen(conn: Connection) -> set[Row]:
    """What the selection of this transaction chose."""
    rows = conn.execute(
        "SELECT r.ref, v.audience, v.channel, convert_from(p.lookup, 'UTF8'),"
        " convert_from(s.lookup, 'UTF8'), v.message_id, v.adapter, v.sender, c.cell % 8"
        " FROM choice c JOIN voice v ON v.voice = c.cell / 8"
        " JOIN recipient r ON r.id = c.recipient_id"
        " LEFT JOIN contact_point p ON p.id = c.contact_point_id"
        " LEFT JOIN contact_point s ON s.id = c.shared_contact_id"
    ).fetchall()
    found = [Row(*(*row[:-1], selection.REASONS[row[-1]])) for row in rows]
    assert len(found) == len(set(found))
    return set(found)


def select(ledger: Ledger, asked: Question) -> set[Row]:
    with ledger.transaction() as work:
        selection.select(work.conn, asked)
        return chosen(work.conn)


def told(rows: set[Row]) -> set[tuple[str, str, str, str]]:
    """(person, audience, channel or the one that is shared, reason), for the tables below."""
    return {(row.ref, row.audience, row.channel, row.reason) for row in rows}


CARE = rule("care", 1, "care", everyone=True)
RESPONDERS = rule("responders", 2, "police", also_tags=("firstnet",))
BUSINESS = rule("business", 3, "business", tags=("contract",))
CONSUMERS = rule("consumers", 9, "consumer")
RULES = (CONSUMERS, BUSINESS, RESPONDERS, CARE)
BY_SMS = tuple(step for r in RULES for step in ways(r.name, "sms"))
ONE = Person("a")


@pytest.mark.parametrize(
    ("person", "audience"),
    [
        (Person("affected"), "consumers"),
        (Person("other service", services=("broadband",)), None),
        (Person("the region itself", region="US"), "consumers"),
        (Person("inside", region="US-TX-Austin"), "consumers"),
        (Person("only begins alike", region="USA"), None),
        (Person("elsewhere", region="NZ"), None),
        (Person("everyone of a segment", "care", region="NZ", services=()), "care"),
        (Person("a tag outweighs", "consumer", ("x", "firstnet")), "responders"),
        (Person("a tag beside a segment", "police"), "responders"),
        (Person("a tag needs affected", tags=("firstnet",), region="NZ"), None),
        (Person("segment without its tag", "business"), None),
        (Person("segment with its tag", "business", ("contract",)), "business"),
        (Person("the highest rank", "care", ("firstnet",)), "care"),
    ],
    ids=lambda value: value.ref if isinstance(value, Person) else "",
)
def test_the_audience_of_a_person(ledger: Ledger, person: Person, audience: str | None) -> None:
    store(ledger, [person])
    rows = select(ledger, question(RULES, BY_SMS, regions=("US",)))
    assert {row.audience for row in rows} == ({audience} if audience else set())


def test_tags_alone_do_not_take_everybody(ledger: Ledger) -> None:
    store(ledger, [Person("a"), Person("b", tags=("vip",), contacts=(("phone", "us:2"),))])
    only = rule("vips", 1, also_tags=("vip",))
    assert {row.ref for row in select(ledger, question([only], ways("vips", "sms")))} == {"b"}


@pytest.mark.parametrize(
    ("named", "due", "rows"),
    [
        (("responders", "anyone"), ("responders",), {("responders", "")}),
        (("responders", "anyone"), ("anyone",), set()),
        (("anyone",), ("anyone",), {("anyone", "other_audience")}),
        (("anyone", "care"), ("care",), set()),
        (("care",), ("care",), set()),
    ],
)
def test_a_responder_where_others_are_named_or_due(
    ledger: Ledger, named: tuple[str, ...], due: tuple[str, ...], rows: set[tuple[str, str]]
) -> None:
    """Who belongs to an audience that is not named falls out of the next, and is counted there."""
    store(ledger, [Person("a", "police")])
    rules = (CARE, RESPONDERS, rule("anyone", 9))
    steps = [step for r in rules for step in ways(r.name, "sms")]
    found = select(ledger, question(rules, steps, named=named, due=due))
    assert {(row.audience, row.reason) for row in found} == rows


PHONE, MAIL, TOKEN, INBOX = ("phone", "p"), ("email", "m"), ("fcm_token", "t"), ("inbox", "i")


@pytest.mark.parametrize(
    ("first", "contacts", "suppressed", "rows"),
    [
        (True, (PHONE, MAIL, TOKEN), (), {("push", "t", "")}),
        (True, (PHONE, MAIL), (), {("sms", "p", "")}),
        (True, (MAIL,), (), {("email", "m", "")}),
        (True, (PHONE, ("phone", "q"), MAIL), (), {("sms", "p", ""), ("sms", "q", "")}),
        (True, (PHONE, MAIL), (PHONE,), {("email", "m", "")}),
        (True, (PHONE,), (PHONE,), {("sms", "p", "suppressed")}),
        (True, (INBOX, PHONE), (), {("sms", "p", "")}),
        (True, (INBOX,), (), {("push", "i", "no_adapter")}),
        (True, (INBOX, PHONE), (PHONE,), {("push", "i", "no_adapter")}),
        (False, (PHONE, MAIL), (), {("sms", "p", ""), ("email", "m", "")}),
        (False, (TOKEN, INBOX, MAIL), (), {("push", "t", ""), ("email", "m", "")}),
        (False, (PHONE, MAIL), (PHONE,), {("sms", "p", "suppressed"), ("email", "m", "")}),
        (False, (), (), {("none", None, "no_contact")}),
    ],
)
def test_the_contact_points_that_are_used(
    ledger: Ledger,
    first: bool,
    contacts: tuple[tuple[str, str], ...],
    suppressed: tuple[tuple[str, str], ...],
    rows: set[tuple[str, str | None, str]],
) -> None:
    store(ledger, [Person("a", contacts=contacts)])
    reach = replace(CONSUMERS, first=first)
    with ledger.transaction() as work:
        suppress(work.conn, *suppressed)
        selection.select(work.conn, question([reach], ways("consumers", "push", "sms", "email")))
        found = chosen(work.conn)
    assert {(row.channel, row.contact, row.reason) for row in found} == rows


@pytest.mark.parametrize(
    ("locale", "messages", "said"),
    [
        ("es-MX", {"es-MX": 1, "es": 2, "en": 3}, 1),
        ("es-MX", {"es": 2, "en": 3}, 2),
        ("es-MX", {"es-ES": 1, "en": 3}, 3),
        ("es-MX", {"ru": 4}, None),
    ],
)
def test_the_nearest_locale(
    ledger: Ledger, locale: str, messages: dict[str, int], said: int | None
) -> None:
    store(ledger, [Person("a", locale=locale)])
    wordings = tuple(Wording("consumers", "sms", name, n) for name, n in messages.items())
    (row,) = select(ledger, question([CONSUMERS], ways("consumers", "sms"), wordings=wordings))
    assert (row.message, row.reason) == (said, "" if said else "no_message")


@pytest.mark.parametrize(("address", "sender"), [("gb:1", "+44"), ("us:1", "+1"), ("1", "+1")])
def test_the_sender_of_a_country(ledger: Ledger, address: str, sender: str) -> None:
    store(ledger, [Person("a", contacts=(("phone", address),))])
    (row,) = select(ledger, question([CONSUMERS], ways("consumers", "sms")))
    assert row.sender == sender


def test_a_shared_contact_is_told_once_for_the_highest_ranking(ledger: Ledger) -> None:
    home = (("phone", "us:home"),)
    store(
        ledger,
        [
            Person("child", contacts=home),
            Person("parent", "care", contacts=home),
            Person("patient", tags=("priority",), contacts=home),
            Person("alone", contacts=(("phone", "us:own"),)),
        ],
    )
    rows = {row.ref: row for row in select(ledger, question(RULES, BY_SMS))}
    assert {ref: row.reason for ref, row in rows.items()} == {
        "child": "shared_contact",
        "parent": "",
        "patient": "shared_contact",
        "alone": "",
    }
    assert rows["parent"].contact == "us:home"
    assert (rows["child"].contact, rows["child"].shared) == (None, "us:home")


def test_among_equals_the_priority_tag_holds_a_shared_contact(ledger: Ledger) -> None:
    home = (("phone", "us:home"),)
    store(ledger, [Person("a", contacts=home), Person("b", tags=("priority",), contacts=home)])
    rows = {row.ref: row.reason for row in select(ledger, question(RULES, BY_SMS))}
    assert rows == {"a": "shared_contact", "b": ""}


def test_counts_are_those_of_the_rows(ledger: Ledger) -> None:
    store(ledger, [ONE, Person("b", contacts=()), Person("c", contacts=(PHONE, MAIL))])
    with ledger.transaction() as work:
        selection.select(work.conn, question([CONSUMERS], ways("consumers", "sms", "email")))
        assert selection.people(work.conn) == {"consumers": (2, 3)}
        reached = {(r.channel, r.reason): (r.people, r.rows) for r in selection.reach(work.conn)}
    assert reached == {("sms", ""): (2, 2), ("email", ""): (1, 1), ("none", "no_contact"): (1, 1)}


def test_the_callers_settings_are_given_back(ledger: Ledger) -> None:
    store(ledger, [ONE])
    names = ("enable_nestloop", "enable_mergejoin", "enable_seqscan", "work_mem", "jit")
    with ledger.transaction() as work:

        def now() -> list[str]:
            found = [work.conn.execute(f"SHOW {name}").fetchone() for name in names]
            return [row[0] for row in found if row]

        before = now()
        selection.select(work.conn, question(RULES, BY_SMS))
        assert now() == before


# All rules at once, against a second telling of them in plain Python.


def _matches(r: Rule, person: Person) -> bool:
    if set(r.also_tags) & set(person.tags):
        return True
    if r.also_tags and not r.segments and not r.tags:
        return False
    fits = not r.segments or person.segment in r.segments
    return fits and (not r.tags or bool(set(r.tags) & set(person.tags)))


def _first(rules: Sequence[Rule], person: Person) -> Rule | None:
    return min((r for r in rules if _matches(r, person)), key=lambda r: r.rank, default=None)


def _who(person: Person, asked: Question) -> tuple[str, str] | None:
    """(audience, reason) of one person, or None if this is none of theirs."""
    inside = not asked.regions or any(
        person.region == region or person.region.startswith(region + "-")
        for region in asked.regions
    )
    affected = inside and bool(set(person.services) & set(asked.services))
    own = _first(asked.rules, person)
    if own is not None and own.name in asked.named:
        return (own.name, "") if own.name in asked.due and (own.everyone or affected) else None
    named = [r for r in asked.rules if r.name in asked.named and (r.everyone or affected)]
    other = _first(named, person)
    return (other.name, "other_audience") if other and other.name in asked.due else None


def _rows_of(
    person: Person, asked: Question, suppressed: set[tuple[str, str]]
) -> list[tuple[Row, str]]:
    """A person's rows before sharing, each with its contact."""
    placed = _who(person, asked)
    if placed is None:
        return []
    audience, reason = placed
    first = next(r.first for r in asked.rules if r.name == audience)
    courses: dict[int, list[tuple[tuple[bool, bool, int, int], Step, str]]] = {}
    for step in asked.steps if not reason else ():
        for kind, address in person.contacts:
            if (step.audience, step.kind) == (audience, kind):
                barred = (kind, address) in suppressed
                taste = (barred, not step.adapter, step.step, step.kind_order)
                courses.setdefault(-1 if first else step.step, []).append((taste, step, address))
    rows = []
    for found in courses.values():
        best = min(taste for taste, _, _ in found)
        for taste, step, address in found:
            if taste == best:
                rows.append((_row(person, asked, step, address, barred=bool(taste[0])), address))
    if not rows:
        rows = [
            (
                Row(person.ref, audience, "none", None, None, None, "", "", reason or "no_contact"),
                "",
            )
        ]
    return rows


def _row(person: Person, asked: Question, step: Step, address: str, *, barred: bool) -> Row:
    by_locale = {
        w.locale: w.id
        for w in asked.wordings
        if (w.audience, w.channel) == (step.audience, step.channel)
    }
    nearest = (person.locale, person.locale.split("-")[0], asked.default_locale)
    message = next((by_locale[name] for name in nearest if name in by_locale), None)
    by_country = {s.country: s.sender for s in asked.senders if s.channel == step.channel}
    sender = by_country.get(country(address) or "", by_country.get("", ""))
    reason = "" if message else "no_message"
    reason = reason if step.adapter else "no_adapter"
    reason = "suppressed" if barred else reason
    return Row(
        person.ref,
        step.audience,
        step.channel,
        address,
        None,
        message,
        step.adapter,
        sender,
        reason,
    )


def expected(
    people: Sequence[Person], asked: Question, suppressed: set[tuple[str, str]]
) -> set[Row]:
    rank = {r.name: r.rank for r in asked.rules}
    rows = [
        (row.reason != "", rank[row.audience], "priority" not in person.tags, number, row)
        for number, person in enumerate(people)
        for row, _ in _rows_of(person, asked, suppressed)
    ]
    held: set[tuple[str, str]] = set()
    found = set()
    for *_, row in sorted(rows, key=lambda entry: entry[:4]):
        key = (row.channel, row.contact or "")
        if row.contact and key in held:
            row = replace(
                row, contact=None, shared=row.contact, reason=row.reason or "shared_contact"
            )
        held.add(key)
        found.add(row)
    return found


def _some(random: Random, values: Sequence[str], most: int) -> tuple[str, ...]:
    return tuple(random.sample(values, random.randint(0, most)))


def _people(random: Random) -> list[Person]:
    # Few addresses, so that many are shared; an address stands for one kind only.
    addresses = [
        (kind, f"{where}{kind}{n}")
        for kind in ("phone", "email", "fcm_token", "inbox")
        for where in ("us:", "gb:", "")
        for n in range(3)
    ]
    return [
        Person(
            ref=f"p{number:02}",
            segment=random.choice(("consumer", "business", "police", "care")),
            tags=_some(random, ("firstnet", "contract", "priority", "vip"), 2),
            region=random.choice(("US", "US-TX", "US-TX-A", "US-NY", "USA", "NZ")),
            services=_some(random, ("voice", "sms", "broadband"), 3),
            locale=random.choice(("en", "es", "es-MX", "ru")),
            contacts=tuple(random.sample(addresses, random.randint(0, 4))),
        )
        for number in range(random.randint(1, 25))
    ]


def _asked(random: Random) -> Question:
    names = ("one", "two", "three", "four", "five")
    rules: list[Rule] = []
    steps: list[Step] = []
    for rank, name in enumerate(random.sample(names, 5), 1):
        segments = _some(random, ("consumer", "business", "police", "care"), 2)
        rules.append(
            Rule(
                name=name,
                rank=rank,
                segments=segments,
                tags=_some(random, ("contract", "vip"), 1),
                also_tags=_some(random, ("firstnet", "vip"), 1),
                everyone=bool(segments) and random.random() < 0.3,
                first=random.random() < 0.5,
            )
        )
        serving = {kind: name for kind, name in SERVING.items() if random.random() < 0.8}
        channels = random.sample(("sms", "email", "push"), random.randint(1, 3))
        steps += ways(name, *channels, serving=serving)
    named = tuple(random.sample(names, random.randint(1, 5)))
    wordings = [
        Wording(step.audience, step.channel, locale, number * 4 + at)
        for number, step in enumerate(steps, 1)
        for at, locale in enumerate(("en", "es", "es-MX"))
        if step.kind_order == 0 and random.random() < 0.6
    ]
    return question(
        sorted(rules, key=lambda r: r.name),
        steps,
        services=("voice", "sms"),
        regions=_some(random, ("US", "US-TX", "NZ"), 2),
        named=named,
        due=tuple(random.sample(named, random.randint(1, len(named)))),
        wordings=tuple(wordings),
    )


@pytest.mark.parametrize("bystanders", [0, 3_000], ids=["many", "few"])
def test_the_selection_is_that_of_plain_python(ledger: Ledger, bystanders: int) -> None:
    """The same whether tables are passed over once, or a few people looked up among many."""
    with ledger.transaction() as work:
        work.conn.execute(
            "INSERT INTO recipient (ref, name, locale, segment, region, services, tags, row_hash)"
            " SELECT 'by' || n, '', 'en', 'bystander', 'ZZ', '{}', '{}', ''"
            " FROM generate_series(1, %s) n",
            (bystanders,),
        )
    reasons: set[str] = set()
    looked_up = 0
    for seed in range(40):
        random = Random(seed)
        people, asked = _people(random), _asked(random)
        store(ledger, people)
        contacts = sorted({contact for person in people for contact in person.contacts})
        suppressed = {contact for contact in contacts if random.random() < 0.15}
        with ledger.transaction() as work:
            work.conn.execute("DELETE FROM suppression")
            suppress(work.conn, *suppressed)
            selected = selection.select(work.conn, asked)
            assert selected is not None
            looked_up += selected.few
            found = chosen(work.conn)
            gone = work.conn.execute(
                "DELETE FROM recipient WHERE starts_with(ref, 'p') RETURNING ref, id"
            ).fetchall()
            if not bystanders:  # so that the directory stays as small as it is
                work.conn.execute("TRUNCATE recipient CASCADE")
        ids: dict[str, int] = dict(gone)
        people.sort(key=lambda person: ids[person.ref])
        wanted = expected(people, asked, suppressed)
        assert found == wanted, f"seed {seed}"
        reasons |= {row.reason for row in wanted}
    assert reasons == set(selection.REASONS) - {"not_told_before"}
    assert looked_up == 40 if bystanders else looked_up < 30

"""Who hears an update, by which contact point, with which message, or why not: set-based SQL.

The selection is built in temporary tables of the caller's transaction. Planning inserts
from them; a preview counts them and rolls back, so that what was shown is what is done.

    who      one row per person: the audience it belongs to, or the one it fell out of
    told     who may have heard earlier updates of the incident, and when last
    voice    message, adapter and sender as few rows; `channel` none for who has no contact
    choice   one row per person and contact point (or per person that has none), with its
             `cell`: the voice and the reason if it will not be sent, in one number

Audiences, ways, voices and reasons are numbers in here: a million rows are joined and
sorted by them. How tables are joined is set by counting, not left to statistics: right
after an import there are none, and a guess of one row costs minutes.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dispatcher.ledger import selection_statements as statements
from dispatcher.ledger.connection import Connection, one
from dispatcher.ledger.question import Question, Rule, Span, names
from dispatcher.ledger.voices import MISSING, NUMBER, REASONS, Sending, Step, Voices, Wording

__all__ = [
    "REASONS",
    "Missed",
    "Question",
    "Reach",
    "Rule",
    "Selected",
    "Sending",
    "Span",
    "Standing",
    "Step",
    "Wording",
    "names",
]


@contextmanager
def joining(conn: Connection, *, few: bool) -> Iterator[None]:
    """How this transaction joins: a few rows by index lookups, many by one pass and a hash.

    Few, and no scan of a whole table is chosen; many, and no loop over one is.
    """
    settings = {
        "work_mem": "'128MB'",
        "jit": "off",
        "max_parallel_workers_per_gather": "0",
        **(_LOOKING_UP if few else _PASSING_ONCE),
    }
    conn.execute("; ".join(f"SET LOCAL {name} = {value}" for name, value in settings.items()))
    yield
    conn.execute("; ".join(f"SET LOCAL {name} TO DEFAULT" for name in settings))


_LOOKING_UP = {"enable_seqscan": "off"}
_PASSING_ONCE = {"enable_nestloop": "off", "enable_mergejoin": "off"}

_DROPPED = (
    "DROP TABLE IF EXISTS pg_temp.choice, pg_temp.voice, pg_temp.reached, pg_temp.told,"
    " pg_temp.carried, pg_temp.who, pg_temp.member"
)


@dataclass(frozen=True, slots=True)
class Selected:
    """How many people were found, and if they are few, measured by the directory: what works
    on them next may say so."""

    people: int
    few: bool


def select(conn: Connection, question: Question) -> Selected | None:
    """Build `who`, `told`, `voice` and `choice` in this transaction's temporary tables.

    None, and no selection, if there are more than the question's `at_most`.
    """
    rules, values = _asked(question)
    conn.execute(_DROPPED)
    with joining(conn, few=question.among is not None):
        people = _select_who(conn, question, rules, values)
    if question.at_most is not None and people > question.at_most:
        return None
    few = people <= _directory_pages(conn)
    with joining(conn, few=few):
        _run(conn, statements.TOLD, values)
        _run(conn, statements.REACHED_BEFORE if question.withdrawn else statements.REACHED, values)
        _choose(conn, question, rules, values)
    return Selected(people, few)


def select_from(
    conn: Connection, question: Question, who: str, values: Mapping[str, object]
) -> int:
    """As `select`, for the people whom the statement `who` finds by index; returns how many.

    `who` makes the table of that name. Nothing else is built if it finds nobody.
    """
    rules, given = _asked(question)
    conn.execute(_DROPPED)
    with joining(conn, few=True):
        people = _run(conn, who, {**given, **values})
    if people:
        with joining(conn, few=people <= _directory_pages(conn)):
            _run(conn, statements.TOLD, given)
            _run(conn, statements.REACHED, given)
            _choose(conn, question, rules, given)
    return people


def _asked(question: Question) -> tuple[list[Rule], dict[str, object]]:
    """The rules by rank, and what the statements are given."""
    rules = sorted(question.rules, key=lambda rule: rule.rank)
    names = [rule.name for rule in rules]
    return rules, {
        "incident": question.incident_id,
        "update": question.update_id,
        "rules": names,
        "turns": [rule.name for rule in sorted(rules, key=lambda rule: (rule.lane, rule.rank))],
        "due_names": list(question.due),
        "earlier": list(question.earlier),
        "withdrawn": list(question.withdrawn),
        **_ways(question, names),
    }


def _select_who(
    conn: Connection, question: Question, rules: Sequence[Rule], values: Mapping[str, object]
) -> int:
    if question.withdrawn:
        _run(conn, statements.CARRIED, values)
        return _run(conn, statements.WHO_BEFORE, values)
    members = question.incident_id is not None and _run(conn, statements.MEMBER, values) > 0
    if members:
        # So that they are hashed, and not the directory.
        conn.execute("ANALYZE member")
    return _run(conn, *statements.who(question, rules, members=members))


def _choose(
    conn: Connection, question: Question, rules: Sequence[Rule], values: Mapping[str, object]
) -> None:
    speech = Voices(
        question.wordings,
        question.senders,
        default_locale=question.default_locale,
        audiences=[rule.name for rule in rules],
    )
    kinds = conn.execute("SELECT DISTINCT way, locale, country FROM reached").fetchall()
    spoken = [speech.voice(question.steps[way], locale, to) for way, locale, to in kinds]
    said = {
        **values,
        **speech.columns(),
        "spoken_way": [row[0] for row in kinds],
        "spoken_locale": [row[1] for row in kinds],
        "spoken_country": [row[2] for row in kinds],
        "spoken_voice": [voice for voice, _ in spoken],
        "spoken_flaw": [flaw for _, flaw in spoken],
    }
    _run(conn, statements.VOICE, said)
    spare = question.spare_untold
    join = "LEFT JOIN told t ON t.recipient_id = r.recipient_id" if spare else ""
    untold = "t.recipient_id IS NULL" if spare else "false"
    _run(conn, statements.CHOICE.format(untold=untold, told=join, **NUMBER), said)
    _run(conn, statements.SHARED.format(**NUMBER), said)
    if question.update_id is not None:
        _run(conn, statements.SHARED_BEFORE.format(**NUMBER), said)


def _ways(question: Question, names: Sequence[str]) -> dict[str, object]:
    """Every step as columns: the way's number is the step's place in the question.

    A course is what is chosen from: all ways for `first`, those of one step for `all`.
    """
    first = {rule.name for rule in question.rules if rule.first}
    known = [(way, step) for way, step in enumerate(question.steps) if step.audience in names]
    return {
        "way": [way for way, _ in known],
        "way_audience": [names.index(step.audience) + 1 for _, step in known],
        "way_channel": [step.channel for _, step in known],
        "way_kind": [step.kind for _, step in known],
        "way_course": [0 if step.audience in first else step.step + 1 for _, step in known],
        "way_preference": [
            (not step.adapter) * 65536 + step.step * 256 + step.kind_order for _, step in known
        ],
    }


def _directory_pages(conn: Connection) -> int:
    """The directory's size as it is on disk; some 33 people are on a page."""
    return int(one(conn.execute("SELECT pg_relation_size('recipient') / 8192").fetchone()))


def _run(conn: Connection, statement: str, values: Mapping[str, object]) -> int:
    """Run a statement with a plan of its own; returns its rows.

    One that was planned for ten people must not be used for a million.
    """
    return conn.execute(statement.encode(), values, prepare=False).rowcount


@dataclass(frozen=True, slots=True)
class Reach:
    """How many a selection reaches, by audience, channel, locale, and why not the others."""

    audience: str
    channel: str
    locale: str
    sender: str
    reason: str
    people: int
    rows: int


def reach(conn: Connection) -> Sequence[Reach]:
    """Count the selection built in this transaction."""
    with joining(conn, few=False):
        rows = conn.execute(
            "SELECT v.audience, v.channel, v.message_locale, v.sender, (%s::text[])[c.cell %% 8 + 1],"
            " count(DISTINCT c.recipient_id), count(*)"
            " FROM choice c JOIN voice v ON v.voice = c.cell / 8"
            " GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5",
            (list(REASONS),),
            prepare=False,
        ).fetchall()
    return [Reach(*row) for row in rows]


def people(conn: Connection) -> dict[str, tuple[int, int]]:
    """Per audience of this transaction's selection: people reached, and people selected."""
    rows = conn.execute(
        "SELECT v.audience, count(DISTINCT c.recipient_id) FILTER (WHERE c.cell % 8 = 0),"
        " count(DISTINCT c.recipient_id) FROM choice c JOIN voice v ON v.voice = c.cell / 8"
        " GROUP BY 1",
        prepare=False,
    ).fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}


@dataclass(frozen=True, slots=True)
class Standing:
    """The people of an audience in a selection, each counted once.

    `told` have a row of their own to be sent, `shared` only one that points at somebody
    else's contact point, `spared` none because they were never told before. `elsewhere`
    belong to another audience and are not among the `people`.
    """

    audience: str
    people: int
    told: int
    shared: int
    spared: int
    elsewhere: int


def standings(conn: Connection) -> list[Standing]:
    """How the people of this transaction's selection stand, per audience."""
    with joining(conn, few=False):
        rows = conn.execute(
            statements.STANDINGS.format(**NUMBER).encode(), prepare=False
        ).fetchall()
    return [Standing(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Missed:
    """People of an audience whom nothing that it uses reaches, and why.

    `otherwise` counts those of them who have a contact point of another kind, by kind.
    """

    audience: str
    reason: str
    people: int
    otherwise: Mapping[str, int]


def missed(conn: Connection, question: Question) -> list[Missed]:
    """Whom this transaction's selection leaves out although they should hear; `question` is
    the one it answered. A kind that the audience is served by, or that is suppressed, is none
    by which they could be reached."""
    served = sorted({(step.audience, step.kind) for step in question.steps if step.adapter})
    values = {
        "missing": [NUMBER[reason] for reason in MISSING],
        "reasons": list(REASONS),
        "served_audience": [audience for audience, _ in served],
        "served_kind": [kind for _, kind in served],
    }
    conn.execute("DROP TABLE IF EXISTS pg_temp.missed")
    with joining(conn, few=False):
        several = _run(conn, statements.MISSED, values)
    with joining(conn, few=several <= _directory_pages(conn)):
        by_reason = conn.execute(statements.MISSED_BY.encode(), values, prepare=False).fetchall()
        by_kind = conn.execute(statements.OTHERWISE.encode(), values, prepare=False).fetchall()
    return [
        Missed(
            audience,
            reason,
            count,
            {row[2]: row[3] for row in by_kind if (row[0], row[1]) == (audience, reason)},
        )
        for audience, reason, count in by_reason
    ]

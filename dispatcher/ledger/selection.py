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

from dispatcher.ledger.connection import Connection, one
from dispatcher.ledger.voices import NUMBER, REASONS, Sending, Step, Voices, Wording

__all__ = ["REASONS", "Question", "Reach", "Rule", "Sending", "Step", "Wording"]

TOLD = "('sending', 'accepted', 'delivered', 'unknown')"
"""States in which a person may have the message."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An audience as the selection needs it. Every audience of the packs is given, since a
    person belongs to the highest-ranking match among all."""

    name: str
    rank: int
    segments: tuple[str, ...]
    tags: tuple[str, ...]
    also_tags: tuple[str, ...]
    everyone: bool
    first: bool


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be selected.

    `due` are the audiences to plan now, `named` all those the update is for, `earlier`
    the incident's earlier updates, `withdrawn` the facts a correction takes back. `among`
    keeps to people of these ids (first, last), `beyond` to all others.
    """

    incident_id: str | None
    update_id: str | None
    services: tuple[str, ...]
    regions: tuple[str, ...]
    named: tuple[str, ...]
    due: tuple[str, ...]
    earlier: tuple[str, ...]
    withdrawn: tuple[str, ...]
    spare_untold: bool
    default_locale: str
    rules: tuple[Rule, ...]
    steps: tuple[Step, ...]
    senders: tuple[Sending, ...]
    wordings: tuple[Wording, ...]
    among: tuple[int, int] | None = None
    beyond: tuple[int, int] | None = None


def names(rules: Sequence[Rule]) -> list[str]:
    """The audiences by rank: an audience's number is its place in here, from 1."""
    return [rule.name for rule in sorted(rules, key=lambda rule: rule.rank)]


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

_MEMBER = """
CREATE TEMP TABLE member ON COMMIT DROP AS
SELECT unnest(m.recipients) AS recipient_id,
    coalesce(array_position(%(rules)s::text[], m.audience), 0) AS rule
FROM membership m WHERE m.incident_id = %(incident)s::uuid
"""

_WHO = """
CREATE TEMP TABLE who ON COMMIT DROP AS
SELECT id, locale, 'priority' = ANY(tags) AS priority, belongs, member, audience,
    CASE WHEN belongs = audience THEN 0 ELSE {other_audience} END AS reason
FROM (
    SELECT *, CASE WHEN belongs = ANY(%(named)s::int[]) THEN belongs
        WHEN affected THEN {out_of_near} ELSE {out_of_any} END AS audience
    FROM (
        SELECT r.id, r.locale, r.segment, r.tags, {affected} AS affected,
            {member} AS member, {belongs} AS belongs
        FROM recipient r {members}
        WHERE ({affected} AND ({near}) OR {far}) AND {part}
        OFFSET 0
    ) r OFFSET 0
) placed
WHERE audience = ANY(%(due)s::int[])
    AND (belongs <> audience OR affected OR audience = ANY(%(everyone)s::int[]))
"""

# A correction goes to the contact points whose messages carried the withdrawn facts,
# whatever the directory says today.
_CARRIED = """
CREATE TEMP TABLE carried ON COMMIT DROP AS
SELECT DISTINCT ON (d.contact_point_id, d.channel)
    d.recipient_id, d.contact_point_id, d.channel,
    array_position(%(rules)s::text[], b.audience) AS audience, m.locale
FROM delivery d JOIN batch b ON b.id = d.batch_id JOIN message m ON m.id = b.message_id
WHERE d.update_id = ANY(%(earlier)s::uuid[]) AND b.update_id = ANY(%(earlier)s::uuid[])
    AND m.facts && %(withdrawn)s::uuid[] AND b.audience = ANY(%(due_names)s::text[])
    AND d.state IN ('sending', 'accepted', 'delivered', 'unknown')
ORDER BY d.contact_point_id, d.channel, d.update_id DESC
"""
_WHO_BEFORE = """
CREATE TEMP TABLE who ON COMMIT DROP AS
SELECT DISTINCT ON (c.recipient_id) c.recipient_id AS id, c.locale, false AS priority,
    c.audience AS belongs, true AS member, c.audience, 0 AS reason
FROM carried c ORDER BY c.recipient_id, c.audience
"""

_TOLD = f"""
CREATE TEMP TABLE told ON COMMIT DROP AS
SELECT d.recipient_id, max(coalesce(d.accepted_at, d.changed_at)) AS at
FROM who w JOIN delivery d ON d.recipient_id = w.id
WHERE d.update_id = ANY(%(earlier)s::uuid[])
    AND (d.state IN {TOLD} OR d.reason = 'shared_contact')
GROUP BY d.recipient_id
"""

_WAY = """
unnest(%(way)s::int[], %(way_audience)s::int[], %(way_channel)s::text[], %(way_kind)s::text[],
    %(way_course)s::int[], %(way_preference)s::int[])
    AS y(way, audience, channel, kind, course, preference)
"""

_REACHED = f"""
CREATE TEMP TABLE reached ON COMMIT DROP AS
SELECT recipient_id, locale, priority, way, contact_point_id, country, suppressed FROM (
    SELECT w.id AS recipient_id, w.locale, w.priority, y.way, c.id AS contact_point_id,
        coalesce(c.country, '') AS country, x.kind IS NOT NULL AS suppressed,
        rank() OVER (PARTITION BY w.id * 256 + y.course
            ORDER BY (x.kind IS NOT NULL)::int * 131072 + y.preference) AS place
    FROM who w
    JOIN recipient_contact rc ON rc.recipient_id = w.id
    JOIN contact_point c ON c.id = rc.contact_point_id
    JOIN {_WAY} ON y.audience = w.audience AND y.kind = c.kind
    LEFT JOIN suppression x ON x.kind = c.kind AND x.lookup = c.lookup
    WHERE w.reason = 0
) ranked WHERE place = 1
"""

_REACHED_BEFORE = f"""
CREATE TEMP TABLE reached ON COMMIT DROP AS
SELECT c.recipient_id, c.locale, false AS priority, y.way, c.contact_point_id,
    coalesce(p.country, '') AS country, x.kind IS NOT NULL AS suppressed
FROM carried c
JOIN contact_point p ON p.id = c.contact_point_id
JOIN {_WAY} ON y.audience = c.audience AND y.channel = c.channel AND y.kind = p.kind
LEFT JOIN suppression x ON x.kind = p.kind AND x.lookup = p.lookup
"""

_VOICE = """
CREATE TEMP TABLE voice ON COMMIT DROP AS
SELECT * FROM unnest(%(voice)s::int[], %(voice_audience)s::text[], %(voice_channel)s::text[],
    %(voice_message)s::bigint[], %(voice_locale)s::text[], %(voice_adapter)s::text[],
    %(voice_sender)s::text[])
    AS v(voice, audience, channel, message_id, message_locale, adapter, sender)
"""

_CHOICE = """
CREATE TEMP TABLE choice ON COMMIT DROP AS
SELECT r.recipient_id, r.contact_point_id, NULL::bigint AS shared_contact_id, r.priority,
    s.voice * 8 + CASE WHEN {untold} THEN {not_told_before}
        WHEN r.suppressed THEN {suppressed} ELSE s.flaw END AS cell
FROM reached r
JOIN unnest(%(spoken_way)s::int[], %(spoken_locale)s::text[], %(spoken_country)s::text[],
    %(spoken_voice)s::int[], %(spoken_flaw)s::int[]) AS s(way, locale, country, voice, flaw)
    ON s.way = r.way AND s.locale = r.locale AND s.country = r.country
{told}
UNION ALL
SELECT w.id, NULL, NULL, w.priority,
    w.audience * 8 + CASE w.reason WHEN 0 THEN {no_contact} ELSE w.reason END
FROM who w LEFT JOIN reached r ON r.recipient_id = w.id WHERE r.recipient_id IS NULL
"""

# A contact point that several people share is told once, for whoever of them would be
# sent to and ranks first; the others' rows point at it.
_SHARED = """
UPDATE choice SET contact_point_id = NULL, shared_contact_id = contact_point_id,
    cell = cell + CASE cell %% 8 WHEN 0 THEN {shared_contact} ELSE 0 END
FROM (
    SELECT c.ctid AS at, row_number() OVER (PARTITION BY c.contact_point_id, v.channel
        ORDER BY c.cell %% 8 <> 0, array_position(%(rules)s::text[], v.audience),
            c.priority DESC, c.recipient_id) AS turn
    FROM (SELECT contact_point_id FROM choice WHERE contact_point_id IS NOT NULL
        GROUP BY contact_point_id HAVING count(*) > 1) several
    JOIN choice c ON c.contact_point_id = several.contact_point_id
    JOIN voice v ON v.voice = c.cell / 8
) turns WHERE choice.ctid = turns.at AND turns.turn > 1
"""
_SHARED_BEFORE = """
UPDATE choice SET contact_point_id = NULL, shared_contact_id = choice.contact_point_id,
    cell = cell + CASE cell %% 8 WHEN 0 THEN {shared_contact} ELSE 0 END
FROM voice v, delivery d
WHERE v.voice = choice.cell / 8 AND d.update_id = %(update)s::uuid
    AND d.contact_point_id = choice.contact_point_id AND d.channel = v.channel
"""


class _Values(dict[str, object]):
    """Parameters of the statements, named as they are met."""

    def add(self, value: object) -> str:
        name = f"v{len(self)}"
        self[name] = value
        return f"%({name})s"


def _matching(rule: Rule, values: _Values) -> str:
    """The rule's match on `r.segment` and `r.tags`, as `audiences.matches` has it."""
    also = f"r.tags && {values.add(list(rule.also_tags))}::text[]" if rule.also_tags else ""
    if also and not rule.segments and not rule.tags:
        return also
    both = []
    if rule.segments:
        both.append(f"r.segment = ANY({values.add(list(rule.segments))}::text[])")
    if rule.tags:
        both.append(f"r.tags && {values.add(list(rule.tags))}::text[]")
    match = " AND ".join(both) or "true"
    return f"({also} OR {match})" if also else f"({match})"


def _best(rules: Mapping[int, str], among: Sequence[int]) -> str:
    """The number of the highest-ranking rule that matches, 0 if none does."""
    cases = "".join(f" WHEN {rules[number]} THEN {number}" for number in among)
    return f"CASE{cases} ELSE 0 END" if cases else "0"


def _any(rules: Mapping[int, str], among: Sequence[int]) -> str:
    return " OR ".join(rules[number] for number in among) or "false"


def _affected(question: Question, values: _Values) -> str:
    """`audiences.within` and a service in common; written so that an index on region serves."""
    services = f"r.services && {values.add(list(question.services))}::text[]"
    if not question.regions:
        return f"({services})"
    inside = [
        f"r.region = {values.add(region)}::text OR r.region ^@ {values.add(f'{region}-')}::text"
        for region in question.regions
    ]
    return f"({services} AND ({' OR '.join(inside)}))"


def _part(question: Question, values: _Values) -> str:
    if question.among is not None:
        first, last = map(values.add, question.among)
        return f"r.id BETWEEN {first} AND {last}"
    if question.beyond is not None:
        first, last = map(values.add, question.beyond)
        return f"NOT r.id BETWEEN {first} AND {last}"
    return "true"


def _who(question: Question, rules: Sequence[Rule], *, members: bool) -> tuple[str, _Values]:
    """The statement that builds `who`: one pass, and over those alone who may be due."""
    values = _Values(
        named=[n for n, rule in enumerate(rules, 1) if rule.name in question.named],
        due=[n for n, rule in enumerate(rules, 1) if rule.name in question.due],
        everyone=[n for n, rule in enumerate(rules, 1) if rule.everyone],
    )
    matching = {n: _matching(rule, values) for n, rule in enumerate(rules, 1)}
    named = [n for n, rule in enumerate(rules, 1) if rule.name in question.named]
    due = [n for n, rule in enumerate(rules, 1) if rule.name in question.due]
    everyone = {n for n, rule in enumerate(rules, 1) if rule.everyone}
    near, far = _any(matching, due), _any(matching, [n for n in due if n in everyone])
    best = _best(matching, range(1, len(rules) + 1))
    if members:
        # Who was of an audience at the first planning stays in it, whatever they match now.
        near += f" OR m.rule = ANY({values.add(due)}::int[])"
        far += f" OR m.rule = ANY({values.add([n for n in due if n in everyone])}::int[])"
        best = f"CASE WHEN m.recipient_id IS NULL THEN {best} ELSE m.rule END"
    statement = _WHO.format(
        other_audience=NUMBER["other_audience"],
        out_of_near=_best(matching, named),
        out_of_any=_best(matching, [n for n in named if n in everyone]),
        affected=_affected(question, values),
        member="m.recipient_id IS NOT NULL" if members else "false",
        belongs=best,
        members="LEFT JOIN member m ON m.recipient_id = r.id" if members else "",
        near=near,
        far=far,
        part=_part(question, values),
    )
    return statement, values


def select(conn: Connection, question: Question) -> bool:
    """Build `who`, `told`, `voice` and `choice` in this transaction's temporary tables.

    True if they are few, measured by the directory: what works on them next may say so.
    """
    rules, values = _asked(question)
    conn.execute(_DROPPED)
    with joining(conn, few=question.among is not None):
        people = _select_who(conn, question, rules, values)
    few = people <= _directory_pages(conn)
    with joining(conn, few=few):
        _run(conn, _TOLD, values)
        _run(conn, _REACHED_BEFORE if question.withdrawn else _REACHED, values)
        _choose(conn, question, rules, values)
    return few


def size(conn: Connection) -> int:
    """How many people the selection in this transaction's tables has found."""
    return int(one(conn.execute("SELECT count(*) FROM who", prepare=False).fetchone()))


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
            _run(conn, _TOLD, given)
            _run(conn, _REACHED, given)
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
        "due_names": list(question.due),
        "earlier": list(question.earlier),
        "withdrawn": list(question.withdrawn),
        **_ways(question, names),
    }


def _select_who(
    conn: Connection, question: Question, rules: Sequence[Rule], values: Mapping[str, object]
) -> int:
    if question.withdrawn:
        _run(conn, _CARRIED, values)
        return _run(conn, _WHO_BEFORE, values)
    members = question.incident_id is not None and _run(conn, _MEMBER, values) > 0
    if members:
        # So that they are hashed, and not the directory.
        conn.execute("ANALYZE member")
    return _run(conn, *_who(question, rules, members=members))


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
    _run(conn, _VOICE, said)
    spare = question.spare_untold
    join = "LEFT JOIN told t ON t.recipient_id = r.recipient_id" if spare else ""
    untold = "t.recipient_id IS NULL" if spare else "false"
    _run(conn, _CHOICE.format(untold=untold, told=join, **NUMBER), said)
    _run(conn, _SHARED.format(**NUMBER), said)
    if question.update_id is not None:
        _run(conn, _SHARED_BEFORE.format(**NUMBER), said)


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

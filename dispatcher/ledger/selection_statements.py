"""The statements of a selection, and how a question becomes their conditions.

Owns the SQL: each statement makes or changes one of the temporary tables that `selection`
describes. When they run, and how tables are joined meanwhile, is not known here.
"""

from collections.abc import Mapping, Sequence

from dispatcher.ledger.question import Question, Rule, Span
from dispatcher.ledger.voices import NUMBER

_MAY_HAVE_IT = "('sending', 'accepted', 'delivered', 'unknown')"
"""States in which a person may have the message."""

MEMBER = """
CREATE TEMP TABLE member ON COMMIT DROP AS
SELECT unnest(m.recipients) AS recipient_id,
    coalesce(array_position(%(rules)s::text[], m.audience), 0) AS rule
FROM membership m WHERE m.incident_id = %(incident)s::uuid
"""

WHO = """
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
LIMIT %(most)s
"""

# A correction goes to the contact points whose messages carried the withdrawn facts,
# whatever the directory says today.
CARRIED = """
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
WHO_BEFORE = """
CREATE TEMP TABLE who ON COMMIT DROP AS
SELECT DISTINCT ON (c.recipient_id) c.recipient_id AS id, c.locale, false AS priority,
    c.audience AS belongs, true AS member, c.audience, 0 AS reason
FROM carried c ORDER BY c.recipient_id, c.audience
"""

TOLD = f"""
CREATE TEMP TABLE told ON COMMIT DROP AS
SELECT d.recipient_id, max(coalesce(d.accepted_at, d.changed_at)) AS at
FROM who w JOIN delivery d ON d.recipient_id = w.id
WHERE d.update_id = ANY(%(earlier)s::uuid[])
    AND (d.state IN {_MAY_HAVE_IT} OR d.reason = 'shared_contact')
GROUP BY d.recipient_id
"""

_WAY = """
unnest(%(way)s::int[], %(way_audience)s::int[], %(way_channel)s::text[], %(way_kind)s::text[],
    %(way_course)s::int[], %(way_preference)s::int[])
    AS y(way, audience, channel, kind, course, preference)
"""

REACHED = f"""
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

REACHED_BEFORE = f"""
CREATE TEMP TABLE reached ON COMMIT DROP AS
SELECT c.recipient_id, c.locale, false AS priority, y.way, c.contact_point_id,
    coalesce(p.country, '') AS country, x.kind IS NOT NULL AS suppressed
FROM carried c
JOIN contact_point p ON p.id = c.contact_point_id
JOIN {_WAY} ON y.audience = c.audience AND y.channel = c.channel AND y.kind = p.kind
LEFT JOIN suppression x ON x.kind = p.kind AND x.lookup = p.lookup
"""

VOICE = """
CREATE TEMP TABLE voice ON COMMIT DROP AS
SELECT * FROM unnest(%(voice)s::int[], %(voice_audience)s::text[], %(voice_channel)s::text[],
    %(voice_message)s::bigint[], %(voice_locale)s::text[], %(voice_adapter)s::text[],
    %(voice_sender)s::text[])
    AS v(voice, audience, channel, message_id, message_locale, adapter, sender)
"""

CHOICE = """
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
SHARED = """
UPDATE choice SET contact_point_id = NULL, shared_contact_id = contact_point_id,
    cell = cell + CASE cell %% 8 WHEN 0 THEN {shared_contact} ELSE 0 END
FROM (
    SELECT c.ctid AS at, row_number() OVER (PARTITION BY c.contact_point_id, v.channel
        ORDER BY c.cell %% 8 <> 0, array_position(%(turns)s::text[], v.audience),
            c.priority DESC, c.recipient_id) AS turn
    FROM (SELECT contact_point_id FROM choice WHERE contact_point_id IS NOT NULL
        GROUP BY contact_point_id HAVING count(*) > 1) several
    JOIN choice c ON c.contact_point_id = several.contact_point_id
    JOIN voice v ON v.voice = c.cell / 8
) turns WHERE choice.ctid = turns.at AND turns.turn > 1
"""
SHARED_BEFORE = """
UPDATE choice SET contact_point_id = NULL, shared_contact_id = choice.contact_point_id,
    cell = cell + CASE cell %% 8 WHEN 0 THEN {shared_contact} ELSE 0 END
FROM voice v, delivery d
WHERE v.voice = choice.cell / 8 AND d.update_id = %(update)s::uuid
    AND d.contact_point_id = choice.contact_point_id AND d.channel = v.channel
"""

STANDINGS = """
SELECT audience, count(*) FILTER (WHERE NOT elsewhere), count(*) FILTER (WHERE told),
    count(*) FILTER (WHERE shared AND NOT told), count(*) FILTER (WHERE spared),
    count(*) FILTER (WHERE elsewhere)
FROM (
    SELECT v.audience, bool_or(c.cell % 8 = 0) AS told,
        bool_or(c.cell % 8 = {shared_contact}) AS shared,
        bool_or(c.cell % 8 = {not_told_before}) AS spared,
        bool_or(c.cell % 8 = {other_audience}) AS elsewhere
    FROM choice c JOIN voice v ON v.voice = c.cell / 8
    GROUP BY v.audience, c.recipient_id
) each_one GROUP BY audience ORDER BY audience
"""

# People of whom no row is sent, nor spared, nor told through another's contact point.
MISSED = """
CREATE TEMP TABLE missed ON COMMIT DROP AS
SELECT c.recipient_id, v.audience, min(c.cell %% 8) AS reason
FROM choice c JOIN voice v ON v.voice = c.cell / 8
WHERE c.cell %% 8 = ANY(%(missing)s::int[]) AND NOT EXISTS (
    SELECT FROM choice o
    WHERE o.recipient_id = c.recipient_id AND o.cell %% 8 <> ALL(%(missing)s::int[]))
GROUP BY c.recipient_id, v.audience
"""
MISSED_BY = """
SELECT m.audience, (%(reasons)s::text[])[m.reason + 1], count(*)
FROM missed m GROUP BY 1, 2 ORDER BY 1, 2
"""
OTHERWISE = """
SELECT m.audience, (%(reasons)s::text[])[m.reason + 1], p.kind, count(DISTINCT m.recipient_id)
FROM missed m
JOIN recipient_contact rc ON rc.recipient_id = m.recipient_id
JOIN contact_point p ON p.id = rc.contact_point_id
LEFT JOIN unnest(%(served_audience)s::text[], %(served_kind)s::text[]) AS y(audience, kind)
    ON y.audience = m.audience AND y.kind = p.kind
LEFT JOIN suppression x ON x.kind = p.kind AND x.lookup = p.lookup
WHERE y.kind IS NULL AND x.kind IS NULL
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
"""


class Values(dict[str, object]):
    """Parameters of the statements, named as they are met."""

    def add(self, value: object) -> str:
        name = f"v{len(self)}"
        self[name] = value
        return f"%({name})s"


def _matching(rule: Rule, values: Values) -> str:
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


def _affected(question: Question, values: Values) -> str:
    """`audiences.within` and a service in common; written so that an index on region serves."""
    services = f"r.services && {values.add(list(question.services))}::text[]"
    if not question.regions:
        return f"({services})"
    inside = [
        f"r.region = {values.add(region)}::text OR r.region ^@ {values.add(f'{region}-')}::text"
        for region in question.regions
    ]
    return f"({services} AND ({' OR '.join(inside)}))"


def _part(question: Question, values: Values) -> str:
    if question.among is not None:
        return _inside(question.among, values)
    if question.beyond is not None:
        return f"NOT {_inside(question.beyond, values)}"
    return "true"


def _inside(span: Span, values: Values) -> str:
    return f"r.id BETWEEN {values.add(span.first)} AND {values.add(span.last)}"


def who(question: Question, rules: Sequence[Rule], *, members: bool) -> tuple[str, Values]:
    """The statement that builds `who`: one pass, and over those alone who may be due."""
    values = Values(
        most=None if question.at_most is None else question.at_most + 1,
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
    statement = WHO.format(
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

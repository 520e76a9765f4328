"""Who hears an update, by which contact point, with which message, or why not: set-based SQL.

The selection is built in temporary tables of the caller's transaction. Planning inserts
from them; a preview counts them and rolls back, so that what was shown is what is done.

    who      one row per person: the audience it belongs to, or the one it fell out of
    choice   one row per person and contact point (or per person that has none), with
             its message, adapter, sender, and the reason if it will not be sent
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from dispatcher.ledger.connection import Connection
from dispatcher.ledger.incidents import as_json

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
class Step:
    """One way for an audience: channel in order of preference, kind of contact within it.

    `adapter` is empty where nothing is configured for this kind.
    """

    audience: str
    step: int
    channel: str
    kind_order: int
    kind: str
    adapter: str


@dataclass(frozen=True, slots=True)
class Sending:
    """The sender for a channel; `country` is empty for the default one."""

    channel: str
    country: str
    sender: str


@dataclass(frozen=True, slots=True)
class Wording:
    """A message that exists for an audience, channel and locale. `id` is 0 in a preview."""

    audience: str
    channel: str
    locale: str
    id: int


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be selected.

    `due` are the audiences to plan now, `named` all those the update is for, `earlier`
    the incident's earlier updates, `withdrawn` the facts a correction takes back.
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


_RULES = """
CREATE TEMP TABLE rule ON COMMIT DROP AS
SELECT r.*, name = ANY(%(named)s) AS named, name = ANY(%(due)s) AS due
FROM jsonb_to_recordset(%(rules)s::jsonb)
    AS r(name text, rank int, segments text[], tags text[], also_tags text[], everyone boolean,
        first boolean);
"""

# Segment and tags decide the audience, and few combinations of them exist: the rules
# are judged once per combination, not once per person.
_WHO = """
CREATE TEMP TABLE who ON COMMIT DROP AS
WITH near AS MATERIALIZED (
    SELECT r.id, r.locale, r.segment, r.tags,
        r.services && %(services)s::text[] AND (cardinality(%(regions)s::text[]) = 0
            OR r.region = ANY(%(regions)s) OR r.region LIKE ANY(%(within)s)) AS affected
    FROM recipient r
    WHERE (r.services && %(services)s::text[] AND (cardinality(%(regions)s::text[]) = 0
            OR r.region = ANY(%(regions)s) OR r.region LIKE ANY(%(within)s)))
        OR EXISTS (SELECT FROM rule WHERE named AND everyone AND cardinality(segments) = 0)
        OR r.segment IN (SELECT unnest(segments) FROM rule WHERE named AND everyone)
        OR r.tags && (SELECT array_agg(tag) FROM rule, unnest(also_tags) tag
            WHERE named AND everyone)
), combination AS (
    SELECT DISTINCT segment, tags FROM near
), judged AS (
    SELECT c.segment, c.tags, best.name AS best, out_of.name AS out_of_any, out_of_near.name AS out_of_near
    FROM combination c
    LEFT JOIN LATERAL (SELECT name FROM rule WHERE
        ((cardinality(segments) = 0 OR c.segment = ANY(segments))
            AND (cardinality(rule.tags) = 0 OR c.tags && rule.tags) OR c.tags && also_tags)
        ORDER BY rank LIMIT 1) best ON true
    LEFT JOIN LATERAL (SELECT name FROM rule WHERE named AND everyone
        AND ((cardinality(segments) = 0 OR c.segment = ANY(segments))
            AND (cardinality(rule.tags) = 0 OR c.tags && rule.tags) OR c.tags && also_tags)
        ORDER BY rank LIMIT 1) out_of ON true
    LEFT JOIN LATERAL (SELECT name FROM rule WHERE named
        AND ((cardinality(segments) = 0 OR c.segment = ANY(segments))
            AND (cardinality(rule.tags) = 0 OR c.tags && rule.tags) OR c.tags && also_tags)
        ORDER BY rank LIMIT 1) out_of_near ON true
), member AS (
    SELECT m.audience, unnest(m.recipients) AS recipient_id FROM membership m
    WHERE m.incident_id = %(incident)s::uuid
), placed AS (
    SELECT n.id, n.locale, n.tags, n.affected, coalesce(m.audience, j.best) AS belongs,
        m.audience IS NOT NULL AS member,
        CASE WHEN n.affected THEN j.out_of_near ELSE j.out_of_any END AS out_of
    FROM near n JOIN judged j ON j.segment = n.segment AND j.tags = n.tags
    LEFT JOIN member m ON m.recipient_id = n.id
)
SELECT p.id, p.locale, 'priority' = ANY(p.tags) AS priority, p.belongs, p.member,
    CASE WHEN own.name IS NOT NULL THEN p.belongs ELSE p.out_of END AS audience,
    CASE WHEN own.name IS NOT NULL THEN '' ELSE 'other_audience' END AS reason
FROM placed p
LEFT JOIN rule own ON own.name = p.belongs AND own.named
WHERE CASE WHEN own.name IS NOT NULL THEN own.due AND (own.everyone OR p.affected)
    ELSE p.out_of IN (SELECT name FROM rule WHERE due) END;
"""

# A correction goes to the contact points whose messages carried the withdrawn facts,
# whatever the directory says today.
_CARRIED = """
CREATE TEMP TABLE carried ON COMMIT DROP AS
SELECT DISTINCT ON (d.contact_point_id, d.channel)
    d.recipient_id, d.contact_point_id, d.channel, b.audience, m.locale
FROM delivery d JOIN batch b ON b.id = d.batch_id JOIN message m ON m.id = b.message_id
WHERE d.update_id = ANY(%(earlier)s::uuid[]) AND m.facts && %(withdrawn)s::uuid[]
    AND d.state IN ('sending', 'accepted', 'delivered', 'unknown')
    AND b.audience = ANY(%(due)s)
ORDER BY d.contact_point_id, d.channel, d.update_id DESC;
CREATE TEMP TABLE who ON COMMIT DROP AS
SELECT DISTINCT ON (c.recipient_id) c.recipient_id AS id, c.locale, false AS priority,
    c.audience AS belongs, true AS member, c.audience, '' AS reason
FROM carried c ORDER BY c.recipient_id;
"""

_TOLD = f"""
CREATE TEMP TABLE told ON COMMIT DROP AS
SELECT recipient_id, max(coalesce(accepted_at, changed_at)) AS at FROM delivery
WHERE update_id = ANY(%(earlier)s::uuid[])
    AND (state IN {TOLD} OR reason = 'shared_contact')
GROUP BY recipient_id;
"""

# Windows over a hundred thousand contacts sort by numbers, not by words.
_WAYS = """
CREATE TEMP TABLE way ON COMMIT DROP AS
SELECT s.*, rule.rank, row_number() OVER (ORDER BY s.audience, s.step, s.kind_order)::int AS way,
    CASE WHEN rule.first THEN 0 ELSE s.step + 1 END AS course,
    (s.adapter = '')::int * 65536 + s.step * 256 + s.kind_order AS preference
FROM jsonb_to_recordset(%(steps)s::jsonb)
    AS s(audience text, step int, channel text, kind_order int, kind text, adapter text)
JOIN rule ON rule.name = s.audience;
"""

_REACHED = """
CREATE TEMP TABLE reached ON COMMIT DROP AS
SELECT * FROM (
    SELECT w.id AS recipient_id, w.locale, w.priority, way.way, way.rank AS audience_rank,
        way.channel, c.id AS contact_point_id, c.country, x.kind IS NOT NULL AS suppressed,
        rank() OVER (PARTITION BY w.id, way.course
            ORDER BY (x.kind IS NOT NULL)::int * 131072 + way.preference) AS place
    FROM who w
    JOIN recipient_contact rc ON rc.recipient_id = w.id
    JOIN contact_point c ON c.id = rc.contact_point_id
    JOIN way ON way.audience = w.audience AND way.kind = c.kind
    LEFT JOIN suppression x ON x.kind = c.kind AND x.lookup = c.lookup
    WHERE w.reason = ''
) ranked WHERE place = 1;
"""

_REACHED_BEFORE = """
CREATE TEMP TABLE reached ON COMMIT DROP AS
SELECT c.recipient_id, c.locale, false AS priority, way.way, way.rank AS audience_rank,
    c.channel, c.contact_point_id, p.country, x.kind IS NOT NULL AS suppressed
FROM carried c
JOIN contact_point p ON p.id = c.contact_point_id
JOIN way ON way.audience = c.audience AND way.channel = c.channel AND way.kind = p.kind
LEFT JOIN suppression x ON x.kind = p.kind AND x.lookup = p.lookup;
"""

# A contact point that several people share is told once; the others' rows point at it.
_SHARED = """
CREATE TEMP TABLE shared ON COMMIT DROP AS
SELECT recipient_id, contact_point_id, channel FROM (
    SELECT r.recipient_id, r.contact_point_id, r.channel,
        row_number() OVER (PARTITION BY r.contact_point_id, r.channel
            ORDER BY r.audience_rank, r.priority DESC, r.recipient_id) AS turn
    FROM reached r JOIN (
        SELECT contact_point_id FROM reached GROUP BY contact_point_id HAVING count(*) > 1
    ) several USING (contact_point_id)
) turns WHERE turn > 1
UNION
SELECT r.recipient_id, r.contact_point_id, r.channel FROM reached r
JOIN delivery d ON d.update_id = %(update)s::uuid AND d.contact_point_id = r.contact_point_id
    AND d.channel = r.channel;
"""

_CHOICE = """
CREATE TEMP TABLE choice ON COMMIT DROP AS
WITH wording AS (
    SELECT * FROM jsonb_to_recordset(%(wordings)s::jsonb)
        AS w(audience text, channel text, locale text, id bigint)
), spoken AS (
    SELECT r.way, way.audience, way.channel, way.adapter, r.locale, best.id,
        best.locale AS message_locale
    FROM (SELECT DISTINCT way, locale FROM reached) r
    JOIN way ON way.way = r.way
    LEFT JOIN LATERAL (
        SELECT w.id, w.locale FROM wording w
        WHERE w.audience = way.audience AND w.channel = way.channel
            AND w.locale IN (r.locale, split_part(r.locale, '-', 1), %(default_locale)s)
        ORDER BY w.locale = r.locale DESC, w.locale = split_part(r.locale, '-', 1) DESC LIMIT 1
    ) best ON true
), sender AS (
    SELECT * FROM jsonb_to_recordset(%(senders)s::jsonb)
        AS s(channel text, country text, sender text)
), sent_from AS (
    SELECT r.channel, r.country, coalesce(own.sender, fallback.sender, '') AS sender
    FROM (SELECT DISTINCT channel, coalesce(country, '') AS country FROM reached) r
    LEFT JOIN sender own ON own.channel = r.channel AND own.country = r.country
    LEFT JOIN sender fallback ON fallback.channel = r.channel AND fallback.country = ''
)
SELECT r.recipient_id, s.audience, s.channel, s.id AS message_id, s.message_locale, s.adapter,
    f.sender, r.priority,
    CASE WHEN sh.recipient_id IS NULL THEN r.contact_point_id END AS contact_point_id,
    sh.contact_point_id AS shared_contact_id,
    CASE
        WHEN %(spare_untold)s AND told.recipient_id IS NULL THEN 'not_told_before'
        WHEN r.suppressed THEN 'suppressed'
        WHEN s.adapter = '' THEN 'no_adapter'
        WHEN s.id IS NULL THEN 'no_message'
        WHEN sh.recipient_id IS NOT NULL THEN 'shared_contact'
        ELSE '' END AS reason
FROM reached r
JOIN spoken s ON s.way = r.way AND s.locale = r.locale
JOIN sent_from f ON f.channel = r.channel AND f.country = coalesce(r.country, '')
LEFT JOIN told ON told.recipient_id = r.recipient_id
LEFT JOIN shared sh ON sh.recipient_id = r.recipient_id
    AND sh.contact_point_id = r.contact_point_id AND sh.channel = r.channel
UNION ALL
SELECT w.id, w.audience, 'none', NULL, NULL, '', '', w.priority, NULL, NULL,
    CASE WHEN w.reason = '' THEN 'no_contact' ELSE w.reason END
FROM who w WHERE NOT EXISTS (SELECT FROM reached r WHERE r.recipient_id = w.id);
"""


def select(conn: Connection, question: Question) -> None:
    """Build `who` and `choice` in this transaction's temporary tables."""
    conn.execute("SET LOCAL work_mem = '128MB'")
    for table in ("choice", "shared", "reached", "way", "told", "carried", "who", "rule"):
        conn.execute(f"DROP TABLE IF EXISTS pg_temp.{table}")
    values = {
        "incident": question.incident_id,
        "update": question.update_id,
        "services": list(question.services),
        "regions": list(question.regions),
        "within": [f"{region}-%" for region in question.regions],
        "named": list(question.named),
        "due": list(question.due),
        "earlier": list(question.earlier),
        "withdrawn": list(question.withdrawn),
        "spare_untold": question.spare_untold,
        "default_locale": question.default_locale,
        "rules": as_json([asdict(rule) for rule in question.rules]),
        "steps": as_json([asdict(step) for step in question.steps]),
        "senders": as_json([asdict(sender) for sender in question.senders]),
        "wordings": as_json([asdict(wording) for wording in question.wordings]),
    }
    correcting = bool(question.withdrawn)
    for statement in (
        _RULES,
        _CARRIED if correcting else _WHO,
        _TOLD,
        _WAYS,
        # The planner knows nothing of a table made a moment ago.
        "ANALYZE rule, who, told, way",
        _REACHED_BEFORE if correcting else _REACHED,
        "ANALYZE reached",
        _SHARED,
        _CHOICE,
    ):
        _run(conn, statement, values)


def _run(conn: Connection, script: str, values: Mapping[str, object]) -> None:
    for statement in script.split(";\n"):
        if statement.strip():
            conn.execute(statement.encode(), values)


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
        "SELECT audience, channel, coalesce(message_locale, ''), sender, reason,"
        " count(DISTINCT recipient_id), count(*) FROM choice"
        " GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"
    ).fetchall()
    return [Reach(*row) for row in rows]


def people(conn: Connection) -> dict[str, tuple[int, int]]:
    """Per audience of this transaction's selection: people reached, and people selected."""
    rows = conn.execute(
        "SELECT audience, count(DISTINCT recipient_id) FILTER (WHERE reason = ''),"
        " count(DISTINCT recipient_id) FROM choice GROUP BY 1"
    ).fetchall()
    return {row[0]: (row[1], row[2]) for row in rows}

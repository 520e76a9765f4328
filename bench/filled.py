"""A ledger with a million deliveries, as some hours of a nationwide incident leave it.

Recipients, incidents, updates and messages are made by the dispatcher's own code; deliveries,
their batches and tries by a few statements that write what planning and sending would have
written. Must not know what is measured.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from bench import crowd
from bench.house import House
from dispatcher.incidents import NewIncident, NewUpdate
from dispatcher.ledger import people
from dispatcher.security.rights import Actor, Role, Scope
from dispatcher.wiring import Services

BATCH = 1_000
LARGEST = 6
"""Templates whose pages are looked at, beside those that others include."""
OTHERS = 60
"""Further incidents: the lists are as long as they ever are."""
EARLIER = 12
"""Updates of the large incident before the one with the deliveries."""
INVITATION = "bench-invitation-of-a-guest".ljust(43, "x")
AUDIENCES = ("consumers", "public", "media", "employees")

_ACTOR = Actor(id="bench", name="Bench", scopes=frozenset(Scope))


@dataclass(frozen=True, slots=True)
class Filled:
    """What there is to look at. `sent` is the update with the deliveries, `draft` one that is
    being written, `drill` a drill; `admin` and `author` are tokens of sessions."""

    incident: str
    sent: str
    draft: str
    drill: str
    admin: str
    author: str
    person: str
    invitation: str
    templates: tuple[str, ...]


def fill(house: House, count: int, *, say: Callable[[str], None]) -> Filled:
    """Fill the house's ledger; `count` deliveries of one update. Takes minutes for a million."""
    services = house.services
    say(f"storing {count:,} recipients")
    crowd.fill(services.ledger, services.sealer, crowd.million(count))
    say("incidents, updates and messages")
    for number in range(OTHERS):
        _opened(services, f"Earlier incident {number}", drill=number == OTHERS - 1)
    incident, sent = _opened(services, "Nationwide outage of voice and data")
    for number in range(EARLIER):
        sent = _said(services, incident, number)
    say(f"{count:,} deliveries")
    _deliver(house, incident=incident, update=sent, count=count)
    draft = _said(services, incident, EARLIER, release="draft")
    drill, _ = _opened(services, "Drill of the quarter", drill=True)
    with services.ledger.transaction() as work:
        conn = work.conn
        admin = people.create(conn, name="Ada Admin", role=Role.ADMIN, created_by="bench")
        author = people.create(conn, name="Bo Author", role=Role.AUTHOR, created_by="bench")
        for number in range(40):
            people.create(conn, name=f"Colleague {number}", role=Role.VIEWER, created_by="bench")
        for person in (admin, author):
            people.start_session(conn, person.id, f"bench-session-of-{person.role}")
        guest = people.create(conn, name="Cy Guest", role=Role.VIEWER, created_by="bench")
        lasting = timedelta(days=1)
        people.invite(conn, guest.id, INVITATION, created_by="bench", lasting=lasting)
    house.rested()
    return Filled(
        incident=_reference(house, incident),
        sent=sent,
        draft=draft,
        drill=_reference(house, drill),
        admin=f"bench-session-of-{admin.role}",
        author=f"bench-session-of-{author.role}",
        person=author.id,
        invitation=INVITATION,
        templates=_templates(services),
    )


def _templates(services: Services) -> tuple[str, ...]:
    """The largest of the packs' files, and those that are included by most others."""
    files = services.renderer.sources.files
    largest = sorted(files, key=lambda name: -files[name].stat().st_size)[:LARGEST]
    return tuple(sorted({*largest, *(name for name in files if "/_" in name)}))


def _reference(house: House, incident: str) -> str:
    return f"INC-{house.sql('SELECT number FROM incident WHERE id = %s', incident)[0][0]:04d}"


def _facts(number: int) -> Iterator[dict[str, Any]]:
    now = datetime.now(UTC)
    known = {"source": "noc", "known_at": now - timedelta(minutes=1)}
    codes = ("software", "hardware", "power", "configuration")
    status = {"status": "limited", "use": ["wifi_calling", "landline"]}
    yield {"kind": "emergency_calls", "value": status, **known}
    yield {"kind": "scope", "value": {"count": 70_000 + number, "basis": "estimated"}, **known}
    if number % 3 == 1:
        cause = {"code": codes[number % 2]}
        yield {"kind": "cause", "value": cause, "confidence": "believed", **known}
    yield {"kind": "workaround", "value": {"codes": ["wifi_calling", "landline"]}, **known}


def _update(number: int) -> NewUpdate:
    return NewUpdate.model_validate(
        {
            "phase": "investigating" if number % 2 else "identified",
            "facts": list(_facts(number)),
            "next_update_at": datetime.now(UTC) + timedelta(hours=1),
            "audiences": AUDIENCES,
        }
    )


def _opened(services: Services, title: str, *, drill: bool = False) -> tuple[str, str]:
    incident = NewIncident.model_validate(
        {
            "title": title,
            "summary": "Calls fail in most markets since 02:45; the core is being looked at.",
            "severity": "critical",
            "services": ["voice", "mobile_data", "sms"],
            "regions": ["US-TX", "US-CA", "US-NY"],
            "started_at": datetime.now(UTC) - timedelta(hours=3),
            "drill": drill,
        }
    )
    with services.ledger.transaction() as work:
        done = services.updates.open(
            work, incident, _update(1), release="on_approval", actor=_ACTOR, force=True
        )
    return done.incident.id, done.update_id


def _said(services: Services, incident: str, number: int, *, release: Any = "on_approval") -> str:
    with services.ledger.transaction() as work:
        done = services.updates.add(work, incident, _update(number), release=release, actor=_ACTOR)
    return done.update_id


# Seven in a hundred did not get it, for all the reasons there are.
_OUTCOME = """
CREATE TEMP TABLE outcome AS SELECT n, state, reason FROM (VALUES
    (0, 'failed', 'invalid_address'), (1, 'failed', 'opted_out'), (2, 'failed', 'content'),
    (3, 'failed', 'tries_used_up'), (4, 'unknown', 'timeout'), (5, 'skipped', 'suppressed'),
    (6, 'accepted', 'ok')) AS v(n, state, reason)
UNION ALL SELECT n, 'delivered', 'ok' FROM generate_series(7, 99) AS n
"""

_ROWS = """
CREATE TEMP TABLE told AS
SELECT row_number() OVER (ORDER BY r.id) - 1 AS n, r.id AS recipient_id, l.contact_point_id
FROM recipient r JOIN recipient_contact l ON l.recipient_id = r.id WHERE r.segment = 'consumer'
"""

_BATCHES = """
INSERT INTO batch (id, update_id, audience, channel, adapter, sender, message_id, lane, seq, size,
    open, accepted, delivered, failed, unknown, skipped, first_accepted_at, last_accepted_at)
OVERRIDING SYSTEM VALUE
SELECT nextval(pg_get_serial_sequence('batch', 'id')), %(update)s, 'consumers', 'sms',
    'twilio_sms', '72345', m.id, 'bulk', b.seq + 1, b.size, false, b.accepted, b.delivered,
    b.failed, b.unknown, b.skipped, now() - interval '50 minutes' + b.seq * interval '2 seconds',
    now() - interval '50 minutes' + (b.seq + 1) * interval '2 seconds'
FROM (SELECT (t.n / %(batch)s)::int AS seq, count(*)::int AS size,
        count(*) FILTER (WHERE o.state = 'accepted') AS accepted,
        count(*) FILTER (WHERE o.state = 'delivered') AS delivered,
        count(*) FILTER (WHERE o.state = 'failed') AS failed,
        count(*) FILTER (WHERE o.state = 'unknown') AS unknown,
        count(*) FILTER (WHERE o.state = 'skipped') AS skipped
    FROM told t JOIN outcome o ON o.n = t.n %% 100 GROUP BY 1) b,
    message m
WHERE m.update_id = %(update)s AND m.audience = 'consumers' AND m.channel = 'sms'
    AND m.locale = 'en'
"""

_DELIVERIES = """
INSERT INTO delivery (update_id, batch_id, recipient_id, contact_point_id, channel, seq, state,
    reason, attempts, changed_at, accepted_at, ref)
SELECT %(update)s, b.id, t.recipient_id, t.contact_point_id, 'sms', (t.n %% %(batch)s)::int + 1,
    o.state, o.reason, CASE o.state WHEN 'skipped' THEN 0 ELSE 1 END, b.last_accepted_at,
    CASE WHEN o.state IN ('accepted', 'delivered') THEN b.last_accepted_at END, 'SM' || t.n
FROM told t JOIN outcome o ON o.n = t.n %% 100
JOIN batch b ON b.update_id = %(update)s AND b.seq = t.n / %(batch)s + 1
"""

_ATTEMPTS = """
INSERT INTO attempt (update_id, delivery_id, number, epoch, adapter, outcome, reason, detail, ref,
    at)
SELECT d.update_id, d.id, 1, 1, 'twilio_sms',
    CASE d.state WHEN 'failed' THEN 'recipient_refused' WHEN 'unknown' THEN 'unknown'
        ELSE 'accepted' END, d.reason, '', d.ref, d.changed_at
FROM delivery d WHERE d.update_id = %(update)s AND d.attempts > 0
"""

_AFTERWARDS = (
    "INSERT INTO planned SELECT %(update)s, 'consumers', 'sms', count(*) FROM told",
    "INSERT INTO membership (incident_id, audience, recipients)"
    " SELECT %(incident)s, 'consumers', array_agg(recipient_id) FROM told",
    "UPDATE release SET state = 'released', released_by = 'bench', planned_at = now(),"
    " released_at = now() - interval '1 hour' + (update_id <> %(update)s)::int"
    " * interval '-1 hour' WHERE update_id IN"
    " (SELECT id FROM incident_update WHERE incident_id = %(incident)s)",
    "INSERT INTO audit (at, actor, act, incident_id, update_id, detail)"
    " SELECT now() - n * interval '1 minute', 'bench', 'update.stop', %(incident)s, %(update)s,"
    ' \'{"audiences": ["consumers"], "saved": 1, "left": 2}\' FROM generate_series(1, 60) n',
)


def _deliver(house: House, *, incident: str, update: str, count: int) -> None:
    """Write what the update's planning and sending would have left."""
    values = {"update": update, "incident": incident, "batch": BATCH}
    url = house.stack.addresses.database_url
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in (_OUTCOME, _ROWS, "ANALYZE told", _BATCHES, _DELIVERIES, _ATTEMPTS):
            conn.execute(statement.encode(), values if "%(" in statement else None)
        for statement in _AFTERWARDS:
            conn.execute(statement.encode(), values)
        found = conn.execute(
            "SELECT count(*) FROM delivery WHERE update_id = %s", (update,)
        ).fetchone()
    assert found == (count,), found

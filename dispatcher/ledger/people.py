"""People who sign in to the console: who they are, their invitations, sessions and own addresses.

Tokens are stored as hashes, own addresses sealed. Every act here is told to the audit log by
its caller, with ids only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from dispatcher.ledger import audit
from dispatcher.ledger.connection import Connection, one
from dispatcher.ledger.incidents import is_id
from dispatcher.security.keys import digest
from dispatcher.security.rights import Role
from dispatcher.security.sealing import Sealer

SESSION_HOURS = 12
IDLE_HOURS = 2


@dataclass(frozen=True, slots=True)
class PersonRow:
    """A person as may be shown. Without a login they were invited and have not joined."""

    id: str
    login: str | None
    name: str
    role: Role
    zone: str | None
    created_at: datetime
    disabled_at: datetime | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "role", Role(self.role))

    @property
    def actor_id(self) -> str:
        """What the audit log calls them."""
        return f"person:{self.id}"


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """An address of their own that a person sends tests to."""

    kind: str
    sealed: bytes
    hint: str


@dataclass(frozen=True, slots=True)
class Tried:
    """A try to sign in that was let through to the password. `closed` says that, if it fails,
    it was the one that closed the door for a while."""

    person: PersonRow
    password_hash: str
    closed: bool


@dataclass(frozen=True, slots=True)
class Listed:
    """A person with what an admin looks for: whether they are here, and can come in."""

    person: PersonRow
    sessions: int
    seen_at: datetime | None
    link_until: datetime | None
    locked_until: datetime | None


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One browser that is signed in; `mine` is the one that asks."""

    hash: bytes
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    mine: bool


FREE_TRIES = 5
"""Tries that may fail before the door closes for a while; the fifth closes it."""
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=15), timedelta(minutes=15)
"""How long the door stays closed: doubled by every further failure, up to the longest."""
_SERIAL = 4_100_201_705
"""The advisory lock of acts that must see each other: joining, and changing who is an admin."""

_PERSON = "p.id::text, p.login, p.name, p.role, p.zone, p.created_at, p.disabled_at"
_LIVE = f"expires_at > now() AND seen_at > now() - interval '{IDLE_HOURS} hours'"


def anybody(conn: Connection) -> bool:
    """Whether any admin who is not disabled has joined: otherwise there is a first link to print."""
    return bool(
        one(
            conn.execute(
                "SELECT EXISTS (SELECT FROM person WHERE password_hash IS NOT NULL"
                " AND role = 'admin' AND disabled_at IS NULL)"
            ).fetchone()
        )
    )


def create(conn: Connection, *, name: str, role: Role, created_by: str) -> PersonRow:
    """Somebody who may join by an invitation."""
    with conn.cursor(row_factory=class_row(PersonRow)) as cursor:
        cursor.execute(
            "INSERT INTO person AS p (name, role, created_by) VALUES (%s, %s, %s)"
            f" RETURNING {_PERSON}",
            (name, role.value, created_by),
        )
        row = cursor.fetchone()
    assert row is not None
    return row


def get(conn: Connection, person_id: str, *, lock: bool = False) -> PersonRow | None:
    """By id; `lock` makes others who change them wait."""
    if not is_id(person_id):
        return None
    with conn.cursor(row_factory=class_row(PersonRow)) as cursor:
        cursor.execute(
            f"SELECT {_PERSON} FROM person p WHERE id = %s::uuid" + (" FOR UPDATE" if lock else ""),
            (person_id,),
        )
        return cursor.fetchone()


def listed(
    conn: Connection, *, beginning: int = 0, limit: int = 1_000, only: str | None = None
) -> list[Listed]:
    """Everybody, who can come in before who cannot, then oldest first; from place `beginning`.

    `only` is the id of the one who is wanted.
    """
    if only is not None and not is_id(only):
        return []
    rows = conn.execute(
        f"SELECT {_PERSON}, s.sessions, s.seen_at, i.until,"
        " CASE WHEN p.locked_until > now() THEN p.locked_until END FROM person p"
        f" LEFT JOIN LATERAL (SELECT count(*) AS sessions, max(seen_at) AS seen_at"
        f"  FROM session WHERE person_id = p.id AND {_LIVE}) s ON true"
        " LEFT JOIN LATERAL (SELECT max(expires_at) AS until FROM invitation"
        "  WHERE person_id = p.id AND used_at IS NULL AND expires_at > now()) i ON true"
        " WHERE %(only)s::uuid IS NULL OR p.id = %(only)s::uuid"
        " ORDER BY p.disabled_at IS NOT NULL, p.id LIMIT %(limit)s OFFSET %(beginning)s",
        {"only": only, "limit": limit, "beginning": beginning},
    ).fetchall()
    return [Listed(PersonRow(*row[:7]), *row[7:]) for row in rows]


def by_login(conn: Connection, login: str) -> PersonRow | None:
    with conn.cursor(row_factory=class_row(PersonRow)) as cursor:
        cursor.execute(f"SELECT {_PERSON} FROM person p WHERE login = %s", (login,))
        return cursor.fetchone()


def other_admins(conn: Connection, person_id: str) -> int:
    """How many admins there are beside this person who have joined and are not disabled."""
    return int(
        one(
            conn.execute(
                "SELECT count(*) FROM person WHERE role = 'admin' AND password_hash IS NOT NULL"
                " AND disabled_at IS NULL AND id <> %s::uuid",
                (person_id,),
            ).fetchone()
        )
    )


def serialise(conn: Connection) -> None:
    """Until the end of the transaction no other act that calls this goes on."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (_SERIAL,))


def names(conn: Connection, actor_ids: Sequence[str]) -> dict[str, str]:
    """What people and keys of the audit log are called, by actor id; others are left out."""
    rows = conn.execute(
        "SELECT 'person:' || id, name FROM person WHERE 'person:' || id = ANY(%(ids)s)"
        " UNION ALL SELECT 'key:' || id, name FROM api_key WHERE 'key:' || id = ANY(%(ids)s)",
        {"ids": list(actor_ids)},
    ).fetchall()
    return dict(rows)


# Invitations.


def invite(
    conn: Connection, person_id: str, token: str, *, created_by: str, lasting: timedelta
) -> None:
    """Store a one-time link of this person; their earlier ones are void."""
    void_invitations(conn, person_id)
    conn.execute(
        "INSERT INTO invitation (hash, person_id, created_by, expires_at)"
        " VALUES (%s, %s, %s, now() + %s)",
        (digest(token), person_id, created_by, lasting),
    )


def void_invitations(conn: Connection, person_id: str) -> None:
    """This person's open links lead nowhere from now on."""
    conn.execute(
        "UPDATE invitation SET used_at = now() WHERE person_id = %s AND used_at IS NULL",
        (person_id,),
    )


def first_admin(conn: Connection, *, created_by: str) -> PersonRow | None:
    """The admin whom an earlier start of this program has invited and who has not joined."""
    with conn.cursor(row_factory=class_row(PersonRow)) as cursor:
        cursor.execute(
            f"SELECT {_PERSON} FROM person p WHERE created_by = %s AND role = 'admin'"
            " AND password_hash IS NULL AND disabled_at IS NULL ORDER BY id LIMIT 1",
            (created_by,),
        )
        return cursor.fetchone()


def invited(conn: Connection, token: str, *, lock: bool = False) -> PersonRow | None:
    """Whose unused, unexpired link this is; `lock` makes a second use wait for the first."""
    with conn.cursor(row_factory=class_row(PersonRow)) as cursor:
        cursor.execute(
            f"SELECT {_PERSON} FROM invitation i JOIN person p ON p.id = i.person_id"
            " WHERE i.hash = %s AND i.used_at IS NULL AND i.expires_at > now()"
            " AND p.disabled_at IS NULL" + (" FOR UPDATE OF i" if lock else ""),
            (digest(token),),
        )
        return cursor.fetchone()


def login_taken(conn: Connection, login: str, *, but: str) -> bool:
    """Whether somebody other than `but` signs in by this name."""
    return bool(
        one(
            conn.execute(
                "SELECT EXISTS (SELECT FROM person WHERE login = %s AND id <> %s::uuid)",
                (login, but),
            ).fetchone()
        )
    )


def join(conn: Connection, token: str, *, login: str, name: str, password_hash: str) -> None:
    """Use the link: from now on this person signs in. Call after `invited(lock=True)`."""
    conn.execute(
        "WITH used AS (UPDATE invitation SET used_at = now() WHERE hash = %s RETURNING person_id)"
        " UPDATE person SET login = %s, name = %s, password_hash = %s, failures = 0,"
        " locked_until = NULL FROM used WHERE id = used.person_id",
        (digest(token), login, name, password_hash),
    )


# At the door.


def try_door(conn: Connection, login: str) -> Tried | None:
    """Count a try to sign in by this name before the password is looked at.

    Counting first bounds how many passwords can be tried at once. None if nobody signs in by
    it, or the door is closed for a while: neither may be told from a wrong password.
    """
    # Else an unknown name would be answered sooner, by the time a commit takes on the disk.
    conn.execute("SET LOCAL synchronous_commit = off")
    row = conn.execute(
        "UPDATE person p SET failures = failures + 1, locked_until = CASE"
        "  WHEN failures + 1 < %(free)s THEN NULL ELSE now() + least(%(longest)s::interval,"
        "   %(first)s::interval * power(2, least(failures + 1 - %(free)s, 20))) END"
        " WHERE login = %(login)s AND disabled_at IS NULL AND password_hash IS NOT NULL"
        " AND (locked_until IS NULL OR locked_until <= now())"
        f" RETURNING {_PERSON}, p.password_hash, p.locked_until IS NOT NULL",
        {
            "login": login,
            "free": FREE_TRIES,
            "first": FIRST_PAUSE,
            "longest": LONGEST_PAUSE,
        },
    ).fetchone()
    return None if row is None else Tried(PersonRow(*row[:7]), row[7], row[8])


def note_closed(conn: Connection, tried: Tried) -> None:
    """Tell the audit log that the door was closed for a while; as quickly as `try_door`."""
    conn.execute("SET LOCAL synchronous_commit = off")
    detail = {"person": tried.person.id}
    audit.record(conn, actor="sign-in", act="sign_in.locked", detail=detail)


def admit(conn: Connection, tried: Tried, *, rehashed: str | None) -> bool:
    """The password was right: forget the failures. False if the person was disabled or has
    another password since it was looked at. `rehashed` is the same password, hashed anew."""
    return bool(
        conn.execute(
            "UPDATE person SET failures = 0, locked_until = NULL,"
            " password_hash = coalesce(%s, password_hash)"
            " WHERE id = %s AND password_hash = %s AND disabled_at IS NULL",
            (rehashed, tried.person.id, tried.password_hash),
        ).rowcount
    )


# Sessions.


def start_session(conn: Connection, person_id: str, token: str) -> None:
    """Store a session; those of anybody that are over are removed by the way."""
    conn.execute(f"DELETE FROM session WHERE NOT ({_LIVE})")
    conn.execute(
        "INSERT INTO session (hash, person_id, expires_at)"
        f" VALUES (%s, %s, now() + interval '{SESSION_HOURS} hours')",
        (digest(token), person_id),
    )


def of_session(conn: Connection, token: str) -> PersonRow | None:
    """Whose session this is, while it lasts; being seen is noted once a minute."""
    with conn.cursor(row_factory=class_row(PersonRow)) as cursor:
        cursor.execute(
            f"SELECT {_PERSON} FROM session s JOIN person p ON p.id = s.person_id"
            f" WHERE s.hash = %s AND {_LIVE} AND p.disabled_at IS NULL",
            (digest(token),),
        )
        row = cursor.fetchone()
    if row is not None:
        conn.execute(
            "UPDATE session SET seen_at = now() WHERE hash = %s"
            " AND seen_at < now() - interval '1 minute'",
            (digest(token),),
        )
    return row


def lasts(conn: Connection, token: str) -> bool:
    """Whether a session still lasts; asking does not count as being seen."""
    return bool(
        one(
            conn.execute(
                "SELECT EXISTS (SELECT FROM session s JOIN person p ON p.id = s.person_id"
                f" WHERE s.hash = %s AND {_LIVE} AND p.disabled_at IS NULL)",
                (digest(token),),
            ).fetchone()
        )
    )


def end_session(conn: Connection, token: str) -> None:
    conn.execute("DELETE FROM session WHERE hash = %s", (digest(token),))


def end_sessions(conn: Connection, person_id: str, *, but: str | None = None) -> int:
    """End a person's sessions, except the one of the token `but`; returns how many."""
    return conn.execute(
        "DELETE FROM session WHERE person_id = %s AND hash IS DISTINCT FROM %s",
        (person_id, digest(but) if but is not None else None),
    ).rowcount


def sessions(conn: Connection, person_id: str, *, mine: str) -> list[SessionRow]:
    """A person's browsers that are signed in, the latest first; `mine` is the asking one's token."""
    with conn.cursor(row_factory=class_row(SessionRow)) as cursor:
        cursor.execute(
            "SELECT hash, created_at, seen_at, expires_at, hash = %s AS mine FROM session"
            f" WHERE person_id = %s AND {_LIVE} ORDER BY created_at DESC",
            (digest(mine), person_id),
        )
        return cursor.fetchall()


# What is changed of them.


def set_role(conn: Connection, person_id: str, role: Role) -> None:
    conn.execute("UPDATE person SET role = %s WHERE id = %s", (role.value, person_id))


def set_disabled(conn: Connection, person_id: str, *, disabled: bool) -> None:
    conn.execute(
        "UPDATE person SET disabled_at = CASE WHEN %s THEN now() END WHERE id = %s",
        (disabled, person_id),
    )


def set_own(conn: Connection, person_id: str, *, name: str, zone: str | None) -> None:
    conn.execute("UPDATE person SET name = %s, zone = %s WHERE id = %s", (name, zone, person_id))


def sealed_address(sealer: Sealer, person_id: str, *, kind: str, address: str) -> bytes:
    """A person's own address of a kind, sealed; `opened_address` opens it for nobody else."""
    return sealer.seal_text(address, bound_to=sealer.lookup(f"person/{kind}", person_id))


def opened_address(sealer: Sealer, person_id: str, *, kind: str, sealed: bytes) -> str:
    """The address again. Raises `SealBroken`."""
    return sealer.open(sealed, bound_to=sealer.lookup(f"person/{kind}", person_id))


def own_addresses(conn: Connection, person_id: str) -> list[OwnAddress]:
    """Where a person wants tests to be sent, by kind."""
    rows = conn.execute(
        "SELECT kind, sealed, hint FROM person_contact WHERE person_id = %s ORDER BY kind",
        (person_id,),
    ).fetchall()
    return [OwnAddress(row[0], bytes(row[1]), row[2]) for row in rows]


def set_own_address(conn: Connection, person_id: str, address: OwnAddress) -> None:
    conn.execute(
        "INSERT INTO person_contact (person_id, kind, sealed, hint) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (person_id, kind) DO UPDATE SET sealed = EXCLUDED.sealed,"
        " hint = EXCLUDED.hint",
        (person_id, address.kind, address.sealed, address.hint),
    )


def forget_own_address(conn: Connection, person_id: str, kind: str) -> None:
    conn.execute("DELETE FROM person_contact WHERE person_id = %s AND kind = %s", (person_id, kind))

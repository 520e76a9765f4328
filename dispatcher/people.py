"""Who may sign in to the console: invited, joined, changed and shut out, each told to the audit log.

Owns the rules: one link, one use; no two people by one login; always an admin left. Works in
the caller's transaction. Knows no page and no command, and never sees a password: only hashes.
"""

import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from channels.contract import ContactKind
from dispatcher.acts import Conflict, Invalid, NotFound
from dispatcher.contacts import ContactError, is_sandbox_only, normalise
from dispatcher.ledger import audit, people
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.people import OwnAddress, PersonRow
from dispatcher.security.rights import Role
from dispatcher.security.sealing import Sealer

FIRST_RUN = "first run"
"""Who invites the first admin: nobody is there yet who could."""
NAMELESS = "First admin"
FIRST_LINK = timedelta(hours=24)
INVITATION = timedelta(hours=72)
NEW_PASSWORD = timedelta(hours=24)

OWN_KINDS: Mapping[ContactKind, str] = {
    ContactKind.PHONE: "Mobile number",
    ContactKind.EMAIL: "Mail address",
    ContactKind.FCM_TOKEN: "App's push token",
    ContactKind.INBOX: "App's inbox id",
}
"""What a person may have tests sent to. Public accounts are nobody's own."""

MAX_NAME = 80
_LOGIN = re.compile(r"[a-z0-9][a-z0-9._@+-]{1,63}")


class LinkSpent(Exception):
    """The one-time link was used, replaced or is too old; or it never was one."""

    def __init__(self) -> None:
        super().__init__("this link has been used, replaced or is too old")


@dataclass(frozen=True, slots=True)
class Link:
    """A one-time link's token, to be shown once and never stored, and whom it lets in."""

    person: PersonRow
    token: str = field(repr=False)

    @property
    def path(self) -> str:
        """Where it leads, below the address of the API."""
        return f"/console/join/{self.token}"


def spelled_login(written: str) -> str:
    """A login in the one spelling in which it is stored and compared."""
    return unicodedata.normalize("NFKC", written).strip().casefold()


def spelled_name(written: str) -> str:
    return " ".join(written.split())


def wrong_login(login: str) -> str | None:
    """Why a spelled login cannot be one, in words; None if it can."""
    if _LOGIN.fullmatch(login) is None:
        return "has 2 to 64 small letters, digits or . _ @ + - and begins with a letter or digit"
    return None


def wrong_name(name: str) -> str | None:
    """Why a spelled name cannot be one, in words; None if it can."""
    if not name:
        return "is empty: it is shown beside what this person does"
    if len(name) > MAX_NAME or not name.isprintable():
        return f"has at most {MAX_NAME} characters, none of them hidden"
    return None


def invite(conn: Connection, *, name: str, role: Role, by: str) -> Link:
    """Somebody new, and the link by which they join. Raises `Invalid`."""
    name = spelled_name(name)
    wrong = wrong_name(name)
    if wrong is not None:
        raise Invalid([("name", wrong)])
    person = people.create(conn, name=name, role=role, created_by=by)
    return _link(conn, person, by=by, lasting=INVITATION)


def link_again(conn: Connection, person_id: str, *, by: str) -> Link:
    """Another link for somebody who lost theirs or forgot their password; earlier ones are void.

    Raises `NotFound`, `Conflict` for somebody disabled.
    """
    person = _found(conn, person_id)
    if person.disabled_at is not None:
        raise Conflict("disabled", "this person is disabled: enable them first")
    lasting = INVITATION if person.login is None else NEW_PASSWORD
    return _link(conn, person, by=by, lasting=lasting)


def first_link(conn: Connection) -> Link | None:
    """The link for the first admin while there is none who has joined; None once there is.

    Every call makes another, and the one before is void.
    """
    people.serialise(conn)
    if people.anybody(conn):
        return None
    person = people.first_admin(conn, created_by=FIRST_RUN) or people.create(
        conn, name=NAMELESS, role=Role.ADMIN, created_by=FIRST_RUN
    )
    return _link(conn, person, by=FIRST_RUN, lasting=FIRST_LINK)


def _link(conn: Connection, person: PersonRow, *, by: str, lasting: timedelta) -> Link:
    token = secrets.token_urlsafe(32)
    people.invite(conn, person.id, token, created_by=by, lasting=lasting)
    detail = {"person": person.id, "role": person.role.value, "again": person.login is not None}
    audit.record(conn, actor=by, act="person.invite", detail=detail)
    return Link(person, token)


def join(conn: Connection, token: str, *, login: str, name: str, password_hash: str) -> PersonRow:
    """Use a link. Of two who use it at once one gets in. Returns the person as they are now.

    Somebody who has joined keeps login and name and gets another password; their sessions end.
    Raises `LinkSpent`, `Invalid` for a login or a name.
    """
    people.serialise(conn)
    person = people.invited(conn, token, lock=True)
    if person is None:
        raise LinkSpent
    if person.login is None:
        login, name = spelled_login(login), spelled_name(name)
        wrong = [("login", wrong_login(login)), ("name", wrong_name(name))]
        if wrong[0][1] is None and people.login_taken(conn, login, but=person.id):
            wrong[0] = ("login", "is taken by somebody else: choose another")
        errors = [(where, why) for where, why in wrong if why is not None]
        if errors:
            raise Invalid(errors)
    else:
        login, name = person.login, person.name
    people.join(conn, token, login=login, name=name, password_hash=password_hash)
    people.end_sessions(conn, person.id)
    audit.record(
        conn,
        actor=person.actor_id,
        act="person.join" if person.login is None else "password.change",
        detail={"person": person.id, "by": "link"},
    )
    return _found(conn, person.id)


def change_role(conn: Connection, person_id: str, role: Role, *, by: str) -> PersonRow:
    """Another role from now on; their sessions end. Raises `NotFound`, `Conflict`."""
    people.serialise(conn)
    person = _found(conn, person_id)
    if person.role is role:
        return person
    if person.role is Role.ADMIN:
        _others_remain(conn, person, "have another role")
    people.set_role(conn, person.id, role)
    people.end_sessions(conn, person.id)
    detail = {"person": person.id, "from": person.role.value, "to": role.value}
    audit.record(conn, actor=by, act="person.role", detail=detail)
    return _found(conn, person.id)


def disable(conn: Connection, person_id: str, *, by: str, even_last: bool = False) -> PersonRow:
    """Shut somebody out at once: sessions end and links are void.

    `even_last` is for the machine's owner, who can invite another admin. Raises `NotFound`,
    `Conflict`.
    """
    people.serialise(conn)
    person = _found(conn, person_id)
    if person.disabled_at is not None:
        return person
    if person.role is Role.ADMIN and not even_last:
        _others_remain(conn, person, "be disabled")
    people.set_disabled(conn, person.id, disabled=True)
    people.end_sessions(conn, person.id)
    people.void_invitations(conn, person.id)
    audit.record(conn, actor=by, act="person.disable", detail={"person": person.id})
    return _found(conn, person.id)


def enable(conn: Connection, person_id: str, *, by: str) -> PersonRow:
    """Let somebody in again, with the password they had. Raises `NotFound`."""
    person = _found(conn, person_id)
    if person.disabled_at is not None:
        people.set_disabled(conn, person.id, disabled=False)
        audit.record(conn, actor=by, act="person.enable", detail={"person": person.id})
    return _found(conn, person.id)


def end_sessions(conn: Connection, person_id: str, *, by: str) -> int:
    """Sign somebody out everywhere; returns of how many browsers. Raises `NotFound`."""
    person = _found(conn, person_id)
    ended = people.end_sessions(conn, person.id)
    detail = {"person": person.id, "sessions": ended}
    audit.record(conn, actor=by, act="person.sessions_ended", detail=detail)
    return ended


def _found(conn: Connection, person_id: str) -> PersonRow:
    person = people.get(conn, person_id, lock=True)
    if person is None:
        raise NotFound("no such person")
    return person


def _others_remain(conn: Connection, person: PersonRow, would: str) -> None:
    if person.login is not None and not people.other_admins(conn, person.id):
        raise Conflict(
            "last-admin",
            f"the last admin cannot {would}: let another admin join first, or nobody could"
            " invite anybody any more",
        )


def own_address(
    sealer: Sealer, person_id: str, kind: ContactKind, written: str, *, country: str, live: bool
) -> OwnAddress:
    """An address of a person's own, judged and sealed. `country` is for a number without `+`.

    Raises `Invalid` with the kind as its field, and never the value.
    """
    try:
        contact = normalise(kind, written, region=country)
    except ContactError as error:
        fault = str(error)
    else:
        if not (live and kind is ContactKind.PHONE and is_sandbox_only(contact.address)):
            sealed = people.sealed_address(
                sealer, person_id, kind=kind.value, address=contact.address
            )
            return OwnAddress(kind.value, sealed, contact.hint)
        fault = "a number for simulators only: not in live mode"
    raise Invalid([(kind.value, fault)])

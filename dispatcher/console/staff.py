"""The people of the console and each one's own account.

Only an admin changes others; everybody has their own name, zone, password, addresses for
test sends and browsers. Knows forms and pages; the rules are `dispatcher.people`'s.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated
from urllib.parse import quote
from zoneinfo import available_timezones

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from dispatcher import people as staff
from dispatcher.acts import Invalid, NotFound
from dispatcher.console import signing, views
from dispatcher.console.door import Desk, Known, Post, Visitor, posting
from dispatcher.ledger import audit, people
from dispatcher.ledger.connection import Transaction
from dispatcher.people import Link
from dispatcher.security import passwords
from dispatcher.security.keys import digest
from dispatcher.security.passwords import Crowded
from dispatcher.security.rights import NotAllowed, Role
from dispatcher.security.sealing import SealBroken
from dispatcher.wiring import Services

router = APIRouter()

SHOWN = 50
"""People on one page."""
ZONES = (
    "UTC",
    *sorted(z for z in available_timezones() if "/" in z[3:] and not z.startswith("Etc/")),
)
"""Zones by place. Others are older names for the same."""
ROLES: Mapping[Role, str] = {
    Role.VIEWER: "reads everything, changes nothing",
    Role.AUTHOR: "writes, submits, releases what may go without approval, stops",
    Role.APPROVER: "also approves what others wrote",
    Role.ADMIN: "also invites people, and may release without approval, which is told to all",
}
SAID = {
    "self": "Saved.",
    "password": "The password is changed. You are signed out everywhere else.",
    "addresses": "Saved. Test sends go there.",
    "sessions": "You are signed out everywhere else.",
    "role": "The role is changed, and they have to sign in again.",
    "disabled": "They cannot sign in any more, and are signed out everywhere.",
    "enabled": "They can sign in again, with the password they had.",
    "ended": "They are signed out everywhere, and can sign in again.",
}


def keeper(who: Known) -> Visitor:
    """A dependency: an admin, who keeps the list of people. Raises `NotAllowed`."""
    if who.person.role is not Role.ADMIN:
        raise NotAllowed(f"your role ({who.person.role}) does not let you see or change people")
    return who


def keeping(post: Annotated[Post, Depends(posting())]) -> Post:
    """A dependency: an admin's form. Raises `NotAllowed`."""
    keeper(post.visitor)
    return post


Keeper = Annotated[Visitor, Depends(keeper)]
Keeping = Annotated[Post, Depends(keeping)]
Own = Annotated[Post, Depends(posting())]


@router.get("/people")
def list_people(request: Request, services: Desk, who: Keeper, beginning: int = 0) -> Response:
    """Everybody."""
    return _people(request, services, who, beginning=beginning)


def _people(
    request: Request,
    services: Services,
    who: Visitor,
    *,
    beginning: int = 0,
    errors: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
) -> Response:
    beginning = max(0, min(beginning, 100_000))
    with services.ledger.read() as conn:
        found = people.listed(conn, beginning=beginning, limit=SHOWN + 1)
    return views.page(
        request,
        "people.html",
        who,
        status=422 if errors else 200,
        listed=found[:SHOWN],
        before=max(0, beginning - SHOWN) if beginning else None,
        after=beginning + SHOWN if len(found) > SHOWN else None,
        errors=errors or {},
        put_right=signing.put_right(errors or {}),
        values=values or {"name": "", "role": Role.AUTHOR.value},
        roles=_roles(),
    )


def _roles() -> list[tuple[str, str, str]]:
    return [(role.value, role.value.capitalize(), told) for role, told in ROLES.items()]


@router.get("/people/{person}")
def person_page(
    request: Request, services: Desk, who: Keeper, person: str, made: str = "", said: str = ""
) -> Response:
    """One of them, and the link that was just made for them, for whoever made it."""
    with services.ledger.read() as conn:
        found = people.listed(conn, only=person)
    if not found:
        raise NotFound("no such person")
    return views.page(
        request,
        "person.html",
        who,
        shown=found[0],
        link=_made(request, services, who, made),
        said=SAID.get(said, ""),
        roles=_roles(),
    )


@router.post("/people/invite")
def invite(post: Keeping) -> Response:
    """Somebody new, by a link that works once."""
    values = {"name": post.form.get("name")[:200], "role": post.form.get("role")}

    def work(transaction: Transaction) -> str:
        if values["role"] not in list(Role):
            raise Invalid([("role", "is none of those listed")])
        link = staff.invite(
            transaction.conn,
            name=values["name"],
            role=Role(values["role"]),
            by=post.visitor.actor.id,
        )
        return _to_show(post, link)

    try:
        return post.once(work)
    except Invalid as error:
        return _people(
            post.request, post.services, post.visitor, errors=dict(error.errors), values=values
        )


@router.post("/people/{person}/link")
def make_link(post: Keeping, person: str) -> Response:
    """Another link, for a lost one or a forgotten password."""

    def work(transaction: Transaction) -> str:
        by = post.visitor.actor.id
        return _to_show(post, staff.link_again(transaction.conn, person, by=by))

    return post.once(work)


@router.post("/people/{person}/role")
def change_role(post: Keeping, person: str) -> Response:
    """Another role; whoever gets it has to sign in again."""
    chosen = post.form.get("role")
    if chosen not in list(Role):
        raise Invalid([("role", "is none of those listed")])

    def work(transaction: Transaction) -> str:
        staff.change_role(transaction.conn, person, Role(chosen), by=post.visitor.actor.id)
        return f"/people/{person}?said=role"

    return post.once(work)


@router.post("/people/{person}/disable")
def disable(post: Keeping, person: str) -> Response:
    """Shuts somebody out at once."""

    def work(transaction: Transaction) -> str:
        staff.disable(transaction.conn, person, by=post.visitor.actor.id)
        return f"/people/{person}?said=disabled"

    return post.once(work)


@router.post("/people/{person}/enable")
def enable(post: Keeping, person: str) -> Response:
    """Lets somebody in again."""

    def work(transaction: Transaction) -> str:
        staff.enable(transaction.conn, person, by=post.visitor.actor.id)
        return f"/people/{person}?said=enabled"

    return post.once(work)


@router.post("/people/{person}/sessions")
def end_sessions(post: Keeping, person: str) -> Response:
    """Signs somebody out everywhere."""

    def work(transaction: Transaction) -> str:
        staff.end_sessions(transaction.conn, person, by=post.visitor.actor.id)
        return f"/people/{person}?said=ended"

    return post.once(work)


def _bound(who: Visitor) -> bytes:
    """What a link is sealed to on its way into an address: this browser's session."""
    return b"console/link/" + digest(who.token)


def _to_show(post: Post, link: Link) -> str:
    """The page that shows the link to whoever made it, and to no other session."""
    sealed = post.services.sealer.seal_text(link.token, bound_to=_bound(post.visitor))
    made = base64.urlsafe_b64encode(sealed).decode()
    return f"/people/{link.person.id}?made={quote(made)}"


def _made(request: Request, services: Services, who: Visitor, made: str) -> str:
    """The address of a link that this session just made, while it works."""
    if not made or len(made) > 400:
        return ""
    try:
        sealed = base64.urlsafe_b64decode(made.encode())
        token = services.sealer.open(sealed, bound_to=_bound(who))
    except (SealBroken, binascii.Error, ValueError):
        return ""
    with services.ledger.read() as conn:
        person = people.invited(conn, token)
    if person is None:
        return ""
    address = request.url.replace(path=Link(person, token).path, query="", fragment="")
    return str(address)


# One's own account.


@router.get("/account")
def account_page(request: Request, services: Desk, who: Known, said: str = "") -> Response:
    """What is one's own."""
    return _account(request, services, who, said=said)


def _account(
    request: Request,
    services: Services,
    who: Visitor,
    *,
    said: str = "",
    errors: Mapping[str, str] | None = None,
    values: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    with services.ledger.read() as conn:
        addresses = {own.kind: own.hint for own in people.own_addresses(conn, who.person.id)}
        sessions = people.sessions(conn, who.person.id, mine=who.token)
    return views.page(
        request,
        "account.html",
        who,
        status=422 if errors and status == 200 else status,
        sessions=sessions[:SHOWN],
        addresses=[
            (kind.value, label, addresses.get(kind.value, ""))
            for kind, label in staff.OWN_KINDS.items()
        ],
        zones=ZONES,
        least=passwords.MIN_CHARS,
        said=SAID.get(said, ""),
        errors=errors or {},
        put_right=signing.put_right(errors or {}),
        values={"name": who.person.name, "own_zone": who.person.zone or "", **(values or {})},
        told=ROLES[who.person.role],
    )


@router.post("/account/self")
def change_self(post: Own) -> Response:
    """One's name and the zone in which times are shown."""
    name, zone = staff.spelled_name(post.form.get("name")), post.form.get("own_zone").strip()
    errors = {"name": staff.wrong_name(name), "own_zone": None}
    if zone and zone not in ZONES:
        errors["own_zone"] = "is not a zone like Europe/Berlin; leave it empty for this browser's"
    found = {where: why for where, why in errors.items() if why is not None}
    if found:
        values = {"name": name[:200], "own_zone": zone[:100]}
        return _account(post.request, post.services, post.visitor, errors=found, values=values)

    def work(transaction: Transaction) -> str:
        people.set_own(transaction.conn, post.visitor.person.id, name=name, zone=zone or None)
        return "/account?said=self"

    return post.once(work)


@router.post("/account/password")
def change_password(post: Own) -> Response:
    """Another password; every other browser has to sign in again."""
    person, form = post.visitor.person, post.form
    login = person.login or ""
    wrong = signing.wrong_password(post.services, form, login=login, name=person.name)
    errors = {where: why for where, why in wrong.items() if why is not None}
    tried, fresh = None, ""
    try:
        if not errors:
            tried = signing.prove(post.services, login, form.get("current"))
            fresh = passwords.hashed(form.get("password")) if tried is not None else ""
    except Crowded:
        errors = {"": signing.CROWDED}
        return _account(post.request, post.services, post.visitor, errors=errors, status=503)

    def work(transaction: Transaction) -> str:
        # Judged in here, where a form that has done its work already does not come.
        if errors:
            raise Invalid(list(errors.items()))
        if tried is None or not people.admit(transaction.conn, tried, rehashed=fresh):
            raise Invalid([("current", "is not right, or was tried too often: wait a little")])
        ended = people.end_sessions(transaction.conn, person.id, but=post.visitor.token)
        audit.record(
            transaction.conn,
            actor=post.visitor.actor.id,
            act="password.change",
            detail={"person": person.id, "by": "self", "sessions": ended},
        )
        return "/account?said=password"

    try:
        return post.once(work)
    except Invalid as error:
        return _account(post.request, post.services, post.visitor, errors=dict(error.errors))


@router.post("/account/addresses")
def change_addresses(post: Own) -> Response:
    """Where one's test sends go. An empty field leaves what is there."""
    services, person = post.services, post.visitor.person
    fresh, gone = [], []
    errors: dict[str, str] = {}
    for kind in staff.OWN_KINDS:
        written = post.form.get(kind.value)
        try:
            if written.strip():
                fresh.append(
                    staff.own_address(
                        services.sealer,
                        person.id,
                        kind,
                        written,
                        country=services.packs.organisation.default_country,
                        live=services.mode == "live",
                    )
                )
            elif f"forget.{kind.value}" in post.form:
                gone.append(kind.value)
        except Invalid as error:
            errors |= dict(error.errors)
    if errors:
        # Not shown again: an address that was nearly right is still somebody's.
        return _account(post.request, services, post.visitor, errors=errors)

    def work(transaction: Transaction) -> str:
        for address in fresh:
            people.set_own_address(transaction.conn, person.id, address)
        for kind in gone:
            people.forget_own_address(transaction.conn, person.id, kind)
        return "/account?said=addresses"

    return post.once(work)


@router.post("/account/sessions")
def end_other_sessions(post: Own) -> Response:
    """Signs oneself out in every other browser."""
    person, token = post.visitor.person, post.visitor.token

    def work(transaction: Transaction) -> str:
        ended = people.end_sessions(transaction.conn, person.id, but=token)
        detail = {"person": person.id, "sessions": ended}
        audit.record(
            transaction.conn,
            actor=post.visitor.actor.id,
            act="person.sessions_ended",
            detail=detail,
        )
        return "/account?said=sessions"

    return post.once(work)

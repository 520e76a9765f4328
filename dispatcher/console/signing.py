"""Coming in and going out: sign-in, sign-out, and joining by a one-time link.

Knows the order in which a password is judged: counted first, looked at outside of any
transaction, and the same words and the same time for a wrong password, an unknown name and
a door that is closed for a while. Must not know what anybody may do once they are in.
"""

import re
import secrets
from collections.abc import Mapping
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from dispatcher import people as staff
from dispatcher.acts import Invalid
from dispatcher.console import door, views
from dispatcher.console.done import note
from dispatcher.console.door import Desk, Form, Post, Sent, posting
from dispatcher.ledger import audit, people
from dispatcher.ledger.people import PersonRow
from dispatcher.people import LinkSpent
from dispatcher.security import passwords
from dispatcher.security.admission import Proof, what_remains
from dispatcher.security.passwords import Crowded
from dispatcher.security.rights import NotAllowed
from dispatcher.wiring import Services

log = structlog.get_logger(__name__)

router = APIRouter()

NOT_LET_IN = (
    "This name and password do not let you in. After several failures in a row the door stays"
    " closed for a while, at most 15 minutes, whatever the password."
)
"""One answer for all reasons: another would tell which names there are."""
CROWDED = "Too many people are signing in at this moment. Try again in a few seconds."
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


CALLED = {
    "login": "The login",
    "name": "The name",
    "role": "The role",
    "own_zone": "The zone",
    "current": "The present password",
    "password": "The password",
    "again": "The second password",
    **{kind.value: f"{label}:" for kind, label in staff.OWN_KINDS.items()},
}
"""How an error about a field begins when it stands above the form."""


def put_right(errors: Mapping[str, str]) -> list[tuple[str, str]]:
    """What is wrong, as sentences with the field that each leads to."""
    return [(name, f"{CALLED.get(name, '')} {told}".strip()) for name, told in errors.items()]


def new_token() -> str:
    """256 random bits for a session."""
    return secrets.token_urlsafe(32)


@router.get("/sign-in")
def sign_in_page(request: Request, services: Desk, next: str = "") -> Response:
    """Asks who it is; somebody who is signed in already goes on."""
    token = door.session_token(request)
    if token is not None and len(token) < 100:
        with services.ledger.read() as conn:
            if people.of_session(conn, token) is not None:
                return door.see_other(door.own_path(next))
    return _asked(request, login="", back=next)


@router.post("/sign-in")
def sign_in(request: Request, services: Desk, form: Sent) -> Response:
    """Lets somebody in by a new session; an earlier one of the same browser ends."""
    login, back = staff.spelled_login(form.get("login")), form.get("next")
    try:
        token = _proved(services, login, form.get("password"), door.session_token(request))
    except Crowded:
        return _asked(request, login=form.get("login"), back=back, wrong=CROWDED, status=503)
    if token is None:
        return _asked(request, login=form.get("login"), back=back, wrong=NOT_LET_IN, status=422)
    answer = door.see_other(door.own_path(back))
    door.set_session(request, answer, token)
    return answer


def _proved(services: Services, login: str, password: str, before: str | None) -> str | None:
    """A new session's token, None if they are not let in. Raises `Crowded`."""
    tried = prove(services, login, password)
    if tried is None:
        return None
    remaining = what_remains(tried.person, {Proof.PASSWORD})
    if remaining:
        raise NotAllowed(f"besides the password this needs: {', '.join(remaining)}")
    rehashed = passwords.hashed(password) if passwords.outdated(tried.password_hash) else None
    token = new_token()
    with services.ledger.transaction() as work:
        if not people.admit(work.conn, tried, rehashed=rehashed):
            return None
        if before is not None:
            people.end_session(work.conn, before)
        people.start_session(work.conn, tried.person.id, token)
        actor = tried.person.actor_id
        audit.record(work.conn, actor=actor, act="sign_in", detail={"person": tried.person.id})
    return token


def prove(services: Services, login: str, password: str) -> people.Tried | None:
    """Whose login and password this is, with the failed try counted. Raises `Crowded`.

    The caller forgets the failures by `people.admit`. No connection is held while the password
    is looked at.
    """
    password = password[: passwords.MAX_CHARS + 1]
    tried = None
    if staff.wrong_login(login) is None:
        with services.ledger.transaction() as work:
            tried = people.try_door(work.conn, login)
    if passwords.proves(password, tried.password_hash if tried is not None else None):
        return tried
    if tried is not None and tried.closed:
        with services.ledger.transaction() as work:
            people.note_closed(work.conn, tried)
        log.warning("sign_in.locked", person=tried.person.id)
    return None


def _asked(
    request: Request, *, login: str, back: str, wrong: str = "", status: int = 200
) -> Response:
    return views.page(
        request,
        "sign-in.html",
        None,
        status=status,
        headers={"Retry-After": "5"} if status == 503 else None,
        login=login[:100],
        back=f"{door.ROOT}{door.own_path(back)}",
        wrong=wrong,
    )


@router.post("/sign-out")
def sign_out(post: Annotated[Post, Depends(posting())]) -> Response:
    """Ends this browser's session."""
    with post.services.ledger.transaction() as work:
        people.end_session(work.conn, post.visitor.token)
        detail = {"person": post.visitor.person.id}
        audit.record(work.conn, actor=post.visitor.actor.id, act="sign_out", detail=detail)
    answer = door.see_other("/sign-in")
    note(answer, "signed-out")
    door.clear_session(answer)
    return answer


# Joining.


@router.get("/join/{token}")
def join_page(request: Request, services: Desk, token: str) -> Response:
    """Shows what the link is for. Looking at it, as a mail program does, does not use it."""
    person = _invited(services, token)
    if person is None:
        return _spent(request)
    values = {"login": "", "name": "" if person.name == staff.NAMELESS else person.name}
    return _joining(request, person, values)


@router.post("/join/{token}")
def join(request: Request, services: Desk, token: str, form: Sent) -> Response:
    """Uses the link: a login and a password, or only another password, and a session."""
    person = _invited(services, token)
    if person is None:
        return _spent(request)
    values = {"login": form.get("login")[:100], "name": form.get("name")[:100]}
    errors = _judged(services, person, form)
    if errors:
        return _joining(request, person, values, errors=errors, status=422)
    session = new_token()
    try:
        hashed = passwords.hashed(form.get("password"))
        with services.ledger.transaction() as work:
            joined = staff.join(
                work.conn,
                token,
                login=values["login"],
                name=values["name"],
                password_hash=hashed,
            )
            people.start_session(work.conn, joined.id, session)
    except LinkSpent:
        return _spent(request)
    except Invalid as error:
        return _joining(request, person, values, errors=dict(error.errors), status=422)
    except Crowded:
        return _joining(request, person, values, errors={"": CROWDED}, status=503)
    answer = door.see_other("/")
    door.set_session(request, answer, session)
    return answer


def _invited(services: Services, token: str) -> PersonRow | None:
    if _TOKEN.fullmatch(token) is None:
        return None
    with services.ledger.read() as conn:
        return people.invited(conn, token)


def _judged(services: Services, person: PersonRow, form: Form) -> Mapping[str, str]:
    """What is wrong with what was typed, by field."""
    errors: dict[str, str | None] = {}
    login, name = person.login, person.name
    if login is None:
        login, name = staff.spelled_login(form.get("login")), staff.spelled_name(form.get("name"))
        errors |= {"login": staff.wrong_login(login), "name": staff.wrong_name(name)}
    errors |= wrong_password(services, form, login=login, name=name)
    return {where: why for where, why in errors.items() if why is not None}


def wrong_password(
    services: Services, form: Form, *, login: str, name: str
) -> Mapping[str, str | None]:
    """What is wrong with a new password typed twice, by field."""
    organisation = services.packs.organisation
    own_words = (login, name, organisation.name, organisation.short_name)
    password = form.get("password")
    weak = passwords.weakness(password, own_words=own_words)
    if weak is None and password != form.get("again"):
        return {"again": "is not the same as the first"}
    return {"password": weak}


def _joining(
    request: Request,
    person: PersonRow,
    values: Mapping[str, str],
    *,
    errors: Mapping[str, str] | None = None,
    status: int = 200,
) -> Response:
    return views.page(
        request,
        "join.html",
        None,
        status=status,
        headers={"Retry-After": "5"} if status == 503 else None,
        person=person,
        values=values,
        errors=errors or {},
        put_right=put_right(errors or {}),
        least=passwords.MIN_CHARS,
    )


def _spent(request: Request) -> Response:
    return views.page(request, "join.html", None, status=410, person=None)

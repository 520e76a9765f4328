"""Who is at the console and whether what they send is theirs: session, form, and doing it once.

Owns the session cookie, the token against forged forms and the token that makes a form's
effect happen once. Knows no page.
"""

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl, quote, urlsplit
from zoneinfo import ZoneInfo, available_timezones

from fastapi import Depends, Request
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse, Response

from dispatcher.console.done import note
from dispatcher.ledger import idempotency, people
from dispatcher.ledger.connection import LedgerAway, Transaction
from dispatcher.security.rights import ROLE_SCOPES, Actor, NotAllowed, Scope
from dispatcher.wiring import Services

ROOT = "/console"
MAX_BODY = 2 * 1024 * 1024
"""Bytes of a form: a hundred thousand characters, however they are written, still come in."""
MAX_FIELDS = 2_000
PATIENCE = 15.0
"""Seconds for which a second press of a button waits for the first."""

_COOKIE, _SECURE_COOKIE = "desk", "__Host-desk"
_ONCE = re.compile(r"[A-Za-z0-9_-]{20,64}")
_ZONES = frozenset(available_timezones())


class SignInNeeded(Exception):
    """Nobody is signed in. `back` is where they wanted to go."""

    def __init__(self, back: str) -> None:
        self.back = back
        super().__init__("sign in first")


class Unbelieved(Exception):
    """The form did not come from a page of ours that this person opened."""


class Unreadable(Exception):
    """The form cannot be read; the message says why."""


class Repeated(Exception):
    """This form was sent already and led to `location`; what came now is not the same."""

    def __init__(self, location: str) -> None:
        self.location = location
        super().__init__("this form was sent already")


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person who is signed in. `csrf` goes into every form, `zone` is the reader's own."""

    person: people.PersonRow
    actor: Actor
    csrf: str
    token: str
    zone: str

    def may(self, scope: Scope) -> bool:
        return self.actor.may(scope)


class Form:
    """A form as it came: names and values in order, nothing trimmed."""

    def __init__(self, items: Sequence[tuple[str, str]]) -> None:
        self._items = tuple(items)

    def get(self, name: str, default: str = "") -> str:
        """The last value of this name."""
        return next((value for key, value in reversed(self._items) if key == name), default)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self._items if key == name]

    def items(self) -> tuple[tuple[str, str], ...]:
        return self._items

    def __contains__(self, name: object) -> bool:
        return any(key == name for key, _ in self._items)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key for key, _ in self._items))


@dataclass(frozen=True, slots=True)
class Post:
    """A form sent by somebody who may send it, from a page of ours."""

    services: Services
    visitor: Visitor
    form: Form
    request: Request

    def once(
        self, work: Callable[[Transaction], str], done: str | Callable[[str], str] = ""
    ) -> Response:
        """Do the work in one transaction and go where it says (a path below `/console`).

        The same form sent again, by a double click, the back button or a lost connection,
        leads to the same place without the work. Whatever `work` raises stores nothing.
        `done` names what the page there says was done, or tells the name from where it leads.
        Raises `Repeated` for another form under the same token.
        """
        key = self.form.get("once")
        if not _ONCE.fullmatch(key):
            raise Unreadable("the form lacks its token: open the page again and send it anew")
        body = b"\0".join(f"{name}={value}".encode() for name, value in self.form.items())
        waited = threading.Event()  # never set: paces the waiting
        tries = round(PATIENCE / 0.05)
        for left in range(tries, -1, -1):
            try:
                path = self._once(work, key, body)
                answer = see_other(path)
                if word := done(path) if callable(done) else done:
                    note(answer, word)
                return answer
            except idempotency.StillRunning:
                if not left:
                    raise
                waited.wait(0.05)
        raise AssertionError("unreachable")

    def _once(self, work: Callable[[Transaction], str], key: str, body: bytes) -> str:
        route = f"{self.request.method} {self.request.url.path}"
        actor = self.visitor.actor.id
        with self.services.ledger.transaction() as transaction:
            conn = transaction.conn
            try:
                kept = idempotency.begin(conn, actor=actor, route=route, key=key, body=body)
            except idempotency.KeyReused:
                led = idempotency.kept(conn, actor=actor, route=route, key=key)
                raise Repeated(led.body.decode() if led else "/") from None
            if kept is not None:
                return kept.body.decode()
            location = work(transaction)
            answer = idempotency.Answer(303, location.encode())
            idempotency.keep(conn, actor=actor, route=route, key=key, body=body, answer=answer)
        return location


def see_other(path: str) -> RedirectResponse:
    """Go to a path below `/console` and get it."""
    return RedirectResponse(f"{ROOT}{path}", status_code=303, headers={"Cache-Control": "no-store"})


async def services_of(request: Request) -> Services:
    """The services that this console was made with."""
    found: Services = request.app.state.services
    return found


Desk = Annotated[Services, Depends(services_of)]


def session_token(request: Request) -> str | None:
    """What the browser shows at the door. Over https only what nobody else's page can have set."""
    return request.cookies.get(_SECURE_COOKIE if request.url.scheme == "https" else _COOKIE)


def set_session(request: Request, response: Response, token: str) -> None:
    """Give the browser its session; over https only if it came by https."""
    secure = request.url.scheme == "https"
    response.set_cookie(
        _SECURE_COOKIE if secure else _COOKIE,
        token,
        max_age=people.SESSION_HOURS * 3600,
        path="/",
        secure=secure,
        httponly=True,
        samesite="lax",
    )


def clear_session(response: Response) -> None:
    for name, secure in ((_COOKIE, False), (_SECURE_COOKIE, True)):
        response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")


def csrf_of(token: str) -> str:
    """What every form of this session carries."""
    return hmac.new(token.encode(), b"forms of the console", hashlib.sha256).hexdigest()[:32]


def fresh_once() -> str:
    """A token for one form's one effect."""
    return secrets.token_urlsafe(18)


def visitor(request: Request, services: Desk) -> Visitor:
    """A dependency: who is signed in. Raises `SignInNeeded`."""
    token = session_token(request)
    person = None
    if token is not None and len(token) < 100:
        with services.ledger.read() as conn:
            person = people.of_session(conn, token)
    if token is None or person is None:
        raise SignInNeeded(_way_back(request))
    return Visitor(
        person=person,
        actor=Actor(id=person.actor_id, name=person.name, scopes=ROLE_SCOPES[person.role]),
        csrf=csrf_of(token),
        token=token,
        zone=_zone(person.zone, request.cookies.get("zone"), services),
    )


Known = Annotated[Visitor, Depends(visitor)]


def still_here(services: Services, who: Visitor) -> bool:
    """Whether a visitor's session still lasts, for what goes on after its request began.

    While nobody can be asked, it is taken to.
    """
    try:
        with services.ledger.read() as conn:
            return people.lasts(conn, who.token)
    except LedgerAway:
        return True


def _way_back(request: Request) -> str:
    if request.method != "GET":
        # To where the form stood, as the browser says: a path of our own, or the start.
        form = urlsplit(request.headers.get("referer", ""))
        return ROOT + own_path(f"{form.path}?{form.query}" if form.query else form.path)
    query = f"?{request.url.query}" if request.url.query else ""
    return f"{request.url.path}{query}"


def sign_in_path(back: str) -> str:
    """The sign-in page that leads back to `back` afterwards."""
    return f"/sign-in?next={quote(back, safe='')}"


def own_path(written: str) -> str:
    """A path of the console without its root, from what somebody wrote; the start otherwise."""
    parts = urlsplit(written)
    path = parts.path
    fine = not parts.scheme and not parts.netloc and path.startswith(f"{ROOT}/")
    if not fine or "//" in path or "\\" in written or not written.isprintable():
        return "/"
    return path.removeprefix(ROOT) + (f"?{parts.query}" if parts.query else "")


def _zone(own: str | None, cookie: str | None, services: Services) -> str:
    for name in (own, cookie and cookie.replace("%2F", "/")):
        if name and name in _ZONES:
            return str(ZoneInfo(name))
    return services.packs.organisation.default_zone


def holding(*scopes: Scope) -> Callable[..., Visitor]:
    """A dependency: a visitor whose role has at least one of `scopes` (none: any role)."""

    def entitled(who: Known) -> Visitor:
        if scopes and not any(who.may(scope) for scope in scopes):
            raise NotAllowed(f"your role ({who.person.role}) does not let you do this")
        return who

    return entitled


def same_origin(request: Request) -> bool:
    """Whether the browser says that a page of ours sent this."""
    fetched_from = request.headers.get("sec-fetch-site")
    if fetched_from is not None:
        return fetched_from == "same-origin"
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


async def form_of(request: Request) -> Form:
    """A dependency: the form in the body. Raises `Unreadable`, `Unbelieved`."""
    if not same_origin(request):
        raise Unbelieved
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise Unreadable("the form came in a way that this page does not send")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise Unreadable("the form is larger than two megabytes")
    except ClientDisconnect:
        raise Unreadable("the form broke off") from None
    try:
        items = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            max_num_fields=MAX_FIELDS,
            errors="strict",
        )
    except (UnicodeDecodeError, ValueError):
        raise Unreadable("the form is not text in UTF-8") from None
    if any("\0" in name or "\0" in value for name, value in items):
        raise Unreadable("the form holds a character that nobody can type and nothing can store")
    return Form([(name, value.replace("\r\n", "\n")) for name, value in items])


Sent = Annotated[Form, Depends(form_of)]


def posting(*scopes: Scope) -> Callable[..., Awaitable[Post]]:
    """A dependency: a form of somebody who holds at least one of `scopes`.

    Raises `SignInNeeded`, `Unbelieved`, `NotAllowed`, `Unreadable`.
    """
    entitled = holding(*scopes)

    async def posted(
        request: Request,
        services: Desk,
        who: Annotated[Visitor, Depends(entitled)],
        form: Sent,
    ) -> Post:
        if not hmac.compare_digest(form.get("csrf").encode(), who.csrf.encode()):
            raise Unbelieved
        return Post(services, who, form, request)

    return posted

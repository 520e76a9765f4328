"""Who calls, with what right, on which services; and doing a repeated request's work once.

Owns Bearer keys at the edge and `Idempotency-Key`. Knows no call in particular.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

import orjson
from fastapi import Depends, Header, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel

from dispatcher.http.problems import HttpProblem
from dispatcher.ledger import idempotency, keys
from dispatcher.ledger.connection import Transaction
from dispatcher.security.rights import Actor, NotAllowed, Scope
from dispatcher.wiring import Services

REPLAYED = {"Idempotent-Replayed": "true"}

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="key",
    description="A key from `dispatcher keys create`: `Authorization: Bearer od_…`.",
)


async def services_of(request: Request) -> Services:
    """The services that this app was made with."""
    found: Services = request.app.state.services
    return found


Desk = Annotated[Services, Depends(services_of)]


def holding(*scopes: Scope) -> Callable[..., Actor]:
    """A dependency: the key's holder, who has at least one of `scopes` (none: any key)."""

    def actor(
        services: Desk,
        found: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
    ) -> Actor:
        if found is None:
            raise _unauthorised("Send a key as `Authorization: Bearer …`.", code="")
        with services.ledger.read() as conn:
            holder = keys.actor_for(conn, found.credentials)
        if holder is None:
            told = "The key is unknown or revoked."
            raise _unauthorised(told, code=', error="invalid_token"')
        if scopes and not any(holder.may(scope) for scope in scopes):
            names = " or ".join(repr(scope.value) for scope in scopes)
            raise NotAllowed(f"this key lacks the scope {names}")
        return holder

    return actor


def _unauthorised(detail: str, *, code: str) -> HttpProblem:
    challenge = f'Bearer realm="dispatcher"{code}'
    return HttpProblem("unauthorised", detail, headers={"WWW-Authenticate": challenge})


Reader = Annotated[Actor, Depends(holding(Scope.READ))]


@dataclass(frozen=True, slots=True)
class Call:
    """A call that changes something: by whom, and what makes it the same call again."""

    services: Services
    actor: Actor
    route: str
    key: str | None
    body: bytes

    def once(
        self,
        work: Callable[[Transaction], BaseModel],
        *,
        status: int = 200,
        location: Callable[[Mapping[str, str]], str] | None = None,
    ) -> Response:
        """Do the work in one transaction and answer with what it returns.

        With an `Idempotency-Key` the answer is stored in that transaction, and a repetition
        gets it again without the work. Whatever `work` raises stores nothing.
        """
        with self.services.ledger.transaction() as transaction:
            kept = self._begin(transaction)
            if kept is None:
                body = work(transaction).model_dump_json().encode()
                self._keep(transaction, idempotency.Answer(status, body))
        replayed: Mapping[str, str] = {}
        if kept is not None:
            status, body, replayed = kept.status, kept.body, REPLAYED
        headers = {"Cache-Control": "no-store", **replayed}
        if location is not None:
            headers["Location"] = location(orjson.loads(body))
        return Response(body, status, headers=headers, media_type="application/json")

    def _begin(self, work: Transaction) -> idempotency.Answer | None:
        if self.key is None:
            return None
        return idempotency.begin(
            work.conn, actor=self.actor.id, route=self.route, key=self.key, body=self.body
        )

    def _keep(self, work: Transaction, answer: idempotency.Answer) -> None:
        if self.key is not None:
            idempotency.keep(
                work.conn,
                actor=self.actor.id,
                route=self.route,
                key=self.key,
                body=self.body,
                answer=answer,
            )


async def _raw_body(request: Request) -> bytes:
    return await request.body()


def acting(*scopes: Scope) -> Callable[..., Awaitable[Call]]:
    """A dependency: the call of a key that holds at least one of `scopes`."""
    holder = holding(*scopes)

    async def call(
        request: Request,
        services: Desk,
        actor: Annotated[Actor, Depends(holder)],
        body: Annotated[bytes, Depends(_raw_body)],
        key: Annotated[
            str | None,
            Header(
                alias="Idempotency-Key",
                description="1 to 255 printable ASCII characters. The same call with the same"
                " key and body within 24 hours gets the first answer again.",
            ),
        ] = None,
    ) -> Call:
        if key is not None and not (0 < len(key) < 256 and key.isascii() and key.isprintable()):
            detail = "Idempotency-Key must have 1 to 255 printable ASCII characters."
            errors = [{"field": "Idempotency-Key", "reason": detail}]
            raise HttpProblem("bad-request", detail, errors=errors)
        route = f"{request.method} {request.url.path}"
        return Call(services, actor, route, key, body)

    return call

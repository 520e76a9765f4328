"""The in-app inbox as its reader's app sees it: a token, the messages, the live stream.

A token opens one recipient's inbox for at most an hour and comes in the query, since a
browser's EventSource can send no header; so these calls are never logged with their query.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict

from dispatcher.acts import NotFound
from dispatcher.http.desk import Desk, holding
from dispatcher.http.guard import JsonRoute
from dispatcher.http.problems import HttpProblem
from dispatcher.http.requests import InboxTokenFor
from dispatcher.http.streams import POLL_SECONDS, SSE_RESPONSE, Feed, event, event_stream
from dispatcher.ledger import audit, inbox
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.inbox import InboxMessage, NoInbox
from dispatcher.recipient_rules import known_ref
from dispatcher.security.rights import Actor, Scope

router = APIRouter(prefix="/v1/inbox", tags=["inbox"], route_class=JsonRoute)

ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}
"""The script is embedded in other sites' pages; a token is the only right, no cookie is."""

_MAX_SEQ = 2**62


class InboxToken(BaseModel):
    """A token, shown once. It stands in the query of the inbox's calls and page."""

    token: str
    expires_at: datetime


class InboxMessageShown(BaseModel):
    """An in-app message. `seq` is the id to resume after; `key` tells repetitions."""

    model_config = ConfigDict(from_attributes=True)

    seq: int
    key: str
    title: str
    body: str
    thread: str
    created_at: datetime
    expires_at: datetime | None


class Inbox(BaseModel):
    """An inbox's messages, oldest first. `next` is what to ask `after` for the following."""

    messages: list[InboxMessageShown]
    next: int | None


@router.post("/tokens", status_code=201)
def issue_inbox_token(
    body: InboxTokenFor,
    services: Desk,
    response: Response,
    actor: Annotated[Actor, Depends(holding(Scope.RECIPIENTS_WRITE))],
) -> InboxToken:
    """A token for one recipient's inbox, for your own app to hand to that person.

    Each call makes another one; a repetition is harmless, and as a token is never stored
    in the clear, `Idempotency-Key` has no effect here.
    """
    if not known_ref(body.recipient):
        raise NotFound("no such recipient")
    expires_at = datetime.now(UTC) + timedelta(seconds=body.seconds)
    try:
        with services.ledger.transaction() as work:
            token = inbox.issue_token(work.conn, body.recipient, body.seconds)
            detail = {"recipient": body.recipient, "seconds": body.seconds}
            audit.record(work.conn, actor=actor.id, act="inbox.token", detail=detail)
    except NoInbox as error:
        raise NotFound(str(error)) from None
    response.headers["Cache-Control"] = "no-store"
    return InboxToken(token=token, expires_at=expires_at)


class InboxFeed:
    """New messages of watched inboxes, looked for once a second for all of them."""

    def __init__(self, ledger: Ledger, *, interval: float = POLL_SECONDS) -> None:
        self._ledger = ledger
        self.feed: Feed[bytes, int] = Feed(self._newest, interval=interval)

    def _newest(self, known: Mapping[bytes, int]) -> Mapping[bytes, int]:
        found = dict(known)
        with self._ledger.read() as conn:
            for lookup, seq in known.items():
                messages = inbox.after(conn, lookup, seq, inbox.MAX_PAGE)
                if messages:
                    found[lookup] = messages[-1].seq
        return found

    def after(self, token: str, seq: int) -> tuple[bytes, list[InboxMessage]] | None:
        """The inbox a token opens and its messages after `seq`; None if the token is no more."""
        with self._ledger.read() as conn:
            lookup = inbox.inbox_of_token(conn, token)
            return (lookup, inbox.after(conn, lookup, seq, inbox.MAX_PAGE)) if lookup else None

    async def follow(self, token: str, lookup: bytes, seq: int) -> AsyncGenerator[bytes, None]:
        """Messages after `seq`, at once and as they come, while the token is good."""
        while (found := await anyio.to_thread.run_sync(self.after, token, seq)) and found[1]:
            for message in found[1]:
                yield _event(message)
                seq = message.seq
        async with aclosing(self.feed.watch(lookup, seq)) as news:
            async for _ in news:
                while found := await anyio.to_thread.run_sync(self.after, token, seq):
                    for message in found[1]:
                        yield _event(message)
                        seq = message.seq
                    if not found[1]:
                        break
                if found is None:
                    return


def _event(message: InboxMessage) -> bytes:
    body = InboxMessageShown.model_validate(message).model_dump_json().encode()
    return event("message", body, id=str(message.seq))


_Token = Annotated[str, Query(min_length=1, max_length=128, description="An inbox token.")]


def _opened(request: Request, token: _Token) -> bytes:
    feed: InboxFeed = request.app.state.inbox_feed
    found = feed.after(token, _MAX_SEQ)
    if found is None:
        challenge = {"WWW-Authenticate": 'Bearer realm="inbox"', **ANY_ORIGIN}
        raise HttpProblem("unauthorised", "The inbox token is unknown or over.", headers=challenge)
    return found[0]


@router.get("")
def get_inbox(
    services: Desk,
    response: Response,
    lookup: Annotated[bytes, Depends(_opened)],
    after: Annotated[int, Query(ge=0, le=_MAX_SEQ, description="`next` of a page.")] = 0,
    limit: Annotated[int, Query(ge=1, le=inbox.MAX_PAGE)] = 100,
) -> Inbox:
    """The messages in a token's inbox."""
    response.headers.update({"Cache-Control": "no-store", **ANY_ORIGIN})
    with services.ledger.read() as conn:
        found = inbox.after(conn, lookup, after, limit)
    more = found[-1].seq if len(found) == limit else None
    return Inbox(messages=[InboxMessageShown.model_validate(m) for m in found], next=more)


@router.get("/events", responses=SSE_RESPONSE)
async def watch_inbox(
    request: Request,
    token: _Token,
    lookup: Annotated[bytes, Depends(_opened)],
    last_event_id: Annotated[
        str, Header(alias="Last-Event-ID", description="Replay what came after this.")
    ] = "0",
) -> Response:
    """The inbox as server-sent `message` events: what came after `Last-Event-ID`, then live."""
    known = last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19
    feed: InboxFeed = request.app.state.inbox_feed
    stream = feed.follow(token, lookup, int(last_event_id) if known else 0)
    return event_stream(stream, at_most=inbox.MAX_TOKEN_SECONDS, headers=ANY_ORIGIN)

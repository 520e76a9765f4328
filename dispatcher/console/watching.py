"""The pages of an update that is being sent: its numbers live, who was not told, stop and resume.

Owns what a watcher sees and the two acts of whoever watches. The numbers are `board`'s.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import Response

from dispatcher.acts import NotFound, find_incident, update_id
from dispatcher.console import reasons
from dispatcher.console.board import Board, View, live, shape
from dispatcher.console.door import Desk, Known, Post, Visitor, posting, still_here
from dispatcher.console.home import called
from dispatcher.console.tallying import PATIENCE
from dispatcher.console.views import fragment, page
from dispatcher.http.events import ProgressFeed, Snapshot
from dispatcher.http.standing import ProgressShown, Stand
from dispatcher.http.streams import event, event_stream
from dispatcher.incidents import Incident
from dispatcher.ledger import accounts, people, shortfalls, updates
from dispatcher.ledger.connection import Connection, Transaction
from dispatcher.ledger.progress import MOVING
from dispatcher.ledger.shortfalls import Group
from dispatcher.ledger.updates import ReleaseRow, UpdateRow
from dispatcher.security.rights import Scope
from dispatcher.wiring import Services

router = APIRouter(prefix="/updates/{update}")

Stopper = Annotated[Post, Depends(posting(Scope.RELEASE))]
QUIET_SECONDS = 3.0
"""After this long without a change the rate and the time left are told again."""
AT_MOST = 3_600.0
"""Seconds after which a watcher's browser comes again, and is looked at anew at the door."""
ACTS = 20


async def board_of(request: Request) -> Board:
    """The board that this console was made with."""
    found: Board = request.app.state.board
    return found


Shown = Annotated[Board, Depends(board_of)]


@dataclass(frozen=True, slots=True)
class Halt:
    """A stop or a resume as it is remembered."""

    at: datetime
    who: str
    act: str
    audiences: tuple[str, ...]
    saved: int
    left: int


@dataclass(frozen=True, slots=True)
class Watched:
    """An update with its incident, and where its audiences stand."""

    row: UpdateRow
    incident: Incident
    releases: tuple[ReleaseRow, ...]
    number: int

    @property
    def name(self) -> str:
        return f"update {self.number} ({self.row.phase.replace('_', ' ')})"

    @property
    def uncounted(self) -> tuple[str, ...]:
        """Audiences that were stopped before anybody of them was counted: planned if resumed."""
        return tuple(
            row.audience
            for row in self.releases
            if row.state == "stopped" and row.planned_at is None
        )

    def audiences(self, *states: str) -> tuple[str, ...]:
        return tuple(row.audience for row in self.releases if row.state in states)


def _watched(conn: Connection, wanted: str) -> Watched:
    row = updates.get(conn, wanted)
    if row is None:
        raise NotFound("no such update")
    incident = find_incident(conn, row.incident_id)
    ids = [each.id for each in updates.of_incident(conn, incident.id)]
    return Watched(row, incident, tuple(updates.releases(conn, row.id)), ids.index(row.id) + 1)


def _halts(conn: Connection, watched: Watched) -> list[Halt]:
    acts = [
        act
        for act in accounts.acts(conn, watched.incident.id, update_id=watched.row.id, limit=200)
        if act.act in ("update.stop", "update.resume")
    ][-ACTS:]
    names = people.names(conn, sorted({act.actor for act in acts}))
    return [
        Halt(
            act.at,
            called(names, act.actor),
            act.act.removeprefix("update."),
            tuple(act.detail.get("audiences", ())),
            int(act.detail.get("saved", 0)),
            int(act.detail.get("left", 0)),
        )
        for act in reversed(acts)
    ]


def _seen(
    services: Services,
    board: Board,
    conn: Connection,
    watched: Watched,
    *,
    patience: float = 0.0,
) -> dict[str, Any]:
    """What the page and its fragments show of the numbers; `patience` as in `Tallies.known`."""
    view = board.view(conn, watched.row.id)
    return {
        "watched": watched,
        "incident": watched.incident,
        "drill": watched.incident.drill,
        "view": view,
        "shape": shape(view),
        "figures": board.figures(view, patience=patience),
        "reason_of": reasons.told,
        "channel_of": reasons.channel,
        "titles": {name: rule.title for name, rule in services.packs.audiences.items()},
    }


@router.get("/watch")
def watch_page(request: Request, update: str, services: Desk, board: Shown, who: Known) -> Response:
    """The sending of an update: numbers, failures, who was not told, what can be done."""
    with services.ledger.read() as conn:
        watched = _watched(conn, update_id(update))
        seen = _seen(services, board, conn, watched, patience=PATIENCE)
        halts = _halts(conn, watched)
        paused = shortfalls.paused(conn, watched.row.id)
        promise = updates.promised(conn, watched.incident.id)
    return page(
        request,
        "watch.html",
        who,
        **seen,
        halts=halts,
        paused=paused,
        promise=promise,
        may_stop=who.may(Scope.RELEASE) and _stoppable(watched, seen["view"]),
        may_resume=who.may(Scope.RELEASE) and bool(watched.audiences("stopped") or paused),
    )


def _stoppable(watched: Watched, view: View) -> bool:
    """Whether a stop could still hold anything back."""
    over = view.state in (Stand.STOPPED, Stand.COMPLETE, Stand.WITHDRAWN)
    return bool(watched.audiences("released")) and (view.moving or not over)


@router.get("/progress")
def progress_part(
    request: Request, update: str, services: Desk, board: Shown, who: Known
) -> Response:
    """The numbers alone, for the page's script when rows came or went."""
    with services.ledger.read() as conn:
        seen = _seen(services, board, conn, _watched(conn, update_id(update)))
    return fragment(request, "_progress.html", who, **seen)


@router.get("/shortfalls")
def shortfalls_part(
    request: Request, update: str, services: Desk, board: Shown, who: Known
) -> Response:
    """Who was not told and why, as last counted."""
    with services.ledger.read() as conn:
        watched = _watched(conn, update_id(update))
        seen = _seen(services, board, conn, watched, patience=PATIENCE)
    return fragment(request, "_shortfalls.html", who, **seen)


def _now(request: Request, update: str) -> tuple[str, Snapshot]:
    # A full check may take a while: here, in a thread, and not in the event loop.
    feed: ProgressFeed = request.app.state.progress_feed
    wanted = update_id(update)
    return wanted, feed.now(wanted)


@router.get("/events")
async def events(
    request: Request,
    services: Desk,
    board: Shown,
    who: Known,
    now: Annotated[tuple[str, Snapshot], Depends(_now)],
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
) -> Response:
    """The numbers whenever they change, and the rate when they do not."""
    wanted, first = now
    if first.complete and first.id == last_event_id:
        return Response(status_code=204)
    feed: ProgressFeed = request.app.state.progress_feed
    still = partial(still_here, services, who)
    return event_stream(_followed(feed, board, who, wanted, first, still=still), at_most=AT_MOST)


async def _followed(
    feed: ProgressFeed,
    board: Board,
    who: Visitor,
    wanted: str,
    first: Snapshot,
    *,
    still: Callable[[], bool] = lambda: True,
) -> AsyncGenerator[bytes, None]:
    sent, found = await _told(board, who, first)
    yield sent
    if found.ends:
        return
    async with aclosing(feed.feed.watch(wanted, first)) as states:
        waiting = asyncio.ensure_future(anext(states))
        known = first
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=QUIET_SECONDS)
                if done:
                    known = waiting.result()
                    waiting = asyncio.ensure_future(anext(states))
                elif not found.moving:
                    continue
                # Whoever was shut out since they began to watch sees nothing more.
                if not await asyncio.to_thread(still):
                    return
                sent, found = await _told(board, who, known)
                yield sent
                if found.ends:
                    return
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)


async def _told(board: Board, who: Visitor, snapshot: Snapshot) -> tuple[bytes, View]:
    shown = ProgressShown.model_validate_json(snapshot.body)
    view = await asyncio.to_thread(board.followed, shown, snapshot.id)
    body = orjson.dumps(live(view, zone=who.zone))
    return event("progress", body, id=snapshot.id), view


@router.get("/untold")
def untold_page(
    request: Request,
    update: str,
    services: Desk,
    board: Shown,
    who: Known,
    group: Annotated[Group, Query()] = Group.UNTOLD,
    audience: Annotated[str, Query(max_length=48)] = "",
    reason: Annotated[str, Query(pattern=r"^([a-z]{1,16}\.[a-z_]{0,32})?$")] = "",
    after: Annotated[str, Query(pattern=r"^(\d{1,18}-\d{1,9})?$")] = "",
) -> Response:
    """Those who were not told, fifty at a time, with every way that was tried."""
    batch, _, seq = after.partition("-")
    state, _, why = reason.partition(".")
    with services.ledger.read() as conn:
        watched = _watched(conn, update_id(update))
        found = shortfalls.untold(
            conn,
            watched.row.id,
            group=group,
            audience=audience or None,
            state=state or None,
            reason=why if state else None,
            after=(int(batch), int(seq) - 1) if batch else (0, -1),
        )
        seen = _seen(services, board, conn, watched)
    known = seen["figures"].figures
    return page(
        request,
        "untold.html",
        who,
        **seen,
        found=found,
        group=group,
        groups=_GROUPS,
        audience=audience,
        audiences_shown=[
            ("", "All audiences"),
            *((name, seen["titles"].get(name, name)) for name in watched.row.audiences),
        ],
        reason=reason,
        choices=_reasons(known),
        first=not after,
        # Places are counted from one less than the row looked at last, so that none is negative.
        older=f"{found.after[0]}-{found.after[1] + 1}" if found.after else "",
    )


_GROUPS: Sequence[tuple[str, str]] = (
    ("untold", "Not told, and nothing more is under way"),
    ("waiting", "Still waiting"),
    ("doubt", "In doubt"),
    ("left_out", "Left out on purpose"),
)


def _reasons(known: shortfalls.Figures | None) -> list[tuple[str, str]]:
    """The reasons there are, to choose from."""
    found: dict[str, str] = {}
    for each in known.shortfalls if known is not None else ():
        words = reasons.told(each.state, each.reason).words
        found.setdefault(f"{each.state}.{each.reason}", words)
    return sorted(found.items(), key=lambda item: item[1])


@router.get("/stop")
def stop_page(request: Request, update: str, services: Desk, board: Shown, who: Known) -> Response:
    """What a stop would save, before it is made."""
    return _asked(request, update, services, board, who, act="stop")


@router.get("/resume")
def resume_page(
    request: Request, update: str, services: Desk, board: Shown, who: Known
) -> Response:
    """What a resume would let go, before it is made."""
    return _asked(request, update, services, board, who, act="resume")


def _asked(
    request: Request,
    update: str,
    services: Desk,
    board: Board,
    who: Visitor,
    *,
    act: str,
    errors: Sequence[tuple[str, str]] = (),
) -> Response:
    with services.ledger.read() as conn:
        watched = _watched(conn, update_id(update))
        seen = _seen(services, board, conn, watched)
        paused = {each.audience for each in shortfalls.paused(conn, watched.row.id)}
    counts = seen["view"].shown.by_audience
    planning = {
        row.audience
        for row in watched.releases
        if row.state == "released" and row.planned_at is None
    }
    if act == "stop":
        # What is leaving may be refused for now and come back: it counts as something to stop.
        numbers = {
            name: counts.get(name, {}).get("pending", 0)
            for name in watched.audiences("released")
            if name in planning or any(counts.get(name, {}).get(each, 0) for each in MOVING)
        }
    else:
        numbers = {
            name: sum(counts.get(name, {}).get(each, 0) for each in ("stopped", "pending"))
            for name in sorted({*watched.audiences("stopped"), *paused})
        }
    return page(
        request,
        "halt.html",
        who,
        status=422 if errors else 200,
        **seen,
        act=act,
        numbers=dict(sorted(numbers.items(), key=lambda item: -item[1])),
        total=sum(numbers.values()),
        planning=planning,
        uncounted=set(watched.uncounted) & set(numbers),
        errors=errors,
        may=who.may(Scope.RELEASE),
    )


def _chosen(post: Post) -> tuple[str, ...]:
    return tuple(post.form.all("audiences"))


@router.post("/stop")
def stop(update: str, post: Stopper, board: Shown) -> Response:
    """Stop what has not left of the chosen audiences."""
    wanted, chosen = update_id(update), _chosen(post)
    if not chosen:
        return _nobody(update, post, board, "stop")

    def work(transaction: Transaction) -> str:
        post.services.releases.stop(transaction, wanted, audiences=chosen, actor=post.visitor.actor)
        return f"/updates/{wanted}/watch#stops"

    return post.once(work)


@router.post("/resume")
def resume(update: str, post: Stopper, board: Shown) -> Response:
    """Go on with the chosen audiences where the stop left them."""
    wanted, chosen = update_id(update), _chosen(post)
    if not chosen:
        return _nobody(update, post, board, "resume")

    def work(transaction: Transaction) -> str:
        post.services.releases.resume(
            transaction, wanted, audiences=chosen, actor=post.visitor.actor
        )
        return f"/updates/{wanted}/watch#stops"

    return post.once(work)


def _nobody(update: str, post: Post, board: Board, act: str) -> Response:
    told = [("audiences", "Tick at least one audience")]
    return _asked(post.request, update, post.services, board, post.visitor, act=act, errors=told)

"""An update's own page, and what is decided there: submit, return, approve, release, withdraw.

Owns who sees which decision, and the words they confirm it by. The decisions themselves are
`updates`' and `releases`'.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from dispatcher.acts import (
    Conflict,
    Invalid,
    NotFound,
    Refused,
    find_incident,
    find_update,
    update_id,
)
from dispatcher.audiences import Packs
from dispatcher.claims import Claim, sensitive, unsupported
from dispatcher.console.door import Desk, Known, Post, Visitor, posting
from dispatcher.console.home import called
from dispatcher.console.views import page
from dispatcher.figures import AudienceFigures, Figures
from dispatcher.incidents import Fact, Incident, Phase, live_facts
from dispatcher.ledger import audit, incidents, people, updates
from dispatcher.ledger.connection import Connection, Transaction
from dispatcher.ledger.updates import ReleaseRow, UpdateRow
from dispatcher.reckoning import Reckoned
from dispatcher.security.rights import Scope
from dispatcher.updates import ReleaseMode
from dispatcher.wiring import Services

router = APIRouter(prefix="/updates/{update}")

Writer = Annotated[Post, Depends(posting(Scope.INCIDENTS_WRITE))]
Approver = Annotated[Post, Depends(posting(Scope.APPROVE))]
Releaser = Annotated[Post, Depends(posting(Scope.RELEASE))]
Breaker = Annotated[Post, Depends(posting(Scope.RELEASE_ANY))]

DRILL_WORD = "DRILL"
BREAK_GLASS = "WITHOUT APPROVAL"
MAX_REASON = 1_000


@dataclass(frozen=True, slots=True)
class Sample:
    """The message an audience's people are likeliest to see first, as they will read it."""

    channel: str
    locale: str
    direction: str
    heading: str
    body: str


@dataclass(frozen=True, slots=True)
class AudienceLine:
    """One audience of an update: where it stands, whom it reaches, what they read."""

    row: ReleaseRow
    title: str
    sample: Sample | None
    errors: int
    warnings: int
    figures: AudienceFigures | None
    by: str


@dataclass(frozen=True, slots=True)
class Hub:
    """Everything the page of an update tells."""

    update: UpdateRow
    number: int
    incident: Incident
    lines: tuple[AudienceLine, ...]
    facts: tuple[Fact, ...]
    taken_back: tuple[Fact, ...]
    claims: tuple[Claim, ...]
    unsupported: str
    author: str
    editors: tuple[str, ...]
    reckoned: Reckoned | None

    def standing(self, *states: str) -> list[AudienceLine]:
        """The audiences in one of these states."""
        return [line for line in self.lines if line.row.state in states]

    def reach_of(self, lines: Sequence[AudienceLine]) -> int | None:
        """How many people these audiences have who will be told, if they were counted."""
        if any(line.figures is None for line in lines):
            return None
        return sum(each.told + each.shared for line in lines if (each := line.figures) is not None)

    @property
    def people(self) -> int | None:
        """How many people the whole update reaches, if they were counted."""
        return self.reckoned.figures.people if self.reckoned is not None else None


def hub_of(services: Services, conn: Connection, wanted: str) -> Hub:
    """An update with all that a decision on it needs. Raises `NotFound`."""
    update = updates.get(conn, wanted)
    if update is None:
        raise NotFound("no such update")
    incident = find_incident(conn, update.incident_id)
    releases = updates.releases(conn, update.id)
    facts = incidents.facts(conn, incident.id)
    own = tuple(fact for fact in facts if fact.update_id == update.id)
    messages = updates.messages(conn, update.id)
    reckoned = services.reckoning.known(conn, update.id)
    if reckoned is not None and reckoned.revision != update.revision:
        reckoned = None
    actors = {update.author, *update.editors}
    for row in releases:
        actors |= {by for by in (row.approved_by, row.released_by, row.returned_by) if by}
    names = people.names(conn, sorted(actors))
    figures = reckoned.figures if reckoned is not None else None
    return Hub(
        update=update,
        number=[row.id for row in updates.of_incident(conn, incident.id)].index(update.id) + 1,
        incident=incident,
        lines=tuple(_line(services, row, messages, figures, names) for row in releases),
        facts=own,
        taken_back=tuple(fact for fact in facts if fact.id in update.withdraws),
        claims=sensitive(fact.stated for fact in own),
        unsupported=unsupported(
            Phase(update.phase),
            [
                fact.stated
                for fact in live_facts(
                    incidents.standing(conn, incident.id, update_id=update.id)
                ).values()
            ],
        ),
        author=called(names, update.author),
        editors=tuple(called(names, editor) for editor in update.editors),
        reckoned=reckoned,
    )


def _line(
    services: Services,
    row: ReleaseRow,
    messages: Sequence[dict[str, Any]],
    figures: Figures | None,
    names: dict[str, str],
) -> AudienceLine:
    own = [message for message in messages if message["audience"] == row.audience]
    severities = [problem["severity"] for message in own for problem in message["problems"]]
    by = row.released_by or row.approved_by or row.returned_by
    return AudienceLine(
        row=row,
        title=_title(services.packs, row.audience),
        sample=_sample(services, row.audience, own),
        errors=severities.count("error"),
        warnings=severities.count("warning"),
        figures=figures.of(row.audience) if figures is not None else None,
        by=called(names, by) if by else "",
    )


def _title(packs: Packs, audience: str) -> str:
    return packs.audiences[audience].title if audience in packs.audiences else audience


def _sample(services: Services, audience: str, own: Sequence[dict[str, Any]]) -> Sample | None:
    """The first channel's message in the organisation's own language, or in any."""
    rules = services.packs.audiences.get(audience)
    order = [step.channel for step in rules.channels] if rules else []
    default = services.packs.organisation.default_locale
    ranked = sorted(
        own,
        key=lambda message: (
            order.index(message["channel"]) if message["channel"] in order else len(order),
            message["locale"] != default,
        ),
    )
    if not ranked:
        return None
    first = ranked[0]
    words = services.renderer.vocabulary(first["locale"])
    parts = first["parts"]
    return Sample(
        channel=first["channel"],
        locale=first["locale"],
        direction=words.direction,
        heading=parts.get("title") or parts.get("subject") or "",
        body=parts.get("body") or parts.get("text") or "",
    )


@router.get("")
def update_page(request: Request, update: str, services: Desk, who: Known) -> Response:
    """An update: where each audience stands, and what this person may decide."""
    return _hub_page(request, services, who, update_id(update))


def _hub_page(
    request: Request,
    services: Services,
    who: Visitor,
    wanted: str,
    *,
    status: int = 200,
    errors: Sequence[tuple[str, str]] = (),
    typed: dict[str, str] | None = None,
    chosen: Sequence[str] | None = None,
) -> Response:
    with services.ledger.read() as conn:
        hub = hub_of(services, conn, wanted)
    if hub.reckoned is None and not hub.update.withdrawn_at:
        # It came by the API, or its count was lost: whoever decides has to see a number.
        services.reckoning.soon(wanted, hub.update.revision)
    mine = who.actor.id in (hub.update.author, *hub.update.editors)
    return page(
        request,
        "update.html",
        who,
        status=status,
        drill=hub.incident.drill,
        hub=hub,
        mine=mine,
        may_write=who.may(Scope.INCIDENTS_WRITE),
        may_approve=who.may(Scope.APPROVE) and not mine,
        may_release=who.may(Scope.RELEASE),
        may_break=who.may(Scope.RELEASE_ANY),
        word=DRILL_WORD,
        break_word=BREAK_GLASS,
        errors=errors,
        typed=typed or {},
        chosen=chosen,
    )


def _again(post: Post, wanted: str, errors: Sequence[tuple[str, str]]) -> Response:
    """The page once more with what was wrong; nothing that was typed is lost."""
    typed = {name: post.form.get(name) for name in ("reason", "word", "why")}
    chosen = post.form.all("audiences") if "choosing" in post.form else None
    return _hub_page(
        post.request,
        post.services,
        post.visitor,
        wanted,
        status=422,
        errors=errors,
        typed=typed,
        chosen=chosen,
    )


def _chosen(post: Post) -> tuple[str, ...] | None:
    return tuple(post.form.all("audiences")) or None


def _went(waits: str, gone: str) -> Callable[[str], str]:
    """What was done, by where it led: to watch what goes out, or to wait."""
    return lambda path: gone if path.endswith("/watch") else waits


def _revision(post: Post) -> int:
    written = post.form.get("revision")
    if not (written.isascii() and written.isdigit() and len(written) < 10):
        raise Invalid([("revision", "the form lacks what it was made from: open the page again")])
    return int(written)


def _confirmed(post: Post, incident: Incident) -> list[tuple[str, str]]:
    """What is wrong with the confirmation: a drill is confirmed by a word, what is real by a tick."""
    if incident.drill:
        if post.form.get("word").strip() != DRILL_WORD:
            return [("word", f"Type {DRILL_WORD} to send this drill to the sandbox")]
    elif post.form.get("sure") != "yes":
        return [("sure", "Tick that it may be sent to these people")]
    return []


def _incident(post: Post, wanted: str) -> Incident:
    with post.services.ledger.read() as conn:
        row = updates.get(conn, wanted)
        return find_incident(conn, row.incident_id if row is not None else "")


@router.post("/submit")
def submit(update: str, post: Writer) -> Response:
    """Render and store every message, to go out as the author chose."""
    wanted = update_id(update)
    release: ReleaseMode = "on_approval"
    match post.form.get("release"):
        case "now":
            release = "now"
            if errors := _confirmed(post, _incident(post, wanted)):
                return _again(post, wanted, errors)
        case "hold":
            release = "draft"

    def work(transaction: Transaction) -> str:
        hub = hub_of(post.services, transaction.conn, wanted)
        held = "on_approval" if release == "now" and hub.claims else release
        outcome = post.services.updates.submit(
            transaction,
            wanted,
            actor=post.visitor.actor,
            release=held,
            revision=_revision(post),
        )
        transaction.after_commit(lambda: post.services.reckoning.soon(wanted))
        return f"/updates/{wanted}/watch" if outcome.released else f"/updates/{wanted}"

    try:
        return post.once(work, done=_went("submitted", "sent"))
    except Refused as refused:
        found = [("", f"{where}: {problem.message}") for where, problem in refused.problems[:20]]
        return _again(post, wanted, found)


@router.post("/return")
def hand_back(update: str, post: Approver) -> Response:
    """Give it back to its author, with a reason."""
    wanted = update_id(update)
    reason = " ".join(post.form.get("reason").split())
    if not reason or len(reason) > MAX_REASON:
        told = f"Say in a sentence what should be changed (at most {MAX_REASON:,} characters)"
        return _again(post, wanted, [("reason", told)])

    def work(transaction: Transaction) -> str:
        post.services.releases.hand_back(
            transaction,
            wanted,
            content_hash=post.form.get("content_hash"),
            audiences=_chosen(post),
            reason=reason,
            actor=post.visitor.actor,
        )
        return f"/updates/{wanted}"

    return post.once(work, done="returned")


@router.post("/approve")
def approve(update: str, post: Approver) -> Response:
    """Approve exactly the content that was shown, each sensitive claim by its own tick."""
    wanted = update_id(update)
    incident = _incident(post, wanted)
    with post.services.ledger.read() as conn:
        claims = hub_of(post.services, conn, wanted).claims
    # Nobody ticked is nobody, not everybody.
    nobody = "choosing" in post.form and not post.form.all("audiences")
    errors = [("audiences", "Tick for whom you approve it, or return it")] if nobody else []
    errors += [
        (f"claim.{claim.kind}", f"Confirm by a tick: {claim.question}")
        for claim in claims
        if post.form.get(f"claim.{claim.kind}") != "yes"
    ]
    errors += _confirmed(post, incident)
    if errors:
        return _again(post, wanted, errors)

    def work(transaction: Transaction) -> str:
        outcome = post.services.releases.approve(
            transaction,
            wanted,
            content_hash=post.form.get("content_hash"),
            audiences=_chosen(post),
            actor=post.visitor.actor,
        )
        if claims:
            audit.record(
                transaction.conn,
                actor=post.visitor.actor.id,
                act="update.vouch",
                incident_id=incident.id,
                update_id=wanted,
                detail={"claims": [claim.kind.value for claim in claims]},
            )
        return f"/updates/{wanted}/watch" if outcome.released else f"/updates/{wanted}"

    return post.once(work, done=_went("approved", "approved-sent"))


@router.post("/release")
def release(update: str, post: Releaser) -> Response:
    """Let go what is approved or needs no approval."""
    wanted = update_id(update)
    errors = _confirmed(post, _incident(post, wanted))
    if errors:
        return _again(post, wanted, errors)
    return post.once(lambda work: _release(post, work, wanted, may_break=False), done="released")


@router.post("/break-glass")
def break_glass(update: str, post: Breaker) -> Response:
    """Let go what nobody approved: possible, loud, and on record with its reason."""
    wanted = update_id(update)
    why = " ".join(post.form.get("why").split())
    errors = []
    if post.form.get("word").strip() != BREAK_GLASS:
        errors.append(("word", f"Type {BREAK_GLASS} to send what nobody has approved"))
    if not why or len(why) > MAX_REASON:
        errors.append(("why", "Say why it cannot wait for a second person"))
    if errors:
        return _again(post, wanted, errors)

    def work(transaction: Transaction) -> str:
        incident = find_update(transaction.conn, wanted)[1]
        audit.record(
            transaction.conn,
            actor=post.visitor.actor.id,
            act="release.break_glass.reason",
            incident_id=incident.id,
            update_id=wanted,
            detail={"reason": why},
        )
        return _release(post, transaction, wanted, may_break=True)

    return post.once(work, done="forced")


def _release(post: Post, work: Transaction, wanted: str, *, may_break: bool) -> str:
    update, _ = find_update(work.conn, wanted)
    chosen = _chosen(post)
    if not may_break:
        # An admin's right to break the glass is not used by the ordinary button.
        ready = [
            row.audience
            for row in updates.releases(work.conn, update.id)
            if row.state == "approved" and (chosen is None or row.audience in chosen)
        ]
        if not ready:
            raise Conflict("not-approved", "nothing of this update is approved yet")
        chosen = tuple(ready)
    post.services.releases.release(
        work,
        wanted,
        content_hash=post.form.get("content_hash"),
        audiences=chosen,
        actor=post.visitor.actor,
    )
    return f"/updates/{wanted}/watch"


@router.post("/withdraw")
def withdraw(update: str, post: Writer) -> Response:
    """Take back what was not released."""
    wanted = update_id(update)

    def work(transaction: Transaction) -> str:
        rows = updates.releases(transaction.conn, wanted)
        waiting = [row.audience for row in rows if row.released_at is None]
        chosen = _chosen(post)
        if chosen is not None:
            waiting = [name for name in waiting if name in chosen]
        if not waiting:
            raise Conflict("released", "all of this update is released; stop or correct it")
        post.services.releases.withdraw(
            transaction, wanted, actor=post.visitor.actor, audiences=waiting
        )
        return f"/updates/{wanted}"

    return post.once(work, done="withdrawn")

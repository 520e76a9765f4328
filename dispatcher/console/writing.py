"""Writing: the forms in which an incident and what is said of it are put down as facts.

What was typed always comes back with what is wrong with it; nothing is stored twice and nothing
of somebody else's is overwritten unseen. What counts as right is the desk's to say (`Updates`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from dispatcher.acts import Conflict, Invalid, Stale, find_incident
from dispatcher.claims import Claim, unsupported
from dispatcher.console import drafting, sheets
from dispatcher.console.choices import choices
from dispatcher.console.differences import Difference, differences
from dispatcher.console.door import Desk, Post, Visitor, holding, posting
from dispatcher.console.fact_forms import TITLES, stated, touched
from dispatcher.console.forms import Read, placed
from dispatcher.console.home import called
from dispatcher.console.sheets import Sheet
from dispatcher.console.typed import FieldError, Typed, folds
from dispatcher.console.views import page
from dispatcher.incidents import Incident
from dispatcher.ledger import accounts, audit, people
from dispatcher.ledger.connection import Connection, Transaction
from dispatcher.rendering import Statement
from dispatcher.security.rights import Scope
from dispatcher.wiring import Services

router = APIRouter()

Author = Annotated[Visitor, Depends(holding(Scope.INCIDENTS_WRITE))]
Written = Annotated[Post, Depends(posting(Scope.INCIDENTS_WRITE))]

REPLACE = "plain:"
"""What a button says before the name of the text in which it puts plain characters."""


@dataclass(frozen=True, slots=True)
class Clash:
    """Somebody else stored this update meanwhile: who, when, and what differs."""

    by: str
    at: datetime
    fields: tuple[Difference, ...]


def _now() -> datetime:
    return datetime.now(UTC)


@router.get("/incidents/new")
def new_incident(
    request: Request, services: Desk, who: Author, kind: Annotated[str, Query()] = ""
) -> Response:
    """An empty form for what broke."""
    typed = sheets.blank_form(services.packs, kind=kind)
    return _form(request, services, who, Sheet(), typed)


@router.get("/incidents/{ref}/updates/new")
def new_update(
    request: Request,
    ref: str,
    services: Desk,
    who: Author,
    phase: Annotated[str, Query()] = "",
    origin: Annotated[str, Query(alias="from")] = "",
    withdraws: Annotated[list[str] | None, Query()] = None,
) -> Response:
    """The form of a further update, begun as it usually is."""
    with services.ledger.read() as conn:
        sheet = sheets.adding(conn, ref)
    zone = sheet.zone(Typed(), services.packs.organisation, reader=who.zone)
    typed = sheets.next_form(
        sheet,
        services.packs,
        zone=zone,
        now=_now(),
        phase=phase,
        origin=origin,
        withdraws=withdraws or (),
    )
    return _form(request, services, who, sheet, typed, origin=origin)


@router.get("/updates/{update}/write")
def write_update(request: Request, update: str, services: Desk, who: Author) -> Response:
    """The form of an update of which nothing is released, filled with what is stored."""
    with services.ledger.read() as conn:
        sheet = sheets.revising(conn, update)
    zone = sheet.zone(Typed(), services.packs.organisation, reader=who.zone)
    return _form(request, services, who, sheet, sheets.stored_form(sheet, zone=zone))


@router.post("/incidents/new")
def open_incident(post: Written) -> Response:
    """Store a new incident with its first update as a draft."""
    sheet = Sheet()

    def store(transaction: Transaction, found: Read) -> str:
        assert found.incident is not None and found.update is not None
        return post.services.updates.open(
            transaction,
            found.incident,
            found.update,
            release="draft",
            actor=post.visitor.actor,
            force=post.form.get("force") == "yes",
        ).update_id

    return _save(post, sheet, store)


@router.post("/incidents/{ref}/updates/new")
def add_update(ref: str, post: Written) -> Response:
    """Store a further update as a draft."""
    with post.services.ledger.read() as conn:
        sheet = sheets.adding(conn, ref)

    def store(transaction: Transaction, found: Read) -> str:
        assert sheet.incident is not None and found.update is not None
        return post.services.updates.add(
            transaction,
            sheet.incident.id,
            found.update,
            release="draft",
            actor=post.visitor.actor,
        ).update_id

    return _save(post, sheet, store)


@router.post("/updates/{update}/write")
def revise_update(update: str, post: Written) -> Response:
    """Put what is written in place of what is stored, unless somebody else did so meanwhile."""
    with post.services.ledger.read() as conn:
        sheet = sheets.revising(conn, update)
    assert sheet.row is not None
    revision = post.form.get("revision")

    def store(transaction: Transaction, found: Read) -> str:
        assert sheet.row is not None and found.update is not None
        return post.services.updates.revise(
            transaction,
            sheet.row.id,
            found.update,
            revision=int(revision) if revision.isdecimal() and len(revision) < 10 else 0,
            incident=found.incident,
            actor=post.visitor.actor,
        ).update_id

    return _save(post, sheet, store)


def _save(post: Post, sheet: Sheet, store: Callable[[Transaction, Read], str]) -> Response:
    """Store the form once and go on, or show it again with what stands against it."""
    typed = Typed(post.form.items())
    do = typed.one("do")
    again = _Again(post, sheet)
    if do.startswith(REPLACE):
        return again.show(drafting.mended(typed, do.removeprefix(REPLACE)), checked=True)
    if do == "carry":
        return again.show(_carried(typed))
    if do == "check":
        return again.show(typed, checked=True)
    found = again.read(typed)
    if found.errors:
        return again.show(typed, status=422, checked=True)
    odd = drafting.odd_texts(typed, post.services.renderer)
    if drafting.odd_digest(typed, odd) != typed.one("seen") and odd:
        return again.show(typed, status=422, unseen=True)

    def work(transaction: Transaction) -> str:
        stored = store(transaction, found)
        transaction.after_commit(lambda: post.services.reckoning.soon(stored))
        return f"/updates/{stored}/preview" if do == "preview" else f"/updates/{stored}"

    try:
        return post.once(work, done="saved")
    except Invalid as invalid:
        errors = placed(invalid.errors, found.update)
        return again.show(typed, status=422, checked=True, more=errors)
    except Conflict as conflict:
        if conflict.code != "similar-open":
            raise
        return again.show(typed, status=409, similar=conflict.detail["id"])
    except Stale:
        return again.show_clash(typed, found)


def _carried(typed: Typed) -> Typed:
    """What was written for a new incident, as an update of one that is open already."""
    kept = typed.without("do", "once", "force")
    if typed.one("started.same") and not typed.one("started.at"):
        kept = kept.having("started.at", typed.raw("started_at"))
        fold = typed.raw("started_at.fold")
        kept = kept.having("started.at.fold", fold) if fold else kept
    return kept.without("started.same")


@dataclass(frozen=True, slots=True)
class _Again:
    """The form that was sent, to be shown once more."""

    post: Post
    sheet: Sheet

    def zone(self, typed: Typed) -> ZoneInfo:
        organisation = self.post.services.packs.organisation
        return self.sheet.zone(typed, organisation, reader=self.post.visitor.zone)

    def read(self, typed: Typed) -> Read:
        return self.sheet.read(typed, zone=self.zone(typed), now=_now())

    def show(self, typed: Typed, **how: Any) -> Response:
        post = self.post
        if similar := how.pop("similar", None):
            with post.services.ledger.read() as conn:
                how["similar"] = find_incident(conn, similar)
        return _form(post.request, post.services, post.visitor, self.sheet, typed, **how)

    def show_clash(self, typed: Typed, found: Read) -> Response:
        """What is stored now beside what was written; nothing was overwritten."""
        assert self.sheet.row is not None
        with self.post.services.ledger.read() as conn:
            fresh = sheets.revising(conn, self.sheet.row.id)
            by, at = _last_hand(conn, fresh)
        zone = self.zone(typed)
        stored = sheets.stored_form(fresh, zone=zone)
        titles = _titles(self.post.services, stored, typed, fresh)
        mine = sheets.normal_form(found, fresh, zone=zone)
        clash = Clash(by, at, differences(stored, mine, titles=titles))
        return _Again(self.post, fresh).show(typed, status=409, clash=clash)


def _last_hand(conn: Connection, sheet: Sheet) -> tuple[str, datetime]:
    """Who stored the update last, and when."""
    row = sheet.row
    assert row is not None
    hands = [
        act["actor"]
        for act in audit.timeline(conn, row.incident_id)
        if act["update_id"] == row.id and act["act"] in ("update.create", "update.revise")
    ]
    last = hands[-1] if hands else row.author
    return called(people.names(conn, [last]), last), row.stated_at


def _titles(services: Services, stored: Typed, typed: Typed, sheet: Sheet) -> dict[str, str]:
    """Words for the codes that fields hold."""
    found: dict[str, str] = {}
    for form in (stored, typed):
        offered = choices(services.renderer, form, zone="UTC")
        for options in (
            offered.services,
            offered.regions,
            offered.audiences,
            offered.phases,
            offered.severities,
            offered.causes,
            offered.ways,
            offered.accounts,
            offered.next_steps,
            offered.next_updates,
            offered.emergency,
        ):
            found |= {str(option[0]): option[1] for option in options}
    return found | {fact.id: TITLES[fact.kind] for fact in sheet.takeable}


def _form(
    request: Request,
    services: Services,
    who: Visitor,
    sheet: Sheet,
    typed: Typed,
    *,
    status: int = 200,
    checked: bool = False,
    more: Sequence[FieldError] = (),
    similar: Incident | None = None,
    clash: Clash | None = None,
    origin: str = "",
    unseen: bool = False,
) -> Response:
    """The form with these values.

    `checked` is whether it is time to say what is wrong; `unseen` that it waits only for
    somebody to look at odd characters. A page that shows these says so when it comes back.
    """
    now = _now()
    zone = sheet.zone(typed, services.packs.organisation, reader=who.zone)
    found = sheet.read(typed, zone=zone, now=now)
    errors = [*(found.errors if checked else ()), *more]
    wrong = {_anchor(error.name): error for error in reversed(errors)}
    beside = outlook_values(services, sheet, found, now=now)
    odd_shown = bool(beside["odd"]) and (checked or unseen)
    drill = sheet.incident.drill if sheet.incident is not None else typed.one("kind") == "drill"
    return page(
        request,
        "write.html",
        who,
        status=status,
        drill=drill,
        sheet=sheet,
        typed=typed,
        offered=choices(services.renderer, typed, zone=zone.key),
        titles=TITLES,
        form_zone=zone.key,
        errors=[(_anchor(error.name), error.sentence) for error in errors],
        wrong={name: error.reason for name, error in wrong.items()},
        opened=_opened(services, sheet, typed, wrong),
        twice=_twice(typed, zone),
        readings=drafting.readings(typed, zone=zone, now=now),
        similar=similar,
        clash=clash,
        origin=origin,
        replace=REPLACE,
        heard=_heard(services, sheet),
        unseen=unseen,
        odd_shown=odd_shown,
        seen=drafting.odd_digest(typed, beside["odd"]) if odd_shown else typed.one("seen"),
        **beside,
    )


def _heard(services: Services, sheet: Sheet) -> dict[str, int]:
    """How many messages with each fact have left: whom a correction of it is for."""
    if sheet.incident is None or not sheet.takeable:
        return {}
    with services.ledger.read() as conn:
        return accounts.heard(conn, sheet.incident.id)


def outlook_values(
    services: Services, sheet: Sheet, found: Read, *, now: datetime
) -> dict[str, Any]:
    """What stands beside the form: oddities of texts, and what each audience lacks."""
    said = sheet.statement(found, now=now)
    lines: Sequence[drafting.AudienceOutlook] = ()
    claims: Sequence[Claim] = ()
    if said is not None and found.draft is not None:
        lines, claims = drafting.outlook(
            services.renderer, said, found.draft, own_words=found.typed.any("texts.")
        )
    return {
        "lines": lines,
        "claims": claims,
        "doubtful": _doubtful(said),
        "odd": drafting.odd_texts(found.typed, services.renderer),
        "said": said,
    }


def _doubtful(said: Statement | None) -> str:
    """Why the phase says more than the facts do; empty if it does not."""
    if said is None:
        return ""
    return unsupported(said.phase, [fact.stated for fact in said.facts.values()])


def _anchor(name: str) -> str:
    """The field that an error is about, where the form has several under its name."""
    return f"{name}.0" if name in ("workaround.codes", "emergency_calls.use") else name


def _opened(
    services: Services, sheet: Sheet, typed: Typed, wrong: Mapping[str, FieldError]
) -> frozenset[str]:
    """The kinds of facts whose fields are shown at once: those used, wrong or needed now."""
    used = {kind.value for kind in TITLES if stated(typed, kind) or touched(typed, kind)}
    bad = {name.split(".")[0] for name in wrong}
    chosen = typed.all("services") or (sheet.incident.services if sheet.incident else ())
    voice = not services.packs.organisation.voice_services.isdisjoint(chosen)
    needed = {"emergency_calls"} if voice or sheet.incident is None else set()
    if sheet.incident is None:
        needed |= {"started"}
    return frozenset(used | bad | needed)


def _twice(typed: Typed, zone: ZoneInfo) -> dict[str, tuple[str, str]]:
    """Times that happened twice, each with the names of both zones."""
    found = {}
    for name in typed.names():
        if "at" in name or name.endswith((".by", ".latest")):
            both = folds(typed.one(name), zone=zone)
            if both is not None:
                found[name] = both
    return found

"""The account of an incident: its timeline, the report to keep, and the score of a drill.

Owns which rows become which page. What is in order and how it is scored is told by `recount`
and `scoring`, which are pure; the ledger's answers come from `accounts`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from dispatcher.acts import NotFound, find_incident, incident_id
from dispatcher.console import reasons, views
from dispatcher.console.board import Board, View
from dispatcher.console.door import Desk, Known, Visitor
from dispatcher.console.watching import Shown
from dispatcher.incidents import Incident
from dispatcher.ledger import accounts, incidents, people
from dispatcher.ledger import updates as stored
from dispatcher.ledger.accounts import SentMessage, Stretch
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.shortfalls import Figures
from dispatcher.recount import Entry, Story, fact_title, fact_words, said, timeline, unsaid
from dispatcher.scoring import Headcount, curves, score, waits
from dispatcher.wiring import Services

router = APIRouter(prefix="/incidents/{ref}")

AT_ONCE = 100
"""Entries of a timeline on a page."""
MOST_UPDATES = 50
"""Updates whose people are counted for a report."""
PATIENCE = 3.0
"""Seconds for which a report waits for the count of one update's people."""
_PARTS = ("subject", "title", "text", "body")

Moment = Callable[[datetime | None], str]

REPORT_HEADERS: Mapping[str, str] = {
    # A file of its own: it may style itself, and can do nothing else.
    **views.HEADERS,
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
}


@dataclass(frozen=True, slots=True)
class Chart:
    """One row of small charts: `points` of an area, 600 wide and 40 high."""

    name: str
    total: int
    points: str
    first_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class Wording:
    """Words that several audiences may have been sent alike."""

    channel: str
    locale: str
    direction: str
    hash: str
    parts: Mapping[str, str]
    audiences: tuple[tuple[str, int], ...]


def story_of(conn: Connection, incident: Incident) -> Story:
    """Everything that an account is made from. Reads no deliveries."""
    rows = stored.of_incident(conn, incident.id)
    releases = accounts.releases(conn, incident.id)
    acts = accounts.acts(conn, incident.id)
    actors = {act.actor for act in acts} | {row.author for row in rows}
    for each in releases.values():
        for row in each:
            actors |= {by for by in (row.approved_by, row.released_by) if by}
    return Story(
        incident=incident,
        updates=rows,
        facts=incidents.standing(conn, incident.id),
        releases=releases,
        acts=acts,
        told=accounts.told(conn, incident.id),
        names=people.names(conn, sorted(actors)),
    )


def charts(
    stretches: Sequence[Stretch], *, by: str, start: datetime, end: datetime
) -> tuple[Chart, ...]:
    """Small areas of what had been told by when, each as a share of its own total."""
    found = []
    for curve in curves(stretches, by=by, start=start, end=end):
        steps = len(curve.points) - 1
        line = " ".join(
            f"{600 * place / steps:.1f},{40 - 40 * number / max(1, curve.total):.1f}"
            for place, number in enumerate(curve.points)
        )
        own = [
            each
            for each in stretches
            if (each.audience if by == "audience" else each.channel) == curve.name
        ]
        found.append(
            Chart(
                curve.name,
                curve.total,
                f"0,40 {line} 600,40",
                min(each.first_at for each in own),
                max(each.last_at for each in own),
            )
        )
    return tuple(found)


def _titles(services: Services) -> dict[str, str]:
    return {name: rule.title for name, rule in services.packs.audiences.items()}


@router.get("/timeline")
def timeline_page(
    request: Request,
    ref: str,
    services: Desk,
    who: Known,
    audience: Annotated[str, Query(max_length=48)] = "",
    start: Annotated[int, Query(ge=0, le=100_000)] = 0,
) -> Response:
    """What was known when and said when, in one order."""
    with services.ledger.read() as conn:
        incident = find_incident(conn, incident_id(ref))
        story = story_of(conn, incident)
        stretches = accounts.stretches(conn, incident.id)
    now = datetime.now(UTC)
    entries = timeline(
        story, now=now, clock=lambda at: views.both(at, who.zone), audience=audience or None
    )
    chosen = [each for each in stretches if not audience or each.audience == audience]
    meant = {name for update in story.updates for name in update.audiences}
    return views.page(
        request,
        "timeline.html",
        who,
        drill=incident.drill,
        incident=incident,
        entries=entries[start : start + AT_ONCE],
        start=start,
        total=len(entries),
        at_once=AT_ONCE,
        audience=audience,
        choices=[
            ("", "Everybody"),
            *((name, title) for name, title in _titles(services).items() if name in meant),
        ],
        titles=_titles(services),
        **_pictures(incident, chosen),
    )


def _pictures(incident: Incident, stretches: Sequence[Stretch]) -> dict[str, Any]:
    begin = min([incident.created_at, *(each.first_at for each in stretches)])
    end = max([begin, *(each.last_at for each in stretches)])
    return {
        "begin": begin,
        "end": end,
        "by_audience": charts(stretches, by="audience", start=begin, end=end),
        "by_channel": charts(stretches, by="channel", start=begin, end=end),
    }


@dataclass(frozen=True, slots=True)
class Counted:
    """One update's numbers with what is known of its people."""

    update_id: str
    view: View
    figures: Figures | None
    current: bool


def _counted(
    services: Services, board: Board, story: Story, *, patience: float
) -> tuple[Counted, ...]:
    """The updates that went out, counted as far as `patience` (seconds each) allows."""
    found = []
    for row in story.updates:
        if not any(each.released_at for each in story.releases.get(row.id, ())):
            continue
        with services.ledger.read() as conn:
            view = board.view(conn, row.id)
        known = board.tallies.known(row.id, view.counts, patience=patience)
        found.append(Counted(row.id, view, known.figures, known.current))
    return tuple(found[-MOST_UPDATES:])


def _headcounts(counted: Sequence[Counted]) -> dict[str, Headcount] | None:
    """People by audience over all updates; None while one of them is not counted."""
    found: dict[str, Headcount] = {}
    for each in counted:
        if each.figures is None:
            return None
        for row in each.figures.people:
            before = found.get(row.audience, Headcount(0, 0))
            found[row.audience] = Headcount(
                before.people + row.people,
                before.told + row.told,
                before.left_out + row.left_out,
            )
    return found


def _missing(counted: Sequence[Counted]) -> list[tuple[str, str, int]]:
    """(channel, why in words, messages) that did not arrive over all updates, most first."""
    sums: dict[tuple[str, str], int] = {}
    for each in counted:
        for row in each.figures.shortfalls if each.figures is not None else ():
            key = (reasons.channel(row.channel), reasons.told(row.state, row.reason).words)
            sums[key] = sums.get(key, 0) + row.rows
    return sorted(((*key, rows) for key, rows in sums.items()), key=lambda row: (-row[2], row))


@router.get("/score")
def score_page(request: Request, ref: str, services: Desk, board: Shown, who: Known) -> Response:
    """How a drill went: time to first word, clocks, people reached, by plain rules."""
    with services.ledger.read() as conn:
        incident = find_incident(conn, incident_id(ref))
        if not incident.drill:
            raise NotFound("only a drill has a score")
        story = story_of(conn, incident)
        stretches = accounts.stretches(conn, incident.id)
    return views.page(
        request,
        "score.html",
        who,
        drill=True,
        incident=incident,
        titles=_titles(services),
        story=story,
        **_scored(services, board, story, stretches, patience=0.1),
    )


def _scored(
    services: Services,
    board: Board,
    story: Story,
    stretches: Sequence[Stretch],
    *,
    patience: float,
) -> dict[str, Any]:
    now = datetime.now(UTC)
    counted = _counted(services, board, story, patience=patience)
    heads = _headcounts(counted)
    scores = score(story, services.packs.audiences, stretches, heads or {}, now=now)
    totals = [each.total for each in scores if each.total is not None]
    return {
        "scores": scores,
        "overall": round(sum(totals) / len(totals)) if totals else None,
        "counting": heads is None,
        "missing": _missing(counted),
        "waits": waits(story),
        "counted": counted,
        "people_by": heads or {},
    }


@router.get("/report")
def report_file(request: Request, ref: str, services: Desk, board: Shown, who: Known) -> Response:
    """The whole account as one file that needs nothing else, for print and for keeping."""
    with services.ledger.read() as conn:
        incident = find_incident(conn, incident_id(ref))
        story = story_of(conn, incident)
        stretches = accounts.stretches(conn, incident.id)
        messages = accounts.sent_messages(conn, incident.id)
    zone = incident.zone or services.packs.organisation.zone(incident.regions)
    moment = _in_full(zone)
    scored = _scored(services, board, story, stretches, patience=PATIENCE)
    name = f"{incident.reference}-{'drill-' if incident.drill else ''}report.html"
    return views.page(
        request,
        "report.html",
        _reader(who, zone),
        headers={**REPORT_HEADERS, "Content-Disposition": f'attachment; filename="{name}"'},
        drill=incident.drill,
        incident=incident,
        story=story,
        titles=_titles(services),
        moment=moment,
        brief=_in_short(zone),
        place=zone,
        by=who.person.name,
        entries=_entries(story, moment),
        channels={each.channel: reasons.channel(each.channel) for each in story.told},
        fact_title=fact_title,
        fact_words=lambda stated: fact_words(stated, moment),
        said=said(story.told),
        unsaid=unsaid(story),
        wordings=_wordings(services, messages),
        **_pictures(incident, stretches),
        **scored,
    )


def _in_full(zone: str) -> Moment:
    """A moment with its day, in the incident's zone and in UTC."""
    here = ZoneInfo(zone)

    def moment(at: datetime | None) -> str:
        if at is None:
            return "–"
        local, utc = at.astimezone(here), at.astimezone(UTC)
        shown = local.strftime("%a %-d %b %Y, %H:%M:%S %Z")
        if local.utcoffset() == utc.utcoffset():
            return shown
        form = "%H:%M:%S UTC" if local.date() == utc.date() else "%-d %b %H:%M:%S UTC"
        return f"{shown} ({utc.strftime(form)})"

    return moment


def _in_short(zone: str) -> Moment:
    """The same for tables: 22 Nov 17:15:23 CST (23:15:23 UTC)."""
    here = ZoneInfo(zone)

    def brief(at: datetime | None) -> str:
        if at is None:
            return "–"
        local, utc = at.astimezone(here), at.astimezone(UTC)
        form = "%H:%M:%S UTC" if local.date() == utc.date() else "%-d %b %H:%M:%S UTC"
        return f"{local.strftime('%-d %b %H:%M:%S %Z')} ({utc.strftime(form)})"

    return brief


def _entries(story: Story, moment: Moment) -> tuple[Entry, ...]:
    return timeline(story, now=datetime.now(UTC), clock=moment)


def _reader(who: Visitor, zone: str) -> Visitor:
    """The reader in the incident's own zone: a report reads the same to everybody."""
    return Visitor(who.person, who.actor, who.csrf, who.token, zone)


def _wordings(
    services: Services, messages: Sequence[SentMessage]
) -> dict[str, tuple[Wording, ...]]:
    """What was sent to anybody, by update; words that audiences share stand once."""
    found: dict[str, dict[str, Wording]] = {}
    for each in messages:
        if not each.told:
            continue
        own = found.setdefault(each.update_id, {})
        before = own.get(each.hash)
        audience = (each.audience, each.told)
        own[each.hash] = Wording(
            channel=each.channel,
            locale=each.locale,
            direction=services.renderer.vocabulary(each.locale).direction,
            hash=each.hash,
            parts={name: each.parts[name] for name in _PARTS if name in each.parts},
            audiences=(*(before.audiences if before is not None else ()), audience),
        )
    return {
        update: tuple(sorted(own.values(), key=lambda each: (each.channel, each.locale, each.hash)))
        for update, own in found.items()
    }

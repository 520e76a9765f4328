"""What was known when and said when, in one order; how fast; and how well, for a drill's score.

Pure: values from the ledger in, values out. Owns the order, the rules of the score and the
sentences of facts and acts in the console's own English. Knows no page, no SQL and no clock.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from dispatcher.incidents import (
    ApologyFact,
    CauseFact,
    CompensationFact,
    EmergencyCallsFact,
    EndedFact,
    EtaFact,
    Fact,
    Incident,
    NewFact,
    NextStepFact,
    NotCauseFact,
    RestoredFact,
    ScopeFact,
    StartedFact,
    WorkaroundFact,
)
from dispatcher.ledger.accounts import Act, Told
from dispatcher.ledger.updates import ReleaseRow, UpdateRow

Clock = Callable[[datetime], str]
"""A moment in words, in the zone of whoever reads."""


class Kind(StrEnum):
    """What an entry of the timeline is."""

    KNOWN = "known"
    TAKEN_BACK = "taken_back"
    DESK = "desk"
    APPROVED = "approved"
    RETURNED = "returned"
    SAID = "said"
    SAID_LAST = "said_last"
    STOPPED = "stopped"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened. No `audiences`: it concerns all of them."""

    at: datetime
    kind: Kind
    title: str
    detail: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    who: str = ""
    update_id: str | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """All that the account of an incident is made from; `updates` in the order written."""

    incident: Incident
    updates: Sequence[UpdateRow]
    facts: Sequence[Fact]
    releases: Mapping[str, Sequence[ReleaseRow]]
    acts: Sequence[Act]
    told: Sequence[Told]
    names: Mapping[str, str]

    def number(self, update_id: str | None) -> int:
        """An update's place in the incident, from 1; 0 for one that is not of it."""
        ids = [update.id for update in self.updates]
        return ids.index(update_id) + 1 if update_id in ids else 0

    def called(self, update_id: str | None) -> str:
        """How an update is spoken of: update 2 (identified)."""
        number = self.number(update_id)
        if not number:
            return "an update"
        return f"update {number} ({self.updates[number - 1].phase.replace('_', ' ')})"

    def who(self, actor: str | None) -> str:
        if not actor:
            return ""
        return self.names.get(actor) or ("the machine's owner" if actor == "owner" else "somebody")


# --- facts in words ---------------------------------------------------------------------

_SURE = {
    "confirmed": "confirmed",
    "believed": "believed",
    "under_review": "under review",
    "ruled_out": "ruled out",
}


def fact_title(stated: NewFact) -> str:
    """What a fact is about and how sure it is: Cause, believed."""
    name = {
        "eta": "Expected back",
        "not_cause": "Not the cause",
        "scope": "How many",
        "restored": "Service back",
        "workaround": "Other ways to get service",
        "compensation": "Credit",
    }.get(stated.kind.value, stated.kind.value.replace("_", " ").capitalize())
    return f"{name}, {_SURE[stated.confidence.value]}"


def fact_words(stated: NewFact, clock: Clock) -> str:
    """What a fact says, plainly, for people of the house."""
    match stated:
        case StartedFact() | EndedFact():
            return clock(stated.value.at)
        case ScopeFact():
            return f"{stated.value.count:,} ({stated.value.basis})"
        case CauseFact() | NotCauseFact():
            return _plain(stated.value.code.value)
        case WorkaroundFact():
            return _listed(code.value for code in stated.value.codes)
        case EmergencyCallsFact():
            use = _listed(code.value for code in stated.value.use)
            return _plain(stated.value.status) + (f"; use {use}" if use else "")
        case EtaFact():
            latest = f" to {clock(stated.value.latest)}" if stated.value.latest else ""
            return f"{clock(stated.value.at)}{latest}"
        case RestoredFact():
            return f"{stated.value.percent}%"
        case CompensationFact():
            return _credit(stated)
        case ApologyFact():
            return "to every customer" if stated.value.to_all else "to those affected"
        case NextStepFact():
            by = f" by {clock(stated.value.by)}" if stated.value.by else ""
            return f"{_plain(stated.value.code.value)}{by}"


def _credit(stated: CompensationFact) -> str:
    value = stated.value
    how = "automatic" if value.automatic else "on request"
    cycles = value.within_billing_cycles
    within = f", within {cycles} billing cycle{'s'[: cycles != 1]}" if cycles else ""
    others = f"; not for {_listed(each.value for each in value.not_eligible)}"
    return (
        f"{value.amount} {value.currency} per {value.per}, {how}{within};"
        f" for {_listed(each.value for each in value.eligible)}"
        f"{others if value.not_eligible else ''}"
    )


def _plain(code: str) -> str:
    return code.replace("_", " ")


def _listed(codes: Iterable[str]) -> str:
    return ", ".join(_plain(code) for code in codes)


# --- the timeline -----------------------------------------------------------------------


def timeline(
    story: Story, *, now: datetime, clock: Clock, audience: str | None = None
) -> tuple[Entry, ...]:
    """Everything in the order it happened: known, taken back, decided, said, missed.

    `audience` keeps to what concerns one audience.
    """
    entries = [
        *_facts(story, clock),
        *_acts(story),
        *_said(story),
        *_missed(story, now=now, clock=clock),
    ]
    if story.incident.resolved_at is not None and story.incident.status == "resolved":
        entries.append(Entry(story.incident.resolved_at, Kind.DESK, "Incident resolved"))
    kept = (
        entry
        for entry in entries
        if audience is None or not entry.audiences or audience in entry.audiences
    )
    return tuple(sorted(kept, key=lambda entry: entry.at))


def _facts(story: Story, clock: Clock) -> Iterable[Entry]:
    stated_at = {update.id: update.submitted_at or update.stated_at for update in story.updates}
    for fact in story.facts:
        stated = fact.stated
        yield Entry(
            stated.known_at,
            Kind.KNOWN,
            f"Known: {fact_title(stated)}",
            (
                fact_words(stated, clock),
                f"Source: {stated.source}",
                f"Stated in {story.called(fact.update_id)}",
            ),
            tuple(stated.audiences or ()),
            update_id=fact.update_id,
        )
        if fact.withdrawn_by is not None and fact.withdrawn_by in stated_at:
            yield Entry(
                stated_at[fact.withdrawn_by],
                Kind.TAKEN_BACK,
                f"Taken back: {fact_title(stated)}",
                (fact_words(stated, clock), f"By {story.called(fact.withdrawn_by)}"),
                tuple(stated.audiences or ()),
                update_id=fact.withdrawn_by,
            )


_ACTS: Mapping[str, tuple[Kind, str]] = {
    "incident.open": (Kind.DESK, "Incident opened"),
    "incident.reopen": (Kind.DESK, "Incident reopened"),
    "update.create": (Kind.DESK, "Written: {update}"),
    "update.revise": (Kind.DESK, "Changed: {update}"),
    "update.submit": (Kind.DESK, "Submitted: {update}"),
    "update.approve": (Kind.APPROVED, "Approved: {update}"),
    "update.return": (Kind.RETURNED, "Returned: {update}"),
    "update.release": (Kind.DESK, "Released: {update}"),
    "update.withdraw": (Kind.RETURNED, "Withdrawn before release: {update}"),
    "update.stop": (Kind.STOPPED, "Stopped: {update}"),
    "update.resume": (Kind.DESK, "Resumed: {update}"),
    "release.break_glass": (Kind.ALARM, "Break-glass: {update} released without approval"),
    "release.break_glass.reason": (Kind.ALARM, "Why {update} could not wait for approval"),
    "update.vouch": (Kind.APPROVED, "Vouched for in {update}"),
    "deliveries.settle": (Kind.DESK, "Doubts settled by hand: {update}"),
}


def _acts(story: Story) -> Iterable[Entry]:
    settled: dict[tuple[str, str | None, datetime], int] = {}
    for act in story.acts:
        if act.act == "deliveries.settle":
            key = (act.actor, act.update_id, act.at.replace(second=0, microsecond=0))
            settled[key] = settled.get(key, 0) + 1
            continue
        yield _act(story, act)
    for (actor, update_id, at), times in settled.items():
        title = _ACTS["deliveries.settle"][1].format(update=story.called(update_id))
        yield Entry(at, Kind.DESK, title, (f"{times:,} settled",), (), story.who(actor), update_id)


def _act(story: Story, act: Act) -> Entry:
    kind, title = _ACTS.get(act.act, (Kind.DESK, act.act.replace(".", " ").replace("_", " ")))
    detail: list[str] = []
    if act.act == "update.stop":
        detail.append(
            f"{int(act.detail.get('saved', 0)):,} messages were held back,"
            f" {int(act.detail.get('left', 0)):,} had left"
        )
    if act.detail.get("claims"):
        detail.append(f"Confirmed by a second owner: {_claims(act.detail['claims'])}")
    if act.detail.get("reason"):
        detail.append(f"Reason: {act.detail['reason']}")
    return Entry(
        act.at,
        kind,
        title.format(update=story.called(act.update_id)),
        tuple(detail),
        _audiences(act),
        story.who(act.actor),
        act.update_id,
    )


def _audiences(act: Act) -> tuple[str, ...]:
    named = act.detail.get("audiences")
    # What was written is for all its audiences; only what moves some of them names these.
    if act.act == "update.create" or not isinstance(named, list | tuple):
        return ()
    return tuple(str(name) for name in named)


def _claims(claims: object) -> str:
    return _listed(str(each) for each in claims) if isinstance(claims, list | tuple) else ""


@dataclass(frozen=True, slots=True)
class Said:
    """One update as one audience got it, over all channels."""

    update_id: str
    audience: str
    planned: int
    told: int
    first_at: datetime
    last_at: datetime
    channels: tuple[tuple[str, int], ...]


def said(rows: Iterable[Told]) -> tuple[Said, ...]:
    """What was really said, per update and audience, by the first word of each."""
    found: dict[tuple[str, str], Said] = {}
    for row in rows:
        if row.first_at is None or row.last_at is None:
            continue
        key = (row.update_id, row.audience)
        channel = ((row.channel, row.told),)
        known = found.get(key)
        if known is None:
            found[key] = Said(*key, row.planned, row.told, row.first_at, row.last_at, channel)
            continue
        found[key] = replace(
            known,
            planned=known.planned + row.planned,
            told=known.told + row.told,
            first_at=min(known.first_at, row.first_at),
            last_at=max(known.last_at, row.last_at),
            channels=(*known.channels, *channel),
        )
    return tuple(sorted(found.values(), key=lambda each: each.first_at))


@dataclass(frozen=True, slots=True)
class Unsaid:
    """An update that was released to an audience of which nobody was told."""

    update_id: str
    audience: str
    stopped: bool


def unsaid(story: Story) -> tuple[Unsaid, ...]:
    """Every release of which no message was taken, in the order written."""
    heard = {(each.update_id, each.audience) for each in said(story.told)}
    return tuple(
        Unsaid(update.id, row.audience, row.state == "stopped")
        for update in story.updates
        for row in story.releases.get(update.id, ())
        if row.released_at is not None and (update.id, row.audience) not in heard
    )


def _said(story: Story) -> Iterable[Entry]:
    for each in said(story.told):
        name = story.called(each.update_id)
        by = ", ".join(f"{told:,} by {channel}" for channel, told in each.channels)
        yield Entry(
            each.first_at,
            Kind.SAID,
            f"First told: {name}",
            (f"{each.told:,} messages in all: {by}",),
            (each.audience,),
            update_id=each.update_id,
        )
        if each.told > 1 and each.last_at > each.first_at:
            took = minutes(each.last_at - each.first_at)
            yield Entry(
                each.last_at,
                Kind.SAID_LAST,
                f"Last one told: {name}",
                (f"{each.told:,} messages accepted in {took}",),
                (each.audience,),
                update_id=each.update_id,
            )


def _missed(story: Story, *, now: datetime, clock: Clock) -> Iterable[Entry]:
    for promise in promises(story, now=now):
        if promise.kept is False:
            late = minutes(promise.late) if promise.late is not None else "not yet told"
            yield Entry(
                promise.at,
                Kind.ALARM,
                f"Promised update missed: {story.called(promise.update_id)} promised"
                f" {clock(promise.at)}",
                (f"Came {late} late" if promise.late is not None else "Still missing",),
                (promise.audience,),
                update_id=promise.update_id,
            )


def minutes(span: timedelta) -> str:
    """A span as people say it, by its two largest units: 2 h 5 min, 3 min 20 s."""
    if span < timedelta(seconds=1):
        return "under a second"
    whole = round(span.total_seconds())
    parts = [
        (whole // 86_400, "d"),
        (whole % 86_400 // 3_600, "h"),
        (whole % 3_600 // 60, "min"),
        (whole % 60, "s"),
    ]
    first = next(place for place, (number, _) in enumerate(parts) if number)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number)


# --- promises ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Promise:
    """A next update that an audience was promised. `kept` is None while its time has not come.

    `late` is how long after the promise the audience heard more; None if it has not.
    """

    update_id: str
    audience: str
    at: datetime
    kept: bool | None
    late: timedelta | None = None


def promises(story: Story, *, now: datetime) -> tuple[Promise, ...]:
    """Every promise that an audience heard, by what it heard next.

    One that a newer update replaced before its time is kept by that update.
    """
    rows = said(story.told)
    promised = {update.id: update.next_update_at for update in story.updates}
    found: list[Promise] = []
    for each in rows:
        at = promised.get(each.update_id)
        if at is None or each.first_at > at:
            continue
        later = [
            other.first_at
            for other in rows
            if other.audience == each.audience and other.first_at > each.first_at
        ]
        heard = min(later, default=None)
        if heard is not None:
            late = heard - at if heard > at else None
            found.append(Promise(each.update_id, each.audience, at, late is None, late))
        else:
            found.append(Promise(each.update_id, each.audience, at, False if now > at else None))
    return tuple(found)

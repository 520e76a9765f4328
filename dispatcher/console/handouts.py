"""What is printed for people at a counter or on the phone: the store notice, the call brief.

Only words of which a message left, and facts that were told so and stand. What was released and
stopped before anything left was told to nobody. A notice whose words carry a fact that was taken
back since is not shown. Owns which words those are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from dispatcher.acts import find_incident, incident_id
from dispatcher.console.door import Desk, Known
from dispatcher.console.views import page
from dispatcher.incidents import Confidence, Fact, FactKind, Incident, Phase, live_facts
from dispatcher.ledger import accounts, incidents, updates
from dispatcher.ledger.accounts import SentMessage
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.said import Reached, reached
from dispatcher.ledger.updates import ReleaseRow, UpdateRow
from dispatcher.rendering import Statement
from dispatcher.rendering.speech import Speech
from dispatcher.rendering.traces import untraced
from dispatcher.wiring import Services

router = APIRouter(prefix="/incidents/{ref}")

CUSTOMERS = "consumers"
COUNTER = "care-and-retail"
LONG = 350
"""Characters of a notice beyond which it is set in smaller letters."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A notice in one language: a heading, and (kind, texts) in order, of kind p, h or li."""

    locale: str
    direction: str
    heading: str
    runs: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def long(self) -> bool:
        """Whether it needs smaller letters to stand on one page."""
        return sum(len(text) for _, texts in self.runs for text in texts) > LONG


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest update that an audience was told, with its words there.

    `reached` says how far it came; `stopped_at` when it was stopped, if it still is. `newer` is
    one that was released since, and of which nothing has left.
    """

    row: UpdateRow
    number: int
    released_at: datetime
    messages: tuple[SentMessage, ...]
    taken_back: bool
    reached: Reached
    stopped_at: datetime | None
    newer: int | None


def latest(conn: Connection, incident: Incident, audience: str) -> Latest | None:
    """The newest update that an audience was told; None if it was told nothing."""
    rows = updates.of_incident(conn, incident.id)
    told = heard(conn, incident, audience)
    withdrawn = {
        fact.id for fact in incidents.standing(conn, incident.id) if fact.withdrawn_by is not None
    }
    newer: int | None = None
    for number, row in reversed(list(enumerate(rows, 1))):
        found = told.get(row.id)
        if found is None:
            continue
        release, reached_ = found
        if not _counts(release, reached_):
            newer = newer or number
            continue
        messages = tuple(
            each
            for each in accounts.sent_messages(conn, incident.id, audiences=[audience])
            if each.update_id == row.id
        )
        facts = {fact for each in messages for fact in each.facts}
        return Latest(
            row,
            number,
            release.released_at or row.stated_at,
            messages,
            bool(facts & withdrawn),
            reached_,
            release.stopped_at if release.state == "stopped" else None,
            newer,
        )
    return None


def heard(
    conn: Connection, incident: Incident, audience: str
) -> dict[str, tuple[ReleaseRow, Reached]]:
    """Each update that was released to an audience, with how far it came there."""
    went = reached(conn, incident.id, audience)
    return {
        update_id: (row, went.get(update_id, Reached(0, 0, 0)))
        for update_id, rows in accounts.releases(conn, incident.id).items()
        for row in rows
        if row.audience == audience and row.released_at is not None
    }


def _counts(release: ReleaseRow, went: Reached) -> bool:
    """Whether an audience was told by an update: something left, or there is nobody to send to.

    Where the list holds nobody for an audience, what is printed is all that tells it.
    """
    nobody = release.planned_at is not None and release.state == "released" and not went.planned
    return went.left or nobody


def sheet(message: SentMessage, direction: str, *, signed: Sequence[str]) -> Sheet:
    """A mail's words without what was filled in for each person: greetings and the like.

    Nor does the signature stand twice: lines that are little more than one of `signed`.
    """
    blocks = tuple(
        _block(" ".join(line.split()))
        for line in message.parts.get("text", "").split("\n")
        if line.strip() and "[[" not in line and not _signature(line, signed)
    )
    runs = tuple(
        (kind, tuple(text for _, text in run))
        for kind, run in groupby(blocks, key=lambda block: block[0])
    )
    return Sheet(message.locale, direction, message.parts.get("subject", ""), runs)


def _signature(line: str, signed: Sequence[str]) -> bool:
    return any(name in line and len(line.strip()) < len(name) + 16 for name in signed)


def _block(line: str) -> tuple[str, str]:
    if line.startswith("- "):
        return "li", line[2:]
    return ("h", line) if line.endswith(":") and len(line) < 60 else ("p", line)


@router.get("/notice")
def notice_page(
    request: Request,
    ref: str,
    services: Desk,
    who: Known,
    lang: Annotated[list[str] | None, Query(max_length=20)] = None,
) -> Response:
    """A notice for the shop's door, in the languages that were chosen."""
    with services.ledger.read() as conn:
        incident = find_incident(conn, incident_id(ref))
        found = latest(conn, incident, CUSTOMERS)
    mails = [each for each in found.messages if each.channel == "email"] if found else []
    locales = [each.locale for each in mails]
    chosen = [each for each in lang or () if each in locales] or locales[:1]
    default = services.packs.organisation.default_locale
    if not lang and default in locales:
        chosen = [default]
    usable = found is not None and not found.taken_back
    return page(
        request,
        "notice.html",
        who,
        drill=incident.drill,
        incident=incident,
        found=found,
        locales=locales,
        chosen=chosen,
        sheets=[
            sheet(
                each,
                services.renderer.vocabulary(each.locale).direction,
                signed=(services.packs.organisation.name, incident.reference),
            )
            for each in mails
            if each.locale in chosen and usable
        ],
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer when a customer asks."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Brief:
    """What somebody on the phone knows, does not know, may say and must not say."""

    known: tuple[str, ...]
    believed: tuple[str, ...]
    unknown: tuple[str, ...]
    may_say: tuple[str, ...]
    must_not: tuple[str, ...]
    emergency: str
    number: str
    answers: tuple[Answer, ...]


def brief(services: Services, incident: Incident, found: Latest, facts: Sequence[Fact]) -> Brief:
    """The brief from facts that the counter was told and that stand.

    What is confirmed stands apart from what is only believed, which keeps its own caution.
    """
    live = live_facts(facts)
    confirmed = {
        kind: fact for kind, fact in live.items() if fact.stated.confidence is Confidence.CONFIRMED
    }
    sure, say = (_speech(services, incident, found, each) for each in (confirmed, live))
    organisation = services.packs.organisation
    over = found.row.phase in (Phase.RESOLVED, Phase.FOLLOW_UP)
    unknown = () if over else say.unknown
    unsure = [
        fact
        for kind, fact in live.items()
        if kind is not FactKind.CAUSE
        and fact.stated.confidence in (Confidence.BELIEVED, Confidence.UNDER_REVIEW)
    ]
    known = tuple(untraced(each) for each in sure.known)
    return Brief(
        known=known,
        believed=tuple(each for each in map(untraced, say.known) if each not in known),
        unknown=unknown,
        may_say=_may_say(say, over=over),
        must_not=(
            *(f"Do not guess {each}: we do not know it yet." for each in unknown),
            *(_unsure(fact) for fact in unsure),
            "Do not blame customers, their devices, colleagues or suppliers.",
            "Do not promise a credit beyond what this brief says.",
            f"Send journalists to {organisation.support.media_email or 'the press office'}.",
        ),
        emergency=untraced(say.emergency),
        number=say.emergency_number,
        answers=_answers(say, live, over=over),
    )


def _speech(
    services: Services, incident: Incident, found: Latest, facts: Mapping[FactKind, Fact]
) -> Speech:
    statement = Statement(
        incident=incident,
        update_id=found.row.id,
        phase=Phase(found.row.phase),
        facts=facts,
        stated_at=found.row.stated_at,
        next_update_at=found.row.next_update_at,
    )
    organisation = services.packs.organisation
    words = services.renderer.vocabulary(organisation.default_locale)
    return Speech(words, organisation, statement, audience=COUNTER)


def _may_say(say: Speech, *, over: bool) -> tuple[str, ...]:
    first = (
        f"The problem with {say.services} {say.where} is solved."
        if over
        else f"We have had a problem with {say.services} {say.where} {say.since}."
        " It is our network, not your device or your account."
    )
    found = (first, *say.workarounds, say.credit, say.apology, say.next_update)
    return tuple(untraced(each) for each in found if each)


_SUBJECTS: Mapping[FactKind, str] = {
    FactKind.SCOPE: "how many are affected",
    FactKind.ETA: "when service will be back",
    FactKind.RESTORED: "how much is back",
    FactKind.COMPENSATION: "a credit",
    FactKind.NOT_CAUSE: "what it was not",
}


def _unsure(fact: Fact) -> str:
    subject = _SUBJECTS.get(fact.kind, f"the {fact.kind.replace('_', ' ')}")
    how = fact.stated.confidence.value.replace("_", " ")
    return f"Do not state {subject} as certain: it is only {how}."


def _answers(say: Speech, live: Mapping[FactKind, Fact], *, over: bool) -> tuple[Answer, ...]:
    """Questions that people ask, each answered by a released fact or by saying so."""
    not_yet = "We do not know yet. " + (say.next_update or "We will say so as soon as we do.")
    found = [
        ("What is wrong?", _may_say(say, over=over)[0]),
        ("When will it be back?", say.ended if over else say.eta or say.restored or not_yet),
        ("Can I call the emergency number?", say.emergency),
        ("What can I do now?", "" if over else " ".join(say.workarounds)),
        ("What caused it?", say.cause or not_yet),
        (
            "Was it an attack?",
            f"{say.malicious[:1].upper()}{say.malicious[1:]}."
            if {FactKind.CAUSE, FactKind.NOT_CAUSE} & set(live)
            else not_yet,
        ),
        ("How many are affected?", say.scope or not_yet),
        ("Do I get money back?", say.credit or "Nothing is decided that we can tell you yet."),
        ("When will I hear more?", say.next_update),
    ]
    return tuple(Answer(question, untraced(answer).strip()) for question, answer in found if answer)


@router.get("/brief")
def brief_page(request: Request, ref: str, services: Desk, who: Known) -> Response:
    """The brief for whoever answers the phone or stands at the counter."""
    with services.ledger.read() as conn:
        incident = find_incident(conn, incident_id(ref))
        found = latest(conn, incident, COUNTER)
        facts = _told(conn, incident, COUNTER) if found is not None else []
    words = [each for each in found.messages if each.channel == "email"] if found else []
    return page(
        request,
        "brief.html",
        who,
        drill=incident.drill,
        incident=incident,
        found=found,
        brief=brief(services, incident, found, facts) if found is not None else None,
        words_sent=words[0] if words and found is not None and not found.taken_back else None,
        support=services.packs.organisation.support,
        made=datetime.now(UTC),
    )


def _told(conn: Connection, incident: Incident, audience: str) -> list[Fact]:
    """The facts of updates that an audience was told, in the order stated."""
    out = {
        update_id for update_id, found in heard(conn, incident, audience).items() if _counts(*found)
    }
    return [
        fact
        for fact in incidents.standing(conn, incident.id)
        if fact.update_id in out
        and (fact.stated.audiences is None or audience in fact.stated.audiences)
    ]

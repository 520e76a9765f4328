"""An update's messages as they stand: those stored of what was submitted, a draft's as they would be.

Owns what a preview is made from, and what of it is worth a look first. Knows no page.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from channels.contract import Problem, Severity
from dispatcher.acts import NotFound, find_incident
from dispatcher.console.comparing import Pieces, changes
from dispatcher.console.showing import Shown, language, show
from dispatcher.figures import AudienceFigures, Figures
from dispatcher.incidents import Incident
from dispatcher.ledger import incidents, updates
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.said import Said
from dispatcher.ledger.updates import UpdateRow, message_from
from dispatcher.rendering import Rendering
from dispatcher.rendering.parity import Mismatch, compare
from dispatcher.wiring import Services

CHANNELS: Mapping[str, str] = {
    "sms": "SMS",
    "email": "e-mail",
    "push": "push",
    "social": "post",
}
"""What a channel is called within a sentence."""

KINDS: Mapping[str, str] = {
    "phone": "by telephone or SMS",
    "email": "by e-mail",
    "fcm_token": "in the app",
    "inbox": "in the app’s inbox",
    "x_account": "on X",
}
"""How people with a contact point of a kind could be reached."""

MOST_PLACES = 4


@dataclass(frozen=True, slots=True)
class Material:
    """An update with all its messages. `stored` is whether they are the very ones to be sent."""

    update: UpdateRow
    incident: Incident
    renderings: tuple[Rendering, ...]
    stored: bool

    def of(self, audience: str) -> tuple[Rendering, ...]:
        return tuple(each for each in self.renderings if each.audience == audience)

    def one(self, audience: str, channel: str, locale: str) -> Rendering:
        """Raises `NotFound`."""
        for each in self.renderings:
            message = each.message
            if (each.audience, message.channel, message.locale) == (audience, channel, locale):
                return each
        raise NotFound("no such message")


def material(
    services: Services, conn: Connection, update_id: str, *, only: str | None = None
) -> Material:
    """What an update says now, to one audience alone if asked. Raises `NotFound`."""
    update = updates.get(conn, update_id)
    if update is None:
        raise NotFound("no such update")
    incident = find_incident(conn, update.incident_id)
    if update.submitted_at is not None:
        stored = tuple(
            Rendering(
                audience=row["audience"],
                message=message_from(
                    row, thread=incident.id, sender="", expires_at=update.expires_at
                ),
                units=row["units"],
                problems=tuple(
                    Problem(Severity(each["severity"]), each["code"], each["part"], each["message"])
                    for each in row["problems"]
                ),
                facts=tuple(row["facts"]),
            )
            for row in updates.messages(conn, update.id)
            if row["audience"] in services.packs.audiences and only in (None, row["audience"])
        )
        return Material(update, incident, _in_order(services, stored), stored=True)
    known = [
        name
        for name in update.audiences
        if name in services.packs.audiences and only in (None, name)
    ]
    statement = services.updates.statement(conn, incident, update)
    rendered = tuple(services.renderer.render_all(statement, known))
    return Material(update, incident, _in_order(services, rendered), stored=False)


def _in_order(services: Services, found: Iterable[Rendering]) -> tuple[Rendering, ...]:
    """By audience, then as the audience's own rule names its channels and languages."""
    packs = services.packs.audiences
    places = {name: place for place, name in enumerate(packs)}

    def key(each: Rendering) -> tuple[int, int, int]:
        rules = packs[each.audience]
        channels = [step.channel for step in rules.channels]
        message = each.message
        return (
            places[each.audience],
            channels.index(message.channel) if message.channel in channels else 99,
            rules.locales.index(message.locale) if message.locale in rules.locales else 99,
        )

    return tuple(sorted(found, key=key))


@dataclass(frozen=True, slots=True)
class Trouble:
    """A problem, and every message that has it, in words."""

    severity: str
    message: str
    where: str


def troubles(services: Services, renderings: Iterable[Rendering]) -> tuple[Trouble, ...]:
    """Each problem once, errors first, with where it stands."""
    found: dict[tuple[str, str], dict[str, dict[str, list[str]]]] = {}
    for each in renderings:
        title = services.packs.audiences[each.audience].title
        message = each.message
        for problem in each.problems:
            places = found.setdefault((problem.severity.value, problem.message), {})
            said = places.setdefault(title, {}).setdefault(message.channel, [])
            if language(message.locale) not in said:
                said.append(language(message.locale))
    return tuple(
        Trouble(severity, message, _where(places))
        for (severity, message), places in sorted(
            found.items(), key=lambda item: item[0][0] != Severity.ERROR
        )
    )


def _where(places: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    told = [
        f"{title}: {CHANNELS.get(channel, channel)} in {', '.join(languages)}"
        for title, channels in places.items()
        for channel, languages in channels.items()
    ]
    more = len(told) - MOST_PLACES
    return "; ".join(told[:MOST_PLACES]) + (f"; and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True)
class Unlike:
    """Two texts that should say the same and do not, in words, with an excerpt of each."""

    message: str
    one: str
    said: str
    other: str
    says: str


def unlike(services: Services, conn: Connection, found: Material) -> tuple[Unlike, ...]:
    """Where audiences or languages are not told the same."""
    facts = incidents.standing(conn, found.incident.id, update_id=found.update.id)
    return tuple(
        Unlike(
            each.message,
            _place(services, each, each.against_locale, each.against_audience or each.audience),
            each.said,
            _place(services, each, each.locale, each.audience),
            each.other,
        )
        for each in compare(
            found.renderings,
            words=services.renderer.words,
            organisation=services.packs.organisation,
            texts=found.update.texts,
            facts=facts,
        )
    )


def _place(services: Services, mismatch: Mismatch, locale: str, audience: str) -> str:
    """Consumers, SMS in Spanish; own words (message) in Spanish."""
    if mismatch.slot:
        return f"Own words ({mismatch.slot}) in {language(locale)}"
    if not audience:
        return f"The words of the templates in {language(locale)}"
    title = services.packs.audiences[audience].title
    return f"{title}, {CHANNELS.get(mismatch.channel, mismatch.channel)} in {language(locale)}"


@dataclass(frozen=True, slots=True)
class Line:
    """One audience in the overview."""

    audience: str
    title: str
    errors: int
    warnings: int
    figures: AudienceFigures | None

    @property
    def weight(self) -> tuple[bool, bool, bool, int]:
        """Sorts the worst first: errors, too late, warnings, then the most people missed."""
        late = self.figures is not None and self.figures.in_time is False
        missed = self.figures.not_reachable if self.figures is not None else 0
        return (not self.errors, not late, not self.warnings, -missed)


def overview(services: Services, found: Material, figures: Figures | None) -> tuple[Line, ...]:
    """Every audience with what is wrong with it, the worst first."""
    lines = []
    for name in dict.fromkeys(each.audience for each in found.renderings):
        severities = [problem.severity for each in found.of(name) for problem in each.problems]
        lines.append(
            Line(
                audience=name,
                title=services.packs.audiences[name].title,
                errors=severities.count(Severity.ERROR),
                warnings=severities.count(Severity.WARNING),
                figures=figures.of(name) if figures is not None else None,
            )
        )
    return tuple(sorted(lines, key=lambda line: line.weight))


@dataclass(frozen=True, slots=True)
class Worst:
    """What of an update needs a look first: problems, each once, and who would have it too late.

    `first` is the worst problem, in words; `unlike` are texts that do not say the same.
    """

    errors: int
    warnings: int
    unlike: int
    late: tuple[str, ...]
    first: str

    @property
    def none(self) -> bool:
        return not (self.errors or self.warnings or self.unlike or self.late)


def worst(problems: Sequence[Trouble], lines: Iterable[Line], *, unlike: int) -> Worst:
    """The problems of `troubles` and the lines of `overview` in a few words."""
    severities = [each.severity for each in problems]
    return Worst(
        errors=severities.count(Severity.ERROR),
        warnings=severities.count(Severity.WARNING),
        unlike=unlike,
        late=tuple(
            line.title
            for line in lines
            if line.figures is not None and line.figures.in_time is False
        ),
        first=problems[0].message if problems else "",
    )


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands under a message: its reach, and part by part what was said last."""

    recipients: int | None = None
    cost: float = 0.0
    seconds: float = 0.0
    changed: Mapping[str, Pieces] = field(default_factory=dict)
    before: bool = False
    unchanged: bool = False


def chosen(
    services: Services, found: Material, audience: str, *, channel: str = "", locale: str = ""
) -> tuple[Shown, ...]:
    """One audience's messages as its receivers see them, of one channel or locale if asked."""
    return show(
        services.renderer,
        (
            each
            for each in found.of(audience)
            if channel in ("", each.message.channel) and locale in ("", each.message.locale)
        ),
    )


def besides(
    messages: Iterable[Shown], figures: Figures | None, last: Sequence[Said]
) -> dict[str, Beside]:
    """Per message's key what stands under it."""
    before = {(said.channel, said.locale): said.parts for said in last}
    counted = {
        (each.audience, each.channel, each.locale): each
        for each in (figures.messages if figures is not None else ())
    }
    found: dict[str, Beside] = {}
    for message in messages:
        reach = counted.get((message.audience, message.channel, message.locale))
        old = before.get((message.channel, message.locale))
        compared = {
            part.name: changes(old.get(part.name, ""), part.text)
            for part in message.parts
            if old is not None and part.name != "html"
        }
        found[message.key] = Beside(
            recipients=reach.recipients if reach is not None else None,
            cost=reach.cost if reach is not None else 0.0,
            seconds=reach.seconds if reach is not None else 0.0,
            changed={
                name: pieces
                for name, pieces in compared.items()
                if any(kind != "same" for kind, _ in pieces)
            },
            before=old is not None,
            unchanged=old is not None
            and all(kind == "same" for pieces in compared.values() for kind, _ in pieces),
        )
    return found

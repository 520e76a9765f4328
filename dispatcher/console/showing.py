"""A rendered message as its receiver will see it: values that a page only has to lay out.

Pure: no I/O, no clock, no SQL and no HTML. The text of a part is never changed here, only
cut into pieces; joined again they are the part, character for character.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from babel import Locale, UnknownLocaleError

from channels.contract import Channel, Charset, Envelope, Message, Problem, Severity, Slot
from channels.text import (
    X_LIMIT,
    SlotError,
    fill,
    worst_case,
    x_links,
    x_weight,
)
from dispatcher.audiences import Audience, Organisation
from dispatcher.console.segments import Piece, Sms, sms
from dispatcher.rendering import Renderer, Rendering

_MARKER = re.compile(r"\[\[([A-Za-z0-9_.:-]{1,64})\]\]")

PUSH_TITLE = 40
"""Characters of a title that an iPhone shows.
https://www.alibabacloud.com/help/en/mobile-platform-as-a-service/latest/message-conent-restrictions"""
PUSH_BODY = 160
PUSH_GLANCE = 49
"""Characters of a body on the lock screen of an iPhone, and of an Android phone.
https://www.braze.com/docs/help/best_practices/image_and_text_specifications/"""

EXAMPLE_VALUES: Mapping[str, str] = {"name": "Amina O’Connor"}
"""What a preview puts into a slot to show how it reads; no person of the directory."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a message: its pieces joined are its text."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Filled:
    """A slot, an example of its value, and the longest that it takes."""

    name: str
    example: str
    max_chars: int


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail's envelope. `has_dark` is whether it brings colours of its own for a dark screen."""

    subject_example: str
    subject_longest: int
    has_html: bool
    has_dark: bool
    slots: tuple[Filled, ...]


@dataclass(frozen=True, slots=True)
class Post:
    """A post against X's limit. A link weighs 23 whatever its length."""

    weight: int
    limit: int
    links: tuple[str, ...]
    account: str
    name: str


@dataclass(frozen=True, slots=True)
class Push:
    """How many characters of title and body no lock screen shows, and the app that says it."""

    app: str
    title_cut: int
    body_cut: int


@dataclass(frozen=True, slots=True)
class Shown:
    """One message as its receivers see it. One of `sms mail post push` is there, by channel."""

    audience: str
    title: str
    channel: str
    locale: str
    language: str
    direction: str
    sender: str
    other_senders: tuple[str, ...]
    parts: tuple[Part, ...]
    problems: tuple[Problem, ...]
    units: int
    sms: Sms | None = None
    mail: Mail | None = None
    post: Post | None = None
    push: Push | None = None

    @property
    def key(self) -> str:
        """Names this message within its update, and can be an element's id."""
        return f"{self.audience}-{self.channel}-{self.locale}"

    def part(self, name: str) -> Part:
        """Raises `KeyError` for a part that the message does not have."""
        for part in self.parts:
            if part.name == name:
                return part
        raise KeyError(name)

    def has(self, name: str) -> bool:
        return any(part.name == name for part in self.parts)


def show(renderer: Renderer, renderings: Iterable[Rendering]) -> tuple[Shown, ...]:
    """Each rendering as its receivers see it, with the packs' own titles and directions."""
    packs = renderer.packs
    return tuple(
        shown(
            rendering,
            audience=packs.audiences[rendering.audience],
            organisation=packs.organisation,
            direction=renderer.vocabulary(rendering.message.locale).direction,
        )
        for rendering in renderings
    )


def shown(
    rendering: Rendering, *, audience: Audience, organisation: Organisation, direction: str
) -> Shown:
    """One rendering as its receivers see it. `direction` is `ltr` or `rtl`."""
    message = rendering.message
    sender = organisation.sender(message.channel, organisation.default_country)
    known = [each.value for each in organisation.senders.get(message.channel, {}).values()]
    own = sender.value if sender else ""
    channel = message.channel
    text = message.parts.get("text", "")
    return Shown(
        audience=rendering.audience,
        title=audience.title,
        channel=channel,
        locale=message.locale,
        language=language(message.locale),
        direction=direction,
        sender=own,
        other_senders=tuple(each for each in dict.fromkeys(known) if each != own),
        parts=tuple(_part(message, name) for name in message.parts),
        problems=worst_first(rendering.problems),
        units=rendering.units,
        sms=sms(text) if channel == Channel.SMS else None,
        mail=_mail(message) if channel == Channel.EMAIL else None,
        post=_post(text, own, organisation) if channel == Channel.SOCIAL else None,
        push=_push(message, organisation) if channel == Channel.PUSH else None,
    )


def worst_first(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Errors before warnings, otherwise as they came."""
    return tuple(sorted(problems, key=lambda problem: problem.severity is not Severity.ERROR))


@cache
def language(locale: str) -> str:
    """A locale's name in English: `Arabic`, `Arabic (Egypt)`; itself if nobody knows it."""
    try:
        return Locale.parse(locale, sep="-").get_display_name("en") or locale
    except (UnknownLocaleError, ValueError):
        return locale


def _part(message: Message, name: str) -> Part:
    text = message.parts[name]
    if message.channel == Channel.SMS and name == "text":
        segments = sms(text).segments
        return Part(name, tuple(piece for segment in segments for piece in segment.pieces))
    if message.channel == Channel.PUSH:
        return Part(name, tuple(_cut(text, name)))
    return Part(name, tuple(_with_slots(text, message.slots)))


def _with_slots(text: str, slots: Mapping[str, Slot]) -> Iterator[Piece]:
    """The text with every declared slot as a piece of its own."""
    done = 0
    for found in _MARKER.finditer(text) if slots else ():
        slot = slots.get(found[1])
        if slot is None:
            continue
        if found.start() > done:
            yield Piece(text[done : found.start()])
        note = f"the receiver’s own {found[1]}, at most {slot.max_chars} characters"
        yield Piece(found[0], "slot", note)
        done = found.end()
    if done < len(text):
        yield Piece(text[done:])


def _cut(text: str, part: str) -> Iterator[Piece]:
    """A notification's text as far as lock screens show it."""
    seen, glance = (PUSH_TITLE, PUSH_TITLE) if part == "title" else (PUSH_BODY, PUSH_GLANCE)
    first, second = min(glance, len(text)), min(seen, len(text))
    if text[:first]:
        yield Piece(text[:first])
    if text[first:second]:
        yield Piece(text[first:second], "later", "not on an Android phone’s lock screen")
    if text[second:]:
        yield Piece(text[second:], "cut", "cut off on the lock screen until it is opened")


def example(message: Message) -> dict[str, str]:
    """The parts with an example in each slot, as one receiver would get them."""
    values = {name: _example_value(name, slot) for name, slot in message.slots.items()}
    try:
        return fill(message, Envelope(key="example", address="", slots=values))
    except SlotError:
        return dict(message.parts)


def _example_value(name: str, slot: Slot) -> str:
    if slot.charset == Charset.URL:
        return "https://x.example/7f3a"[: slot.max_chars]
    value = EXAMPLE_VALUES.get(name, "example")
    if slot.charset == Charset.GSM7:
        value = value.replace("’", "'")
    return value[: slot.max_chars]


def _mail(message: Message) -> Mail:
    filled = example(message)
    html = message.parts.get("html", "")
    return Mail(
        subject_example=filled.get("subject", ""),
        subject_longest=len(worst_case(message).get("subject", "")),
        has_html=bool(html),
        has_dark=_DARK.search(html) is not None,
        slots=tuple(
            Filled(name, _example_value(name, slot), slot.max_chars)
            for name, slot in message.slots.items()
        ),
    )


_DARK = re.compile(r"\(\s*prefers-color-scheme\s*:\s*dark\s*\)")
_LIGHT = re.compile(r"\(\s*prefers-color-scheme\s*:\s*light\s*\)")
_ALWAYS, _NEVER = "(min-width: 0px)", "(max-width: 0px)"


def in_scheme(html: str, scheme: str) -> str:
    """A mail as a reader in `light` or `dark` sees it, whatever the browser that shows it.

    Only the mail's own question for the scheme is answered, nothing is recoloured: one that
    does not ask looks the same in both.
    """
    yes, no = (_DARK, _LIGHT) if scheme == "dark" else (_LIGHT, _DARK)
    return no.sub(_NEVER, yes.sub(_ALWAYS, html))


def _post(text: str, sender: str, organisation: Organisation) -> Post:
    names = {each.address: each.name for each in organisation.public_accounts}
    return Post(
        weight=x_weight(text),
        limit=X_LIMIT,
        links=x_links(text),
        account=sender,
        name=names.get(sender, organisation.name),
    )


def _push(message: Message, organisation: Organisation) -> Push:
    return Push(
        app=organisation.short_name,
        title_cut=max(0, len(message.parts.get("title", "")) - PUSH_TITLE),
        body_cut=max(0, len(message.parts.get("body", "")) - PUSH_BODY),
    )

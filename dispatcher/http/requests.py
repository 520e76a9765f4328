"""Bodies of the JSON calls. What a fact, an update and an incident are is `incidents`' to say."""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
)

from channels.contract import ContactKind
from dispatcher.incidents import AudienceName, NewIncident, NewUpdate
from dispatcher.updates import ReleaseMode


class Body(BaseModel):
    """A body that refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _first_control(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, str):
        if any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in value):
            yield path
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _first_control(inner, (*path, str(name)))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _first_control(inner, (*path, str(place)))


def no_controls(body: Any) -> Any:
    """Refuse control characters in any text of a body, also where the models allow any text."""
    for path in _first_control(body):
        raise ValueError(f"{'.'.join(path)}: must not hold control characters")
    return body


Release = Annotated[
    ReleaseMode,
    Field(
        description="`now` releases every audience whose rule needs no approval and the rest as"
        " soon as another key approves; `on_approval` releases all only then; `draft` stores it."
    ),
]


class OpenIncident(NewIncident):
    """A new incident with the first thing to say about it."""

    update: NewUpdate
    release: Release = "on_approval"
    force: Annotated[
        bool, Field(description="Open it although one with the same services and region is open.")
    ] = False

    def incident(self) -> NewIncident:
        """The incident alone."""
        return NewIncident(**{name: getattr(self, name) for name in NewIncident.model_fields})


class AddUpdate(Body):
    """Another thing to say about an incident."""

    update: NewUpdate
    release: Release = "on_approval"


class PreviewUpdate(AddUpdate):
    """An update of an incident that is open already, to be previewed."""

    incident_id: Annotated[
        str, Field(max_length=64, description="The incident's id or reference (`INC-0042`).")
    ]


def _which(body: Any) -> str:
    return "addition" if isinstance(body, dict) and "incident_id" in body else "opening"


Opening = Annotated[OpenIncident, BeforeValidator(no_controls)]
Addition = Annotated[AddUpdate, BeforeValidator(no_controls)]
PreviewBody = Annotated[
    Annotated[OpenIncident, Tag("opening")] | Annotated[PreviewUpdate, Tag("addition")],
    Discriminator(_which),
    BeforeValidator(no_controls),
]

ChosenAudiences = Annotated[
    tuple[AudienceName, ...] | None,
    Field(min_length=1, max_length=64, description="Only these; left out: all of the update's."),
]


class Named(Body):
    """Which content is meant: approval and release hold for exactly that."""

    content_hash: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    audiences: ChosenAudiences = None


class Chosen(Body):
    """Which audiences are meant."""

    audiences: ChosenAudiences = None


class Nothing(Body):
    """A call without a body may also send an empty object."""


_Line = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=400), AfterValidator(no_controls)
]
_Values = Annotated[tuple[Annotated[str, Field(max_length=4_096)], ...], Field(max_length=32)]


class PatchRecipient(Body):
    """What to change of a recipient: a field left out stays, an empty list empties it."""

    name: _Line | None = Field(default=None, repr=False)
    locale: _Line | None = None
    segment: _Line | None = None
    region: _Line | None = None
    services: _Values | None = None
    tags: _Values | None = None
    phone: _Values | None = Field(default=None, repr=False)
    email: _Values | None = Field(default=None, repr=False)
    fcm_token: _Values | None = Field(default=None, repr=False)
    inbox: _Values | None = Field(default=None, repr=False)


class Address(Body):
    """An address of one kind."""

    kind: ContactKind
    address: Annotated[str, Field(min_length=1, max_length=4_096, repr=False)]


class Suppress(Address):
    """An address never to be sent to again."""

    reason: Annotated[
        str,
        StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$"),
        Field(description="Why, as a code of your own: `opted_out`, `complaint` …"),
    ] = "opted_out"


class InboxTokenFor(Body):
    """Whose inbox a token is to open, and for how long."""

    recipient: Annotated[str, Field(min_length=1, max_length=128, description="Recipient's id.")]
    seconds: Annotated[int, Field(ge=1, le=3_600)] = 3_600

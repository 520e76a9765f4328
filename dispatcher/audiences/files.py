"""Reads `audience.toml` and `organisation.toml`, and says with file and line what is wrong.

Owns the form of those files. Does not look into templates or vocabularies.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import time, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from channels.contract import Channel
from dispatcher.audiences.values import (
    PRIVATE_USE,
    SLOWEST,
    Audience,
    ChannelStep,
    Lane,
    Organisation,
    PackError,
    PackProblem,
    Packs,
    PublicAccount,
    QuietHours,
    Reach,
    Scope,
    Sender,
    SenderKind,
    Support,
)
from dispatcher.incidents import Code, FactKind, LocaleTag, Phase, Severity

ORGANISATION_FILE = "organisation.toml"
AUDIENCE_FILE = "audience.toml"
NOT_AUDIENCES = frozenset({"default"})

_NAME = re.compile(r"[a-z][a-z0-9-]{0,47}")
_SPAN = re.compile(r"(\d{1,5})(s|m|h|d)")
_SPAN_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _span(value: object) -> object:
    if isinstance(value, str):
        match = _SPAN.fullmatch(value)
        if match is None:
            raise ValueError("must be a span of time such as 90s, 20m, 2h or 1d")
        return timedelta(**{_SPAN_UNITS[match[2]]: int(match[1])})
    raise ValueError("must be a span of time such as 90s, 20m, 2h or 1d")


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(value: object) -> object:
    if value not in _zones():
        raise ValueError("is no time zone of the tz database")
    return value


def _readable(text: str) -> str:
    if PRIVATE_USE.search(text):
        raise ValueError("holds a character of private use")
    return text


Span = Annotated[timedelta, BeforeValidator(_span)]
ZoneName = Annotated[str, BeforeValidator(_zone)]
Words = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_readable)]
Contact = Annotated[str, Field(max_length=200), AfterValidator(_readable)]
Rate = Annotated[float, Field(gt=0, le=1_000_000)]
Country = Annotated[str, Field(pattern=r"^([A-Z]{2}|default)$")]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Step(_File):
    channel: Channel
    wait: Span | None = None


class _Match(_File):
    segments: tuple[Code, ...] = ()
    tags: tuple[Code, ...] = ()
    also_tags: tuple[Code, ...] = ()


class _Quiet(_File):
    start: time
    end: time
    overridden_by: frozenset[Severity] = frozenset()


class _AudienceFile(_File):
    title: Words
    match: _Match
    rank: Annotated[int, Field(ge=1, le=1_000)]
    scope: Scope
    lane: Lane
    channels: Annotated[tuple[_Step, ...], Field(min_length=1)]
    reach: Reach
    locales: Annotated[tuple[LocaleTag, ...], Field(min_length=1)]
    preapproved: frozenset[Phase] = frozenset()
    required: dict[Phase, frozenset[FactKind]] = {}
    start_by: Span | None = None
    cadence: Span | None = None
    reach_by: Span | None = None
    quiet_hours: _Quiet | None = None
    resend_unknown: bool = False


class _Sender(_File):
    value: Words
    kind: SenderKind
    rate: Rate | None = None
    sandbox_rate: Rate | None = None
    price: Annotated[float, Field(ge=0, le=1_000, allow_inf_nan=False)] = 0.0


class _Account(_File):
    kind: Words
    address: Words
    name: Words
    locale: LocaleTag
    region: Words


class _Support(_File):
    phone: Contact = ""
    business_phone: Contact = ""
    operations_phone: Contact = ""
    operations_email: Contact = ""
    media_email: Contact = ""
    investor_email: Contact = ""
    partner_email: Contact = ""


class _OrganisationFile(_File):
    name: Words
    short_name: Words
    site: Words
    sms_prefix: Annotated[str, Field(min_length=1, max_length=20), AfterValidator(_readable)]
    default_zone: ZoneName
    default_locale: LocaleTag
    default_country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    support: _Support
    emergency: dict[str, Annotated[str, Field(pattern=r"^\d{2,6}$")]]
    senders: dict[Channel, dict[Country, _Sender]]
    public_accounts: tuple[_Account, ...] = ()
    zones: dict[str, ZoneName] = {}
    services: Annotated[tuple[Code, ...], Field(min_length=1)]
    voice_services: frozenset[Code] = frozenset()
    region_names: dict[str, Words] = {}
    glossary: dict[LocaleTag, tuple[Words, ...]] = {}
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "USD"


_Model = TypeVar("_Model", bound=_File)


def load(root: Path, *, overlay: Path | None = None) -> Packs:
    """Read the organisation and every audience. Raises `PackError` with all that is wrong."""
    problems: list[PackProblem] = []
    organisation = _read_organisation(root, overlay=overlay, problems=problems)
    folders: dict[str, Path] = {}
    for base in (root, overlay):
        if base is not None and base.is_dir():
            folders |= {path.name: path for path in _audience_folders(base)}
    audiences = [
        audience
        for name, folder in sorted(folders.items())
        if (audience := _read_audience(name, folder, problems=problems)) is not None
    ]
    if not folders:
        problems.append(PackProblem(root, 1, "holds no audience folder"))
    problems += _disagreements(audiences, folders)
    if problems or organisation is None:
        raise PackError(problems)
    audiences.sort(key=lambda audience: (audience.rank, audience.name))
    return Packs(root, organisation, {a.name: a for a in audiences}, overlay)


def read_toml(file: Path, problems: list[PackProblem]) -> tuple[dict[str, Any], str] | None:
    """A TOML file's tables and text; None, with a problem added, if it cannot be read."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else "cannot be read"
        problems.append(PackProblem(file, 1, reason))
        return None
    try:
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"at line (\d+)", str(error))
        last = text.count("\n") + 1
        problems.append(PackProblem(file, int(found[1]) if found else last, str(error)))
        return None


def line_of(text: str, path: Sequence[str | int]) -> int:
    """The line (from 1) where the value at `path` is written, or of the nearest table above.

    A path is what pydantic calls a location: names of tables and keys, and places in lists.
    """
    names = [str(part) for part in path if part != "[key]"]
    best, depth, here, counts = 1, 0, list[str](), dict[str, int]()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*(\[{1,2})\s*([^\[\]]+?)\s*\]", line):
            here = [part.strip().strip("\"'") for part in header[2].split(".")]
            if header[1] == "[[":
                place = counts.get(header[2], 0)
                counts[header[2]] = place + 1
                here = [*here, str(place)]
            where = here
        elif key := re.match(r"\s*([A-Za-z0-9_\-\"'.]+)\s*=", line):
            where = here + [part.strip("\"'") for part in key[1].split(".")]
        else:
            continue
        if names and where[: len(names)] == names:
            return number
        if len(where) > depth and names[: len(where)] == where:
            best, depth = number, len(where)
    return best


def _validated(
    model: type[_Model], data: Mapping[str, Any], *, file: Path, text: str
) -> _Model | list[PackProblem]:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        return [
            PackProblem(file, line_of(text, each["loc"]), f"{_dotted(each['loc'])}: {each['msg']}")
            for each in error.errors(include_url=False, include_input=False)
        ]


def _dotted(path: Sequence[str | int]) -> str:
    return ".".join(str(part) for part in path if part != "[key]")


def _audience_folders(base: Path) -> Iterator[Path]:
    for path in sorted(base.iterdir()):
        if path.is_dir() and path.name not in NOT_AUDIENCES and path.name[0] not in "._":
            yield path


def _read_audience(name: str, folder: Path, *, problems: list[PackProblem]) -> Audience | None:
    file = folder / AUDIENCE_FILE
    if _NAME.fullmatch(name) is None:
        problems.append(PackProblem(folder, 1, "an audience is named with a-z, 0-9 and -"))
        return None
    read = read_toml(file, problems)
    if read is None:
        return None
    found = _validated(_AudienceFile, read[0], file=file, text=read[1])
    if isinstance(found, list):
        problems.extend(found)
        return None
    quiet = found.quiet_hours
    return Audience(
        name=name,
        title=found.title,
        segments=found.match.segments,
        tags=found.match.tags,
        also_tags=found.match.also_tags,
        rank=found.rank,
        scope=found.scope,
        lane=found.lane,
        channels=tuple(ChannelStep(step.channel.value, step.wait) for step in found.channels),
        reach=found.reach,
        start_by=found.start_by,
        preapproved=found.preapproved,
        cadence=found.cadence,
        reach_by=found.reach_by,
        quiet_hours=QuietHours(quiet.start, quiet.end, quiet.overridden_by) if quiet else None,
        resend_unknown=found.resend_unknown,
        locales=found.locales,
        required=found.required,
    )


def _disagreements(
    audiences: Sequence[Audience], folders: Mapping[str, Path]
) -> Iterator[PackProblem]:
    """Rules that no single value shows: phases never pre-approved, a channel named twice."""
    for audience in audiences:
        file = folders[audience.name] / AUDIENCE_FILE
        text = file.read_text(encoding="utf-8")
        for phase in sorted(audience.preapproved & {Phase.FOLLOW_UP, Phase.CORRECTION}):
            line = line_of(text, ("preapproved",))
            yield PackProblem(file, line, f"preapproved: {phase.value} always needs approval")
        names = [step.channel for step in audience.channels]
        for place, name in enumerate(names):
            if name in names[:place]:
                line = line_of(text, ("channels", place))
                yield PackProblem(file, line, f"channels.{place}: {name} is named twice")


def _read_organisation(
    root: Path, *, overlay: Path | None, problems: list[PackProblem]
) -> Organisation | None:
    file = root / ORGANISATION_FILE
    read = read_toml(file, problems)
    if read is None:
        return None
    data, text = read
    if overlay is not None:
        above = overlay / ORGANISATION_FILE if overlay.is_dir() else overlay
        if above.exists() or not overlay.is_dir():
            over = read_toml(above, problems)
            if over is None:
                return None
            # A problem is looked for in the overlay first: its tables are those that count.
            data = {**data, **over[0]}
            file, text = above, over[1]
    found = _validated(_OrganisationFile, data, file=file, text=text)
    if isinstance(found, list):
        problems.extend(found)
        return None
    return _organisation(found)


def _organisation(found: _OrganisationFile) -> Organisation:
    return Organisation(
        name=found.name,
        short_name=found.short_name,
        site=found.site,
        sms_prefix=found.sms_prefix,
        support=Support(**found.support.model_dump()),
        default_zone=found.default_zone,
        default_locale=found.default_locale,
        default_country=found.default_country,
        emergency=found.emergency,
        senders={
            channel.value: {country: _sender(one) for country, one in by_country.items()}
            for channel, by_country in found.senders.items()
        },
        public_accounts=tuple(
            PublicAccount(a.kind, a.address, a.name, a.locale, a.region)
            for a in found.public_accounts
        ),
        zones=found.zones,
        services=found.services,
        voice_services=found.voice_services,
        region_names=found.region_names,
        glossary=found.glossary,
        currency=found.currency,
    )


def _sender(found: _Sender) -> Sender:
    rate = found.rate or SLOWEST[found.kind]
    return Sender(found.value, found.kind, rate, found.sandbox_rate or rate, found.price)

"""Whether Twilio has a message in doubt: reading its list of what a number was sent.

Pure. It must not know how a page is fetched. A message matches by number, sender, exact
text, a time of creation and a sid that nothing else accounts for. Queued messages have no
date of sending, so the time is that of creation.
https://www.twilio.com/docs/messaging/api/message-resource#read-multiple-message-resources
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import orjson

from channels.contract import CannotTell, Envelope, Finding, Found, NotTaken
from channels.text import sms_measure
from channels.twilio_receipts import SID, moment
from channels.wire import Response

CLOCKS_APART = timedelta(seconds=60)
"""How far Twilio's clock may be behind ours."""


class Unreadable(Exception):
    """The answer is not a whole page of the list that was asked for."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A message as Twilio lists it."""

    sid: str
    to: str = field(repr=False)
    senders: frozenset[str] = field(repr=False)
    body: str = field(repr=False)
    created: datetime


@dataclass(frozen=True, slots=True)
class Page:
    """Messages of a page and the query of the next one, empty after the last."""

    messages: Sequence[Listed]
    following: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A message in doubt, as it would be listed."""

    envelope: Envelope
    sender: str = field(repr=False)
    body: str = field(repr=False)

    @property
    def earliest(self) -> datetime:
        """When it can have been created at the earliest; an unknown time is now."""
        return (self.envelope.tried_at or datetime.now(UTC)) - CLOCKS_APART

    def is_(self, listed: Listed) -> bool:
        """Whether this can be the listed message."""
        return (
            listed.to == self.envelope.address
            and self.sender in listed.senders
            and listed.created >= self.earliest
            and listed.sid not in self.envelope.known_refs
            and (listed.body == self.body or _plain(listed.body) == _plain(self.body))
        )


def read_page(response: Response) -> Page:
    """A page of the list. Raises `Unreadable` for anything less: a message may be sent again
    because a page does not show it."""
    try:
        answer = orjson.loads(response.body) if response.status == 200 else None
    except orjson.JSONDecodeError:
        answer = None
    rows = answer.get("messages") if isinstance(answer, dict) else None
    if not isinstance(answer, dict) or not isinstance(rows, list) or "next_page_uri" not in answer:
        raise Unreadable
    following = answer["next_page_uri"]
    if following is None:
        return Page([_listed(row) for row in rows], {})
    try:
        query = dict(parse_qsl(urlsplit(following).query)) if isinstance(following, str) else {}
    except ValueError:
        query = {}
    if not query.get("PageToken"):
        raise Unreadable
    return Page([_listed(row) for row in rows], query)


def settled(
    wanted: Iterable[Wanted], listed: Sequence[Listed], *, whole: bool
) -> dict[str, Finding]:
    """Findings by key: each listed message stands for one in doubt at most.

    `whole` says that the list reaches back to before the first of the tries.
    """
    findings: dict[str, Finding] = {}
    taken: set[str] = set()
    for one in sorted(wanted, key=lambda one: one.earliest, reverse=True):
        match = next((m for m in listed if m.sid not in taken and one.is_(m)), None)
        if match is not None:
            taken.add(match.sid)
            findings[one.envelope.key] = Found(match.sid)
        else:
            findings[one.envelope.key] = NotTaken() if whole else CannotTell()
    return findings


def _listed(row: object) -> Listed:
    if not isinstance(row, dict):
        raise Unreadable
    sid, created = row.get("sid"), moment(row.get("date_created"))
    if not isinstance(sid, str) or not SID.fullmatch(sid) or created is None:
        raise Unreadable
    senders = {row.get("from"), row.get("messaging_service_sid")}
    return Listed(
        sid=sid,
        to=str(row.get("to")),
        senders=frozenset(sender for sender in senders if isinstance(sender, str)),
        body=str(row.get("body")),
        created=created,
    )


def _plain(text: str) -> str:
    """The text as a Messaging Service with Smart Encoding might have changed it."""
    for char, instead in sms_measure(text).replacements.items():
        text = text.replace(char, instead)
    return text

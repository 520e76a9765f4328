"""What the desk's acts answer and why they refuse, and how they find what they act on.

Shared by `updates` (what is said) and `releases` (what goes out).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from channels.contract import Problem
from channels.contract import Severity as Weight
from dispatcher.incidents import Incident
from dispatcher.ledger import incidents, updates
from dispatcher.ledger.connection import Connection
from dispatcher.rendering import Rendering


class Invalid(Exception):
    """The request cannot be right; `errors` are (field, reason), all that were found."""

    def __init__(self, errors: Sequence[tuple[str, str]]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in self.errors))


class NotFound(Exception):
    """No such incident or update."""


class Conflict(Exception):
    """The update or incident is not in a state for this. `code` tells which rule."""

    def __init__(self, code: str, message: str, *, detail: Mapping[str, str] | None = None) -> None:
        self.code = code
        self.detail = dict(detail or {})
        super().__init__(message)


class Stale(Exception):
    """What was changed is not what was looked at: somebody else changed it meanwhile.

    `revision` is the one that stands now.
    """

    def __init__(self, revision: int) -> None:
        self.revision = revision
        super().__init__("somebody else has changed this since you opened it")


class Refused(Exception):
    """Rendering found errors: nothing was submitted. `problems` are (where, problem)."""

    def __init__(self, problems: Sequence[tuple[str, Problem]]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{len(self.problems)} problems of severity error")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an act left: which audiences go out, which wait for approval."""

    incident: Incident
    update_id: str
    content_hash: str | None
    released: tuple[str, ...]
    held: tuple[str, ...]
    warnings: tuple[tuple[str, Problem], ...] = field(default=())


def update_id(written: str) -> str:
    """The id in the ledger's spelling. Raises `NotFound` for what cannot be one."""
    try:
        return str(UUID(written))
    except ValueError:
        raise NotFound("no such update") from None


def incident_id(written: str) -> str:
    """An incident's id or reference. Raises `NotFound` for what can be neither."""
    reference = written.upper()
    digits = reference.removeprefix("INC-")
    if digits != reference and digits.isascii() and digits.isdigit() and len(digits) < 16:
        return reference
    try:
        return str(UUID(written))
    except ValueError:
        raise NotFound("no such incident") from None


def find_incident(conn: Connection, incident_id: str, *, lock: bool = False) -> Incident:
    incident = incidents.get(conn, incident_id, lock=lock)
    if incident is None:
        raise NotFound("no such incident")
    return incident


def find_update(conn: Connection, update_id: str) -> tuple[updates.UpdateRow, Incident]:
    update = updates.get(conn, update_id, lock=True)
    if update is None:
        raise NotFound("no such update")
    return update, find_incident(conn, update.incident_id)


def same_content(update: updates.UpdateRow, content_hash: str) -> None:
    if update.content_hash is None:
        raise Conflict("not-submitted", "this update has not been submitted")
    if update.content_hash != content_hash:
        raise Conflict("content-changed", "the content is not the one named: look at it again")


def chosen_audiences(update: updates.UpdateRow, audiences: Sequence[str] | None) -> Sequence[str]:
    if audiences is None:
        return update.audiences
    unknown = [name for name in audiences if name not in update.audiences]
    if unknown:
        raise Invalid([("audiences", "names an audience that this update does not have")])
    return audiences


def problems_of(renderings: Iterable[Rendering]) -> Iterable[tuple[str, Problem]]:
    for rendering in renderings:
        message = rendering.message
        for problem in rendering.problems:
            yield f"{rendering.audience}/{message.channel}/{message.locale}", problem


def refuse(renderings: Iterable[Rendering]) -> None:
    """Raise `Refused` if any rendering has a problem of severity error."""
    errors = [found for found in problems_of(renderings) if found[1].severity is Weight.ERROR]
    if errors:
        raise Refused(errors)

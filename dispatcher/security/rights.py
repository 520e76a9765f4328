"""What a key or a person may do. Scopes are the fixed words of the HTTP interface."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """One right of an API key."""

    READ = "read"
    INCIDENTS_WRITE = "incidents:write"
    PREVIEW = "preview"
    RELEASE = "release"
    RELEASE_ANY = "release:any"
    APPROVE = "approve"
    RECIPIENTS_WRITE = "recipients:write"
    HOOKS = "hooks"


class Role(StrEnum):
    """What a person may do in the console; each may do what those before it may."""

    VIEWER = "viewer"
    AUTHOR = "author"
    APPROVER = "approver"
    ADMIN = "admin"


_READING = frozenset({Scope.READ, Scope.PREVIEW})
_WRITING = _READING | {Scope.INCIDENTS_WRITE, Scope.RELEASE}
_APPROVING = _WRITING | {Scope.APPROVE}

ROLE_SCOPES: Mapping[Role, frozenset[Scope]] = {
    # The one seam for finer rights: whoever asks what a person may do asks for scopes.
    Role.VIEWER: _READING,
    Role.AUTHOR: _WRITING,
    Role.APPROVER: _APPROVING,
    Role.ADMIN: _APPROVING | {Scope.RELEASE_ANY, Scope.RECIPIENTS_WRITE},
}


class NotAllowed(Exception):
    """The actor lacks a right. The message names the right, never the key."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a key, a person at the console, or the command line of the machine's owner.

    `id` is stable and goes to the audit log; `reach_limit` is the largest number of
    people one release by this actor may reach, None for no limit.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    reach_limit: int | None = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes

    def require(self, scope: Scope) -> None:
        """Raise `NotAllowed` unless the actor holds `scope`."""
        if scope not in self.scopes:
            whose = "role" if self.id.startswith("person:") else "key"
            raise NotAllowed(f"this {whose} lacks the scope {scope.value!r}")


def parse_scopes(words: Iterable[str]) -> frozenset[Scope]:
    """Scopes from their words. Raises `ValueError` naming the first unknown one."""
    known = {scope.value: scope for scope in Scope}
    found: set[Scope] = set()
    for word in words:
        if word not in known:
            raise ValueError(f"unknown scope {word!r}; known: {', '.join(known)}")
        found.add(known[word])
    return frozenset(found)

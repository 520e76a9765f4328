"""What a key may do. Scopes are the fixed words of the HTTP interface."""

from collections.abc import Iterable
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


class NotAllowed(Exception):
    """The actor lacks a right. The message names the right, never the key."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts: a key, or the command line of the machine's owner.

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
            raise NotAllowed(f"this key lacks the scope {scope.value!r}")


def parse_scopes(words: Iterable[str]) -> frozenset[Scope]:
    """Scopes from their words. Raises `ValueError` naming the first unknown one."""
    known = {scope.value: scope for scope in Scope}
    found: set[Scope] = set()
    for word in words:
        if word not in known:
            raise ValueError(f"unknown scope {word!r}; known: {', '.join(known)}")
        found.add(known[word])
    return frozenset(found)

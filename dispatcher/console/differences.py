"""Two forms of one update side by side: what is stored now, and what somebody wrote meanwhile.

Pure. Compares what is meant, not how it is written: `73,000` and `73000` are the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dispatcher.console.forms import label
from dispatcher.console.typed import Typed


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that is not the same: as stored, and as yours."""

    name: str
    label: str
    stored: str
    yours: str


_NOT_CONTENT = ("csrf", "once", "seen", "revision", "typed_zone", "audience", "do", "force", "kind")


def differences(
    stored: Typed, yours: Typed, *, titles: Mapping[str, str] | None = None
) -> tuple[Difference, ...]:
    """The fields that differ. `titles` are words for values that are names or ids."""
    names = dict.fromkeys((*stored.names(), *yours.names()))
    found: list[Difference] = []
    for name in names:
        if name in _NOT_CONTENT or name.endswith(".fold"):
            continue
        theirs, own = _values(stored, name), _values(yours, name)
        if theirs != own:
            found.append(
                Difference(name, _label(name), _shown(theirs, titles), _shown(own, titles))
            )
    return tuple(found)


def _values(typed: Typed, name: str) -> tuple[str, ...]:
    return tuple(typed.text(name).split("\n")) if _is_text(name) else tuple(typed.all(name))


def _is_text(name: str) -> bool:
    return name.startswith("texts.") or name in ("title", "summary")


def _label(name: str) -> str:
    stem, _, last = name.rpartition(".")
    if last.isdecimal():
        return f"{label(stem)} ({int(last) + 1})"
    return label(name)


def _shown(values: Iterable[str], titles: Mapping[str, str] | None) -> str:
    named = titles or {}
    return "\n".join(named.get(value, value) for value in values if value) or "–"

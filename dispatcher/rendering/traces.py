"""Which facts stand in a text: every sentence made from a fact ends with an unseen trace.

A trace is one character of private use per kind of fact. It goes wherever its words go
(joined, escaped, capitalised, left out), is read from what is left in the end and taken out
before anything is measured or stored. Nothing else that gets into a template may hold such
characters: packs and vocabularies that do are refused, an update's own words are put in later.
"""

import re
from collections.abc import Mapping

from dispatcher.incidents import FactKind

_TRACES: Mapping[FactKind, str] = {kind: chr(0xE020 + place) for place, kind in enumerate(FactKind)}
_KINDS: Mapping[str, FactKind] = {trace: kind for kind, trace in _TRACES.items()}
_ANY = re.compile(f"[{''.join(_KINDS)}]")


def traced(words: str, kind: FactKind) -> str:
    """The words with the trace of the fact that they are made from; no words leave none."""
    return words + _TRACES[kind] if words else ""


def traces(text: str) -> frozenset[FactKind]:
    """The kinds of facts whose words stand in the text."""
    return frozenset(_KINDS[trace] for trace in _ANY.findall(text))


def untraced(text: str) -> str:
    """The text as people read it."""
    return _ANY.sub("", text)

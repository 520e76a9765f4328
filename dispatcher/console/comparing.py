"""What is said now beside what was said last, word by word.

Pure. The pieces that are not `del` are the new text, those that are not `ins` the old one.
"""

import re
from difflib import SequenceMatcher

# A word keeps the space after it: spaces of their own would match each other everywhere.
_TOKEN = re.compile(r"\w+\s*|[^\w\s]\s*|\s+")

MOST_TOKENS = 1_500
"""Longer texts are compared line by line: words would take too long for a page."""

Pieces = tuple[tuple[str, str], ...]


def changes(before: str, after: str) -> Pieces:
    """(kind, text) with the kinds `same`, `del` and `ins`, in reading order."""
    old, new = _TOKEN.findall(before), _TOKEN.findall(after)
    if max(len(old), len(new)) > MOST_TOKENS:
        old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    found: list[tuple[str, str]] = []
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            found.append(("same", "".join(new[c:d])))
            continue
        if b > a:
            found.append(("del", "".join(old[a:b])))
        if d > c:
            found.append(("ins", "".join(new[c:d])))
    return tuple(found)

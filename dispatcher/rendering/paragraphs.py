"""A mail's plain text as paragraphs, from which its HTML part is made: the same words in both."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph of a mail: `kind` is heading, list or plain; `lines` its text."""

    kind: str
    lines: tuple[str, ...]


def blocks(text: str) -> tuple[Block, ...]:
    """The plain part's paragraphs, so that the HTML part says the same words.

    A paragraph's first line that ends with a colon is a heading; lines that begin with
    `- ` are a list.
    """
    found: list[Block] = []
    for paragraph in re.split(r"\n{2,}", text):
        lines = [line for line in paragraph.split("\n") if line]
        if len(lines) > 1 and lines[0].endswith(":"):
            found.append(Block("heading", (lines.pop(0)[:-1],)))
        plain: list[str] = []
        items: list[str] = []
        for line in lines:
            (items if line.startswith("- ") else plain).append(line.removeprefix("- "))
        if plain:
            found.append(Block("plain", tuple(plain)))
        if items:
            found.append(Block("list", tuple(items)))
    return tuple(found)

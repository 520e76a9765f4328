"""Final texts of a message: how they are held, put together and hashed.

Owns the substitution of values into templates, as a mail provider does it. It must not
know who got a message.
"""

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import orjson

Texts = tuple[tuple[str, str], ...]


class Filled(NamedTuple):
    """Texts of a message and the values that go into them for one address."""

    template: Texts
    values: Texts = ()


Content = str | Filled  # a bare string is {"text": string}


def content_hash(texts: Mapping[str, str]) -> str:
    """SHA-256 (hex) over the texts as compact UTF-8 JSON with sorted keys."""
    return hashlib.sha256(orjson.dumps(dict(texts), option=orjson.OPT_SORT_KEYS)).hexdigest()


def texts_of(content: Content) -> dict[str, str]:
    """The final texts. Values go in by one pass; a value that looks like a place is text."""
    if isinstance(content, str):
        return {"text": content}
    if not content.values:
        return dict(content.template)
    values = dict(content.values)
    pattern = _pattern(tuple(values))
    return {
        name: pattern.sub(lambda found: values[found.group()], text)
        for name, text in content.template
    }


@lru_cache(maxsize=256)
def _pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(names, key=len, reverse=True)
    return re.compile("|".join(re.escape(name) for name in longest_first))


@lru_cache(maxsize=512)
def json_and_hash(content: Content) -> tuple[bytes, str]:
    """The final texts as JSON, and their hash; remembered for texts that many people got."""
    texts = texts_of(content)
    return orjson.dumps(texts), content_hash(texts)

"""API keys and other bearer tokens: made once, shown once, stored as a hash.

A key carries 256 random bits, so a plain SHA-256 cannot be searched; slow password
hashing is for what people choose themselves.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field

_SHAPE = re.compile(r"^od_([a-z0-9]{10})_([A-Za-z0-9_-]{43})$")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A fresh key. `token` is shown once and never stored."""

    prefix: str
    token: str = field(repr=False)
    hash: bytes = field(repr=False)


def new_key() -> NewKey:
    """A key like `od_<prefix>_<secret>`; the prefix finds the row, the hash proves it."""
    prefix = "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(10))
    token = f"od_{prefix}_{secrets.token_urlsafe(32)}"
    return NewKey(prefix=prefix, token=token, hash=digest(token))


def digest(token: str) -> bytes:
    """What is stored of a token: its SHA-256, 32 bytes."""
    return hashlib.sha256(token.encode()).digest()


def prefix_of(token: str) -> str | None:
    """The public part of a well-formed key, else None."""
    found = _SHAPE.match(token)
    return found.group(1) if found else None


def matches(token: str, stored: bytes) -> bool:
    """Whether `token` hashes to `stored`, in constant time."""
    return hmac.compare_digest(digest(token), stored)

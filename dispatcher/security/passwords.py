"""Passwords of people who sign in to the console: judged, hashed and proved.

Argon2id with the library's defaults, which follow RFC 9106's second choice
(https://argon2-cffi.readthedocs.io/en/stable/parameters.html). Rules of choice follow
NIST SP 800-63B-4 (https://pages.nist.gov/800-63-4/sp800-63b.html#passwordver): length, and no
well-known or own words; nothing about kinds of characters.
"""

import re
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

MIN_CHARS = 12
MAX_CHARS = 256
"""Hashing takes the same time for any length; the bound is on what a form may send."""

AT_ONCE = 2
IN_LINE = 8
"""Each check takes 64 MiB and a tenth of a second of processor; beyond this many the next one
is sent away, since every one in line holds a thread that others want to be answered by."""


class Crowded(Exception):
    """Too many passwords are being checked now; nothing was looked at. Try again shortly."""


class Turnstile:
    """Lets `at_once` through at a time while at most `in_line` wait.

    `crowd` is how many are inside or waiting now, `passed` how many have come out again.
    """

    def __init__(self, at_once: int, in_line: int) -> None:
        self._inside = threading.BoundedSemaphore(at_once)
        self._counting = threading.Lock()
        self._most = at_once + in_line
        self.crowd = 0
        self.passed = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Wait for a turn. Raises `Crowded` at once if the line is full."""
        with self._counting:
            if self.crowd >= self._most:
                raise Crowded("too many people are signing in at this moment")
            self.crowd += 1
        try:
            with self._inside:
                yield
        finally:
            with self._counting:
                self.crowd -= 1
                self.passed += 1


turn = Turnstile(AT_ONCE, IN_LINE)
"""What every hashing and every check in this process goes through."""
_hasher = PasswordHasher()
_NOBODY = _hasher.hash("nobody has this password, it only takes as long")

_COMMON = (
    "password", "passwort", "contraseña", "letmein", "welcome", "iloveyou", "qwerty", "asdfgh",
    "qazwsx", "admin", "dispatcher", "changeme", "football", "baseball", "sunshine", "princess",
    "dragon", "monkey", "superman", "trustno1", "starwars", "whatever", "secret", "correcthorse",
    "batterystaple", "correct horse", "battery staple", "outage", "пароль", "йцукен",
)  # fmt: skip


def hashed(password: str) -> str:
    """What is stored of a password; takes a tenth of a second on purpose. Raises `Crowded`."""
    with turn():
        return _hasher.hash(_one_spelling(password))


def proves(password: str, stored: str | None) -> bool:
    """Whether the password was hashed to `stored`; None, for nobody, takes as long and is False.

    Raises `Crowded`.
    """
    with turn():
        try:
            _hasher.verify(stored or _NOBODY, _one_spelling(password))
        except (VerifyMismatchError, VerificationError, InvalidHashError):
            return False
    return stored is not None


def outdated(stored: str) -> bool:
    """Whether today's parameters differ from those `stored` was made with."""
    return _hasher.check_needs_rehash(stored)


def weakness(password: str, *, own_words: Sequence[str] = ()) -> str | None:
    """Why this password cannot be used, in words for a person; None if it can.

    `own_words` are the login, the name and the organisation's: what somebody would try first.
    """
    if len(password) < MIN_CHARS:
        return f"needs at least {MIN_CHARS} characters; a sentence of four or more words is good"
    if len(password) > MAX_CHARS:
        return f"may have at most {MAX_CHARS} characters"
    folded = _one_spelling(password).casefold()
    if len(set(folded)) < 5 or _REPEATED.fullmatch(folded):
        return "repeats the same few characters: choose something longer"
    if any(run in folded for run in _RUNS) or _walks(folded):
        return "holds a long run of neighbouring keys or letters: choose something else"
    words = (*_COMMON, *_parts(own_words))
    if any(len(_without(words, text)) < 6 for text in (folded, folded.translate(_DISGUISES))):
        return "is made of words that are tried first, such as names: choose others"
    return None


def _without(words: Sequence[str], text: str) -> str:
    """What is left of a text that would have to be guessed."""
    for word in words:
        text = text.replace(word, "")
    return text.translate(_FILLING)


def _one_spelling(password: str) -> str:
    """The same characters, whichever keyboard composed them."""
    return unicodedata.normalize("NFKC", password)


def _parts(own_words: Sequence[str]) -> list[str]:
    """Own words whole and in parts, the longest first."""
    found: set[str] = set()
    for own in own_words:
        folded = _one_spelling(own).casefold()
        found |= {folded, folded.replace(" ", ""), *re.split(r"[\s@._+-]+", folded)}
    return sorted((word for word in found if len(word) >= 4), key=len, reverse=True)


_FILLING = str.maketrans("", "", "0123456789!.-_ ?*#@$&+")
_DISGUISES = str.maketrans("@4301$5!", "aaeoissi")
_REPEATED = re.compile(r"(.{1,6})\1+.?", re.DOTALL)
_RUNS = ("123456789", "abcdefgh", "qwertyuiop", "987654321")
_ROWS = (
    "1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "abcdefghijklmnopqrstuvwxyz",
    "1qaz", "2wsx", "3edc", "4rfv", "5tgb", "6yhn", "7ujm", "1q2w3e4r5t6y7u8i9o0p",
    "йцукенгшщзхъ", "фывапролджэ", "ячсмитьбю",
)  # fmt: skip
_STEPS = frozenset(pair for row in _ROWS for a, b in pairwise(row) for pair in (a + b, b + a))


def _walks(folded: str) -> bool:
    """Whether most of it goes from one key to the next."""
    pairs = [a + b for a, b in pairwise(folded)]
    steps = sum(pair in _STEPS or pair[0] == pair[1] for pair in pairs)
    return steps >= 0.65 * len(pairs)

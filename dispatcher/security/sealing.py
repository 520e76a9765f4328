"""Contact points at rest: sealed with AES-256-GCM, found by a keyed hash, shown as a hint.

Sealed text is bound to its lookup value, so that a row's address cannot be swapped for
another's in the database. Two keys are derived from one master key (HKDF-SHA256): one
seals, one looks up. Format: version byte 1, 12-byte nonce, ciphertext with tag.
"""

import hashlib
import os
import secrets
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_VERSION = b"\x01"
_NONCE = 12


class SealBroken(Exception):
    """Sealed bytes do not open: another master key, or altered data. Never holds the data."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """An address as the ledger keeps it. `lookup` is 32 bytes and unique per kind."""

    sealed: bytes = field(repr=False)
    lookup: bytes = field(repr=False)


def new_master_key() -> str:
    """A fresh master key as 64 hexadecimal digits."""
    return secrets.token_hex(32)


def _derive(master: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"dispatcher/" + purpose).derive(
        master
    )


class Sealer:
    """Seals and opens with keys derived from one master key (64 hexadecimal digits).

    Raises `ValueError` if the master key is not that.
    """

    def __init__(self, master_key: str) -> None:
        try:
            master = bytes.fromhex(master_key.strip())
        except ValueError:
            master = b""
        if len(master) != 32:
            raise ValueError("the master key must be 64 hexadecimal digits")
        self._aead = AESGCM(_derive(master, b"seal"))
        # Begun once: each lookup goes on from here.
        self._begun = HMAC(_derive(master, b"lookup"), SHA256())
        self._fingerprint = hashlib.sha256(_derive(master, b"fingerprint")).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"Sealer({self._fingerprint})"

    @property
    def fingerprint(self) -> str:
        """Tells master keys apart without revealing them; recorded at first start."""
        return self._fingerprint

    def lookup(self, kind: str, address: str) -> bytes:
        """The keyed hash under which a normalised address of a kind is found."""
        digest = self._begun.copy()
        digest.update(f"{kind}:{address}".encode())
        return digest.finalize()

    def seal(self, kind: str, address: str) -> Sealed:
        """Seal a normalised address."""
        lookup = self.lookup(kind, address)
        return Sealed(sealed=self.seal_text(address, bound_to=lookup), lookup=lookup)

    def seal_text(self, text: str, *, bound_to: bytes) -> bytes:
        """Seal any text; it opens only with the same `bound_to`."""
        return self.seal_bytes(text.encode(), bound_to=bound_to)

    def seal_bytes(self, data: bytes, *, bound_to: bytes) -> bytes:
        """Seal anything; it opens only with the same `bound_to`."""
        nonce = os.urandom(_NONCE)
        return _VERSION + nonce + self._aead.encrypt(nonce, data, bound_to)

    def open(self, sealed: bytes, *, bound_to: bytes) -> str:
        """The text again. Raises `SealBroken`."""
        return self.open_bytes(sealed, bound_to=bound_to).decode()

    def open_bytes(self, sealed: bytes, *, bound_to: bytes) -> bytes:
        """What was sealed, again. Raises `SealBroken`."""
        if sealed[:1] != _VERSION:
            raise SealBroken("sealed with a format this version does not know")
        try:
            return self._aead.decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], bound_to)
        except InvalidTag:
            raise SealBroken("does not open with this master key") from None

"""The keys that sign the simulated SendGrid's events, one pair an account.

Owns making, keeping and reading them. No key is in the source: a pair is made on first use
in a state folder, so that whoever shares the folder knows the public half without asking.
https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
"""

import base64
import os
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class SigningKey:
    """A pair of ECDSA P-256."""

    def __init__(self, private: ec.EllipticCurvePrivateKey) -> None:
        self._private = private

    @classmethod
    def made(cls) -> "SigningKey":
        """A pair that nobody keeps."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def kept(cls, state_dir: Path, account: int = 1) -> "SigningKey":
        """The account's pair in this folder, made on first use (mode 0600).

        Raises OSError when the folder can be neither made nor written.
        """
        file = state_dir / f"event-webhook-{account}.pem"
        try:
            pem = file.read_bytes()
        except FileNotFoundError:
            pem = _create(file)
        private = serialization.load_pem_private_key(pem, None)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise OSError(f"{file.name} holds no ECDSA key")
        return cls(private)

    @property
    def public(self) -> str:
        """The public half as SendGrid shows it: base64 of DER."""
        der = self._private.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return base64.b64encode(der).decode()

    def signature(self, timestamp: bytes, body: bytes) -> bytes:
        """The header's value: base64 of the DER signature over timestamp and raw body."""
        return base64.b64encode(self._private.sign(timestamp + body, ec.ECDSA(hashes.SHA256())))


def sendgrid_public_key(state_dir: Path, account: int = 1) -> str:
    """What a sandbox with this `state_dir` signs with, for whoever verifies it.

    Raises OSError when the folder can be neither made nor written.
    """
    return SigningKey.kept(state_dir, account).public


def _create(file: Path) -> bytes:
    file.parent.mkdir(parents=True, exist_ok=True)
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=".key-")  # 0600 by itself
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(pem)
        # A link refuses to replace: of two processes that start together one wins, whole.
        file.hardlink_to(temporary)
    except FileExistsError:
        return file.read_bytes()
    finally:
        temporary.unlink()
    return pem

"""Google's OAuth 2 token endpoint, as a service account uses it.

Owns assertions (RS256 JWT) in and access tokens out. It must not know messaging.
https://developers.google.com/identity/protocols/oauth2/service-account#httprest
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from channels.sandbox.answers import Request, reply
from channels.sandbox.config import SandboxConfig
from channels.sandbox.credentials import load_service_account

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# google-auth writes Google's own endpoint as audience, whatever its token_uri says.
_AUDIENCE = "https://oauth2.googleapis.com/token"
_SCOPES = frozenset(
    f"https://www.googleapis.com/auth/{name}" for name in ("firebase.messaging", "cloud-platform")
)
_LIFETIME = 3599
_MAX_LIFETIME = 3600
_SKEW = 300
_REMEMBERED = 1000


class _Refused(Exception):
    """A grant that Google refuses."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(error)
        self.body = {"error": error, "error_description": description}


class FcmTokens:
    """Gives access tokens for assertions signed by the sandbox's own service account.

    Tokens are signed, not stored: one stays good through a restart of the sandbox, as it
    would through anything that happens at Google.
    """

    def __init__(self, config: SandboxConfig, clock: Callable[[], float]) -> None:
        self._state_dir: Path | None = config.state_dir
        self._email = config.fcm_client_email
        self._clock = clock
        self._account: dict[str, str] | None = None
        self._known: dict[bytes, int] = {}

    def answer(self, request: Request) -> bytes:
        """The answer of POST /token."""
        try:
            if request.method != b"POST":
                raise _Refused("invalid_request", "Only POST is supported.")
            form = request.form()
            if form.get("grant_type") != _GRANT:
                raise _Refused("unsupported_grant_type", "Invalid grant_type.")
            self._check(form.get("assertion", ""))
        except _Refused as refused:
            return reply(400, orjson.dumps(refused.body))
        body = {"access_token": self._made(), "expires_in": _LIFETIME, "token_type": "Bearer"}
        return reply(200, orjson.dumps(body), headers=b"Cache-Control: no-store\r\n")

    def accepts(self, authorization: bytes) -> bool:
        """Whether an Authorization header carries a token of ours that has not run out."""
        expires = self._known.get(authorization)
        if expires is None:
            expires = self._expiry(authorization)
            if expires is None:
                return False
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[authorization] = expires
        return self._clock() < expires

    def _check(self, assertion: str) -> None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            head, payload, mark = assertion.split(".")
            algorithm = _json(head).get("alg")
            claims = _json(payload)
            signed = _unpadded(mark)
        except (ValueError, AttributeError):
            raise _Refused("invalid_grant", "Bad Request") from None
        account = self._loaded()
        if account is None or claims.get("iss") != self._email:
            raise _Refused("invalid_grant", "Invalid grant: account not found")
        key = load_pem_private_key(account["private_key"].encode(), None)
        if algorithm != "RS256" or not isinstance(key, rsa.RSAPrivateKey):
            raise _Refused("invalid_grant", "Invalid JWT Signature.")
        try:
            content = f"{head}.{payload}".encode()
            key.public_key().verify(signed, content, padding.PKCS1v15(), SHA256())
        except InvalidSignature:
            raise _Refused("invalid_grant", "Invalid JWT Signature.") from None
        self._check_claims(claims)

    def _check_claims(self, claims: dict[str, Any]) -> None:
        issued, expires, now = claims.get("iat"), claims.get("exp"), self._clock()
        if (
            not isinstance(issued, int)
            or not isinstance(expires, int)
            or not issued - _SKEW <= now < expires + _SKEW
            or expires - issued > _MAX_LIFETIME
        ):
            raise _Refused(
                "invalid_grant",
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a "
                "reasonable timeframe. Check your iat and exp values in the JWT claim.",
            )
        audience = str(claims.get("aud", ""))
        if audience != _AUDIENCE and not audience.endswith("/token"):
            raise _Refused("invalid_grant", "Invalid JWT: audience")
        if not _SCOPES.intersection(str(claims.get("scope", "")).split()):
            raise _Refused("invalid_scope", "Invalid OAuth scope or ID token audience provided.")

    def _loaded(self) -> dict[str, str] | None:
        """The account, read when it is first needed: a client makes it on its first use."""
        if self._account is None and self._state_dir is not None:
            self._account = load_service_account(self._state_dir)
        return self._account

    def _made(self) -> str:
        content = f"{int(self._clock()) + _LIFETIME}.{secrets.token_urlsafe(8)}"
        return f"ya29.sandbox.{content}.{self._mark(content)}"

    def _mark(self, content: str) -> str:
        account = self._loaded()
        key = (account or {}).get("private_key", "").encode()
        return hmac.new(key, content.encode(), hashlib.sha256).hexdigest()

    def _expiry(self, authorization: bytes) -> int | None:
        prefix = b"Bearer ya29.sandbox."
        if not authorization.startswith(prefix) or self._loaded() is None:
            return None
        content, _, mark = authorization[len(prefix) :].decode("latin-1").rpartition(".")
        if not hmac.compare_digest(self._mark(content).encode(), mark.encode()):
            return None
        return int(content.partition(".")[0])


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _json(text: str) -> dict[str, Any]:
    value = orjson.loads(_unpadded(text))
    return value if isinstance(value, dict) else {}

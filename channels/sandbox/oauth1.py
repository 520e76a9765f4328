"""OAuth 1.0a request signatures as X verifies them.

Owns the parsing and checking of an Authorization header. It must not know what the request
does. https://docs.x.com/fundamentals/authentication/oauth-1-0a/creating-a-signature and
RFC 5849.
"""

import base64
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote

from channels.sandbox.answers import FORM, Request

# The provider answers on both hosts. A client that is pointed elsewhere signs the real one.
BASE_URLS = ("https://api.twitter.com", "https://api.x.com")
_CLOCK_SKEW = 300
_NONCES = 10_000


def _quoted(text: str) -> str:
    return quote(text, safe="~")


@dataclass(frozen=True, slots=True)
class Secrets:
    """The consumer's and the user's halves of the key."""

    consumer_key: str
    consumer_secret: str = field(repr=False)
    token: str = ""
    token_secret: str = field(default="", repr=False)


def signature(method: str, url: str, params: Iterable[tuple[str, str]], secrets: Secrets) -> str:
    """HMAC-SHA1 signature (base64) of a request; `params` without oauth_signature."""
    pairs = sorted((_quoted(name), _quoted(value)) for name, value in params)
    joined = "&".join(f"{name}={value}" for name, value in pairs)
    base = "&".join((method.upper(), _quoted(url), _quoted(joined)))
    key = f"{_quoted(secrets.consumer_secret)}&{_quoted(secrets.token_secret)}"
    digest = hmac.new(key.encode(), base.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def parsed_header(header: bytes) -> dict[str, str]:
    """The parameters of an `OAuth …` header, decoded; empty when it is something else."""
    scheme, _, rest = header.decode("latin-1").partition(" ")
    if scheme.lower() != "oauth":
        return {}
    params = {}
    for item in rest.split(","):
        name, _, value = item.strip().partition("=")
        params[unquote(name)] = unquote(value.strip('"'))
    return params


class Verifier:
    """Checks signatures of one application and user, and that no nonce comes twice."""

    def __init__(self, secrets: Secrets, clock: Callable[[], float]) -> None:
        self._secrets = secrets
        self._clock = clock
        self._nonces: OrderedDict[tuple[str, str], None] = OrderedDict()

    def verifies(self, request: Request) -> bool:
        """Whether the request carries a good, fresh and unused signature."""
        given = parsed_header(request.headers.get(b"authorization", b""))
        if not self._is_ours(given):
            return False
        params = [(n, v) for n, v in given.items() if n not in ("realm", "oauth_signature")]
        params += parse_qsl(request.query.decode("latin-1"), keep_blank_values=True)
        if request.headers.get(b"content-type", b"").startswith(FORM):
            params += parse_qsl(request.body.decode("latin-1"), keep_blank_values=True)
        method, path = request.method.decode(), request.path.decode("latin-1")
        expected = [signature(method, base + path, params, self._secrets) for base in BASE_URLS]
        got = given.get("oauth_signature", "").encode()
        if not any(hmac.compare_digest(one.encode(), got) for one in expected):
            return False
        return self._is_fresh(given)

    def _is_ours(self, given: dict[str, str]) -> bool:
        return (
            given.get("oauth_consumer_key") == self._secrets.consumer_key
            and given.get("oauth_token") == self._secrets.token
            and given.get("oauth_signature_method") == "HMAC-SHA1"
            and given.get("oauth_version", "1.0") == "1.0"
        )

    def _is_fresh(self, given: dict[str, str]) -> bool:
        timestamp, nonce = given.get("oauth_timestamp", ""), given.get("oauth_nonce", "")
        if not timestamp.isdigit() or abs(int(timestamp) - self._clock()) > _CLOCK_SKEW:
            return False
        if not nonce or (timestamp, nonce) in self._nonces:
            return False
        self._nonces[timestamp, nonce] = None
        if len(self._nonces) > _NONCES:
            self._nonces.popitem(last=False)
        return True

"""Whether a request is Twilio's: its signature over the public URL and what was posted.

Owns Twilio's two algorithms and its two forms of body. It must not know what a request says.
https://www.twilio.com/docs/usage/webhooks/webhooks-security
"""

import binascii
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from channels.contract import ReceiptRefused, ReceiptRequest

SIGNATURE = "x-twilio-signature"
SETTINGS = "x-twilio-webhooks-signature-settings"
"""`key=…,algorithm=…`, sent when a webhook is signed with a key of its own."""
ALGORITHMS: Mapping[str, str] = {"HMAC_SHA1": "sha1", "HMAC_SHA256": "sha256"}
MAX_FIELDS = 200

_URL = re.compile(r"(https?://)((?:[^/?#@]*@)?(?:\[[^\]/?#]*\]|[^/?#:@]*))(:\d*)?([/?#].*)?", re.S)
_PORTS = {"https://": ":443", "http://": ":80"}

Fields = Sequence[tuple[str, str]]


def verified_fields(request: ReceiptRequest, secrets: Sequence[str]) -> dict[str, str]:
    """The fields of a request that one of the secrets signed; of a repeated one the first counts.

    Raises `ReceiptRefused`: not_configured without a secret, unsigned, forged, unreadable.
    """
    if not secrets:
        raise ReceiptRefused("not_configured", "there is no auth token to verify receipts with")
    if request.method != "POST":
        raise ReceiptRefused("unreadable", "not a POST")
    given = request.headers.get(SIGNATURE, "").encode("utf-8", "replace")
    algorithm = ALGORITHMS.get(_algorithm(request.headers.get(SETTINGS, "")))
    if not given or algorithm is None:
        raise ReceiptRefused("unsigned", "no signature of a kind that is known")
    is_json = request.headers.get("content-type", "").lower().startswith("application/json")
    fields = _json_fields(request) if is_json else _form_fields(request.body)
    posted = _posted(() if is_json else fields)
    for secret in secrets:
        for url in _spellings(request.public_url):
            if hmac.compare_digest(_signed(url, posted, secret, algorithm), given):
                return dict(reversed(fields))
    raise ReceiptRefused("forged", "the signature is not the provider's")


def signature(url: str, fields: Fields, secret: str, algorithm: str = "sha1") -> bytes:
    """Base64 of the HMAC over the URL and every distinct name and value, sorted."""
    return _signed(url, _posted(fields), secret, algorithm)


def _posted(fields: Fields) -> str:
    return "".join([name + value for name, value in sorted(set(fields))])


def _signed(url: str, posted: str, secret: str, algorithm: str) -> bytes:
    text = (url + posted).encode("utf-8", "surrogatepass")
    return binascii.b2a_base64(hmac.digest(secret.encode(), text, algorithm), newline=False)


def _algorithm(settings: str) -> str:
    """The algorithm that the header names; without one it is the old one."""
    for part in settings.split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm" and value.strip():
            return value.strip().upper()
    return "HMAC_SHA1"


def _spellings(url: str) -> Iterator[str]:
    """The URL without a port and with one: Twilio signs now this, now that."""
    found = _URL.fullmatch(url)
    if found is None:
        yield url
        return
    scheme, host, port, rest = found.groups("")
    yield f"{scheme}{host}{rest}"
    yield f"{scheme}{host}{port if len(port) > 1 else _PORTS[scheme]}{rest}"


def _form_fields(body: bytes) -> Fields:
    """A form's fields as posted, blank ones too.

    Not by `urllib.parse.parse_qsl`, which takes three times as long and says the same.
    """
    if not body:
        return []
    try:
        parts = body.decode("ascii").split("&")
        if len(parts) > MAX_FIELDS:
            raise ValueError("too many fields")
        return [
            (_plain(name), _plain(value))
            for name, _, value in (part.partition("=") for part in parts if part)
        ]
    except ValueError:
        raise ReceiptRefused("unreadable", "not a form") from None


def _plain(text: str) -> str:
    """A name or value as it was before it was quoted. Raises `ValueError` if it is not UTF-8."""
    if "+" in text:
        text = text.replace("+", " ")
    if "%" not in text:
        return text
    if text.rfind("%") == 0 and text.startswith("%2B"):  # as every telephone number
        return "+" + text[3:]
    return unquote(text, errors="strict")


def _json_fields(request: ReceiptRequest) -> Fields:
    """A JSON body's fields; its hash stands in the signed URL in its place."""
    try:
        query = parse_qs(urlsplit(request.public_url).query)
    except ValueError:
        query = {}
    told = query.get("bodySHA256", [""])[0].encode("utf-8", "replace")
    if not hmac.compare_digest(hashlib.sha256(request.body).hexdigest().encode(), told):
        raise ReceiptRefused("forged", "the body is not the one that was signed")
    try:
        document = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        document = None
    if not isinstance(document, dict):
        raise ReceiptRefused("unreadable", "not a JSON object")
    return [(name, value) for name, value in document.items() if isinstance(value, str)]

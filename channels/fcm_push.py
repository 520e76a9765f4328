"""Push to phones by Firebase Cloud Messaging, HTTP v1, one request per registration token.

Knows FCM's protocol and Google's access tokens. google-auth signs the request for one; our
transport carries it, because google-auth's own refresh sleeps and repeats. Each notice
collapses under its delivery key, so that one sent twice is shown once.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from channels.contract import (
    Accepted,
    AdapterBroken,
    Channel,
    ContactKind,
    Envelope,
    Limits,
    Message,
    MessageRefused,
    Outcome,
    Problem,
    Reason,
    RecipientRefused,
    Severity,
    TryLater,
    Unit,
    Unknown,
)
from channels.flight import in_flight
from channels.text import SlotError, fill, strip_controls, worst_case
from channels.transport import NoAnswer, NotSent, Request, Response, Transport, TransportError

PAYLOAD_LIMIT = 4096
"""Bytes. https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode"""
MAX_TTL = 2_419_200
"""Seconds. https://firebase.google.com/docs/cloud-messaging/customize-messages/setting-message-lifespan"""
QUOTA_PAUSE = 60.0
"""Seconds to wait after QUOTA_EXCEEDED without Retry-After (the same ErrorCode page)."""
SCOPE = "https://www.googleapis.com/auth/firebase.messaging"
RENEW_EARLY = 300.0
"""Seconds before its end at which an access token is fetched anew."""
SEEN_CHARS = {"title": 65, "body": 240}
"""What a locked screen shows of each part before it cuts."""


class FcmSettings(BaseModel):
    """A Firebase project and the service account that may send for it.

    The account is Google's JSON key, as text or as a file. `token_uri` and `base_url` point
    elsewhere only for a simulator. `ttl` (how long FCM keeps a notice for a phone that is
    off) and `timeout` are in seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    project_id: str = Field(min_length=1, max_length=100)
    service_account_json: SecretStr | None = None
    service_account_file: Path | None = None
    base_url: str = Field(default="https://fcm.googleapis.com", pattern=r"^https?://[^/?#]+/?$")
    token_uri: str = Field(default="", pattern=r"^(https?://[^/?#]+/[^?#]*)?$")
    ttl: int = Field(default=14_400, ge=0, le=MAX_TTL)
    timeout: float = Field(default=10.0, gt=0, le=60)
    concurrency: int = Field(default=64, ge=1, le=1000)

    @model_validator(mode="after")
    def _one_account(self) -> "FcmSettings":
        if (self.service_account_json is None) == (self.service_account_file is None):
            raise ValueError("give either service_account_json or service_account_file")
        return self


class FcmPush:
    """Notices to registration tokens of one Firebase project."""

    name: ClassVar[str] = "fcm_push"
    channel: ClassVar[str] = Channel.PUSH
    accepts: ClassVar[str] = ContactKind.FCM_TOKEN
    parts: ClassVar[tuple[str, ...]] = ("title", "body")
    limits: ClassVar[Limits] = Limits(unit=Unit.MESSAGE, concurrency=64, repeatable=True)
    Settings: ClassVar[type[FcmSettings]] = FcmSettings

    def __init__(
        self,
        settings: FcmSettings,
        transport: Transport,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self._transport = transport
        self._clock = clock
        self._tokens = _AccessTokens(settings, transport, clock)
        project = quote(settings.project_id, safe="")
        self._url = f"{settings.base_url.rstrip('/')}/v1/projects/{project}/messages:send"

    def check(self, message: Message) -> list[Problem]:
        """Errors: an empty part, a payload over 4,096 bytes. Warnings: more than is seen."""
        texts = worst_case(message)
        problems = []
        for part, seen in SEEN_CHARS.items():
            text = texts.get(part, "")
            if not strip_controls(text).strip():
                problems.append(Problem(Severity.ERROR, "empty", part, f"The {part} is empty."))
            elif len(text) > seen:
                words = f"The {part} has up to {len(text)} characters; about {seen} are seen."
                problems.append(Problem(Severity.WARNING, "long", part, words))
        specimen = Envelope(key="k" * 36, address="")
        size = len(self._payload(message, specimen, texts))
        if size > PAYLOAD_LIMIT:
            words = f"The notice takes up to {size} bytes; FCM takes at most {PAYLOAD_LIMIT}."
            problems.append(Problem(Severity.ERROR, "too_long", "body", words))
        return problems

    async def send(self, message: Message, envelopes: Sequence[Envelope]) -> AsyncIterator[Outcome]:
        """One request per envelope, `settings.concurrency` of them at once."""
        ready: list[tuple[str, bytes]] = []
        for envelope in envelopes:
            try:
                texts = fill(message, envelope)
            except SlotError as refused:
                yield MessageRefused(envelope.key, Reason.SLOT_VALUE, str(refused))
            else:
                ready.append((envelope.key, self._payload(message, envelope, texts)))
        if not ready:
            return
        try:
            token = await self._tokens.get()
        except _NoToken as missing:
            for key, _ in ready:
                yield missing.outcome(key)
            return

        async def push(one: tuple[str, bytes]) -> Outcome:
            return await self._push(*one, token)

        async with aclosing(in_flight(ready, push, limit=self.settings.concurrency)) as pushed:
            async for outcome in pushed:
                yield outcome

    async def _push(self, key: str, payload: bytes, token: str) -> Outcome:
        request = Request(
            "POST",
            self._url,
            (("Authorization", f"Bearer {token}"), ("Content-Type", "application/json")),
            payload,
            self.settings.timeout,
        )
        try:
            answer = await self._transport.request(request)
        except NotSent:
            return TryLater(key, Reason.UNREACHABLE, detail="could not connect")
        except NoAnswer as lost:
            return Unknown(key, lost.reason, str(lost))
        if answer.status == 401:
            self._tokens.forget(token)
        return judge(answer, key)

    def _payload(self, message: Message, envelope: Envelope, texts: Mapping[str, str]) -> bytes:
        now, ttl, key = self._clock(), self.settings.ttl, envelope.key
        if message.expires_at is not None:
            ttl = max(0, min(ttl, int(message.expires_at.timestamp() - now)))
        document = {
            "message": {
                "token": envelope.address,
                "notification": {"title": texts.get("title", ""), "body": texts.get("body", "")},
                "android": {
                    "collapse_key": key,
                    "priority": "HIGH",
                    "ttl": f"{ttl}s",
                    "notification": {"tag": key},
                },
                "apns": {
                    "headers": {
                        "apns-collapse-id": key,
                        "apns-expiration": str(int(now) + ttl),
                        "apns-priority": "10",
                    }
                },
                "data": {"delivery": key, "thread": message.thread},
            }
        }
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


class _NoToken(Exception):
    """No access token, so nothing was sent; `outcome` says for a key what that means."""

    def __init__(self, outcome: Callable[[str], Outcome]) -> None:
        super().__init__("no access token")
        self.outcome = outcome


class _AccessTokens:
    """The current access token: fetched by one caller at a time, kept until near its end."""

    def __init__(
        self, settings: FcmSettings, transport: Transport, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token = ""
        self._renew_at = 0.0

    async def get(self) -> str:
        """Raises `_NoToken`."""
        async with self._lock:
            if not self._token or self._clock() >= self._renew_at:
                self._token, lifetime = await self._fetch()
                self._renew_at = self._clock() + max(0.0, lifetime - RENEW_EARLY)
            return self._token

    def forget(self, token: str) -> None:
        """Google no longer takes this one."""
        if token == self._token:
            self._token = ""

    async def _fetch(self) -> tuple[str, float]:
        try:
            uri, assertion = await asyncio.to_thread(
                signed_grant, self._settings, int(self._clock())
            )
        except (OSError, ValueError, KeyError, TypeError):
            detail = "the service account cannot be read"
            raise _NoToken(_broken(Reason.CREDENTIALS, detail)) from None
        request = Request(
            "POST",
            uri,
            (("Content-Type", "application/x-www-form-urlencoded"),),
            urlencode({"grant_type": GRANT, "assertion": assertion}).encode(),
            self._settings.timeout,
        )
        try:
            answer = await self._transport.request(request)
        except TransportError:
            detail = "could not get an access token"
            raise _NoToken(_later(Reason.UNREACHABLE, detail)) from None
        return read_token(answer)


GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"
"""Who the signed request is meant for, wherever the token is fetched.
https://developers.google.com/identity/protocols/oauth2/service-account#authorizingrequests"""


def signed_grant(settings: FcmSettings, now: int) -> tuple[str, str]:
    """(token URI, JWT that asks for an hour's access), signed by google-auth.

    Raises `OSError`, `ValueError`, `KeyError` or `TypeError` for an account that is no
    service account; blocks, so call it in a thread.
    """
    try:
        from google.auth import crypt, jwt
    except ImportError as error:
        raise ImportError("fcm_push needs the package google-auth") from error
    if settings.service_account_json is not None:
        account = json.loads(settings.service_account_json.get_secret_value())
    elif settings.service_account_file is not None:
        account = json.loads(settings.service_account_file.read_text(encoding="utf-8"))
    claims = {
        "iss": account["client_email"],
        "scope": SCOPE,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + 3600,
    }
    google_jwt: Any = jwt
    signer: Any = crypt.RSASigner
    signed = google_jwt.encode(signer.from_service_account_info(account), claims)
    return settings.token_uri or str(account["token_uri"]), signed.decode("ascii")


def read_token(answer: Response) -> tuple[str, float]:
    """(access token, its life in seconds). Raises `_NoToken` for any other answer."""
    document = _parsed(answer)
    status = answer.status
    if status == 200:
        token, lifetime = document.get("access_token"), document.get("expires_in", 3600)
        if isinstance(token, str) and token.isprintable() and isinstance(lifetime, int):
            return token, float(lifetime)
        raise _NoToken(_later(Reason.PROVIDER_ERROR, "the access token cannot be read"))
    detail = f"Google's token service answered {status}"
    if status == 429:
        raise _NoToken(_later(Reason.THROTTLED, detail, answer.retry_after()))
    if status >= 500 or status == 408:
        raise _NoToken(_later(Reason.PROVIDER_ERROR, detail, answer.retry_after()))
    raise _NoToken(_broken(Reason.CREDENTIALS, detail))


def _later(reason: Reason, detail: str, wait: float | None = None) -> Callable[[str], Outcome]:
    return lambda key: TryLater(key, reason, wait, detail)


def _broken(reason: Reason, detail: str) -> Callable[[str], Outcome]:
    return lambda key: AdapterBroken(key, reason, detail)


# --- what FCM says -----------------------------------------------------------------------

_REFUSALS: Mapping[str, tuple[type[RecipientRefused] | type[AdapterBroken], Reason]] = {
    "UNREGISTERED": (RecipientRefused, Reason.UNREGISTERED),
    "SENDER_ID_MISMATCH": (RecipientRefused, Reason.INVALID_ADDRESS),
    "THIRD_PARTY_AUTH_ERROR": (AdapterBroken, Reason.CREDENTIALS),
}


def judge(answer: Response, key: str) -> Outcome:
    """FCM's answer to one notice as an outcome.

    https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode
    """
    status, document = answer.status, _parsed(answer)
    error = document.get("error")
    error = error if isinstance(error, dict) else {}
    code = error_code(error)
    detail = f"FCM answered {status}" + (f", {code}" if code else "")
    if 200 <= status < 300:
        name = document.get("name")
        if isinstance(name, str) and name.startswith("projects/"):
            return Accepted(key, name)
        return Unknown(key, Reason.UNREADABLE_ANSWER, detail)
    if status == 503:
        return TryLater(key, Reason.PROVIDER_ERROR, answer.retry_after(), detail)
    if status >= 500 or status == 408:
        return Unknown(key, Reason.PROVIDER_ERROR, detail)
    if status == 429:
        wait = answer.retry_after()
        return TryLater(key, Reason.THROTTLED, QUOTA_PAUSE if wait is None else wait, detail)
    if code in _REFUSALS:
        outcome, reason = _REFUSALS[code]
        return outcome(key, reason, detail)
    if status == 400 and _blames_token(error):
        return RecipientRefused(key, Reason.INVALID_ADDRESS, detail)
    if status in (400, 413, 422):
        reason = Reason.TOO_LONG if status == 413 else Reason.CONTENT
        return MessageRefused(key, reason, detail)
    # A bare 404 is an unknown project or path, a redirect not FCM at all: nobody's token.
    broken = {401: Reason.CREDENTIALS, 403: Reason.PERMISSION}
    return AdapterBroken(key, broken.get(status, Reason.ACCOUNT), detail)


def error_code(error: Mapping[str, Any]) -> str:
    """FCM's own code within Google's error object, or an empty string."""
    for detail in _details(error):
        code = detail.get("errorCode")
        if isinstance(code, str) and code.replace("_", "").isalpha() and len(code) < 40:
            return code
    return ""


def _blames_token(error: Mapping[str, Any]) -> bool:
    for detail in _details(error):
        violations = detail.get("fieldViolations")
        for violation in violations if isinstance(violations, list) else []:
            if isinstance(violation, dict) and violation.get("field") == "message.token":
                return True
    return "registration token is not a valid" in str(error.get("message"))


def _details(error: Mapping[str, Any]) -> list[dict[str, Any]]:
    details = error.get("details")
    return [d for d in details if isinstance(d, dict)] if isinstance(details, list) else []


def _parsed(answer: Response) -> dict[str, Any]:
    try:
        document = json.loads(answer.body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}

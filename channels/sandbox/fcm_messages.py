"""Firebase Cloud Messaging, HTTP v1.

Owns what FCM checks of a message and how it refuses. It must not know our adapter. Two
kinds of device tokens are simulated by their names: `unregistered-…` and `mismatch-…`.
https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send
"""

import re
import secrets
import time
from collections.abc import Callable
from typing import Any

import orjson

from channels.sandbox.answers import JSON_UTF8, Request, reply
from channels.sandbox.config import Provider, SandboxConfig
from channels.sandbox.contents import Filled
from channels.sandbox.fcm_tokens import FcmTokens
from channels.sandbox.outbox import Outbox

MAX_PAYLOAD = 4096
_MAX_TTL = 2_419_200
_TTL = re.compile(r"(\d{1,9})(?:\.\d{1,9})?s")
_TARGETS = ("token", "topic", "condition")
_KNOWN = frozenset((*_TARGETS, "name", "data", "notification", "android", "apns", "webpush",
                    "fcm_options", "fcmOptions"))  # fmt: skip
_FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_UNAUTHENTICATED = (
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login "
    "cookie or other valid authentication credential. See "
    "https://developers.google.com/identity/sign-in/web/devconsole-project."
)
# HTTP status -> (google.rpc.Status, FcmError's code)
_STATUSES = {
    400: ("INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    401: ("UNAUTHENTICATED", "THIRD_PARTY_AUTH_ERROR"),
    403: ("PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
    404: ("NOT_FOUND", "UNREGISTERED"),
    429: ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
    500: ("INTERNAL", "INTERNAL"),
    503: ("UNAVAILABLE", "UNAVAILABLE"),
}


class _Refused(Exception):
    """A request that FCM refuses; `field` is the path of what is wrong with it."""

    def __init__(
        self, status: int, message: str, *, fcm: str | None = None, field: str | None = None
    ) -> None:
        super().__init__(status)
        details: list[dict[str, Any]] = []
        if fcm is not None:
            details.append({"@type": _FCM_ERROR, "errorCode": fcm})
        if field is not None:
            violation = {"field": field, "description": message}
            details.append({"@type": _BAD_REQUEST, "fieldViolations": [violation]})
        self.answer = _error(status, message, details)


class FcmMessages:
    """Takes push messages for the one configured project."""

    provider = Provider.FCM

    def __init__(
        self, config: SandboxConfig, outbox: Outbox, clock: Callable[[], float] = time.time
    ) -> None:
        self._outbox = outbox
        self._clock = clock
        self._project = config.fcm_project
        self._tokens = FcmTokens(config, clock)
        self._send_path = f"/v1/projects/{config.fcm_project}/messages:send".encode()
        self._run = secrets.token_hex(4)

    def clear(self) -> None:
        """Nothing is kept beside the outbox."""

    def is_send(self, request: Request) -> bool:
        return request.method == b"POST" and request.path.endswith(b"/messages:send")

    def addresses(self, request: Request) -> list[str]:
        try:
            message = orjson.loads(request.body)["message"]
            return [str(message[name]) for name in _TARGETS if name in message]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return []

    def account(self, request: Request) -> int:
        return 1

    def halved(self, request: Request) -> Request | None:
        return None

    def refusal(self, status: int, code: int | str | None = None) -> bytes:
        _, fcm = _STATUSES.get(status, ("INTERNAL", "INTERNAL"))
        details = [{"@type": _FCM_ERROR, "errorCode": str(code or fcm)}]
        return _error(status, "The request was refused.", details)

    def answer(self, request: Request) -> bytes:
        if request.path == b"/token":
            return self._tokens.answer(request)
        if not self.is_send(request):
            return reply(404, b"<!DOCTYPE html>\n<title>Error 404 (Not Found)!!1</title>\n",
                         b"text/html; charset=UTF-8")  # fmt: skip
        try:
            return self._send(request)
        except _Refused as refused:
            return refused.answer

    def _send(self, request: Request) -> bytes:
        if not self._tokens.accepts(request.headers.get(b"authorization", b"")):
            raise _Refused(401, _UNAUTHENTICATED)
        if request.path != self._send_path:
            raise _Refused(403, "Permission 'cloudmessaging.messages.create' denied on resource "
                           "of this project (or it may not exist).")  # fmt: skip
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            raise _Refused(400, "Invalid JSON payload received.") from None
        message = body.get("message") if isinstance(body, dict) else None
        if not isinstance(message, dict):
            raise _Refused(400, "The message is required.", fcm="INVALID_ARGUMENT", field="message")
        address = _checked(message)
        validate_only = body.get("validate_only", body.get("validateOnly", False))
        if validate_only:
            return _named(self._project, "fake_message_id")
        seq = self._outbox.next_seq
        ref = f"0:{int(self._clock() * 1e6)}%{self._run}{seq:08x}"
        name = f"projects/{self._project}/messages/{ref}"
        shown = message.get("notification") or {}
        texts = (("title", shown.get("title", "")), ("body", shown.get("body", "")))
        data = message.get("data") or {}
        key = data.get("delivery")
        self._outbox.add(
            Provider.FCM,
            address,
            Filled(self._outbox.template(texts)),
            ref=name,
            sender=self._project,
            key=key,
            collapse=_collapse(message),
        )
        return _named(self._project, ref)


def _checked(message: dict[str, Any]) -> str:
    """The address of a good message."""
    for name in message:
        if name not in _KNOWN:
            text = f"Invalid JSON payload received. Unknown name \"{name}\" at 'message': "
            raise _Refused(400, text + "Cannot find field.", field="message")
    targets = [name for name in _TARGETS if message.get(name)]
    if len(targets) != 1:
        text = "Exactly one of token, topic or condition is required"
        field = "message.token" if "token" in message else "message"
        raise _Refused(400, text, fcm="INVALID_ARGUMENT", field=field)
    address = message[targets[0]]
    if not isinstance(address, str) or not address.isprintable() or " " in address:
        raise _Refused(
            400,
            "The registration token is not a valid FCM registration token",
            fcm="INVALID_ARGUMENT",
            field="message.token",
        )
    _check_payload(message)
    if address.startswith("unregistered-"):
        raise _Refused(404, "Requested entity was not found.", fcm="UNREGISTERED")
    if address.startswith("mismatch-"):
        raise _Refused(403, "SenderId mismatch", fcm="SENDER_ID_MISMATCH")
    return address if targets[0] == "token" else f"{targets[0]}:{address}"


def _check_payload(message: dict[str, Any]) -> None:
    for path in ("android", "android.notification", "apns", "apns.headers", "webpush"):
        if not isinstance(_at(message, path), dict):
            text = f"Invalid value at 'message.{path}'"
            raise _Refused(400, text, fcm="INVALID_ARGUMENT", field=f"message.{path}")
    data = message.get("data") or {}
    if not isinstance(data, dict) or not all(isinstance(v, str) for v in data.values()):
        text = "Invalid value at 'message.data': expected strings"
        raise _Refused(400, text, fcm="INVALID_ARGUMENT", field="message.data")
    shown = message.get("notification") or {}
    if not isinstance(shown, dict) or not all(isinstance(v, str) for v in shown.values()):
        text = "Invalid value at 'message.notification'"
        raise _Refused(400, text, fcm="INVALID_ARGUMENT", field="message.notification")
    if len(orjson.dumps({"data": data, "notification": shown})) > MAX_PAYLOAD:
        text = "Android message is too big"
        raise _Refused(400, text, fcm="INVALID_ARGUMENT", field="message.data")
    ttl = _at(message, "android").get("ttl")
    if ttl is not None:
        found = _TTL.fullmatch(ttl) if isinstance(ttl, str) else None
        if found is None or int(found[1]) > _MAX_TTL:
            text = "Invalid value at 'message.android.ttl'"
            raise _Refused(400, text, fcm="INVALID_ARGUMENT", field="message.android.ttl")


def _collapse(message: dict[str, Any]) -> str | None:
    """What an earlier notice on the same device is replaced by, if by anything."""
    android = _at(message, "android")
    tag = _at(message, "android.notification").get("tag")
    key = tag or android.get("collapse_key") or android.get("collapseKey")
    key = key or _at(message, "apns.headers").get("apns-collapse-id")
    return str(key) if key else None


def _at(message: dict[str, Any], path: str) -> Any:
    """The object at a dotted path; an empty one where there is none."""
    value: Any = message
    for name in path.split("."):
        value = value.get(name, {})
        if not isinstance(value, dict):
            break
    return value


def _named(project: str, ref: str) -> bytes:
    name = f"projects/{project}/messages/{ref}"
    return reply(200, b'{\n  "name": "%b"\n}\n' % name.encode(), JSON_UTF8)


def _error(status: int, message: str, details: list[dict[str, Any]]) -> bytes:
    word = _STATUSES.get(status, ("UNKNOWN", ""))[0]
    error: dict[str, Any] = {"code": status, "message": message, "status": word}
    if details:
        error["details"] = details
    return reply(status, orjson.dumps({"error": error}), JSON_UTF8)

"""Twilio's webhooks: status callbacks of messages and messages that come in, signed.

Owns their parameters and signatures. It must not know when they are due or how they are
posted. https://www.twilio.com/docs/usage/security#validating-requests
"""

import base64
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from urllib.parse import quote_plus

from channels.sandbox import credentials
from channels.sandbox.courier import Courier
from channels.sandbox.event_rules import Regimes
from channels.sandbox.orders import TwilioInbound
from channels.sandbox.outbox import Outbox
from channels.sandbox.outgoing import Parcel
from channels.sandbox.telling import Telling
from channels.sandbox.twilio_progress import Progress, Step

_POOL_NUMBER = credentials.TWILIO_FROM
_FORGER = b"not-the-key-of-the-account"
_STOP = frozenset(["STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"])
_START = frozenset(["START", "YES", "UNSTOP"])
_HELP = frozenset(["HELP", "INFO"])

Params = Sequence[tuple[str, str]]  # sorted by name


def retry(parcel: Parcel, status: int | None, connected: bool) -> float | None:
    """Twilio tries once more, and only where no connection was made.

    https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides
    """
    return 1.0 if not connected and status is None and parcel.tries == 0 else None


def opt_out_type(body: str) -> str | None:
    """STOP, START or HELP for a word that means it.

    https://help.twilio.com/articles/223134027
    """
    word = body.strip().upper()
    if word in _STOP:
        return "STOP"
    if word in _START:
        return "START"
    return "HELP" if word in _HELP else None


class TwilioCallbacks:
    """What one account tells."""

    def __init__(
        self,
        account: str,
        token: str,
        *,
        outbox: Outbox,
        progress: Progress,
        courier: Courier,
        regimes: Regimes,
        clock: Callable[[], float],
    ) -> None:
        self._account = account
        self._token = token.encode()
        self._outbox = outbox
        self._progress = progress
        self._courier = courier
        self._regimes = regimes
        self._clock = clock
        self._telling = Telling(courier, regimes, clock)

    def expect(self, seq: int, url: str) -> None:
        """A message was taken; what becomes of it is told to this URL."""
        self._courier.pending += 1  # until it is known how many events there will be
        start = self._progress.begins(seq)
        self._courier.at(start, lambda: self._spread(seq, url))

    def _spread(self, seq: int, url: str) -> None:
        self._courier.pending -= 1
        steps = self._progress.steps(seq)
        self._telling.plan(seq, [step.at for step in steps], lambda n: self._say(seq, url, steps[n], n))  # fmt: skip

    def _say(self, seq: int, url: str, step: Step, n: int) -> None:
        params = self._status_params(seq, step)
        if not self._post(url, params):
            self._telling.bar()
        elif self._telling.is_forged(seq, n):
            self._courier.counts.forged += 1
            self._courier.pending += 1
            lie = "delivered" if self._progress.fate(seq) != "delivered" else "failed"
            said = Step(lie, step.at, None if lie == "delivered" else 30007)
            self._post(url, self._status_params(seq, said), forged=True)

    def _status_params(self, seq: int, step: Step) -> Params:
        outbox = self._outbox
        sid, sender = outbox.ref(seq), outbox.sender(seq)
        service = sender if sender.startswith("MG") else None
        params = [("AccountSid", self._account), ("ApiVersion", "2010-04-01")]
        if step.code is not None:
            params.append(("ErrorCode", str(step.code)))
        if service is None or step.word != "queued":
            params.append(("From", _POOL_NUMBER if service else sender))
        params.append(("MessageSid", sid))
        params.append(("MessageStatus", step.word))
        if service is not None:
            params.append(("MessagingServiceSid", service))
        if step.word in ("delivered", "undelivered"):
            params.append(("RawDlrDoneDate", _done(int(step.at) // 60)))
        params += [("SmsSid", sid), ("SmsStatus", step.word), ("To", outbox.address(seq))]
        return params

    # --- inbound -------------------------------------------------------------------------

    def inbound(self, order: TwilioInbound) -> None:
        """Tells of a message that came in. Raises ValueError when nobody is to be told."""
        url = order.url or self._regimes.current.url
        if url is None:
            raise ValueError("name a url, here or by PUT /_sandbox/events")
        service = order.to if order.to.startswith("MG") else order.service
        sid = f"SM{secrets.token_hex(16)}"
        params = {
            "AccountSid": self._account,
            "ApiVersion": "2010-04-01",
            "Body": order.body,
            "From": order.sender,
            "FromCountry": "US",
            "MessageSid": sid,
            "NumMedia": "0",
            "NumSegments": "1",
            "SmsMessageSid": sid,
            "SmsSid": sid,
            "SmsStatus": "received",
            "To": _POOL_NUMBER if order.to.startswith("MG") else order.to,
            "ToCountry": "US",
        }
        if service is not None:
            params["MessagingServiceSid"] = service
        kind = opt_out_type(order.body)
        if kind is not None:
            params["OptOutType"] = kind
        self._courier.pending += 1
        if not self._post(url, sorted(params.items())):
            self._telling.bar()
            raise ValueError("only http to loopback, unless the sandbox was exposed")

    # --- the request ---------------------------------------------------------------------

    def _post(self, url: str, params: Params, *, forged: bool = False) -> bool:
        """Signs and posts; False when that may not go there."""
        target, path = self._courier.target(url)
        if target is None:
            return False
        signed = url.partition("#")[0]
        signed += "".join([name + value for name, value in params])
        extra = ""
        if self._regimes.current.algorithm == "sha256":
            key, digest = credentials.TWILIO_SHARED_KEY.encode(), "sha256"
            name = credentials.TWILIO_SHARED_KEY_ID
            extra = f"X-Twilio-Webhooks-Signature-Settings: key={name},algorithm=HMAC_SHA256\r\n"
        else:
            key, digest = self._token, "sha1"
        mac = hmac.digest(_FORGER if forged else key, signed.encode(), digest)
        body = "&".join([f"{name}={_quoted(value)}" for name, value in params])
        host = f"[{target.host}]" if ":" in target.host else target.host
        data = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{target.port}\r\n"
            "User-Agent: TwilioProxy/1.1\r\nAccept: */*\r\n"
            "Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n"
            f"{extra}X-Twilio-Signature: {base64.b64encode(mac).decode()}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        self._courier.post(Parcel(target, data.encode(), forged=forged))
        return True


def _quoted(value: str) -> str:
    """As quote_plus does it; most values are words or numbers, which need not be looked through."""
    if value.isascii():
        if value.isalnum():
            return value
        if value[:1] == "+" and value[1:].isdigit():
            return "%2B" + value[1:]
    return _rarely_quoted(value)


_rarely_quoted = lru_cache(maxsize=64)(quote_plus)


@lru_cache(maxsize=16)
def _done(minute: int) -> str:
    """YYMMDDhhmm, as carriers write it."""
    return time.strftime("%y%m%d%H%M", time.gmtime(minute * 60))

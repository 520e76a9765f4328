"""What a sandbox is started with.

Owns the options and their bounds. It must not know the providers' protocols.
"""

import ipaddress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from channels.sandbox import credentials


class Provider(StrEnum):
    """The providers that are simulated; the word used by the control calls."""

    TWILIO = "twilio"
    SENDGRID = "sendgrid"
    X = "x"
    FCM = "fcm"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """Options of one sandbox process.

    `port` 0 takes a free one. `host` must be a loopback address unless `exposed` says that
    others may reach it (a container network): the control calls have no other protection.
    `announce` is a file that gets the URL once the port listens. `state_dir` holds the
    service account's key; None means that nobody can get a push token. Delays and windows
    are in seconds, rates per second.

    Raises ValueError for an address that is not loopback without `exposed`.
    """

    host: str = "127.0.0.1"
    port: int = 0
    exposed: bool = False
    announce: Path | None = None
    state_dir: Path | None = None
    seed: int = 1

    twilio_account_sid: str = credentials.TWILIO_ACCOUNT_SID
    twilio_auth_token: str = credentials.TWILIO_AUTH_TOKEN
    twilio_api_key: str = credentials.TWILIO_API_KEY
    twilio_api_secret: str = credentials.TWILIO_API_SECRET
    twilio_sent_after: float = 1.0
    twilio_delivered_after: float = 3.0

    sendgrid_api_key: str = credentials.SENDGRID_API_KEY
    sendgrid_rate: int = 10_000

    x_consumer_key: str = credentials.X_CONSUMER_KEY
    x_consumer_secret: str = credentials.X_CONSUMER_SECRET
    x_access_token: str = credentials.X_ACCESS_TOKEN
    x_access_token_secret: str = credentials.X_ACCESS_TOKEN_SECRET
    x_user_token: str = credentials.X_USER_TOKEN
    x_app_token: str = credentials.X_APP_TOKEN
    x_user_id: str = credentials.X_USER_ID
    x_username: str = credentials.X_USERNAME
    x_posts_per_window: int = 100
    x_window: float = 900.0
    x_replies_refused: bool = False

    fcm_project: str = credentials.FCM_PROJECT
    fcm_client_email: str = credentials.FCM_CLIENT_EMAIL

    def __post_init__(self) -> None:
        if not self.exposed and not _is_loopback(self.host):
            raise ValueError(
                "The sandbox listens on loopback only; allow another address explicitly."
            )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

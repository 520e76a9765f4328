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
    twilio_account_sid_2: str = credentials.TWILIO_ACCOUNT_SID_2
    twilio_auth_token_2: str = credentials.TWILIO_AUTH_TOKEN_2
    twilio_sent_after: float = 1.0
    twilio_delivered_after: float = 3.0
    twilio_list_lag: float = 1.0
    twilio_queue_limit: float = 36_000.0

    sendgrid_api_key: str = credentials.SENDGRID_API_KEY
    sendgrid_api_key_2: str = credentials.SENDGRID_API_KEY_2
    sendgrid_rate: int = 10_000
    sendgrid_delivered_after: float = 1.0
    sendgrid_flush: float = 1.0

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
    x_list_lag: float = 1.0

    fcm_project: str = credentials.FCM_PROJECT
    fcm_client_email: str = credentials.FCM_CLIENT_EMAIL

    def __post_init__(self) -> None:
        if not self.exposed and not is_loopback(self.host):
            raise ValueError(
                "The sandbox listens on loopback only; allow another address explicitly."
            )


class Behaviour:
    """What the control calls may change while the sandbox runs; starts as the config says.

    `twilio_sender_rates` are segments a second by sender, `*` for every other one.
    """

    def __init__(self, config: SandboxConfig) -> None:
        self.x_replies_refused = config.x_replies_refused
        self.x_list_lag = config.x_list_lag
        self.twilio_list_lag = config.twilio_list_lag
        self.twilio_sent_after = config.twilio_sent_after
        self.twilio_delivered_after = config.twilio_delivered_after
        self.twilio_sender_rates: dict[str, float | None] = {}
        self.twilio_queue_limit = config.twilio_queue_limit
        self.sendgrid_delivered_after = config.sendgrid_delivered_after
        self.sendgrid_flush = config.sendgrid_flush


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's own, by name or by number."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

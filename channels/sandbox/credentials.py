"""The fixed, public, obviously fake credentials of sandbox mode.

Owns the constants that both ends of the simulated wire share, and the sandbox's own
service account. None of them opens anything anywhere; no private key is in the source:
the RSA key of the service account is made on first use in a state folder.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import cast

TWILIO_ACCOUNT_SID = "AC" + "5a9db0c5" * 4
TWILIO_AUTH_TOKEN = "5a9db0c5face0ff1" * 2
TWILIO_API_KEY = "SK" + "5a9db0c5" * 4
TWILIO_API_SECRET = "sandbox-only-not-a-secret"
TWILIO_SHARED_KEY_ID = "webhooks_sharedkey_" + "5a9db0c5" * 4  # of the newer signature
TWILIO_SHARED_KEY = "sandbox-only-shared-key-not-a-secret"
TWILIO_ACCOUNT_SID_2 = "AC" + "5a9db0c6" * 4
TWILIO_AUTH_TOKEN_2 = "5a9db0c6face0ff2" * 2
TWILIO_FROM = "+15005550006"  # the provider's own magic number that may send
TWILIO_MESSAGING_SERVICE = "MG" + "5a9db0c5" * 4

SENDGRID_API_KEY = "SG.sandbox-only-not-a-key.0000000000000000000000000000000000000000000"
SENDGRID_API_KEY_2 = "SG.sandbox-only-not-a-key.2222222222222222222222222222222222222222222"
SENDGRID_FROM = "outages@example.com"

X_CONSUMER_KEY = "sandboxConsumerKey0000000"
X_CONSUMER_SECRET = "sandboxConsumerSecret" + "0" * 29
X_ACCESS_TOKEN = "1000000000000000001-sandboxAccessToken00000000"
X_ACCESS_TOKEN_SECRET = "sandboxAccessTokenSecret" + "0" * 21
X_USER_TOKEN = "sandbox-oauth2-user-context-token"
X_APP_TOKEN = "sandbox-oauth2-application-only-token"
X_USER_ID = "1000000000000000001"
X_USERNAME = "outage_sandbox"

FCM_PROJECT = "outage-sandbox"
FCM_CLIENT_EMAIL = f"sandbox@{FCM_PROJECT}.iam.gserviceaccount.com"
FCM_KEY_ID = "5a9db0c5" * 5

_ACCOUNT_FILE = "service-account.json"


def service_account(state_dir: Path, base_url: str = "http://127.0.0.1") -> str:
    """The sandbox's Google service account as the JSON text that google-auth reads.

    Its RSA key is created on first use in `state_dir` (mode 0600); every later caller, in
    any process, gets the same one. `base_url` is where the sandbox listens: the account's
    `token_uri` points there, never at Google.

    Raises OSError when the folder can be neither made nor written.
    """
    account = load_service_account(state_dir)
    if account is None:
        account = _create(state_dir)
    account["token_uri"] = f"{base_url.rstrip('/')}/token"
    return json.dumps(account)


def load_service_account(state_dir: Path) -> dict[str, str] | None:
    """The stored account, or None when nobody has asked for one yet."""
    try:
        text = (state_dir / _ACCOUNT_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return cast("dict[str, str]", json.loads(text))


def _create(state_dir: Path) -> dict[str, str]:
    state_dir.mkdir(parents=True, exist_ok=True)
    account = {
        "type": "service_account",
        "project_id": FCM_PROJECT,
        "private_key_id": FCM_KEY_ID,
        "private_key": _private_key(),
        "client_email": FCM_CLIENT_EMAIL,
        "client_id": "100000000000000000001",
        "universe_domain": "googleapis.com",
    }
    handle, name = tempfile.mkstemp(dir=state_dir, prefix=".account-")  # 0600 by itself
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(account, file)
        # A link refuses to replace: of two processes that start together one wins, whole.
        (state_dir / _ACCOUNT_FILE).hardlink_to(temporary)
    except FileExistsError:
        return cast("dict[str, str]", load_service_account(state_dir))
    finally:
        temporary.unlink()
    return account


def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()

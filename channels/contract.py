"""What every channel adapter promises, and the values that cross the border.

`channels` is a leaf: it knows messages, addresses and providers, and nothing of
incidents, ledgers or Celery. An adapter makes one try per envelope and reports one
`Outcome` for each as it becomes known. It never loops, sleeps, shortens a text or
repeats a request; those are the engine's decisions.

    Outcome
    |- Accepted          the provider has it
    |- TryLater          throttled, refused for now, or never reached the provider
    |- MessageRefused    this content can never pass
    |- RecipientRefused  this address can never receive (invalid, opted out, unregistered)
    |- AdapterBroken     credentials, account or billing: nobody can be reached this way
    `- Unknown           the request left and the answer did not come
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Protocol, runtime_checkable


class Channel(StrEnum):
    """What a person would call the way a message reaches them."""

    SMS = "sms"
    EMAIL = "email"
    SOCIAL = "social"
    PUSH = "push"


class ContactKind(StrEnum):
    """Kinds of address. Failover between adapters stays within one kind."""

    PHONE = "phone"
    EMAIL = "email"
    FCM_TOKEN = "fcm_token"
    INBOX = "inbox"
    X_ACCOUNT = "x_account"


class Charset(StrEnum):
    """Characters a slot's value may hold; `check` judges with the worst of them."""

    GSM7 = "gsm7"
    UNICODE = "unicode"
    URL = "url"


class Unit(StrEnum):
    """What a provider counts when it limits a sender."""

    MESSAGE = "message"
    SEGMENT = "segment"
    REQUEST = "request"


class Severity(StrEnum):
    """How a problem weighs. An error refuses submission; a warning is shown."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Slot:
    """A per-recipient place in a stored message, written `[[name]]` in its parts."""

    max_chars: int
    charset: Charset = Charset.UNICODE


@dataclass(frozen=True, slots=True)
class Message:
    """What one audience gets on one channel in one locale: rendered once, stored, hashed.

    `parts` maps part name ("text", "subject", "html", "title") to final text, with
    `[[slot]]` where a recipient's own value goes. `thread` groups an incident's posts.
    `sender` is the number, service id, mail address or account it goes out from.
    """

    id: str
    channel: str
    locale: str
    parts: Mapping[str, str]
    slots: Mapping[str, Slot] = field(default_factory=dict)
    thread: str = ""
    sender: str = ""
    expires_at: datetime | None = None
    hash: str = ""


@dataclass(frozen=True, slots=True)
class Envelope:
    """One address for a message. `key` is the delivery id, the only id of ours a provider sees.

    For a try in doubt that the provider is asked about, `tried_at` is when it may have left,
    and `known_refs` are this address's messages that are accounted for already.
    """

    key: str
    address: str = field(repr=False)
    slots: Mapping[str, str] = field(default_factory=dict, repr=False)
    reply_to: str | None = None
    attempt: int = 1
    tried_at: datetime | None = None
    known_refs: frozenset[str] = frozenset()


class Reason(StrEnum):
    """Why an outcome is what it is: few values, used in the ledger and as a metric label."""

    OK = "ok"
    THROTTLED = "throttled"
    PROVIDER_ERROR = "provider_error"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    CONNECTION_LOST = "connection_lost"
    UNREADABLE_ANSWER = "unreadable_answer"
    QUEUE_FULL = "queue_full"
    INVALID_ADDRESS = "invalid_address"
    OPTED_OUT = "opted_out"
    UNREGISTERED = "unregistered"
    NOT_REACHABLE = "not_reachable"
    CONTENT = "content"
    TOO_LONG = "too_long"
    DUPLICATE_CONTENT = "duplicate_content"
    SLOT_VALUE = "slot_value"
    CREDENTIALS = "credentials"
    PERMISSION = "permission"
    ACCOUNT = "account"
    SENDER = "sender"
    QUOTA = "quota"
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has it; `ref` is the provider's own id of this one message."""

    key: str
    ref: str
    reason: Reason = Reason.OK
    detail: str = ""


@dataclass(frozen=True, slots=True)
class TryLater:
    """Not taken, may pass later. `retry_after` is the provider's wish in seconds."""

    key: str
    reason: Reason
    retry_after: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class MessageRefused:
    """Not taken: this content can never pass."""

    key: str
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RecipientRefused:
    """Not taken: this address can never receive; it is suppressed."""

    key: str
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AdapterBroken:
    """Not taken, and nothing else will be until a person mends the account."""

    key: str
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have been taken. Never answered by blind repetition."""

    key: str
    reason: Reason
    detail: str = ""


Outcome = Accepted | TryLater | MessageRefused | RecipientRefused | AdapterBroken | Unknown
"""`detail` is for operators: a provider's code and a few plain words, at most 200
characters, never an address, a slot's value or a credential."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a person should know before a message is sent."""

    severity: Severity
    code: str
    part: str
    message: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How a provider wants to be spoken to. `settle_after`: seconds before `find` may be asked.

    `repeatable`: a key that is sent twice is shown once, so a try in doubt may be repeated.
    """

    unit: Unit
    envelopes_per_request: int = 1
    concurrency: int = 1
    settle_after: float = 60.0
    repeatable: bool = False


class Adapter(Protocol):
    """Code that speaks one provider's protocol for one channel to one kind of contact point."""

    name: ClassVar[str]
    channel: ClassVar[str]
    accepts: ClassVar[str]
    parts: ClassVar[tuple[str, ...]]

    @property
    def limits(self) -> Limits:
        """How this account's provider wants to be spoken to."""
        ...

    def check(self, message: Message) -> list[Problem]:
        """Judge the content without I/O, with worst-case slot values."""
        ...

    def send(self, message: Message, envelopes: Sequence[Envelope]) -> AsyncIterator[Outcome]:
        """Yield exactly one outcome per envelope, as each becomes known, in any order."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """The provider knows this message under `ref`."""

    ref: str


@dataclass(frozen=True, slots=True)
class NotTaken:
    """The provider can tell for certain that it never took this message."""


@dataclass(frozen=True, slots=True)
class CannotTell:
    """The provider cannot say."""


Finding = Found | NotTaken | CannotTell


@runtime_checkable
class Preparing(Protocol):
    """An adapter whose first message would wait: for a vendor's SDK, say, to be loaded."""

    async def prepare(self) -> None:
        """Get over with it, when a worker starts; nothing is sent. Raises `ImportError`."""
        ...


@runtime_checkable
class Reconciler(Protocol):
    """An adapter whose provider can be asked what became of a message in doubt."""

    async def find(self, message: Message, envelopes: Sequence[Envelope]) -> Mapping[str, Finding]:
        """One finding per envelope key, by reading only: nothing is posted to find out.

        Asked no sooner than `limits.settle_after` seconds after `tried_at`. A provider that
        cannot be reached, or whose answer cannot be trusted, is `CannotTell`.
        """
        ...


class ReceiptStatus(StrEnum):
    """How far a provider says that a message has come."""

    TAKEN = "taken"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a provider says later of one message.

    `event` is the same whenever the provider repeats itself. `key` is the delivery id where
    the provider carries it, else empty. `ref` has the form that `Accepted` gave it. `at` is
    the provider's own time of the event.
    """

    event: str
    key: str
    ref: str
    status: ReceiptStatus
    at: datetime | None = None
    reason: Reason = Reason.OK
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Consent:
    """An address that wants nothing more (`wanted` False), cannot receive, or wants to again."""

    event: str
    kind: str
    address: str = field(repr=False)
    wanted: bool
    reason: Reason
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReceiptRequest:
    """A provider's request as it came. Header names are lower-case; `public_url` is the URL the
    provider was given and signs, query included."""

    method: str
    public_url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a request said. `ignored` counts events that mean nothing to us."""

    receipts: tuple[Receipt, ...] = ()
    consents: tuple[Consent, ...] = ()
    ignored: int = 0


class ReceiptRefused(Exception):
    """A receipt request that is not believed or cannot be read; it changes nothing.

    `code` is one of few words for a metric: forged, unsigned, too_old, unreadable,
    not_configured. The text never quotes the request.
    """

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code


@runtime_checkable
class ReceiptReader(Protocol):
    """An adapter whose provider calls back. It verifies the provider's own signature."""

    def read(self, request: ReceiptRequest, *, now: datetime) -> Reading:
        """Pure: no I/O. Raises `ReceiptRefused`."""
        ...


@runtime_checkable
class StatusPoller(Protocol):
    """An adapter whose provider can be asked how far messages have come."""

    async def poll(self, refs: Sequence[str]) -> Mapping[str, Receipt]:
        """What is known by ref; one that could not be asked is left out."""
        ...


class Inbox(Protocol):
    """Where in-app messages are stored. The ledger implements it, wiring binds it."""

    def put(self, items: Sequence["InboxItem"]) -> None:
        """Store each item once per key, durable on return; a repeated key changes nothing.

        Raises `ConnectionError` if the store certainly did not take them.
        """
        ...


@dataclass(frozen=True, slots=True)
class InboxItem:
    """One in-app message for one inbox."""

    key: str
    inbox: str = field(repr=False)
    title: str = ""
    body: str = ""
    thread: str = ""
    expires_at: datetime | None = None

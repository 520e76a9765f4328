"""One test send to whoever asked for it, by the adapters and at the pace of everybody else's.

At most once: a trial is taken by compare-and-set before its request leaves, and one whose end
nobody recorded is closed as unknown, never sent again. Must not know batches, deliveries or
breakers' doors: a test moves no row, suppresses nobody and probes nothing.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog

from channels.contract import (
    Accepted,
    Adapter,
    AdapterBroken,
    ContactKind,
    Envelope,
    Message,
    MessageRefused,
    Outcome,
    Reason,
    RecipientRefused,
    TryLater,
)
from channels.text import SlotError, checked, units
from channels.wire import Permit, permit
from dispatcher.contacts import ContactError, normalise
from dispatcher.delivery.batches import Speed
from dispatcher.delivery.errors import where
from dispatcher.delivery.pacing import Grant, Pace, Pacing
from dispatcher.delivery.patience import until_back
from dispatcher.delivery.starting import Starting
from dispatcher.ledger import breakers, people, trials
from dispatcher.ledger.connection import Ledger
from dispatcher.ledger.trials import LOST_SECONDS, UNKNOWN, Trial
from dispatcher.security.sealing import SealBroken, Sealer

log = structlog.get_logger(__name__)

PATIENCE = 20.0
"""Seconds that a test waits for its sender's next free moment: a person is looking on."""
QUIET = 5.0
"""Seconds after which a test that waits is named again: the broker may have lost it."""

LOST = (
    "The worker stopped before the provider's answer was recorded. It may have arrived: look at"
    " your phone before you ask again."
)
LATE = "No worker had time for it within ten minutes. Nothing was sent: ask again."
BUSY = "The sender is busy with other messages. Nothing was sent: ask again in a minute."


@dataclass(frozen=True, slots=True)
class _Way:
    """A trial with all that sending it takes."""

    name: str
    adapter: Adapter
    message: Message
    envelope: Envelope
    pace: Pace


class _Unsendable(Exception):
    """Nothing of it may leave; the text tells its person why."""


class TrialSending:
    """Sends trials. `adapters`, `drill_adapters` and `speed` are those of `Batches`; `sender`
    knows what a channel sends from to a country, None where it cannot."""

    def __init__(
        self,
        ledger: Ledger,
        sealer: Sealer,
        pacing: Pacing,
        *,
        adapters: Mapping[str, Adapter],
        drill_adapters: Mapping[str, Adapter],
        sender: Callable[[str, str | None], str | None],
        speed: Callable[[str, str], Speed],
        patience: float = PATIENCE,
    ) -> None:
        self._ledger = ledger
        self._sealer = sealer
        self._pacing = pacing
        self._starting: Starting[Envelope] = Starting(pacing)
        self._adapters = adapters
        self._drill_adapters = drill_adapters
        self._sender = sender
        self._speed = speed
        self._patience = patience

    async def try_out(self, trial_id: str) -> bool:
        """Send a trial that waits; False if it is not ours to send, or cannot be sent."""
        trial = await until_back(self._waiting, trial_id)
        if trial is None:
            return False
        try:
            way = await until_back(self._way, trial)
        except _Unsendable as told:
            await until_back(self._refuse, trial_id, str(told))
            return False
        grant = await self._granted(way, self._patience)
        if not grant.count:
            await until_back(self._refuse, trial_id, BUSY)
            return False
        asked = time.monotonic()
        if not await until_back(self._take, trial_id):
            await self._pacing.give_back(way.pace, grant, grant.count)
            return False
        # Well before another process may call it lost, nothing of it may be started any more.
        permit.set(Permit(asked + LOST_SECONDS / 2))
        outcome, reason = await self._sent(way, grant, gives_up=asked + self._patience)
        await until_back(self._finish, trial_id, outcome, reason)
        log.info("trial", adapter=way.name, outcome=outcome)
        return True

    async def _granted(self, way: _Way, patience: float) -> Grant:
        return await self._pacing.take(way.pace, 1, urgent=True, patience=patience)

    async def _sent(self, way: _Way, grant: Grant, *, gives_up: float) -> tuple[str, str]:
        """Outcome and reason of a trial that was taken; whatever happens, there is one."""
        given: list[Envelope] = []
        outcomes: list[Outcome] = []

        async def launch(part: Sequence[Envelope]) -> None:
            given.extend(part)
            async for outcome in way.adapter.send(way.message, part):
                outcomes.append(outcome)

        try:
            async with asyncio.TaskGroup() as group:
                left = [way.envelope]
                while left and grant.count:
                    left = await self._starting.start(
                        group, way.pace, grant, left, launch, urgent=True
                    )
                    if left:  # its moment passed, and no other was near
                        grant = await self._granted(way, max(0.0, gives_up - time.monotonic()))
        # As with a window: whatever escaped an adapter, what it had is in doubt.
        except Exception as error:
            log.error("trial.bug", adapter=way.name, errors=where(error))  # noqa: TRY400
        if not given:
            return trials.NOT_SENT, BUSY
        if not outcomes:
            return UNKNOWN, _IN_DOUBT
        outcome = outcomes[0]
        if isinstance(outcome, TryLater) and outcome.reason is Reason.THROTTLED:
            await self._pacing.throttled(way.pace, outcome.retry_after)
        return told(outcome)

    # -- ledger calls, each run in a thread ------------------------------------------

    def _waiting(self, trial_id: str) -> Trial | None:
        with self._ledger.read() as conn:
            return trials.waiting(conn, trial_id)

    def _take(self, trial_id: str) -> bool:
        with self._ledger.transaction() as work:
            return trials.take(work.conn, trial_id)

    def _refuse(self, trial_id: str, reason: str) -> bool:
        with self._ledger.transaction() as work:
            return trials.refuse(work.conn, trial_id, reason=reason)

    def _finish(self, trial_id: str, outcome: str, reason: str) -> bool:
        with self._ledger.transaction() as work:
            return trials.finish(work.conn, trial_id, outcome=outcome, reason=reason)

    def _way(self, trial: Trial) -> _Way:
        """Everything but the moment. Raises `_Unsendable`."""
        message = trial.message
        name, adapter = self._adapter(trial)
        try:
            address = people.opened_address(
                self._sealer, trial.person_id, kind=trial.kind, sealed=trial.sealed
            )
        except SealBroken:
            raise _Unsendable("Your address does not open any more: enter it anew.") from None
        country = _country(address) if trial.kind == ContactKind.PHONE else None
        sender = self._sender(message.channel, country)
        if sender is None:
            raise _Unsendable("No sender is set up for this channel in the organisation's file.")
        message = replace(message, id=trial.id, sender=sender)
        self._check_door(name, sender, kind=trial.kind, address=address)
        speed = self._speed(message.channel, sender)
        return _Way(
            name=name,
            adapter=adapter,
            message=message,
            envelope=Envelope(key=trial.id, address=address, slots=_slots(message, trial.name)),
            pace=Pace(
                sender=f"{name}:{sender}",
                rate=speed.rate,
                units=units(message, adapter.limits.unit),
                together=1,
                budgets=speed.budgets,
            ),
        )

    def _adapter(self, trial: Trial) -> tuple[str, Adapter]:
        """The one that planning would choose: the first that serves."""
        serving = self._drill_adapters if trial.drill else self._adapters
        for name, adapter in serving.items():
            if (adapter.channel, adapter.accepts) == (trial.message.channel, trial.kind):
                return name, adapter
        raise _Unsendable("No account is set up that sends this.")

    def _check_door(self, adapter: str, sender: str, *, kind: str, address: str) -> None:
        with self._ledger.read() as conn:
            if trials.suppressed(conn, kind=kind, lookup=self._sealer.lookup(kind, address)):
                raise _Unsendable(
                    "This address wants no messages from us (it opted out, or cannot receive):"
                    " lift its suppression first, or use another address."
                )
            for breaker in breakers.open_now(conn):
                if breaker.adapter == adapter and breaker.sender in ("", sender):
                    raise _Unsendable(
                        "Nothing goes out by this account now, because it fails"
                        f" ({breaker.reason.replace('_', ' ')}): it is tried again by itself."
                    )


def close_cut_off(ledger: Ledger, name: Callable[[str], object]) -> None:
    """A chore of the sweep: close trials that were cut off, name again those nobody took."""
    with ledger.transaction() as work:
        trials.close_cut_off(work.conn, lost=LOST, late=LATE)
        unnamed = trials.unnamed(work.conn, quiet_seconds=QUIET)
    for trial_id in unnamed:
        name(trial_id)


def _country(address: str) -> str | None:
    try:
        return normalise(ContactKind.PHONE, address).country
    except ContactError:
        return None


def _slots(message: Message, name: str) -> dict[str, str]:
    """The person's own name where the message has a place for one. Raises `_Unsendable`."""
    if "name" not in message.slots:
        return {}
    try:
        return {"name": checked("name", message.slots["name"], name)}
    except SlotError as refused:
        raise _Unsendable(f"Your name does not fit the message: {refused.reason}.") from None


_IN_DOUBT = (
    "The provider's answer did not come. It may have arrived: look at your phone before you ask"
    " again."
)
_REASONS: Mapping[Reason, str] = {
    Reason.THROTTLED: "The provider says that we send too fast: ask again in a minute.",
    Reason.PROVIDER_ERROR: "The provider has an error of its own: ask again in a minute.",
    Reason.UNREACHABLE: "The provider could not be reached: nothing was sent.",
    Reason.QUEUE_FULL: "The provider's queue for this sender is full: ask again in a minute.",
    Reason.INVALID_ADDRESS: "The provider says that your address does not exist: correct it.",
    Reason.OPTED_OUT: "Your address has opted out: answer START to our number, or use another.",
    Reason.UNREGISTERED: "The app is not installed on that device any more: enter a new token.",
    Reason.NOT_REACHABLE: "The provider does not reach your address: use another.",
    Reason.CONTENT: "The provider refuses these words: the update would be refused, too.",
    Reason.TOO_LONG: "The message is too long for the provider: the update would be, too.",
    Reason.DUPLICATE_CONTENT: "The provider refuses the same words twice: change them first.",
    Reason.SLOT_VALUE: "Your name does not fit the message.",
    Reason.CREDENTIALS: "The provider refuses our credentials: an operator has to renew them.",
    Reason.PERMISSION: "The account may not do this: an operator has to ask the provider.",
    Reason.ACCOUNT: "The provider has closed or suspended the account: an operator has to act.",
    Reason.SENDER: "The provider refuses the number or address we send from: tell an operator.",
    Reason.QUOTA: "The account has used up what it may send: an operator has to raise it.",
}


def told(outcome: Outcome) -> tuple[str, str]:
    """What a trial's person is told: a word, and a reason that can be acted on.

    No `detail` of a provider is repeated: it is for operators.
    """
    match outcome:
        case Accepted():
            return "accepted", "The provider has it: it should arrive within a minute."
        case TryLater():
            word = "try_later"
        case MessageRefused():
            word = "message_refused"
        case RecipientRefused():
            word = "recipient_refused"
        case AdapterBroken():
            word = "adapter_broken"
        case _:
            return UNKNOWN, _IN_DOUBT
    return word, _REASONS.get(outcome.reason, "The provider did not take it.")

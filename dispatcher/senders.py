"""How fast a sender goes and what it costs, as the organisation's file has it."""

from collections.abc import Sequence

from dispatcher.audiences import Packs
from dispatcher.audiences.values import WINDOWS
from dispatcher.delivery.batches import Speed
from dispatcher.delivery.failover import Account
from dispatcher.delivery.pacing import Budget


def sender_of(packs: Packs, channel: str, country: str | None) -> str | None:
    """What a channel sends from to a country, None where it has nothing to send from."""
    found = packs.organisation.sender(channel, country)
    return None if found is None else found.value


def sender_rate(packs: Packs, sandbox: bool, channel: str, sender: str) -> float:
    """Units per second of a sender; one the packs do not know goes at one a second."""
    return sender_speed(packs, sandbox, channel, sender).rate


def sender_speed(
    packs: Packs, sandbox: bool, channel: str, sender: str, *, accounts: Sequence[Account] = ()
) -> Speed:
    """A sender's rate and long windows; simulators have the rate alone."""
    for known in packs.organisation.senders.get(channel, {}).values():
        if known.value == sender:
            windows = () if sandbox else WINDOWS.get(known.kind, ())
            return Speed(
                known.sandbox_rate if sandbox else known.rate,
                tuple(Budget(seconds, units) for seconds, units in windows),
            )
    for account in accounts:
        if account.channel == channel and account.sender == sender:
            return Speed(account.rate)
    return Speed(1.0)


def sender_price(packs: Packs, channel: str, sender: str) -> float:
    """List price of one unit in the organisation's currency, 0 where none is stated."""
    for known in packs.organisation.senders.get(channel, {}).values():
        if known.value == sender:
            return known.price
    return 0.0

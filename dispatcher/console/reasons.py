"""Why a message did not arrive, and what can be done about it, in words for the desk.

Pure. Owns the words for the ledger's states and reasons; a code without words is shown as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Told:
    """A reason as people read it. `remedy` is empty where nothing needs to be done."""

    words: str
    remedy: str = ""


_CONTACTS = "Mend the contact in the recipients' file and import it again; the next update uses it."
_BY_ITSELF = "Nothing to do now: the dispatcher tried as long as it could."
_OPERATIONS = "Tell operations: the provider's account needs a person."
_CONTENT = "The provider refuses these words. Change them in the next update."

_SKIPPED: Mapping[str, Told] = {
    "not_told_before": Told("Never heard of this incident, so not told that it is over"),
    "suppressed": Told(
        "Opted out, or the address has bounced before",
        "Reach them another way. Only they themselves can opt in again.",
    ),
    "opted_out": Told("Opted out just before sending", "Reach them another way."),
    "no_adapter": Told(
        "No provider is set up for this channel",
        "Ask operations to set up the channel, then send the next update.",
    ),
    "no_message": Told(
        "There is no message for this audience on this channel",
        "Add the text to the audience's templates for the next update.",
    ),
    "shared_contact": Told("Shares a contact that was told already"),
    "no_contact": Told("No address for any channel of this audience", _CONTACTS),
    "other_audience": Told(
        "Belongs to another audience, which this update does not name",
        "Name that audience in the next update if they should hear it.",
    ),
}

_FAILED: Mapping[str, Told] = {
    "throttled": Told("The provider kept asking us to wait", _BY_ITSELF),
    "queue_full": Told("The provider's queue was full", _BY_ITSELF),
    "provider_error": Told("The provider had an error of its own", _BY_ITSELF),
    "unreachable": Told("The provider could not be reached", _BY_ITSELF),
    "timeout": Told("The provider did not answer in time", _BY_ITSELF),
    "connection_lost": Told("The connection to the provider broke off", _BY_ITSELF),
    "unreadable_answer": Told("The provider's answer could not be read", _OPERATIONS),
    "invalid_address": Told("The address does not exist", _CONTACTS),
    "opted_out": Told("Opted out", "Reach them another way. Only they can opt in again."),
    "unregistered": Told("The app is no longer on the device", "Reach them another way."),
    "not_reachable": Told(
        "The device or mailbox could not be reached", "The next update tries them again."
    ),
    "content": Told("The provider refused the words", _CONTENT),
    "too_long": Told("The message is too long for the provider", _CONTENT),
    "duplicate_content": Told(
        "The provider takes the same words only once", "Change a few words in the next update."
    ),
    "slot_value": Told("A name did not fit into the message", _CONTACTS),
    "credentials": Told("The provider does not accept our credentials", _OPERATIONS),
    "permission": Told("The provider does not allow us to do this", _OPERATIONS),
    "account": Told("Our account at the provider is closed or blocked", _OPERATIONS),
    "sender": Told("The provider does not accept our sender", _OPERATIONS),
    "quota": Told("Our quota at the provider is used up", _OPERATIONS),
    "tries_used_up": Told("Tried several times, never taken", _BY_ITSELF),
    "expires_first": Told("Would have come too late, so it was not tried again", _BY_ITSELF),
    "settled": Told("A person found out that it did not arrive"),
    "bug": Told("A fault of this program", "Tell operations: the log of the worker says more."),
}

_UNKNOWN = "If the provider cannot tell, a person settles it: see the operator's handbook."
_STATES: Mapping[str, Told] = {
    "unknown": Told("In doubt: it may have arrived. It is being asked at the provider", _UNKNOWN),
    "expired": Told("Too late: the update's time was over", "Send a newer update."),
    "stopped": Told("Stopped before it left", "Resume, if it should go out after all."),
    "superseded": Told("A newer update takes its place"),
    "spared": Told("Never heard of this incident, so not told that it is over"),
    "pending": Told("Waits to be sent"),
    "sending": Told("Is being sent"),
    "accepted": Told("Taken by the provider"),
    "delivered": Told("Arrived"),
    "failed": Told("Failed"),
    "skipped": Told("Not sent"),
}


_CHANNELS: Mapping[str, str] = {
    "sms": "SMS",
    "email": "Email",
    "push": "Push",
    "social": "Social media",
    "": "No channel",
    "none": "No channel",
}


NO_WAY = "No way to reach them with this update"
"""Whose rows have no channel: no address for any, or another audience's people."""


def channel(name: str) -> str:
    """What people call a channel."""
    return _CHANNELS.get(name, name.replace("_", " ").capitalize())


def told(state: str, reason: str) -> Told:
    """The words for a row's state and reason."""
    if state in ("skipped", "failed"):
        found = (_SKIPPED if state == "skipped" else _FAILED).get(reason)
        if found is not None:
            return found
        return Told(reason.replace("_", " ").capitalize() or _STATES[state].words)
    return _STATES.get(state) or Told(state.replace("_", " ").capitalize())


STATES: Mapping[str, str] = {
    # What an update's whole sending is called, by `http.standing.Stand`.
    "draft": "Not sent: this update is a draft.",
    "submitted": "Not sent: it waits for approval.",
    "approved": "Not sent: it is approved and waits for its release.",
    "planning": "Still being planned: the numbers grow until everybody is counted.",
    "sending": "Being sent.",
    "stopped": "Stopped by a person: nothing more leaves.",
    "released": "Sent as far as possible. It is not complete yet: something waits, is in doubt,"
    " or is being counted once more.",
    "complete": "Complete: nothing waits, and every number was checked against every row.",
    "withdrawn": "Withdrawn before anything left.",
}

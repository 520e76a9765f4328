"""Claims that one person alone should not make: if they are wrong, people come to harm by them.

Pure. Which facts are such claims is told by experience: a network "not attacked" that was, a
service "restored" that was not, emergency calls that "work" and do not.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from dispatcher.incidents import (
    CauseCode,
    CauseFact,
    Confidence,
    EmergencyCallsFact,
    EndedFact,
    NewFact,
    NotCauseFact,
    Phase,
    RestoredFact,
)


class ClaimKind(StrEnum):
    """What is claimed."""

    NOT_AN_ATTACK = "not_an_attack"
    EMERGENCY_CALLS_WORK = "emergency_calls_work"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim, in the words of the question that its second owner answers."""

    kind: ClaimKind
    question: str
    source: str


_QUESTIONS = {
    ClaimKind.NOT_AN_ATTACK: "It is not a cyberattack: security has confirmed it to me.",
    ClaimKind.EMERGENCY_CALLS_WORK: "Emergency calls work: it was tried, or measured, just now.",
    ClaimKind.RESTORED: "Service is back: measurements show it, not only the repair.",
}


def sensitive(facts: Iterable[NewFact]) -> tuple[Claim, ...]:
    """The claims among these facts that need a second owner, each kind once."""
    found: dict[ClaimKind, Claim] = {}
    for fact in facts:
        kind = _kind(fact)
        if kind is not None and kind not in found:
            found[kind] = Claim(kind, _QUESTIONS[kind], fact.source)
    return tuple(found.values())


def unsupported(phase: Phase, facts: Iterable[NewFact]) -> str:
    """Why a phase says more than the facts that stand do; empty if it does not.

    Words that it is over, beside "75 % is back", are believed by nobody.
    """
    if phase is not Phase.RESOLVED:
        return ""
    if any(_kind(fact) is ClaimKind.RESTORED for fact in facts):
        return ""
    return "It says that it is over, but no fact says that all service is back, or since when."


def _kind(fact: NewFact) -> ClaimKind | None:
    match fact:
        case NotCauseFact() if fact.value.code is CauseCode.CYBERATTACK:
            return ClaimKind.NOT_AN_ATTACK
        case CauseFact() if (
            fact.value.code is CauseCode.CYBERATTACK and fact.confidence is Confidence.RULED_OUT
        ):
            return ClaimKind.NOT_AN_ATTACK
        case EmergencyCallsFact() if fact.value.status == "working":
            return ClaimKind.EMERGENCY_CALLS_WORK
        case RestoredFact() if fact.value.percent == 100:
            return ClaimKind.RESTORED
        case EndedFact():
            return ClaimKind.RESTORED
        case _:
            return None

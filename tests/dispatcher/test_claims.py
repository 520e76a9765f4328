"""Which facts are claims that one person alone should not make."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter

from dispatcher.claims import ClaimKind, sensitive, unsupported
from dispatcher.incidents import NewFact, Phase

FACT: TypeAdapter[NewFact] = TypeAdapter(NewFact)
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def stated(kind: str, confidence: str = "confirmed", **value: Any) -> NewFact:
    return FACT.validate_python(
        {
            "kind": kind,
            "value": value,
            "confidence": confidence,
            "source": "NOC",
            "known_at": NOON,
        }
    )


@pytest.mark.parametrize(
    ("fact", "kind"),
    [
        (stated("not_cause", code="cyberattack"), ClaimKind.NOT_AN_ATTACK),
        (stated("not_cause", "believed", code="cyberattack"), ClaimKind.NOT_AN_ATTACK),
        (stated("cause", "ruled_out", code="cyberattack"), ClaimKind.NOT_AN_ATTACK),
        (stated("emergency_calls", status="working"), ClaimKind.EMERGENCY_CALLS_WORK),
        (stated("emergency_calls", "believed", status="working"), ClaimKind.EMERGENCY_CALLS_WORK),
        (stated("restored", percent=100), ClaimKind.RESTORED),
        (stated("ended", at=NOON), ClaimKind.RESTORED),
        (stated("cause", code="cyberattack"), None),
        (stated("cause", "ruled_out", code="power"), None),
        (stated("not_cause", code="power"), None),
        (stated("emergency_calls", status="limited"), None),
        (stated("restored", percent=99), None),
        (stated("scope", count=9, basis="estimated"), None),
    ],
)
def test_what_is_a_claim(fact: NewFact, kind: ClaimKind | None) -> None:
    found = sensitive([fact])
    assert [claim.kind for claim in found] == ([kind] if kind else [])
    assert all(claim.source == "NOC" and claim.question.endswith(".") for claim in found)


def test_each_kind_is_asked_for_once() -> None:
    facts = [stated("restored", percent=100), stated("ended", at=NOON)]
    assert [claim.kind for claim in sensitive(facts)] == [ClaimKind.RESTORED]


def test_who_says_that_it_is_over_says_that_service_is_back() -> None:
    partly = stated("restored", percent=75)
    assert unsupported(Phase.RESOLVED, [partly])
    assert unsupported(Phase.RESOLVED, [])
    assert not unsupported(Phase.MONITORING, [partly])
    assert not unsupported(Phase.RESOLVED, [partly, stated("ended", at=NOON)])
    assert not unsupported(Phase.RESOLVED, [stated("restored", percent=100)])

"""The protocol holds in every state of small worlds, and each way of being wrong is found."""

import re

import pytest

from tests.laws.test_documents import known
from tests.laws.tree import ROOT, read
from tests.model.delivery import Protocol
from tests.model.explorer import Verdict, explore

WORLDS = {
    "one delivery": Protocol(rows=1, askers=2, stops=True),
    "two deliveries": Protocol(rows=2, askers=1, stops=False, renews=False),
}
"""Each with two workers."""

UNSENT = "the ledger says unsent, and the provider has it"
REST = "never at rest again: no fair move leads to a settled state"

BROKEN = {
    "doubts_taken_over": UNSENT,
    "clock_checked": UNSENT,
    "counted_from_question": UNSENT,
    "outcomes_fenced": UNSENT,
    "settles_first": UNSENT,
    "findings_fenced": UNSENT,
    "leftovers_stopped": REST,
}


def document() -> str:
    return read("docs/protocol.md")


@pytest.mark.parametrize("name", WORLDS)
def test_the_protocol_holds_in_every_state(name: str) -> None:
    verdict = explore(WORLDS[name])
    assert verdict.fault == "", verdict.told()
    assert f"| {name} | {verdict.states:,} | {verdict.moves:,} | {verdict.depth} |" in document()


@pytest.mark.parametrize("rule", BROKEN)
def test_a_protocol_without_this_rule_is_found_wrong(rule: str) -> None:
    verdict = broken(rule)
    assert verdict.fault == BROKEN[rule]
    way = "; ".join(verdict.names)
    assert f"| `{rule}` | {len(verdict.names)} | {way} |" in document()


def broken(rule: str) -> Verdict[object]:
    return explore(Protocol(**{rule: False}))  # type: ignore[arg-type]


def test_the_moves_of_the_document_are_those_of_the_model() -> None:
    section = document().partition("## Moves and code")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|`]+?) \| (.+) \|$", section, re.MULTILINE)
    told = {move for cell, _ in rows[1:] for move in cell.split(" · ")}
    names: set[str] = set()
    for protocol in (Protocol(rows=1, askers=1), Protocol(counted_from_question=False)):
        frontier, seen = [protocol.start()], {protocol.start()}
        while frontier:
            for move in protocol.moves(frontier.pop()):
                names.add(move.name)
                if move.after not in seen and len(seen) < 3_000:
                    seen.add(move.after)
                    frontier.append(move.after)
    assert told == names - {"read the answer"}


def test_the_code_of_the_document_exists() -> None:
    names = set(re.findall(r"`((?:[a-z_]+\.)+[A-Za-z_]+(?:\.[A-Za-z_]+)*)`", document()))
    names = {name for name in names if not name.endswith((".py", ".md"))}
    assert len(names) > 12
    assert {n for n in names if not (known(f"dispatcher.{n}") or known(n))} == set()
    paths = set(re.findall(r"`((?:dispatcher|channels|tests)/[\w/.]*)`", document()))
    assert {path for path in paths if not (ROOT / path).exists()} == set()

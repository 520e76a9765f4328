"""`python -m tests.chaos`: many runs under faults, drawn from a seed; exits 1 if one is not good.

With `--json` the last line of stdout is one object. A run that fails keeps its folder with all
logs, and the seed, the faults and the history of each wrong row are written to stderr.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.chaos.clock import build
from tests.chaos.drill import Sums, drill, settled, told, words
from tests.chaos.faults import RARE, dealt
from tests.chaos.plan import Blow, Run, plan
from tests.chaos.site import Site, standing

SIZE, RUNS, BLIND_RUNS, BLOWS = 4_200, 24, 3, 9
DELAY = (0.1, 0.3)
"""Seconds an answer takes: the faults have to fall while messages are on their way."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="drawn from the time if left out")
    parser.add_argument("--json", action="store_true", help="last line of stdout: one object")
    parser.add_argument("--blind", action="store_true", help="only runs of the second sort")
    parser.add_argument("--runs", type=int, default=RUNS, help="with providers that can be asked")
    parser.add_argument("--blind-runs", type=int, default=BLIND_RUNS, help="that do not answer")
    parser.add_argument("--size", type=int, default=SIZE, help="recipients of each run")
    parser.add_argument("--blows", type=int, default=BLOWS, help="faults of each run")
    parser.add_argument("--only", help="kinds, separated by commas; all if left out")
    parser.add_argument("--minutes", type=float, default=15.0, help="no run begins after these")
    return parser


@dataclass(frozen=True, slots=True)
class Part:
    """Runs of one sort."""

    blind: bool
    runs: list[Run]
    sums: Sums


def _parts(asked: argparse.Namespace, kinds: Sequence[str]) -> list[Part]:
    runs = plan(
        asked.seed,
        runs=asked.runs + asked.blind_runs,
        blows=asked.blows,
        kinds=kinds,
        delay=DELAY,
    )
    if not asked.only and len(runs) > 1:
        # Rare, since it takes long: once, in the middle.
        middle = len(runs) // 2
        extra = tuple(Blow(kind, 0.5, 0.5, 0.5) for kind in RARE)
        blows = sorted((*runs[middle].blows, *extra), key=lambda blow: blow.at)
        runs[middle] = replace(runs[middle], blows=tuple(blows))
    if asked.blind:
        return [Part(True, runs, Sums())]
    seeing = Part(False, runs[: asked.runs], Sums())
    return [seeing, Part(True, runs[asked.runs :], Sums())]


def _say(words: str) -> None:
    sys.stderr.write(words + "\n")
    sys.stderr.flush()


def _go(site: Site, part: Part, until: float) -> list[str]:
    """Run after run until one is not good or time is up; what is wrong, in words."""
    site.blind = part.blind
    for run in part.runs:
        if time.monotonic() > until:
            return [f"time was up before run {run.number}"]
        start = time.monotonic()
        try:
            verdict = drill(site, run)
        except AssertionError as error:
            return [str(error), f"run {run.number}: {words(run.blows)}"]
        part.sums.add(run, verdict)
        kinds = ", ".join(blow.kind for blow in run.blows)
        _say(
            f"run {run.number:3}  {time.monotonic() - start:5.1f} s  planned {verdict.planned}"
            f"  held {verdict.held}  lost {verdict.lost}  duplicates {verdict.duplicates}"
            f"  unknown {verdict.unknown} + {verdict.taken} taken"
            f"{'  blind' if part.blind else ''}  [{kinds}]"
        )
        if wrong := told(run, verdict, blind=part.blind):
            return wrong
    if not part.blind:
        try:
            settled(site, site.updates)
        except AssertionError as error:
            return [str(error)]
    return []


def _figures(parts: Sequence[Part], *, seed: int, good: bool) -> dict[str, Any]:
    """The first part's sums, and under `blind` those of a second."""
    first, *rest = [
        asdict(part.sums)
        | {"by_kind": dict(sorted(part.sums.by_kind.items()))}
        | {"mode": "blind" if part.blind else "seeing"}
        for part in parts
    ]
    return first | {"seed": seed, "good": good} | {each["mode"]: each for each in rest}


def main() -> int:
    """Runs what is asked for; 0 if every run was good."""
    asked = _parser().parse_args()
    if asked.seed is None:
        asked.seed = time.time_ns() % 1_000_000
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    clocks = build(folder) is not None
    kinds = asked.only.split(",") if asked.only else dealt(clocks=clocks)
    _say(f"seed {asked.seed}, {len(kinds)} kinds" + ("" if clocks else "; no compiler, no clocks"))
    parts = _parts(asked, kinds)
    until = time.monotonic() + asked.minutes * 60
    wrong: list[str] = []
    with standing(folder / "site", size=asked.size, blind=asked.blind) as site:
        for part in parts:
            wrong = wrong or _go(site, part, until)
        if wrong:
            report = "\n".join([f"seed {asked.seed}", *wrong]) + "\n"
            shutil.copytree(site.house.folder / "log", folder / "kept")
            (folder / "kept" / "report.txt").write_text(report)
            _say(f"\n{report}kept: {folder / 'kept'}")
    if not wrong:
        shutil.rmtree(folder)
    figures = _figures(parts, seed=asked.seed, good=not wrong)
    if asked.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.write("".join(f"{name:14} {value}\n" for name, value in figures.items()))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

"""Run one bench, or all of them, and print what they found.

`python -m bench [NAME] [--json] [--quick] [--keep]`, and `python -m bench report` for the
documents. With `--json` the last line is one object. What is being done goes to stderr.
"""

import argparse
import importlib
import json
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from bench import report, table
from bench.fanout import Void
from bench.racing import Failed
from bench.waiting import TooSlow

NAMES = ("fanout", "pacing", "lanes", "scale", "stop", "receipts", "previews")
REPORT = "report"


def main() -> None:
    options = _options()
    if options.name == REPORT:
        print(report.write())
        return
    # Whoever ends us by SIGTERM gets everything stopped and deleted too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench: told to stop"))
    names = [options.name] if options.name else list(NAMES)
    about = {"machine": table.machine(), "quick": options.quick}
    results, failed = {}, []
    for name in names:
        try:
            results[name] = _run(name, options)
        except (Void, TooSlow, Failed) as error:  # the others' figures are worth having
            failed.append(f"bench: {name}: {error}")
            continue
        if options.keep:
            report.keep({name: results[name]} | about)
    print(table.text(results))
    if options.json and results:
        print(json.dumps((results[options.name] if options.name else results) | about))
    if failed:
        sys.exit("\n".join(failed))


def _run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    run: Callable[..., dict[str, Any]] = importlib.import_module(f"bench.{name}").run
    if name == "pacing":
        return run((10, 100)) if options.quick else run()
    if name == "fanout":
        run = partial(run, peers=not options.ours)

    def say(step: str) -> None:
        print(f"{name}: {step}", file=sys.stderr, flush=True)

    return run(quick=options.quick, say=say)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=(*NAMES, REPORT), help="all if left out")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works")
    parser.add_argument("--keep", action="store_true", help="write into docs/figures.json")
    parser.add_argument("--ours", action="store_true", help="fanout: without its peers")
    return parser.parse_args()


if __name__ == "__main__":
    main()

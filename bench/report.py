"""What the documents show, made of kept results: a table, and charts beside it.

`python -m bench report` reads `docs/figures.json`, writes the charts and prints Markdown.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import table
from bench.charts import Bar, bars
from bench.racing import ROOT

KEPT = ROOT / "docs" / "figures.json"


def write(kept: Path = KEPT) -> str:
    """Write charts beside the kept results; returns the table as Markdown."""
    results = json.loads(kept.read_text(encoding="utf-8"))
    for name, drawn in charts(results):
        (kept.parent / name).write_text(drawn, encoding="utf-8")
    return table.markdown(results, machine=results["machine"])


def keep(results: Mapping[str, Any], kept: Path = KEPT) -> None:
    """Keep results, beside those of other benches that were kept before."""
    before = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    written = json.dumps({**before, **results}, indent=2, ensure_ascii=False)
    kept.write_text(f"{written}\n", encoding="utf-8")


def charts(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """File names and SVG of what the results allow to draw."""
    fanout = results.get("fanout", {})
    if "wire_per_second" in fanout:
        names = {
            "wire": "bare wire",
            "messages": "Outage Dispatcher",
            "apprise": "Apprise",
            "textbook": "task per recipient",
        }
        rates = [(key, name, fanout[f"{key}_per_second"]) for key, name in names.items()]
        yield (
            "fanout.svg",
            bars(
                f"{fanout['messages']:,} SMS: messages a second",
                [Bar(name, rate, f"{rate:,.0f}", key == "messages") for key, name, rate in rates],
            ),
        )
    if lanes := results.get("lanes"):
        shown = {
            "urgent_median_ms": "median, bulk at full speed",
            "urgent_p99_ms": "p99, bulk at full speed",
            "same_sender_urgent_median_ms": "median, one slow sender",
            "same_sender_urgent_p99_ms": "p99, one slow sender",
        }
        yield (
            "lanes.svg",
            bars(
                "An urgent update beside a million bulk deliveries",
                [
                    Bar(name, lanes[key], f"{lanes[key]:,.0f} ms", True)
                    for key, name in shown.items()
                ],
            ),
        )

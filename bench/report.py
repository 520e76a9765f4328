"""What the documents show, made of kept results: a table, and charts beside it.

`python -m bench report` reads `docs/figures.json`, writes the charts and puts the table between
the marks `figures` of README and docs/figures.md.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import table
from bench.charts import Bar, bars
from bench.racing import ROOT

KEPT = ROOT / "docs" / "figures.json"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "figures.md")
MARK = "figures"


def write(kept: Path = KEPT, documents: Sequence[Path] = DOCUMENTS) -> str:
    """Write charts beside the kept results and the table into documents; returns it as Markdown."""
    results = json.loads(kept.read_text(encoding="utf-8"))
    for name, drawn in charts(results):
        (kept.parent / name).write_text(drawn, encoding="utf-8")
    shown = table.markdown(results, machine=results["machine"])
    for document in documents:
        before = document.read_text(encoding="utf-8")
        document.write_text(between(before, MARK, shown), encoding="utf-8")
    return shown


def between(document: str, mark: str, text: str) -> str:
    """The document with the text between `<!-- mark -->` and `<!-- /mark -->`."""
    before, opened, rest = document.partition(f"<!-- {mark} -->\n")
    _, closed, after = rest.partition(f"<!-- /{mark} -->")
    if not opened or not closed:
        raise ValueError(f"the document has no marks {mark!r}")
    return f"{before}{opened}{text}\n{closed}{after}"


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

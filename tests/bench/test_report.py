"""What is made of results: tables, charts, percentiles."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import report, table
from bench.charts import Bar, bars
from bench.fanout import percentile

FANOUT = {
    "messages_per_second": 9_000.0,
    "wire_per_second": 30_000.0,
    "textbook_per_second": 300.0,
    "apprise_per_second": 1_200.0,
    "ratio_to_wire": 0.3,
    "ratio_to_textbook": 20.0,
    "messages": 73_000,
}
PACING = {
    "runs": [{"limit_per_second": 100.0, "used_ratio": 0.97, "max_window_ratio": 1.01}],
}


def test_a_figure_is_judged_by_its_bound() -> None:
    found = {line.what: line.met for line in table.lines({"fanout": FANOUT, "pacing": PACING})}
    assert found["part of the bare wire"] is True
    assert found["times the textbook design"] is False
    assert found["the bare wire, a second"] is None
    assert found["limit of 100/s: used, and the fullest second"] is False


def test_tables_show_what_there_is_and_name_the_machine() -> None:
    shown = table.markdown({"fanout": FANOUT}, machine="A box, 2 cores")
    assert "| fanout | times the textbook design | **20.0** | ≥ 25 |" in shown
    assert "| fanout | part of the bare wire | 0.30 | ≥ 0.25 |" in shown
    assert "A box, 2 cores" in shown and "lanes" not in shown
    assert "missed" in table.text({"fanout": FANOUT}) and "cores" in table.machine()


def test_bars_are_to_one_scale_and_the_chart_is_well_formed() -> None:
    drawn = bars("A & B", [Bar("one", 50, "50"), Bar("two <", 100, "100", ours=True)])
    root = ElementTree.fromstring(drawn)
    one, two = root.iter("{http://www.w3.org/2000/svg}rect")
    assert float(two.attrib["width"]) == 2 * float(one.attrib["width"])
    assert two.attrib["class"] == "ours"
    assert "two <: 100" in root.attrib["aria-label"]


def test_kept_results_are_added_to_and_drawn(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    report.keep({"fanout": FANOUT, "machine": "A box"}, kept)
    report.keep({"pacing": PACING, "machine": "Another"}, kept)
    assert set(json.loads(kept.read_text())) == {"fanout", "pacing", "machine"}
    document = tmp_path / "figures.md"
    document.write_text("Before\n<!-- figures -->\nformer\n<!-- /figures -->\nafter\n")
    assert "Measured on Another" in report.write(kept, [document])
    written = document.read_text()
    assert "9,000" in written and "former" not in written
    assert written.startswith("Before\n<!-- figures -->\n|") and written.endswith("-->\nafter\n")
    assert "9,000" in (tmp_path / "fanout.svg").read_text()


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 99) == 99.0 and percentile(values, 50) == 50.0
    assert percentile([7.0], 99) == 7.0 and percentile([1.0, 2.0, 3.0], 99) == 3.0


def test_a_document_without_its_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="figures"):
        report.between("no marks", "figures", "text")

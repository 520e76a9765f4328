"""Results in words: the machine, and each figure beside what was wanted.

Owns the wanted figures and their wording; `text` is for a terminal, `markdown` for the
documents. Must not run anything.
"""

import io
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

Results = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: which bench has it under which name, how it reads, its bounds if any."""

    bench: str
    key: str
    what: str
    digits: int = 0
    least: float | None = None
    most: float | None = None

    def line(self, value: float) -> "Line":
        wanted, met = "", None
        if self.least is not None:
            wanted, met = f"≥ {self.least:,}", value >= self.least
        if self.most is not None:
            wanted, met = f"≤ {self.most:,}", value <= self.most
        return Line(self.bench, self.what, f"{value:,.{self.digits}f}", wanted, met)


ROWS = (
    Row("fanout", "messages_per_second", "SMS through the whole dispatcher, a second"),
    Row("fanout", "wire_per_second", "the bare wire, a second"),
    Row("fanout", "textbook_per_second", "the textbook design, a second"),
    Row("fanout", "apprise_per_second", "Apprise with its throttle off, a second"),
    Row("fanout", "ratio_to_wire", "part of the bare wire", 2, least=0.25),
    Row("fanout", "ratio_to_textbook", "times the textbook design", 1, least=25),
    Row("fanout", "ratio_to_apprise", "times Apprise", 1),
    Row("fanout", "email_seconds", "as many emails, seconds", 1, most=4),
    Row("fanout", "lost", "lost", most=0),
    Row("fanout", "duplicates", "duplicates", most=0),
    Row("fanout", "first_send_ms", "first request of an idle incident, p99, ms", most=150),
    Row("fanout", "first_send_median_ms", "the same, median, ms"),
    Row("fanout", "first_bulk_send_ms", "first request of the fan-out, ms", most=1_000),
    Row("fanout", "peak_worker_rss_mb", "largest worker, MB", most=200),
    Row("lanes", "urgent_p99_ms", "urgent p99 while bulk runs, ms", most=1_000),
    Row("lanes", "bulk_messages_per_second", "bulk meanwhile, a second", least=3_000),
    Row("lanes", "pending_at_end", "bulk still pending then"),
    Row("lanes", "same_sender_urgent_p99_ms", "on one sender of 100/s, ms", most=1_000),
    Row("scale", "cost_ratio", "CPU per recipient, 1,000,000 to 10,000", 2, most=1.2),
    Row("scale", "peak_worker_rss_mb", "largest worker at 1,000,000, MB", most=200),
    Row("stop", "seconds_to_quiet", "from stop to quiet, seconds", 2, most=2),
    Row("receipts", "slowdown_ratio", "callbacks at a provider's pace: slower by", 2, most=1.1),
    Row("receipts", "flood_slowdown_ratio", "callbacks as fast as they go: slower by", 2),
    Row("previews", "one_message_p95_ms", "one message rendered and checked, p95, ms", 2, most=10),
    Row("previews", "whole_update_ms", "an update of 192 messages, median, ms", most=400),
    Row("previews", "keystroke_p95_ms", "a keystroke's preview, p95, ms", most=100),
    Row("previews", "page_p95_ms", "the console's slowest page, p95, ms", most=200),
    Row("previews", "largest_page_kb", "its largest page, kB", 1, most=100),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A figure to be shown. `met` is None where nothing was wanted."""

    bench: str
    what: str
    value: str
    wanted: str
    met: bool | None


def lines(results: Results) -> Iterator[Line]:
    """Every figure that the results have, in the order of `ROWS`; pacing's runs come last."""
    for row in ROWS:
        value = results.get(row.bench, {}).get(row.key)
        if value is not None:
            yield row.line(float(value))
    for each in results.get("pacing", {}).get("runs", ()):
        used, most = each["used_ratio"], each["max_window_ratio"]
        yield Line(
            "pacing",
            f"limit of {each['limit_per_second']:,.0f}/s: used, and the fullest second",
            f"{used:.3f}, {most:.3f}",
            "≥ 0.95, ≤ 1.0",
            used >= 0.95 and most <= 1.0,
        )


def text(results: Results) -> str:
    """The figures as a table for a terminal, with the machine above it."""
    table = Table(box=box.SIMPLE, title=machine(), title_justify="left", title_style="")
    table.add_column("")
    table.add_column("figure")
    table.add_column("measured", justify="right")
    table.add_column("wanted", justify="right")
    table.add_column("")
    last = ""
    for line in lines(results):
        mark = {None: "", True: "met", False: "missed"}[line.met]
        bench = "" if line.bench == last else line.bench
        table.add_row(bench, line.what, line.value, line.wanted, mark)
        last = line.bench
    written = io.StringIO()
    Console(file=written, width=110).print(table)
    return written.getvalue().rstrip()


def markdown(results: Results, *, machine: str) -> str:
    """The figures as a table for a document, with the machine named below it."""
    rows = ["| bench | figure | measured | wanted |", "|---|---|---:|---:|"]
    for line in lines(results):
        value = f"**{line.value}**" if line.met is False else line.value
        rows.append(f"| {line.bench} | {line.what} | {value} | {line.wanted} |")
    return "\n".join([*rows, "", f"Measured on {machine}. Bold: missed."])


def machine() -> str:
    """This machine in one line: processor, cores, memory, system, Python."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{cpu}, {os.cpu_count()} cores, {memory:.0f} GB,"
        f" {platform.system()}, Python {platform.python_version()}"
    )

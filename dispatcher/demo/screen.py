"""What the demo shows while it runs: bars on a terminal, plain lines anywhere else.

Knows how progress looks. Must not know how it comes about.
"""

import sys
import time
from collections.abc import Mapping
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
)
from rich.table import Column

LINE_EVERY = 2.0
"""Seconds between two plain lines about work that moves."""
LINE_WHEN_STILL = 20.0
"""The same for work that does not move."""


class Screen(Protocol):
    """Where a run is told. `work` begins something countable, `moved` and `done` follow it."""

    console: Console

    def step(self, text: str) -> None:
        """Something short has begun."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def work(self, title: str, total: int | None) -> None:
        """Something with a count has begun; the earlier one is finished."""

    def moved(self, count: int, total: int | None, note: str = "") -> None:
        """How far it is."""

    def done(self, text: str) -> None:
        """It has ended."""

    def close(self) -> None:
        """Nothing moves any more."""


class Bars:
    """A terminal: one bar per piece of work, lines above them."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=12),
            MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=13)),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True)),
            console=console,
            refresh_per_second=8,
        )
        self._task: TaskID | None = None
        self._bars.start()

    def step(self, text: str) -> None:
        self._finish()
        self._task = self._bars.add_task(text, total=1, note="")

    def say(self, text: str) -> None:
        self._bars.console.print(text)

    def work(self, title: str, total: int | None) -> None:
        self._finish()
        self._task = self._bars.add_task(title, total=total, note="")

    def moved(self, count: int, total: int | None, note: str = "") -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=count, total=total, note=note)

    def done(self, text: str) -> None:
        if self._task is not None:
            self._bars.update(self._task, note=text)
        self._finish()

    def close(self) -> None:
        self._finish()
        self._bars.stop()

    def _finish(self) -> None:
        if self._task is not None:
            task = next(t for t in self._bars.tasks if t.id == self._task)
            total = task.total if task.total else max(1, int(task.completed))
            self._bars.update(self._task, total=total, completed=total)
            self._task = None


class Lines:
    """No terminal: a line when something begins, ends, or has moved for two seconds."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()
        self._told = 0.0
        self._title = ""
        self._count = -1

    def _line(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        self.console.print(f"{seconds:7.1f}  {text}", markup=False, highlight=False, soft_wrap=True)
        self._told = time.monotonic()

    def step(self, text: str) -> None:
        self._line(text)

    def say(self, text: str) -> None:
        self._line(text)

    def work(self, title: str, total: int | None) -> None:
        self._title = title
        self._line(title)

    def moved(self, count: int, total: int | None, note: str = "") -> None:
        every = LINE_WHEN_STILL if count == self._count else LINE_EVERY
        if time.monotonic() - self._told >= every:
            self._count = count
            of = f"/{total:,}" if total else ""
            self._line(f"{self._title}  {count:,}{of}  {note}".rstrip())

    def done(self, text: str) -> None:
        self._line(f"{self._title}  {text}")

    def close(self) -> None:
        return


def screen(*, to_stderr: bool) -> Screen:
    """The screen for where output goes."""
    file = sys.stderr if to_stderr else sys.stdout
    if file.isatty():
        return Bars(Console(file=file))
    return Lines(Console(file=file, width=150))


def rate(numbers: Mapping[str, Any], seconds: float) -> str:
    """How many per second of what is accepted."""
    told = numbers["by_state"]["accepted"] + numbers["by_state"]["delivered"]
    return f"{told / seconds:,.0f}/s" if seconds > 0.2 else ""

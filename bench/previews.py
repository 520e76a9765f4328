"""How fast the console is: rendering, a keystroke's preview, and every page.

Rendering is measured in this process (`renderings`); keystrokes and pages over loopback HTTP
against a whole installation whose ledger holds a million deliveries (`filled`, `pages`). A
page's p95 is that of the slowest of all, so that no fast page hides a slow one.
"""

from collections.abc import Callable
from typing import Any

from bench import filled, house, pages, renderings, sink
from bench.fanout import percentile


def run(*, quick: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures by name. Raises `TooSlow`, `Failed`."""
    deliveries, times, keys = (20_000, 3, 10) if quick else (1_000_000, 20, 100)
    say("rendering")
    found: dict[str, Any] = dict(renderings.run(quick=quick))
    with sink.running() as taking, house.folder() as place, house.living(place, taking) as living:
        there = filled.fill(living, deliveries, say=say)
        base_url = str(living.http.base_url)
        say("typing")
        typed = pages.keystrokes(base_url, there, times=keys)
        found["keystroke_p95_ms"] = round(percentile(typed, 95), 1)
        found["keystroke_median_ms"] = round(percentile(typed, 50), 1)
        say("every page")
        found |= pages.told(pages.measured(base_url, there, times=times), say)
        found["deliveries"] = deliveries
    return found

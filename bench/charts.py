"""Bars as SVG, drawn by hand: readable on light and dark pages, no script, no font of its own.

Pure: figures in, text out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 720
LABEL, VALUE = 210, 110
BAR, GAP, TOP = 26, 12, 46

_STYLE = """
<style>
text { font: 14px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 16px }
.ours { fill: #0a7c66 } .other { fill: #8c959f }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .ours { fill: #2fbf9f } .other { fill: #6e7681 }
}
</style>"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar; `ours` is drawn in colour."""

    name: str
    value: float
    shown: str
    ours: bool = False


def bars(title: str, found: Sequence[Bar]) -> str:
    """A chart of horizontal bars to one scale, the longest as wide as there is room."""
    height = TOP + len(found) * (BAR + GAP)
    room = WIDTH - LABEL - VALUE
    most = max((bar.value for bar in found), default=0.0) or 1.0
    told = "; ".join(f"{bar.name}: {bar.shown}" for bar in found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        f' role="img" aria-label="{escape(f"{title}: {told}")}">{_STYLE}',
        f'<text class="title" x="0" y="20">{escape(title)}</text>',
    ]
    for number, bar in enumerate(found):
        top = TOP + number * (BAR + GAP)
        middle = top + BAR / 2 + 5
        width = max(2.0, room * bar.value / most)
        kind = "ours" if bar.ours else "other"
        parts += [
            f'<text x="{LABEL - 12}" y="{middle:g}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect class="{kind}" x="{LABEL}" y="{top}" width="{width:.1f}" height="{BAR}"'
            ' rx="3"/>',
            f'<text x="{LABEL + width + 8:.1f}" y="{middle:g}">{escape(bar.shown)}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])

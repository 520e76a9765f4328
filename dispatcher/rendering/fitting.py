"""What a short message leaves out when it would grow too long: whole sentences, never parts.

A template marks a sentence that may go with `| may(n)`: the highest number goes first. What
is not marked always stays. It happens while rendering, so a preview shows what is left.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from channels.contract import Channel
from channels.text import sms_measure, x_weight
from dispatcher.incidents import FactKind
from dispatcher.rendering.traces import traces, untraced

_OPEN, _CLOSE = "\ue010", "\ue011"
_MARKED = re.compile(f"{_OPEN}([1-9])([^{_OPEN}{_CLOSE}]*){_CLOSE}")

MAX_SEGMENTS = 2
MAX_WEIGHT = 280
"""X's limit for a post: https://docs.x.com/fundamentals/counting-characters"""
MAX_BODY = 180
"""Characters of a push body that phones show before they cut it off."""

_FITS: Mapping[tuple[str, str], Callable[[str], bool]] = {
    (Channel.SMS, "text"): lambda text: sms_measure(text).segments <= MAX_SEGMENTS,
    (Channel.SOCIAL, "text"): lambda text: x_weight(text) <= MAX_WEIGHT,
    (Channel.PUSH, "body"): lambda text: len(text) <= MAX_BODY,
}


def may(sentence: str, order: int) -> str:
    """Marks a sentence that may be left out. 1 goes last, 9 first; other orders are refused."""
    if not 1 <= order <= 9:
        raise ValueError("an order is 1 to 9")
    return f"{_OPEN}{order}{sentence}{_CLOSE}" if sentence else ""


def room(channel: str, part: str) -> Callable[[str], bool] | None:
    """Whether a text fits the part; None where there is always room."""
    return _FITS.get((channel, part))


@dataclass(frozen=True, slots=True)
class Fitted:
    """A finished text, and the kinds of facts whose words stand in it."""

    text: str
    kinds: frozenset[FactKind]


def fitted(
    raw: str,
    *,
    room: Callable[[str], bool] | None,
    finish: Callable[[str], str],
    shown: Callable[[str], str],
) -> Fitted:
    """The finished text with as few sentences left out as the room asks for.

    `finish` makes a text without marks final, `shown` makes it what a reader sees. If even
    the shortest is too long, that is what comes back: the adapter's own check says so.
    """
    left = _without(raw, 10)
    text = finish(untraced(left))
    if room is None or room(shown(text)):
        return Fitted(text, traces(left))
    for order in sorted({int(found[1]) for found in _MARKED.finditer(raw)}, reverse=True):
        left = _without(raw, order)
        text = finish(untraced(left))
        if room(shown(text)):
            break
    return Fitted(text, traces(left))


def _without(raw: str, order: int) -> str:
    """The text without its marks, and without the sentences of this order and above."""
    return _MARKED.sub(lambda found: "" if int(found[1]) >= order else found[2], raw)

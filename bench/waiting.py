"""Waiting for what other processes do, never longer than told."""

import threading
import time
from collections.abc import Callable
from typing import Any

_PAUSE = threading.Event()  # never set: paces the looking at what other processes do


def pause(seconds: float) -> None:
    """Let other processes go on."""
    _PAUSE.wait(seconds)


class TooSlow(Exception):
    """What was measured did not end within its time."""


def until(true: Callable[[], Any], *, within: float, what: str, every: float = 0.05) -> Any:
    """What `true` answers, once it is so. Raises `TooSlow`."""
    end = time.monotonic() + within
    while not (found := true()):
        if time.monotonic() > end:
            raise TooSlow(f"{what} took more than {within:.0f} s")
        pause(every)
    return found

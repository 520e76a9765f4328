"""Telling of an error without its words, which may quote a person."""

import traceback
from pathlib import Path


def where(error: BaseException) -> list[str]:
    """What kind of errors, and in which line of which function each arose; never their words."""
    if isinstance(error, BaseExceptionGroup):
        return [told for inner in error.exceptions for told in where(inner)][:10]
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    lines = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
    return [f"{type(error).__name__} at {lines}"]

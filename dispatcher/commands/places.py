"""The files of a data folder by which processes and commands find each other."""

import contextlib
import os
from pathlib import Path

URL_FILE = "url"
SANDBOX_URL_FILE = "sandbox.url"
OPERATOR_KEY = "operator.key"
APPROVER_KEY = "approver.key"


def announce(file: Path, url: str) -> None:
    """Write the URL whole or not at all: whoever waits for the file reads a full line."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.write_text(f"{url}\n", encoding="utf-8")
    fresh.replace(file)


def withdraw(file: Path, url: str) -> None:
    """Take an announcement back, unless another has been written since."""
    with contextlib.suppress(OSError):
        if file.read_text(encoding="utf-8").strip() == url:
            file.unlink()


def written(file: Path) -> str | None:
    """The one line of a file, None if there is no such file or line."""
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None

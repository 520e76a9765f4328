"""The schema's history, applied by Alembic.

Rule for every revision: workers of the release before must keep running on it (add,
fill, switch, and drop one release later). A process refuses a schema older than its
own and runs on a newer one.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["head", "known", "upgrade"]

_HERE = Path(__file__).parent


def _config(database_url: str) -> "Config":
    # Alembic is heavy, and only a migration needs it: every process asks for `head`.
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.attributes["database_url"] = database_url
    return config


def _revisions() -> list[str]:
    """Our revisions in order: they are numbered, and files are named `<revision>_<noun>.py`."""
    names = (file.name for file in (_HERE / "versions").glob("*.py"))
    return sorted(found.group(1) for name in names if (found := re.match(r"(\d{4})_", name)))


def upgrade(database_url: str) -> None:
    """Bring the schema to this release's revision; a no-op if it is there or beyond."""
    from alembic import command

    command.upgrade(_config(database_url), "head")


def head() -> str:
    """The newest revision this release knows."""
    return _revisions()[-1]


def known(revision: str) -> bool:
    """Whether this release's history contains `revision`."""
    return revision in _revisions()

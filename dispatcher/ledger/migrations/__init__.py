"""The schema's history, applied by Alembic.

Rule for every revision: workers of the release before must keep running on it (add,
fill, switch, and drop one release later). A process refuses a schema older than its
own and runs on a newer one.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

__all__ = ["head", "known", "upgrade"]


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str) -> None:
    """Bring the schema to this release's revision; a no-op if it is there or beyond."""
    command.upgrade(_config(database_url), "head")


def head() -> str:
    """The newest revision this release knows."""
    revision = ScriptDirectory(str(Path(__file__).parent)).get_current_head()
    assert revision is not None
    return revision


def known(revision: str) -> bool:
    """Whether this release's history contains `revision`."""
    scripts = ScriptDirectory(str(Path(__file__).parent))
    return any(script.revision == revision for script in scripts.walk_revisions())

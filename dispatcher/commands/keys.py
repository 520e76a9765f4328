"""Keys, made and revoked on the ledger itself by the machine's owner."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from dispatcher import wiring
from dispatcher.commands.local import OWNER
from dispatcher.ledger import keys
from dispatcher.ledger.connection import Ledger
from dispatcher.security.rights import parse_scopes
from dispatcher.settings import Settings


def create(
    settings: Settings, *, name: str, scopes: Sequence[str], reach_limit: int | None
) -> tuple[str, str]:
    """Make a key; returns (id, token), the token for the only time. Raises `ValueError`."""
    chosen = parse_scopes(scopes)
    ledger = Ledger(wiring.database_url(settings), size=1)
    try:
        ledger.check_schema()
        with ledger.transaction() as work:
            return keys.create(
                work.conn, name=name, scopes=chosen, reach_limit=reach_limit, created_by=OWNER
            )
    finally:
        ledger.close()


def show(settings: Settings, console: Console) -> None:
    """All keys as a table, newest first; never a token."""
    ledger = Ledger(wiring.database_url(settings), size=1)
    try:
        ledger.check_schema()
        with ledger.read() as conn:
            found = keys.listed(conn)
    finally:
        ledger.close()
    table = Table()
    for name in ("name", "prefix", "scopes", "reach limit", "made", "revoked"):
        table.add_column(name, no_wrap=name == "prefix")
    for key in found:
        table.add_row(
            key.name,
            key.prefix,
            " ".join(key.scopes),
            f"{key.reach_limit:,}" if key.reach_limit else "none",
            f"{key.created_at:%Y-%m-%d %H:%M}",
            f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "",
        )
    console.print(table)


def revoke(settings: Settings, key: str) -> bool:
    """Revoke a key by id or prefix, at once; False if there is no such live key."""
    ledger = Ledger(wiring.database_url(settings), size=1)
    try:
        ledger.check_schema()
        with ledger.transaction() as work:
            return keys.revoke(work.conn, key, revoked_by=OWNER)
    finally:
        ledger.close()

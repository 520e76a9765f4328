"""Whose ledger this is, read without writing: the mode and the master key it was started with."""

from dispatcher.ledger.connection import Connection


def read(conn: Connection) -> tuple[str, str] | None:
    """(mode, key fingerprint) as recorded at the first start, None before it."""
    row = conn.execute("SELECT mode, key_fingerprint FROM installation").fetchone()
    return None if row is None else (row[0], row[1])

"""What an update was counted to reach, kept with the revision that was counted."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from dispatcher.ledger.connection import Connection
from dispatcher.ledger.incidents import as_json


@dataclass(frozen=True, slots=True)
class Reckoned:
    """One update's figures, the revision they are of, and when they were counted."""

    revision: int
    counted_at: datetime
    figures: dict[str, Any]


def get(conn: Connection, update_id: str) -> Reckoned | None:
    """The newest count of an update, of whatever revision; None if it was never counted."""
    with conn.cursor(row_factory=class_row(Reckoned)) as cursor:
        cursor.execute(
            "SELECT revision, counted_at, figures FROM reckoning WHERE update_id = %s::uuid",
            (update_id,),
        )
        return cursor.fetchone()


def put(conn: Connection, update_id: str, revision: int, figures: Mapping[str, Any]) -> None:
    """Keep a count, in place of an older one. One of an older revision changes nothing."""
    conn.execute(
        "INSERT INTO reckoning (update_id, revision, figures) VALUES (%s, %s, %s)"
        " ON CONFLICT (update_id) DO UPDATE SET revision = EXCLUDED.revision,"
        " counted_at = now(), figures = EXCLUDED.figures"
        " WHERE reckoning.revision <= EXCLUDED.revision",
        (update_id, revision, as_json(dict(figures))),
    )

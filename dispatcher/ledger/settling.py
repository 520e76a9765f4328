"""A person's word on a delivery in doubt: it is taken, it is not, or it goes out again."""

from dataclasses import dataclass

from dispatcher.ledger import receipts
from dispatcher.ledger.connection import Connection
from dispatcher.ledger.counting import State
from dispatcher.ledger.receipts import Change, Row


@dataclass(frozen=True, slots=True)
class Doubt:
    """A delivery held still, with what decides whether it may go out again."""

    row: Row
    incident_id: str
    adapter: str
    lane: str
    released: bool
    expired: bool


def hold(conn: Connection, delivery_id: str) -> Doubt | None:
    """The delivery with its batch locked, None if there is none. Call inside a transaction."""
    found = receipts.find(conn, [delivery_id]).get(delivery_id)
    if found is None:
        return None
    row = receipts.lock(conn, [found])[delivery_id]
    about = conn.execute(
        "SELECT u.incident_id::text, coalesce((SELECT a.adapter FROM attempt a"
        "  WHERE a.update_id = b.update_id AND a.delivery_id = %(id)s ORDER BY a.at DESC LIMIT 1),"
        "  b.adapter), b.lane, r.state = 'released', coalesce(u.expires_at <= now(), false)"
        " FROM batch b JOIN incident_update u ON u.id = b.update_id"
        " JOIN release r ON r.update_id = b.update_id AND r.audience = b.audience"
        " WHERE b.id = %(batch)s",
        {"id": delivery_id, "batch": row.batch_id},
    ).fetchone()
    assert about is not None
    return Doubt(row, *about)


def ref_taken(conn: Connection, doubt: Doubt, ref: str) -> bool:
    """Whether another delivery of the update stands for this message of the provider."""
    return (
        conn.execute(
            "SELECT FROM attempt WHERE update_id = %s AND adapter = %s AND outcome = 'accepted'"
            " AND ref = %s",
            (doubt.row.update_id, doubt.adapter, ref),
        ).fetchone()
        is not None
    )


def settle(conn: Connection, doubt: Doubt, state: State, *, ref: str | None) -> bool:
    """Move the row to *accepted* (under `ref`), *failed*, or *pending* to go out at once.

    False if it is no longer in doubt. Call inside the transaction of `hold`.
    """
    change = Change(
        was=doubt.row,
        adapter=doubt.adapter,
        state=state,
        reason="settled",
        receipt_at=None,
        fresh=ref,
    )
    moved = receipts.move(conn, doubt.row.update_id, [change], told="settled by a person")
    if moved and state is State.PENDING:
        conn.execute(
            "UPDATE batch SET due_at = now(), enqueued_at = now() WHERE id = %s",
            (doubt.row.batch_id,),
        )
    return bool(moved)

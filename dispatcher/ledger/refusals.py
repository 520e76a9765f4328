"""Messages that a provider refuses for what they say."""

from dispatcher.ledger.connection import Connection


def refused_recipients(conn: Connection, message_id: int) -> int:
    """How many distinct people this message's content was refused for."""
    row = conn.execute(
        "SELECT count(DISTINCT d.recipient_id) FROM delivery d JOIN batch b ON b.id = d.batch_id"
        " WHERE b.message_id = %s AND d.state = 'failed' AND d.reason IN ('content', 'too_long',"
        " 'duplicate_content') AND d.update_id = (SELECT update_id FROM message WHERE id = %s)",
        (message_id, message_id),
    ).fetchone()
    return int(row[0]) if row else 0


def pause_message(conn: Connection, message_id: int, *, paused: bool) -> None:
    """Hold back, or let go, what is unsent of one message."""
    conn.execute(
        "UPDATE message SET paused_at = CASE WHEN %s THEN coalesce(paused_at, now()) END"
        " WHERE id = %s",
        (paused, message_id),
    )

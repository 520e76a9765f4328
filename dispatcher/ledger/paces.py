"""What a sender has sent, for limits over longer than a minute."""

from dispatcher.ledger.connection import Connection, one


def sent_since(conn: Connection, sender: str, seconds: float) -> int:
    """Units taken or under way in the last so many seconds by `adapter:sender`.

    Counted by batch, all of one that was sent from in that time: never too few.
    """
    adapter, _, name = sender.partition(":")
    return int(
        one(
            conn.execute(
                "SELECT coalesce(sum((b.sending + b.accepted + b.delivered + b.failed + b.unknown)"
                " * m.units), 0) FROM batch b JOIN message m ON m.id = b.message_id"
                " WHERE b.adapter = %s AND b.sender = %s"
                " AND (b.open OR b.last_accepted_at > now() - make_interval(secs => %s))",
                (adapter, name, seconds),
            ).fetchone()
        )
    )

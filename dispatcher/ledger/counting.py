"""How a batch's counters move: in the very statement that moves the rows."""

from enum import StrEnum


class State(StrEnum):
    """States of a delivery, as the HTTP interface shows them."""

    PENDING = "pending"
    SENDING = "sending"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"
    SPARED = "spared"
    SUPERSEDED = "superseded"
    EXPIRED = "expired"
    STOPPED = "stopped"


STATES = tuple(state.value for state in State)

DOUBTED = """
doubted AS (
    INSERT INTO doubt AS q (update_id, delivery_id, batch_id, adapter, sender, number, epoch,
        claimed_at)
    SELECT %(update)s, x.id, x.batch_id, x.adapter, x.sender, x.attempts, x.epoch, x.claimed_at
    FROM in_doubt x
    ON CONFLICT (update_id, delivery_id) DO UPDATE SET batch_id = EXCLUDED.batch_id,
        adapter = EXCLUDED.adapter, sender = EXCLUDED.sender, number = EXCLUDED.number,
        epoch = EXCLUDED.epoch, claimed_at = EXCLUDED.claimed_at, doubted_at = now(),
        asked = 0, ask_at = now()
)"""
"""A CTE that writes down which provider may be asked about rows made *unknown*. It follows one
named `in_doubt(id, batch_id, adapter, sender, attempts, epoch, claimed_at)`."""

_SUMS = ", ".join(
    f"count(*) FILTER (WHERE now_state = '{s}') - count(*) FILTER (WHERE was_state = '{s}') AS {s}"
    for s in STATES
)
_ADDS = ", ".join(f"{s} = b.{s} + d.{s}" for s in STATES)


def counters(also: str = "") -> str:
    """CTEs that follow one named `moved(batch_id, was_state, now_state, accepted_at)`.

    `accepted_at` is null for rows that did not become accepted just now. `also` sets more
    columns of the batch: one statement can update a row only once.
    """
    return f"""
    delta AS (
        SELECT batch_id, {_SUMS}, max(accepted_at) AS last_accepted,
            min(accepted_at) AS first_accepted
        FROM moved GROUP BY batch_id
    ), counted AS (
        UPDATE batch b SET {_ADDS},
            open = b.pending + d.pending + b.sending + d.sending > 0,
            first_accepted_at = least(b.first_accepted_at, d.first_accepted),
            last_accepted_at = greatest(b.last_accepted_at, d.last_accepted){also}
        FROM delta d WHERE b.id = d.batch_id
        RETURNING b.id
    )"""

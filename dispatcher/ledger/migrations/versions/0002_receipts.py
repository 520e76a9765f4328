"""Receipts: what providers say later, kept as it came and applied once per event."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A provider carries a delivery's id and nothing else of ours. Ids are time-ordered and
# never change, so this index is only appended to, and row versions stay off it.
_DELIVERY = """
CREATE INDEX delivery_id ON delivery (id);
ALTER TABLE delivery ADD COLUMN receipt_at timestamptz;
ALTER TABLE delivery ADD COLUMN polled_at timestamptz;
ALTER TABLE batch ADD COLUMN poll_at timestamptz;
"""

# Requests that came within the same few milliseconds are one row of `receipt`. An event has
# no `result` until it was worked off; `work_at` is when to look at it again.
_RECEIPTS = """
CREATE TABLE receipt (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    adapter text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    requests integer NOT NULL,
    sealed bytea NOT NULL
);
CREATE INDEX receipt_age ON receipt (received_at);
CREATE TABLE receipt_event (
    id bigint GENERATED ALWAYS AS IDENTITY,
    adapter text NOT NULL,
    event text NOT NULL,
    receipt_id bigint,
    delivery_id uuid,
    ref text NOT NULL,
    status text NOT NULL CHECK (status IN ('taken', 'delivered', 'failed')),
    reason text NOT NULL,
    detail text NOT NULL,
    at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    work_at timestamptz NOT NULL DEFAULT now(),
    result text,
    PRIMARY KEY (adapter, event)
);
CREATE INDEX receipt_event_waiting ON receipt_event (id) WHERE result IS NULL;
CREATE INDEX receipt_event_delivery ON receipt_event (delivery_id);
CREATE INDEX receipt_event_age ON receipt_event USING brin (received_at);
CREATE TABLE receipt_total (
    adapter text NOT NULL,
    result text NOT NULL,
    events bigint NOT NULL,
    PRIMARY KEY (adapter, result)
);
CREATE TABLE consent (
    adapter text NOT NULL,
    event text NOT NULL,
    kind text NOT NULL,
    lookup bytea NOT NULL,
    wanted boolean NOT NULL,
    reason text NOT NULL,
    at timestamptz NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (adapter, event, kind, lookup)
);
CREATE INDEX consent_address ON consent (kind, lookup, at);
"""


def upgrade() -> None:
    for part in (_DELIVERY, _RECEIPTS):
        op.execute(part)

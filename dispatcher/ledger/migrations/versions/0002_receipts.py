"""Receipts: what providers say later, kept as it came and applied once per event."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# A provider carries a delivery's id and nothing else of ours. Ids are time-ordered and
# never change, so this index is only appended to, and row versions stay off it.
_RECEIPTS = """
CREATE INDEX delivery_id ON delivery (id);
ALTER TABLE delivery ADD COLUMN receipt_at timestamptz;
CREATE TABLE receipt (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    adapter text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    sealed bytea NOT NULL
);
CREATE INDEX receipt_age ON receipt (received_at);
CREATE TABLE receipt_event (
    adapter text NOT NULL,
    event text NOT NULL,
    receipt_id bigint NOT NULL,
    delivery_id uuid,
    ref text NOT NULL,
    status text NOT NULL CHECK (status IN ('taken', 'delivered', 'failed')),
    reason text NOT NULL,
    detail text NOT NULL,
    at timestamptz,
    received_at timestamptz NOT NULL DEFAULT now(),
    result text,
    PRIMARY KEY (adapter, event)
);
CREATE INDEX receipt_event_waiting ON receipt_event (received_at) WHERE result IS NULL;
CREATE INDEX receipt_event_delivery ON receipt_event (delivery_id);
"""


def upgrade() -> None:
    op.execute(_RECEIPTS)

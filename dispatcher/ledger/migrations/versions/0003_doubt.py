"""Doubt and failover: when to ask about unknown outcomes, and where a batch is at home."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_DOUBT = """
ALTER TABLE batch ADD COLUMN ask_at timestamptz;
CREATE INDEX batch_ask ON batch (ask_at) WHERE ask_at IS NOT NULL;
ALTER TABLE batch ADD COLUMN home_adapter text;
ALTER TABLE batch ADD COLUMN home_sender text;
ALTER TABLE breaker ADD COLUMN probes integer NOT NULL DEFAULT 0;
"""


def upgrade() -> None:
    op.execute(_DOUBT)

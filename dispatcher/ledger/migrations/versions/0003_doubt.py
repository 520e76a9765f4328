"""Doubt, breakers, failover and fallback: what is asked, kept back, moved, and told another way."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# A row stands here as long as its provider may still be asked: few, and soon gone.
_DOUBT = """
CREATE TABLE doubt (
    update_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    batch_id bigint NOT NULL,
    adapter text NOT NULL,
    sender text NOT NULL,
    number smallint NOT NULL,
    epoch integer NOT NULL,
    claimed_at timestamptz NOT NULL,
    doubted_at timestamptz NOT NULL DEFAULT now(),
    asked integer NOT NULL DEFAULT 0,
    ask_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (update_id, delivery_id)
);
CREATE INDEX doubt_ask ON doubt (adapter, ask_at);
"""

# `probes` counts how often a breaker was tried in vain; `probing_batch` is who tries now.
_BREAKER = """
ALTER TABLE breaker ADD COLUMN probes integer NOT NULL DEFAULT 0;
ALTER TABLE breaker ADD COLUMN probing_batch bigint;
"""

# Where a batch belongs while another account sends it.
_FAILOVER = """
ALTER TABLE batch ADD COLUMN home_adapter text;
ALTER TABLE batch ADD COLUMN home_sender text;
CREATE INDEX batch_away ON batch (home_adapter) WHERE home_adapter IS NOT NULL AND open;
"""

# `fallen` is how many failed, skipped and unknown rows of the batch were looked at for a next
# step, `waited_to` up to which acceptance receipts were waited for.
_FALLBACK = """
ALTER TABLE release ADD COLUMN falls boolean NOT NULL DEFAULT false;
CREATE INDEX release_falling ON release (released_at) WHERE falls;
ALTER TABLE batch ADD COLUMN fallen integer NOT NULL DEFAULT 0;
ALTER TABLE batch ADD COLUMN waited_to timestamptz;
ALTER TABLE batch ADD COLUMN looked_at timestamptz;
"""


def upgrade() -> None:
    for part in (_DOUBT, _BREAKER, _FAILOVER, _FALLBACK):
        op.execute(part)

"""What operators watch: when the sweep last ran, and indexes for questions asked at each scrape."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# One row a name, written once a second: its versions stay within its page.
_PULSE = """
CREATE TABLE pulse (
    name text PRIMARY KEY,
    at timestamptz NOT NULL
) WITH (fillfactor = 10);
"""

_ASKED = """
CREATE INDEX release_released ON release (released_at) WHERE released_at IS NOT NULL;
CREATE INDEX receipt_last ON receipt (adapter, received_at);
"""


def upgrade() -> None:
    for part in (_PULSE, _ASKED):
        op.execute(part)

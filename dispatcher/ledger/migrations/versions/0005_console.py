"""The console: who signs in, what an update has become since it was written, and test sends."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# A person who was invited has no login and no password until they have joined.
_PEOPLE = """
CREATE TABLE person (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    login text UNIQUE,
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'author', 'approver', 'admin')),
    password_hash text,
    zone text,
    failures integer NOT NULL DEFAULT 0,
    locked_until timestamptz,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    disabled_at timestamptz
);
CREATE TABLE person_contact (
    person_id uuid NOT NULL REFERENCES person,
    kind text NOT NULL,
    sealed bytea NOT NULL,
    hint text NOT NULL,
    PRIMARY KEY (person_id, kind)
);
CREATE TABLE invitation (
    hash bytea PRIMARY KEY,
    person_id uuid NOT NULL REFERENCES person,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX invitation_person ON invitation (person_id) WHERE used_at IS NULL;
CREATE TABLE session (
    hash bytea PRIMARY KEY,
    person_id uuid NOT NULL REFERENCES person,
    created_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL
);
CREATE INDEX session_person ON session (person_id);
"""

# `revision` is what a form was made from; who wrote any part of it cannot approve it.
_REVISED = """
ALTER TABLE incident_update
    ADD COLUMN revision integer NOT NULL DEFAULT 1,
    ADD COLUMN editors text[] NOT NULL DEFAULT '{}',
    ADD COLUMN revised_at timestamptz;
ALTER TABLE release
    ADD COLUMN returned_by text,
    ADD COLUMN returned_at timestamptz;
CREATE INDEX release_waiting ON release (update_id)
    WHERE state IN ('submitted', 'returned', 'approved');
CREATE TABLE reckoning (
    update_id uuid PRIMARY KEY REFERENCES incident_update,
    revision integer NOT NULL,
    counted_at timestamptz NOT NULL DEFAULT now(),
    figures jsonb NOT NULL
);
"""

# One test send to one address of the person who asked for it; a worker takes it once.
_TRIAL = """
CREATE TABLE trial (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    person_id uuid NOT NULL REFERENCES person,
    update_id uuid NOT NULL REFERENCES incident_update,
    audience text NOT NULL,
    channel text NOT NULL,
    locale text NOT NULL,
    kind text NOT NULL,
    sealed bytea NOT NULL,
    hint text NOT NULL,
    parts jsonb NOT NULL,
    slots jsonb NOT NULL,
    drill boolean NOT NULL,
    state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sending', 'done')),
    outcome text,
    reason text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    taken_at timestamptz,
    done_at timestamptz
);
CREATE INDEX trial_update ON trial (update_id, person_id, created_at);
CREATE INDEX trial_open ON trial (created_at) WHERE state <> 'done';
CREATE INDEX trial_person ON trial (person_id, created_at);
"""


def upgrade() -> None:
    for part in (_PEOPLE, _REVISED, _TRIAL):
        op.execute(part)

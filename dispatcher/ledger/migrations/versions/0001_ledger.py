"""The ledger: incidents, recipients, messages, batches, deliveries, attempts."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_DESK = """
CREATE TABLE installation (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    mode text NOT NULL CHECK (mode IN ('sandbox', 'live')),
    key_fingerprint text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE api_key (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    name text NOT NULL,
    prefix text NOT NULL UNIQUE,
    hash bytea NOT NULL,
    scopes text[] NOT NULL,
    reach_limit integer CHECK (reach_limit > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text NOT NULL,
    revoked_at timestamptz
);
CREATE TABLE idempotency (
    actor text NOT NULL,
    route text NOT NULL,
    key text NOT NULL,
    body_hash bytea NOT NULL,
    status smallint NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (actor, route, key)
);
CREATE INDEX idempotency_age ON idempotency (created_at);
CREATE TABLE audit (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL,
    act text NOT NULL,
    incident_id uuid,
    update_id uuid,
    detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_incident ON audit (incident_id, id);
CREATE TABLE incident (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    number bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    title text NOT NULL,
    summary text NOT NULL,
    severity text NOT NULL,
    services text[] NOT NULL,
    regions text[] NOT NULL,
    started_at timestamptz NOT NULL,
    zone text,
    drill boolean NOT NULL,
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'resolved')),
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz
);
CREATE INDEX incident_open ON incident (created_at) WHERE status = 'open';
CREATE TABLE incident_update (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    incident_id uuid NOT NULL REFERENCES incident,
    phase text NOT NULL,
    texts jsonb NOT NULL,
    next_update_at timestamptz,
    expires_at timestamptz,
    audiences text[] NOT NULL,
    withdraws uuid[] NOT NULL,
    author text NOT NULL,
    release_on_approval boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    submitted_at timestamptz,
    content_hash text,
    withdrawn_at timestamptz
);
CREATE INDEX incident_update_incident ON incident_update (incident_id, id);
CREATE TABLE fact (
    id uuid PRIMARY KEY DEFAULT uuidv7(),
    seq bigint GENERATED ALWAYS AS IDENTITY,
    incident_id uuid NOT NULL REFERENCES incident,
    update_id uuid NOT NULL REFERENCES incident_update,
    stated jsonb NOT NULL,
    withdrawn_by uuid REFERENCES incident_update
);
CREATE INDEX fact_incident ON fact (incident_id, seq);
CREATE TABLE message (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    update_id uuid NOT NULL REFERENCES incident_update,
    audience text NOT NULL,
    channel text NOT NULL,
    locale text NOT NULL,
    parts jsonb NOT NULL,
    slots jsonb NOT NULL,
    hash text NOT NULL,
    units integer NOT NULL,
    problems jsonb NOT NULL,
    facts uuid[] NOT NULL,
    paused_at timestamptz,
    UNIQUE (update_id, audience, channel, locale)
);
CREATE TABLE release (
    update_id uuid NOT NULL REFERENCES incident_update,
    audience text NOT NULL,
    lane text NOT NULL,
    state text NOT NULL CHECK (state IN
        ('draft', 'submitted', 'returned', 'approved', 'released', 'stopped', 'withdrawn')),
    preapproved boolean NOT NULL,
    approved_by text,
    approved_at timestamptz,
    released_by text,
    released_at timestamptz,
    vanguard_first bigint,
    vanguard_last bigint,
    planned_at timestamptz,
    stopped_by text,
    stopped_at timestamptz,
    reason text NOT NULL DEFAULT '',
    PRIMARY KEY (update_id, audience)
);
CREATE INDEX release_unplanned ON release (released_at)
    WHERE state = 'released' AND planned_at IS NULL;
"""

_DIRECTORY = """
CREATE TABLE recipient (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ref text NOT NULL UNIQUE,
    name bytea NOT NULL,
    locale text NOT NULL,
    segment text NOT NULL,
    region text NOT NULL,
    services text[] NOT NULL,
    tags text[] NOT NULL,
    row_hash bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX recipient_region ON recipient (region text_pattern_ops);
CREATE INDEX recipient_segment ON recipient (segment);
CREATE TABLE contact_point (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    sealed bytea NOT NULL,
    lookup bytea NOT NULL,
    hint text NOT NULL,
    country text,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (kind, lookup)
);
CREATE TABLE recipient_contact (
    recipient_id bigint NOT NULL REFERENCES recipient ON DELETE CASCADE,
    contact_point_id bigint NOT NULL REFERENCES contact_point,
    PRIMARY KEY (recipient_id, contact_point_id)
);
CREATE INDEX recipient_contact_point ON recipient_contact (contact_point_id);
CREATE TABLE suppression (
    id bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    kind text NOT NULL,
    lookup bytea NOT NULL,
    hint text NOT NULL,
    reason text NOT NULL,
    source text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (kind, lookup)
);
CREATE TABLE membership (
    incident_id uuid NOT NULL,
    audience text NOT NULL,
    recipients bigint[] STORAGE EXTERNAL NOT NULL
);
CREATE INDEX membership_incident ON membership (incident_id);
CREATE TABLE inbox_message (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key uuid NOT NULL UNIQUE,
    inbox bytea NOT NULL,
    title text NOT NULL,
    body text NOT NULL,
    thread text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
CREATE INDEX inbox_message_inbox ON inbox_message (inbox, seq);
CREATE TABLE inbox_token (
    hash bytea PRIMARY KEY,
    inbox bytea NOT NULL,
    expires_at timestamptz NOT NULL
);
"""

# Counters stand on the batch and move in the statement that moves the rows. `open`
# exists so that the sweep's index does not hang on counters that change all the time.
_DELIVERY = """
CREATE TABLE planned (
    update_id uuid NOT NULL REFERENCES incident_update,
    audience text NOT NULL,
    channel text NOT NULL,
    rows integer NOT NULL,
    PRIMARY KEY (update_id, audience, channel)
);
CREATE TABLE batch (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    update_id uuid NOT NULL REFERENCES incident_update,
    audience text NOT NULL,
    channel text NOT NULL,
    adapter text NOT NULL,
    sender text NOT NULL,
    message_id bigint REFERENCES message,
    lane text NOT NULL,
    seq integer NOT NULL,
    size integer NOT NULL,
    open boolean NOT NULL,
    halted boolean NOT NULL DEFAULT false,
    turning boolean NOT NULL DEFAULT false,
    due_at timestamptz,
    enqueued_at timestamptz,
    lease_owner text,
    lease_epoch integer NOT NULL DEFAULT 0,
    lease_until timestamptz,
    pending integer NOT NULL DEFAULT 0,
    sending integer NOT NULL DEFAULT 0,
    accepted integer NOT NULL DEFAULT 0,
    delivered integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    unknown integer NOT NULL DEFAULT 0,
    skipped integer NOT NULL DEFAULT 0,
    spared integer NOT NULL DEFAULT 0,
    superseded integer NOT NULL DEFAULT 0,
    expired integer NOT NULL DEFAULT 0,
    stopped integer NOT NULL DEFAULT 0,
    first_accepted_at timestamptz,
    last_accepted_at timestamptz
) WITH (fillfactor = 50);
CREATE INDEX batch_update ON batch (update_id);
CREATE INDEX batch_due ON batch (due_at) WHERE open;
CREATE INDEX batch_turning ON batch (id) WHERE turning;
CREATE TABLE delivery (
    id uuid NOT NULL DEFAULT uuidv7(),
    update_id uuid NOT NULL,
    batch_id bigint NOT NULL,
    recipient_id bigint NOT NULL,
    contact_point_id bigint,
    shared_contact_id bigint,
    channel text NOT NULL,
    seq integer NOT NULL,
    state text NOT NULL CHECK (state IN
        ('pending', 'sending', 'accepted', 'delivered', 'failed', 'unknown',
         'skipped', 'spared', 'superseded', 'expired', 'stopped')),
    reason text NOT NULL DEFAULT '',
    attempts smallint NOT NULL DEFAULT 0,
    epoch integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    changed_at timestamptz NOT NULL DEFAULT now(),
    accepted_at timestamptz,
    ref text,
    PRIMARY KEY (update_id, id)
) PARTITION BY RANGE (update_id);
CREATE UNIQUE INDEX delivery_once ON delivery (update_id, contact_point_id, channel);
CREATE INDEX delivery_batch ON delivery (update_id, batch_id, seq);
CREATE INDEX delivery_recipient ON delivery (update_id, recipient_id);
CREATE TABLE attempt (
    update_id uuid NOT NULL,
    delivery_id uuid NOT NULL,
    number smallint NOT NULL,
    epoch integer NOT NULL,
    adapter text NOT NULL,
    outcome text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    ref text,
    late boolean NOT NULL DEFAULT false,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
) PARTITION BY RANGE (update_id);
CREATE INDEX attempt_delivery ON attempt (update_id, delivery_id);
CREATE TABLE breaker (
    adapter text NOT NULL,
    sender text NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    opened_at timestamptz NOT NULL,
    probe_at timestamptz NOT NULL,
    PRIMARY KEY (adapter, sender)
);
"""

# Update ids are UUIDv7, whose first 48 bits are milliseconds: a month is a range of them.
_PARTITIONS = """
CREATE FUNCTION month_floor_uuid(moment timestamptz) RETURNS uuid LANGUAGE sql STABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM date_trunc('month', moment AT TIME ZONE 'UTC')
        AT TIME ZONE 'UTC') * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
CREATE FUNCTION ensure_month(moment timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    suffix text := to_char(moment AT TIME ZONE 'UTC', '"y"YYYY"m"MM');
    lower_bound uuid := month_floor_uuid(moment);
    upper_bound uuid := month_floor_uuid(
        date_trunc('month', moment AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + interval '32 days');
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['delivery', 'attempt'] LOOP
        CONTINUE WHEN to_regclass(parent || '_' || suffix) IS NOT NULL;
        EXECUTE format(
            'CREATE TABLE IF NOT EXISTS %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L) '
            || 'WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.05)',
            parent || '_' || suffix, parent, lower_bound, upper_bound);
        -- A new update's id is in no statistics, and the planner would take it for a value
        -- with one row and read all of its rows for each window. Without statistics it
        -- reckons with a two-hundredth of the table, which never misleads it so far.
        EXECUTE format('ALTER TABLE %I ALTER COLUMN update_id SET STATISTICS 0',
            parent || '_' || suffix);
    END LOOP;
END $$;
"""


def upgrade() -> None:
    for part in (_DESK, _DIRECTORY, _DELIVERY, _PARTITIONS):
        op.execute(part)
    op.execute(
        "SELECT ensure_month(now()), ensure_month(now() + interval '1 month'),"
        " ensure_month(now() + interval '2 months')"
    )

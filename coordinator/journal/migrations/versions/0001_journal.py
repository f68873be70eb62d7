from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

_LEASES = (
    "CREATE SEQUENCE saga.epoch",
    # The unique epoch is a key column: whoever changes it, or deletes the row, waits for the group
    # commits under it, which lock the row FOR KEY SHARE. A renewal changes no key and waits not.
    """
    CREATE TABLE saga.instance (
      instance_id text COLLATE "C" PRIMARY KEY,
      epoch       bigint NOT NULL UNIQUE,
      expire_time timestamptz NOT NULL,
      CONSTRAINT instance_id CHECK (instance_id <> ''),
      CONSTRAINT instance_epoch CHECK (epoch > 0)
    )
    """,
)

_SAGAS = (
    """
    CREATE TABLE saga.saga (
      saga_id         text COLLATE "C" PRIMARY KEY,
      definition      text COLLATE "C" NOT NULL,
      definition_hash text COLLATE "C" NOT NULL,
      state           text NOT NULL,
      keys            jsonb NOT NULL,
      owner           text COLLATE "C" NOT NULL,
      epoch           bigint NOT NULL,
      claims          integer NOT NULL DEFAULT 0,
      claim_revision  integer NOT NULL DEFAULT 0,
      create_time     timestamptz NOT NULL,
      update_time     timestamptz NOT NULL,
      finish_time     timestamptz,
      CONSTRAINT saga_id CHECK (saga_id <> ''),
      CONSTRAINT saga_state CHECK (
        state IN ('RUNNING', 'COMPENSATING', 'STUCK', 'COMPLETED', 'COMPENSATED', 'ABANDONED')),
      CONSTRAINT saga_finished_when_final CHECK (
        (finish_time IS NOT NULL) = (state IN ('COMPLETED', 'COMPENSATED', 'ABANDONED'))),
      CONSTRAINT saga_keys CHECK (jsonb_typeof(keys) = 'object'),
      CONSTRAINT saga_claims CHECK (claims >= 0 AND claim_revision >= 0)
    )
    """,
    "CREATE INDEX saga_open ON saga.saga (create_time, saga_id) WHERE finish_time IS NULL",
    "CREATE INDEX saga_newest ON saga.saga (create_time DESC, saga_id DESC)",
    """
    CREATE INDEX saga_keys ON saga.saga USING gin (keys jsonb_path_ops) WHERE keys <> '{}'
    """,
    # No foreign key to saga: a trigger for each event would cost as much as writing it. The group
    # commit writes no event that does not follow the one before it, and the first with its saga.
    """
    CREATE TABLE saga.saga_event (
      saga_id  text COLLATE "C" NOT NULL,
      revision integer NOT NULL,
      time     timestamptz NOT NULL,
      kind     text NOT NULL,
      step     text NOT NULL,
      attempt  integer NOT NULL,
      state    text,
      payload  bytea NOT NULL,
      commands bytea NOT NULL,
      PRIMARY KEY (saga_id, revision),
      CONSTRAINT saga_event_revision CHECK (revision >= 1),
      CONSTRAINT saga_event_first CHECK ((revision = 1) = (kind = 'STARTED')),
      CONSTRAINT saga_event_kind CHECK (
        kind IN ('STARTED', 'STEP_DONE', 'STEP_REJECTED', 'ATTEMPT_FAILED', 'ABORTED',
                 'STEP_COMPENSATED', 'STUCK', 'RETRIED', 'STEP_SKIPPED', 'ABANDONED')),
      CONSTRAINT saga_event_of_step CHECK (
        (step = '') = (kind IN ('STARTED', 'ABORTED', 'STUCK', 'RETRIED', 'ABANDONED'))),
      CONSTRAINT saga_event_attempt CHECK (attempt = 0 OR (attempt > 0 AND step <> '')),
      CONSTRAINT saga_event_state CHECK (
        state IN ('RUNNING', 'COMPENSATING', 'STUCK', 'COMPLETED', 'COMPENSATED', 'ABANDONED'))
    )
    """,
)

_INBOX = (
    """
    CREATE TABLE saga.saga_inbox (
      request_id  text COLLATE "C" PRIMARY KEY,
      saga_id     text COLLATE "C" NOT NULL REFERENCES saga.saga,
      verb        text NOT NULL,
      step        text NOT NULL,
      actor       text NOT NULL,
      reason      text NOT NULL,
      state       text NOT NULL DEFAULT 'PENDING',
      explanation text NOT NULL DEFAULT '',
      create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
      decide_time timestamptz,
      CONSTRAINT saga_inbox_request_id CHECK (request_id <> ''),
      CONSTRAINT saga_inbox_verb CHECK (verb IN ('CANCEL', 'RETRY', 'SKIP', 'ABANDON')),
      CONSTRAINT saga_inbox_state CHECK (state IN ('PENDING', 'ACCEPTED', 'REFUSED')),
      CONSTRAINT saga_inbox_decided CHECK ((decide_time IS NULL) = (state = 'PENDING')),
      CONSTRAINT saga_inbox_explained CHECK (explanation = '' OR state = 'REFUSED')
    )
    """,
    """
    CREATE INDEX saga_inbox_pending ON saga.saga_inbox (create_time, request_id)
    WHERE state = 'PENDING'
    """,
)

_DEFINITIONS = (
    """
    CREATE TABLE saga.definition (
      hash        text COLLATE "C" PRIMARY KEY,
      name        text COLLATE "C" NOT NULL,
      source      text NOT NULL,
      descriptors bytea NOT NULL,
      create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
      registered  bigint GENERATED ALWAYS AS IDENTITY,
      CONSTRAINT definition_name CHECK (name <> ''),
      CONSTRAINT definition_hash CHECK (hash <> '')
    )
    """,
    "CREATE UNIQUE INDEX definition_newest ON saga.definition (name, registered DESC)",
)


def upgrade() -> None:
    op.execute("CREATE SCHEMA saga")
    for statement in (*_LEASES, *_SAGAS, *_INBOX, *_DEFINITIONS):
        op.execute(statement)


def downgrade() -> None:
    op.execute("DROP SCHEMA saga CASCADE")

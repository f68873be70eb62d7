"""What parked sagas need, and what rows cost; in one transaction, in which all others wait.

With millions of sagas that is the time in which three indexes are made: a few seconds for each
million. No lease is lost meanwhile: `instance` is not touched. An instance of the version before
goes on working beside it: it takes a parked saga for one that nobody owns.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

_PARKING = (
    # Without a default, so that no row is written.
    "ALTER TABLE saga.saga ADD COLUMN wake_time timestamptz",
    # A parked saga has the epoch -1, which no lease has and which claims do not look at: it is in
    # `saga_claimable` before all of those that they skip through. They ask here whose time it is.
    "CREATE INDEX saga_parked ON saga.saga (wake_time, saga_id) WHERE epoch = -1",
)

_ROWS = (
    # PostgreSQL reads the words of every CHECK again in every statement that writes to its table:
    # a sixth of what a group commit cost. Only that statement writes here, in terms that the codec
    # has; keys, NOT NULL, and the checks of tables that are written now and then stay.
    """
    ALTER TABLE saga.saga
      DROP CONSTRAINT saga_id, DROP CONSTRAINT saga_state, DROP CONSTRAINT saga_keys,
      DROP CONSTRAINT saga_claims, DROP CONSTRAINT saga_finished_when_final
    """,
    """
    ALTER TABLE saga.saga_event
      DROP CONSTRAINT saga_event_revision, DROP CONSTRAINT saga_event_first,
      DROP CONSTRAINT saga_event_kind, DROP CONSTRAINT saga_event_of_step,
      DROP CONSTRAINT saga_event_attempt, DROP CONSTRAINT saga_event_state
    """,
    # What is newest goes to the right end of an index, where PostgreSQL leaves full pages behind;
    # pages that are split at the left end stay half empty. They are read from the right.
    "DROP INDEX saga.saga_newest, saga.saga_in_state",
    "CREATE INDEX saga_newest ON saga.saga (create_time, saga_id)",
    """
    CREATE INDEX saga_in_state ON saga.saga (state, create_time, saga_id)
    WHERE state <> 'COMPLETED'
    """,
    # A fifth of a table, which is the default, is millions of rows here. Each end of a saga leaves
    # one dead row in `saga`, retention all others; events are only added until then, and a vacuum
    # of what was added freezes it while it is in memory.
    """
    ALTER TABLE saga.saga SET (
      autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05)
    """,
    """
    ALTER TABLE saga.saga_event SET (
      autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05)
    """,
)

_DOWNGRADE = (
    "ALTER TABLE saga.saga RESET (autovacuum_vacuum_scale_factor, autovacuum_analyze_scale_factor)",
    """
    ALTER TABLE saga.saga_event
      RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_insert_scale_factor)
    """,
    "DROP INDEX saga.saga_newest, saga.saga_in_state",
    "CREATE INDEX saga_newest ON saga.saga (create_time DESC, saga_id DESC)",
    """
    CREATE INDEX saga_in_state ON saga.saga (state, create_time DESC, saga_id DESC)
    WHERE state <> 'COMPLETED'
    """,
    # NOT VALID: the rows that are there are not read for it.
    """
    ALTER TABLE saga.saga
      ADD CONSTRAINT saga_id CHECK (saga_id <> '') NOT VALID,
      ADD CONSTRAINT saga_state CHECK (
        state IN ('RUNNING', 'COMPENSATING', 'STUCK', 'COMPLETED', 'COMPENSATED', 'ABANDONED')
      ) NOT VALID,
      ADD CONSTRAINT saga_finished_when_final CHECK (
        (finish_time IS NOT NULL) = (state IN ('COMPLETED', 'COMPENSATED', 'ABANDONED'))
      ) NOT VALID,
      ADD CONSTRAINT saga_keys CHECK (jsonb_typeof(keys) = 'object') NOT VALID,
      ADD CONSTRAINT saga_claims CHECK (claims >= 0 AND claim_revision >= 0) NOT VALID
    """,
    """
    ALTER TABLE saga.saga_event
      ADD CONSTRAINT saga_event_revision CHECK (revision >= 1) NOT VALID,
      ADD CONSTRAINT saga_event_first CHECK ((revision = 1) = (kind = 'STARTED')) NOT VALID,
      ADD CONSTRAINT saga_event_kind CHECK (
        kind IN ('STARTED', 'STEP_DONE', 'STEP_REJECTED', 'ATTEMPT_FAILED', 'ABORTED',
                 'STEP_COMPENSATED', 'STUCK', 'RETRIED', 'STEP_SKIPPED', 'ABANDONED')) NOT VALID,
      ADD CONSTRAINT saga_event_of_step CHECK (
        (step = '') = (kind IN ('STARTED', 'ABORTED', 'STUCK', 'RETRIED', 'ABANDONED'))
      ) NOT VALID,
      ADD CONSTRAINT saga_event_attempt CHECK (attempt = 0 OR (attempt > 0 AND step <> ''))
        NOT VALID,
      ADD CONSTRAINT saga_event_state CHECK (
        state IN ('RUNNING', 'COMPENSATING', 'STUCK', 'COMPLETED', 'COMPENSATED', 'ABANDONED')
      ) NOT VALID
    """,
    # Sagas that are parked are nobody's then, and run at once.
    "UPDATE saga.saga SET epoch = 0 WHERE epoch = -1",
    "DROP INDEX saga.saga_parked",
    "ALTER TABLE saga.saga DROP COLUMN wake_time",
)


def upgrade() -> None:
    for statement in (*_PARKING, *_ROWS):
        op.execute(statement)


def downgrade() -> None:
    for statement in _DOWNGRADE:
        op.execute(statement)

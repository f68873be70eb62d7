"""What claims, verbs and retention need; made in one transaction, in which group commits wait.

An instance of the version before goes on working beside it: what it asks of the tables is there.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

_UPGRADE = (
    # `claims` was relative to `claim_revision`; from now on an event sets it to 0.
    """
    UPDATE saga.saga SET claims = 0
    WHERE claims > 0 AND claim_revision < (
      SELECT max(revision) FROM saga.saga_event WHERE saga_event.saga_id = saga.saga_id)
    """,
    # A claim finds dead epochs by skipping from one epoch to the next, and takes from each of them
    # the least suspected first and the oldest of these: it never sees the sagas of live instances,
    # nor finished ones.
    """
    CREATE INDEX saga_claimable ON saga.saga (epoch, claims, create_time, saga_id)
    WHERE finish_time IS NULL
    """,
    # Every event asks it whether its saga was suspected; hardly any is.
    "CREATE INDEX saga_suspect ON saga.saga (saga_id) WHERE claims > 0",
    # Lists by state merge one scan for each state. COMPLETED, which nearly all are, is found among
    # all of them (`saga_newest`): nothing is kept here for it.
    """
    CREATE INDEX saga_in_state ON saga.saga (state, create_time DESC, saga_id DESC)
    WHERE state <> 'COMPLETED'
    """,
    "DROP INDEX saga.saga_open",
    # Retention deletes the oldest first.
    """
    CREATE INDEX saga_finished ON saga.saga (finish_time, saga_id) WHERE finish_time IS NOT NULL
    """,
    # A saga is deleted with its verbs, and the foreign key asks for them once more.
    "CREATE INDEX saga_inbox_of_saga ON saga.saga_inbox (saga_id)",
    """
    ALTER TABLE saga.saga_inbox ADD COLUMN revision integer NOT NULL DEFAULT 0,
      ADD CONSTRAINT saga_inbox_revision CHECK (revision >= 0)
    """,
)

_DOWNGRADE = (
    "ALTER TABLE saga.saga_inbox DROP COLUMN revision",
    "CREATE INDEX saga_open ON saga.saga (create_time, saga_id) WHERE finish_time IS NULL",
    "DROP INDEX saga.saga_claimable, saga.saga_suspect, saga.saga_in_state, saga.saga_finished",
    "DROP INDEX saga.saga_inbox_of_saga",
)


def upgrade() -> None:
    for statement in _UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in _DOWNGRADE:
        op.execute(statement)

"""What parked sagas need; made in one transaction, in which group commits and readers wait.

With millions of sagas that is the time in which the table is read once, for an index that nothing
is in yet: about a second for each million. No lease is lost meanwhile. An instance of the version
before goes on working beside it: it takes a parked saga for one that nobody owns.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

_UPGRADE = (
    # Without a default, so that no row is written.
    "ALTER TABLE saga.saga ADD COLUMN wake_time timestamptz",
    # A parked saga has the epoch -1, which no lease has and which claims do not look at: it is in
    # `saga_claimable` before all of those that they skip through. They ask here whose time it is.
    "CREATE INDEX saga_parked ON saga.saga (wake_time, saga_id) WHERE epoch = -1",
    # Not asked of the rows that are there, which would be to read them once more.
    """
    ALTER TABLE saga.saga
      ADD CONSTRAINT saga_parked_until CHECK (epoch <> -1 OR wake_time IS NOT NULL) NOT VALID
    """,
)

_DOWNGRADE = (
    # Sagas that are parked are nobody's then, and run at once.
    "UPDATE saga.saga SET epoch = 0 WHERE epoch = -1",
    "DROP INDEX saga.saga_parked",
    "ALTER TABLE saga.saga DROP COLUMN wake_time",
)


def upgrade() -> None:
    for statement in _UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in _DOWNGRADE:
        op.execute(statement)

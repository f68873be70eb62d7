from __future__ import annotations

from alembic import op

from mesh.barrier.tables import renew_barrier

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    renew_barrier(op.get_bind())


def downgrade() -> None:
    """What the older release has checked, the newer function checks too."""

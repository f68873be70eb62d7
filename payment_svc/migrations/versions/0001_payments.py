from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from mesh.barrier.tables import create_barrier, drop_barrier

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    create_barrier(op.get_bind())
    op.create_table(
        "payment",
        sa.Column("payment_id", sa.Uuid, primary_key=True),
        sa.Column("order_id", sa.Text, nullable=False),
        sa.Column("saga_id", sa.Text, nullable=False),
        sa.Column("amount_minor", sa.BigInteger, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("provider_reference", sa.Text, nullable=False, unique=True),
        sa.Column("failure_reason", sa.Text, nullable=False, server_default=""),
        sa.Column("create_time", _TIME, nullable=False, server_default=sa.func.now()),
        sa.Column("update_time", _TIME, nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("amount_minor > 0", "payment_amount"),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", "payment_currency"),
        sa.CheckConstraint(
            "state IN ('PENDING', 'CHARGED', 'DECLINED', 'REFUNDING', 'REFUNDED')", "payment_state"
        ),
        sa.CheckConstraint(
            "(state = 'DECLINED') = (failure_reason <> '')", "payment_reason_of_declined"
        ),
    )
    op.create_index("payment_of_order", "payment", ["order_id", "payment_id"])


def downgrade() -> None:
    op.drop_table("payment")
    drop_barrier(op.get_bind())

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from mesh.barrier.tables import create_barrier, drop_barrier

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    create_barrier(op.get_bind())
    _create_shipment()
    _create_shipment_item()


def _create_shipment() -> None:
    op.create_table(
        "shipment",
        sa.Column("shipment_id", sa.Uuid, primary_key=True),
        sa.Column("order_id", sa.Text, nullable=False),
        sa.Column("saga_id", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("tracking_code", sa.Text, nullable=False, server_default=""),
        sa.Column("create_time", _TIME, nullable=False, server_default=sa.func.now()),
        sa.Column("update_time", _TIME, nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("state IN ('REQUESTED', 'SHIPPED', 'CANCELLED')", "shipment_state"),
        sa.CheckConstraint(
            "(state = 'SHIPPED') = (tracking_code <> '')", "shipment_tracked_once_shipped"
        ),
    )
    op.create_index("shipment_of_order", "shipment", ["order_id", "shipment_id"])


def _create_shipment_item() -> None:
    op.create_table(
        "shipment_item",
        sa.Column(
            "shipment_id",
            sa.Uuid,
            sa.ForeignKey("shipment.shipment_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("line", sa.Integer, primary_key=True),
        sa.Column("product_id", sa.Text, nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.CheckConstraint("line >= 1", "shipment_item_line"),
        sa.CheckConstraint("quantity BETWEEN 1 AND 1000000", "shipment_item_quantity"),
    )


def downgrade() -> None:
    for table in ("shipment_item", "shipment"):
        op.drop_table(table)
    drop_barrier(op.get_bind())

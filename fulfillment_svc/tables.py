"""The tables of the fulfillment database."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()
_TIME = sa.DateTime(timezone=True)

shipment = sa.Table(
    "shipment",
    metadata,
    sa.Column("shipment_id", sa.Uuid(as_uuid=False), primary_key=True),
    sa.Column("order_id", sa.Text, nullable=False),
    sa.Column("saga_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("tracking_code", sa.Text, nullable=False, server_default=""),
    sa.Column("create_time", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("update_time", _TIME, nullable=False, server_default=sa.func.now()),
    sa.CheckConstraint("state IN ('REQUESTED', 'SHIPPED', 'CANCELLED')", name="shipment_state"),
    sa.CheckConstraint(
        "(state = 'SHIPPED') = (tracking_code <> '')", name="shipment_tracked_once_shipped"
    ),
)
sa.Index("shipment_of_order", shipment.c.order_id, shipment.c.shipment_id)

shipment_item = sa.Table(
    "shipment_item",
    metadata,
    sa.Column(
        "shipment_id",
        sa.Uuid(as_uuid=False),
        sa.ForeignKey("shipment.shipment_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("line", sa.Integer, primary_key=True),
    sa.Column("product_id", sa.Text, nullable=False),
    sa.Column("quantity", sa.Integer, nullable=False),
    sa.CheckConstraint("line >= 1", name="shipment_item_line"),
    sa.CheckConstraint("quantity BETWEEN 1 AND 1000000", name="shipment_item_quantity"),
)

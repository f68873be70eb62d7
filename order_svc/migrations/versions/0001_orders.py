from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from mesh.barrier.tables import create_barrier, drop_barrier

revision = "0001"
down_revision = None

_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    create_barrier(op.get_bind())
    _create_placement()
    _create_orders()
    _create_order_item()


def _create_placement() -> None:
    op.create_table(
        "placement",
        sa.Column("request_id", sa.Text, primary_key=True),
        sa.Column("request_sha", sa.LargeBinary, nullable=False),
        sa.Column("order_id", sa.Uuid, nullable=False, unique=True),
        sa.Column("saga_id", sa.Text, nullable=False, unique=True),
        sa.Column("customer_id", sa.Text, nullable=False),
        sa.Column("input", sa.LargeBinary, nullable=False),
        sa.Column("place_time", _TIME, nullable=False, server_default=sa.func.now()),
        sa.Column("start_time", _TIME),
        sa.Column("due_time", _TIME),
    )
    owed = sa.text("due_time IS NOT NULL")
    op.create_index("placement_due", "placement", ["due_time"], postgresql_where=owed)
    op.create_index("placement_owed", "placement", ["order_id"], postgresql_where=owed)


def _create_orders() -> None:
    op.create_table(
        "orders",
        sa.Column("order_id", sa.Uuid, primary_key=True),
        sa.Column("saga_id", sa.Text, nullable=False),
        sa.Column("customer_id", sa.Text, nullable=False),
        sa.Column("currency", sa.Text, nullable=False),
        sa.Column("total_minor", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("failure_reason", sa.Text, nullable=False, server_default=""),
        sa.Column("create_time", _TIME, nullable=False, server_default=sa.func.now()),
        sa.Column("update_time", _TIME, nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", "orders_currency"),
        sa.CheckConstraint("total_minor >= 0", "orders_total"),
        sa.CheckConstraint("state IN ('PENDING', 'CONFIRMED', 'CANCELLED')", "orders_state"),
        sa.CheckConstraint(
            "failure_reason = '' OR state = 'CANCELLED'", "orders_failure_of_cancelled"
        ),
    )
    op.create_index("orders_of_customer", "orders", ["customer_id", "order_id"])


def _create_order_item() -> None:
    op.create_table(
        "order_item",
        sa.Column(
            "order_id",
            sa.Uuid,
            sa.ForeignKey("orders.order_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("line", sa.Integer, primary_key=True),
        sa.Column("product_id", sa.Text, nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("unit_price_minor", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("order_id", "product_id", name="order_item_product_once"),
        sa.CheckConstraint("line >= 1", "order_item_line"),
        sa.CheckConstraint("quantity BETWEEN 1 AND 1000000", "order_item_quantity"),
        sa.CheckConstraint("unit_price_minor >= 0", "order_item_unit_price"),
    )


def downgrade() -> None:
    for table in ("order_item", "orders", "placement"):
        op.drop_table(table)
    drop_barrier(op.get_bind())

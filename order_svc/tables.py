"""The tables of the order database. Money is in integer minor units of the order's currency.

A `placement` is the promise that PlaceOrder has made: an order id and a saga that will work on it.
An `orders` row is the order itself; only the saga's step CreateOrder makes one, so that its
Compensate undoes all of it. A placement with a `due_time` still wants something: its saga started,
its order confirmed, or the reason of its cancellation learnt.
"""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()
_TIME = sa.DateTime(timezone=True)

placement = sa.Table(
    "placement",
    metadata,
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("request_sha", sa.LargeBinary, nullable=False),
    sa.Column("order_id", sa.Uuid(as_uuid=False), nullable=False, unique=True),
    sa.Column("saga_id", sa.Text, nullable=False, unique=True),
    sa.Column("customer_id", sa.Text, nullable=False),
    sa.Column("input", sa.LargeBinary, nullable=False),
    sa.Column("place_time", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("start_time", _TIME),
    sa.Column("due_time", _TIME),
)
_owed = placement.c.due_time.is_not(None)
sa.Index("placement_due", placement.c.due_time, postgresql_where=_owed)
sa.Index("placement_owed", placement.c.order_id, postgresql_where=_owed)

orders = sa.Table(
    "orders",
    metadata,
    sa.Column("order_id", sa.Uuid(as_uuid=False), primary_key=True),
    sa.Column("saga_id", sa.Text, nullable=False),
    sa.Column("customer_id", sa.Text, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("total_minor", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("failure_reason", sa.Text, nullable=False, server_default=""),
    sa.Column("create_time", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("update_time", _TIME, nullable=False, server_default=sa.func.now()),
    sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="orders_currency"),
    sa.CheckConstraint("total_minor >= 0", name="orders_total"),
    sa.CheckConstraint(
        "state IN ('PENDING', 'CONFIRMED', 'CANCELLED', 'ABANDONED')", name="orders_state"
    ),
    sa.CheckConstraint(
        "failure_reason = '' OR state IN ('CANCELLED', 'ABANDONED')", name="orders_failure"
    ),
)
sa.Index("orders_of_customer", orders.c.customer_id, orders.c.order_id)

order_item = sa.Table(
    "order_item",
    metadata,
    sa.Column(
        "order_id",
        sa.Uuid(as_uuid=False),
        sa.ForeignKey("orders.order_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    sa.Column("line", sa.Integer, primary_key=True),
    sa.Column("product_id", sa.Text, nullable=False),
    sa.Column("quantity", sa.Integer, nullable=False),
    sa.Column("unit_price_minor", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("order_id", "product_id", name="order_item_product_once"),
    sa.CheckConstraint("line >= 1", name="order_item_line"),
    sa.CheckConstraint("quantity BETWEEN 1 AND 1000000", name="order_item_quantity"),
    sa.CheckConstraint("unit_price_minor >= 0", name="order_item_unit_price"),
)

"""The table of the payment database. Money is in integer minor units of the payment's currency."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()
_TIME = sa.DateTime(timezone=True)

payment = sa.Table(
    "payment",
    metadata,
    sa.Column("payment_id", sa.Uuid(as_uuid=False), primary_key=True),
    sa.Column("order_id", sa.Text, nullable=False),
    sa.Column("saga_id", sa.Text, nullable=False),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("provider_reference", sa.Text, nullable=False, unique=True),
    sa.Column("failure_reason", sa.Text, nullable=False, server_default=""),
    sa.Column("create_time", _TIME, nullable=False, server_default=sa.func.now()),
    sa.Column("update_time", _TIME, nullable=False, server_default=sa.func.now()),
    sa.CheckConstraint("amount_minor > 0", name="payment_amount"),
    sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name="payment_currency"),
    sa.CheckConstraint(
        "state IN ('PENDING', 'CHARGED', 'DECLINED', 'REFUNDING', 'REFUNDED')",
        name="payment_state",
    ),
    sa.CheckConstraint(
        "(state = 'DECLINED') = (failure_reason <> '')", name="payment_reason_of_declined"
    ),
)
sa.Index("payment_of_order", payment.c.order_id, payment.c.payment_id)

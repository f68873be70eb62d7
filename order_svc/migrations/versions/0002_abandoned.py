from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    _constrain("'PENDING', 'CONFIRMED', 'CANCELLED', 'ABANDONED'")
    op.drop_constraint("orders_failure_of_cancelled", "orders")
    op.create_check_constraint(
        "orders_failure", "orders", "failure_reason = '' OR state IN ('CANCELLED', 'ABANDONED')"
    )
    # A pending order is looked after until its saga has ended, not only until it is created.
    op.execute(
        "UPDATE placement SET due_time = now() FROM orders"
        " WHERE orders.order_id = placement.order_id AND orders.state = 'PENDING'"
    )


def downgrade() -> None:
    op.execute("UPDATE orders SET state = 'CANCELLED' WHERE state = 'ABANDONED'")
    op.drop_constraint("orders_failure", "orders")
    op.create_check_constraint(
        "orders_failure_of_cancelled", "orders", "failure_reason = '' OR state = 'CANCELLED'"
    )
    _constrain("'PENDING', 'CONFIRMED', 'CANCELLED'")


def _constrain(states: str) -> None:
    op.drop_constraint("orders_state", "orders")
    op.create_check_constraint("orders_state", "orders", f"state IN ({states})")

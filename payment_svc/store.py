"""Payments as readers see them; each change commits by itself, or along with the barrier's row."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from mesh.barrier.along import Along, AlongStatement
from mesh.money import Money
from mesh.postgres import session, transaction
from mesh.statement import Statement, ask
from payment_svc.payment import SOURCES, Charge, Payment, PaymentState
from payment_svc.tables import payment

_TEXT = """
    INSERT INTO payment (payment_id, order_id, saga_id, amount_minor, currency, provider_reference,
                         state, failure_reason)
    SELECT %(payment_id)s::uuid, %(order_id)s, %(saga_id)s, %(amount_minor)s, %(currency)s,
           %(provider_reference)s, %(payment_state)s, %(failure_reason)s
    """
_OR_CHANGE = """
    ON CONFLICT (payment_id) DO UPDATE
    SET state = excluded.state, failure_reason = excluded.failure_reason, update_time = now()
    WHERE payment.state = ANY (string_to_array(%(sources)s, ','))
    RETURNING true
    """
_TYPES = {
    "payment_id": "text",
    "order_id": "text",
    "saga_id": "text",
    "amount_minor": "bigint",
    "currency": "text",
    "provider_reference": "text",
    "payment_state": "text",
    "failure_reason": "text",
    "sources": "text",
}
_MARK = Statement("mark_payment", f"{_TEXT} {_OR_CHANGE}", _TYPES)
_MARK_ALONG = AlongStatement("mark_payment", f"{_TEXT} FROM moved {_OR_CHANGE}", _TYPES)


class Payments:
    """The table `payment`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def mark(self, charge: Charge, state: PaymentState, *, failure_reason: str = "") -> bool:
        """Write down what became of a payment, or that there is one.

        False, and nothing changes, where this state is not reached from the one that is stored.
        """
        async with session(self._engine) as db:
            (marked,) = await ask(db, _MARK(**_values(charge, state, failure_reason)))
            return bool(marked)

    def marking(self, charge: Charge, state: PaymentState) -> Along:
        """What `mark` does, along with a change of the barrier's row."""
        return _MARK_ALONG(**_values(charge, state))

    async def get(self, payment_id: str) -> Payment | None:
        """One payment by its id; None when there is none."""
        return await self._one(sa.select(payment).where(payment.c.payment_id == payment_id))

    async def of_order(self, order_id: str) -> Payment | None:
        """The newest payment of one order; None when there is none."""
        newest = payment.c.payment_id.desc()
        wanted = sa.select(payment).where(payment.c.order_id == order_id)
        return await self._one(wanted.order_by(newest).limit(1))

    async def _one(self, query: sa.Select[*tuple[object, ...]]) -> Payment | None:
        async with transaction(self._engine) as tx:
            row = (await tx.execute(query)).mappings().one_or_none()
        return None if row is None else _payment(row)


def _values(
    charge: Charge, state: PaymentState, failure_reason: str = ""
) -> Mapping[str, str | int]:
    return {
        "payment_id": charge.payment_id,
        "order_id": charge.order_id,
        "saga_id": charge.saga_id,
        "amount_minor": charge.amount.minor_units,
        "currency": charge.amount.currency,
        "provider_reference": charge.provider_reference,
        "payment_state": state,
        "failure_reason": failure_reason,
        "sources": ",".join(SOURCES[state]),
    }


def _payment(row: sa.RowMapping) -> Payment:
    return Payment(
        charge=Charge(
            payment_id=row["payment_id"],
            order_id=row["order_id"],
            saga_id=row["saga_id"],
            amount=Money(minor_units=row["amount_minor"], currency=row["currency"]),
            provider_reference=row["provider_reference"],
        ),
        state=PaymentState(row["state"]),
        failure_reason=row["failure_reason"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )

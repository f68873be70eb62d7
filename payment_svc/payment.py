"""What a payment is. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mesh import money
from mesh.money import Money
from protos.payment.v1 import payment_pb2


class PaymentState(StrEnum):
    """Where a payment is, by the names of the contract."""

    PENDING = "PENDING"
    CHARGED = "CHARGED"
    DECLINED = "DECLINED"
    REFUNDING = "REFUNDING"
    REFUNDED = "REFUNDED"


SOURCES: dict[PaymentState, frozenset[PaymentState]] = {
    PaymentState.PENDING: frozenset(),
    PaymentState.CHARGED: frozenset({PaymentState.PENDING}),
    PaymentState.DECLINED: frozenset({PaymentState.PENDING}),
    PaymentState.REFUNDING: frozenset({PaymentState.PENDING, PaymentState.CHARGED}),
    PaymentState.REFUNDED: frozenset({PaymentState.REFUNDING}),
}
"""From which states each state is reached; what a late attempt says changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What is to be paid, and under which names: everything about a payment that never changes."""

    payment_id: str
    order_id: str
    saga_id: str
    amount: Money
    provider_reference: str
    """Id of the payment at the provider."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One payment as it is stored."""

    charge: Charge
    state: PaymentState
    failure_reason: str
    """Why it was declined; empty otherwise."""
    create_time: datetime
    update_time: datetime


def to_proto(payment: Payment) -> payment_pb2.Payment:
    """The payment as the API shows it."""
    charge = payment.charge
    return payment_pb2.Payment(
        payment_id=charge.payment_id,
        order_id=charge.order_id,
        amount=money.to_proto(charge.amount),
        state=f"PAYMENT_STATE_{payment.state}",
        provider_reference=charge.provider_reference,
        failure_reason=payment.failure_reason,
        create_time=payment.create_time,
        update_time=payment.update_time,
    )

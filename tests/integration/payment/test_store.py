"""Payments while their database is away: worth a retry, never an internal error."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from local.ports import HOST, free_port
from mesh.errors import Retry
from mesh.money import Money
from mesh.postgres import create_engine
from payment_svc.payment import Charge, PaymentState
from payment_svc.store import Payments

CHARGE = Charge(
    payment_id="019a0000-0000-7000-8000-000000000001",
    order_id="o-1",
    saga_id="s-1",
    amount=Money(minor_units=1250, currency="EUR"),
    provider_reference="pi_1",
)


@pytest_asyncio.fixture
async def payments() -> AsyncIterator[Payments]:
    """Payments behind a port where nobody listens."""
    engine = create_engine(f"postgresql://postgres@{HOST}:{free_port()}/payments")
    yield Payments(engine)
    await engine.dispose()


async def test_a_payment_that_cannot_be_marked_is_worth_a_retry(payments: Payments) -> None:
    with pytest.raises(Retry) as refusal:
        await payments.mark(CHARGE, PaymentState.CHARGED)
    assert refusal.value.reason == "DATABASE_UNAVAILABLE"


async def test_a_payment_that_cannot_be_read_is_worth_a_retry(payments: Payments) -> None:
    with pytest.raises(Retry) as refusal:
        await payments.of_order("o-1")
    assert refusal.value.reason == "DATABASE_UNAVAILABLE"

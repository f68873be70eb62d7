"""Do: the card is charged once, or it is proved that it will not be."""

from __future__ import annotations

import asyncio

import grpc
import pytest
import sqlalchemy as sa

from local.ports import HOST, free_port
from mesh.barrier.tables import barrier
from mesh.postgres import create_engine
from protos.payment.v1 import payment_pb2
from tests.integration.payment.till import (
    AMOUNT,
    DAY,
    EUROS,
    SDK_WARNS,
    VISA,
    Sandbox,
    Till,
    open_till,
)
from tests.refusals import refused

pytestmark = SDK_WARNS

OPERATIONS = ["create", "confirm", "retrieve"]
BROKEN = ["error_before", "error_after", "drop_before", "drop_after", "rate_limit"]


async def test_a_card_is_charged_and_the_payment_can_be_read(till: Till, sandbox: Sandbox) -> None:
    response = await till.do()

    line = await sandbox.payment(till.saga_id)
    assert line["captured"] == AMOUNT
    assert line["payment_intent"] == response.provider_reference
    assert line["metadata"] == {
        "saga_id": till.saga_id,
        "step": "charge_payment",
        "order_id": till.saga_id,
    }
    payment = await till.payment()
    assert payment.payment_id == response.payment_id
    assert payment.provider_reference == response.provider_reference
    assert payment.amount == EUROS
    assert await till.state() == "CHARGED"
    by_id = payment_pb2.GetPaymentRequest(payment_id=response.payment_id)
    assert (await till.payments.GetPayment(by_id)).payment == payment


async def test_a_repeated_do_answers_the_same_and_charges_nothing(
    till: Till, sandbox: Sandbox
) -> None:
    assert await till.do() == await till.do()
    assert await sandbox.kept(till.saga_id) == AMOUNT


async def test_duplicates_in_parallel_charge_once(till: Till, sandbox: Sandbox) -> None:
    await asyncio.gather(*(till.do() for _ in range(10)), return_exceptions=True)
    await till.done()
    assert [line["captured"] for line in await sandbox.payments(till.saga_id)] == [AMOUNT]


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("pm_card_chargeDeclined", "CARD_DECLINED"),
        ("pm_card_chargeDeclinedInsufficientFunds", "INSUFFICIENT_FUNDS"),
        ("pm_card_chargeDeclinedExpiredCard", "EXPIRED_CARD"),
        ("pm_card_authenticationRequired", "AUTHENTICATION_REQUIRED"),
        ("pm_nobody_knows_me", "PAYMENT_METHOD_UNKNOWN"),
    ],
)
async def test_a_refused_card_is_rejected_once_nothing_can_be_charged_any_more(
    till: Till, sandbox: Sandbox, token: str, reason: str
) -> None:
    for _ in ("first", "again"):
        async with refused() as refusal:
            await till.do(token)
        assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
        assert (refusal.reason, refusal.outcome) == (reason, "rejected")
    line = await sandbox.payment(till.saga_id)
    assert (line["status"], line["captured"]) == ("canceled", 0)
    payment = await till.payment()
    assert payment.failure_reason == reason
    assert await till.state() == "DECLINED"


async def test_a_charge_that_is_still_processed_is_unknown_until_it_settles(
    till: Till, sandbox: Sandbox
) -> None:
    await sandbox.faults(settle_seconds=60)
    async with refused() as refusal:
        await till.do("pm_card_processing")
    assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert (refusal.reason, refusal.outcome) == ("PAYMENT_UNDECIDED", None)
    assert await till.state() == "PENDING"

    await sandbox.forward(60)
    await till.do("pm_card_processing")
    assert await sandbox.kept(till.saga_id) == AMOUNT


async def test_a_charge_that_settles_as_declined_is_rejected(till: Till, sandbox: Sandbox) -> None:
    await sandbox.faults(settle_seconds=60)
    token = "pm_card_processingThenDeclined"
    async with refused():
        await till.do(token)
    await sandbox.forward(60)
    async with refused() as refusal:
        await till.do(token)
    assert (refusal.reason, refusal.outcome) == ("CARD_DECLINED", "rejected")
    assert await sandbox.kept(till.saga_id) == 0


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_whatever_breaks_on_the_way_the_card_is_charged_once(
    till: Till, sandbox: Sandbox, operation: str, kind: str
) -> None:
    lost_confirm = {"kind": "rate_limit", "operation": "confirm"}  # leads to a retrieve
    broken = {"kind": kind, "operation": operation, "times": 2}
    await sandbox.faults(*([lost_confirm] if operation == "retrieve" else []), broken)
    await till.done()
    assert await sandbox.kept(till.saga_id) == AMOUNT
    assert await till.state() == "CHARGED"


async def test_a_key_in_use_is_unknown(till: Till, sandbox: Sandbox) -> None:
    await sandbox.faults(latency_ms=300)
    first = asyncio.create_task(till.do())
    await sandbox.until_in_progress("create")
    async with refused() as refusal:
        await till.do()
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "PROVIDER_BUSY")
    await first
    assert await sandbox.kept(till.saga_id) == AMOUNT


async def test_an_intent_that_got_lost_for_a_day_never_takes_money(
    till: Till, sandbox: Sandbox
) -> None:
    await sandbox.faults({"kind": "drop_after", "operation": "create"})
    async with refused():
        await till.do()
    await sandbox.forward(DAY)
    await till.do()
    captured = [line["captured"] for line in await sandbox.payments(till.saga_id)]
    assert captured == [0, AMOUNT]


async def test_a_charge_whose_answer_got_lost_for_a_day_is_found_by_its_id(
    till: Till, sandbox: Sandbox
) -> None:
    await sandbox.faults(
        {"kind": "drop_after", "operation": "confirm"},
        {"kind": "drop_after", "operation": "retrieve"},
    )
    async with refused():
        await till.do()
    await sandbox.forward(DAY)
    await till.do()
    assert [line["captured"] for line in await sandbox.payments(till.saga_id)] == [AMOUNT]


async def test_a_cancel_that_loses_to_a_straggling_confirm_makes_it_a_charge(
    till: Till, sandbox: Sandbox
) -> None:
    await sandbox.faults({"kind": "lose_to_confirm"})
    await till.do("pm_card_chargeDeclined")
    assert await sandbox.kept(till.saga_id) == AMOUNT
    assert await till.state() == "CHARGED"


async def test_a_rejection_is_not_told_before_the_intent_is_cancelled(
    till: Till, sandbox: Sandbox
) -> None:
    await sandbox.faults({"kind": "drop_before", "operation": "cancel"})
    token = "pm_card_chargeDeclinedOnce"
    async with refused() as refusal:
        await till.do(token)
    assert refusal.outcome is None
    async with refused() as refusal:
        await till.do(token)
    assert (refusal.reason, refusal.outcome) == ("CARD_DECLINED", "rejected")
    line = await sandbox.payment(till.saga_id)
    assert (line["status"], line["captured"]) == ("canceled", 0)


async def test_a_payment_that_the_provider_has_lost_is_never_explained_away(
    till: Till, sandbox: Sandbox, payment_dsn: str
) -> None:
    await sandbox.faults({"kind": "rate_limit", "operation": "confirm"})
    async with refused():
        await till.do()
    engine, mine = create_engine(payment_dsn), barrier.c.saga_id == till.saga_id
    async with engine.begin() as tx:
        gone = {"intent": "pi_gone", "payment_id": "0192f0c1-2b3c-7def-8a1b-2c3d4e5f6071"}
        await tx.execute(sa.update(barrier).where(mine).values(note=gone))
    await engine.dispose()
    for attempt in (till.do, till.compensate):
        async with refused() as refusal:
            await attempt()
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "PAYMENT_MISSING")


async def test_a_request_that_can_never_be_charged_leaves_no_trace(
    till: Till, sandbox: Sandbox, payment_dsn: str
) -> None:
    async with refused() as refusal:
        await till.step.Do(
            payment_pb2.ChargePaymentRequest(payment_method="4242424242424242"),
            metadata=till.metadata,
        )
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ["order_id", "amount", "payment_method"]
    assert "4242" not in refusal.message
    assert await sandbox.payments(till.saga_id) == []
    engine, mine = create_engine(payment_dsn), barrier.c.saga_id == till.saga_id
    async with engine.connect() as tx:
        assert (await tx.execute(sa.select(barrier).where(mine))).all() == []
    await engine.dispose()


async def test_an_amount_that_the_provider_refuses_is_rejected(
    till: Till, sandbox: Sandbox
) -> None:
    request = till.request(VISA)
    request.amount.units = 10**7
    for _ in ("first", "again"):
        async with refused() as refusal:
            await till.step.Do(request, metadata=till.metadata)
        assert (refusal.reason, refusal.outcome) == ("AMOUNT_TOO_LARGE", "rejected")
    assert await sandbox.payments(till.saga_id) == []


async def test_a_provider_that_is_away_is_unknown(payment_dsn: str) -> None:
    async with open_till(payment_dsn, f"http://{HOST}:{free_port()}") as till:
        async with refused() as refusal:
            await till.do()
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert (refusal.reason, refusal.outcome) == ("PROVIDER_UNREACHABLE", None)


async def test_no_payment_is_not_found(till: Till) -> None:
    async with refused() as refusal:
        await till.payment()
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "PAYMENT_NOT_FOUND")

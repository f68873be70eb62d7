"""Compensate: what was charged goes back once, and what was not never will be."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from protos.payment.v1 import payment_pb2
from tests.integration.payment.till import AMOUNT, DAY, KEY, SDK_WARNS, Sandbox, Till
from tests.refusals import refused

pytestmark = SDK_WARNS

BROKEN = ["error_before", "error_after", "drop_before", "drop_after", "rate_limit"]


async def left_open(till: Till, sandbox: Sandbox) -> None:
    """A Do that has noted its intent and not confirmed it."""
    await sandbox.faults({"kind": "rate_limit", "operation": "confirm"})
    async with refused():
        await till.do()
    assert await till.state() == "PENDING"


async def test_a_charge_is_refunded_once_however_often_it_is_compensated(
    till: Till, sandbox: Sandbox
) -> None:
    response = await till.do()
    for _ in ("first", "again"):
        await till.compensate(response)
    line = await sandbox.payment(till.saga_id)
    assert (line["captured"], line["refunded"], len(line["refunds"])) == (AMOUNT, AMOUNT, 1)
    assert await till.state() == "REFUNDED"


async def test_parallel_compensations_refund_once(till: Till, sandbox: Sandbox) -> None:
    await till.do()
    await asyncio.gather(*(till.compensate() for _ in range(5)), return_exceptions=True)
    await till.compensated()
    line = await sandbox.payment(till.saga_id)
    assert (line["refunded"], len(line["refunds"])) == (AMOUNT, 1)


async def test_a_do_that_comes_after_its_compensation_charges_nothing(
    till: Till, sandbox: Sandbox
) -> None:
    await till.compensate()
    async with refused() as refusal:
        await till.do()
    assert refusal.reason == "STEP_ALREADY_COMPENSATED"
    assert await sandbox.payments(till.saga_id) == []


async def test_a_rejected_charge_needs_nothing_undone(till: Till, sandbox: Sandbox) -> None:
    async with refused():
        await till.do("pm_card_chargeDeclined")
    await till.compensate()
    assert await sandbox.kept(till.saga_id) == 0
    assert await till.state() == "DECLINED"


async def test_an_open_intent_is_cancelled(till: Till, sandbox: Sandbox) -> None:
    await left_open(till, sandbox)
    await till.compensate()
    line = await sandbox.payment(till.saga_id)
    assert (line["status"], line["captured"]) == ("canceled", 0)
    assert await till.state() == "REFUNDED"


async def test_a_cancel_that_loses_to_a_confirm_is_followed_by_a_refund(
    till: Till, sandbox: Sandbox
) -> None:
    await left_open(till, sandbox)
    await sandbox.faults({"kind": "lose_to_confirm"})
    await till.compensate()
    line = await sandbox.payment(till.saga_id)
    assert (line["captured"], line["refunded"]) == (AMOUNT, AMOUNT)


@pytest.mark.parametrize("operation", ["create", "confirm"])
async def test_a_compensation_in_the_middle_of_a_do_wins(
    till: Till, sandbox: Sandbox, operation: str
) -> None:
    await sandbox.faults(latency_ms=300)
    straggler = asyncio.create_task(till.do())
    await sandbox.until_in_progress(operation)
    await sandbox.faults()
    await till.compensated()
    async with refused() as refusal:
        await straggler
    assert refusal.reason == "STEP_ALREADY_COMPENSATED"
    line = await sandbox.payment(till.saga_id)
    assert line["captured"] == line["refunded"]
    assert line["status"] != "requires_payment_method"


async def test_a_charge_in_processing_is_awaited_and_then_refunded(
    till: Till, sandbox: Sandbox
) -> None:
    await sandbox.faults(settle_seconds=60)
    async with refused():
        await till.do("pm_card_processing")
    async with refused() as refusal:
        await till.compensate()
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "PAYMENT_UNDECIDED")
    await sandbox.forward(60)
    await till.compensate()
    line = await sandbox.payment(till.saga_id)
    assert (line["captured"], line["refunded"]) == (AMOUNT, AMOUNT)


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("operation", ["retrieve", "list_refunds", "create_refund"])
async def test_whatever_breaks_on_the_way_the_charge_is_refunded_once(
    till: Till, sandbox: Sandbox, operation: str, kind: str
) -> None:
    await till.do()
    await sandbox.faults({"kind": kind, "operation": operation, "times": 2})
    await till.compensated()
    line = await sandbox.payment(till.saga_id)
    assert (line["refunded"], len(line["refunds"])) == (AMOUNT, 1)
    assert await till.state() == "REFUNDED"


async def test_a_refund_whose_answer_got_lost_for_a_day_is_found_in_the_list(
    till: Till, sandbox: Sandbox
) -> None:
    await till.do()
    await sandbox.faults({"kind": "drop_after", "operation": "create_refund"})
    async with refused():
        await till.compensate()
    await sandbox.forward(DAY)
    await till.compensate()
    line = await sandbox.payment(till.saga_id)
    assert (line["refunded"], len(line["refunds"])) == (AMOUNT, 1)


async def test_a_refund_is_not_done_while_it_is_pending(till: Till, sandbox: Sandbox) -> None:
    await till.do()
    await sandbox.faults({"kind": "refund_pending"}, settle_seconds=60)
    for _ in ("asked for", "found in the list"):
        async with refused() as refusal:
            await till.compensate()
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
    assert await till.state() == "REFUNDING"
    await sandbox.forward(60)
    await till.compensate()
    assert await sandbox.kept(till.saga_id) == 0


async def test_a_failed_refund_needs_somebody_who_pays_it_back(
    till: Till, sandbox: Sandbox
) -> None:
    response = await till.do()
    await sandbox.faults({"kind": "refund_fails"})
    for _ in ("first", "again"):
        async with refused() as refusal:
            await till.compensate(response)
        assert (refusal.code, refusal.reason, refusal.outcome) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "REFUND_FAILED",
            None,
        )
        assert refusal.metadata["provider_reference"] == response.provider_reference
    assert await sandbox.kept(till.saga_id) == AMOUNT
    assert await till.state() == "REFUNDING"

    await refund_by_hand(sandbox, response.provider_reference)
    await till.compensate(response)
    assert await sandbox.kept(till.saga_id) == 0
    assert await till.state() == "REFUNDED"


async def refund_by_hand(sandbox: Sandbox, intent_id: str) -> None:
    form, key = {"payment_intent": intent_id}, {"authorization": f"Bearer {KEY}"}
    (await sandbox.admin.post("/v1/refunds", data=form, headers=key)).raise_for_status()


async def test_a_done_charge_without_a_record_is_never_called_undone(till: Till) -> None:
    response = payment_pb2.ChargePaymentResponse(payment_id="p", provider_reference="pi_1")
    async with refused() as refusal:
        await till.compensate(response)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "STEP_RECORD_MISSING")

"""S2, S6 and S10: answers that get lost, and effects that are half there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.core.model import SagaState
from mesh.errors import Rejected
from mesh.step import StepCall
from protos.payment.v1 import payment_pb2
from tests.contract.barrier_harness import BarrierHarness
from tests.contract.staged_harness import StagedHarness
from tests.hard_cases import without
from tests.hard_cases.mesh import Mesh, Wire, mesh_of, step
from tests.hard_cases.test_calls_that_come_late import nothing_is_held, undo


def paid_by(_input: bytes, responses: Mapping[str, bytes]) -> bytes:
    """A request made of the response to the step before."""
    order = responses["create_order"].hex()
    return payment_pb2.ChargePaymentRequest(order_id=order).SerializeToString()


async def crash_before_the_reply_is_on_disk(
    mesh: Mesh, orders: Wire, payments: Wire, saga_id: str, harness: BarrierHarness
) -> tuple[str, str]:
    """What the first answer said of an order, and what the next step was sent of it."""
    create = step("create_order", orders, harness.request())
    charge = step("charge_payment", payments, paid_by)
    dying = await mesh.coordinator(f"{saga_id}-1")
    orders.served.clear()
    await dying.start(saga_id, create, charge)
    dying.journal.hold()
    await orders.served.wait()
    await dying.kill()
    await mesh.coordinator(f"{saga_id}-1")  # as after a restart
    await mesh.until(saga_id, SagaState.COMPLETED)
    first, *others = orders.answers
    assert len(others) == 1, "it was asked again"
    orders.answers.clear()
    request = payments.requests[-1]
    assert isinstance(request, payment_pb2.ChargePaymentRequest)
    assert not isinstance(first, Rejected)
    return first.SerializeToString().hex(), request.order_id


async def test_s02_a_crash_between_reply_and_persist_replays_the_same_reply_to_the_next_step(
    postgres_harness: BarrierHarness, engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = Wire(postgres_harness.guarded())
    payments = Wire(StagedHarness(engine).guarded())  # its table is there
    async with mesh_of([orders, payments]) as mesh:
        said, sent = await crash_before_the_reply_is_on_disk(
            mesh, orders, payments, "saga-1", postgres_harness
        )
        assert sent == said
        assert await postgres_harness.effects_held("saga-1") == 1

        without.stored_responses(monkeypatch)
        said, sent = await crash_before_the_reply_is_on_disk(
            mesh, orders, payments, "saga-2", postgres_harness
        )
        assert sent != said


async def rejected_halfway(harness: BarrierHarness, saga_id: str) -> bool:
    """Whether nothing is held when a Do stopped after its first item and its second is gone."""
    await harness.make_it_accept()
    call = StepCall(saga_id=saga_id, step="reserve_stock")
    pause = harness.pause()
    dying = asyncio.create_task(harness.guarded().do(call, harness.request()))
    await pause.reached()
    dying.cancel()
    await harness.make_it_reject()
    with pytest.raises(Rejected):
        await harness.guarded().do(call, harness.request())
    return await nothing_is_held(harness, saga_id)


async def undone_halfway(harness: BarrierHarness, saga_id: str) -> bool:
    """Whether nothing is held when a Do stopped after its first item and was compensated."""
    await harness.make_it_accept()
    call = StepCall(saga_id=saga_id, step="reserve_stock")
    pause = harness.pause()
    dying = asyncio.create_task(harness.guarded().do(call, harness.request()))
    await pause.reached()
    dying.cancel()
    await undo(harness, call)
    return await nothing_is_held(harness, saga_id)


async def test_s06_a_do_of_several_items_that_fails_halfway_holds_none(
    mongo_harness: BarrierHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await rejected_halfway(mongo_harness, "saga-1")
    assert await undone_halfway(mongo_harness, "saga-2")

    without.giving_back(monkeypatch)
    assert not await rejected_halfway(mongo_harness, "saga-3")
    assert not await undone_halfway(mongo_harness, "saga-4")


async def test_s10_a_refusal_stays_one_also_when_it_could_succeed_by_now(
    harness: BarrierHarness,
) -> None:
    call = StepCall(saga_id="saga-1", step="reserve_stock")
    await harness.make_it_reject()
    with pytest.raises(Rejected) as first:
        await harness.guarded().do(call, harness.request())
    await harness.make_it_accept()
    with pytest.raises(Rejected) as second:
        await harness.guarded().do(call, harness.request())

    assert second.value.stored == first.value.stored
    assert await harness.effects_held("saga-1") == 0


async def refuse_then_accept(mesh: Mesh, wire: Wire, saga_id: str, harness: BarrierHarness) -> bool:
    """Whether all attempts of a step were answered the same, though the first answer was lost."""
    await harness.make_it_reject()
    wire.lose_answers = 1
    wire.answers.clear()
    wire.served.clear()
    coordinator = await mesh.coordinator(saga_id)
    await coordinator.start(saga_id, step("create_order", wire, harness.request(), attempts=9))
    await wire.served.wait()
    await harness.make_it_accept()
    await mesh.until(saga_id, SagaState.COMPLETED, SagaState.COMPENSATED)
    first, second = wire.answers
    return isinstance(first, Rejected) and isinstance(second, Rejected)


async def test_s10_a_refusal_whose_answer_was_lost_is_heard_again_and_undoes_nothing(
    postgres_harness: BarrierHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = Wire(postgres_harness.guarded())
    async with mesh_of([wire]) as mesh:
        assert await refuse_then_accept(mesh, wire, "saga-1", postgres_harness)
        assert (await mesh.saga("saga-1")).state is SagaState.COMPENSATED
        assert wire.compensations == 0, "it was proven that nothing happened"

        without.stored_refusals(monkeypatch)
        assert not await refuse_then_accept(mesh, wire, "saga-2", postgres_harness)

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs
from uuid_utils import uuid7

from mesh.errors import Retry
from order_svc import placements
from order_svc.coordinator import Coordinator
from order_svc.sweep import Sweep
from order_svc.tables import placement
from protos.order.v1 import order_pb2
from protos.saga.v1 import saga_pb2
from tests.integration.order.coordinator import StandInCoordinator
from tests.integration.order.shop import AT_ONCE, NEVER, Shop
from tests.integration.order.test_reading import create_and_cancel, place
from tests.refusals import refused
from tests.unit.order.requests import create_order, item

CANCELLED = order_pb2.ORDER_STATE_CANCELLED
ABANDONED = order_pb2.ORDER_STATE_ABANDONED


async def listed(shop: Shop) -> list[order_pb2.Order]:
    """Orders as they are stored: a list asks no coordinator."""
    answer = await shop.orders.ListOrders(order_pb2.ListOrdersRequest())
    return list(answer.orders)


async def owed(shop: Shop) -> int:
    """For how many placements the sweep still has to come back."""
    async with shop.engine.connect() as tx:
        waiting = placement.c.due_time.is_not(None)
        count: int = await tx.scalar(sa.select(sa.func.count()).where(waiting)) or 0
        return count


async def promise(shop: Shop, number: int, *, grace: timedelta) -> None:
    """What PlaceOrder writes before it starts the saga."""
    async with shop.engine.begin() as tx:
        await placements.add(
            tx,
            request_id=f"request-{number}",
            request_sha=b"",
            saga_id=f"saga-{number}",
            saga_input=order_pb2.PlaceOrderInput(order_id=str(uuid7()), items=[item()]),
            grace=grace,
        )


async def stop(sweeping: asyncio.Task[None]) -> None:
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping


async def test_a_saga_that_was_never_started_is_started_by_the_sweep(shop: Shop) -> None:
    shop.coordinator.refusal = Retry("DROPPED", "StartSaga never got there")
    async with refused():
        await place(shop)
    shop.coordinator.refusal = None
    await shop.sweep.sweep()
    (order,) = await listed(shop)
    assert list(shop.coordinator.sagas) == [order.saga_id]


async def test_the_sweep_goes_on_as_soon_as_the_coordinator_answers_again(shop: Shop) -> None:
    shop.coordinator.refusal = Retry("AWAY", "not yet")
    async with refused():
        await place(shop, 1)
    (waiting,) = await listed(shop)
    sweeping = asyncio.create_task(shop.sweep.run())
    await shop.coordinator.was_asked(2)
    shop.coordinator.refusal = None
    await place(shop, 2)
    await shop.coordinator.has_started(waiting.saga_id)
    await stop(sweeping)


async def test_a_coordinator_that_is_away_interrupts_the_sweep_and_nothing_is_forgotten(
    shop: Shop, coordinator: StandInCoordinator
) -> None:
    await coordinator.down()
    async with refused():
        await place(shop)
    with pytest.raises(Retry):
        await shop.sweep.sweep()
    await coordinator.up()
    await shop.to_coordinator.channel_ready()
    await shop.sweep.sweep()
    (order,) = await listed(shop)
    assert list(coordinator.sagas) == [order.saga_id]


async def test_one_refused_placement_does_not_hold_up_the_others(shop: Shop) -> None:
    refused_one, other = await place(shop, 1), await place(shop, 2)
    shop.coordinator.sagas[refused_one.saga_id].definition = "something-else"
    shop.coordinator.fail(other.saga_id, "OUT_OF_STOCK")
    with capture_logs() as logs:
        await shop.sweep.sweep()
    states = {order.order_id: order.state for order in await listed(shop)}
    assert states == {
        refused_one.order_id: order_pb2.ORDER_STATE_PENDING,
        other.order_id: CANCELLED,
    }
    (complaint,) = [log for log in logs if log["event"] == "sweep.refused"]
    assert (complaint["saga_id"], complaint["reason"]) == (refused_one.saga_id, "SAGA_ID_REUSED")
    assert await owed(shop) == 1


async def test_an_order_that_was_never_created_is_cancelled_once_its_saga_has_ended(
    shop: Shop,
) -> None:
    placed = await place(shop)
    shop.coordinator.fail(placed.saga_id, "OUT_OF_STOCK")
    await shop.sweep.sweep()
    (order,) = await listed(shop)
    assert (order.state, order.failure_reason) == (CANCELLED, "OUT_OF_STOCK")
    assert await owed(shop) == 0


async def test_the_reason_of_a_cancellation_is_learnt_though_nobody_reads_the_order(
    shop: Shop,
) -> None:
    placed = await place(shop)
    await create_and_cancel(shop, placed)
    await shop.sweep.sweep()
    assert await owed(shop) == 1
    shop.coordinator.fail(placed.saga_id, "CARD_DECLINED", saga_pb2.SAGA_STATE_COMPENSATING)
    await shop.sweep.sweep()
    (order,) = await listed(shop)
    assert (order.state, order.failure_reason) == (CANCELLED, "CARD_DECLINED")
    assert await owed(shop) == 0


async def test_a_saga_that_completes_without_an_order_is_reported(shop: Shop) -> None:
    placed = await place(shop)
    shop.coordinator.sagas[placed.saga_id].state = saga_pb2.SAGA_STATE_COMPLETED
    with capture_logs() as logs:
        await shop.sweep.sweep()
    (complaint,) = [log for log in logs if log["event"] == "sweep.no_order"]
    assert complaint["order_id"] == placed.order_id
    assert await owed(shop) == 1


async def test_more_placements_than_one_look_takes_are_all_started(shop: Shop) -> None:
    for number in range(101):
        await promise(shop, number, grace=AT_ONCE)
    sweep = Sweep(shop.engine, Coordinator(shop.to_coordinator), patience=NEVER)
    await sweep.sweep()
    assert len(shop.coordinator.sagas) == 101


async def test_what_was_just_placed_is_left_to_place_order(shop: Shop) -> None:
    await promise(shop, 1, grace=NEVER)
    await shop.sweep.sweep()
    assert shop.coordinator.starts == 0


async def test_a_placement_that_cannot_be_paid_does_not_hold_up_the_others(shop: Shop) -> None:
    for number in (1, 2):
        await promise(shop, number, grace=AT_ONCE)
    async with shop.engine.connect() as tx:
        first, second = [each.saga_id for each in await placements.due(tx, 2)]
    shop.coordinator.refusal = Retry("AWAY", "not yet")
    with pytest.raises(Retry):
        await shop.sweep.sweep()
    async with shop.engine.connect() as tx:
        assert [each.saga_id for each in await placements.due(tx, 2)] == [second, first]


async def create(shop: Shop, order: order_pb2.Order) -> None:
    """What the saga's first step does."""
    metadata = (("saga-id", order.saga_id), ("saga-step", "create_order"))
    await shop.create_order.Do(create_order(order.order_id), metadata=metadata)


def abandon(shop: Shop, order: order_pb2.Order) -> None:
    """What an operator does to a saga that is STUCK."""
    shop.coordinator.fail(order.saga_id, "CARD_DECLINED", saga_pb2.SAGA_STATE_ABANDONED)
    steps = shop.coordinator.sagas[order.saga_id].steps
    steps.add(name="create_order", state=saga_pb2.STEP_STATE_DONE)
    steps.add(name="reserve_stock", state=saga_pb2.STEP_STATE_COMPENSATING)


WORDS = "CARD_DECLINED; ended by an operator, left open: create_order, reserve_stock"


async def test_an_order_whose_saga_was_abandoned_is_pending_no_more_and_says_why(
    shop: Shop,
) -> None:
    placed = await place(shop)
    await create(shop, placed)
    await shop.sweep.sweep()
    assert await owed(shop) == 1, "a pending order is looked after"

    abandon(shop, placed)
    await shop.sweep.sweep()

    (order,) = await listed(shop)
    assert (order.state, order.failure_reason) == (ABANDONED, WORDS)
    assert await owed(shop) == 0


async def test_who_reads_a_pending_order_hears_at_once_that_its_saga_was_abandoned(
    shop: Shop,
) -> None:
    placed = await place(shop)
    await create(shop, placed)
    abandon(shop, placed)

    order = await shop.order(placed.order_id)

    assert (order.state, order.failure_reason) == (ABANDONED, WORDS)


async def test_an_order_that_was_never_created_is_abandoned_with_its_saga(shop: Shop) -> None:
    placed = await place(shop)
    abandon(shop, placed)

    await shop.sweep.sweep()

    (order,) = await listed(shop)
    assert (order.state, order.failure_reason) == (ABANDONED, WORDS)


async def test_a_late_step_of_an_abandoned_saga_does_not_bring_its_order_back(shop: Shop) -> None:
    placed = await place(shop)
    await create(shop, placed)
    abandon(shop, placed)
    await shop.sweep.sweep()

    request = create_order(placed.order_id)
    undo = order_pb2.CreateOrderCompensation(request=request)
    metadata = (("saga-id", placed.saga_id), ("saga-step", "create_order"))
    await shop.create_order.Compensate(undo, metadata=metadata)
    await shop.sweep.sweep()

    (order,) = await listed(shop)
    assert order.state == ABANDONED
    assert await owed(shop) == 0


async def test_a_confirmed_order_is_looked_after_no_more(shop: Shop) -> None:
    placed = await place(shop)
    await create(shop, placed)
    metadata = (("saga-id", placed.saga_id), ("saga-step", "confirm_order"))
    request = order_pb2.ConfirmOrderRequest(order_id=placed.order_id)
    await shop.confirm_order.Do(request, metadata=metadata)

    assert await owed(shop) == 0


async def test_an_old_placement_is_looked_at_rarely(shop: Shop) -> None:
    await promise(shop, 1, grace=AT_ONCE)
    async with shop.engine.begin() as tx:
        an_hour = timedelta(hours=1)
        await tx.execute(sa.update(placement).values(place_time=sa.func.now() - an_hour))
        order_id = await tx.scalar(sa.select(placement.c.order_id))
        await placements.postpone(tx, str(order_id), timedelta(seconds=10))
        wait = await tx.scalar(sa.select(placement.c.due_time - sa.func.now()))
    assert wait == pytest.approx(timedelta(seconds=610), abs=timedelta(seconds=5))

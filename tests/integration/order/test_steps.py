from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
import sqlalchemy as sa
from google.type import money_pb2
from uuid_utils import uuid7

from order_svc.tables import placement
from protos.order.v1 import order_pb2
from tests.integration.order.shop import Shop
from tests.locks import waiting
from tests.refusals import refused
from tests.unit.order.requests import create_order, euros, item, place_order

PENDING = order_pb2.ORDER_STATE_PENDING
CONFIRMED = order_pb2.ORDER_STATE_CONFIRMED
CANCELLED = order_pb2.ORDER_STATE_CANCELLED


def new_order_id() -> str:
    return str(uuid7())


def of(saga_id: str, step: str) -> tuple[tuple[str, str], ...]:
    return (("saga-id", saga_id), ("saga-step", step))


CREATE = of("demo-1", "create_order")
CONFIRM = of("demo-1", "confirm_order")


def undo_create(request: order_pb2.CreateOrderRequest) -> order_pb2.CreateOrderCompensation:
    return order_pb2.CreateOrderCompensation(request=request)


def confirm(order_id: str) -> order_pb2.ConfirmOrderRequest:
    return order_pb2.ConfirmOrderRequest(order_id=order_id)


async def test_an_order_is_created_with_the_total_of_its_items(shop: Shop) -> None:
    order_id = new_order_id()
    created = await shop.create_order.Do(
        create_order(order_id, item("cup", 2, euros(4, 50)), item("plate", 1, euros(12))),
        metadata=CREATE,
    )
    assert created.total == euros(21)
    order = await shop.order(order_id)
    assert (order.state, order.saga_id, order.total) == (PENDING, "demo-1", euros(21))
    assert [line.product_id for line in order.items] == ["cup", "plate"]


async def test_a_yen_has_no_decimal_places(shop: Shop) -> None:
    price = money_pb2.Money(currency_code="JPY", units=150)
    created = await shop.create_order.Do(
        create_order(new_order_id(), item("cup", 3, price)), metadata=CREATE
    )
    assert created.total == money_pb2.Money(currency_code="JPY", units=450)


async def test_a_created_order_keeps_the_time_at_which_it_was_placed(shop: Shop) -> None:
    placed = await shop.orders.PlaceOrder(place_order())
    promised = await shop.order(placed.order_id)
    await shop.create_order.Do(
        create_order(placed.order_id), metadata=of(placed.saga_id, "create_order")
    )
    assert (await shop.order(placed.order_id)).create_time == promised.create_time


async def test_parallel_duplicates_create_one_order(shop: Shop) -> None:
    request = create_order(new_order_id())
    answers = await asyncio.gather(
        *(shop.create_order.Do(request, metadata=CREATE) for _ in range(10))
    )
    assert answers == [answers[0]] * 10
    assert (await shop.rows())["orders"] == 1


async def test_an_order_that_makes_no_sense_is_rejected_and_not_written(shop: Shop) -> None:
    for _ in ("first", "again"):
        async with refused() as refusal:
            await shop.create_order.Do(create_order("order-1", item(quantity=0)), metadata=CREATE)
        assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
        assert (refusal.reason, refusal.outcome) == ("ORDER_INVALID", "rejected")
        assert refusal.fields == ["order_id", "items[0].quantity"]
    assert (await shop.rows())["orders"] == 0


async def test_an_order_id_belongs_to_the_saga_that_created_it(shop: Shop) -> None:
    request = create_order(new_order_id())
    await shop.create_order.Do(request, metadata=CREATE)
    async with refused() as refusal:
        await shop.create_order.Do(request, metadata=of("demo-2", "create_order"))
    assert (refusal.reason, refusal.outcome) == ("ORDER_ID_TAKEN", "rejected")
    assert (await shop.order(request.order_id)).saga_id == "demo-1"


async def test_an_order_id_belongs_to_the_saga_that_it_was_promised_to(shop: Shop) -> None:
    placed = await shop.orders.PlaceOrder(place_order())
    async with refused() as refusal:
        await shop.create_order.Do(create_order(placed.order_id), metadata=CREATE)
    assert refusal.reason == "ORDER_ID_TAKEN"
    assert (await shop.order(placed.order_id)).saga_id == placed.saga_id


async def test_a_compensated_order_is_cancelled_and_a_late_do_refused(shop: Shop) -> None:
    request = create_order(new_order_id())
    await shop.create_order.Do(request, metadata=CREATE)
    await shop.create_order.Compensate(undo_create(request), metadata=CREATE)
    assert (await shop.order(request.order_id)).state == CANCELLED
    async with refused() as refusal:
        await shop.create_order.Do(request, metadata=CREATE)
    assert refusal.reason == "STEP_ALREADY_COMPENSATED"


async def test_an_order_that_was_never_created_is_compensated_without_effect(shop: Shop) -> None:
    request = create_order(new_order_id())
    await shop.create_order.Compensate(undo_create(request), metadata=CREATE)
    async with refused() as refusal:
        await shop.create_order.Do(request, metadata=CREATE)
    assert refusal.reason == "STEP_ALREADY_COMPENSATED"
    assert (await shop.rows())["orders"] == 0


async def test_a_pending_order_is_confirmed_once(shop: Shop) -> None:
    request = create_order(new_order_id())
    await shop.create_order.Do(request, metadata=CREATE)
    for _ in ("first", "again"):
        await shop.confirm_order.Do(confirm(request.order_id), metadata=CONFIRM)
    assert (await shop.order(request.order_id)).state == CONFIRMED


async def test_a_confirmation_that_waits_for_the_sweep_ends_what_is_owed(shop: Shop) -> None:
    placed = await shop.orders.PlaceOrder(place_order())
    create = of(placed.saga_id, "create_order")
    await shop.create_order.Do(create_order(placed.order_id), metadata=create)
    async with shop.engine.connect() as sweep:
        await sweep.execute(sa.update(placement).values(due_time=sa.func.now()))
        confirming = shop.confirm_order.Do(
            confirm(placed.order_id), metadata=of(placed.saga_id, "confirm_order")
        )
        await waiting(shop.engine, 1)
        await sweep.commit()
    await confirming

    async with shop.engine.connect() as tx:
        assert await tx.scalar(sa.select(placement.c.due_time)) is None
    assert (await shop.order(placed.order_id)).state == CONFIRMED


@pytest.mark.parametrize("order_id", ["", "order-1", "01890a5d-ac96-774b-bcce-b302099a8057"])
async def test_an_unknown_order_is_not_confirmed(shop: Shop, order_id: str) -> None:
    async with refused() as refusal:
        await shop.confirm_order.Do(confirm(order_id), metadata=CONFIRM)
    assert (refusal.reason, refusal.outcome) == ("ORDER_NOT_PENDING", "rejected")


async def test_a_cancelled_order_is_not_confirmed(shop: Shop) -> None:
    request = create_order(new_order_id())
    await shop.create_order.Do(request, metadata=CREATE)
    await shop.create_order.Compensate(undo_create(request), metadata=CREATE)
    async with refused() as refusal:
        await shop.confirm_order.Do(confirm(request.order_id), metadata=CONFIRM)
    assert refusal.reason == "ORDER_NOT_PENDING"
    assert refusal.metadata == {"order_id": request.order_id, "state": "CANCELLED"}


async def test_a_confirmation_is_taken_back(shop: Shop) -> None:
    request = create_order(new_order_id())
    await shop.create_order.Do(request, metadata=CREATE)
    await shop.confirm_order.Do(confirm(request.order_id), metadata=CONFIRM)
    undo = order_pb2.ConfirmOrderCompensation(request=confirm(request.order_id))
    await shop.confirm_order.Compensate(undo, metadata=CONFIRM)
    assert (await shop.order(request.order_id)).state == PENDING


async def test_a_confirmed_order_is_cancelled_by_the_undoing_of_its_creation(shop: Shop) -> None:
    request = create_order(new_order_id())
    await shop.create_order.Do(request, metadata=CREATE)
    await shop.confirm_order.Do(confirm(request.order_id), metadata=of("by-hand", "confirm_order"))
    await shop.create_order.Compensate(undo_create(request), metadata=CREATE)
    assert (await shop.order(request.order_id)).state == CANCELLED


async def test_a_step_without_saga_metadata_says_how_to_set_it(shop: Shop) -> None:
    async with refused() as refusal:
        await shop.create_order.Do(create_order(new_order_id()))
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "grpcurl -H 'saga-id: demo-1'" in refusal.message
    assert (await shop.rows())["orders"] == 0

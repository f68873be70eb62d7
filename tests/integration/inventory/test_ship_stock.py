"""What has left the house: through gRPC, once, and never given back."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from mesh.barrier.mongo_effects import MongoEffects
from mesh.effects import EffectState
from protos.inventory.v1 import inventory_pb2
from tests.integration.inventory.warehouse import Warehouse
from tests.refusals import refused

ORDER = [("apple", 1), ("pear", 2)]


@pytest.fixture
async def reserved(warehouse: Warehouse) -> Warehouse:
    """A warehouse that holds ORDER for order-1, by saga-1."""
    await warehouse.fill({"apple": 5, "pear": 5})
    await warehouse.do("saga-1", ORDER)
    return warehouse


async def test_what_is_shipped_is_reserved_no_more_and_not_available_again(
    reserved: Warehouse,
) -> None:
    assert await reserved.ship() == {"apple": 1, "pear": 2}

    assert await reserved.stock() == {"apple": (4, 0), "pear": (3, 0)}


async def test_shipping_again_answers_the_same_and_changes_nothing(reserved: Warehouse) -> None:
    first = await reserved.ship()

    assert await reserved.ship() == first
    assert await reserved.stock() == {"apple": (4, 0), "pear": (3, 0)}


async def test_a_shipment_asked_for_by_many_at_once_leaves_once(reserved: Warehouse) -> None:
    answers = await asyncio.gather(*(reserved.ship() for _ in range(20)))

    assert answers == [{"apple": 1, "pear": 2}] * 20
    assert await reserved.stock() == {"apple": (4, 0), "pear": (3, 0)}


async def test_what_was_shipped_cannot_be_given_back(reserved: Warehouse) -> None:
    await reserved.ship()

    async with refused() as refusal:
        await reserved.compensate("saga-1", ORDER)

    assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
    assert (refusal.reason, refusal.domain) == ("STOCK_ALREADY_SHIPPED", "inventory.v1")
    assert refusal.outcome is None, "no barrier proves that something stays undone"
    assert await reserved.stock() == {"apple": (4, 0), "pear": (3, 0)}


async def test_what_was_shipped_is_told_as_held_since_its_do(reserved: Warehouse) -> None:
    effects = MongoEffects(reserved.database)
    before = await effects.of_saga("saga-1")
    await reserved.ship()

    assert [effect.state for effect in before] == [EffectState.HELD]
    assert await effects.of_saga("saga-1") == before


async def test_a_doubled_do_of_what_was_shipped_is_answered_as_before(reserved: Warehouse) -> None:
    await reserved.ship()

    answer = await reserved.do("saga-1", ORDER)

    assert answer.reservation_id == "saga-1:reserve_stock"
    assert await reserved.stock() == {"apple": (4, 0), "pear": (3, 0)}


async def test_an_order_that_nothing_was_reserved_for_is_not_found(warehouse: Warehouse) -> None:
    async with refused() as refusal:
        await warehouse.ship('no "order"')

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RESERVATION_NOT_FOUND")
    assert refusal.metadata["name"] == 'no "order"'


async def test_what_was_given_back_cannot_be_shipped(reserved: Warehouse) -> None:
    await reserved.compensate("saga-1", ORDER)

    async with refused() as refusal:
        await reserved.ship()

    assert refusal.code == grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "STOCK_NOT_RESERVED"
    assert refusal.metadata["state"] == "COMPENSATED"
    assert await reserved.stock() == {"apple": (5, 0), "pear": (5, 0)}


async def test_an_order_whose_first_saga_was_undone_is_shipped_from_its_second(
    reserved: Warehouse,
) -> None:
    await reserved.compensate("saga-1", ORDER)
    await reserved.do("saga-2", ORDER)

    assert await reserved.ship() == {"apple": 1, "pear": 2}
    assert await reserved.stock() == {"apple": (4, 0), "pear": (3, 0)}


async def test_other_orders_stay_reserved(reserved: Warehouse) -> None:
    await reserved.do("saga-2", [("apple", 3)], order_id="order-2")

    await reserved.ship("order-1")

    assert await reserved.stock() == {"apple": (1, 3), "pear": (3, 0)}


@pytest.mark.parametrize("order_id", ["", "x" * 129])
async def test_an_order_id_that_cannot_be_is_told(warehouse: Warehouse, order_id: str) -> None:
    async with refused() as refusal:
        await warehouse.service.ShipStock(inventory_pb2.ShipStockRequest(order_id=order_id))

    assert (refusal.code, refusal.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["order_id"])

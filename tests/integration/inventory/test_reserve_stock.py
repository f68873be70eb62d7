"""Reserving stock and giving it back through gRPC, one after the other and all at once."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from protos.inventory.v1 import inventory_pb2
from tests.integration.inventory.warehouse import Items, Warehouse, step
from tests.refusals import refused

ORDER = [("apple", 1), ("pear", 2), ("plum", 3)]


async def test_every_item_of_an_order_is_held(warehouse: Warehouse) -> None:
    await warehouse.fill({"apple": 5, "pear": 5, "plum": 5})

    response = await warehouse.do("saga-1", ORDER)

    assert response.reservation_id == "saga-1:reserve_stock"
    assert await warehouse.stock() == {"apple": (4, 1), "pear": (3, 2), "plum": (2, 3)}


async def test_lines_of_one_product_are_added_up(warehouse: Warehouse) -> None:
    await warehouse.fill({"apple": 5})

    await warehouse.do("saga-1", [("apple", 2), ("apple", 3)])

    assert await warehouse.stock() == {"apple": (0, 5)}


async def test_lines_of_one_product_that_are_too_much_together_are_rejected(
    warehouse: Warehouse,
) -> None:
    await warehouse.fill({"apple": 4})

    async with refused() as refusal:
        await warehouse.do("saga-1", [("apple", 2), ("apple", 3)])

    assert refusal.metadata == {"product_id": "apple", "requested": "5", "available": "4"}
    assert await warehouse.stock() == {"apple": (4, 0)}


async def test_when_the_third_item_is_short_nothing_is_held(warehouse: Warehouse) -> None:
    await warehouse.fill({"apple": 5, "pear": 5, "plum": 2})

    async with refused() as refusal:
        await warehouse.do("saga-1", ORDER)

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OUT_OF_STOCK")
    assert refusal.metadata == {"product_id": "plum", "requested": "3", "available": "2"}
    assert refusal.outcome == "rejected"
    assert await warehouse.stock() == {"apple": (5, 0), "pear": (5, 0), "plum": (2, 0)}


async def test_when_the_third_item_does_not_exist_nothing_is_held(warehouse: Warehouse) -> None:
    await warehouse.fill({"apple": 5, "pear": 5})

    async with refused() as refusal:
        await warehouse.do("saga-1", ORDER)

    assert refusal.reason == "PRODUCT_NOT_FOUND"
    assert refusal.metadata == {"product_id": "plum"}
    assert refusal.outcome == "rejected"
    assert await warehouse.stock() == {"apple": (5, 0), "pear": (5, 0)}


async def test_a_rejection_stays_after_the_product_was_created(warehouse: Warehouse) -> None:
    for _ in ("unknown", "created"):
        async with refused() as refusal:
            await warehouse.do("saga-1", [("plum", 1)])
        assert refusal.reason == "PRODUCT_NOT_FOUND"
        await warehouse.fill({"plum": 9})

    assert await warehouse.stock() == {"plum": (9, 0)}


@pytest.mark.parametrize(
    ("items", "field"),
    [
        ([], "items"),
        ([("apple", 1)] * 1_001, "items"),
        ([("apple", 1), ("apple", 0)], "items[1].quantity"),
        ([("apple", -1)], "items[0].quantity"),
        ([("apple", 1_000_001)], "items[0].quantity"),
        ([("", 1)], "items[0].product_id"),
        ([("x" * 129, 1)], "items[0].product_id"),
        ([("a\tb", 1)], "items[0].product_id"),
    ],
)
async def test_items_that_make_no_sense_are_refused_and_leave_no_trace(
    warehouse: Warehouse, items: Items, field: str
) -> None:
    await warehouse.fill({"apple": 5})

    async with refused() as refusal:
        await warehouse.do("saga-1", items)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == [field]
    assert refusal.outcome is None
    assert await warehouse.record("saga-1") is None
    assert await warehouse.stock() == {"apple": (5, 0)}


async def test_a_thousand_lines_of_different_products_are_held(warehouse: Warehouse) -> None:
    items = [(f"product {number:04}", 1) for number in range(1_000)]
    await warehouse.database.stock.insert_many(
        {"_id": name, "available": 1, "reserved": 0, "reservations": {}} for name, _ in items
    )

    await warehouse.do("saga-1", items)

    held = warehouse.database.stock.count_documents({"available": 0, "reserved": 1})
    assert await held == 1_000


async def test_an_order_without_an_id_is_refused(warehouse: Warehouse) -> None:
    request = inventory_pb2.ReserveStockRequest(
        items=[inventory_pb2.StockItem(product_id="apple", quantity=1)]
    )
    async with refused() as refusal:
        await warehouse.reserve_stock.Do(request, metadata=step("saga-1"))

    assert refusal.fields == ["order_id"]


async def test_two_hundred_orders_at_once_never_sell_more_than_there_is(
    warehouse: Warehouse,
) -> None:
    await warehouse.fill({"apple": 100})

    outcomes = await asyncio.gather(
        *(warehouse.outcome(f"saga-{number}", [("apple", 3)]) for number in range(200))
    )

    assert outcomes.count("done") == 33
    assert outcomes.count("rejected") == 167
    assert await warehouse.stock() == {"apple": (1, 99)}


async def test_orders_that_want_the_same_products_at_once_hold_all_or_none(
    warehouse: Warehouse,
) -> None:
    await warehouse.fill({"apple": 10, "pear": 10, "plum": 6})
    backwards = list(reversed(ORDER))

    outcomes = await asyncio.gather(
        *(warehouse.outcome(f"saga-{n}", ORDER if n % 2 else backwards) for n in range(40))
    )

    done = outcomes.count("done")
    assert 1 <= done <= 2
    assert await warehouse.stock() == {
        "apple": (10 - done, done),
        "pear": (10 - 2 * done, 2 * done),
        "plum": (6 - 3 * done, 3 * done),
    }


async def test_orders_placed_and_cancelled_at_once_leave_the_stock_as_it_was(
    warehouse: Warehouse,
) -> None:
    await warehouse.fill({"apple": 10, "pear": 10, "plum": 10})

    async def place_and_cancel(saga_id: str) -> None:
        await asyncio.gather(
            warehouse.outcome(saga_id, ORDER),
            warehouse.outcome(saga_id, ORDER),
            warehouse.compensate(saga_id, ORDER),
        )

    await asyncio.gather(*(place_and_cancel(f"saga-{number}") for number in range(20)))

    assert await warehouse.stock() == {"apple": (10, 0), "pear": (10, 0), "plum": (10, 0)}

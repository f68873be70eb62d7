"""Setting, reading and listing stock through gRPC."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from protos.inventory.v1 import inventory_pb2
from tests.integration.inventory.warehouse import Warehouse
from tests.refusals import refused

ODD = "a \"quoted\" $product.with 'dots' and ünicode\\"


async def test_setting_stock_creates_the_product_and_answers_what_it_has(
    warehouse: Warehouse,
) -> None:
    request = inventory_pb2.SetStockRequest(product_id="apple", available=5)

    answer = await warehouse.service.SetStock(request)

    assert answer.stock == inventory_pb2.Stock(product_id="apple", available=5)


async def test_setting_stock_leaves_alone_what_is_reserved(warehouse: Warehouse) -> None:
    await warehouse.fill({"apple": 5})
    await warehouse.do("saga-1", [("apple", 2)])

    request = inventory_pb2.SetStockRequest(product_id="apple", available=0)
    answer = await warehouse.service.SetStock(request)

    assert answer.stock == inventory_pb2.Stock(product_id="apple", available=0, reserved=2)


async def test_a_product_is_created_once_by_many_at_once(warehouse: Warehouse) -> None:
    request = inventory_pb2.SetStockRequest(product_id="apple", available=5)
    await asyncio.gather(*(warehouse.service.SetStock(request) for _ in range(20)))

    assert await warehouse.stock() == {"apple": (5, 0)}


async def test_a_product_id_may_hold_any_printable_character(warehouse: Warehouse) -> None:
    await warehouse.fill({ODD: 5})
    await warehouse.do("saga-1", [(ODD, 2)])
    assert await warehouse.stock() == {ODD: (3, 2)}

    await warehouse.compensate("saga-1", [(ODD, 2)])
    assert await warehouse.stock() == {ODD: (5, 0)}


async def test_an_unknown_product_is_not_found(warehouse: Warehouse) -> None:
    async with refused() as refusal:
        await warehouse.service.GetStock(inventory_pb2.GetStockRequest(product_id="ghost"))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "PRODUCT_NOT_FOUND")
    assert refusal.domain == "inventory.v1"
    assert refusal.metadata["name"] == "ghost"


async def test_a_product_that_was_only_asked_for_is_neither_read_nor_listed(
    warehouse: Warehouse,
) -> None:
    async with refused():
        await warehouse.do("saga-1", [("ghost", 1)])

    async with refused() as refusal:
        await warehouse.service.GetStock(inventory_pb2.GetStockRequest(product_id="ghost"))
    assert refusal.reason == "PRODUCT_NOT_FOUND"
    assert await warehouse.stock() == {}


async def test_pages_together_list_every_product_once_in_order(warehouse: Warehouse) -> None:
    names = sorted([f"product {number}" for number in range(7)] + [ODD], key=str.encode)
    await warehouse.fill(dict.fromkeys(names, 1))

    listed, token = [], ""
    for _ in range(3):
        request = inventory_pb2.ListStockRequest(page_size=3, page_token=token)
        page = await warehouse.service.ListStock(request)
        listed += [stock.product_id for stock in page.stock]
        token = page.next_page_token

    assert listed == names
    assert token == ""


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (inventory_pb2.SetStockRequest(product_id="", available=1), "product_id"),
        (inventory_pb2.SetStockRequest(product_id="x" * 129, available=1), "product_id"),
        (inventory_pb2.SetStockRequest(product_id="a\nb", available=1), "product_id"),
        (inventory_pb2.SetStockRequest(product_id="a\0b", available=1), "product_id"),
        (inventory_pb2.SetStockRequest(product_id="apple", available=-1), "available"),
        (inventory_pb2.SetStockRequest(product_id="apple", available=10**9 + 1), "available"),
    ],
)
async def test_stock_that_makes_no_sense_is_refused_and_not_written(
    warehouse: Warehouse, request_: inventory_pb2.SetStockRequest, field: str
) -> None:
    async with refused() as refusal:
        await warehouse.service.SetStock(request_)

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == [field]
    assert await warehouse.stock() == {}


@pytest.mark.parametrize("token", ["no token", "AAAA", "_____", "é"])
async def test_an_unknown_page_token_is_refused(warehouse: Warehouse, token: str) -> None:
    async with refused() as refusal:
        await warehouse.service.ListStock(inventory_pb2.ListStockRequest(page_token=token))

    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields == ["page_token"]


async def test_a_negative_page_size_is_refused(warehouse: Warehouse) -> None:
    async with refused() as refusal:
        await warehouse.service.ListStock(inventory_pb2.ListStockRequest(page_size=-1))

    assert refusal.fields == ["page_size"]


async def test_a_malformed_id_to_read_is_refused(warehouse: Warehouse) -> None:
    async with refused() as refusal:
        await warehouse.service.GetStock(inventory_pb2.GetStockRequest())

    assert refusal.fields == ["product_id"]

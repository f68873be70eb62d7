"""What a cut connection does: nothing is answered that is not known, nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient
from structlog.testing import capture_logs

from inventory_svc.service import InventoryService
from inventory_svc.steps import ReserveStock
from inventory_svc.store import StockStore, ready
from mesh.barrier.mongo import MongoBarrier
from mesh.barrier.mongo_purge import purging
from mesh.barrier.mongo_shipping import Shipping
from mesh.errors import Retry
from mesh.step import GuardedStep, StepCall
from protos.inventory.v1 import inventory_pb2
from tests.integration.inventory.warehouse import reserve
from tests.integration.inventory.wire import Wire, wire_to

CALL = StepCall(saga_id="saga-1", step="reserve_stock")
ORDER = reserve([("apple", 1), ("pear", 2)])

YEAR = timedelta(days=365)

T = TypeVar("T")
Client = AsyncMongoClient[dict[str, Any]]


@pytest_asyncio.fixture
async def wire(mongodb_uri: str) -> AsyncIterator[Wire]:
    async with wire_to(mongodb_uri) as wire:
        yield wire


@pytest_asyncio.fixture
async def client(wire: Wire) -> AsyncIterator[Client]:
    client: Client = AsyncMongoClient(wire.uri, retryWrites=False, serverSelectionTimeoutMS=300)
    async with client:
        yield client


@pytest.fixture
def store(client: Client, mongo_database: str) -> StockStore:
    return StockStore(client[mongo_database])


@pytest.fixture
def reserve_stock(client: Client, mongo_database: str) -> GuardedStep:
    return MongoBarrier(client[mongo_database]).guard(ReserveStock())


@pytest.fixture
def shipping(client: Client, mongo_database: str) -> Shipping:
    return Shipping(client[mongo_database])


async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask as the coordinator does, until there is an answer."""
    while True:
        try:
            return await ask()
        except Retry:
            continue


@pytest.mark.parametrize("command", ["insert", "update"])
async def test_a_do_whose_write_was_not_answered_is_unknown_and_goes_on_when_asked_again(
    wire: Wire, store: StockStore, reserve_stock: GuardedStep, command: str
) -> None:
    for product in ("apple", "pear"):
        await store.set_available(product, 5)
    wire.lose_answer_to = command

    with pytest.raises(Retry) as caught:
        await reserve_stock.do(CALL, ORDER)
    assert caught.value.reason == "DATABASE_UNAVAILABLE"

    await insist(lambda: reserve_stock.do(CALL, ORDER))
    assert [(it.available, it.reserved) for it in await store.page("", 9)] == [(4, 1), (3, 2)]


async def test_a_compensate_whose_write_was_not_answered_gives_back_once(
    wire: Wire, store: StockStore, reserve_stock: GuardedStep
) -> None:
    for product in ("apple", "pear"):
        await store.set_available(product, 5)
    await reserve_stock.do(CALL, ORDER)
    compensation = inventory_pb2.ReserveStockCompensation(request=ORDER)
    wire.lose_answer_to = "update"

    with pytest.raises(Retry):
        await reserve_stock.compensate(CALL, compensation)

    await insist(lambda: reserve_stock.compensate(CALL, compensation))
    assert [(it.available, it.reserved) for it in await store.page("", 9)] == [(5, 0), (5, 0)]


@pytest.mark.parametrize("writes_answered", range(4))
async def test_a_shipment_whose_write_was_not_answered_leaves_once(
    wire: Wire,
    store: StockStore,
    shipping: Shipping,
    reserve_stock: GuardedStep,
    writes_answered: int,
) -> None:
    for product in ("apple", "pear"):
        await store.set_available(product, 5)
    await insist(lambda: reserve_stock.do(CALL, ORDER))
    wire.lose_answer_to, wire.after = "update", writes_answered

    assert await insist(lambda: shipping.ship("order-1")) == {"apple": 1, "pear": 2}
    assert not wire.lose_answer_to, "the answer was lost"
    assert [(it.available, it.reserved) for it in await store.page("", 9)] == [(4, 0), (3, 0)]


async def test_while_the_database_is_away_everybody_is_asked_to_come_back(
    wire: Wire, client: Client, store: StockStore, shipping: Shipping, reserve_stock: GuardedStep
) -> None:
    await store.set_available("apple", 5)
    service = InventoryService(store, shipping)
    wire.is_cut = True

    with pytest.raises(Retry):
        await service.GetStock(inventory_pb2.GetStockRequest(product_id="apple"), None)
    with pytest.raises(Retry):
        await service.SetStock(inventory_pb2.SetStockRequest(product_id="apple"), None)
    with pytest.raises(Retry):
        await service.ListStock(inventory_pb2.ListStockRequest(), None)
    with pytest.raises(Retry):
        await reserve_stock.do(CALL, ORDER)
    with pytest.raises(Retry):
        await ready(client)()

    wire.is_cut = False
    await insist(lambda: service.GetStock(inventory_pb2.GetStockRequest(product_id="apple"), None))


async def test_the_purge_goes_on_when_the_database_is_back(
    wire: Wire, client: Client, store: StockStore, mongo_database: str
) -> None:
    await store.set_available("apple", 5)
    stock = client[mongo_database].stock
    old = {"reservations.saga-1:r": {"state": "RELEASED", "quantity": 0, "time_ms": 0}}
    await stock.update_one({"_id": "apple"}, {"$set": old})
    wire.is_cut = True

    with capture_logs() as logs:
        async with purging(client[mongo_database], done_retention=YEAR, every=timedelta(0)):
            while not any(line["event"] == "barrier.purge_failed" for line in logs):
                await asyncio.sleep(0.01)
            wire.is_cut = False
            while not any(line["event"] == "barrier.tidied" for line in logs):
                await asyncio.sleep(0.01)

    assert await stock.find_one({"_id": "apple"}, {"reservations": 1, "_id": 0}) == {
        "reservations": {}
    }

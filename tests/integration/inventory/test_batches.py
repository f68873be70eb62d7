"""Writes that travel in one command, on the real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient

from inventory_svc.steps import ReserveStock
from inventory_svc.store import StockStore
from mesh.barrier.mongo import MongoBarrier
from mesh.barrier.mongo_batches import Collection, inserting, updating
from mesh.barrier.mongo_operations import Insert, Update
from mesh.errors import Rejected
from mesh.step import StepCall
from tests.integration.inventory.warehouse import reserve


@pytest_asyncio.fixture
async def client(mongodb_uri: str) -> AsyncIterator[AsyncMongoClient[dict[str, Any]]]:
    async with AsyncMongoClient[dict[str, Any]](mongodb_uri) as client:
        yield client


@pytest.fixture
def things(client: AsyncMongoClient[dict[str, Any]], mongo_database: str) -> Collection:
    return client[mongo_database]["thing"]


def insert(id_: str) -> Insert:
    return Insert("thing", {"_id": id_, "size": 0})


def grow(id_: str) -> Update:
    return Update("thing", {"_id": id_, "size": {"$lt": 2}}, {"$inc": {"size": 1}})


async def sizes(things: Collection) -> dict[str, int]:
    return {thing["_id"]: thing["size"] async for thing in things.find({})}


async def test_inserts_are_told_which_of_them_came_too_late(things: Collection) -> None:
    send = inserting(things)

    assert await send([insert("a")]) == [True]
    assert await send([insert("b"), insert("a"), insert("c"), insert("c")]) == [
        True,
        False,
        True,
        False,
    ]
    assert await send([insert("a")]) == [False]
    assert await sizes(things) == {"a": 0, "b": 0, "c": 0}


async def test_updates_are_all_made_and_told_so_when_all_have_matched(things: Collection) -> None:
    await inserting(things)([insert("a"), insert("b")])
    send = updating(things)

    assert await send([grow("a"), grow("b"), grow("a")]) == [True, True, True]
    assert await sizes(things) == {"a": 2, "b": 1}


async def test_updates_are_made_also_when_one_beside_them_matches_nothing(
    things: Collection,
) -> None:
    await inserting(things)([insert("a"), insert("b")])
    send = updating(things)

    assert await send([grow("a"), grow("nobody"), grow("b")]) == [False, False, False]
    assert await sizes(things) == {"a": 1, "b": 1}
    assert await send([grow("nobody")]) == [False]
    assert await send([grow("a")]) == [True]


async def test_reservations_side_by_side_hold_what_there_is_and_not_one_more(
    client: AsyncMongoClient[dict[str, Any]], mongo_database: str
) -> None:
    """Most of the updates travel beside one that matches nothing, and are told False."""
    database = client[mongo_database]
    stock = StockStore(database)
    await stock.set_available("apple", 20)
    await stock.set_available("pear", 100)
    step = MongoBarrier(database).guard(ReserveStock())

    async def do(number: int) -> int:
        call = StepCall(saga_id=f"saga-{number}", step="reserve_stock")
        try:
            await step.do(call, reserve([("apple", 1), ("pear", 1)], f"order-{number}"))
        except Rejected:
            return 0
        return 1

    done = await asyncio.gather(*(do(number) for number in [*range(40), *range(40)]))

    assert sum(done) == 40, "each saga of twenty twice"
    for product, left in (("apple", 0), ("pear", 80)):
        found = await stock.get(product)
        assert found is not None
        assert (found.available, found.reserved) == (left, 20)

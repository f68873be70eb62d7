"""The model that the interleavings are explored on answers as the real store does."""

from __future__ import annotations

import random

from inventory_svc.store import connect
from mesh.barrier.mongo import MongoStore
from mesh.barrier.mongo_algorithm import State
from mesh.barrier.mongo_operations import (
    BARRIER,
    STOCK,
    Delete,
    Find,
    FindHeldFor,
    FindStates,
    Insert,
    Operation,
    Script,
    Update,
    forget,
    give_back,
    hold,
    refuse_in_advance,
    remove_empty_room,
    room_for_tombstones,
    take_out,
)
from tests.unit.mongo_barrier.documents import Database, perform

KEYS = ("saga-1:reserve_stock", "2saga_:r")
PRODUCTS = ("apple", 'a $1.50 "pear"\'s\\')


def any_operation(chance: random.Random) -> Operation:
    """One of those that the barrier and its purge are made of."""
    key, product = chance.choice(KEYS), chance.choice(PRODUCTS)
    quantity, time_ms = chance.randint(1, 3), chance.randint(0, 1 << 40)
    known, state = {"_id": key, "state": chance.choice(list(State))}, chance.choice(list(State))
    item = {"product": product, "quantity": quantity}
    operations: list[Operation] = [
        hold(key, product, quantity, time_ms),
        give_back(key, product, quantity, time_ms),
        refuse_in_advance(key, product, time_ms),
        room_for_tombstones(product),
        take_out(key, product, quantity, time_ms),
        forget([key], product),
        forget(KEYS, product),
        remove_empty_room(product),
        Update(STOCK, {"_id": product}, {"$set": {"available": quantity}}),
        Insert(
            BARRIER, {**known, "items": [item], "held_for": product, "request_sha256": b"\0\xff'\""}
        ),
        Update(BARRIER, known, {"$set": {"state": state, "response": b"\0", "time_ms": time_ms}}),
        Delete(BARRIER, known),
        Find(BARRIER, key),
        Find(STOCK, product),
        FindStates(KEYS),
        FindHeldFor(product),
    ]
    return chance.choice(operations)


async def one(operation: Operation, store: MongoStore) -> object:
    def script() -> Script[object]:
        return (yield operation)

    return await store.run(script())


async def test_the_model_and_the_store_answer_alike(mongodb_uri: str, mongo_database: str) -> None:
    chance = random.Random(1)
    model: Database = {}
    results = set()
    async with connect(mongodb_uri) as client:
        store = MongoStore(client[mongo_database])
        for _ in range(1_000):
            operation = any_operation(chance)
            model, expected = perform(model, operation)
            assert await one(operation, store) == expected, operation
            results.add((type(operation), bool(expected)))
    assert len(results) == 12, "every operation has worked and has failed"

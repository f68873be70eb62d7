"""The MongoDB barrier for the suite: an effect is two products held under the saga's key."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from inventory_svc.steps import ReserveStock
from inventory_svc.store import StockStore
from mesh.barrier.mongo import Database, MongoBarrier, MongoStore
from mesh.barrier.mongo_effects import MongoEffects
from mesh.barrier.mongo_operations import BARRIER, STOCK, KeyState, Operation, Update
from mesh.clock import Clock, wall_clock_ms
from mesh.effects import Effects
from mesh.step import GuardedStep
from protos.inventory.v1 import inventory_pb2
from tests.contract.barrier_harness import BarrierHarness, Pause

ORDERED = {"apple": 3, "pear": 2}
PLENTY = 100


class PausingStore(MongoStore):
    """Waits where the first product has just been held, and the second one has not."""

    pause: Pause | None = None

    async def _perform(self, operation: Operation) -> Any:  # noqa: ANN401 - as its base
        result = await super()._perform(operation)
        holding = isinstance(operation, Update) and operation.where["_id"] == "apple"
        if self.pause is not None and holding and result:
            await self.pause.pass_by()
        return result


class PausingBarrier(MongoBarrier):
    def __init__(self, store: PausingStore, clock: Clock) -> None:
        super().__init__(store.database, clock=clock)
        self._store = store


class MongoHarness(BarrierHarness):
    def __init__(self, database: Database) -> None:
        self._database = database
        self._store = PausingStore(database)

    async def prepare(self) -> None:
        for product in ORDERED:
            await StockStore(self._database).set_available(product, PLENTY)

    def guarded(self, clock: Clock | None = None) -> GuardedStep:
        return PausingBarrier(self._store, clock or wall_clock_ms).guard(ReserveStock())

    def effects(self) -> Effects:
        return MongoEffects(self._database)

    def request(self, variant: int = 0) -> Message:
        return inventory_pb2.ReserveStockRequest(
            order_id=f"order-{variant}",
            items=[
                inventory_pb2.StockItem(product_id=product, quantity=quantity)
                for product, quantity in ORDERED.items()
            ],
        )

    def large_request(self) -> Message:
        return inventory_pb2.ReserveStockRequest(order_id="o" * (1 << 20))

    async def make_it_reject(self) -> None:
        await StockStore(self._database).set_available("pear", 0)

    async def make_it_accept(self) -> None:
        await StockStore(self._database).set_available("pear", PLENTY)

    async def effects_held(self, saga_id: str) -> int:
        held = {}
        async for stock in self._database[STOCK].find({}):
            for key, reservation in stock["reservations"].items():
                if key.startswith(f"{saga_id}:") and reservation["state"] == KeyState.HELD:
                    held[stock["_id"]] = reservation["quantity"]
        assert held in ({}, ORDERED), "neither all nor none"
        return 1 if held else 0

    async def forget(self, saga_id: str) -> None:
        async for record in self._database[BARRIER].find({}):
            if record["_id"].startswith(f"{saga_id}:"):
                await self._database[BARRIER].delete_one({"_id": record["_id"]})

    def pause(self) -> Pause:
        self._store.pause = Pause()
        return self._store.pause

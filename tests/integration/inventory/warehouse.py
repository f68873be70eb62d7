"""The inventory service in this process, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio

from inventory_svc.service import InventoryService
from inventory_svc.settings import Settings
from inventory_svc.steps import ReserveStock
from inventory_svc.store import StockStore, connect
from mesh.barrier.mongo import Database, MongoBarrier
from mesh.barrier.mongo_operations import BARRIER, STOCK
from mesh.barrier.mongo_shipping import Shipping
from mesh.server import Server
from protos.inventory.v1 import inventory_pb2, inventory_pb2_grpc

Items = Sequence[tuple[str, int]]


@dataclass(frozen=True, kw_only=True)
class Warehouse:
    """One instance of the service, and what a test reaches of it."""

    database: Database
    service: inventory_pb2_grpc.InventoryServiceStub
    reserve_stock: inventory_pb2_grpc.ReserveStockStub

    async def fill(self, stock: Mapping[str, int]) -> None:
        for product, available in stock.items():
            request = inventory_pb2.SetStockRequest(product_id=product, available=available)
            await self.service.SetStock(request)

    async def do(
        self, saga_id: str, items: Items, order_id: str = "order-1"
    ) -> inventory_pb2.ReserveStockResponse:
        call = self.reserve_stock.Do(reserve(items, order_id), metadata=step(saga_id))
        response: inventory_pb2.ReserveStockResponse = await call
        return response

    async def outcome(self, saga_id: str, items: Items, order_id: str = "order-1") -> str:
        """Trailing `saga-outcome` of a Do; empty when it has none."""
        call = self.reserve_stock.Do(reserve(items, order_id), metadata=step(saga_id))
        expected = {grpc.StatusCode.OK, grpc.StatusCode.FAILED_PRECONDITION}
        assert await call.code() in expected
        return str(dict(await call.trailing_metadata()).get("saga-outcome", ""))

    async def compensate(self, saga_id: str, items: Items) -> None:
        request = inventory_pb2.ReserveStockCompensation(request=reserve(items))
        await self.reserve_stock.Compensate(request, metadata=step(saga_id))

    async def ship(self, order_id: str = "order-1") -> dict[str, int]:
        """What has left, by product."""
        request = inventory_pb2.ShipStockRequest(order_id=order_id)
        answer = await self.service.ShipStock(request)
        return {item.product_id: item.quantity for item in answer.items}

    async def stock(self) -> dict[str, tuple[int, int]]:
        """Available and reserved, by product."""
        found = await self.service.ListStock(inventory_pb2.ListStockRequest(page_size=500))
        return {each.product_id: (each.available, each.reserved) for each in found.stock}

    async def record(self, saga_id: str) -> dict[str, Any] | None:
        return await self.database[BARRIER].find_one({"_id": f"{saga_id}:reserve_stock"})

    async def keys(self, product: str) -> dict[str, str]:
        """State by saga, as the stock document of the product has it."""
        stock = await self.database[STOCK].find_one({"_id": product}) or {"reservations": {}}
        return {key.split(":")[0]: each["state"] for key, each in stock["reservations"].items()}


def step(saga_id: str) -> tuple[tuple[str, str], ...]:
    return (("saga-id", saga_id), ("saga-step", "reserve_stock"))


def reserve(items: Items, order_id: str = "order-1") -> inventory_pb2.ReserveStockRequest:
    return inventory_pb2.ReserveStockRequest(
        order_id=order_id,
        items=[inventory_pb2.StockItem(product_id=name, quantity=number) for name, number in items],
    )


@asynccontextmanager
async def open_warehouse(uri: str, database_name: str) -> AsyncIterator[Warehouse]:
    settings = Settings(
        mongodb_uri=uri, grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=0
    )
    async with connect(uri) as client:
        database = client[database_name]
        server = Server(settings)
        server.add_service(
            inventory_pb2_grpc.add_InventoryServiceServicer_to_server,
            InventoryService(StockStore(database), Shipping(database)),
        )
        server.add_step(MongoBarrier(database).guard(ReserveStock()))
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Warehouse(
                database=database,
                service=inventory_pb2_grpc.InventoryServiceStub(channel),
                reserve_stock=inventory_pb2_grpc.ReserveStockStub(channel),
            )
        await server.stop()

"""The inventory service: `python -m inventory_svc`; `--help` lists its variables."""

from __future__ import annotations

from datetime import timedelta

from inventory_svc.service import InventoryService
from inventory_svc.settings import Settings
from inventory_svc.steps import ReserveStock
from inventory_svc.store import StockStore, connect, ready
from mesh.barrier.mongo import MongoBarrier
from mesh.barrier.mongo_effects import MongoEffects
from mesh.barrier.mongo_purge import purging
from mesh.barrier.mongo_shipping import Shipping
from mesh.server import Server
from mesh.settings import run
from mesh.telemetry import tracing
from protos.inventory.v1 import inventory_pb2_grpc


async def main(settings: Settings) -> None:
    """Serve until SIGTERM."""
    async with connect(settings.mongodb_uri) as client, tracing("inventory") as tracer_provider:
        database = client[settings.mongodb_database]
        server = Server(settings, ready={"mongodb": ready(client)}, tracer_provider=tracer_provider)
        server.add_service(
            inventory_pb2_grpc.add_InventoryServiceServicer_to_server,
            InventoryService(StockStore(database), Shipping(database)),
        )
        server.add_step(MongoBarrier(database).guard(ReserveStock()))
        server.add_effects(MongoEffects(database))
        retention = timedelta(days=settings.barrier_retention_days)
        async with purging(database, done_retention=retention):
            await server.run()


if __name__ == "__main__":
    run(Settings, main, service="inventory")

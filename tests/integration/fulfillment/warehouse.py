"""The fulfillment service in this process, on a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc.aio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils import uuid7

from fulfillment_svc.service import FulfillmentService
from fulfillment_svc.settings import Settings
from fulfillment_svc.steps import RequestShipment
from fulfillment_svc.tables import shipment
from mesh.barrier.postgres import PostgresBarrier
from mesh.postgres import create_engine
from mesh.server import Server
from protos.fulfillment.v1 import fulfillment_pb2, fulfillment_pb2_grpc


@dataclass(frozen=True, kw_only=True)
class Warehouse:
    """One instance of the service, and what a test reaches of it."""

    engine: AsyncEngine
    shipments: fulfillment_pb2_grpc.FulfillmentServiceStub
    request_shipment: fulfillment_pb2_grpc.RequestShipmentStub

    async def shipment(self, shipment_id: str) -> fulfillment_pb2.Shipment:
        request = fulfillment_pb2.GetShipmentRequest(shipment_id=shipment_id)
        answer: fulfillment_pb2.GetShipmentResponse = await self.shipments.GetShipment(request)
        return answer.shipment

    async def count(self) -> int:
        """How many shipments there are."""
        async with self.engine.connect() as tx:
            return await tx.scalar(sa.select(sa.func.count()).select_from(shipment)) or 0


@asynccontextmanager
async def open_warehouse(dsn: str) -> AsyncIterator[Warehouse]:
    """Serve on a migrated database."""
    engine = create_engine(dsn)
    server = Server(
        Settings(postgres_dsn=dsn, grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=0)
    )
    server.add_service(
        fulfillment_pb2_grpc.add_FulfillmentServiceServicer_to_server, FulfillmentService(engine)
    )
    step = RequestShipment(new_id=lambda: str(uuid7()))
    server.add_step(PostgresBarrier(engine).guard(step))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Warehouse(
            engine=engine,
            shipments=fulfillment_pb2_grpc.FulfillmentServiceStub(channel),
            request_shipment=fulfillment_pb2_grpc.RequestShipmentStub(channel),
        )
    await server.stop()
    await engine.dispose()

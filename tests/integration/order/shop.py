"""The order service in this process, on a real database, with a coordinator that tests steer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import grpc.aio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils import uuid7

from mesh.barrier.postgres import PostgresBarrier
from mesh.postgres import create_engine
from mesh.server import Server
from order_svc.coordinator import CHANNEL_OPTIONS, Coordinator
from order_svc.service import OrderService
from order_svc.settings import Settings
from order_svc.steps import ConfirmOrder, CreateOrder
from order_svc.sweep import Sweep
from order_svc.tables import metadata
from protos.order.v1 import order_pb2, order_pb2_grpc
from tests.integration.order.coordinator import StandInCoordinator

AT_ONCE = timedelta(0)
NEVER = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Shop:
    """One instance of the service, and what a test reaches of it."""

    engine: AsyncEngine
    coordinator: StandInCoordinator
    to_coordinator: grpc.aio.Channel
    sweep: Sweep
    orders: order_pb2_grpc.OrderServiceStub
    create_order: order_pb2_grpc.CreateOrderStub
    confirm_order: order_pb2_grpc.ConfirmOrderStub

    async def order(self, order_id: str) -> order_pb2.Order:
        request = order_pb2.GetOrderRequest(order_id=order_id)
        answer: order_pb2.GetOrderResponse = await self.orders.GetOrder(request)
        return answer.order

    async def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        async with self.engine.connect() as tx:
            return {
                name: await tx.scalar(sa.select(sa.func.count()).select_from(table)) or 0
                for name, table in metadata.tables.items()
            }


@asynccontextmanager
async def open_shop(dsn: str, coordinator: StandInCoordinator) -> AsyncIterator[Shop]:
    """Serve on a migrated database; the sweep looks at everything at once, when it is asked to."""
    engine = create_engine(dsn)
    async with grpc.aio.insecure_channel(
        coordinator.address, options=CHANNEL_OPTIONS
    ) as to_coordinator:
        client = Coordinator(to_coordinator)
        sweep = Sweep(engine, client, interval=NEVER, patience=AT_ONCE)
        service = OrderService(engine, client, sweep, new_id=lambda: str(uuid7()), grace=AT_ONCE)
        settings = Settings(
            postgres_dsn=dsn,
            coordinator_address=coordinator.address,
            grpc_host="127.0.0.1",
            grpc_port=0,
            shutdown_grace_seconds=0,
        )
        server = Server(settings)
        server.add_service(order_pb2_grpc.add_OrderServiceServicer_to_server, service)
        barrier = PostgresBarrier(engine)
        server.add_step(barrier.guard(CreateOrder()))
        server.add_step(barrier.guard(ConfirmOrder()))
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Shop(
                engine=engine,
                coordinator=coordinator,
                to_coordinator=to_coordinator,
                sweep=sweep,
                orders=order_pb2_grpc.OrderServiceStub(channel),
                create_order=order_pb2_grpc.CreateOrderStub(channel),
                confirm_order=order_pb2_grpc.ConfirmOrderStub(channel),
            )
        await server.stop()
    await engine.dispose()

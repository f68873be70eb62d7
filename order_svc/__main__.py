"""The order service: `python -m order_svc`; `--help` lists its variables."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc.aio
from uuid_utils import uuid7

from mesh.barrier.postgres import PostgresBarrier
from mesh.barrier.postgres_effects import PostgresEffects
from mesh.barrier.purge import purging
from mesh.migrate import migrate_when_there
from mesh.postgres import create_engine, ready
from mesh.server import Server
from mesh.settings import run
from mesh.telemetry import client_interceptors, tracing
from order_svc.coordinator import CHANNEL_OPTIONS, Coordinator
from order_svc.service import OrderService
from order_svc.settings import Settings
from order_svc.steps import ConfirmOrder, CreateOrder
from order_svc.sweep import Sweep
from protos.order.v1 import order_pb2_grpc


async def main(settings: Settings) -> None:
    """Serve until SIGTERM."""
    await migrate_when_there(settings.postgres_dsn, "order_svc")
    engine = create_engine(settings.postgres_dsn)
    async with (
        tracing("order") as tracer_provider,
        grpc.aio.insecure_channel(
            settings.coordinator_address,
            options=CHANNEL_OPTIONS,
            interceptors=client_interceptors(tracer_provider),
        ) as channel,
    ):
        coordinator = Coordinator(channel)
        sweep = Sweep(engine, coordinator)
        service = OrderService(engine, coordinator, sweep, new_id=lambda: str(uuid7()))
        server = Server(
            settings, ready={"postgres": ready(engine)}, tracer_provider=tracer_provider
        )
        server.add_service(order_pb2_grpc.add_OrderServiceServicer_to_server, service)
        barrier = PostgresBarrier(engine)
        server.add_step(barrier.guard(CreateOrder()))
        server.add_step(barrier.guard(ConfirmOrder()))
        server.add_effects(PostgresEffects(engine))
        retention = timedelta(days=settings.barrier_retention_days)
        async with purging(engine, done_retention=retention), asyncio.TaskGroup() as tasks:
            sweeping = tasks.create_task(sweep.run())
            await server.run()
            sweeping.cancel()
    await engine.dispose()


if __name__ == "__main__":
    run(Settings, main, service="order")

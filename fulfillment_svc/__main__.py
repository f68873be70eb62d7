"""The fulfillment service: `python -m fulfillment_svc`; `--help` lists its variables."""

from __future__ import annotations

from datetime import timedelta

from uuid_utils import uuid7

from fulfillment_svc.service import FulfillmentService
from fulfillment_svc.settings import Settings
from fulfillment_svc.steps import RequestShipment
from mesh.barrier.postgres import PostgresBarrier
from mesh.barrier.postgres_effects import PostgresEffects
from mesh.barrier.purge import purging
from mesh.migrate import migrate_when_there
from mesh.postgres import create_engine, ready
from mesh.server import Server
from mesh.settings import run
from mesh.telemetry import tracing
from protos.fulfillment.v1 import fulfillment_pb2_grpc


async def main(settings: Settings) -> None:
    """Serve until SIGTERM."""
    await migrate_when_there(settings.postgres_dsn, "fulfillment_svc")
    engine = create_engine(settings.postgres_dsn)
    async with tracing("fulfillment") as tracer_provider:
        probes = {"postgres": ready(engine)}
        server = Server(settings, ready=probes, tracer_provider=tracer_provider)
        server.add_service(
            fulfillment_pb2_grpc.add_FulfillmentServiceServicer_to_server,
            FulfillmentService(engine),
        )
        step = RequestShipment(new_id=lambda: str(uuid7()))
        server.add_step(PostgresBarrier(engine).guard(step))
        server.add_effects(PostgresEffects(engine))
        retention = timedelta(days=settings.barrier_retention_days)
        async with purging(engine, done_retention=retention):
            await server.run()
    await engine.dispose()


if __name__ == "__main__":
    run(Settings, main, service="fulfillment")

"""The payment service: `python -m payment_svc`; `--help` lists its variables."""

from __future__ import annotations

from datetime import timedelta

from uuid_utils import uuid7

from mesh.barrier.postgres_effects import PostgresEffects
from mesh.barrier.purge import purging
from mesh.barrier.staged import StagedBarrier
from mesh.migrate import migrate_when_there
from mesh.postgres import create_engine, ready
from mesh.server import Server
from mesh.settings import run
from mesh.telemetry import tracing
from payment_svc.checked import CheckedCharge
from payment_svc.service import PaymentService
from payment_svc.settings import Settings
from payment_svc.steps import ChargePayment
from payment_svc.store import Payments
from payment_svc.stripe_provider import StripeProvider
from protos.payment.v1 import payment_pb2_grpc


async def main(settings: Settings) -> None:
    """Serve until SIGTERM."""
    await migrate_when_there(settings.postgres_dsn, "payment_svc")
    engine = create_engine(settings.postgres_dsn)
    async with (
        tracing("payment") as tracer_provider,
        StripeProvider(
            api_key=settings.stripe_api_key.get_secret_value(),
            api_base=settings.stripe_api_base,
            tracer_provider=tracer_provider,
        ) as provider,
    ):
        payments = Payments(engine)
        probes = {"postgres": ready(engine)}
        server = Server(settings, ready=probes, tracer_provider=tracer_provider)
        server.add_service(
            payment_pb2_grpc.add_PaymentServiceServicer_to_server, PaymentService(payments)
        )
        step = ChargePayment(provider, payments, new_id=lambda: str(uuid7()))
        server.add_step(CheckedCharge(StagedBarrier(engine).guard(step)))
        server.add_effects(PostgresEffects(engine))
        retention = timedelta(days=settings.barrier_retention_days)
        async with purging(engine, done_retention=retention):
            await server.run()
    await engine.dispose()


if __name__ == "__main__":
    run(Settings, main, service="payment")

"""Step streams on a real barrier: what breaks in mid-flight leaves no half."""

from __future__ import annotations

import asyncio

import grpc
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mesh.barrier.postgres import PostgresBarrier
from mesh.barrier.tables import barrier
from mesh.server import Server
from mesh.settings import ServiceSettings
from mesh.step import StepCall
from protos.mesh.v1 import mesh_pb2 as pb
from protos.order.v1 import order_pb2
from tests.contract.postgres_harness import CreateOrder, effects
from tests.integration.mesh.step_stream.client import Stream, call, until

SETTINGS = ServiceSettings(grpc_host="127.0.0.1", grpc_port=0, shutdown_grace_seconds=0)
SAGAS = 15


class Slow(CreateOrder):
    """Makes its effect, and then waits."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = 0
        self.leave = asyncio.Event()

    async def do(
        self, call: StepCall, request: order_pb2.CreateOrderRequest, tx: AsyncConnection
    ) -> order_pb2.CreateOrderResponse:
        response = await super().do(call, request, tx)
        self.begun += 1
        await self.leave.wait()
        return response


def calls(first_id: int = 0, timeout_ms: int = 60_000) -> list[pb.StepCall]:
    return [
        call(
            first_id + number,
            service="order.v1.CreateOrder",
            saga_id=f"saga-{number}",
            request=order_pb2.CreateOrderRequest(order_id=f"o{number}").SerializeToString(),
            timeout_ms=timeout_ms,
        )
        for number in range(SAGAS)
    ]


async def counts(engine: AsyncEngine) -> tuple[int, int]:
    """(effects, barrier rows)."""
    async with engine.connect() as connection:
        held = await connection.execute(select(func.count()).select_from(effects))
        stored = await connection.execute(select(func.count()).select_from(barrier))
        return held.scalar_one(), stored.scalar_one()


async def test_who_hangs_up_or_is_too_late_leaves_nothing_and_asks_again(
    engine: AsyncEngine,
) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(effects.create)
    step, server = Slow(), Server(SETTINGS)
    server.add_step(PostgresBarrier(engine).guard(step))
    await server.start()
    address = f"127.0.0.1:{server.port}"
    async with grpc.aio.insecure_channel(address) as short:
        await Stream(short).send(*calls())
        await until(lambda: step.begun == SAGAS)
    async with grpc.aio.insecure_channel(address) as channel:
        stream = Stream(channel)
        await stream.send(*calls(timeout_ms=500))
        await stream.read_until(SAGAS)
        assert not any(result.response for result in stream.results.values())
        assert await counts(engine) == (0, 0)

        step.leave.set()
        again = [*calls(100), *calls(200)]
        results = await stream.ask(*again)

    assert not any(result.HasField("status") for result in results)
    assert await counts(engine) == (SAGAS, SAGAS)
    await server.stop()

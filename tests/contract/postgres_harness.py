"""The PostgreSQL barrier for the suite: each effect is a row in a table without any constraint."""

from __future__ import annotations

import asyncio

from google.protobuf.message import Message
from sqlalchemy import Column, Integer, MetaData, Table, Text, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mesh.barrier.postgres import PostgresBarrier
from mesh.barrier.postgres_effects import PostgresEffects
from mesh.barrier.tables import barrier, create_barrier
from mesh.clock import Clock, wall_clock_ms
from mesh.effects import Effects
from mesh.errors import Rejected
from mesh.step import GuardedStep, Step, StepCall
from protos.order.v1 import order_pb2
from tests.contract.barrier_harness import BarrierHarness, Pause
from tests.locks import waiting

effects = Table(
    "effect",
    MetaData(),
    Column("effect_id", Integer, primary_key=True, autoincrement=True),
    Column("saga_id", Text, nullable=False),
)


async def take_back(response: order_pb2.CreateOrderResponse, tx: AsyncConnection) -> None:
    await tx.execute(delete(effects).where(effects.c.effect_id == response.total.units))


class CreateOrder(
    Step[order_pb2.CreateOrderRequest, order_pb2.CreateOrderResponse, AsyncConnection]
):
    service = "order.v1.CreateOrder"

    def __init__(self) -> None:
        self.rejecting = False
        self.pause: Pause | None = None

    async def do(
        self, call: StepCall, request: order_pb2.CreateOrderRequest, tx: AsyncConnection
    ) -> order_pb2.CreateOrderResponse:
        statement = insert(effects).values(saga_id=call.saga_id).returning(effects.c.effect_id)
        effect_id = (await tx.execute(statement)).scalar_one()
        if self.pause is not None:
            await self.pause.pass_by()
        if self.rejecting:
            raise Rejected("OUT_OF_STOCK", "none left", metadata={"product": "p1", "short": "3"})
        response = order_pb2.CreateOrderResponse()
        response.total.units = effect_id
        return response

    async def compensate(
        self,
        call: StepCall,
        request: order_pb2.CreateOrderRequest,
        response: order_pb2.CreateOrderResponse,
        tx: AsyncConnection,
    ) -> None:
        await take_back(response, tx)


class PostgresHarness(BarrierHarness):
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._step = CreateOrder()

    async def prepare(self) -> None:
        async with self._engine.begin() as connection:
            await connection.run_sync(create_barrier)
            await connection.run_sync(effects.create)

    def guarded(self, clock: Clock | None = None) -> GuardedStep:
        return PostgresBarrier(self._engine, clock=clock or wall_clock_ms).guard(self._step)

    def effects(self) -> Effects:
        return PostgresEffects(self._engine)

    def request(self, variant: int = 0) -> Message:
        return order_pb2.CreateOrderRequest(order_id=f"order-{variant}")

    def large_request(self) -> Message:
        return order_pb2.CreateOrderRequest(order_id="o" * (1 << 20))

    async def make_it_reject(self) -> None:
        self._step.rejecting = True

    async def make_it_accept(self) -> None:
        self._step.rejecting = False

    async def effects_held(self, saga_id: str) -> int:
        count = select(func.count()).where(effects.c.saga_id == saga_id)
        async with self._engine.connect() as connection:
            return (await connection.execute(count)).scalar_one()

    async def forget(self, saga_id: str) -> None:
        async with self._engine.begin() as connection:
            await connection.execute(delete(barrier).where(barrier.c.saga_id == saga_id))

    def pause(self) -> Pause:
        self._step.pause = Pause()
        return self._step.pause

    async def underway(self, call: asyncio.Task[Message]) -> None:
        """The calls wait for each other on the unique key of the barrier's row."""
        await waiting(self._engine, 1, call)

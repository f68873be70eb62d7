"""The steps of one statement for the suite: the effect is a row in a table without any constraint.

A statement has no place to wait in but the database: a trigger on the table asks for a lock.
"""

from __future__ import annotations

import asyncio
import random

import psycopg
from google.protobuf.message import Message
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mesh.barrier.at_once import AtOnce, AtOnceStep, EffectStatement
from mesh.barrier.postgres import PostgresBarrier
from mesh.clock import Clock, wall_clock_ms
from mesh.errors import Rejected
from mesh.step import GuardedStep, StepCall
from protos.order.v1 import order_pb2
from tests.contract.barrier_harness import Pause
from tests.contract.postgres_harness import PostgresHarness, take_back
from tests.locks import waiting

_KEEP = EffectStatement(
    "keep_effect",
    """
    effect AS (
      INSERT INTO effect (effect_id, saga_id) SELECT %(effect_id)s, %(saga_id)s
      WHERE %(accepting)s = 1
      RETURNING true
    )
    """,
    {"effect_id": "bigint", "saga_id": "text", "accepting": "bigint"},
)
_WAIT_IN_THE_MIDDLE = """
    CREATE FUNCTION wait_in_the_middle() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END
    $$;
    CREATE TRIGGER wait AFTER INSERT ON effect FOR EACH ROW EXECUTE FUNCTION wait_in_the_middle()
"""
_HOLD_UP = "SELECT pg_advisory_lock(1)"


class CreateOrderAtOnce(AtOnceStep[order_pb2.CreateOrderRequest, order_pb2.CreateOrderResponse]):
    service = "order.v1.CreateOrder"

    def __init__(self) -> None:
        self.rejecting = False

    def at_once(
        self, call: StepCall, request: order_pb2.CreateOrderRequest
    ) -> AtOnce[order_pb2.CreateOrderResponse]:
        response = order_pb2.CreateOrderResponse()
        response.total.units = random.randrange(1 << 31)
        accepting = int(not self.rejecting)
        effect_id = response.total.units
        return AtOnce(
            response, _KEEP(effect_id=effect_id, saga_id=call.saga_id, accepting=accepting)
        )

    async def refusal(
        self, call: StepCall, request: order_pb2.CreateOrderRequest, tx: AsyncConnection
    ) -> Rejected:
        return Rejected("OUT_OF_STOCK", "none left", metadata={"product": "p1", "short": "3"})

    async def compensate(
        self,
        call: StepCall,
        request: order_pb2.CreateOrderRequest,
        response: order_pb2.CreateOrderResponse,
        tx: AsyncConnection,
    ) -> None:
        await take_back(response, tx)


class LockedPause(Pause):
    """Every Do stops in the middle of its effect, until it is resumed."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__()
        self._engine = engine
        dsn = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._holding = psycopg.connect(dsn)
        self._holding.execute(_HOLD_UP)

    async def reached(self) -> None:
        await waiting(self._engine, 1)

    def resume(self) -> None:
        self._holding.close()


class AtOnceHarness(PostgresHarness):
    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self._at_once = CreateOrderAtOnce()

    async def prepare(self) -> None:
        await super().prepare()
        async with self._engine.begin() as connection:
            await connection.execute(text(_WAIT_IN_THE_MIDDLE))

    def guarded(self, clock: Clock | None = None) -> GuardedStep:
        return PostgresBarrier(self._engine, clock=clock or wall_clock_ms).guard(self._at_once)

    async def make_it_reject(self) -> None:
        self._at_once.rejecting = True

    async def make_it_accept(self) -> None:
        self._at_once.rejecting = False

    def pause(self) -> Pause:
        return LockedPause(self._engine)

    async def underway(self, call: asyncio.Task[Message]) -> None:
        """A twin waits where the first one does, or for its row; a Compensate waits for nobody."""
        await waiting(self._engine, 2, call)

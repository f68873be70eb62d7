"""A million sagas that wait on disk: what they cost in memory, and how soon a verb wakes them.

One saga whose participant is away is parked by itself; the others are copies of it, made by SQL.
"""

from __future__ import annotations

import asyncio
import time

import grpc.aio
import psycopg

from bench.facts.memory import resident
from bench.facts.starting import start
from bench.results import Fact
from bench.sides import Coordinator
from bench.window import LoadFailed
from bench.world import World
from local.until import until
from protos.saga.v1 import saga_pb2, saga_pb2_grpc

_PARKED = 1_000_000
_WOKEN = 100
_LONGEST_S = 60

_COUNT = "SELECT count(*) FROM saga.saga WHERE epoch = -1"
_COPY = """
WITH copy AS (
  INSERT INTO saga.saga (saga_id, definition, definition_hash, state, keys, owner, epoch, claims,
                         claim_revision, create_time, update_time, wake_time)
  SELECT uuidv7()::text, definition, definition_hash, state, keys, owner, epoch, claims,
         claim_revision, create_time, update_time, wake_time
  FROM saga.saga, generate_series(2, %(count)s)
  RETURNING saga_id
)
INSERT INTO saga.saga_event
      (saga_id, revision, time, kind, step, attempt, state, payload, commands)
SELECT copy.saga_id, revision, time, kind, step, attempt, state, payload, commands
FROM copy, saga.saga_event
"""
_SOME = "SELECT saga_id FROM saga.saga WHERE epoch = -1 LIMIT %(count)s"


async def measure(world: World) -> list[Fact]:
    """Bytes of memory for each, and seconds until 100 of them that are cancelled have ended."""
    async with (
        world.participant(streams=True) as participant,
        Coordinator(world, participant) as coordinator,
        await psycopg.AsyncConnection.connect(coordinator.dsn, autocommit=True) as connection,
    ):
        empty = await resident(coordinator)
        await start(coordinator.address, "bench-away", 1)

        async def parked() -> bool:
            return await (await connection.execute(_COUNT)).fetchone() == (1,)

        if not await until(parked, seconds=_LONGEST_S):
            raise LoadFailed("a saga whose participant is away was not parked")
        await connection.execute(_COPY, {"count": _PARKED})
        await connection.execute("VACUUM ANALYZE")
        each = (await resident(coordinator) - empty) / _PARKED
        participant.wake()
        woken = await _wake(coordinator, connection)
    return [
        Fact(name="memory_parked", title="memory of a parked saga", unit="bytes", values=[each]),
        Fact(
            name="wake_100",
            title="100 of 1 M parked sagas are cancelled, until they have ended",
            unit="s",
            values=[woken],
        ),
    ]


async def _cancel(stub: saga_pb2_grpc.SagaServiceStub, saga_id: str) -> None:
    await stub.CancelSaga(saga_pb2.CancelSagaRequest(saga_id=saga_id, reason="bench"))


async def _wake(coordinator: Coordinator, connection: psycopg.AsyncConnection) -> float:
    some = await (await connection.execute(_SOME, {"count": _WOKEN})).fetchall()
    begun = time.monotonic()
    async with grpc.aio.insecure_channel(coordinator.address) as channel:
        stub = saga_pb2_grpc.SagaServiceStub(channel)
        async with asyncio.TaskGroup() as operators:
            for (saga_id,) in some:
                operators.create_task(_cancel(stub, saga_id))

    async def ended() -> bool:
        return (await coordinator.finished()).get("COMPENSATED") == _WOKEN

    if not await until(ended, seconds=_LONGEST_S):
        raise LoadFailed(f"after {_WOKEN} woke up there are {await coordinator.finished()}")
    return time.monotonic() - begun

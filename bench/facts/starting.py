"""Sagas that are started to be there, not to be measured."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import grpc.aio
from uuid_utils import uuid7

from bench import world
from bench.load import order
from bench.sides import Coordinator
from bench.window import LoadFailed
from local.until import until
from protos.saga.v1 import saga_pb2, saga_pb2_grpc

_AT_ONCE = 250
_HELD_AT_ONCE = 100
BEFORE_EACH = 2
"""Sagas that go before one that is held."""

_LAST = "SELECT 'last', count(*) FROM saga.saga_event WHERE kind = 'STEP_DONE' AND step = 'ship'"
_LONGEST_S = 60


async def hold(coordinator: Coordinator, count: int) -> None:
    """Start so many sagas more; they wait for the answer of their last step when this returns.

    `BEFORE_EACH` go before each of them and wait for nothing: a participant is trusted with more
    calls by the answers that it gives while it has many.

    Raises:
        LoadFailed: one was refused, or did not get there.
    """
    for first in range(0, count, _HELD_AT_ONCE):  # not faster than they get there
        held = min(_HELD_AT_ONCE, count - first)
        await _run_to_the_last_step(coordinator, "bench", BEFORE_EACH * held)
        await _run_to_the_last_step(coordinator, "bench-held", held)


async def _run_to_the_last_step(coordinator: Coordinator, definition: str, count: int) -> None:
    expected = await _at_last(coordinator) + count
    await start(coordinator.address, definition, count)

    async def are_there() -> bool:
        return await _at_last(coordinator) == expected

    if not await until(are_there, seconds=_LONGEST_S):
        raise LoadFailed(f"not all of {count} sagas of {definition} came to their last step")


async def _at_last(coordinator: Coordinator) -> int:
    return (await world.count(coordinator.dsn, _LAST))["last"]


async def start(address: str, definition: str, count: int) -> list[str]:
    """Start so many sagas; returns their ids once all are on disk.

    Raises:
        LoadFailed: one was refused.
    """
    ids: list[str] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = saga_pb2_grpc.SagaServiceStub(channel)
        while len(ids) < count:
            some = [str(uuid7()) for _ in range(min(_AT_ONCE, count - len(ids)))]
            await _start(stub, definition, some)
            ids += some
    return ids


async def _start(stub: saga_pb2_grpc.SagaServiceStub, definition: str, ids: list[str]) -> None:
    async def requests() -> AsyncIterator[saga_pb2.StartSagasRequest]:
        yield saga_pb2.StartSagasRequest(
            sagas=[
                saga_pb2.StartSagaRequest(
                    saga_id=saga_id, definition=definition, input=order(saga_id)
                )
                for saga_id in ids
            ]
        )

    told = [message.reports async for message in stub.StartSagas(requests())]
    reports = list(itertools.chain.from_iterable(told))
    refused = [report.refusal.message for report in reports if report.HasField("refusal")]
    if refused or len(reports) != len(ids):
        raise LoadFailed(f"{len(ids)} starts, {len(reports)} reports; refused: {refused[:1]}")

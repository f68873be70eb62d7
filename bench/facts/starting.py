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

_AT_ONCE = 500


_HELD = "SELECT 'held', count(*) FROM saga.saga_event WHERE kind = 'STEP_DONE' AND step = 'ship'"
_LONGEST_S = 60


async def hold(coordinator: Coordinator, count: int) -> None:
    """Start so many sagas more; they wait for the answer of their last step when this returns.

    Raises:
        LoadFailed: one was refused, or did not get there.
    """
    held = (await world.count(coordinator.dsn, _HELD))["held"]
    for first in range(0, count, _AT_ONCE):  # not faster than they get there
        more = min(_AT_ONCE, count - first)
        await start(coordinator.address, "bench-held", more)
        held += more

        async def there(expected: int = held) -> bool:
            return (await world.count(coordinator.dsn, _HELD))["held"] == expected

        if not await until(there, seconds=_LONGEST_S):
            raise LoadFailed(f"not all of {held} sagas wait for their last step")


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

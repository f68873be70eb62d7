"""A participant that kills itself in the middle: run in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from pymongo import AsyncMongoClient
from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from inventory_svc.steps import ReserveStock
from mesh.barrier.mongo import MongoBarrier
from mesh.barrier.mongo_shipping import Shipping
from mesh.errors import Rejected
from mesh.step import StepCall
from protos.inventory.v1 import inventory_pb2
from tests.forks import forkserver
from tests.integration.inventory.warehouse import Items, reserve

_OPERATIONS = {"insert", "update", "find"}

Deed = Literal["do", "compensate", "ship"]
Moment = Literal["before", "after"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoomedAttempt:
    """One attempt, and when to die in it: before an operation is sent, or after its answer."""

    deed: Deed
    uri: str
    database: str
    saga_id: str
    order_id: str
    items: Items
    moment: Moment
    operation: int
    """Counts from 1."""

    async def dies(self) -> bool:
        """Make the attempt; False when it comes to its end before."""
        process = forkserver.Process(target=_live, args=(self,))
        process.start()
        await asyncio.to_thread(process.join)
        assert process.exitcode in {0, -signal.SIGKILL}
        return process.exitcode != 0


class _Killer(CommandListener):
    def __init__(self, moment: Moment, operation: int) -> None:
        self._moment = moment
        self._left = operation

    def started(self, event: CommandStartedEvent) -> None:
        self._count("before", event.command_name)

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self._count("after", event.command_name)

    def failed(self, event: CommandFailedEvent) -> None:
        """Fails the attempt by itself."""

    def _count(self, moment: Moment, command: str) -> None:
        self._left -= moment == self._moment and command in _OPERATIONS
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def _live(attempt: DoomedAttempt) -> None:
    asyncio.run(_make(attempt))


async def _make(attempt: DoomedAttempt) -> None:
    call = StepCall(saga_id=attempt.saga_id, step="reserve_stock")
    request = reserve(attempt.items, attempt.order_id)
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        attempt.uri,
        retryWrites=False,
        event_listeners=[_Killer(attempt.moment, attempt.operation)],
    )
    async with client:
        database = client[attempt.database]
        reserve_stock = MongoBarrier(database).guard(ReserveStock())
        match attempt.deed:
            case "do":
                with suppress(Rejected):
                    await reserve_stock.do(call, request)
            case "compensate":
                compensation = inventory_pb2.ReserveStockCompensation(request=request)
                await reserve_stock.compensate(call, compensation)
            case "ship":
                await Shipping(database).ship(attempt.order_id)

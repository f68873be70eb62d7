"""The sweep: what PlaceOrder has promised is kept, whoever died or was away in between.

    owed                                   until
    a saga for the order                   the coordinator answers StartSaga (idempotent by saga_id)
    the order itself                       the saga has created it, or has ended without
    the end of an order that is PENDING    the saga has confirmed it, or has ended otherwise
    why the order was cancelled            the saga tells its failure

Every instance sweeps; two that look at one placement do no harm.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mesh.errors import Conflict, Retry
from mesh.postgres import transaction
from order_svc import placements, store
from order_svc.coordinator import (
    Coordinator,
    CoordinatorRefused,
    failure_reason,
    is_abandoned,
    is_final,
)
from order_svc.order import OrderState
from order_svc.placements import Placement
from protos.saga.v1 import saga_pb2

_BATCH = 100
_log = structlog.stdlib.get_logger()


class Sweep:
    """Keeps promises in the background.

    It looks every `interval`, and sooner when the coordinator is back; at a placement that still
    waits for something, again after `patience`, and the later the older it is.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        coordinator: Coordinator,
        *,
        interval: timedelta = timedelta(seconds=5),
        patience: timedelta = timedelta(seconds=10),
    ) -> None:
        self._engine = engine
        self._coordinator = coordinator
        self._interval = interval
        self._patience = patience
        self._unfinished = False
        self._wanted = asyncio.Event()

    def coordinator_answered(self) -> None:
        """Sweep again at once, unless the last sweep came to its end."""
        if self._unfinished:
            self._wanted.set()

    async def run(self) -> None:
        """Sweep until cancelled; databases and coordinators may come and go."""
        while True:
            self._wanted.clear()
            try:
                await self.sweep()
            except (Retry, Conflict) as away:
                _log.warning("sweep.interrupted", reason=away.reason)
            # Not `wait_for`: before Python 3.12 it loses a cancellation that meets a wake-up.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval.total_seconds()):
                    await self._wanted.wait()

    async def sweep(self) -> None:
        """Pay what is owed by now.

        Raises:
            Retry: the coordinator or the database is away; the rest stays owed.
        """
        self._unfinished = True
        full = True
        while full:
            async with transaction(self._engine) as tx:
                due = await placements.due(tx, _BATCH)
            for placement in due:
                await self._pay_or_requeue(placement)
            full = len(due) == _BATCH
        self._unfinished = False

    async def _pay_or_requeue(self, placement: Placement) -> None:
        try:
            await self._pay(placement)
        except Retry:
            async with transaction(self._engine) as tx:  # behind the others, not before them
                await placements.postpone(tx, placement.order_id, timedelta(0))
            raise

    async def _pay(self, placement: Placement) -> None:
        try:
            saga = await self._coordinator.start(placement.saga_id, placement.input)
        except CoordinatorRefused as refused:
            _log.error("sweep.refused", saga_id=placement.saga_id, **refused.metadata)
            saga = None
        async with transaction(self._engine) as tx:
            if saga is not None:
                await learn(tx, placement.order_id, saga)
                await placements.mark_started(tx, placement.order_id)
            owed = await placements.postpone(tx, placement.order_id, self._patience)
        if owed and saga is not None and is_final(saga):
            _log.error("sweep.no_order", saga_id=placement.saga_id, order_id=placement.order_id)


async def learn(tx: AsyncConnection, order_id: str, saga: saga_pb2.Saga) -> None:
    """Store what a saga tells about its order: that it was cancelled or abandoned, and why."""
    reason = failure_reason(saga)
    if not reason:
        return
    placement = await placements.of_order(tx, order_id)
    if placement is not None and is_final(saga):
        await _create_cancelled(tx, placement)
    tell = store.abandon if is_abandoned(saga) else store.explain
    if await tell(tx, order_id, reason):
        await placements.settle(tx, order_id)


async def _create_cancelled(tx: AsyncConnection, placement: Placement) -> None:
    """The saga has ended: what it has not created by now, it never will."""
    if await store.create(tx, placement.purchase):
        pending = {OrderState.PENDING}
        await store.move(tx, placement.order_id, pending, OrderState.CANCELLED)

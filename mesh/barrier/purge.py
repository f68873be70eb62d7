"""Barrier rows that nobody can ask for any more.

    DOING, COMPENSATING    never: their effect may be half there
    DONE                   after the retention time, by default 400 days
    REJECTED, COMPENSATED  after 30 days

A row is what keeps a late or doubled Do harmless, and a DONE row is what Compensate undoes from. So
the retention time has to exceed the longest time that a saga can still compensate.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import structlog
from sqlalchemy import and_, delete, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from mesh.barrier.rules import BarrierState
from mesh.barrier.tables import barrier
from mesh.errors import MeshError
from mesh.postgres import transaction

SETTLED_RETENTION = timedelta(days=30)
BATCH = 1_000

_log = structlog.stdlib.get_logger()


async def purge(engine: AsyncEngine, *, done_retention: timedelta, batch: int = BATCH) -> int:
    """Delete what is old enough by the database's clock; returns how many rows.

    Each batch is a transaction of its own and passes over rows that are in use.
    """
    total = 0
    while True:
        async with transaction(engine) as tx:
            deleted = await _purge_batch(tx, done_retention, batch)
        total += deleted
        if deleted < batch:
            return total


@asynccontextmanager
async def purging(
    engine: AsyncEngine, *, done_retention: timedelta, every: timedelta = timedelta(hours=1)
) -> AsyncIterator[None]:
    """Purge in the background while the block runs."""
    task = asyncio.create_task(_purge_regularly(engine, done_retention, every))
    try:
        yield
    finally:
        task.cancel()


async def _purge_regularly(
    engine: AsyncEngine, done_retention: timedelta, every: timedelta
) -> None:
    while True:
        try:
            deleted = await purge(engine, done_retention=done_retention)
            _log.info("barrier.purged", rows=deleted)
        except MeshError as error:
            _log.warning("barrier.purge_failed", reason=error.reason)
        await asyncio.sleep(every.total_seconds())


async def _purge_batch(tx: AsyncConnection, done_retention: timedelta, batch: int) -> int:
    settled = (BarrierState.REJECTED, BarrierState.COMPENSATED)
    key = tuple_(barrier.c.saga_id, barrier.c.step)
    old = (
        select(barrier.c.saga_id, barrier.c.step)
        .where(
            or_(
                and_(
                    barrier.c.state == BarrierState.DONE,
                    barrier.c.update_time < func.now() - done_retention,
                ),
                and_(
                    barrier.c.state.in_(settled),
                    barrier.c.update_time < func.now() - SETTLED_RETENTION,
                ),
            )
        )
        .limit(batch)
        .with_for_update(skip_locked=True)
    )
    return (await tx.execute(delete(barrier).where(key.in_(old)))).rowcount

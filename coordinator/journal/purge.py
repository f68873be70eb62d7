"""Retention: finished sagas are deleted with all that belongs to them, some at a time.

A group commit never waits for it: an event of a finished saga is refused by a look at the newest
one, and a new saga writes nothing as long as it sees events of an old one with its id.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from coordinator.journal.database import transaction
from coordinator.journal.limits import check_page
from coordinator.journal.tables import one_of, saga, saga_event, saga_inbox

_TURN = func.pg_try_advisory_xact_lock(func.hashtextextended("saga.purge", 0))


async def purge(engine: AsyncEngine, *, finished_for_ms: int, limit: int) -> int:
    """Delete the oldest of the sagas that ended so long ago; 0 when another session is at it."""
    check_page(limit)
    async with transaction(engine) as tx:
        if not (await tx.execute(select(_TURN))).scalar_one():
            return 0
        saga_ids = await _lock_oldest(tx, finished_for_ms, limit)
        for table in (saga_inbox, saga_event, saga) if saga_ids else ():
            await tx.execute(delete(table).where(one_of(table.c.saga_id, saga_ids)))
    return len(saga_ids)


async def _lock_oldest(tx: AsyncConnection, finished_for_ms: int, limit: int) -> list[str]:
    """Lock them first, so that no verb can be posted any more when verbs are deleted."""
    # now() and not clock_timestamp(), by which no index can be searched.
    until = func.now() - timedelta(milliseconds=finished_for_ms)
    oldest = (
        select(saga.c.saga_id)
        .where(saga.c.finish_time <= until)
        .order_by(saga.c.finish_time, saga.c.saga_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list((await tx.execute(oldest)).scalars())

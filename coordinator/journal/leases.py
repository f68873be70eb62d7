"""Leases: the right to write for the sagas that carry its epoch, judged by the database's clock.

Taking, extending and ending one are a statement each, and a transaction by itself: a round trip
more would be time of the lease lost.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.types import DateTime

from coordinator.journal.base import InstanceIdInUse, Lease, LeaseLost
from coordinator.journal.database import autocommit, transaction
from coordinator.journal.tables import Milliseconds, epoch_sequence, instance

_NOW = func.clock_timestamp(type_=DateTime(timezone=True))  # now() is the transaction's start
_TERM = (
    instance.c.instance_id,
    instance.c.epoch,
    func.clock_timestamp(type_=Milliseconds),
    instance.c.expire_time,
)


async def acquire(
    engine: AsyncEngine, instance_id: str, length_ms: int, after: Lease | None
) -> Lease:
    """Give an instance a new lease; waits for a group commit under its last one.

    Raises:
        InstanceIdInUse: somebody else holds one, and `after` is not None.
    """
    free = None
    if after is not None:
        free = or_(instance.c.epoch == after.epoch, instance.c.expire_time <= _NOW)
    term = {
        "epoch": epoch_sequence.next_value(),
        "expire_time": _NOW + timedelta(milliseconds=length_ms),
    }
    statement = (
        insert(instance)
        .values(instance_id=instance_id, **term)
        .on_conflict_do_update(index_elements=[instance.c.instance_id], set_=term, where=free)
        .returning(*_TERM)
    )
    async with transaction(autocommit(engine)) as tx:
        granted = (await tx.execute(statement)).one_or_none()
    if granted is None:
        raise InstanceIdInUse(instance_id)
    return Lease(*granted)


async def renew(engine: AsyncEngine, lease: Lease, length_ms: int) -> Lease:
    """Extend a lease that is held; waits for nothing.

    Raises:
        LeaseLost: it is not held.
    """
    statement = (
        update(instance)
        .where(_held(lease))
        .values(expire_time=_NOW + timedelta(milliseconds=length_ms))
        .returning(*_TERM)
    )
    async with transaction(autocommit(engine)) as tx:
        renewed = (await tx.execute(statement)).one_or_none()
    if renewed is None:
        raise _lost(lease)
    return Lease(*renewed)


async def release(engine: AsyncEngine, lease: Lease) -> None:
    """End a lease; waits for a group commit under it."""
    async with transaction(autocommit(engine)) as tx:
        await tx.execute(delete(instance).where(instance.c.epoch == lease.epoch))


async def hold(tx: AsyncConnection, lease: Lease) -> None:
    """Keep a lease from being ended before this transaction is.

    Raises:
        LeaseLost: it is not held.
    """
    statement = select(instance.c.epoch).where(_held(lease))
    found = await tx.execute(statement.with_for_update(read=True, key_share=True))
    if found.one_or_none() is None:
        raise _lost(lease)


async def end_expired(tx: AsyncConnection) -> None:
    """End every lease that has expired; waits for the group commits under them."""
    expired = select(instance.c.epoch).where(instance.c.expire_time <= _NOW)
    # In order, so that two instances that do this at once cannot block each other.
    locked = expired.order_by(instance.c.epoch).with_for_update()
    await tx.execute(delete(instance).where(instance.c.epoch.in_(locked)))


def _held(lease: Lease) -> ColumnElement[bool]:
    return and_(
        instance.c.instance_id == lease.instance_id,
        instance.c.epoch == lease.epoch,
        instance.c.expire_time > _NOW,
    )


def _lost(lease: Lease) -> LeaseLost:
    return LeaseLost(f"epoch {lease.epoch} of {lease.instance_id} is not held")

"""Sagas as they are on disk, and how an instance takes those that nobody owns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import ColumnElement, RowMapping, Select, case, exists, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from coordinator.core.model import SagaState
from coordinator.journal import leases
from coordinator.journal.base import (
    Entry,
    JournalUnavailable,
    Lease,
    LeaseLost,
    StoredSaga,
    UnreadableHistory,
)
from coordinator.journal.codec import Row, decode
from coordinator.journal.database import transaction
from coordinator.journal.limits import check_page, check_texts
from coordinator.journal.tables import instance, saga, saga_event

KEYS = saga.c["keys"]  # `saga.c.keys` is a method
_UNOWNED = ~exists().where(instance.c.epoch == saga.c.epoch)
_REVISION = (
    select(func.max(saga_event.c.revision))
    .where(saga_event.c.saga_id == saga.c.saga_id)
    .scalar_subquery()
)
_SAGA: tuple[ColumnElement[Any], ...] = (
    saga.c.saga_id,
    saga.c.definition,
    saga.c.definition_hash,
    saga.c.state,
    KEYS,
    saga.c.claims,
    saga.c.claim_revision,
    saga.c.create_time,
    saga.c.update_time,
    _REVISION.label("revision"),
)
_log = structlog.stdlib.get_logger()


def select_sagas() -> Select[Any]:
    """All columns of `stored_saga`, to be narrowed."""
    return select(*_SAGA)


def select_events() -> Select[Any]:
    """All columns of a `Row`, in its order, oldest first, to be narrowed."""
    columns = (
        saga_event.c.saga_id,
        saga_event.c.revision,
        saga_event.c.time,
        saga_event.c.kind,
        saga_event.c.step,
        saga_event.c.attempt,
        saga_event.c.payload,
        saga_event.c.commands,
    )
    return select(*columns).order_by(saga_event.c.saga_id, saga_event.c.revision)


async def load_one(tx: AsyncConnection, narrowed: Select[Any]) -> StoredSaga | None:
    """The saga, with its entries, that a statement made of `select_sagas` finds."""
    row = (await tx.execute(narrowed)).mappings().one_or_none()
    if row is None:
        return None
    history = (await _rows(tx, [row["saga_id"]]))[row["saga_id"]]
    return stored_saga(row, [decode(event) for event in history])


def stored_saga(row: RowMapping, entries: Sequence[Entry]) -> StoredSaga:
    """A saga from its row and what is wanted of its entries."""
    return StoredSaga(
        saga_id=row["saga_id"],
        definition=row["definition"],
        definition_hash=row["definition_hash"],
        state=SagaState(row["state"]),
        entries=tuple(entries),
        created_ms=row["create_time"],
        updated_ms=row["update_time"],
        keys=row["keys"],
        revision=row["revision"],
        claims=row["claims"] if row["revision"] == row["claim_revision"] else 0,
    )


async def reload(engine: AsyncEngine, lease: Lease, saga_id: str) -> StoredSaga | None:
    """One saga if it is unfinished and owned by a lease."""
    check_texts(saga_id)
    owned = select_sagas().where(
        saga.c.saga_id == saga_id, saga.c.epoch == lease.epoch, saga.c.finish_time.is_(None)
    )
    async with transaction(engine) as tx:
        return await load_one(tx, owned)


async def claim(engine: AsyncEngine, lease: Lease, limit: int) -> Sequence[StoredSaga]:
    """Give a lease the oldest unfinished sagas whose own lease is not held any more.

    Raises:
        LeaseLost: the lease that claims is not held itself, or must be given up: COMMIT had no
            answer, and sagas that it may own now would be claimed by nobody.
    """
    check_page(limit)
    taken: list[RowMapping] = []
    try:
        async with transaction(engine) as tx:
            await leases.hold(tx, lease)
            await leases.end_expired(tx)
            histories = await _readable(tx, await _lock_unowned(tx, limit))
            taken = await _take(tx, lease, list(histories))
    except JournalUnavailable as error:
        if taken:
            raise LeaseLost(f"what epoch {lease.epoch} has claimed is not known") from error
        raise
    taken.sort(key=lambda row: (row["create_time"], row["saga_id"]))
    return [stored_saga(row, histories[row["saga_id"]]) for row in taken]


async def _lock_unowned(tx: AsyncConnection, limit: int) -> Sequence[str]:
    candidates = (
        select(saga.c.saga_id)
        .where(saga.c.finish_time.is_(None), _UNOWNED)
        .order_by(saga.c.create_time, saga.c.saga_id)
        .limit(limit)
        .with_for_update(skip_locked=True, key_share=True, of=saga)
    )
    return (await tx.execute(candidates)).scalars().all()


async def _take(tx: AsyncConnection, lease: Lease, saga_ids: Sequence[str]) -> list[RowMapping]:
    """Put the lease's epoch on sagas that are locked.

    Asks again whether they are unowned: the statement that locked them did not see a lease that was
    acquired, and took some of them, since that statement began. This one does.
    """
    claims = case((saga.c.claim_revision < _REVISION, 1), else_=saga.c.claims + 1)
    taken = (
        update(saga)
        .where(saga.c.saga_id.in_(saga_ids), _UNOWNED)
        .values(owner=lease.instance_id, epoch=lease.epoch, claims=claims, claim_revision=_REVISION)
        .returning(*_SAGA)
    )
    return list((await tx.execute(taken)).mappings())


async def _readable(tx: AsyncConnection, saga_ids: Sequence[str]) -> Mapping[str, Sequence[Entry]]:
    """The histories of those sagas that this version can read."""
    histories = {}
    for saga_id, rows in (await _rows(tx, saga_ids)).items():
        try:
            histories[saga_id] = [decode(row) for row in rows]
        except UnreadableHistory as error:
            _log.error("journal.unreadable", saga_id=saga_id, error=str(error))
    return histories


async def _rows(tx: AsyncConnection, saga_ids: Sequence[str]) -> Mapping[str, Sequence[Row]]:
    rows = defaultdict(list)
    for row in await tx.execute(select_events().where(saga_event.c.saga_id.in_(saga_ids))):
        rows[row.saga_id].append(Row(*row))
    return rows

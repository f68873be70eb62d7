"""Sagas and their events as they are on disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from coordinator.core.model import SagaState
from coordinator.journal.base import Entry, Lease, StoredSaga
from coordinator.journal.codec import Row, decode
from coordinator.journal.database import transaction
from coordinator.journal.limits import check_texts
from coordinator.journal.tables import one_of, saga, saga_event

KEYS = saga.c["keys"]  # `saga.c.keys` is a method
REVISION = (
    select(func.max(saga_event.c.revision))
    .where(saga_event.c.saga_id == saga.c.saga_id)
    .scalar_subquery()
)
COLUMNS: tuple[ColumnElement[Any], ...] = (
    saga.c.saga_id,
    saga.c.definition,
    saga.c.definition_hash,
    saga.c.state,
    KEYS,
    saga.c.claims,
    saga.c.create_time,
    saga.c.update_time,
    REVISION.label("revision"),
)


def select_sagas() -> Select[Any]:
    """All columns of `stored_saga`, to be narrowed."""
    return select(*COLUMNS)


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
    history = (await load_rows(tx, [row["saga_id"]]))[row["saga_id"]]
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
        claims=row["claims"],
    )


async def reload(engine: AsyncEngine, lease: Lease, saga_id: str) -> StoredSaga | None:
    """One saga if it is unfinished and owned by a lease."""
    check_texts(saga_id)
    owned = select_sagas().where(
        saga.c.saga_id == saga_id, saga.c.epoch == lease.epoch, saga.c.finish_time.is_(None)
    )
    async with transaction(engine) as tx:
        return await load_one(tx, owned)


async def load_rows(tx: AsyncConnection, saga_ids: Sequence[str]) -> Mapping[str, Sequence[Row]]:
    """All events of each of these sagas, by its id."""
    rows = defaultdict(list)
    for row in await tx.execute(select_events().where(one_of(saga_event.c.saga_id, saga_ids))):
        rows[row.saga_id].append(Row(*row))
    return rows

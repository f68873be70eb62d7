"""Anyone's side: sagas and their entries as they are on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Select, case, func, select, tuple_, union_all
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.core.model import SagaState
from coordinator.journal.base import Entry, Standing, StoredSaga
from coordinator.journal.codec import Row, decode
from coordinator.journal.database import snapshot, transaction
from coordinator.journal.limits import check_page, check_saga_ids, check_saga_page, check_texts
from coordinator.journal.sagas import (
    KEYS,
    REVISION,
    load_one,
    select_events,
    select_sagas,
    stored_saga,
)
from coordinator.journal.tables import PARKED, instance, one_of, saga, saga_event

_PARKED_UNTIL = case((saga.c.epoch == PARKED, saga.c.wake_time))
_OWNER = (
    select(instance.c.instance_id)
    .where(
        instance.c.epoch == saga.c.epoch,
        instance.c.expire_time > func.clock_timestamp(),
        saga.c.finish_time.is_(None),
    )
    .scalar_subquery()
)


async def load(engine: AsyncEngine, saga_id: str) -> StoredSaga | None:
    """One saga with all of its entries, as of one moment."""
    check_texts(saga_id)
    async with transaction(snapshot(engine)) as tx:
        return await load_one(tx, select_sagas().where(saga.c.saga_id == saga_id))


async def entries(
    engine: AsyncEngine, saga_id: str, after_revision: int, limit: int
) -> Sequence[Entry]:
    """A page of one saga's entries."""
    check_texts(saga_id)
    check_page(limit, after_revision=after_revision)
    statement = (
        select_events()
        .where(saga_event.c.saga_id == saga_id, saga_event.c.revision > after_revision)
        .limit(limit)
    )
    async with transaction(engine) as tx:
        return [decode(Row(*row)) for row in await tx.execute(statement)]


async def list_sagas(
    engine: AsyncEngine,
    *,
    definition: str,
    states: frozenset[SagaState],
    keys: Mapping[str, str],
    before: tuple[int, str] | None,
    limit: int,
) -> Sequence[StoredSaga]:
    """A page of sagas without entries, newest first."""
    check_saga_page(definition, keys, before, limit)
    page = _page(definition, keys, before, limit)
    if states:
        each = [page.where(saga.c.state == state.value) for state in sorted(states, key=str)]
        found = union_all(*each).subquery()
        page = select(found).order_by(found.c.create_time.desc(), found.c.saga_id.desc())
    async with transaction(engine) as tx:
        rows = (await tx.execute(page.limit(limit))).mappings()
        return [stored_saga(row, entries=()) for row in rows]


def _page(
    definition: str, keys: Mapping[str, str], before: tuple[int, str] | None, limit: int
) -> Select[Any]:
    """A page whatever their states; said so that the indexes can be used."""
    newest_first = (saga.c.create_time.desc(), saga.c.saga_id.desc())
    statement = select_sagas().order_by(*newest_first).limit(limit)
    if definition:
        statement = statement.where(saga.c.definition == definition)
    if keys:
        statement = statement.where(KEYS.contains(dict(keys)), KEYS != {})
    if before:
        statement = statement.where(tuple_(saga.c.create_time, saga.c.saga_id) < before)
    return statement


async def standings(engine: AsyncEngine, saga_ids: Sequence[str]) -> Mapping[str, Standing]:
    """The standings of those sagas that exist."""
    check_saga_ids(saga_ids)
    columns = select(saga.c.saga_id, saga.c.definition_hash, saga.c.state, _OWNER, _PARKED_UNTIL)
    async with transaction(engine) as tx:
        rows = await tx.execute(columns.where(one_of(saga.c.saga_id, saga_ids)))
        return {
            saga_id: Standing(hash_, SagaState(state), owner or "", parked_until or 0)
            for saga_id, hash_, state, owner, parked_until in rows
        }


async def revisions(engine: AsyncEngine, saga_ids: Sequence[str]) -> Mapping[str, int]:
    """The newest revisions of those sagas that exist."""
    check_saga_ids(saga_ids)
    columns = select(saga.c.saga_id, REVISION.label("revision"))
    async with transaction(engine) as tx:
        rows = await tx.execute(columns.where(one_of(saga.c.saga_id, saga_ids)))
        return {row.saga_id: row.revision for row in rows}

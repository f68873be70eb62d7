"""Anyone's side: sagas and their entries as they are on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.core.model import SagaState
from coordinator.journal.base import Entry, StoredSaga
from coordinator.journal.codec import Row, decode
from coordinator.journal.database import snapshot, transaction
from coordinator.journal.limits import check_page, check_saga_page, check_texts
from coordinator.journal.sagas import KEYS, load_one, select_events, select_sagas, stored_saga
from coordinator.journal.tables import saga, saga_event


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
    newest_first = (saga.c.create_time.desc(), saga.c.saga_id.desc())
    statement = _narrow(select_sagas().order_by(*newest_first).limit(limit), states, keys)
    if definition:
        statement = statement.where(saga.c.definition == definition)
    if before:
        statement = statement.where(tuple_(saga.c.create_time, saga.c.saga_id) < before)
    async with transaction(engine) as tx:
        rows = (await tx.execute(statement)).mappings()
        return [stored_saga(row, entries=()) for row in rows]


def _narrow(
    statement: Select[Any], states: frozenset[SagaState], keys: Mapping[str, str]
) -> Select[Any]:
    """Say it so that the partial indexes can be used."""
    if states:
        statement = statement.where(saga.c.state.in_(sorted(state.value for state in states)))
        if not any(state.final for state in states):
            statement = statement.where(saga.c.finish_time.is_(None))
    if keys:
        statement = statement.where(KEYS.contains(dict(keys)), KEYS != {})
    return statement

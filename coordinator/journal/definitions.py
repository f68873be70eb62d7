"""Registered definitions: never changed, never deleted, and the last registered is the newest."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Boolean, RowMapping, literal_column, select, text
from sqlalchemy.dialects.postgresql import distinct_on, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from coordinator.journal.database import transaction
from coordinator.journal.definition_store import StoredDefinition
from coordinator.journal.limits import check_page, check_texts
from coordinator.journal.tables import definition

_STORED = (
    definition.c.name,
    definition.c.hash,
    definition.c.source,
    definition.c.descriptors,
    definition.c.create_time,
)
_INSERTED = literal_column("xmax = 0", Boolean).label(
    "inserted"
)  # a row that was updated has an xmax


async def save(
    engine: AsyncEngine, *, name: str, content_hash: str, source: str, descriptors: bytes
) -> tuple[StoredDefinition, bool]:
    """Store a version, or make it the newest; returns it and whether it is new."""
    check_texts(name, content_hash, source)
    statement = (
        insert(definition)
        .values(name=name, hash=content_hash, source=source, descriptors=descriptors)
        .on_conflict_do_update(
            index_elements=[definition.c.hash], set_={"registered": text("DEFAULT")}
        )
        .returning(*_STORED, _INSERTED)
    )
    async with transaction(engine) as tx:
        row = (await tx.execute(statement)).mappings().one()
    return _stored(row), row["inserted"]


async def load(engine: AsyncEngine, content_hash: str) -> StoredDefinition | None:
    """One version by its hash."""
    check_texts(content_hash)
    statement = select(*_STORED).where(definition.c.hash == content_hash)
    async with transaction(engine) as tx:
        row = (await tx.execute(statement)).mappings().one_or_none()
    return None if row is None else _stored(row)


async def newest(engine: AsyncEngine, name: str) -> StoredDefinition | None:
    """The newest version of a definition."""
    check_texts(name)
    statement = (
        select(*_STORED)
        .where(definition.c.name == name)
        .order_by(definition.c.registered.desc())
        .limit(1)
    )
    async with transaction(engine) as tx:
        row = (await tx.execute(statement)).mappings().one_or_none()
    return None if row is None else _stored(row)


async def newest_of_each(
    engine: AsyncEngine, *, after: str, limit: int
) -> Sequence[StoredDefinition]:
    """A page of newest versions, by name."""
    check_texts(after)
    check_page(limit)
    statement = (
        select(*_STORED)
        .ext(distinct_on(definition.c.name))
        .where(definition.c.name > after)
        .order_by(definition.c.name, definition.c.registered.desc())
        .limit(limit)
    )
    async with transaction(engine) as tx:
        return [_stored(row) for row in (await tx.execute(statement)).mappings()]


def _stored(row: RowMapping) -> StoredDefinition:
    return StoredDefinition(
        name=row["name"],
        hash=row["hash"],
        source=row["source"],
        descriptors=row["descriptors"],
        created_ms=row["create_time"],
    )

"""What a database really has, to compare migrations with the tables that the code believes in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import alembic.command
import sqlalchemy as sa
from alembic.config import Config
from sqlalchemy import MetaData

from mesh.migrate import migrate
from mesh.postgres import create_engine, driver_url

_COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default
FROM information_schema.columns WHERE table_name = ANY(:tables)
"""
_CONSTRAINTS = """
SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE conrelid::regclass::text = ANY(:tables)
"""
_INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE tablename = ANY(:tables)"

NewDatabase = Callable[[], Awaitable[str]]


async def migrated(dsn: str, package: str, metadata: MetaData) -> set[tuple[str, ...]]:
    """Columns, constraints and indexes as the migrations of `package` make them."""
    await migrate(dsn, package)
    return await _schema(dsn, metadata)


async def migrated_anew(dsn: str, package: str, metadata: MetaData) -> set[tuple[str, ...]]:
    """The same after all of them were taken back."""
    await migrate(dsn, package)
    await asyncio.to_thread(_take_back, dsn, package)
    return await migrated(dsn, package, metadata)


def _take_back(dsn: str, package: str) -> None:
    engine = sa.create_engine(driver_url(dsn), poolclass=sa.NullPool)
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", f"{package}:migrations")
        config.attributes.update(connection=connection, version_table=f"{package}_version")
        alembic.command.downgrade(config, "base")


async def declared(dsn: str, metadata: MetaData) -> set[tuple[str, ...]]:
    """Columns, constraints and indexes as the tables in the code declare them."""
    engine = create_engine(dsn)
    async with engine.begin() as tx:
        await tx.run_sync(metadata.create_all)
    await engine.dispose()
    return await _schema(dsn, metadata)


async def _schema(dsn: str, metadata: MetaData) -> set[tuple[str, ...]]:
    engine = create_engine(dsn)
    found: set[tuple[str, ...]] = set()
    async with engine.begin() as tx:
        for query in (_COLUMNS, _CONSTRAINTS, _INDEXES):
            rows = await tx.execute(sa.text(query), {"tables": list(metadata.tables)})
            found.update(tuple(str(value) for value in row) for row in rows)
    await engine.dispose()
    return found

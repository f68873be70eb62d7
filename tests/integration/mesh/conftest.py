"""A database with the barrier table, and an engine on it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from mesh.barrier.tables import create_barrier
from mesh.postgres import create_engine


@pytest_asyncio.fixture
async def engine(postgres_dsn: str) -> AsyncIterator[AsyncEngine]:
    """Its database has the barrier table."""
    engine = create_engine(postgres_dsn)
    async with engine.begin() as connection:
        await connection.run_sync(create_barrier)
    yield engine
    await engine.dispose()

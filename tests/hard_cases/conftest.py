"""What the hard cases run on: those with a `new_world` on virtual time, the others on real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from urllib.parse import urlsplit, urlunsplit

import pytest
import pytest_asyncio
from psycopg import AsyncConnection
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils import uuid7

from local.postgres import create_database
from mesh.postgres import create_engine
from tests.contract.conftest import (
    at_once_harness,
    harness,
    mongo_harness,
    postgres_harness,
    staged_harness,
)
from tests.hard_cases.mesh import NewWorld
from tests.unit.engine.world import World
from tests.virtual_time import VirtualLoop

__all__ = ["at_once_harness", "harness", "mongo_harness", "postgres_harness", "staged_harness"]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Virtual time for whoever asks for a world in memory."""
    if "new_world" in getattr(item, "fixturenames", ()):
        return {"virtual time": VirtualLoop}
    return {"real time": asyncio.new_event_loop}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _barriers_dsn(_postgres_server: str) -> AsyncIterator[str]:
    """DSN of one database for all of these tests: making one for each takes most of the time."""
    name = f"hard_cases_{uuid7().hex}"
    await create_database(_postgres_server, name)
    yield urlunsplit(urlsplit(_postgres_server)._replace(path=f"/{name}"))
    async with await AsyncConnection.connect(_postgres_server, autocommit=True) as connection:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def engine(_barriers_dsn: str) -> AsyncIterator[AsyncEngine]:
    """On an empty database."""
    engine = create_engine(_barriers_dsn)
    yield engine
    async with engine.begin() as tx:
        await tx.execute(text("DROP TABLE IF EXISTS barrier, effect"))
    await engine.dispose()


@pytest.fixture
async def new_world() -> AsyncIterator[NewWorld]:
    """Makes a world with every call: one with a mechanism, another without it."""
    worlds: list[World] = []

    def make() -> World:
        worlds.append(World())
        return worlds[-1]

    yield make
    for world in worlds:
        await world.close()


@pytest.fixture
def world(new_world: NewWorld) -> World:
    return new_world()

"""The same tests on every journal: a store to join, and an instance that holds a lease on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit, urlunsplit

import pytest
import pytest_asyncio
from psycopg import AsyncConnection
from uuid_utils import uuid7

from local.postgres import create_database
from tests.contract.journal.harness import Instance, MemoryRig, PostgresRig, Rig


@pytest.fixture
def memory_rig() -> Rig:
    return MemoryRig()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def journal_dsn(_postgres_server: str) -> AsyncIterator[str]:
    """DSN of one database for all of these tests: making one for each takes most of the time."""
    name = f"journal_{uuid7().hex}"
    await create_database(_postgres_server, name)
    yield urlunsplit(urlsplit(_postgres_server)._replace(path=f"/{name}"))
    async with await AsyncConnection.connect(_postgres_server, autocommit=True) as connection:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def postgres_rig(journal_dsn: str) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as cleanup:
        yield PostgresRig(journal_dsn, cleanup)
    async with await AsyncConnection.connect(journal_dsn) as connection:
        for table in ("saga_inbox", "saga_event", "saga", "instance", "definition"):
            await connection.execute(f"DELETE FROM saga.{table}")


@pytest.fixture(params=["memory", "postgres"])
def rig(request: pytest.FixtureRequest) -> Rig:
    found: Rig = request.getfixturevalue(f"{request.param}_rig")
    return found


@pytest_asyncio.fixture
async def mine(rig: Rig) -> Instance:
    """An instance that holds a lease."""
    return await rig.join("mine")


@pytest_asyncio.fixture
async def other(rig: Rig) -> Instance:
    """Another instance that holds a lease."""
    return await rig.join("other")

"""The same tests on every journal: a store to join, and an instance that holds a lease on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.contract.journal.harness import Instance, MemoryRig, PostgresRig, Rig


@pytest.fixture
def memory_rig() -> Rig:
    return MemoryRig()


@pytest_asyncio.fixture
async def postgres_rig(postgres_dsn: str) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as cleanup:
        yield PostgresRig(postgres_dsn, cleanup)


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

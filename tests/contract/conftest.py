"""The barriers that the suite runs against, each on its real store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from inventory_svc.store import connect
from mesh.postgres import create_engine
from tests.contract.at_once_harness import AtOnceHarness
from tests.contract.barrier_harness import BarrierHarness
from tests.contract.mongo_harness import MongoHarness
from tests.contract.postgres_harness import PostgresHarness
from tests.contract.staged_harness import StagedHarness


@pytest_asyncio.fixture
async def engine(postgres_dsn: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(postgres_dsn)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def postgres_harness(engine: AsyncEngine) -> PostgresHarness:
    harness = PostgresHarness(engine)
    await harness.prepare()
    return harness


@pytest_asyncio.fixture
async def at_once_harness(engine: AsyncEngine) -> AtOnceHarness:
    harness = AtOnceHarness(engine)
    await harness.prepare()
    return harness


@pytest_asyncio.fixture
async def staged_harness(engine: AsyncEngine) -> StagedHarness:
    harness = StagedHarness(engine)
    await harness.prepare()
    return harness


@pytest_asyncio.fixture
async def mongo_harness(mongodb_uri: str, mongo_database: str) -> AsyncIterator[MongoHarness]:
    async with connect(mongodb_uri) as client:
        harness = MongoHarness(client[mongo_database])
        await harness.prepare()
        yield harness


@pytest.fixture(params=["postgres", "at_once", "staged", "mongo"])
def harness(request: pytest.FixtureRequest) -> BarrierHarness:
    """Every barrier in turn; `<param>_harness` is the fixture that builds it."""
    harness = request.getfixturevalue(f"{request.param}_harness")
    assert isinstance(harness, BarrierHarness)
    return harness

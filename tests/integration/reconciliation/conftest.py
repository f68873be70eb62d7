from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from inventory_svc.store import connect
from mesh.postgres import create_engine
from tests.contract.mongo_harness import MongoHarness
from tests.contract.postgres_harness import PostgresHarness
from tests.contract.staged_harness import StagedHarness
from tests.integration.reconciliation.shop import MongoShop, PostgresShop, Shop


@pytest_asyncio.fixture
async def engine(postgres_dsn: str) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(postgres_dsn)
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def postgres_shop(engine: AsyncEngine) -> AsyncIterator[Shop]:
    harness = PostgresHarness(engine)
    await harness.prepare()
    async with PostgresShop(harness, engine) as shop:
        yield shop


@pytest_asyncio.fixture
async def staged_shop(engine: AsyncEngine) -> AsyncIterator[Shop]:
    harness = StagedHarness(engine)
    await harness.prepare()
    async with PostgresShop(harness, engine) as shop:
        yield shop


@pytest_asyncio.fixture
async def mongo_shop(mongodb_uri: str, mongo_database: str) -> AsyncIterator[Shop]:
    async with connect(mongodb_uri) as client:
        harness = MongoHarness(client[mongo_database])
        await harness.prepare()
        async with MongoShop(harness, client[mongo_database]) as shop:
            yield shop


@pytest.fixture(params=["postgres", "staged", "mongo"])
def shop(request: pytest.FixtureRequest) -> Shop:
    """A shop on every barrier in turn; `<param>_shop` is the fixture that builds it."""
    shop = request.getfixturevalue(f"{request.param}_shop")
    assert isinstance(shop, Shop)
    return shop

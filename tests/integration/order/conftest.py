from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from mesh.migrate import migrate
from tests.integration.order.coordinator import StandInCoordinator
from tests.integration.order.shop import Shop, open_shop


@pytest_asyncio.fixture
async def coordinator() -> AsyncIterator[StandInCoordinator]:
    coordinator = StandInCoordinator()
    await coordinator.up()
    yield coordinator
    await coordinator.down()


@pytest_asyncio.fixture
async def order_dsn(postgres_dsn: str) -> str:
    """DSN of a database that has the tables of the order service."""
    await migrate(postgres_dsn, "order_svc")
    return postgres_dsn


@pytest_asyncio.fixture
async def shop(order_dsn: str, coordinator: StandInCoordinator) -> AsyncIterator[Shop]:
    async with open_shop(order_dsn, coordinator) as shop:
        yield shop

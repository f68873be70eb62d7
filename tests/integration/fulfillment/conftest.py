from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from mesh.migrate import migrate
from tests.integration.fulfillment.warehouse import Warehouse, open_warehouse


@pytest_asyncio.fixture
async def warehouse(postgres_dsn: str) -> AsyncIterator[Warehouse]:
    await migrate(postgres_dsn, "fulfillment_svc")
    async with open_warehouse(postgres_dsn) as warehouse:
        yield warehouse

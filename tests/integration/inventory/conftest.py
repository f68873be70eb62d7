from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.integration.inventory.warehouse import Warehouse, open_warehouse


@pytest_asyncio.fixture
async def warehouse(mongodb_uri: str, mongo_database: str) -> AsyncIterator[Warehouse]:
    async with open_warehouse(mongodb_uri, mongo_database) as warehouse:
        yield warehouse

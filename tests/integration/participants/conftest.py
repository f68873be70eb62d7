"""One participant and the coordinator's view of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.integration.participants.participant import Running, running


@pytest_asyncio.fixture
async def payment() -> AsyncIterator[Running]:
    async with running() as payment:
        yield payment

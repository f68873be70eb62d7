"""One participant and the coordinator's view of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.participants.participant import Running, running


@pytest_asyncio.fixture(params=["alone", "streamed"])
async def payment(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    """Called by both ways."""
    async with running(streams=request.param == "streamed") as payment:
        yield payment


@pytest_asyncio.fixture
async def alone() -> AsyncIterator[Running]:
    """Without streams."""
    async with running() as alone:
        yield alone


@pytest_asyncio.fixture
async def streamed() -> AsyncIterator[Running]:
    """With an open stream."""
    async with running(streams=True) as streamed:
        yield streamed

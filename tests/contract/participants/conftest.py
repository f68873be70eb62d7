"""The same tests on every implementation of `Participants`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.participants.harness import MemoryRig, Rig, grpc_rig


@pytest_asyncio.fixture(params=["memory", "alone", "streamed"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if request.param == "memory":
        yield MemoryRig()
        return
    async with grpc_rig(streams=request.param == "streamed") as rig:
        yield rig

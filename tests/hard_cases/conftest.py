"""What the hard cases run on: those with a `world` on virtual time, the others on real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from tests.contract.conftest import (
    engine,
    harness,
    mongo_harness,
    postgres_harness,
    staged_harness,
)
from tests.unit.engine.world import World
from tests.virtual_time import VirtualLoop

__all__ = ["engine", "harness", "mongo_harness", "postgres_harness", "staged_harness"]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Virtual time for whoever asks for a world in memory."""
    if "world" in getattr(item, "fixturenames", ()):
        return {"virtual time": VirtualLoop}
    return {"real time": asyncio.new_event_loop}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.close()

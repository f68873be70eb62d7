from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from tests.unit.api.desk import Desk, KnownDefinitions, compiled
from tests.unit.engine.world import World
from tests.virtual_time import VirtualLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test in this folder runs on virtual time."""
    return {"virtual time": VirtualLoop}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.close()


@pytest.fixture
async def desk(world: World) -> Desk:
    """A coordinator that knows the definition `story` of the steps a and b."""
    desk = Desk(world, await world.coordinator(), KnownDefinitions())
    desk.know(compiled("story", "a", "b"))
    return desk

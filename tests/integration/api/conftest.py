from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.api.counter import Counter, open_counter
from tests.unit.api.desk import KnownDefinitions, compiled
from tests.unit.engine.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.close()


@pytest.fixture
async def counter(world: World) -> AsyncIterator[Counter]:
    """A coordinator that knows the definition `story` of the steps a and b."""
    async with open_counter(world, "one", KnownDefinitions()) as counter:
        counter.desk.know(compiled("story", "a", "b"))
        yield counter

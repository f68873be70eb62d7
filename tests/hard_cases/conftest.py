"""What the hard cases run on: those with a `new_world` on virtual time, the others on real."""

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
from tests.hard_cases.without import NewWorld
from tests.unit.engine.world import World
from tests.virtual_time import VirtualLoop

__all__ = ["engine", "harness", "mongo_harness", "postgres_harness", "staged_harness"]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Virtual time for whoever asks for a world in memory."""
    if "new_world" in getattr(item, "fixturenames", ()):
        return {"virtual time": VirtualLoop}
    return {"real time": asyncio.new_event_loop}


@pytest.fixture
async def new_world() -> AsyncIterator[NewWorld]:
    """Makes a world with every call: one with a mechanism, another without it."""
    worlds: list[World] = []

    def make() -> World:
        worlds.append(World())
        return worlds[-1]

    yield make
    for world in worlds:
        await world.close()


@pytest.fixture
def world(new_world: NewWorld) -> World:
    return new_world()

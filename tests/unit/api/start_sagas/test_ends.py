"""What a stream tells of ends that were asked for."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.api import start_sagas
from coordinator.core.model import FailureKind
from coordinator.engine.ends import EndsElsewhere
from tests.unit.api.desk import Desk
from tests.unit.api.start_sagas.client import (
    COMPENSATED,
    COMPLETED,
    RUNNING,
    STUCK,
    Client,
    Connect,
    start,
    wide_desk,
)
from tests.unit.engine.world import World, failed


async def test_an_end_is_told_if_it_was_asked_for(desk: Desk, client: Client) -> None:
    client.send(start("saga-1", wait=True), start("saga-2"), start("saga-3", wait=True))
    client.half_close()
    for _ in range(2):
        await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO a 1", failed(FailureKind.REJECTED))
    for _ in range(2):
        await desk.coordinator.answer("DO b 1")
    await client.stream
    started, ended = client.reports[:3], client.reports[3:]
    assert started == [(f"saga-{number}", RUNNING) for number in (1, 2, 3)]
    assert ended == [("saga-3", COMPENSATED), ("saga-1", COMPLETED)]


async def test_stuck_is_an_end(desk: Desk, client: Client) -> None:
    client.send(start(wait=True))
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1", failed(FailureKind.REJECTED))
    for attempt in (1, 2, 3):
        await desk.coordinator.answer(f"COMPENSATE a {attempt}", failed(FailureKind.REFUSED))
    assert await client.hears(2) == [("saga-1", RUNNING), ("saga-1", STUCK)]


async def test_an_end_at_another_instance_is_told(
    connect: Connect, world: World, desk: Desk
) -> None:
    other = Desk(world, await world.coordinator("two"), desk.definitions)
    engine = other.coordinator.engine
    looking = asyncio.create_task(EndsElsewhere(world.reader, engine.ends).run())
    await desk.start()
    client = connect(other)
    client.send(start(wait=True))
    client.half_close()
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1")
    await client.stream
    assert client.reports == [("saga-1", RUNNING), ("saga-1", COMPLETED)]
    looking.cancel()


async def test_while_ends_are_awaited_others_are_started(
    connect: Connect, desk: Desk, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_sagas, "PLACES", 100)
    desk = await wide_desk(world, desk)
    client = connect(desk)
    for number in range(1_000):
        client.send(start(f"saga-{number}", wait=True))
    await client.hears(1_000)
    assert len(desk.coordinator.engine.ends) == 1_000

"""What a stream holds back, and that nobody else notices."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from coordinator.api import start_sagas
from coordinator.core.model import FailureKind
from tests.unit.api.desk import Desk
from tests.unit.api.start_sagas.client import COMPENSATED, RUNNING, Connect, start, wide_desk
from tests.unit.engine.world import World, failed


async def test_a_client_that_does_not_read_starts_only_so_many(
    connect: Connect, world: World, desk: Desk
) -> None:
    desk = await wide_desk(world, desk)
    client = connect(desk)
    client.reads.clear()
    for number in range(100):
        client.send(*(start(f"saga-{number}-{one}") for one in range(100)))
    await asyncio.sleep(1)
    held = len(
        await world.reader.standings([f"saga-{n}-{o}" for n in range(100) for o in range(100)])
    )
    assert start_sagas.PLACES <= held < start_sagas.PLACES + 64
    other = connect(desk)
    other.send(start("other"))
    assert await other.hears(1) == [("other", RUNNING)]
    client.reads.set()
    await client.hears(10_000)


async def test_a_large_input_takes_more_than_one_place(
    connect: Connect, world: World, desk: Desk
) -> None:
    desk = await wide_desk(world, desk)
    client = connect(desk)
    client.reads.clear()
    for number in range(100):
        client.send(start(f"saga-{number}", "x" * 260_000))
    await asyncio.sleep(1)
    assert 60 <= client.taken <= 70


async def test_ends_that_are_awaited_are_bounded_as_well(
    connect: Connect, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_sagas, "ENDS", 2)
    client = connect(desk)
    for number in range(4):
        client.send(start(f"saga-{number}", wait=True))
    await asyncio.sleep(10)
    assert client.reports == [("saga-0", RUNNING), ("saga-1", RUNNING)]
    await desk.coordinator.answer("DO a 1", failed(FailureKind.REJECTED))
    assert await client.hears(4) == [
        ("saga-0", RUNNING),
        ("saga-1", RUNNING),
        ("saga-0", COMPENSATED),
        ("saga-2", RUNNING),
    ]


async def test_streams_that_send_too_fast_are_held_back_and_not_refused(
    connect: Connect, world: World, desk: Desk
) -> None:
    desk = await wide_desk(world, desk)
    desk.coordinator.journal.hold()
    clients = [connect(desk) for _ in range(5)]
    for number, client in enumerate(clients):
        client.send(*(start(f"saga-{number}-{one}") for one in range(1_000)))
        client.half_close()
    await asyncio.sleep(0.1)
    desk.coordinator.journal.let_go()
    await asyncio.gather(*(client.stream for client in clients))
    for client in clients:
        assert Counter(state for _, state in client.reports) == {RUNNING: 1_000}


async def test_others_have_their_turn_between_the_sagas_of_a_message(
    connect: Connect, desk: Desk, world: World
) -> None:
    desk = await wide_desk(world, desk)
    client = connect(desk)
    client.send(*(start(f"saga-{number}") for number in range(1_000)))
    most = before = 0
    while (begun := len(desk.coordinator.engine._starts)) < 1_000 and not client.told:
        most, before = max(most, begun - before), begun
        await asyncio.sleep(0)
    assert 0 < most <= 64

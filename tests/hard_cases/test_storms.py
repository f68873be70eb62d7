"""S14: thousands of sagas whose participant comes back."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.core.model import Direction, FailureKind, SagaState
from tests.hard_cases import without
from tests.hard_cases.mesh import NewWorld
from tests.unit.engine.test_gates import LIMIT, Crowd, down
from tests.unit.engine.world import World, failed

SAGAS = 5_000


async def at_first(world: World, sagas: int) -> int:
    """How many calls a participant gets at once that comes back to so many waiting sagas."""
    one = await world.coordinator(max_sagas=10_000)
    await world.start(one, "a", saga_id="first")
    await down(one)
    for number in range(sagas):
        await world.start(one, "a", saga_id=f"saga-{number}")
    one.participants.away.clear()
    await asyncio.sleep(10)
    return one.participants.waiting


async def test_s14_thousands_that_waited_for_a_participant_come_back_smoothly(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = new_world()
    one = await world.coordinator(max_sagas=10_000)
    await world.start(one, "a", saga_id="first")
    await down(one)
    for number in range(SAGAS):
        await world.start(one, "a", saga_id=f"saga-{number}")
    one.participants.away.clear()
    crowd = Crowd(one, seconds=0.05)
    serving = asyncio.create_task(crowd.serve())
    while one.counts.states[SagaState.COMPLETED] < SAGAS + 1:
        await asyncio.sleep(0.05)
    serving.cancel()
    assert crowd.most <= LIMIT
    assert one.counts.attempts["DO UNKNOWN"] == 1, "those that waited have spent nothing"

    assert await at_first(new_world(), sagas=200) < 20
    without.limits_of_calls(monkeypatch)
    assert await at_first(new_world(), sagas=200) > 100


async def compensations_sent_beside_a_crowd(world: World) -> int:
    """How many compensations are sent while a participant answers nothing and new work waits."""
    one = await world.coordinator(max_sagas=10_000)
    await world.start(one, "a", "b", saga_id="undone")
    await one.answer("DO a 1")
    last = await one.sent("DO b 1")
    for number in range(100):
        await world.start(one, "a", saga_id=f"saga-{number}")
    last.answer(failed(FailureKind.REJECTED))
    await asyncio.sleep(1)
    directions = []
    while one.participants.waiting:
        directions.append((await one.participants.next()).attempt.direction)
    return directions.count(Direction.COMPENSATE)


async def test_s14_new_work_never_starves_compensations(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await compensations_sent_beside_a_crowd(new_world()) == 1

    without.reserved_calls(monkeypatch)
    assert await compensations_sent_beside_a_crowd(new_world()) == 0

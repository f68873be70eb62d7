"""Load that cannot be served is refused at the door, before memory or latency runs away."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from coordinator.core.model import SagaState
from coordinator.engine.admission import Limits
from coordinator.engine.errors import Excess, Overloaded
from coordinator.engine.gate import FIRST_WINDOW
from coordinator.journal.base import JournalUnavailable
from tests.unit.engine.world import Coordinator, World, failed, settle

FIRST_DOES = FIRST_WINDOW * 3 // 4
WAIT_SECONDS = Limits().wait_ms / 1_000


async def crowd(world: World, one: Coordinator, sagas: int) -> None:
    for number in range(sagas):
        await world.start(one, "a", saga_id=f"crowd-{number}")


async def refused(world: World, one: Coordinator, saga_id: str = "late") -> Overloaded:
    with pytest.raises(Overloaded) as caught:
        await world.start(one, "a", saga_id=saga_id)
    return caught.value


async def test_starts_are_refused_while_calls_wait_long_for_room_at_their_participant(
    world: World,
) -> None:
    one = await world.coordinator()
    await crowd(world, one, FIRST_DOES + 1)
    await world.start(one, "a", saga_id="soon enough")
    await asyncio.sleep(WAIT_SECONDS + 0.1)
    error = await refused(world, one)
    assert "test" in str(error)
    assert one.counts.refused == {Excess.CALLS: 1}
    for _ in range(FIRST_DOES + 2):
        await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED, "soon enough")
    await world.start(one, "a", saga_id="late")


async def test_a_participant_that_is_away_refuses_nobody(world: World) -> None:
    one = await world.coordinator()
    one.participants.away.add("test")
    await world.start(one, "a")
    await one.answer("DO a 1", failed())
    await settle()
    await crowd(world, one, 20)
    await asyncio.sleep(60)
    await world.start(one, "a", saga_id="late")
    assert one.engine.circuit_of("test.v1.A").waiting == 22


async def test_who_waits_longer_is_told_to_come_back_later(world: World) -> None:
    one = await world.coordinator()
    await crowd(world, one, FIRST_DOES + 1)
    await asyncio.sleep(4)
    soon = await refused(world, one)
    await asyncio.sleep(4)
    later = await refused(world, one)
    await asyncio.sleep(120)
    last = await refused(world, one)
    assert soon.retry_after_ms < later.retry_after_ms < last.retry_after_ms <= 30_000


async def test_more_starts_than_the_disk_keeps_up_with_are_refused(world: World) -> None:
    one = await world.coordinator(max_sagas=10_000)
    one.journal.hold()
    starting = [
        asyncio.create_task(world.start(one, "a", saga_id=f"saga-{number}"))
        for number in range(Limits().starts)
    ]
    await settle()
    await refused(world, one)
    assert one.counts.refused == {Excess.STARTS: 1}
    one.journal.let_go()
    await asyncio.gather(*starting)
    await world.start(one, "a", saga_id="late")


async def test_a_full_memory_refuses(world: World) -> None:
    one = await world.coordinator(max_sagas=3)
    await crowd(world, one, 3)
    error = await refused(world, one)
    assert 500 <= error.retry_after_ms < 1_500
    assert one.counts.refused == {Excess.SAGAS: 1}
    await one.answer("DO a 1")
    await settle()
    await world.start(one, "a", saga_id="late")


async def test_a_flood_is_logged_once_a_second_with_its_size(world: World) -> None:
    one = await world.coordinator(max_sagas=1)
    await crowd(world, one, 1)
    with capture_logs() as logs:
        for _ in range(100):
            await refused(world, one)
        await asyncio.sleep(1)
        await refused(world, one)
    lines = [line for line in logs if line["event"] == "sagas.shed"]
    assert [line["refused"] for line in lines] == [1, 100]


async def test_a_journal_that_is_away_is_not_taken_for_too_much_to_do(world: World) -> None:
    one = await world.coordinator(max_sagas=1)
    await crowd(world, one, 1)
    one.journal.cut()
    with pytest.raises(JournalUnavailable):
        await world.start(one, "a", saga_id="late")

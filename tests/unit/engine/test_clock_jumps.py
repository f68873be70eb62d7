"""The database's clock is set while sagas run: nothing is judged by the new time for one lease."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from coordinator.core.model import SagaState
from coordinator.core.retry import longest_wait_ms
from coordinator.engine.database_time import DatabaseTime
from tests.builders import POLICY, definition
from tests.unit.engine.world import EPOCH_MS, World, failed, now, settle

LEASE_MS = 3_000
HOUR_MS = 3_600_000


async def test_a_jump_is_alarmed_and_believed_when_it_lasts_for_a_lease(world: World) -> None:
    one = await world.coordinator()
    world.jump_ms = HOUR_MS
    await asyncio.sleep(1.5)
    assert one.counts.clock_jumps == 1
    assert one.clock.now_ms() == pytest.approx(EPOCH_MS + 1_500, abs=10)
    await asyncio.sleep(4)
    assert one.counts.clock_jumps == 1
    assert one.clock.now_ms() == pytest.approx(EPOCH_MS + HOUR_MS + 5_500, abs=10)


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
async def test_a_jump_that_is_taken_back_changes_nothing(world: World, jump_ms: int) -> None:
    one = await world.coordinator()
    await world.start(one, story=replace(definition("a"), deadline_ms=60_000))
    world.jump_ms = jump_ms
    await asyncio.sleep(1.1)
    world.jump_ms = 0
    await asyncio.sleep(50)
    assert one.counts.clock_jumps == 1
    assert (await world.saga()).state is SagaState.RUNNING
    await world.until(SagaState.COMPENSATING)
    assert now() == pytest.approx(60, abs=0.1)


async def test_a_small_correction_is_taken_over_at_once(world: World) -> None:
    one = await world.coordinator()
    world.jump_ms = -2_000
    await asyncio.sleep(1.5)
    assert one.counts.clock_jumps == 0
    assert one.clock.now_ms() == pytest.approx(EPOCH_MS - 500, abs=10)


async def test_nobodys_sagas_are_claimed_for_one_lease_after_a_jump(world: World) -> None:
    """All leases have run out at that moment, though everybody lives."""
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a")
    await one.sent("DO a 1")
    world.jump_ms = HOUR_MS
    jumped = now()
    await asyncio.sleep(2.9)
    assert (one.counts.sagas_claimed, two.counts.sagas_claimed) == (0, 0)
    while not one.participants.waiting + two.participants.waiting:
        await asyncio.sleep(0.01)
    assert LEASE_MS / 1_000 <= now() - jumped < 6


async def test_a_retry_does_not_wait_for_the_time_by_which_the_clock_was_set_back(
    world: World,
) -> None:
    one = await world.coordinator("one")
    await world.start(one, "a")
    await one.answer("DO a 1", failed())
    await settle()
    await one.shut_down()
    world.jump_ms = -HOUR_MS
    two = await world.coordinator("two")
    before = now()
    await two.answer("DO a 2")
    assert now() - before <= longest_wait_ms(POLICY) / 1_000
    await world.until(SagaState.COMPLETED)


async def test_an_answer_that_took_long_is_no_jump(world: World) -> None:
    one = await world.coordinator()
    time = DatabaseTime(one.clock, one.counts, freeze_ms=LEASE_MS)
    time.hear(world.now_ms(), asked_at_ms=one.clock.monotonic_ms())
    asked_at_ms, told_ms = one.clock.monotonic_ms(), world.now_ms()
    await asyncio.sleep(8)
    time.hear(told_ms, asked_at_ms=asked_at_ms)
    assert one.counts.clock_jumps == 0
    assert time.steady

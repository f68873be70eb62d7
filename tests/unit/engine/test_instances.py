"""An instance that crashes, freezes or is told to stop: its sagas go on elsewhere, or again."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.core.model import SagaState
from coordinator.engine.errors import Draining
from coordinator.participants.base import Done
from tests.unit.engine.world import World, failed, now, settle


async def test_a_restarted_coordinator_performs_what_was_outstanding_as_written(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    await one.answer("DO a 1")
    before = (await one.sent("DO b 1")).attempt
    await one.kill()
    again = await world.coordinator()
    after = (await again.sent("DO b 1")).attempt
    assert (after.request, after.attempt) == (before.request, before.attempt)


async def test_a_restarted_coordinator_keeps_to_a_backoff_that_it_did_not_begin(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1", failed(retry_after_ms=20_000))
    due = now() + 20
    await settle()
    await one.kill()
    again = await world.coordinator()
    await again.sent("DO a 2")
    assert now() == pytest.approx(due, abs=0.01)


async def test_a_dead_instances_sagas_run_elsewhere_once_its_lease_is_over(world: World) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a")
    await one.sent("DO a 1")
    await one.kill()
    killed = now()
    await two.sent("DO a 1")
    assert 2 < now() - killed < 5


async def test_a_live_instances_sagas_are_left_alone(world: World) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a")
    await asyncio.sleep(30)
    assert (one.participants.waiting, two.participants.waiting) == (1, 0)


async def test_an_instance_that_lost_its_lease_writes_nothing_and_rejoins(world: World) -> None:
    one = await world.coordinator("one")
    await world.start(one, "a", "b")
    sent = await one.sent("DO a 1")
    one.journal.cut()  # as if it were frozen: no heartbeat arrives
    two = await world.coordinator("two")
    taken = await two.sent("DO a 1")
    assert not one.engine.ready
    one.journal.mend()
    sent.answer(Done(b"stale"))
    taken.answer(Done(b"fresh"))
    await two.answer("DO b 1")
    saga = await world.until(SagaState.COMPLETED)
    assert saga.steps[0].response == b"fresh"
    await one.ready()
    assert one.participants.waiting == 0


async def test_what_comes_due_behind_a_closed_fence_is_sent_when_the_lease_was_kept(
    world: World,
) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    one.engine._ownership._fence.close()
    await one.answer("DO a 1", failed())
    await one.sent("DO a 2")


async def test_a_drained_instance_hears_what_is_in_flight_and_gives_the_rest_away_at_once(
    world: World,
) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a", "b")
    sent = await one.sent("DO a 1")
    stopping = asyncio.create_task(one.shut_down())
    await settle()
    with pytest.raises(Draining):
        await world.start(one, "a", saga_id="saga-2")
    sent.answer(Done(b"a-ok"))
    await stopping
    assert one.participants.waiting == 0
    released = now()
    await two.sent("DO b 1")
    assert now() - released < 1.1


async def test_a_drain_waits_no_longer_than_others_would_wait_for_the_dead(world: World) -> None:
    one = await world.coordinator("one")
    await world.start(one, "a")
    await one.sent("DO a 1")
    before = now()
    await one.shut_down()
    assert now() - before == pytest.approx(3, abs=0.1)


async def test_a_saga_that_keeps_stopping_its_owners_is_isolated(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    for _ in range(6):
        await one.kill()
        one = await world.coordinator()
        await settle()
    saga = await world.until(SagaState.STUCK)
    assert saga.stuck is not None
    assert saga.stuck.reason == "SAGA_POISONOUS"

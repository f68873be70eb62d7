"""STUCK on the way forward, and what a deadline does to a saga that waits."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from coordinator.core.model import Definition, FailureKind, SagaState
from coordinator.journal.verbs import VerbKind, VerbState
from tests.builders import POLICY, definition
from tests.unit.engine.world import Coordinator, World, failed

MISCONFIGURED = failed(FailureKind.MISCONFIGURED)


def patient(*steps: str, deadline_ms: int | None = None) -> Definition:
    story = definition(*steps)
    policy = replace(POLICY, max_attempts=10, max_interval_ms=2_000)
    chosen = tuple(replace(step, retry=policy) for step in story.steps)
    return replace(story, steps=chosen, deadline_ms=deadline_ms)


async def stuck_forward(world: World, one: Coordinator, *, deadline_ms: int | None = None) -> None:
    await world.start(one, story=patient("a", "b", deadline_ms=deadline_ms))
    await one.answer("DO a 1")
    for attempt in (1, 2, 3):
        await one.answer(f"DO b {attempt}", MISCONFIGURED)
    saga = await world.until(SagaState.STUCK)
    assert saga.failure is None


async def test_a_saga_whose_participant_is_mended_goes_on_where_it_halted(world: World) -> None:
    one = await world.coordinator()
    await stuck_forward(world, one)
    await asyncio.sleep(3_600)
    assert one.participants.waiting == 0
    await world.verb(one, VerbKind.RETRY)
    await one.answer("DO b 4")
    await world.until(SagaState.COMPLETED)


async def test_a_saga_halted_on_its_way_forward_is_cancelled_and_undone(world: World) -> None:
    one = await world.coordinator()
    await stuck_forward(world, one)
    outcome = await world.verb(one, VerbKind.CANCEL)
    assert outcome.state is VerbState.ACCEPTED
    await one.answer("COMPENSATE b 1")
    await one.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)


async def test_a_deadline_leaves_a_halted_saga_to_its_operator_and_aborts_it_when_it_goes_on(
    world: World,
) -> None:
    one = await world.coordinator()
    await stuck_forward(world, one, deadline_ms=20_000)
    await asyncio.sleep(60)
    assert (await world.saga()).state is SagaState.STUCK
    await world.verb(one, VerbKind.RETRY)
    saga = await world.until(SagaState.COMPENSATING)
    assert saga.failure is not None
    assert saga.failure.reason == "SAGA_DEADLINE_EXCEEDED"


async def test_a_deadline_also_aborts_a_saga_that_waits_for_a_participant_that_is_away(
    world: World,
) -> None:
    one = await world.coordinator()
    one.participants.away.add("test")
    await world.start(one, story=patient("a", deadline_ms=20_000))
    await one.answer("DO a 1", failed())
    await asyncio.sleep(15)
    assert one.participants.waiting == 0
    await world.until(SagaState.COMPENSATING)
    one.participants.away.clear()
    await one.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)
    assert one.participants.waiting == 0

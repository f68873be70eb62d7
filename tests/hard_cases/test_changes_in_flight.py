"""S7: definitions and contracts that change while sagas run."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from msgspec.structs import replace

from coordinator.core.model import Direction, SagaState
from coordinator.participants import outcome
from coordinator.participants.base import Done, Failed
from mesh.errors import Refusal
from tests.builders import definition
from tests.hard_cases import without
from tests.hard_cases.mesh import NewWorld
from tests.unit.engine.world import Coordinator, World, failed


async def step_after_a_change(world: World) -> str:
    """What comes after step a, when the definition has got a new second step meanwhile."""
    one = await world.coordinator()
    before, after = definition("a", "b"), definition("a", "inserted", "b")
    await world.start(one, story=replace(before, hash="before"))
    await one.sent("DO a 1")
    await one.kill()
    world.definitions.by_hash["after"] = replace(after, hash="after")
    two = await world.coordinator()
    await two.answer("DO a 1")
    return (await two.participants.next()).attempt.step


async def test_s07_a_saga_goes_on_with_the_version_it_began_with_also_after_a_restart(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await step_after_a_change(new_world()) == "b"

    without.pinned_definitions(monkeypatch)
    assert await step_after_a_change(new_world()) == "inserted"


def no_longer_understood() -> Failed:
    """What a participant answers that does not know the request any more."""
    refusal = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "items: required", None)
    return Failed(outcome.failure_of(refusal, Direction.DO, proven=False))


async def undone_after_a_change(world: World) -> list[str]:
    """Which steps are undone when a participant's contract changed under an attempt of b."""
    one = await world.coordinator()
    await world.start(one, "a", "b")
    await one.answer("DO a 1")
    await one.answer("DO b 1", failed())  # it may have happened
    await one.answer("DO b 2", no_longer_understood())
    undone = [await undo_next(one)]
    while (await settled(world)) is not SagaState.COMPENSATED:
        undone.append(await undo_next(one))
    return undone


async def undo_next(one: Coordinator) -> str:
    sent = await one.participants.next()
    assert sent.attempt.direction is Direction.COMPENSATE
    sent.answer(Done(b""))
    return sent.attempt.step


async def settled(world: World) -> SagaState:
    await asyncio.sleep(0.1)
    return (await world.saga()).state


async def test_s07b_a_changed_contract_leaves_nothing_half_done(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await undone_after_a_change(new_world()) == ["b", "a"]

    without.unproven_refusals(monkeypatch)
    assert await undone_after_a_change(new_world()) == ["a"], "b may have happened"

"""S4, S5, S8 and S9: starts that are doubled, owners that are stale, clocks that differ, poison."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from coordinator.core.model import SagaState
from coordinator.engine import loader
from coordinator.engine.clock import LoopClock
from coordinator.engine.database_time import DatabaseTime
from coordinator.participants.base import Done
from mesh.errors import AlreadyExists
from protos.saga.v1 import saga_pb2
from tests.builders import definition
from tests.hard_cases import without
from tests.hard_cases.mesh import NewWorld
from tests.unit.api.desk import Desk, KnownDefinitions, compiled
from tests.unit.engine import world as worlds
from tests.unit.engine.world import Coordinator, World


async def desks(world: World) -> tuple[Desk, Desk]:
    """Two coordinators with one set of definitions."""
    known = KnownDefinitions()
    one, two = [Desk(world, await world.coordinator(name), known) for name in ("one", "two")]
    one.know(compiled("story", "a"))
    return one, two


async def sent_by(coordinator: Coordinator) -> int:
    """How many calls it has sent that nobody took, once everything has settled."""
    await asyncio.sleep(0.1)
    return coordinator.participants.waiting


async def test_s04_the_same_start_again_is_the_same_saga_running_or_finished(world: World) -> None:
    one, two = await desks(world)
    first = await one.start()
    assert (await two.start()).create_time == first.create_time
    await one.coordinator.answer("DO a 1")
    await world.until(SagaState.COMPLETED)

    again = await two.start()

    assert again.state == saga_pb2.SAGA_STATE_COMPLETED
    assert again.create_time == first.create_time
    assert await sent_by(one.coordinator) + await sent_by(two.coordinator) == 0


async def test_s04_a_start_with_another_body_is_refused_running_or_finished(world: World) -> None:
    one, two = await desks(world)
    await one.start()
    with pytest.raises(AlreadyExists, match="saga-1"):
        await two.start(value="other")
    await one.coordinator.answer("DO a 1")
    await world.until(SagaState.COMPLETED)
    with pytest.raises(AlreadyExists, match="saga-1"):
        await one.start(value="other")


async def start_at_both(world: World, saga_id: str, one: Desk, two: Desk) -> int:
    """How often the first step of a saga is sent that is started at two coordinators at once."""
    await asyncio.gather(one.start(saga_id), two.start(saga_id))
    return await sent_by(one.coordinator) + await sent_by(two.coordinator)


async def test_s04_a_saga_that_is_started_at_two_coordinators_at_once_runs_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = await desks(world)
    assert await start_at_both(world, "saga-1", one, two) == 1
    await (one if one.coordinator.participants.waiting else two).coordinator.answer("DO a 1")

    without.owners_of_starts(monkeypatch)
    assert await start_at_both(world, "saga-2", one, two) == 2


async def answer_a_stale_owner(world: World) -> int:
    """What an answer adds to a saga when who hears it has lost its lease meanwhile."""
    one = await world.coordinator("one")
    await world.start(one, "a", "b")
    sent = await one.sent("DO a 1")
    one.journal.cut()  # paused, or cut off: its lease runs out
    two = await world.coordinator("two")
    await two.sent("DO a 1")
    before = (await world.saga()).revision
    sent.answer(Done(b"stale"))
    await asyncio.sleep(0.001)
    one.journal.mend()
    await asyncio.sleep(0.001)
    return (await world.saga()).revision - before


async def test_s05_a_stale_owner_can_send_and_never_decide(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await answer_a_stale_owner(new_world()) == 0

    without.epochs(monkeypatch)
    assert await answer_a_stale_owner(new_world()) == 1


class Skewed(LoopClock):
    """The clock of a machine that was started at another time."""

    skew_ms = 0

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, lambda: loop.time() + self.skew_ms / 1_000)


async def seconds_to_the_deadline(world: World, clock: type[Skewed]) -> float:
    """When a saga with a deadline of a minute is aborted, though its owner died on the way."""
    begin = asyncio.get_running_loop().time()
    clock.skew_ms = 0
    one = await world.coordinator("one")
    await world.start(one, story=replace(definition("a"), deadline_ms=60_000))
    await one.sent("DO a 1")
    await one.kill()
    clock.skew_ms = 50_000_000
    await world.coordinator("two")
    while (await world.saga()).state is SagaState.RUNNING:
        await asyncio.sleep(0.2)
    return asyncio.get_running_loop().time() - begin


async def test_s08_a_deadline_is_kept_by_an_owner_whose_clock_is_hours_apart(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worlds, "LoopClock", Skewed)
    assert await seconds_to_the_deadline(new_world(), Skewed) == pytest.approx(60, abs=1)

    monkeypatch.setattr(Skewed, "synchronise", lambda self, now_ms: None)
    assert await seconds_to_the_deadline(new_world(), Skewed) < 10


async def jump_for_a_moment(world: World, patch: pytest.MonkeyPatch) -> SagaState:
    """Where a saga with a deadline is after the database's clock was an hour ahead for 2 s."""
    one = await world.coordinator()
    await world.start(one, story=replace(definition("a"), deadline_ms=60_000))
    await one.sent("DO a 1")
    with patch.context() as ahead:
        ahead.setattr(world.store, "_now_ms", lambda: world.now_ms() + 3_600_000)
        await asyncio.sleep(2)
    await asyncio.sleep(10)
    return (await world.saga()).state


async def test_s08_a_database_clock_that_jumps_for_a_moment_ends_no_saga(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await jump_for_a_moment(new_world(), monkeypatch) is SagaState.RUNNING

    def believe(self: DatabaseTime, database_now_ms: int, *, asked_at_ms: int) -> None:
        self._believe(database_now_ms)

    monkeypatch.setattr(DatabaseTime, "hear", believe)
    assert await jump_for_a_moment(new_world(), monkeypatch) is SagaState.COMPENSATING


POISON, CRASHES = "saga-5", 12


async def crash_by_poison(world: World, name: str) -> dict[str, SagaState]:
    """Where twelve sagas are when one of them has killed every coordinator that sent its call."""
    one = await world.coordinator(name)
    for number in range(12):
        await world.start(one, "a", saga_id=f"saga-{number}")
    for _ in range(CRASHES):
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(serve_until_poison(one))
            await asyncio.wait({serving}, timeout=30)
            serving.cancel()
        await one.kill()
        one = await world.coordinator(name)
    return {f"saga-{n}": (await world.saga(f"saga-{n}")).state for n in range(12)}


async def serve_until_poison(coordinator: Coordinator) -> None:
    while True:
        sent = await coordinator.participants.next()
        if sent.attempt.saga_id == POISON:
            return
        await asyncio.sleep(0.1)  # so that a crash meets neighbours in flight, too
        sent.answer(Done(b"ok"))


async def test_s09_a_saga_that_kills_its_owners_is_isolated_and_harms_no_neighbour(
    world: World,
) -> None:
    states = await crash_by_poison(world, "one")

    assert states.pop(POISON) is SagaState.STUCK
    assert set(states.values()) == {SagaState.COMPLETED}


async def test_s09_without_a_count_of_crashes_it_kills_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "poisonous", lambda stored: False)
    states = await crash_by_poison(world, "one")

    assert states[POISON] is SagaState.RUNNING

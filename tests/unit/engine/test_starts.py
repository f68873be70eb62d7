"""Starting sagas: heard once, of what is on disk, also when that takes long; one id is one saga."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from coordinator.core.model import SagaState
from coordinator.core.saga import Saga
from coordinator.engine.errors import Draining, Overloaded
from coordinator.engine.ports import NewSaga
from coordinator.journal.base import JournalUnavailable, RevisionConflict
from tests.builders import definition
from tests.unit.engine.world import Coordinator, World, settle


class Callers:
    """What those hear who start sagas."""

    def __init__(self, world: World, one: Coordinator) -> None:
        self.one = one
        self.story = world.definitions.by_hash["a"] = replace(definition("a"), hash="a")
        self.heard: list[str] = []

    def begin(self, saga_id: str = "saga-1") -> None:
        new = NewSaga(saga_id=saga_id, definition=self.story, input_bytes=b"in", keys={})
        told = len(self.heard)
        self.one.engine.begin(new, self._begun)
        assert len(self.heard) == told, "told before begin has returned"

    def _begun(self, outcome: Saga | Exception) -> None:
        self.heard.append(type(outcome).__name__)

    async def until(self, count: int) -> list[str]:
        while len(self.heard) < count:
            await asyncio.sleep(0.001)
        return self.heard


@pytest.fixture
async def callers(world: World) -> Callers:
    return Callers(world, await world.coordinator(max_sagas=10))


async def test_a_start_is_told_once_it_is_on_disk(callers: Callers) -> None:
    callers.one.journal.hold()
    callers.begin()
    await asyncio.sleep(1)
    assert callers.heard == []
    assert callers.one.participants.waiting == 0
    callers.one.journal.let_go()
    assert await callers.until(1) == ["Saga"]
    await callers.one.sent("DO a 1")


async def test_starts_of_one_id_are_told_one_after_the_other(callers: Callers) -> None:
    for _ in range(3):
        callers.begin()
    assert await callers.until(3) == ["Saga", "RevisionConflict", "RevisionConflict"]
    await callers.one.sent("DO a 1")
    assert callers.one.participants.waiting == 0


async def test_a_start_that_takes_too_long_is_told_so_and_goes_on(callers: Callers) -> None:
    callers.one.journal.hold()
    callers.begin()
    callers.begin()
    await asyncio.sleep(4.9)
    assert callers.heard == []
    await asyncio.sleep(0.2)
    callers.begin()  # nobody waits behind one of which nothing is known
    assert await callers.until(3) == ["JournalUnavailable"] * 3
    callers.one.journal.let_go()
    await callers.one.sent("DO a 1")
    assert len(callers.heard) == 3


async def test_each_start_has_its_own_time(callers: Callers) -> None:
    callers.one.journal.hold()
    callers.begin("saga-1")
    await asyncio.sleep(2)
    callers.begin("saga-2")
    await asyncio.sleep(3.2)
    assert callers.heard == ["JournalUnavailable"]
    await asyncio.sleep(2)
    assert callers.heard == ["JournalUnavailable"] * 2


async def test_what_is_refused_at_the_door_is_told_too(world: World, callers: Callers) -> None:
    for number in range(11):
        callers.begin(f"saga-{number}")
    assert await callers.until(11) == [Overloaded.__name__] + ["Saga"] * 10
    await callers.one.engine.drain()
    callers.begin("saga-12")
    assert (await callers.until(12))[-1] == Draining.__name__


async def test_a_bug_that_one_start_has_met_is_told_to_its_caller_alone(callers: Callers) -> None:
    def broken(input_bytes: bytes, responses: Mapping[str, bytes], /) -> bytes:
        raise ZeroDivisionError

    honest = callers.story
    callers.story = replace(honest, steps=(replace(honest.steps[0], build=broken),))
    callers.begin("saga-1")
    callers.story = honest
    callers.begin("saga-2")
    assert await callers.until(2) == ["ZeroDivisionError", "Saga"]


async def test_who_starts_under_a_lease_that_is_lost_is_told_that_it_is_unavailable(
    callers: Callers,
) -> None:
    one = callers.one
    one.journal.hold()
    callers.begin()
    await one.journal.acquire_lease("one", 3_000)  # as another process would
    one.journal.let_go()
    assert await callers.until(1) == [JournalUnavailable.__name__]


# --- one id, one saga ----------------------------------------------------------------


async def test_the_same_id_twice_is_one_saga(world: World) -> None:
    one = await world.coordinator()
    first = asyncio.create_task(world.start(one, "a"))
    second = asyncio.create_task(world.start(one, "a"))
    done = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(result).__name__ for result in done] == ["Saga", "RevisionConflict"]
    await one.sent("DO a 1")
    await settle()
    assert one.participants.waiting == 0


async def test_the_id_of_a_finished_saga_is_taken(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1")
    await world.until(SagaState.COMPLETED)
    with pytest.raises(RevisionConflict):
        await world.start(one, "a")


async def test_an_id_that_another_instance_has_started_is_taken(world: World) -> None:
    one, two = await world.coordinator("one"), await world.coordinator("two")
    await world.start(one, "a")
    with pytest.raises(RevisionConflict):
        await world.start(two, "a")


async def test_no_more_sagas_are_started_than_may_be_held(world: World) -> None:
    one = await world.coordinator(max_sagas=1)
    await world.start(one, "a")
    with pytest.raises(Overloaded):
        await world.start(one, "a", saga_id="saga-2")

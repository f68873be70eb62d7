"""S16: what is promised to those who follow sagas, in place of an outbox."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from coordinator.core.model import FailureKind, SagaState
from coordinator.participants.base import Done
from protos.saga.v1 import saga_pb2
from tests.hard_cases import without
from tests.hard_cases.mesh import NewWorld
from tests.unit.api.desk import Desk, KnownDefinitions, caller, compiled
from tests.unit.engine.world import World, failed


async def watched(desk: Desk, saga_id: str, after: int = 0) -> list[saga_pb2.SagaEvent]:
    """Every event that a consumer is told, until the stream ends with the saga."""
    request = saga_pb2.WatchSagaRequest(saga_id=saga_id, after_revision=after)
    return [told.event async for told in desk.sagas.WatchSaga(request, caller())]


async def listed(desk: Desk, saga_id: str) -> list[saga_pb2.SagaEvent]:
    """Every event, page by page."""
    request = saga_pb2.ListSagaEventsRequest(saga_id=saga_id, page_size=2)
    events: list[saga_pb2.SagaEvent] = []
    while True:
        page = await desk.sagas.ListSagaEvents(request, caller())
        events += page.events
        if not page.next_page_token:
            return events
        request.page_token = page.next_page_token


def revisions(events: Sequence[saga_pb2.SagaEvent]) -> list[int]:
    return [event.revision for event in events]


async def test_s16_who_follows_a_saga_hears_all_of_it_in_order_also_across_a_takeover(
    world: World,
) -> None:
    known = KnownDefinitions()
    one = Desk(world, await world.coordinator("one"), known)
    one.know(compiled("story", "a", "b"))
    await one.start()
    await one.coordinator.answer("DO a 1")
    two = Desk(world, await world.coordinator("two"), known)
    watching = asyncio.create_task(watched(two, "saga-1"))
    await one.coordinator.sent("DO b 1")
    await one.coordinator.kill()
    await two.coordinator.answer("DO b 1", failed(FailureKind.REJECTED))
    await two.coordinator.answer("COMPENSATE a 1")
    await world.until(SagaState.COMPENSATED)

    events = await watching

    assert revisions(events) == list(range(1, len(events) + 1))
    kinds = [(event.kind, event.step) for event in events]
    done = kinds.index((saga_pb2.SAGA_EVENT_KIND_STEP_DONE, "a"))
    assert done < kinds.index((saga_pb2.SAGA_EVENT_KIND_STEP_COMPENSATED, "a"))
    assert await listed(two, "saga-1") == events
    for revision in range(len(events)):
        assert await watched(two, "saga-1", after=revision) == events[revision:]


async def told_done(world: World) -> int:
    """How often a consumer hears that a step is done whose owner was stale when it heard so."""
    one = await world.coordinator("one")
    await world.start(one, "a", "b")
    stale = await one.sent("DO a 1")
    one.journal.cut()
    two = await world.coordinator("two")
    await two.answer("DO a 1")
    await two.sent("DO b 1")
    stale.answer(Done(b"stale"))
    await asyncio.sleep(0.001)
    one.journal.mend()
    await asyncio.sleep(0.001)
    entries = await world.reader.entries("saga-1", 1, 10)
    return sum(getattr(entry.event, "step", "") == "a" for entry in entries)


async def test_s16_a_consumer_hears_of_each_step_once_whoever_owns_the_saga(
    new_world: NewWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await told_done(new_world()) == 1

    without.epochs(monkeypatch)
    without.compare_and_set(monkeypatch)
    assert await told_done(new_world()) == 2

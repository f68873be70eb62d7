"""StartSaga with `wait`: one call that answers when the saga has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from coordinator.core.model import FailureKind, SagaState
from coordinator.engine.ends import EndsElsewhere
from mesh.errors import InvalidRequest, Retry
from protos.saga.v1 import saga_pb2 as pb
from tests.unit.api.desk import Desk, caller, text
from tests.unit.engine.world import World, failed


@pytest.fixture
async def other(world: World, desk: Desk) -> AsyncIterator[Desk]:
    """A second coordinator on the same journal, which looks for what ends at the first."""
    other = Desk(world, await world.coordinator("two"), desk.definitions)
    looking = asyncio.create_task(EndsElsewhere(world.reader, other.coordinator.engine.ends).run())
    yield other
    looking.cancel()


def now() -> float:
    return asyncio.get_running_loop().time()


async def start_and_wait(
    desk: Desk, saga_id: str = "saga-1", seconds: float | None = None
) -> pb.Saga:
    request = pb.StartSagaRequest(saga_id=saga_id, definition="story", input=text(), wait=True)
    return (await desk.sagas.StartSaga(request, caller(seconds))).saga


async def test_the_answer_comes_when_the_saga_has_ended(desk: Desk) -> None:
    waiting = asyncio.create_task(start_and_wait(desk))
    await desk.coordinator.answer("DO a 1")
    await asyncio.sleep(5)
    assert not waiting.done()
    await desk.coordinator.answer("DO b 1")
    saga = await waiting
    assert (saga.state, saga.revision) == (pb.SAGA_STATE_COMPLETED, 3)
    assert [step.state for step in saga.steps] == [pb.STEP_STATE_DONE] * 2
    assert saga == await desk.get()


async def test_a_saga_that_was_undone_has_ended(desk: Desk) -> None:
    waiting = asyncio.create_task(start_and_wait(desk))
    await desk.coordinator.answer("DO a 1", failed(FailureKind.REJECTED))
    saga = await waiting
    assert saga.state == pb.SAGA_STATE_COMPENSATED
    assert saga.failure.step == "a"


async def test_a_saga_that_is_stuck_is_waited_for_no_longer(desk: Desk) -> None:
    waiting = asyncio.create_task(start_and_wait(desk))
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1", failed(FailureKind.REJECTED))
    for attempt in (1, 2, 3):
        await desk.coordinator.answer(f"COMPENSATE a {attempt}", failed(FailureKind.REFUSED))
    assert (await waiting).state == pb.SAGA_STATE_STUCK


@pytest.mark.parametrize(("deadline", "patience"), [(None, 30.0), (2.0, 1.8), (600.0, 599.8)])
async def test_before_the_deadline_the_answer_is_the_saga_as_it_is(
    desk: Desk, deadline: float | None, patience: float
) -> None:
    begun = now()
    waiting = asyncio.create_task(start_and_wait(desk, seconds=deadline))
    await desk.coordinator.answer("DO a 1")
    saga = await waiting
    assert now() - begun == pytest.approx(patience, abs=0.1)
    assert (saga.state, saga.revision) == (pb.SAGA_STATE_RUNNING, 2)


async def test_a_deadline_that_is_too_near_to_wait_gets_the_saga_at_once(desk: Desk) -> None:
    assert (await start_and_wait(desk, seconds=0.1)).state == pb.SAGA_STATE_RUNNING


async def test_the_same_request_again_waits_as_well(desk: Desk) -> None:
    waiting = [asyncio.create_task(start_and_wait(desk)) for _ in range(2)]
    await desk.coordinator.answer("DO a 1")
    waiting.append(asyncio.create_task(start_and_wait(desk)))
    await asyncio.sleep(1)
    assert [again.done() for again in waiting] == [False] * 3
    await desk.coordinator.answer("DO b 1")
    states = [saga.state for saga in await asyncio.gather(*waiting)]
    assert states == [pb.SAGA_STATE_COMPLETED] * 3
    assert (await start_and_wait(desk)).state == pb.SAGA_STATE_COMPLETED
    assert await desk.list_ids() == ["saga-1"]


async def test_a_saga_that_ends_at_another_instance_is_heard_of(desk: Desk, other: Desk) -> None:
    await desk.start()
    waiting = asyncio.create_task(start_and_wait(other))
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.answer("DO b 1")
    await desk.world.until(SagaState.COMPLETED)
    async with asyncio.timeout(1):
        assert await waiting == await other.get()


async def test_a_saga_that_another_instance_takes_over_is_heard_of(desk: Desk, other: Desk) -> None:
    waiting = asyncio.create_task(start_and_wait(other, seconds=60))
    await other.coordinator.sent("DO a 1")
    other.coordinator.journal.cut()  # as if it were frozen: no heartbeat arrives
    await desk.coordinator.answer("DO a 1")
    other.coordinator.journal.mend()
    await desk.coordinator.answer("DO b 1")
    assert (await waiting).state == pb.SAGA_STATE_COMPLETED


async def test_a_client_that_goes_away_while_it_waits_changes_nothing(desk: Desk) -> None:
    waiting = asyncio.create_task(start_and_wait(desk))
    await desk.coordinator.answer("DO a 1")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(desk.coordinator.engine.ends) == 0
    await desk.coordinator.answer("DO b 1")
    await desk.world.until(SagaState.COMPLETED)


async def test_what_is_not_started_is_refused_at_once(desk: Desk) -> None:
    with pytest.raises(InvalidRequest):
        await start_and_wait(desk, "no id")
    desk.coordinator.journal.cut()
    with pytest.raises(Retry):
        await start_and_wait(desk)


async def test_a_drain_answers_who_waits_with_the_saga_as_it_is(desk: Desk) -> None:
    begun = now()
    waiting = asyncio.create_task(start_and_wait(desk))
    await desk.coordinator.answer("DO a 1")
    await desk.coordinator.sent("DO b 1")
    desk.sagas.drain()
    saga = await waiting
    assert (saga.state, saga.revision) == (pb.SAGA_STATE_RUNNING, 2)
    assert (await start_and_wait(desk)).state == pb.SAGA_STATE_RUNNING
    assert now() - begun < 1

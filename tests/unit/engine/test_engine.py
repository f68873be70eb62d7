"""A saga's way to its end and back, and how each of its steps is asked."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from coordinator.core.model import FailureKind, RequestNotBuildable, SagaState
from coordinator.participants.base import Done
from tests.builders import definition
from tests.unit.engine.world import EPOCH_MS, World, failed, now


async def test_a_saga_runs_step_by_step_to_its_end(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    await one.answer("DO a 1")
    await one.answer("DO b 1")
    saga = await world.until(SagaState.COMPLETED)
    assert saga.revision == 3
    assert one.engine.sagas == 0
    assert one.counts.attempts == {"DO DONE": 2}
    assert one.counts.states == {SagaState.COMPLETED: 1}


async def test_a_rejection_undoes_what_was_done(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    await one.answer("DO a 1")
    await one.answer("DO b 1", failed(FailureKind.REJECTED))
    await one.answer("COMPENSATE a 1")
    saga = await world.until(SagaState.COMPENSATED)
    assert saga.failure is not None
    assert (saga.failure.reason, saga.failure.step) == ("TOLD", "b")


async def test_an_attempt_says_what_a_participant_must_know(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    attempt = (await one.sent("DO a 1")).attempt
    assert (attempt.saga_id, attempt.service) == ("saga-1", "test.v1.A")
    assert attempt.timeout_ms == 30_000
    assert attempt.not_after_ms == pytest.approx(EPOCH_MS + 30_000 + 300_000, abs=100)


async def test_a_compensation_links_to_the_span_of_its_do_and_never_expires(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    await one.answer("DO a 1", Done(b"a-ok", "00000000000000aa"))
    await one.answer("DO b 1", failed(FailureKind.REJECTED))
    attempt = (await one.sent("COMPENSATE a 1")).attempt
    assert (attempt.link_span_id, attempt.not_after_ms) == ("00000000000000aa", None)


async def test_an_unclear_answer_is_tried_again_after_a_wait(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1", failed())
    before = now()
    await one.answer("DO a 2")
    assert now() - before == pytest.approx(0.5, abs=0.01)
    await world.until(SagaState.COMPLETED)


async def test_a_participant_that_says_when_is_asked_again_then(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a")
    await one.answer("DO a 1", failed(retry_after_ms=7_000))
    before = now()
    await one.sent("DO a 2")
    assert now() - before == pytest.approx(7, abs=0.01)


async def test_an_answer_heard_twice_counts_once(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, "a", "b")
    sent = await one.sent("DO a 1")
    sent.answer(Done(b"a-ok"))
    sent.answer(Done(b"a-ok"))
    await one.answer("DO b 1")
    assert (await world.until(SagaState.COMPLETED)).revision == 3


async def test_a_request_that_cannot_be_built_refuses_the_start(world: World) -> None:
    one = await world.coordinator()
    with pytest.raises(RequestNotBuildable):
        await world.start(one, story=definition("a", broken=frozenset("a")))
    assert await world.reader.load("saga-1") is None


async def test_a_later_request_that_cannot_be_built_undoes_the_rest(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, story=definition("a", "b", broken=frozenset("b")))
    await one.answer("DO a 1")
    await one.answer("COMPENSATE a 1")
    saga = await world.until(SagaState.COMPENSATED)
    assert saga.failure is not None
    assert saga.failure.reason == "REQUEST_NOT_BUILDABLE"


async def test_a_deadline_that_passes_aborts_the_saga(world: World) -> None:
    one = await world.coordinator()
    await world.start(one, story=replace(definition("a", "b"), deadline_ms=5_000))
    await one.answer("DO a 1")
    late = await one.sent("DO b 1")
    await world.until(SagaState.COMPENSATING)
    assert now() == pytest.approx(5, abs=0.1)
    late.answer(Done(b"b-ok"))
    await one.answer("COMPENSATE b 1")
    await one.answer("COMPENSATE a 1")
    saga = await world.until(SagaState.COMPENSATED)
    assert saga.failure is not None
    assert saga.failure.reason == "SAGA_DEADLINE_EXCEEDED"

"""What every barrier promises, whatever it stores its rows in."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable

import grpc
import pytest
from google.protobuf.message import Message

from mesh.errors import (
    Conflict,
    InvalidRequest,
    MeshError,
    NotNow,
    RecordMissing,
    Rejected,
    Retry,
    to_status,
)
from mesh.step import GuardedStep, StepCall
from tests.contract.barrier_harness import BarrierHarness

CALL = StepCall(saga_id="saga-1", step="the_step")


async def insist(ask: Callable[[], Awaitable[Message]]) -> Message:
    """Ask as the coordinator does: again after every answer that leaves the outcome unknown."""
    for _ in range(50):
        try:
            return await ask()
        except (Conflict, Retry):
            await asyncio.sleep(0)
    raise AssertionError("no clear answer after 50 attempts")


async def compensate(
    step: GuardedStep, harness: BarrierHarness, response: Message | None = None
) -> Message:
    message = step.types.compensation(request=harness.request(), response=response)
    return await insist(lambda: step.compensate(CALL, message))


async def refused(ask: Awaitable[Message], reason: str) -> MeshError:
    with pytest.raises(MeshError) as caught:
        await ask
    assert caught.value.reason == reason
    return caught.value


async def test_a_do_has_one_effect_and_answers(harness: BarrierHarness) -> None:
    step = harness.guarded()

    response = await step.do(CALL, harness.request())

    assert isinstance(response, step.types.response)
    assert await harness.effects_held(CALL.saga_id) == 1


async def test_a_repeated_do_is_answered_the_stored_response(harness: BarrierHarness) -> None:
    first = await harness.guarded().do(CALL, harness.request())
    again = await harness.guarded().do(CALL, harness.request())

    assert again.SerializeToString() == first.SerializeToString()
    assert await harness.effects_held(CALL.saga_id) == 1


async def test_a_stored_response_outlives_a_change_of_mind(harness: BarrierHarness) -> None:
    step = harness.guarded()
    first = await step.do(CALL, harness.request())
    await harness.make_it_reject()

    assert await step.do(CALL, harness.request()) == first


async def test_a_rejection_leaves_no_effect(harness: BarrierHarness) -> None:
    await harness.make_it_reject()

    error = await refused(harness.guarded().do(CALL, harness.request()), "OUT_OF_STOCK")

    assert isinstance(error, Rejected)
    assert await harness.effects_held(CALL.saga_id) == 0


async def test_a_stored_rejection_is_replayed_byte_for_byte(harness: BarrierHarness) -> None:
    await harness.make_it_reject()
    first = await refused(harness.guarded().do(CALL, harness.request()), "OUT_OF_STOCK")
    await harness.make_it_accept()

    again = await refused(harness.guarded().do(CALL, harness.request()), "OUT_OF_STOCK")

    assert isinstance(again, Rejected)
    assert status_bytes(again) == status_bytes(first)
    assert again.code is grpc.StatusCode.FAILED_PRECONDITION
    assert await harness.effects_held(CALL.saga_id) == 0


def status_bytes(error: MeshError) -> bytes:
    return to_status(error, domain="unused.v1").SerializeToString(deterministic=True)


async def test_another_request_under_the_same_key_is_refused(harness: BarrierHarness) -> None:
    step = harness.guarded()
    first = await step.do(CALL, harness.request())

    error = await refused(step.do(CALL, harness.request(variant=1)), "STEP_REQUEST_CHANGED")

    assert isinstance(error, Conflict)
    assert await step.do(CALL, harness.request()) == first
    assert await harness.effects_held(CALL.saga_id) == 1


async def test_another_request_after_a_rejection_is_refused(harness: BarrierHarness) -> None:
    step = harness.guarded()
    await harness.make_it_reject()
    await refused(step.do(CALL, harness.request()), "OUT_OF_STOCK")

    await refused(step.do(CALL, harness.request(variant=1)), "STEP_REQUEST_CHANGED")


async def test_sagas_do_not_share_a_key(harness: BarrierHarness) -> None:
    step = harness.guarded()
    other = StepCall(saga_id="saga-2", step=CALL.step)

    await step.do(CALL, harness.request())
    await step.do(other, harness.request(variant=1))

    assert await harness.effects_held(CALL.saga_id) == 1
    assert await harness.effects_held(other.saga_id) == 1


async def test_steps_of_one_saga_do_not_share_a_key(harness: BarrierHarness) -> None:
    step = harness.guarded()
    other = StepCall(saga_id=CALL.saga_id, step="another_step")
    await step.do(CALL, harness.request())
    response = await step.do(other, harness.request(variant=1))

    await compensate(step, harness)

    assert await harness.effects_held(CALL.saga_id) == 1
    assert await step.do(other, harness.request(variant=1)) == response


async def test_a_twin_beside_a_paused_do_adds_no_effect(harness: BarrierHarness) -> None:
    pause = harness.pause()
    request = harness.request()
    first = asyncio.create_task(insist(lambda: harness.guarded().do(CALL, request)))
    await pause.reached()
    twin = asyncio.create_task(insist(lambda: harness.guarded().do(CALL, request)))
    await harness.underway(twin)
    pause.resume()

    assert await first == await twin
    assert await harness.effects_held(CALL.saga_id) == 1


async def test_twenty_duplicates_at_once_have_one_effect(harness: BarrierHarness) -> None:
    request = harness.request()
    duplicates = [insist(lambda: harness.guarded().do(CALL, request)) for _ in range(20)]

    responses = await asyncio.gather(*duplicates)

    assert len({response.SerializeToString() for response in responses}) == 1
    assert await harness.effects_held(CALL.saga_id) == 1


async def test_compensate_undoes_a_do(harness: BarrierHarness) -> None:
    step = harness.guarded()
    response = await step.do(CALL, harness.request())

    answer = await compensate(step, harness, response)

    assert isinstance(answer, step.types.compensated)
    assert await harness.effects_held(CALL.saga_id) == 0


async def test_compensate_undoes_a_do_whose_answer_was_lost(harness: BarrierHarness) -> None:
    step = harness.guarded()
    await step.do(CALL, harness.request())

    await compensate(step, harness)

    assert await harness.effects_held(CALL.saga_id) == 0


async def test_a_doubled_compensate_undoes_once(harness: BarrierHarness) -> None:
    step = harness.guarded()
    await step.do(CALL, harness.request())

    first = await compensate(step, harness)

    assert await compensate(step, harness) == first
    assert await harness.effects_held(CALL.saga_id) == 0


async def test_five_compensates_at_once_undo_once(harness: BarrierHarness) -> None:
    response = await harness.guarded().do(CALL, harness.request())

    await asyncio.gather(*(compensate(harness.guarded(), harness, response) for _ in range(5)))

    assert await harness.effects_held(CALL.saga_id) == 0


async def test_a_late_do_after_compensate_is_refused(harness: BarrierHarness) -> None:
    step = harness.guarded()
    await step.do(CALL, harness.request())
    await compensate(step, harness)

    error = await refused(step.do(CALL, harness.request()), "STEP_ALREADY_COMPENSATED")

    assert isinstance(error, NotNow)
    assert await harness.effects_held(CALL.saga_id) == 0


async def test_a_do_that_arrives_after_its_compensate_is_refused(harness: BarrierHarness) -> None:
    step = harness.guarded()

    await compensate(step, harness)

    await refused(step.do(CALL, harness.request()), "STEP_ALREADY_COMPENSATED")
    assert await harness.effects_held(CALL.saga_id) == 0


async def test_a_compensate_during_a_do_leaves_nothing(harness: BarrierHarness) -> None:
    pause = harness.pause()
    step = harness.guarded()
    doing = asyncio.create_task(step.do(CALL, harness.request()))
    await pause.reached()
    undoing = asyncio.create_task(compensate(harness.guarded(), harness))
    await harness.underway(undoing)
    pause.resume()

    await asyncio.wait({doing, undoing})

    undoing.result()
    assert doing.exception() is None or isinstance(doing.exception(), MeshError)
    assert await harness.effects_held(CALL.saga_id) == 0
    await refused(step.do(CALL, harness.request()), "STEP_ALREADY_COMPENSATED")


async def test_a_compensate_after_a_rejection_has_no_effect(harness: BarrierHarness) -> None:
    step = harness.guarded()
    await harness.make_it_reject()
    await refused(step.do(CALL, harness.request()), "OUT_OF_STOCK")
    await harness.make_it_accept()

    await compensate(step, harness)

    await refused(step.do(CALL, harness.request()), "STEP_ALREADY_COMPENSATED")
    assert await harness.effects_held(CALL.saga_id) == 0


async def test_a_response_without_its_record_is_never_called_undone(
    harness: BarrierHarness,
) -> None:
    step = harness.guarded()
    response = await step.do(CALL, harness.request())
    await harness.forget(CALL.saga_id)

    for _ in range(2):
        with pytest.raises(RecordMissing) as caught:
            await compensate(step, harness, response)
        assert caught.value.reason == "STEP_RECORD_MISSING"


async def test_an_expired_do_is_refused_before_it_leaves_a_trace(harness: BarrierHarness) -> None:
    expired = StepCall(saga_id=CALL.saga_id, step=CALL.step, not_after_ms=1_000)

    await refused(harness.guarded(lambda: 1_001).do(expired, harness.request()), "STEP_EXPIRED")

    assert await harness.effects_held(CALL.saga_id) == 0
    await harness.guarded().do(CALL, harness.request(variant=1))


async def test_an_expired_do_is_refused_also_when_it_is_done(harness: BarrierHarness) -> None:
    timed = StepCall(saga_id=CALL.saga_id, step=CALL.step, not_after_ms=1_000)
    await harness.guarded(lambda: 1_000).do(timed, harness.request())

    await refused(harness.guarded(lambda: 1_001).do(timed, harness.request()), "STEP_EXPIRED")

    assert await harness.effects_held(CALL.saga_id) == 1


async def test_a_do_that_expires_on_its_way_has_no_effect(harness: BarrierHarness) -> None:
    timed = StepCall(saga_id=CALL.saga_id, step=CALL.step, not_after_ms=1_000)
    readings = itertools.chain([1_000], itertools.repeat(1_001))

    await refused(
        harness.guarded(lambda: next(readings)).do(timed, harness.request()), "STEP_EXPIRED"
    )

    assert await harness.effects_held(CALL.saga_id) == 0
    await compensate(harness.guarded(), harness)
    assert await harness.effects_held(CALL.saga_id) == 0


async def test_a_request_over_one_mebibyte_is_refused_without_a_trace(
    harness: BarrierHarness,
) -> None:
    step = harness.guarded()

    error = await refused(step.do(CALL, harness.large_request()), "REQUEST_TOO_LARGE")

    assert isinstance(error, InvalidRequest)
    await step.do(CALL, harness.request())
    assert await harness.effects_held(CALL.saga_id) == 1


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_comes_in_whatever_order_one_effect_or_none(
    harness: BarrierHarness, seed: int
) -> None:
    chance = random.Random(seed)
    request = harness.request()

    async def do() -> None:
        try:
            await insist(lambda: harness.guarded().do(CALL, request))
        except (NotNow, Rejected):
            return

    async def undo() -> None:
        await compensate(harness.guarded(), harness)

    calls = [do] * chance.randint(1, 6) + [undo] * chance.randint(0, 3)
    chance.shuffle(calls)
    await asyncio.gather(*(call() for call in calls))

    undone = undo in calls
    assert await harness.effects_held(CALL.saga_id) == (0 if undone else 1)

"""What every barrier tells of its records, over the service that all participants share."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import cast

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.clock import wall_clock_ms
from mesh.effect_service import EffectService
from mesh.effects import EffectKey, EffectState
from mesh.errors import Rejected
from mesh.rpc.served import Context
from mesh.step import StepCall
from protos.mesh.v1 import mesh_pb2 as pb
from tests.contract.barrier_harness import BarrierHarness

CALLER = cast("Context", None)


def call(saga_id: str, step: str = "the_step") -> StepCall:
    return StepCall(saga_id=saga_id, step=step)


async def held(harness: BarrierHarness, *saga_ids: str, step: str = "the_step") -> None:
    for saga_id in saga_ids:
        await harness.guarded().do(call(saga_id, step), harness.request())


async def rejected(harness: BarrierHarness, saga_id: str) -> None:
    await harness.make_it_reject()
    with suppress(Rejected):
        await harness.guarded().do(call(saga_id), harness.request())
    await harness.make_it_accept()


async def compensated(harness: BarrierHarness, saga_id: str) -> None:
    step = harness.guarded()
    undo: Message = step.types.compensation(request=harness.request())
    await step.compensate(call(saga_id), undo)


async def listed(
    harness: BarrierHarness, request: pb.ListEffectsRequest | None = None
) -> list[pb.Effect]:
    """Everything that is found, over all pages."""
    service, found = EffectService(harness.effects()), list[pb.Effect]()
    request = request or pb.ListEffectsRequest()
    while True:
        page = await service.ListEffects(request, CALLER)
        found += page.effects
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def sagas(effects: list[pb.Effect]) -> list[str]:
    return sorted(effect.saga_id for effect in effects)


async def test_each_record_is_told_with_its_state(harness: BarrierHarness) -> None:
    await held(harness, "kept", "undone")
    await rejected(harness, "refused")
    await compensated(harness, "undone")
    await compensated(harness, "never")

    told = {(it.saga_id, it.step): it.state for it in await listed(harness)}

    assert told == {
        ("kept", "the_step"): pb.EFFECT_STATE_HELD,
        ("undone", "the_step"): pb.EFFECT_STATE_COMPENSATED,
        ("refused", "the_step"): pb.EFFECT_STATE_REJECTED,
        ("never", "the_step"): pb.EFFECT_STATE_COMPENSATED,
    }


async def test_a_half_done_effect_is_told_or_not_there_at_all(harness: BarrierHarness) -> None:
    pause = harness.pause()
    doing = asyncio.create_task(harness.guarded().do(call("half"), harness.request()))
    await pause.reached()
    found = [it.state for it in await listed(harness)]
    pause.resume()
    await doing

    assert found in ([], [pb.EFFECT_STATE_DOING])
    assert [it.state for it in await listed(harness)] == [pb.EFFECT_STATE_HELD]


async def test_pages_of_any_size_tell_each_record_once(harness: BarrierHarness) -> None:
    names = ["a", "a-1", "a_1", "a1", "A", "b", "saga", "saga-1", "0", "Z-z"]
    await held(harness, *names)
    await held(harness, "a", "a-1", step="other")

    for size in (1, 2, 5, 12, 13):
        found = await listed(harness, pb.ListEffectsRequest(page_size=size))
        assert sagas(found) == sorted([*names, "a", "a-1"])


async def test_a_page_without_a_match_leads_on(harness: BarrierHarness) -> None:
    await held(harness, "a", "b")
    await compensated(harness, "c")

    found = await listed(
        harness, pb.ListEffectsRequest(page_size=1, states=[pb.EFFECT_STATE_COMPENSATED])
    )

    assert sagas(found) == ["c"]


async def test_records_are_found_by_the_time_of_their_change(harness: BarrierHarness) -> None:
    await held(harness, "a")
    (effect,) = await listed(harness)
    changed_ms = effect.update_time.ToMilliseconds()
    assert abs(changed_ms - wall_clock_ms()) < 60_000

    at, later = Timestamp(), Timestamp()
    at.FromMilliseconds(changed_ms)
    later.FromMilliseconds(changed_ms + 1)

    assert sagas(await listed(harness, pb.ListEffectsRequest(since_time=at))) == ["a"]
    assert await listed(harness, pb.ListEffectsRequest(since_time=later)) == []


async def test_records_are_found_by_their_saga(harness: BarrierHarness) -> None:
    await held(harness, "saga", "saga-1", "sag")
    await held(harness, "saga", step="other")

    found = await listed(harness, pb.ListEffectsRequest(saga_id="saga"))

    assert sorted(it.step for it in found) == ["other", "the_step"]
    assert set(sagas(found)) == {"saga"}
    assert await listed(harness, pb.ListEffectsRequest(saga_id="nobody")) == []


async def test_certain_records_are_read_by_their_keys(harness: BarrierHarness) -> None:
    await held(harness, "a", "b")
    keys = [EffectKey("a", "the_step"), EffectKey("a", "no_step"), EffectKey("c", "the_step")]

    found = await harness.effects().find(keys)

    assert [(it.key, it.state) for it in found] == [(keys[0], EffectState.HELD)]


async def test_a_forgotten_record_does_not_stop_a_walk(harness: BarrierHarness) -> None:
    await held(harness, "a", "b", "c")
    service = EffectService(harness.effects())
    page = await service.ListEffects(pb.ListEffectsRequest(page_size=1), CALLER)
    await harness.forget(page.effects[0].saga_id)

    request = pb.ListEffectsRequest(page_size=1, page_token=page.next_page_token)
    following = await service.ListEffects(request, CALLER)

    assert sagas([*page.effects, *following.effects]) == ["a", "b"]

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import cast

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.barrier import mongo_effects, postgres_effects
from mesh.barrier.mongo_algorithm import State
from mesh.barrier.rules import BarrierState
from mesh.effect_service import MAX_KEYS, MAX_SIZE, EffectService
from mesh.effects import Effect, EffectKey, EffectState
from mesh.errors import InvalidRequest
from mesh.rpc.served import Context
from protos.mesh.v1 import mesh_pb2 as pb

CALLER = cast("Context", None)
KEY = EffectKey("saga-1", "the_step")


class Records:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def page(self, after: EffectKey | None, limit: int) -> Sequence[Effect]:
        self.asked.append((after, limit))
        return [Effect(KEY, EffectState.HELD, 1_000)]

    async def of_saga(self, saga_id: str) -> Sequence[Effect]:
        self.asked.append(saga_id)
        return []

    async def find(self, keys: Sequence[EffectKey]) -> Sequence[Effect]:
        self.asked.append(keys)
        return [Effect(key, EffectState.HELD, 1_000) for key in keys]


async def listing(request: pb.ListEffectsRequest) -> Sequence[object]:
    records = Records()
    await EffectService(records).ListEffects(request, CALLER)
    return records.asked


async def violations(request: pb.ListEffectsRequest) -> list[str]:
    with pytest.raises(InvalidRequest) as refused:
        await listing(request)
    return [violation.field for violation in refused.value.violations]


@pytest.mark.parametrize(("asked", "size"), [(0, 500), (7, 7), (MAX_SIZE + 1, MAX_SIZE)])
async def test_a_page_has_a_size_within_limits(asked: int, size: int) -> None:
    assert await listing(pb.ListEffectsRequest(page_size=asked)) == [(None, size)]


async def test_a_page_of_no_size_is_refused() -> None:
    assert await violations(pb.ListEffectsRequest(page_size=-1)) == ["page_size"]


NO_TOKENS = ["!", "YQ", "é", *(base64.urlsafe_b64encode(text).decode() for text in (b"a", b"\xff"))]


@pytest.mark.parametrize("token", [*NO_TOKENS, base64.urlsafe_b64encode(b"a:B").decode()])
async def test_a_token_that_is_none_is_refused(token: str) -> None:
    assert await violations(pb.ListEffectsRequest(page_token=token)) == ["page_token"]


async def test_a_time_outside_the_calendar_is_refused() -> None:
    assert await violations(pb.ListEffectsRequest(since_time=Timestamp(seconds=1 << 60))) == [
        "since_time"
    ]
    assert await violations(pb.ListEffectsRequest(since_time=Timestamp(nanos=-1))) == ["since_time"]


async def test_a_saga_id_that_no_saga_has_is_refused() -> None:
    assert await violations(pb.ListEffectsRequest(saga_id="no saga")) == ["saga_id"]


@pytest.mark.parametrize("state", [0, 99])
async def test_a_state_that_no_effect_has_is_refused(state: int) -> None:
    assert await violations(
        pb.ListEffectsRequest(states=[pb.EFFECT_STATE_HELD, cast("pb.EffectState", state)])
    ) == ["states"]


async def test_a_batch_asks_for_each_key_once() -> None:
    records = Records()
    key = pb.EffectKey(saga_id=KEY.saga_id, step=KEY.step)
    request = pb.BatchGetEffectsRequest(keys=[key, key])

    answer = await EffectService(records).BatchGetEffects(request, CALLER)

    assert records.asked == [[KEY]]
    assert [(it.saga_id, it.step) for it in answer.effects] == [KEY]


@pytest.mark.parametrize(
    ("keys", "fields"),
    [
        (
            [pb.EffectKey(saga_id="a", step="b"), pb.EffectKey()],
            ["keys[1].saga_id", "keys[1].step"],
        ),
        ([pb.EffectKey()] * (MAX_KEYS + 1), ["keys"]),
    ],
)
async def test_a_batch_that_makes_no_sense_is_refused(
    keys: list[pb.EffectKey], fields: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await EffectService(Records()).BatchGetEffects(pb.BatchGetEffectsRequest(keys=keys), CALLER)
    assert [violation.field for violation in refused.value.violations] == fields


def test_every_state_of_every_barrier_is_told() -> None:
    assert postgres_effects.STATES.keys() == set(BarrierState)
    assert mongo_effects.STATES.keys() == set(State)

"""What participants say that they hold, asked over gRPC: `reconciliation.base.HeldEffects`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import grpc

from coordinator.reconciliation.base import THERE, EffectsUnavailable
from mesh.effect_service import MAX_KEYS, STATES
from mesh.effects import Effect, EffectKey
from mesh.step import SAGA_ID_PATTERN, SAGA_STEP_PATTERN
from protos.mesh.v1 import mesh_pb2 as pb
from protos.mesh.v1 import mesh_pb2_grpc

PAGE = 2_000
TIMEOUT_SECONDS = 30.0
"""Limit of one page."""

AnswerT = TypeVar("AnswerT")
RequestT = TypeVar("RequestT")

_STATE_OF = {told: state for state, told in STATES.items()}


class GrpcEffects:
    """`HeldEffects` over the channels to the participants, by their names."""

    def __init__(self, channels: Mapping[str, grpc.aio.Channel]) -> None:
        self._services = {
            name: mesh_pb2_grpc.EffectServiceStub(channel) for name, channel in channels.items()
        }

    @property
    def participants(self) -> Sequence[str]:
        """See `HeldEffects.participants`."""
        return tuple(self._services)

    async def held(self, participant: str, since_ms: int) -> AsyncIterator[Sequence[Effect]]:
        """See `HeldEffects.held`."""
        request = pb.ListEffectsRequest(page_size=PAGE, states=[STATES[state] for state in THERE])
        request.since_time.FromMilliseconds(since_ms)
        while True:
            page = await _ask(participant, self._services[participant].ListEffects, request)
            yield [_effect(participant, effect) for effect in page.effects]
            if not page.next_page_token:
                return
            if page.next_page_token == request.page_token:
                raise EffectsUnavailable(f"{participant}: its pages do not lead on")
            request.page_token = page.next_page_token

    async def find(self, participant: str, keys: Sequence[EffectKey]) -> Sequence[Effect]:
        """See `HeldEffects.find`."""
        found: list[Effect] = []
        for start in range(0, len(keys), MAX_KEYS):
            some = (pb.EffectKey(saga_id=k.saga_id, step=k.step) for k in keys[start:][:MAX_KEYS])
            request = pb.BatchGetEffectsRequest(keys=some)
            batch = await _ask(participant, self._services[participant].BatchGetEffects, request)
            found += (_effect(participant, effect) for effect in batch.effects)
        return found


async def _ask(
    participant: str, method: Callable[..., Awaitable[AnswerT]], request: RequestT
) -> AnswerT:
    try:
        return await method(request, timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        why = f"{error.code().name}, {error.details()}"
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            why = "it serves no mesh.v1.EffectService"
        raise EffectsUnavailable(f"{participant}: {why}") from error


def _effect(participant: str, told: pb.Effect) -> Effect:
    try:
        return Effect(_key(told), _STATE_OF[told.state], told.update_time.ToMilliseconds())
    except (KeyError, ValueError) as error:
        raise EffectsUnavailable(f"{participant}: it told a record that cannot be") from error


def _key(told: pb.Effect) -> EffectKey:
    if not SAGA_ID_PATTERN.fullmatch(told.saga_id) or not SAGA_STEP_PATTERN.fullmatch(told.step):
        raise ValueError("no key of a step")
    return EffectKey(told.saga_id, told.step)

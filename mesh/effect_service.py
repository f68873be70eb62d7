"""mesh.v1.EffectService: what every participant tells of the effects that it holds."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

from typing_extensions import override

from mesh.effects import Effect, EffectKey, Effects, EffectState
from mesh.errors import FieldViolation
from mesh.rpc.served import Context
from mesh.step import SAGA_ID_PATTERN, SAGA_STEP_PATTERN
from mesh.validation import refuse_if_any
from protos.mesh.v1 import mesh_pb2 as pb
from protos.mesh.v1 import mesh_pb2_grpc

DEFAULT_SIZE = 500
MAX_SIZE = 5_000
MAX_KEYS = 1_000

STATES = {
    EffectState.DOING: pb.EFFECT_STATE_DOING,
    EffectState.HELD: pb.EFFECT_STATE_HELD,
    EffectState.REJECTED: pb.EFFECT_STATE_REJECTED,
    EffectState.COMPENSATING: pb.EFFECT_STATE_COMPENSATING,
    EffectState.COMPENSATED: pb.EFFECT_STATE_COMPENSATED,
}


class EffectService(mesh_pb2_grpc.EffectServiceServicer):
    """Answers EffectService from the records of a barrier."""

    def __init__(self, effects: Effects) -> None:
        self._effects = effects

    @override
    async def ListEffects(
        self, request: pb.ListEffectsRequest, context: Context
    ) -> pb.ListEffectsResponse:
        """List records, a page at a time.

        A page is of records that were looked at, whether or not the filters let them through: so
        none takes long, however few there are to be found.

        Raises:
            InvalidRequest: with every field that is wrong.
            Retry: the store is away.
        """
        refuse_if_any(_list_violations(request))
        size = min(request.page_size or DEFAULT_SIZE, MAX_SIZE)
        if request.saga_id:
            seen, token = await self._effects.of_saga(request.saga_id), ""
        else:
            seen = await self._effects.page(read_token(request.page_token), size)
            token = make_token(seen[-1].key) if len(seen) == size else ""
        return pb.ListEffectsResponse(effects=_asked_for(seen, request), next_page_token=token)

    @override
    async def BatchGetEffects(
        self, request: pb.BatchGetEffectsRequest, context: Context
    ) -> pb.BatchGetEffectsResponse:
        """Read the records of some steps.

        Raises:
            InvalidRequest: with every field that is wrong.
            Retry: the store is away.
        """
        refuse_if_any(_batch_violations(request))
        keys = {EffectKey(key.saga_id, key.step): None for key in request.keys}
        found = await self._effects.find(list(keys))
        return pb.BatchGetEffectsResponse(effects=map(_message, found))


def read_token(token: str) -> EffectKey | None:
    """The key that the page begins after; None for the first page.

    Raises:
        ValueError: no token of ours.
    """
    if not token:
        return None
    saga_id, _, step = base64.b64decode(token, b"-_", validate=True).decode().partition(":")
    if list(_key_violations("", saga_id, step)):
        raise ValueError("no key of a step")
    return EffectKey(saga_id, step)


def make_token(key: EffectKey) -> str:
    """The token of the page that begins after this key."""
    return base64.urlsafe_b64encode(":".join(key).encode()).decode()


def _asked_for(seen: Sequence[Effect], request: pb.ListEffectsRequest) -> Iterator[pb.Effect]:
    since_ms = request.since_time.ToMilliseconds() if request.HasField("since_time") else 0
    states = frozenset(request.states or STATES.values())
    for effect in seen:
        if effect.updated_ms >= since_ms and STATES[effect.state] in states:
            yield _message(effect)


def _message(effect: Effect) -> pb.Effect:
    message = pb.Effect(
        saga_id=effect.key.saga_id, step=effect.key.step, state=STATES[effect.state]
    )
    message.update_time.FromMilliseconds(effect.updated_ms)
    return message


def _list_violations(request: pb.ListEffectsRequest) -> Iterator[FieldViolation]:
    if request.page_size < 0:
        yield FieldViolation("page_size", f"must be 0 to {MAX_SIZE}")
    try:
        read_token(request.page_token)
    except ValueError:
        yield FieldViolation("page_token", "must be the next_page_token of a response")
    try:
        request.since_time.ToMilliseconds()
    except ValueError:
        yield FieldViolation("since_time", "must be between the years 1 and 9999")
    if request.saga_id and not SAGA_ID_PATTERN.fullmatch(request.saga_id):
        yield FieldViolation("saga_id", f"must match {SAGA_ID_PATTERN.pattern}")
    if not frozenset(request.states) <= frozenset(STATES.values()):
        yield FieldViolation("states", "must be states of effects, and not UNSPECIFIED")


def _batch_violations(request: pb.BatchGetEffectsRequest) -> Iterator[FieldViolation]:
    if len(request.keys) > MAX_KEYS:
        yield FieldViolation("keys", f"must be at most {MAX_KEYS}")
        return
    for index, key in enumerate(request.keys):
        yield from _key_violations(f"keys[{index}].", key.saga_id, key.step)


def _key_violations(place: str, saga_id: str, step: str) -> Iterator[FieldViolation]:
    if not SAGA_ID_PATTERN.fullmatch(saga_id):
        yield FieldViolation(f"{place}saga_id", f"must match {SAGA_ID_PATTERN.pattern}")
    if not SAGA_STEP_PATTERN.fullmatch(step):
        yield FieldViolation(f"{place}step", f"must match {SAGA_STEP_PATTERN.pattern}")

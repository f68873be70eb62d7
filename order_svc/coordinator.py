"""What this service asks of the coordinator, with its refusals in this service's own words.

Retry                COORDINATOR_UNAVAILABLE   away, busy, or no answer: it may have happened
Retry                DEFINITION_NOT_FOUND      nobody has registered place-order yet
CoordinatorRefused   COORDINATOR_REFUSED       it will not, until somebody mends the deployment
"""

from __future__ import annotations

from typing import cast

import grpc
import grpc.aio
from google.protobuf import any_pb2

from mesh.errors import MeshError, Refusal, Retry, read_refusal
from protos.order.v1 import order_pb2
from protos.saga.v1 import saga_pb2, saga_pb2_grpc

DEFINITION = "place-order"
TRY_SECONDS = 2.5
"""Limit of one StartSaga of two: past both the placement stays, and the sweep asks again."""
READ_SECONDS = 0.5
"""Limit of GetSaga: a reader of an order does not wait for the reason of a failure."""

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
)
"""Of several coordinators each is asked in turn. One that comes back is noticed within seconds, and
one that has frozen or vanished while it is asked: until then the second try finds another one."""

_INPUT_TYPE = f"type.googleapis.com/{order_pb2.PlaceOrderInput.DESCRIPTOR.full_name}"
_AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    }
)
_ANOTHER_MAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
"""What one coordinator says that is away, frozen or draining."""
_FINAL = frozenset(
    {
        saga_pb2.SAGA_STATE_COMPLETED,
        saga_pb2.SAGA_STATE_COMPENSATED,
        saga_pb2.SAGA_STATE_ABANDONED,
    }
)
_MAY_HAVE_EFFECTS = frozenset(
    {
        saga_pb2.STEP_STATE_DOING,
        saga_pb2.STEP_STATE_DONE,
        saga_pb2.STEP_STATE_COMPENSATING,
    }
)


class CoordinatorRefused(MeshError):
    """The coordinator will not run place-order as this service asks for it."""


class Coordinator:
    """The public API of the coordinator, as far as orders need it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._sagas = saga_pb2_grpc.SagaServiceStub(channel)

    async def start(self, saga_id: str, saga_input: bytes) -> saga_pb2.Saga:
        """Start the saga of an order, or look at the one that was started before.

        Raises:
            Retry: it may or may not have started.
            CoordinatorRefused: it will not, until somebody mends the deployment.
        """
        packed = any_pb2.Any(type_url=_INPUT_TYPE, value=saga_input)
        request = saga_pb2.StartSagaRequest(saga_id=saga_id, definition=DEFINITION, input=packed)
        try:
            answer = await self._start(request)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error
        return _checked(answer.saga, saga_id)

    async def _start(self, request: saga_pb2.StartSagaRequest) -> saga_pb2.StartSagaResponse:
        """Ask one coordinator and then, which the saga's id makes harmless, perhaps another one.

        The second try also waits for one that is just coming back.
        """
        try:
            return await self._try(request)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _ANOTHER_MAY:
                raise
        return await self._try(request, wait_for_ready=True)

    async def _try(
        self, request: saga_pb2.StartSagaRequest, *, wait_for_ready: bool = False
    ) -> saga_pb2.StartSagaResponse:
        answer: saga_pb2.StartSagaResponse = await self._sagas.StartSaga(
            request, timeout=TRY_SECONDS, wait_for_ready=wait_for_ready
        )
        return answer

    async def look(self, saga_id: str) -> saga_pb2.Saga:
        """Look at one saga, quickly.

        Raises:
            Retry: the coordinator is away or slow.
            CoordinatorRefused: it does not know the saga.
        """
        request = saga_pb2.GetSagaRequest(saga_id=saga_id)
        try:
            answer = await self._sagas.GetSaga(request, timeout=READ_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise _translate(error) from error
        return _checked(answer.saga, saga_id)


def is_final(saga: saga_pb2.Saga) -> bool:
    """Whether nothing can happen to the saga any more."""
    return saga.state in _FINAL


def is_abandoned(saga: saga_pb2.Saga) -> bool:
    """Whether an operator ended the saga where it was."""
    return saga.state == saga_pb2.SAGA_STATE_ABANDONED


def failure_reason(saga: saga_pb2.Saga) -> str:
    """Why the saga undoes or has undone its steps, such as CARD_DECLINED; empty while it may not.

    Of one that was abandoned it also names the steps whose effects may still be there.
    """
    told = saga.failure
    reason = (told.reason or told.code or "UNKNOWN") if saga.HasField("failure") else ""
    return _abandoned(saga, reason) if is_abandoned(saga) else reason


def _abandoned(saga: saga_pb2.Saga, reason: str) -> str:
    left = ", ".join(step.name for step in saga.steps if step.state in _MAY_HAVE_EFFECTS)
    end = f"ended by an operator, left open: {left or 'nothing'}"
    return f"{reason}; {end}" if reason else end


def _checked(saga: saga_pb2.Saga, saga_id: str) -> saga_pb2.Saga:
    if saga.saga_id != saga_id or saga.state == saga_pb2.SAGA_STATE_UNSPECIFIED:
        raise CoordinatorRefused(
            "COORDINATOR_REFUSED",
            f"the coordinator answered with something else than saga {saga_id}",
            metadata={"saga_id": saga_id},
        )
    return saga


def _translate(error: grpc.aio.AioRpcError) -> MeshError:
    # The type stubs describe the error of the other, synchronous API.
    trailing = cast("grpc.aio.Metadata", error.trailing_metadata())
    refusal = read_refusal(error.code(), error.details() or "", trailing)
    metadata = {"code": refusal.code.name, "reason": refusal.reason}
    if refusal.reason == "DEFINITION_NOT_FOUND":
        return Retry(
            refusal.reason,
            f"the coordinator has no definition {DEFINITION} yet",
            retry_after_ms=_retry_after_ms(refusal),
            metadata={"definition": DEFINITION},
        )
    if refusal.code in _AWAY:
        return Retry(
            "COORDINATOR_UNAVAILABLE",
            f"the coordinator did not answer ({refusal.code.name})",
            retry_after_ms=_retry_after_ms(refusal),
            metadata=metadata,
        )
    return CoordinatorRefused(
        "COORDINATOR_REFUSED",
        f"the coordinator refused with {refusal.code.name} {refusal.reason}".rstrip(),
        metadata=metadata,
    )


def _retry_after_ms(refusal: Refusal) -> int:
    return 1_000 if refusal.retry_after_ms is None else refusal.retry_after_ms

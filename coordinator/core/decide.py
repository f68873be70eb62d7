"""What happens next: the one function that matters.

`decide(saga, event)` says what an event makes of a saga and which calls it asks for, each with the
exact bytes to send. It is pure. The engine writes event and calls in one append and performs a call
only after that append is on disk, so recovery is: fold the history, perform what is outstanding
(`recover`). Nothing is computed twice; neither a newer library nor a newer version of this code can
make a recovered saga forget or change a call that may already have been made.

Forward, the first step that is not DONE is next. Backward, it is the last one that may have
happened: it is undone before anything earlier is touched, and not while its own Do is in flight.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from coordinator.core import evolve
from coordinator.core.commands import Call
from coordinator.core.compensation import compensation_bytes
from coordinator.core.events import AttemptFailed, Event, Started, StepRejected
from coordinator.core.model import (
    Definition,
    Direction,
    Failure,
    FailureKind,
    RequestNotBuildable,
    SagaState,
    StepState,
)
from coordinator.core.saga import Saga, next_to_do, next_to_undo

# Looked up once: on Python 3.11 that takes as long as anything else here does.
_RUNNING, _COMPENSATING = SagaState.RUNNING, SagaState.COMPENSATING
_DOING, _DO = StepState.DOING, Direction.DO


class Decision(Struct, frozen=True, gc=False):
    """What an event makes of a saga. `saga` already holds `commands` as outstanding."""

    saga: Saga
    commands: tuple[Call, ...]
    then: Event | None = None
    """An event that follows by itself once this one is on disk."""


def start(saga_id: str, definition: Definition, event: Started) -> Decision:
    """Begin a saga.

    Raises:
        RequestNotBuildable: the first step's request cannot be built from this input.
    """
    saga = evolve.begin(saga_id, definition, event)
    commands = _forward(saga, due_ms=0)
    return Decision(evolve.record(saga, commands), commands)


def decide(saga: Saga, event: Event) -> Decision:
    """Say what an event makes of a saga and which calls it asks for.

    Raises:
        IllegalEvent: it cannot happen to this saga now; nothing has changed.
    """
    after = evolve.apply(saga, event)
    due_ms = event.retry_at_ms if isinstance(event, AttemptFailed) else 0
    try:
        commands = _next_calls(after, due_ms)
    except RequestNotBuildable as error:
        return Decision(after, (), _not_buildable(after, event.time_ms, str(error)))
    return Decision(evolve.record(after, commands), commands)


def recover(saga: Saga, time_ms: int) -> tuple[tuple[Call, ...], tuple[Event, ...]]:
    """Say how a saga goes on in another process: calls to perform as written, and what is lost.

    After an abort no Do is sent again and none is awaited: whoever awaited it is gone.
    """
    if saga.state is SagaState.RUNNING:
        calls = tuple(_outstanding(saga))
        if calls:
            return calls, ()
        return (), (_not_buildable(saga, time_ms, "the coordinator stopped before it was built"),)
    if saga.state is SagaState.COMPENSATING:
        calls = tuple(c for c in _outstanding(saga) if c.direction is Direction.COMPENSATE)
        lost = tuple(
            _lost(call, time_ms) for call in _outstanding(saga) if call.direction is Direction.DO
        )
        return calls, lost
    return (), ()


def _outstanding(saga: Saga) -> Iterable[Call]:
    return (progress.call for progress in saga.steps if progress.call is not None)


def _lost(call: Call, time_ms: int) -> AttemptFailed:
    return AttemptFailed(
        time_ms=time_ms,
        step=call.step,
        direction=call.direction,
        attempt=call.attempt,
        failure=Failure(
            kind=FailureKind.UNKNOWN,
            code="UNAVAILABLE",
            reason="COORDINATOR_RESTARTED",
            message="the coordinator stopped while the call was in flight",
            step=call.step,
        ),
        retry_at_ms=time_ms,
    )


def _not_buildable(saga: Saga, time_ms: int, message: str) -> StepRejected:
    step = saga.definition.steps[next_to_do(saga)].name
    failure = Failure(
        kind=FailureKind.REJECTED,
        code="FAILED_PRECONDITION",
        reason="REQUEST_NOT_BUILDABLE",
        message=message,
        step=step,
    )
    return StepRejected(time_ms=time_ms, step=step, attempt=0, failure=failure)


def _next_calls(saga: Saga, due_ms: int) -> tuple[Call, ...]:
    if saga.state is _RUNNING:
        return _forward(saga, due_ms)
    if saga.state is _COMPENSATING:
        return _backward(saga, due_ms)
    return ()  # it has ended, or waits for its operator


def _forward(saga: Saga, due_ms: int) -> tuple[Call, ...]:
    place = next_to_do(saga)
    step, progress = saga.definition.steps[place], saga.steps[place]
    if progress.call is not None:
        return ()
    if progress.state is _DOING:
        request = progress.request
    else:
        request = step.build(saga.input_bytes, _responses(saga))
    attempt = progress.attempt + 1
    return (Call(step=step.name, direction=_DO, attempt=attempt, request=request, due_ms=due_ms),)


def _responses(saga: Saga) -> dict[str, bytes]:
    return {
        name: progress.response
        for name, progress in zip(saga.definition.places, saga.steps, strict=True)
        if progress.response is not None
    }


def _backward(saga: Saga, due_ms: int) -> tuple[Call, ...]:
    place = next_to_undo(saga)
    step, progress = saga.definition.steps[place], saga.steps[place]
    if progress.call is not None:
        return ()
    again = progress.state is StepState.COMPENSATING
    call = Call(
        step=step.name,
        direction=Direction.COMPENSATE,
        attempt=progress.attempt + 1 if again else 1,
        request=compensation_bytes(progress.request, progress.response),
        due_ms=due_ms if again else 0,
    )
    return (call,)

"""The fold: a saga is what its events and commands made of it, and nothing else.

`apply` and `record` are the only functions that make a new `Saga` from an old one. A live saga goes
through them once per event; a recovered one goes through the same, event by event (`replay`), so
the two cannot differ. Nothing is computed here that is not in the event, the commands or the pinned
definition.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

from coordinator.core import retry
from coordinator.core.commands import Call
from coordinator.core.events import (
    Abandoned,
    Aborted,
    AttemptFailed,
    Event,
    Retried,
    Started,
    StepCompensated,
    StepDone,
    StepRejected,
    StepSkipped,
    Stuck,
)
from coordinator.core.model import (
    Definition,
    Direction,
    Failure,
    FailureKind,
    Saga,
    SagaState,
    StepProgress,
    StepState,
)
from coordinator.core.transitions import (
    MAY_HAVE_HAPPENED,
    IllegalEvent,
    SagaTrigger,
    StaleAnswer,
    StepTrigger,
    next_saga_state,
    next_step_state,
)

_DECIDED = {
    Direction.DO: StepTrigger.DO_DECIDED,
    Direction.COMPENSATE: StepTrigger.COMPENSATE_DECIDED,
}


def begin(saga_id: str, definition: Definition, event: Started) -> Saga:
    """Return the saga as it is after its first event, before any command."""
    return Saga(
        saga_id=saga_id,
        definition=definition,
        input_bytes=event.input_bytes,
        state=SagaState.RUNNING,
        revision=1,
        steps=tuple(StepProgress() for _ in definition.steps),
        created_ms=event.time_ms,
        updated_ms=event.time_ms,
        deadline_ms=event.deadline_ms,
        keys=event.keys,
        traceparent=event.traceparent,
    )


def replay(
    saga_id: str, definition: Definition, entries: Iterable[tuple[Event, tuple[Call, ...]]]
) -> Saga:
    """Fold a saga from its durable history, oldest entry first.

    Raises:
        IllegalEvent: the history is not one that this definition can have.
    """
    saga: Saga | None = None
    for event, commands in entries:
        if saga is None:
            if not isinstance(event, Started):
                raise IllegalEvent(f"a history that begins with {type(event).__name__}")
            saga = begin(saga_id, definition, event)
        else:
            saga = apply(saga, event)
        saga = record(saga, commands)
    if saga is None:
        raise IllegalEvent("an empty history")
    return saga


def apply(saga: Saga, event: Event) -> Saga:
    """Return the saga after an event, before the commands that it calls for.

    Raises:
        IllegalEvent: it cannot happen to this saga now.
    """
    if saga.state.final:
        raise IllegalEvent(f"a saga that is {saga.state.value}: {type(event).__name__}")
    after = replace(saga, revision=saga.revision + 1, updated_ms=event.time_ms)
    match event:
        case StepDone() | StepRejected() | AttemptFailed() | StepCompensated():
            return _settle(_apply_answer(after, event))
        case Aborted() | Stuck() | Retried() | StepSkipped() | Abandoned():
            return _settle(_apply_word(after, event))
        case Started():
            raise IllegalEvent("a saga that is started twice")
        case _:
            assert_never(event)


def record(saga: Saga, commands: Iterable[Call]) -> Saga:
    """Return the saga with these commands outstanding."""
    for call in commands:
        saga = _put(saga, call.step, _outstanding(saga, call))
    return saga


def open_steps(saga: Saga) -> tuple[str, ...]:
    """Names of the steps whose effect may be there, in the order of the definition."""
    return tuple(
        step.name
        for step, progress in zip(saga.definition.steps, saga.steps, strict=True)
        if progress.state in MAY_HAVE_HAPPENED
    )


def progress_of(saga: Saga, step: str) -> StepProgress:
    """Progress of a step by name.

    Raises:
        IllegalEvent: the definition has no such step.
    """
    return saga.steps[_index(saga, step)]


def _index(saga: Saga, step: str) -> int:
    for index, candidate in enumerate(saga.definition.steps):
        if candidate.name == step:
            return index
    raise IllegalEvent(f"a step {step!r} that the definition does not have")


def _put(saga: Saga, step: str, progress: StepProgress) -> Saga:
    index = _index(saga, step)
    return replace(saga, steps=(*saga.steps[:index], progress, *saga.steps[index + 1 :]))


def _outstanding(saga: Saga, call: Call) -> StepProgress:
    progress = progress_of(saga, call.step)
    state = next_step_state(progress.state, _DECIDED[call.direction])
    fresh = state is not progress.state  # a direction begins, and its budget with it
    return replace(
        progress,
        state=state,
        call=call,
        attempt=call.attempt,
        request=call.request if call.direction is Direction.DO else progress.request,
        since_ms=saga.updated_ms if fresh else progress.since_ms,
        spent=0 if fresh else progress.spent,
        hopeless=0 if fresh else progress.hopeless,
    )


# --- answers ----------------------------------------------------------------


def _apply_answer(
    saga: Saga, event: StepDone | StepRejected | AttemptFailed | StepCompensated
) -> Saga:
    progress = _answered(saga, event)
    match event:
        case StepDone():
            return _put(saga, event.step, _done(progress, event))
        case StepCompensated():
            state = next_step_state(progress.state, StepTrigger.COMPENSATED)
            undone = replace(progress, state=state, call=None, failure=None)
            return _put(saga, event.step, undone)
        case StepRejected():
            saga = _put(saga, event.step, _rejected(progress, event))
            return _abort(saga, event.failure)
        case AttemptFailed():
            return _apply_failure(saga, _failed(progress, event), event)
        case _:
            assert_never(event)


def _answered(
    saga: Saga, event: StepDone | StepRejected | AttemptFailed | StepCompensated
) -> StepProgress:
    progress = progress_of(saga, event.step)
    if saga.state is SagaState.STUCK:
        raise StaleAnswer(f"an answer to {event.step!r} of a saga that is STUCK")
    if event.attempt == 0 and progress.state is StepState.PENDING:
        return progress  # refused by the coordinator itself, before anything was sent
    call, direction = progress.call, _direction(event)
    if call is None or call.direction is not direction or call.attempt != event.attempt:
        raise StaleAnswer(f"{direction.value} {event.step!r} attempt {event.attempt}")
    return progress


def _direction(event: StepDone | StepRejected | AttemptFailed | StepCompensated) -> Direction:
    match event:
        case AttemptFailed():
            return event.direction
        case StepCompensated():
            return Direction.COMPENSATE
        case StepDone() | StepRejected():
            return Direction.DO
        case _:
            assert_never(event)


def _done(progress: StepProgress, event: StepDone) -> StepProgress:
    return replace(
        progress,
        state=next_step_state(progress.state, StepTrigger.DONE),
        call=None,
        response=event.response,
        failure=None,
        span_id=event.span_id,
    )


def _rejected(progress: StepProgress, event: StepRejected) -> StepProgress:
    proven = event.failure.kind is FailureKind.REJECTED
    trigger = StepTrigger.REJECTED if proven else StepTrigger.FAILED
    return replace(
        progress,
        state=next_step_state(progress.state, trigger),
        call=None,
        failure=event.failure,
        span_id=event.span_id,
    )


def _failed(progress: StepProgress, event: AttemptFailed) -> StepProgress:
    undoing = event.direction is Direction.COMPENSATE
    hopeless = undoing and event.failure.kind is not FailureKind.UNKNOWN
    return replace(
        progress,
        state=next_step_state(progress.state, StepTrigger.FAILED),
        call=None,
        failure=event.failure,
        spent=progress.spent + 1,
        hopeless=progress.hopeless + hopeless,
        span_id=progress.span_id if undoing else event.span_id,
    )


def _apply_failure(saga: Saga, failed: StepProgress, event: AttemptFailed) -> Saga:
    saga = _put(saga, event.step, failed)
    if not _is_spent(saga, failed, event):
        return saga
    if event.direction is Direction.COMPENSATE:
        return _halt(saga, event.failure)
    return _abort(saga, event.failure)


def _is_spent(saga: Saga, progress: StepProgress, event: AttemptFailed) -> bool:
    step = saga.definition.steps[_index(saga, event.step)]
    undoing = event.direction is Direction.COMPENSATE
    return progress.hopeless >= retry.HOPELESS_LIMIT or retry.is_spent(
        step.compensation_retry if undoing else step.retry,
        failed=progress.spent,
        since_ms=progress.since_ms,
        retry_at_ms=event.retry_at_ms,
    )


# --- words of clients, operators and the coordinator itself -------------------


def _apply_word(saga: Saga, event: Aborted | Stuck | Retried | StepSkipped | Abandoned) -> Saga:
    match event:
        case Aborted():
            if saga.state is not SagaState.RUNNING:
                raise IllegalEvent(f"a saga that is {saga.state.value}: abort")
            return _forget_calls(_abort(saga, event.failure), keep=event.awaited)
        case Stuck():
            return _halt(saga, event.failure)
        case Retried():
            return _resume(saga)
        case StepSkipped():
            return _skip(saga, event.step)
        case Abandoned():
            return replace(saga, state=next_saga_state(saga.state, SagaTrigger.ABANDON))
        case _:
            assert_never(event)


def _abort(saga: Saga, failure: Failure) -> Saga:
    if saga.failure is not None:
        return saga  # the first abort counts
    state = next_saga_state(saga.state, SagaTrigger.ABORT)
    return replace(saga, state=state, failure=failure)


def _halt(saga: Saga, failure: Failure) -> Saga:
    return replace(saga, state=next_saga_state(saga.state, SagaTrigger.HALT), stuck=failure)


def _resume(saga: Saga) -> Saga:
    forward = saga.failure is None
    trigger = SagaTrigger.RESUME_FORWARD if forward else SagaTrigger.RESUME_BACKWARD
    resumed = replace(saga, state=next_saga_state(saga.state, trigger), stuck=None)
    return _fresh_budgets(_forget_calls(resumed, keep=frozenset()))


def _forget_calls(saga: Saga, *, keep: frozenset[str]) -> Saga:
    names = (step.name for step in saga.definition.steps)
    steps = (
        progress if name in keep else replace(progress, call=None)
        for name, progress in zip(names, saga.steps, strict=True)
    )
    return replace(saga, steps=tuple(steps))


def _fresh_budgets(saga: Saga) -> Saga:
    steps = (replace(p, since_ms=saga.updated_ms, spent=0, hopeless=0) for p in saga.steps)
    return replace(saga, steps=tuple(steps))


def _skip(saga: Saga, step: str) -> Saga:
    if saga.failure is None:
        raise IllegalEvent("a step skipped before the saga was aborted")
    progress = progress_of(saga, step)
    state = next_step_state(progress.state, StepTrigger.SKIPPED)
    return _resume(_put(saga, step, replace(progress, state=state)))


# --- what the steps add up to --------------------------------------------------


def _settle(saga: Saga) -> Saga:
    states = {progress.state for progress in saga.steps}
    if saga.state is SagaState.RUNNING and states == {StepState.DONE}:
        return replace(saga, state=next_saga_state(saga.state, SagaTrigger.ALL_DONE))
    if saga.state is SagaState.COMPENSATING and states.isdisjoint(MAY_HAVE_HAPPENED):
        return replace(saga, state=next_saga_state(saga.state, SagaTrigger.ALL_UNDONE))
    return saga

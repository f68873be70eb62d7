"""What the answer to an attempt makes of a saga."""

from __future__ import annotations

from typing import TypeAlias, assert_never

from msgspec.structs import replace

from coordinator.core import retry
from coordinator.core.events import AttemptFailed, StepCompensated, StepDone, StepRejected
from coordinator.core.model import Direction, FailureKind, SagaState, StepState
from coordinator.core.saga import Saga, StepProgress, place_of, step_of, with_progress
from coordinator.core.transitions import StaleAnswer, StepTrigger, next_step_state
from coordinator.core.words import abort, halt

_DO, _STUCK = Direction.DO, SagaState.STUCK

Answered: TypeAlias = StepDone | StepRejected | AttemptFailed | StepCompensated


def apply_answer(saga: Saga, event: Answered) -> Saga:
    """Return the saga after an answer, before what its steps then add up to.

    Raises:
        StaleAnswer: it belongs to an attempt that is not the one waited for.
    """
    place = place_of(saga, event.step)
    progress = saga.steps[place]
    match event:
        case StepDone():
            _check_awaited(saga, progress, event, _DO)
            return with_progress(saga, place, _done(progress, event))
        case StepCompensated():
            _check_awaited(saga, progress, event, Direction.COMPENSATE)
            return with_progress(saga, place, _compensated(progress))
        case StepRejected():
            _check_awaited(saga, progress, event, Direction.DO)
            rejected = with_progress(saga, place, _rejected(progress, event))
            return abort(rejected, event.failure)
        case AttemptFailed():
            _check_awaited(saga, progress, event, event.direction)
            failed = _failed(progress, event)
            return _apply_failure(with_progress(saga, place, failed), failed, event)
        case _:
            assert_never(event)


def _check_awaited(
    saga: Saga, progress: StepProgress, event: Answered, direction: Direction
) -> None:
    if saga.state is _STUCK:
        raise StaleAnswer(f"an answer to {event.step!r} of a saga that is STUCK")
    call = progress.call
    if call is not None and call.attempt == event.attempt and call.direction is direction:
        return
    if event.attempt == 0 and progress.state is StepState.PENDING:
        return  # refused by the coordinator itself, before anything was sent
    raise StaleAnswer(f"{direction.value} {event.step!r} attempt {event.attempt}")


def _done(progress: StepProgress, event: StepDone) -> StepProgress:
    return replace(
        progress,
        state=next_step_state(progress.state, StepTrigger.DONE),
        call=None,
        response=event.response,
        failure=None,
        span_id=event.span_id,
    )


def _compensated(progress: StepProgress) -> StepProgress:
    state = next_step_state(progress.state, StepTrigger.COMPENSATED)
    return replace(progress, state=state, call=None, failure=None)


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
    return replace(
        progress,
        state=next_step_state(progress.state, StepTrigger.FAILED),
        call=None,
        failure=event.failure,
        spent=progress.spent + 1,
        hopeless=progress.hopeless + _is_hopeless(event),
        span_id=progress.span_id if undoing else event.span_id,
    )


def _is_hopeless(event: AttemptFailed) -> bool:
    """Whether no retry cures it. (A Do that is refused is no failed attempt but a rejection.)"""
    return event.failure.kind is not FailureKind.UNKNOWN


def _apply_failure(saga: Saga, failed: StepProgress, event: AttemptFailed) -> Saga:
    undoing = event.direction is Direction.COMPENSATE
    if saga.failure is not None and not undoing:
        return saga  # the Do was awaited after the abort, and will be compensated
    if failed.hopeless >= retry.HOPELESS_LIMIT:
        return halt(saga, event.failure)
    if not _is_spent(saga, failed, event):
        return saga
    return halt(saga, event.failure) if undoing else abort(saga, event.failure)


def _is_spent(saga: Saga, progress: StepProgress, event: AttemptFailed) -> bool:
    step = step_of(saga, event.step)
    undoing = event.direction is Direction.COMPENSATE
    return retry.is_spent(
        step.compensation_retry if undoing else step.retry,
        failed=progress.spent,
        since_ms=progress.since_ms,
        retry_at_ms=event.retry_at_ms,
    )

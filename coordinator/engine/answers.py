"""From a participant's answer to the event that it is."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core import retry
from coordinator.core.commands import Call
from coordinator.core.events import (
    AttemptFailed,
    Event,
    StepCompensated,
    StepDone,
    StepRejected,
)
from coordinator.core.model import Direction, FailureKind, RetryPolicy, Step
from coordinator.core.saga import Saga, progress_of, step_of
from coordinator.participants.base import Answer, Done, Failed

_FINAL_NO = frozenset({FailureKind.REJECTED, FailureKind.REFUSED})


def event_of(saga: Saga, call: Call, answer: Answer, *, now_ms: int, chance: float) -> Event:
    """Say what an answer to a call means for its saga; `chance` lies in [0, 1)."""
    if isinstance(answer, Done):
        return _done(call, answer, now_ms)
    if call.direction is Direction.DO and answer.failure.kind in _FINAL_NO:
        return StepRejected(
            time_ms=now_ms,
            step=call.step,
            attempt=call.attempt,
            failure=replace(answer.failure, step=call.step),
            span_id=answer.span_id,
        )
    return _failed(saga, call, answer, now_ms=now_ms, chance=chance)


def _done(call: Call, answer: Done, now_ms: int) -> Event:
    if call.direction is Direction.COMPENSATE:
        return StepCompensated(time_ms=now_ms, step=call.step, attempt=call.attempt)
    return StepDone(
        time_ms=now_ms,
        step=call.step,
        attempt=call.attempt,
        response=answer.response,
        span_id=answer.span_id,
    )


def _failed(saga: Saga, call: Call, answer: Failed, *, now_ms: int, chance: float) -> AttemptFailed:
    retry_at_ms = retry.next_attempt_at(
        policy_of(step_of(saga, call.step), call.direction),
        now_ms=now_ms,
        failed=progress_of(saga, call.step).spent + 1,
        kind=answer.failure.kind,
        chance=chance,
        retry_after_ms=answer.retry_after_ms,
    )
    return AttemptFailed(
        time_ms=now_ms,
        step=call.step,
        direction=call.direction,
        attempt=call.attempt,
        failure=replace(answer.failure, step=call.step),
        retry_at_ms=retry_at_ms,
        span_id=answer.span_id,
    )


def policy_of(step: Step, direction: Direction) -> RetryPolicy:
    """The retry policy of one direction of a step."""
    return step.retry if direction is Direction.DO else step.compensation_retry


def due_ms(saga: Saga, call: Call, now_ms: int) -> int:
    """When a call is due; soon also when the clock was set back since that was written."""
    policy = policy_of(step_of(saga, call.step), call.direction)
    return min(call.due_ms, now_ms + retry.longest_wait_ms(policy))
